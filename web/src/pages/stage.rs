//! Stage: the cluster as a picture. Nodes and links are SVG, so that they can be focused and themed; messages fly
//! on a canvas above them, drawn at the screen's pace without the virtual DOM.

use std::collections::BTreeSet;

use qunlong_core::kv::{Op, WriteContext};
use qunlong_core::lift::Family;
use qunlong_core::member::{Class, State};
use qunlong_core::quorum::Level;
use qunlong_core::{Bytes, NodeId};
use wasm_bindgen_futures::spawn_local;
use web_sys::{HtmlCanvasElement, HtmlInputElement};
use yew::prelude::*;

use crate::app::{Action, Screen, Selected, focus};
use crate::canvas::Canvas;
use crate::cluster::{Mode, World};
use crate::components::{Confirm, badge, badges, state_mark, typed};
use crate::draw::{self, FAMILIES, HEIGHT, Placed, WIDTH};
use crate::explain::explain;
use crate::i18n;
use crate::model::Operation;

/// The screen.
#[function_component]
pub fn StagePage(screen: &Screen) -> Html {
    let texts = screen.texts();
    let toggle = screen.act.reform(|_: MouseEvent| Action::Table);
    let switch = if screen.view.table { texts.stage_picture } else { texts.stage_table };
    html! {
        <div class="stage-layout">
            <section class="theatre">
                <div class="stage-bar">
                    <Legend ..screen.clone() />
                    <OpenRecording ..screen.clone() />
                    <button class="quiet" onclick={toggle}>{ switch }</button>
                </div>
                <Showing ..screen.clone() />
                if screen.view.table { <Table ..screen.clone() /> } else { <Picture ..screen.clone() /> }
            </section>
            <aside class="side">
                <TryIt ..screen.clone() />
                <Inspector ..screen.clone() />
                <Quorums ..screen.clone() />
                <Story ..screen.clone() />
            </aside>
        </div>
    }
}

/// Chooses a file with a recording.
#[function_component]
fn OpenRecording(screen: &Screen) -> Html {
    let texts = screen.texts();
    let trouble = use_state(|| None::<String>);
    let choose = {
        let (cluster, trouble) = (screen.cluster.clone(), trouble.clone());
        move |event: Event| {
            let input: HtmlInputElement = event.target_unchecked_into();
            let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
            // The same file may be chosen again.
            input.set_value("");
            let (cluster, trouble) = (cluster.clone(), trouble.clone());
            spawn_local(async move { trouble.set(cluster.open_recording(file).await.err()) });
        }
    };
    html! {
        <>
            if let Some(trouble) = &*trouble {
                <span class="told bad" role="alert">{ i18n::trouble(screen.view.language, trouble) }</span>
            }
            <label class="button quiet">
                { texts.open_recording }
                <input id="recording" class="unseen" type="file" accept=".qlrec" onchange={choose} />
            </label>
        </>
    }
}

/// What is shown instead of the live cluster, how far it is, and the way back.
#[function_component]
fn Showing(screen: &Screen) -> Html {
    let texts = screen.texts();
    let world = screen.cluster.read();
    let Some(show) = &world.show else { return Html::default() };
    let back = {
        let cluster = screen.cluster.clone();
        move |_: MouseEvent| cluster.write().close_show()
    };
    let length = (show.length_ms() / 1_000.0) as u64;
    html! {
        <div class="showing" role="status">
            <b>{ texts.recording }</b>
            <span>{ &show.name }</span>
            <progress max={length.to_string()} value={show.position_s().to_string()} aria-label={texts.recording} />
            <span class="number">{ format!("{} / {length} s", show.position_s()) }</span>
            if let Some(hash) = show.hash {
                <span class="good" title={format!("{hash:016x}")}>{ format!("✓ {}", texts.recording_same) }</span>
            }
            <button id="live" onclick={back}>{ texts.back_to_live }</button>
        </div>
    }
}

