//! The namespaces that a screen can work on: which one it does, and a form that creates another.
//!
//! Keys and Consensus show it above all else, because everything that is read and written there goes to the namespace
//! that is chosen here. What a namespace may be called is checked by the rule that the cluster has; whether there is one
//! of this name already is known from the table, and decided by the voters.

use qunlong_core::Refusal;
use qunlong_core::key::is_name;
use qunlong_core::limits;
use qunlong_core::namespace::{Mode, Namespace};
use wasm_bindgen_futures::spawn_local;
use web_sys::HtmlSelectElement;
use yew::prelude::*;

use crate::app::{Action, Screen};
use crate::cluster;
use crate::components::typed;
use crate::i18n;
use crate::namespaces::{Kind, Known, Space, check, copies_of};

/// What the panel is drawn from.
#[derive(Properties, PartialEq)]
pub(super) struct NamespacesProps {
    pub(super) screen: Screen,
    /// What the screen works on.
    pub(super) kind: Kind,
    /// The namespace that it works on now.
    pub(super) space: Space,
}

/// The panel.
#[function_component]
pub(super) fn NamespacesPanel(props: &NamespacesProps) -> Html {
    let NamespacesProps { screen, kind, space } = props;
    let (texts, language) = (screen.texts(), screen.view.language);
    let mut spaces = screen.cluster.read().live_config().map(|config| Space::all(config, *kind)).unwrap_or_default();
    if spaces.iter().all(|other| other.name != space.name) {
        spaces.push(space.clone());
    }
    let buttons = spaces.iter().map(|other| {
        let named = (other.name != kind.usual()).then(|| other.name.clone());
        let choose = screen.act.reform(move |_: MouseEvent| Action::Namespace(named.clone()));
        let pressed = (other.name == space.name).to_string();
        let says = match other.known {
            Some(Known { mode, copies }) => format!("{} · N = {copies}", i18n::mode(language, mode)),
            None => texts.namespace_unknown.to_owned(),
        };
        html! {
            <button key={other.name.clone()} class="owner-item" data-namespace={other.name.clone()} onclick={choose} aria-pressed={pressed}>
                <b>{ other.name.clone() }</b><span>{ says }</span>
            </button>
        }
    });
    html! {
        <section class="card namespaces">
            <h2 id="namespaces-title">{ texts.namespace }</h2>
            <div id="namespaces" class="owner-items" role="group" aria-labelledby="namespaces-title">{ for buttons }</div>
            if let Some(known) = space.known { <p class="note">{ i18n::promise(language, known.mode) }</p> }
            <details id="namespace-new">
                <summary>{ texts.namespace_new }</summary>
                <CreateForm screen={screen.clone()} kind={*kind} />
            </details>
        </section>
    }
}

/// What became of the last wish.
#[derive(Clone, PartialEq)]
enum Told {
    Nothing,
    Working,
    Created(String),
    Refused(Refusal),
    NoNode,
}

#[derive(Properties, PartialEq)]
struct CreateProps {
    screen: Screen,
    kind: Kind,
}

/// Name, mode and copies of a namespace that is to be.
#[function_component]
fn CreateForm(props: &CreateProps) -> Html {
    let CreateProps { screen, kind } = props;
    let (texts, language) = (screen.texts(), screen.view.language);
    let [cheap, safe] = kind.modes();
    let name = use_state(String::new);
    let mode = use_state(|| safe);
    let copies = use_state(String::new);
    let told = use_state(|| Told::Nothing);
    let submit = {
        let (screen, name, mode, copies, told) =
            (screen.clone(), name.clone(), mode.clone(), copies.clone(), told.setter());
        move |event: SubmitEvent| {
            event.prevent_default();
            let (name, wanted) = ((*name).clone(), Namespace { mode: *mode, replicas: copies_of(&copies) });
            let checked = match screen.cluster.read().live_config() {
                Some(config) => check(&config.namespaces, &name, wanted),
                None => Err(Refusal::NoEpoch),
            };
            if let Err(refusal) = checked {
                return told.set(Told::Refused(refusal));
            }
            told.set(Told::Working);
            let (cluster, act, told) = (screen.cluster.clone(), screen.act.clone(), told.clone());
            spawn_local(async move {
                match cluster.create_namespace(&name, wanted).await {
                    Some(Ok(())) => {
                        act.emit(Action::Namespace(Some(name.clone())));
                        told.set(Told::Created(name));
                    }
                    Some(Err(refusal)) => told.set(Told::Refused(refusal)),
                    None => told.set(Told::NoNode),
                }
            });
        }
    };
    let edit = |state: &UseStateHandle<String>| {
        let state = state.clone();
        move |event: InputEvent| state.set(typed(&event))
    };
    let choose_mode = {
        let mode = mode.clone();
        move |event: Event| {
            let select: HtmlSelectElement = event.target_unchecked_into();
            if let Some(chosen) = Mode::parse(&select.value()) {
                mode.set(chosen);
            }
        }
    };
    let options = [cheap, safe].map(|other| {
        html! { <option value={other.name()} selected={other == *mode}>{ i18n::mode(language, other) }</option> }
    });
    let world = screen.cluster.read();
    let (can_ask, usual) = (
        world.mode == cluster::Mode::Node && world.live_config().is_some(),
        world.live_config().map(|config| config.replicas.to_string()),
    );
    let is_odd = !name.is_empty() && !is_name(&name);
    let message = match &*told {
        Told::Nothing => Html::default(),
        Told::Working => html! { <p class="told">{ texts.working }</p> },
        Told::Created(name) => html! { <p class="told good">{ format!("✓ {name} · {}", texts.created) }</p> },
        Told::Refused(refusal) => html! { <p class="told bad">{ i18n::refusal(language, refusal) }</p> },
        Told::NoNode => html! { <p class="told bad">{ texts.keys_need_node }</p> },
    };
    html! {
        <form class="create-form" onsubmit={submit}>
            <div class="row">
                <label>{ texts.namespace_name }
                    <input id="namespace-name" required=true maxlength={limits::NAMESPACE_BYTES.to_string()} autocomplete="off" autocapitalize="none"
                        aria-invalid={is_odd.to_string()} aria-describedby="namespace-rule" value={(*name).clone()} oninput={edit(&name)} />
                </label>
                <label>{ texts.guarantee }<select id="namespace-mode" onchange={choose_mode}>{ for options }</select></label>
                <label>{ texts.namespace_copies }
                    <input id="namespace-copies" inputmode="numeric" placeholder={usual} value={(*copies).clone()} oninput={edit(&copies)} />
                </label>
                <button id="namespace-create" class="primary" disabled={!can_ask || *told == Told::Working} title={(!can_ask).then_some(texts.keys_need_node)}>{ texts.create }</button>
            </div>
            <p id="namespace-rule" class={classes!("note", is_odd.then_some("trouble"))}>{ texts.namespace_rule }</p>
            <div role="status" id="namespace-told">{ message }</div>
        </form>
    }
}
