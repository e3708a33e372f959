//! Join: this tab becomes a node, step by step, and how others can.

use qrcodegen::{QrCode, QrCodeEcc};
use qunlong_core::member::Durability;
use yew::prelude::*;

use crate::app::{Action, Page, Screen, is_loopback};
use crate::cluster::{Mode, keep_for_tab, stored_for_tab, window};
use crate::components::{standing, typed};
use crate::i18n;

/// How far a step is.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Done,
    Now,
    Later,
}

/// The screen.
#[function_component]
pub fn JoinPage(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let name = use_state(|| stored_for_tab("name").unwrap_or_default());
    let world = screen.cluster.read();
    let (tone, standing) = standing(&world, screen);
    let my_name = world.me().map(|me| world.name(me));

    let links = world.status.links.iter().filter(|link| link.peer.is_some()).count();
    let reached = [
        world.started.is_some(),
        world.started.as_ref().is_some_and(|started| started.durability == Durability::Durable),
        links > 0,
        world.status.config.is_some(),
        links > 1,
    ];
    let first_open = reached.iter().position(|done| !done);
    let step = |i: usize| match (reached[i], first_open == Some(i) && world.mode == Mode::Node) {
        (true, _) => Step::Done,
        (false, true) => Step::Now,
        (false, false) => Step::Later,
    };
    let labels = [texts.step_key, texts.step_journal, texts.step_link, texts.step_epoch, texts.step_second];
    let steps = labels.into_iter().enumerate().map(|(i, label)| {
        let (class, mark) = match step(i) {
            Step::Done => ("done", "✓"),
            Step::Now => ("now", "…"),
            Step::Later => ("later", "·"),
        };
        html! { <li class={class}><span aria-hidden="true">{ mark }</span>{ label }</li> }
    });

    let troubles: Vec<String> = world
        .status
        .links
        .iter()
        .filter_map(|link| link.trouble.as_ref().map(|t| format!("{} · {}", link.address, i18n::trouble(language, t))))
        .chain(world.failure.as_ref().map(|(code, message)| i18n::trouble(language, &format!("{code}: {message}"))))
        .chain(world.started.as_ref().and_then(|started| started.reason.as_deref().map(|r| i18n::trouble(language, r))))
        .filter(|trouble| !trouble.trim_end().ends_with(':'))
        .collect();
    let is_durable = world.started.as_ref().is_none_or(|started| started.durability == Durability::Durable);
    let is_secure = window().is_secure_context();

    let is_node = world.mode == Mode::Node;
    let rename = {
        let (cluster, name) = (screen.cluster.clone(), name.clone());
        move |event: SubmitEvent| {
            event.prevent_default();
            keep_for_tab("name", name.trim());
            keep_for_tab("mode", "node");
            cluster.start_node();
        }
    };
    let watch = {
        let cluster = screen.cluster.clone();
        move |_: MouseEvent| {
            keep_for_tab("mode", "watch");
            cluster.stop_node();
        }
    };
    let see = screen.act.reform(|_: MouseEvent| Action::Page(Page::Stage));
    let edit = {
        let name = name.clone();
        move |event: InputEvent| name.set(typed(&event))
    };
    let address = window().location().origin().unwrap_or_default();
    html! {
        <div class="columns">
            <section class="card hero">
                <h1>{ texts.join_title }</h1>
                <p class="lead">{ texts.join_lead }</p>
                <p class="become">
                    <span>{ texts.join_as }</span>
                    <strong>{ my_name.unwrap_or_else(|| "…".to_owned()) }</strong>
                    <span class={classes!("chip", tone)}><i class="lamp" aria-hidden="true" />{ standing }</span>
                </p>
                <form onsubmit={rename} class="row">
                    <label>{ texts.join_name }<input value={(*name).clone()} oninput={edit} maxlength="40" placeholder="amber-otter" /></label>
                    <button class="primary">{ if is_node { texts.join_rename } else { texts.join_now } }</button>
                    if is_node {
                        <button type="button" onclick={watch}>{ texts.join_watch }</button>
                    }
                </form>
                <p class="note">{ if is_durable { texts.join_stored } else { texts.join_stored_nothing } }</p>
                if !is_secure { <p class="told bad">{ texts.insecure_context }</p> }
                <button class="primary big" onclick={see}>{ texts.see_stage }{ " →" }</button>
            </section>
            <section class="card">
                <h2>{ texts.join_steps }</h2>
                <ol class="steps">{ for steps }</ol>
                if !troubles.is_empty() {
                    <h3>{ texts.why_not }</h3>
                    <ul class="troubles">{ for troubles.into_iter().map(|trouble| html! { <li>{ trouble }</li> }) }</ul>
                }
            </section>
            <section class="card invite">
                <h2>{ texts.join_others }</h2>
                { qr(&address) }
                <code>{ address }</code>
                <p class="note">{ if is_loopback() { texts.join_loopback } else { texts.join_scan } }</p>
            </section>
        </div>
    }
}

/// An address as a square to be photographed: dark on light in every theme, as cameras want it.
fn qr(text: &str) -> Html {
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Medium) else { return Html::default() };
    let size = code.size();
    let mut path = String::new();
    for y in 0..size {
        for x in (0..size).filter(|&x| code.get_module(x, y)) {
            path.push_str(&format!("M{x} {y}h1v1h-1z"));
        }
    }
    html! {
        <svg class="qr" viewBox={format!("-3 -3 {0} {0}", size + 6)} role="img" aria-label={text.to_owned()}>
            <rect x="-3" y="-3" width="100%" height="100%" fill="#fff" />
            <path d={path} fill="#111" />
        </svg>
    }
}
