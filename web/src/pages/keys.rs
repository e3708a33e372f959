//! Keys: read and write through this tab's own node, with siblings shown and resolvable.
//!
//! All of it goes to the namespace that is chosen on top, and waits for as many owners as the sliders say.

use qunlong_core::kv::{Op, Outcome, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::version::{Context, Versions};
use qunlong_core::{Bytes, NodeId, Refusal};
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use super::namespaces::NamespacesPanel;
use super::quorum::QuorumPanel;
use crate::app::{Action, Screen};
use crate::cluster::{Cluster, Mode};
use crate::components::{Confirm, badge, badges, typed};
use crate::driver::sleep;
use crate::i18n;
use crate::namespaces::{Kind, Space, outside};
use crate::overlap::Counts;

/// A page of the list.
const PAGE: u32 = 100;
/// The list is read again this often while it is on the screen.
const REFRESH_MS: i32 = 2_000;
/// While there is no node to ask, it is tried again this often.
const RETRY_MS: i32 = 300;

/// What the last request did, for people.
#[derive(Clone, PartialEq)]
enum Told {
    Nothing,
    Working,
    Written { node: NodeId, counter: u64, acked: Vec<NodeId> },
    Refused(Refusal),
    NoNode,
}

/// The open key, or why it could not be read.
type Open = Result<Read, Refusal>;

#[derive(Clone, PartialEq)]
struct Read {
    versions: Versions,
    answered: Vec<NodeId>,
}

/// The screen.
#[function_component]
pub fn KeysPage(screen: &Screen) -> Html {
    let named = screen.view.namespace.as_deref();
    let space = Space::chosen(screen.cluster.read().live_config(), Kind::Keys, named);
    // Another namespace begins with nothing listed, typed or told.
    html! {
        <div class="stacked">
            <NamespacesPanel screen={screen.clone()} kind={Kind::Keys} space={space.clone()} />
            <Keys key={space.name.clone()} screen={screen.clone()} space={space.clone()} />
        </div>
    }
}

#[derive(Properties, PartialEq)]
struct KeysProps {
    screen: Screen,
    space: Space,
}

/// The keys of one namespace.
#[function_component]
fn Keys(props: &KeysProps) -> Html {
    let KeysProps { screen, space } = props;
    let (texts, wish) = (screen.texts(), screen.view.wish);
    let prefix = use_state(String::new);
    let list = use_state(|| None::<Result<Vec<(Bytes, Versions)>, Refusal>>);
    let next = use_state(|| None::<Bytes>);
    let limit = use_state(|| PAGE);
    let open = use_state(|| None::<Open>);
    let told = use_state(|| Told::Nothing);
    let key = use_state(|| screen.view.key.clone().unwrap_or_default());
    let value = use_state(String::new);
    let alive = use_mut_ref(|| 0_u32);

    // A key opened by address or by link is the one to write to.
    {
        let key = key.setter();
        use_effect_with(screen.view.key.clone(), move |open| {
            if let Some(open) = open {
                key.set(open.clone());
            }
        });
    }
    // The list and the open key are read again and again while the screen is up.
    {
        let (cluster, list, next, open) = (screen.cluster.clone(), list.setter(), next.setter(), open.setter());
        let (alive, space) = (alive.clone(), space.clone());
        let dependencies = ((*prefix).clone(), *limit, screen.view.key.clone(), wish.read_level(), (*told).clone());
        use_effect_with(dependencies, move |(prefix, limit, key, level, _)| {
            let (prefix, limit, level) = (space.key(prefix), *limit, *level);
            let key = key.as_ref().map(|key| space.key(key));
            *alive.borrow_mut() += 1;
            let (mine, still) = (*alive.borrow(), alive.clone());
            spawn_local(async move {
                while *still.borrow() == mine {
                    let op = Op::List { prefix: prefix.clone(), after: None, limit, within: None };
                    let listed = cluster.ask(op).await;
                    if listed.is_none() {
                        // The node is still starting.
                        sleep(RETRY_MS).await;
                        continue;
                    }
                    match listed {
                        Some(Ok(Outcome::Listed { entries, next: more, .. })) => {
                            list.set(Some(Ok(entries)));
                            next.set(more);
                        }
                        Some(Err(refusal)) => list.set(Some(Err(refusal))),
                        Some(Ok(_)) | None => (),
                    }
                    if *still.borrow() != mine {
                        return;
                    }
                    if let Some(key) = &key {
                        open.set(read(&cluster, key, level).await);
                    }
                    sleep(REFRESH_MS).await;
                }
            });
            let stop = alive.clone();
            move || *stop.borrow_mut() += 1
        });
    }

    let write = {
        let (screen, space, told) = (screen.clone(), space.clone(), told.setter());
        Callback::from(move |(key, value, context): (String, Option<Bytes>, WriteContext)| {
            let inside = space.key(&key);
            let (cluster, act, told) = (screen.cluster.clone(), screen.act.clone(), told.clone());
            told.set(Told::Working);
            spawn_local(async move {
                let stored = wish.write_level();
                let op = Op::Put { key: inside, value, context, write: None, stored, within: None };
                told.set(match cluster.ask(op).await {
                    Some(Ok(Outcome::Written { dot, acked, .. })) => {
                        Told::Written { node: dot.node, counter: dot.counter, acked }
                    }
                    Some(Ok(_)) | None => Told::NoNode,
                    Some(Err(refusal)) => Told::Refused(refusal),
                });
                act.emit(Action::Key(Some(key)));
            });
        })
    };
    let submit = {
        let (write, key, value) = (write.clone(), key.clone(), value.clone());
        move |event: SubmitEvent| {
            event.prevent_default();
            if !key.is_empty() {
                write.emit(((*key).clone(), Some(Bytes::from(value.as_str())), WriteContext::Current));
            }
        }
    };
    let put_sibling = {
        let (write, key, value) = (write.clone(), key.clone(), value.clone());
        move |_: MouseEvent| {
            if !key.is_empty() {
                let nothing = WriteContext::Seen(Context::default());
                write.emit(((*key).clone(), Some(Bytes::from(value.as_str())), nothing));
            }
        }
    };
    let edit = |state: &UseStateHandle<String>| {
        let state = state.clone();
        move |event: InputEvent| state.set(typed(&event))
    };

    let world = screen.cluster.read();
    let can_write = world.mode == Mode::Node && world.live_config().is_some();
    let (shown_keys, no_keys) = match &*list {
        Some(Ok(keys)) if !keys.is_empty() => (keys.clone(), String::new()),
        Some(Ok(_)) if prefix.is_empty() => (Vec::new(), texts.keys_empty.to_owned()),
        Some(Ok(_)) => (Vec::new(), texts.keys_no_match.to_owned()),
        Some(Err(refusal)) => (Vec::new(), i18n::refusal(screen.view.language, refusal)),
        None if world.mode == Mode::Watch => (Vec::new(), texts.keys_need_node.to_owned()),
        None => (Vec::new(), texts.keys_loading.to_owned()),
    };
    let entries = shown_keys.iter().map(|(name, versions)| {
        let name = outside(name);
        let choose = {
            let (act, key, open, told) = (screen.act.clone(), key.clone(), open.clone(), told.clone());
            let name = name.clone();
            move |_: MouseEvent| {
                key.set(name.clone());
                open.set(None);
                told.set(Told::Nothing);
                act.emit(Action::Key(Some(name.clone())));
            }
        };
        let count = versions.values().count();
        let shown = versions.values().next().and_then(|sibling| sibling.value.clone()).map(|value| value.to_string());
        let current = (screen.view.key.as_deref() == Some(name.as_str())).then_some("true");
        html! {
            <li key={name.clone()}>
                <button class="entry" onclick={choose} aria-current={current}>
                    <b>{ name.clone() }</b>
                    <span>{ shown.unwrap_or_default().chars().take(60).collect::<String>() }</span>
                    if count > 1 { <em>{ format!("{count} {}", texts.siblings) }</em> }
                </button>
            </li>
        }
    });
    let lead = match (can_write, world.mode) {
        (true, _) => texts.keys_lead,
        (false, Mode::Node) => texts.keys_starting,
        (false, Mode::Watch) => texts.keys_need_node,
    };
    let get = {
        let (act, key, open, told) = (screen.act.clone(), key.clone(), open.clone(), told.clone());
        move |_: MouseEvent| {
            if !key.is_empty() {
                open.set(None);
                told.set(Told::Nothing);
                act.emit(Action::Key(Some((*key).clone())));
            }
        }
    };
    let more = {
        let limit = limit.clone();
        move |_: MouseEvent| limit.set(*limit + PAGE)
    };
    let message = match &*told {
        Told::Nothing => Html::default(),
        Told::Working => html! { <p class="told">{ texts.working }</p> },
        Told::Written { node, counter, acked } => html! {
            <p class="told good">
                { format!("✓ {} · {} ", texts.done, texts.minted_by) }{ badge(&world, *node) }{ format!(" #{counter} · {} ", texts.held_by) }
                { badges(&world, acked) }
            </p>
        },
        Told::Refused(refusal) => html! { <p class="told bad">{ i18n::refusal(screen.view.language, refusal) }</p> },
        Told::NoNode => html! { <p class="told bad">{ texts.keys_need_node }</p> },
    };
    html! {
        <div class="columns keys-layout">
            <section class="card list">
                <div class="row"><label>{ texts.prefix }<input id="filter" value={(*prefix).clone()} oninput={edit(&prefix)} /></label></div>
                <ul class="entries">{ for entries }</ul>
                if !no_keys.is_empty() { <p class="empty">{ no_keys }</p> }
                if next.is_some() { <button onclick={more}>{ texts.more }</button> }
            </section>
            <div class="stacked">
                <section class="card">
                    <h1>{ texts.keys_title }</h1>
                    <p class="lead">{ lead }</p>
                    <form class="write-form" onsubmit={submit}>
                        <label>{ texts.key }<input id="key" required=true maxlength="256" value={(*key).clone()} oninput={edit(&key)} /></label>
                        <label>{ texts.value }<textarea id="value" rows="2" value={(*value).clone()} oninput={edit(&value)} /></label>
                        <div class="row">
                            <button id="put" class="primary" disabled={!can_write}>{ texts.put }</button>
                            <button id="get" type="button" disabled={!can_write} onclick={get}>{ texts.get }</button>
                            <button id="put-sibling" type="button" disabled={!can_write} onclick={put_sibling}>{ texts.put_sibling }</button>
                        </div>
                    </form>
                    <div role="status" id="told">{ message }</div>
                    { one_key(screen, space, open.as_ref(), &write) }
                </section>
                <QuorumPanel screen={screen.clone()} space={space.clone()} can_ask={can_write} />
            </div>
        </div>
    }
}

async fn read(cluster: &Cluster, key: &Bytes, level: Level) -> Option<Open> {
    let op = Op::Get { key: key.clone(), read: level, within: None };
    match cluster.ask(op).await {
        Some(Ok(Outcome::Read { versions, answered })) => Some(Ok(Read { versions, answered })),
        Some(Err(refusal)) => Some(Err(refusal)),
        Some(Ok(_)) | None => None,
    }
}

/// The open key: its owners, its versions, and what can be done with them.
fn one_key(
    screen: &Screen,
    space: &Space,
    open: Option<&Open>,
    write: &Callback<(String, Option<Bytes>, WriteContext)>,
) -> Html {
    let texts = screen.texts();
    let world = screen.cluster.read();
    let Some(key) = screen.view.key.clone() else { return html! { <p class="empty">{ texts.choose_key }</p> } };
    let owners = world.live_config().map(|config| space.owners(config, &key)).unwrap_or_default();
    let quorum = space.known.map(|known| {
        let Counts { n, r, w } = Counts::of(screen.view.wish, known.mode, known.copies);
        format!("N = {n} · R = {r} · W = {w}")
    });
    let open = match open {
        Some(Ok(open)) => open,
        Some(Err(refusal)) => {
            let why = i18n::refusal(screen.view.language, refusal);
            return html! { <div class="one-key"><h2>{ key }</h2><p class="told bad">{ why }</p></div> };
        }
        None => return html! { <div class="one-key"><h2>{ key }</h2><p class="told">{ texts.working }</p></div> },
    };
    let context = WriteContext::Seen(open.versions.to_context());
    let values: Vec<_> = open.versions.values().cloned().collect();
    let has_siblings = values.len() > 1;
    let rows = values.iter().map(|sibling| {
        let text = sibling.value.as_ref().map(ToString::to_string).unwrap_or_default();
        let keep = {
            let (write, key, context) = (write.clone(), key.clone(), context.clone());
            let value = sibling.value.clone();
            move |_: MouseEvent| write.emit((key.clone(), value.clone(), context.clone()))
        };
        html! {
            <li>
                <pre>{ text }</pre>
                <small>{ format!("{} ", texts.minted_by) }{ badge(&world, sibling.dot.node) }{ format!(" #{}", sibling.dot.counter) }</small>
                if has_siblings { <button onclick={keep}>{ texts.keep_this }</button> }
            </li>
        }
    });
    let delete = {
        let (write, key, context) = (write.clone(), key.clone(), context.clone());
        Callback::from(move |()| write.emit((key.clone(), None, context.clone())))
    };
    html! {
        <div class="one-key">
            <h2 id="open-key">{ key.clone() }</h2>
            <p class="facts-line">{ texts.owners }{ " " }{ badges(&world, &owners) }{ " " }{ quorum.unwrap_or_default() }</p>
            if has_siblings { <p class="siblings-note"><b>{ format!("{} {}", values.len(), texts.siblings) }</b>{ " " }{ texts.siblings_lead }</p> }
            <ul class="versions" id="versions">{ for rows }</ul>
            if values.is_empty() { <p class="empty">{ texts.no_value }</p> }
            <p class="facts-line">{ texts.answered_by }{ " " }{ badges(&world, &open.answered) }</p>
            if !values.is_empty() { <Confirm label={texts.delete} sure={texts.delete_sure} on_confirm={delete} /> }
        </div>
    }
}
