//! The parts around the screens, and those that several screens share.

use qunlong_core::NodeId;
use qunlong_core::member::{Class, State};
use wasm_bindgen::JsCast;
use web_sys::HtmlInputElement;
use yew::prelude::*;

use crate::app::{Action, PAGES, Screen, Theme, focus};
use crate::cluster::{Mode, World};
use crate::i18n;

/// How this tab stands with the cluster, in a word.
#[must_use]
pub fn standing(world: &World, screen: &Screen) -> (&'static str, &'static str) {
    let texts = screen.texts();
    if world.mode == Mode::Watch {
        return ("watching", texts.status_watching);
    }
    if world.crashed || world.failure.is_some() {
        return ("bad", texts.status_crashed);
    }
    if world.started.is_none() {
        return ("waiting", texts.status_starting);
    }
    let linked = world.status.links.iter().any(|link| link.peer.is_some());
    match (linked, world.status.config.is_some()) {
        (true, true) => ("good", texts.status_joined),
        (true, false) => ("waiting", texts.status_connecting),
        (false, true) => ("bad", texts.status_lost),
        (false, false) => ("waiting", texts.status_connecting),
    }
}

/// Brand, cluster, language, theme.
#[function_component]
pub fn TopBar(screen: &Screen) -> Html {
    let (texts, act) = (screen.texts(), screen.act.clone());
    let world = screen.cluster.read();
    let (tone, standing) = standing(&world, screen);
    let cluster = match &world.status.config {
        Some(config) => {
            let id = config.cluster.to_string();
            format!("{} · {} {}", &id[..8], texts.epoch, config.epoch.0)
        }
        None => texts.no_cluster.to_owned(),
    };
    let theme = match screen.view.theme {
        Theme::System => texts.theme_system,
        Theme::Light => texts.theme_light,
        Theme::Dark => texts.theme_dark,
    };
    let language = act.reform(|_: MouseEvent| Action::Language);
    let change_theme = act.reform(|_: MouseEvent| Action::Theme);
    let help = act.reform(|_: MouseEvent| Action::Help);
    let me = world.me().map(|me| world.name(me));
    let skip = |event: MouseEvent| {
        event.prevent_default();
        focus("main");
    };
    html! {
        <header class="top">
            <a class="skip" href="#main" onclick={skip}>{ texts.skip }</a>
            <span class="brand"><img src="/icon.svg" alt="" width="26" height="26" /><b>{ texts.brand }</b></span>
            <span class="tagline">{ texts.tagline }</span>
            <span class="spring" />
            <span class="cluster" >{ cluster }</span>
            <span class={classes!("chip", tone)} role="status">
                <i class="lamp" aria-hidden="true" />{ standing }
                if let Some(me) = me { <b>{ me }</b> }
            </span>
            <button class="quiet" onclick={language} lang={screen.view.language.other().tag()}>{ texts.language_switch }</button>
            <button class="quiet" onclick={change_theme} title={texts.theme}>{ theme }</button>
            <button class="quiet" onclick={help} aria-label={texts.help}>{ "?" }</button>
        </header>
    }
}

/// The screens.
#[function_component]
pub fn Navigation(screen: &Screen) -> Html {
    let texts = screen.texts();
    let icons = ["⊕", "◎", "≡", "◓", "∷", "▦", "▣"];
    let items = PAGES.into_iter().zip(icons).enumerate().map(|(i, (page, icon))| {
        let go = screen.act.reform(move |event: MouseEvent| {
            event.prevent_default();
            Action::Page(page)
        });
        let current = (page == screen.view.page).then_some("page");
        html! {
            <a href={format!("#/{}", page.path())} onclick={go} aria-current={current} title={(i + 1).to_string()}>
                <span aria-hidden="true">{ icon }</span>{ page.title(texts) }
            </a>
        }
    });
    html! { <nav aria-label={texts.nav_label}>{ for items }</nav> }
}