/// The kinds of messages, which can be hidden one by one.
#[function_component]
fn Legend(screen: &Screen) -> Html {
    let texts = screen.texts();
    let items = FAMILIES.map(|family: Family| {
        let hidden = screen.cluster.read().playback.is_hidden(family);
        let toggle = {
            let cluster = screen.cluster.clone();
            move |_: MouseEvent| cluster.write().playback.toggle(family)
        };
        let class = classes!("legend-item", draw::colour(family).trim_start_matches('-').to_owned());
        html! {
            <button class={class} onclick={toggle} aria-pressed={(!hidden).to_string()}>
                <i aria-hidden="true" />{ i18n::family(screen.view.language, family) }
            </button>
        }
    });
    html! { <div class="legend" role="group" aria-label={texts.stage_legend} title={texts.stage_legend}>{ for items }</div> }
}

#[function_component]
fn Picture(screen: &Screen) -> Html {
    let texts = screen.texts();
    let canvas = use_node_ref();
    {
        let (canvas, cluster) = (canvas.clone(), screen.cluster.clone());
        use_effect_with((), move |()| {
            cluster.write().canvas = canvas.cast::<HtmlCanvasElement>().map(Canvas::new);
            move || cluster.write().canvas = None
        });
    }
    let world = screen.cluster.read();
    let links = links(&world).into_iter().filter_map(|(a, b)| link(screen, &world, a, b));
    let nodes = world.placed.iter().map(|placed| node(screen, &world, placed));
    html! {
        <div class="picture">
            <svg viewBox={format!("0 0 {WIDTH} {HEIGHT}")} role="group" aria-label={texts.stage_label}>
                <g class="links">{ for links }</g>
                <g class="nodes">{ for nodes }</g>
            </svg>
            <canvas ref={canvas} aria-hidden="true" />
            if world.placed.is_empty() { <p class="empty over">{ texts.stage_empty }</p> }
        </div>
    }
}

/// Servers are linked all to all, tabs to their relays.
fn links(world: &World) -> BTreeSet<(NodeId, NodeId)> {
    let mut links = BTreeSet::new();
    let shown: Vec<_> = world.placed.iter().map(|placed| &placed.member).filter(|m| m.state != State::Dead).collect();
    for a in shown.iter().filter(|member| member.profile.class == Class::Server) {
        links.extend(shown.iter().filter(|b| b.profile.class == Class::Server && a.id < b.id).map(|b| (a.id, b.id)));
    }
    for tab in shown.iter().filter(|member| member.profile.class == Class::Tab) {
        links.extend(tab.profile.relays.iter().map(|&relay| (relay, tab.id)));
    }
    links
}

fn is_cut(world: &World, a: NodeId, b: NodeId) -> bool {
    world.cuts.contains(&(a, b)) || world.cuts.contains(&(b, a))
}

fn link(screen: &Screen, world: &World, a: NodeId, b: NodeId) -> Option<Html> {
    let (from, to) = (draw::place_of(&world.placed, a)?, draw::place_of(&world.placed, b)?);
    let cut = is_cut(world, a, b);
    let selected = screen.view.selected == Some(Selected::Link(a, b));
    let select = screen.act.reform(move |_: MouseEvent| Action::Select(Some(Selected::Link(a, b))));
    let enter = {
        let act = screen.act.clone();
        move |event: KeyboardEvent| {
            if matches!(event.key().as_str(), "Enter" | " ") {
                event.prevent_default();
                event.stop_propagation();
                act.emit(Action::Select(Some(Selected::Link(a, b))));
            }
        }
    };
    let class = classes!("wire", cut.then_some("cut"), selected.then_some("selected"));
    let ends = [from.x, from.y, to.x, to.y].map(|n| format!("{n:.1}"));
    let [x1, y1, x2, y2] = ends;
    let middle = draw::Point { x: (from.x + to.x) / 2.0, y: (from.y + to.y) / 2.0 };
    let label = format!("{} – {}", world.name(a), world.name(b));
    Some(html! {
        <g key={format!("{a}{b}")} class={class} onclick={select} onkeydown={enter} tabindex="0" role="button" aria-label={label.clone()}>
            <title>{ label }</title>
            <line class="touch" x1={x1.clone()} y1={y1.clone()} x2={x2.clone()} y2={y2.clone()} />
            <line class="seen" x1={x1} y1={y1} x2={x2} y2={y2} />
            if cut { <text class="wall" x={format!("{:.1}", middle.x)} y={format!("{:.1}", middle.y + 9.0)}>{ "✂" }</text> }
        </g>
    })
}

