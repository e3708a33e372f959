//! Consensus: a register to play with, of the namespace that is chosen on top, and the rounds on registers of all
//! namespaces as their votes come in.

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::namespace;
use qunlong_core::registers::{Op, Outcome};
use qunlong_core::{Bytes, Refusal};
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use super::change::disc;
use super::namespaces::NamespacesPanel;
use crate::app::Screen;
use crate::cluster::{Mode, World};
use crate::components::{badge, typed};
use crate::i18n;
use crate::namespaces::{Kind, Space};
use crate::rounds::{End, Round};

/// Rounds that are shown.
const SHOWN: usize = 10;
/// Who is asked for many additions at once is asked for so many.
const BURST: usize = 8;

/// What the last request did, for people.
#[derive(Clone, PartialEq)]
enum Told {
    Nothing,
    Working,
    Done(Result<Outcome, Refusal>),
    /// Many at once: how many were done.
    Many(usize),
    NoNode,
}

/// The screen.
#[function_component]
pub fn ConsensusPage(screen: &Screen) -> Html {
    let texts = screen.texts();
    let world = screen.cluster.read();
    let space = Space::chosen(world.live_config(), Kind::Registers, screen.view.namespace.as_deref());
    // Another namespace begins with nothing typed or told.
    html! {
        <div class="stacked">
            <NamespacesPanel screen={screen.clone()} kind={Kind::Registers} space={space.clone()} />
            <div class="columns two consensus">
                <section class="card">
                    <h1>{ texts.rounds_title }</h1>
                    <p class="lead">{ texts.rounds_lead }</p>
                    if world.playback.rounds().list().is_empty() { <p class="empty">{ texts.rounds_empty }</p> }
                    <ol class="rounds" id="rounds">
                        { for world.playback.rounds().list().iter().take(SHOWN).map(|round| one_round(screen, &world, round)) }
                    </ol>
                </section>
                <Register key={space.name.clone()} screen={screen.clone()} space={space.clone()} />
            </div>
        </div>
    }
}

#[derive(Properties, PartialEq)]
struct RegisterProps {
    screen: Screen,
    space: Space,
}

/// A register of one namespace.
#[function_component]
fn Register(props: &RegisterProps) -> Html {
    let RegisterProps { screen, space } = props;
    let texts = screen.texts();
    let key = use_state(|| "counter".to_owned());
    let value = use_state(String::new);
    let version = use_state(String::new);
    let told = use_state(|| Told::Nothing);

    let ask = {
        let (cluster, told) = (screen.cluster.clone(), told.setter());
        Callback::from(move |(op, times): (Op, usize)| {
            let (cluster, told) = (cluster.clone(), told.clone());
            told.set(Told::Working);
            spawn_local(async move {
                let asked = (0..times).map(|_| cluster.ask_register(op.clone()));
                let mut answers = futures::future::join_all(asked).await;
                let many = times > 1;
                told.set(match answers.pop() {
                    Some(Some(last)) if many => {
                        let done = answers.iter().filter(|answer| matches!(answer, Some(Ok(_)))).count();
                        Told::Many(done + usize::from(last.is_ok()))
                    }
                    Some(Some(answer)) => Told::Done(answer),
                    Some(None) | None => Told::NoNode,
                });
            });
        })
    };
    let inside = space.key(&key);
    let change = |what: Change| Op::Change { key: inside.clone(), change: what, name: None, seen: 0, within: None };
    let go = |op: Op, times: usize| {
        let (ask, has_key) = (ask.clone(), !key.is_empty());
        move |_: MouseEvent| {
            if has_key {
                ask.emit((op.clone(), times));
            }
        }
    };
    let when = version.trim().parse().map_or(When::Always, When::Version);
    let set = change(Change::Put { value: Bytes::from(value.as_str()), when, expiry: Expiry::Never });
    let submit = {
        let (ask, set, has_key) = (ask.clone(), set.clone(), !key.is_empty());
        move |event: SubmitEvent| {
            event.prevent_default();
            if has_key {
                ask.emit((set.clone(), 1));
            }
        }
    };
    let edit = |state: &UseStateHandle<String>| {
        let state = state.clone();
        move |event: InputEvent| state.set(typed(&event))
    };
    let world = screen.cluster.read();
    let can_ask = world.mode == Mode::Node && world.live_config().is_some();
    let is_atomic = space.known.is_some_and(|known| known.mode == namespace::Mode::Atomic);
    let why = is_atomic.then_some(texts.atomic_only);
    let add = go(change(Change::Increment { by: 1 }), 1);
    let many = go(change(Change::Increment { by: 1 }), BURST);
    let get = go(Op::Get { key: inside.clone(), within: None }, 1);
    html! {
        <section class="card">
            <h2>{ texts.register }</h2>
            <p class="note">{ if can_ask { texts.register_lead } else { texts.keys_need_node } }</p>
            if let Some(why) = why { <p class="note" id="register-why">{ why }</p> }
            <form class="write-form" onsubmit={submit}>
                <label>{ texts.key }<input id="register" required=true maxlength="256" value={(*key).clone()} oninput={edit(&key)} /></label>
                <label>{ texts.value }<input id="register-value" value={(*value).clone()} oninput={edit(&value)} /></label>
                <label>{ texts.if_version }<input id="register-version" inputmode="numeric" placeholder={texts.any_version} disabled={is_atomic} title={why} value={(*version).clone()} oninput={edit(&version)} /></label>
                <div class="row">
                    <button id="register-set" class="primary" disabled={!can_ask}>{ texts.put }</button>
                    <button id="register-get" type="button" disabled={!can_ask} onclick={get}>{ texts.get }</button>
                    <button id="register-add" type="button" disabled={!can_ask || is_atomic} title={why} onclick={add}>{ texts.add_one }</button>
                    <button id="register-many" type="button" disabled={!can_ask || is_atomic} title={why} onclick={many}>{ format!("{BURST} × {}", texts.add_one) }</button>
                </div>
            </form>
            <div role="status" id="register-told">{ message(screen, &told) }</div>
            <h3>{ texts.how_paxos }</h3>
            <ol class="how">
                <li><b>{ "Prepare · Promise" }</b>{ " " }{ texts.how_prepare }</li>
                <li><b>{ "Accept · Accepted" }</b>{ " " }{ texts.how_accept }</li>
                <li>{ texts.how_at_once }</li>
                <li>{ texts.how_read }</li>
            </ol>
        </section>
    }
}