/// With so many events waiting, the picture is no longer live.
const MUCH: usize = 40;

/// Pause, step, pace, and how busy the cluster is.
#[function_component]
pub fn TimeStrip(screen: &Screen) -> Html {
    let texts = screen.texts();
    let (paused, speed, behind, rates) = {
        let world = screen.cluster.read();
        let playback = &world.playback;
        (playback.is_paused(), playback.speed(), playback.behind(), playback.rates().clone())
    };
    let pause = {
        let cluster = screen.cluster.clone();
        move |_: MouseEvent| cluster.write().playback.set_paused(!paused)
    };
    let step = {
        let cluster = screen.cluster.clone();
        move |_: MouseEvent| {
            let mut world = cluster.write();
            world.playback.set_paused(true);
            world.playback.step();
        }
    };
    let catch_up = {
        let cluster = screen.cluster.clone();
        move |_: MouseEvent| cluster.write().playback.catch_up()
    };
    let set_speed = {
        let cluster = screen.cluster.clone();
        move |event: InputEvent| {
            let input: HtmlInputElement = event.target_unchecked_into();
            cluster.write().playback.set_speed(10_f64.powf(input.value_as_number()));
        }
    };
    let most = rates.iter().copied().max().unwrap_or(0).max(20);
    let bars = rates.iter().enumerate().map(|(i, &rate)| {
        let height = 24.0 * f64::from(rate) / f64::from(most);
        html! { <rect x={(i * 4).to_string()} y={format!("{:.1}", 24.0 - height)} width="3" height={format!("{height:.1}")} /> }
    });
    let waiting = if behind > 0 && (paused || behind >= MUCH) {
        format!("{behind} {}", texts.events_behind)
    } else if paused {
        texts.paused.to_owned()
    } else {
        texts.live.to_owned()
    };
    html! {
        <footer class={classes!("strip", paused.then_some("is-paused"))} title={texts.pause_is_mine}>
            <button onclick={pause} class="primary" id="pause">
                { if paused { format!("▶ {}", texts.play) } else { format!("❚❚ {}", texts.pause) } }
            </button>
            <button onclick={step}>{ format!("⇥ {}", texts.step) }</button>
            <button onclick={catch_up} disabled={behind < MUCH && !paused} title={texts.catch_up}>{ "⇥⇥" }<span class="wide">{ format!(" {}", texts.catch_up) }</span></button>
            <label class="speed">
                { texts.speed }
                <input type="range" min="-2" max="0.6" step="0.05" value={speed.log10().to_string()} oninput={set_speed} />
                <output>{ format!("{speed:.2}×") }</output>
            </label>
            <span class="waiting" role="status">{ waiting }</span>
            <span class="spring" />
            <svg class="rates" width="240" height="24" viewBox="0 0 240 24" role="img" aria-label={texts.events_per_second}>
                <title>{ texts.events_per_second }</title>
                { for bars }
            </svg>
        </footer>
    }
}

/// The key sheet.
#[function_component]
pub fn Help(screen: &Screen) -> Html {
    let texts = screen.texts();
    let close = screen.act.reform(|event: MouseEvent| {
        // The veil behind would close, and so open, once more.
        event.stop_propagation();
        Action::Help
    });
    let button = use_node_ref();
    {
        let button = button.clone();
        use_effect_with((), move |()| {
            if let Some(button) = button.cast::<web_sys::HtmlElement>() {
                let _ = button.focus();
            }
        });
    }
    let rows = [
        ("1 – 7", texts.help_screens),
        ("␣", texts.help_pause),
        (".", texts.help_step),
        ("[  ]", texts.help_speed),
        ("t", texts.help_table),
        ("/", texts.help_filter),
        ("x", texts.help_kill),
        ("← →", texts.help_arrows),
        ("Esc", texts.help_escape),
        ("l", texts.help_language),
        ("d", texts.help_theme),
        ("?", texts.help_help),
    ];
    let rows = rows.map(|(key, what)| html! { <tr><td><kbd>{ key }</kbd></td><td>{ what }</td></tr> });
    html! {
        <div class="veil" onclick={close.clone()}>
            <div class="sheet" role="dialog" aria-modal="true" aria-label={texts.help_title} onclick={|event: MouseEvent| event.stop_propagation()}>
                <h2>{ texts.help_title }</h2>
                <table><tbody>{ for rows }</tbody></table>
                <button class="primary" onclick={close} ref={button} id="close-help">{ texts.close }</button>
            </div>
        </div>
    }
}