fn node(screen: &Screen, world: &World, placed: &Placed) -> Html {
    let member = &placed.member;
    let (id, language) = (member.id, screen.view.language);
    let select = screen.act.reform(move |_: MouseEvent| Action::Select(Some(Selected::Node(id))));
    let keys = {
        let (act, cluster) = (screen.act.clone(), screen.cluster.clone());
        move |event: KeyboardEvent| match event.key().as_str() {
            "Enter" | " " => {
                event.prevent_default();
                event.stop_propagation();
                act.emit(Action::Select(Some(Selected::Node(id))));
            }
            "ArrowRight" | "ArrowDown" => walk(&act, neighbour(&cluster.read(), id, 1)),
            "ArrowLeft" | "ArrowUp" => walk(&act, neighbour(&cluster.read(), id, -1)),
            _ => (),
        }
    };
    let state_class = match member.state {
        State::Alive => "alive",
        State::Suspect => "suspect",
        State::Dead | State::Left => "dead",
    };
    let is_me = world.me() == Some(id);
    let selected = screen.view.selected == Some(Selected::Node(id));
    let kind = match member.profile.class {
        Class::Server => "server",
        Class::Tab => "tab",
    };
    let class = classes!("node", kind, state_class, is_me.then_some("me"), selected.then_some("selected"));
    let shape = match member.profile.class {
        Class::Server => html! { <rect class="body" x="-30" y="-26" width="60" height="52" rx="12" /> },
        Class::Tab => html! { <circle class="body" r="23" /> },
    };
    let mark = match (member.state, member.profile.class) {
        (State::Suspect, _) => "?",
        (State::Dead | State::Left, _) => "✕",
        (State::Alive, Class::Server) => "▤",
        (State::Alive, Class::Tab) => "▢",
    };
    let state = i18n::state(language, member.state);
    let under = if member.state == State::Alive {
        if is_me { screen.texts().you.to_owned() } else { i18n::class(language, member.profile.class).to_owned() }
    } else {
        state.to_owned()
    };
    let label = format!("{}, {}, {state}", member.profile.name, i18n::class(language, member.profile.class));
    let votes = world.playback.operations().iter().find(|operation| operation.op.node == id).map(votes);
    html! {
        <g key={id.to_string()} id={format!("node-{id:x}")} class={class} transform={format!("translate({:.1} {:.1})", placed.at.x, placed.at.y)}
           onclick={select} onkeydown={keys} tabindex="0" role="button" aria-label={label} aria-pressed={selected.to_string()}>
            { votes.unwrap_or_default() }
            { shape }
            <text class="mark" y="8">{ mark }</text>
            <text class="name" y="60">{ &member.profile.name }</text>
            <text class="under" y="77">{ under }</text>
        </g>
    }
}

fn neighbour(world: &World, id: NodeId, by: isize) -> Option<NodeId> {
    let at = world.placed.iter().position(|placed| placed.member.id == id)? as isize;
    let count = world.placed.len() as isize;
    Some(world.placed[(at + by).rem_euclid(count) as usize].member.id)
}

/// Selects a node and moves the keyboard there.
fn walk(act: &Callback<Action>, to: Option<NodeId>) {
    if let Some(id) = to {
        act.emit(Action::Select(Some(Selected::Node(id))));
        focus(&format!("node-{id:x}"));
    }
}