fn message(screen: &Screen, told: &Told) -> Html {
    let texts = screen.texts();
    match told {
        // Nothing here asks for a listing or watches.
        Told::Nothing | Told::Done(Ok(Outcome::Listed { .. } | Outcome::Watched { .. })) => Html::default(),
        Told::Working => html! { <p class="told">{ texts.working }</p> },
        Told::NoNode => html! { <p class="told bad">{ texts.keys_need_node }</p> },
        Told::Many(done) => html! { <p class="told good">{ format!("✓ {} · {done} / {BURST}", texts.done) }</p> },
        Told::Done(Ok(Outcome::Read { value, version, .. })) => {
            let value = value.as_ref().map_or_else(|| texts.no_value.to_owned(), ToString::to_string);
            html! { <p class="told good">{ format!("{} {version}: ", texts.of_version) }<b>{ value }</b></p> }
        }
        Told::Done(Ok(Outcome::Changed { version, number, .. })) => {
            let sum = number.map(|number| format!(" · = {number}")).unwrap_or_default();
            html! { <p class="told good">{ format!("✓ {} · {} {version}{sum}", texts.done, texts.of_version) }</p> }
        }
        Told::Done(Err(refusal)) => {
            html! { <p class="told bad">{ i18n::refusal(screen.view.language, refusal) }</p> }
        }
    }
}

/// A round with a disc for each acceptor, and a sentence.
fn one_round(screen: &Screen, world: &World, round: &Round) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let (tone, state) = match round.end {
        Some(End::Chosen) => ("good", texts.round_chosen),
        Some(End::Agreed) => ("good", texts.round_agreed),
        Some(End::Outbid) => ("bad", texts.round_outbid),
        Some(End::Followed) => ("", texts.round_followed),
        None => ("waiting", texts.change_under_way),
    };
    let what = match round.ballot {
        None => texts.round_read.to_owned(),
        Some(ballot) => format!("{} {}", texts.ballot, ballot.counter),
    };
    let discs = world.by_name(round.acceptors.clone()).into_iter().map(|acceptor| {
        let (mark, refusal) = (round.mark(acceptor), round.refusal(acceptor));
        let says = match refusal {
            Some(promised) => {
                let rival = world.name(promised.node);
                i18n::refused_for(language, promised.counter, &rival)
            }
            None => i18n::mark(language, mark).to_owned(),
        };
        let name = world.name(acceptor);
        html! {
            <li class={classes!(refusal.is_some().then_some("refused"))}>
                <svg viewBox="-24 -24 48 48" width="34" height="34" role="img" aria-label={format!("{name}: {says}")}>
                    <title>{ format!("{name}: {says}") }</title>
                    { if refusal.is_some() { refused() } else { disc(mark) } }
                </svg>
                <span>{ name }</span>
                <small>{ says }</small>
            </li>
        }
    });
    html! {
        <li class="round" key={round.number.to_string()}>
            <div class="row">
                <b class="key">{ round.key.clone() }</b>
                <span>{ what }</span>
                <span>{ texts.proposer }{ " " }{ badge(world, round.proposer) }</span>
                <span class={classes!("chip", tone)}><i class="lamp" aria-hidden="true" />{ state }</span>
            </div>
            <ul class="acceptors">{ for discs }</ul>
            <p class="note">{ i18n::round(language, round) }</p>
        </li>
    }
}

/// An acceptor that has promised more to somebody else.
fn refused() -> Html {
    html! { <g class="disc refused"><circle class="rim" r="20" /><path class="cross" d="M-8 -8L8 8M8 -8L-8 8" /></g> }
}