/// A button for what cannot be undone for others: the first press asks, the second does.
#[derive(Properties, PartialEq, Debug)]
pub struct ConfirmProps {
    /// What it does.
    pub label: AttrValue,
    /// What it asks.
    pub sure: AttrValue,
    /// Done on the second press.
    pub on_confirm: Callback<()>,
    /// To be found by the keyboard.
    #[prop_or_default]
    pub id: Option<AttrValue>,
}

/// See [`ConfirmProps`].
#[function_component]
pub fn Confirm(props: &ConfirmProps) -> Html {
    let asked = use_state(|| false);
    let press = {
        let (asked, on_confirm) = (asked.clone(), props.on_confirm.clone());
        move |_: MouseEvent| {
            if *asked {
                on_confirm.emit(());
            }
            asked.set(!*asked);
        }
    };
    let forget = {
        let asked = asked.clone();
        move |_: FocusEvent| asked.set(false)
    };
    let label = if *asked { props.sure.clone() } else { props.label.clone() };
    html! {
        <button id={props.id.clone()} class={classes!("danger", asked.then_some("asks"))} onclick={press} onblur={forget}>
            { label }
        </button>
    }
}

/// A node's name with its shape.
pub fn badge(world: &World, id: NodeId) -> Html {
    let class = match world.member(id).map(|member| (member.profile.class, member.state)) {
        Some((Class::Server, State::Alive)) => "server",
        Some((Class::Tab, State::Alive)) => "tab",
        Some((_, State::Suspect)) => "suspect",
        Some((_, State::Dead | State::Left)) | None => "gone",
    };
    html! { <span class={classes!("badge", class)} title={qunlong_core::id::hex(id)}>{ world.name(id) }</span> }
}

/// The names of several nodes.
pub fn badges(world: &World, ids: &[NodeId]) -> Html {
    html! { <span class="badges">{ for ids.iter().map(|&id| badge(world, id)) }</span> }
}

/// The value of the input that an event came from.
#[must_use]
pub fn typed(event: &InputEvent) -> String {
    let Some(target) = event.target() else { return String::new() };
    match target.dyn_into::<HtmlInputElement>() {
        Ok(input) => input.value(),
        Err(target) => target.unchecked_into::<web_sys::HtmlTextAreaElement>().value(),
    }
}

/// A member's state with its shape, for tables.
pub fn state_mark(language: i18n::Language, state: State) -> Html {
    let (class, mark) = match state {
        State::Alive => ("alive", "●"),
        State::Suspect => ("suspect", "◐"),
        State::Dead => ("dead", "✕"),
        State::Left => ("left", "○"),
    };
    html! {
        <span class={classes!("state", class)}><span aria-hidden="true">{ mark }</span>{ " " }{ i18n::state(language, state) }</span>
    }
}

/// Numbers with what they count, beside a title.
pub fn figures<const N: usize>(figures: [(&'static str, String); N]) -> Html {
    let figures =
        figures.map(|(label, figure)| html! { <div class="figure"><b>{ figure }</b><span>{ label }</span></div> });
    html! { <div class="figures">{ for figures }</div> }
}

/// A number of bytes for people.
#[must_use]
pub fn bytes(count: u64) -> String {
    if count < 10_000 { format!("{count} B") } else { format!("{:.1} kB", count as f64 / 1_000.0) }
}