/// A ring of as many pieces as votes are needed, filled as they come in.
fn votes(operation: &Operation) -> Html {
    let (have, class) = match (operation.acked.len(), operation.read.len()) {
        (0, read) => (read, "reading"),
        (acked, _) => (acked, "writing"),
    };
    let needed = usize::from(operation.needed).max(1);
    let ended = operation.end.as_ref().map(|refusal| if refusal.is_none() { "done" } else { "failed" });
    let piece = std::f64::consts::TAU / needed as f64;
    let pieces = (0..needed).map(|i| {
        let (begin, end) = (piece * i as f64 + 0.12 - 1.57, piece * (i + 1) as f64 - 0.12 - 1.57);
        let radius = 42.0;
        let large = i32::from(end - begin > std::f64::consts::PI);
        let path = format!(
            "M{:.1} {:.1}A{radius} {radius} 0 {large} 1 {:.1} {:.1}",
            radius * begin.cos(),
            radius * begin.sin(),
            radius * end.cos(),
            radius * end.sin()
        );
        html! { <path d={path} class={classes!((i < have).then_some("filled"))} /> }
    });
    html! { <g class={classes!("votes", class, ended)}>{ for pieces }</g> }
}

/// The picture's twin for those who rather read.
#[function_component]
fn Table(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let rows = world.placed.iter().map(|placed| {
        let member = &placed.member;
        let id = member.id;
        let select = screen.act.reform(move |_: MouseEvent| Action::Select(Some(Selected::Node(id))));
        let incoming = world.playback.flights().filter(|(flight, _)| flight.to == id).count();
        let outgoing = world.playback.flights().filter(|(flight, _)| flight.from == id).count();
        html! {
            <tr key={id.to_string()}>
                <td><button class="link" onclick={select}>{ &member.profile.name }</button></td>
                <td>{ i18n::class(language, member.profile.class) }</td>
                <td>{ state_mark(language, member.state) }</td>
                <td class="number">{ format!("→ {incoming}") }</td>
                <td class="number">{ format!("{outgoing} →") }</td>
                <td>{ badges(&world, &member.profile.relays) }</td>
            </tr>
        }
    });
    html! {
        <div class="scroll"><table class="data">
            <thead><tr><th>{ texts.name }</th><th>{ texts.class }</th><th>{ texts.state }</th><th>{ texts.incoming }</th><th>{ texts.outgoing }</th><th>{ texts.relays }</th></tr></thead>
            <tbody>{ for rows }</tbody>
        </table></div>
    }
}

/// One line to write a key, so that the first visit has something to see.
#[function_component]
fn TryIt(screen: &Screen) -> Html {
    let texts = screen.texts();
    let key = use_state(|| "color".to_owned());
    let value = use_state(|| "blue".to_owned());
    let ready = {
        let world = screen.cluster.read();
        world.mode == Mode::Node && world.status.config.is_some() && world.show.is_none()
    };
    let submit = {
        let (cluster, key, value) = (screen.cluster.clone(), key.clone(), value.clone());
        move |event: SubmitEvent| {
            event.prevent_default();
            let op = Op::Put {
                key: key.as_str().into(),
                value: Some(Bytes::from(value.as_str())),
                context: WriteContext::Current,
                write: None,
                stored: Level::Majority,
                within: None,
            };
            let cluster = cluster.clone();
            spawn_local(async move {
                // How it ends is told by the votes and the story.
                let _ = cluster.ask(op).await;
            });
        }
    };
    let edit = |state: &UseStateHandle<String>| {
        let state = state.clone();
        move |event: InputEvent| state.set(typed(&event))
    };
    let why = if ready { texts.try_it } else { texts.keys_need_node };
    html! {
        <form class="card try-it" onsubmit={submit} title={why}>
            <h2>{ texts.try_it }</h2>
            <div class="row">
                <input aria-label={texts.key} required=true value={(*key).clone()} oninput={edit(&key)} />
                <span aria-hidden="true">{ "=" }</span>
                <input aria-label={texts.value} value={(*value).clone()} oninput={edit(&value)} />
                <button class="primary" disabled={!ready}>{ texts.put }</button>
            </div>
        </form>
    }
}

/// What is selected, and what can be done to it.
#[function_component]
fn Inspector(screen: &Screen) -> Html {
    let texts = screen.texts();
    let trouble = use_state(|| None::<String>);
    let content = match screen.view.selected {
        None => html! { <p class="empty">{ texts.stage_hint }</p> },
        Some(Selected::Node(id)) => inspect_node(screen, id, &trouble),
        Some(Selected::Link(a, b)) => inspect_link(screen, a, b, &trouble),
    };
    html! {
        <section class="card inspector">
            <h2>{ texts.inspector }</h2>
            { content }
            if let Some(trouble) = &*trouble { <p class="told bad" role="alert">{ trouble }</p> }
        </section>
    }
}

fn inspect_node(screen: &Screen, id: NodeId, trouble: &UseStateHandle<Option<String>>) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let Some(member) = world.member(id) else { return html! { <p class="empty">{ texts.stage_hint }</p> } };
    let order = |action: &'static str| {
        let (cluster, name, trouble) = (screen.cluster.clone(), member.profile.name.clone(), trouble.clone());
        Callback::from(move |()| {
            let (cluster, name, trouble) = (cluster.clone(), name.clone(), trouble.clone());
            spawn_local(async move { trouble.set(cluster.order(&name, action).await.err()) });
        })
    };
    let demo = world.demo.as_ref().and_then(|nodes| nodes.iter().find(|node| node.name == member.profile.name));
    let actions = match (member.profile.class, demo) {
        (Class::Server, Some(node)) if node.running => html! {
            <Confirm id="kill" label={texts.kill} sure={texts.kill_sure} on_confirm={order("kill")} />
        },
        (Class::Server, Some(_)) => html! {
            <button id="restart" class="primary" onclick={order("restart").reform(|_: MouseEvent| ())}>{ texts.restart }</button>
        },
        (Class::Server, None) => html! { <p class="note">{ texts.not_a_demo }</p> },
        (Class::Tab, _) => html! { <p class="note">{ texts.tabs_close }</p> },
    };
    let owns = if world.is_owner(id) { texts.owner } else { texts.not_owner };
    html! {
        <>
            <p class="who">{ badge(&world, id) }{ state_mark(language, member.state) }</p>
            <dl class="facts">
                <dt>{ texts.class }</dt><dd>{ format!("{} · {owns}", i18n::class(language, member.profile.class)) }</dd>
                <dt>{ texts.durability }</dt><dd>{ i18n::durability(language, member.profile.durability) }</dd>
                <dt>{ texts.boot }</dt><dd>{ format!("{} · {} {}", member.generation.0, texts.incarnation, member.incarnation) }</dd>
                if let Some(address) = &member.profile.address { <dt>{ texts.address }</dt><dd><code>{ address }</code></dd> }
                if !member.profile.relays.is_empty() { <dt>{ texts.relays }</dt><dd>{ badges(&world, &member.profile.relays) }</dd> }
            </dl>
            { actions }
        </>
    }
}

fn inspect_link(screen: &Screen, a: NodeId, b: NodeId, trouble: &UseStateHandle<Option<String>>) -> Html {
    let texts = screen.texts();
    let world = screen.cluster.read();
    let is_server = |id: NodeId| world.member(id).is_some_and(|member| member.profile.class == Class::Server);
    let cut = is_cut(&world, a, b);
    // Whichever end dropped the packets must stop to; a cut is made at an end that is a server.
    let (server, peer) = match (world.cuts.contains(&(b, a)), is_server(a)) {
        (true, _) | (false, false) => (b, a),
        (false, true) => (a, b),
    };
    let change = {
        let (cluster, trouble) = (screen.cluster.clone(), trouble.clone());
        Callback::from(move |()| {
            let (cluster, trouble) = (cluster.clone(), trouble.clone());
            spawn_local(async move { trouble.set(cluster.set_cut(server, peer, !cut).await.err()) });
        })
    };
    let actions = if world.demo.is_none() {
        html! { <p class="note">{ texts.not_a_demo_link }</p> }
    } else if !is_server(a) && !is_server(b) {
        html! { <p class="note">{ texts.link_needs_server }</p> }
    } else if cut {
        html! { <button id="heal" class="primary" onclick={change.reform(|_: MouseEvent| ())}>{ texts.heal_link }</button> }
    } else {
        html! { <Confirm id="cut" label={texts.cut_link} sure={texts.cut_sure} on_confirm={change} /> }
    };
    html! {
        <>
            <p class="who">{ texts.link }{ " " }{ badge(&world, a) }{ " – " }{ badge(&world, b) }</p>
            <p>{ if cut { texts.link_is_cut } else { texts.link_is_open } }</p>
            { actions }
        </>
    }
}

/// The newest operations with their votes.
#[function_component]
fn Quorums(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let rows = world.playback.operations().iter().take(4).map(|operation| {
        let pips = |votes: &[NodeId], label: &str| {
            let pips = (0..usize::from(operation.needed)).map(|i| {
                let voter = votes.get(i).map(|&id| world.name(id));
                html! { <i class={classes!("pip", voter.is_some().then_some("filled"))}>{ voter.unwrap_or_default() }</i> }
            });
            html! { <span class="votes-row"><small>{ label }</small>{ for pips }</span> }
        };
        let end = match &operation.end {
            None => html! { <span class="chip waiting">{ "…" }</span> },
            Some(None) => html! { <span class="chip good">{ format!("✓ {}", texts.done) }</span> },
            Some(Some(refusal)) => html! { <span class="chip bad">{ refusal.code() }</span> },
        };
        let writes = matches!(operation.kind, qunlong_core::kv::OpKind::Put | qunlong_core::kv::OpKind::Delete);
        html! {
            <li key={format!("{}-{}", operation.op.node, operation.op.seq)}>
                <p>{ badge(&world, operation.op.node) }{ format!(" {} ", i18n::operation(language, operation.kind)) }{ end }</p>
                <p class="key">{ operation.key.clone() }</p>
                if !operation.read.is_empty() || !writes { { pips(&operation.read, texts.read_votes) } }
                if writes { { pips(&operation.acked, texts.write_votes) } }
            </li>
        }
    });
    html! {
        <section class="card quorums">
            <h2>{ texts.operations }</h2>
            <ul>{ for rows }</ul>
            if world.playback.operations().is_empty() { <p class="empty">{ texts.operations_empty }</p> }
        </section>
    }
}

/// What happened, in sentences.
#[function_component]
fn Story(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let filter = screen.act.reform(|event: InputEvent| Action::Filter(typed(&event)));
    let world = screen.cluster.read();
    let name = |id: NodeId| world.name(id);
    let wanted = screen.view.filter.to_lowercase();
    let lines: Vec<Html> = world
        .playback
        .story()
        .iter()
        .map(|line| (line, explain(language, &line.event, &name)))
        .filter(|(_, text)| wanted.is_empty() || text.to_lowercase().contains(&wanted))
        .take(40)
        .map(|(line, text)| html! { <li key={line.number}>{ text }</li> })
        .collect();
    let nothing = if wanted.is_empty() { texts.story_empty } else { texts.story_no_match };
    html! {
        <section class="card story">
            <div class="row"><h2>{ texts.story }</h2><input id="filter" type="search" placeholder={texts.filter} aria-label={texts.filter} value={screen.view.filter.clone()} oninput={filter} /></div>
            if lines.is_empty() { <p class="empty">{ nothing }</p> }
            <ol aria-live="polite">{ for lines }</ol>
        </section>
    }
}
