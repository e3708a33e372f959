//! This node: identity, storage, links, and how the worker is doing.

use qunlong_core::member::Durability;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use yew::prelude::*;

use crate::app::{Action, Page, Screen};
use crate::cluster::{Mode, World, window};
use crate::components::{badge, bytes};
use crate::i18n;

/// The screen.
#[function_component]
pub fn NodePage(screen: &Screen) -> Html {
    let texts = screen.texts();
    let copied = use_state(|| false);
    let world = screen.cluster.read();
    let go_join = screen.act.reform(|_: MouseEvent| Action::Page(Page::Join));
    let restart = {
        let cluster = screen.cluster.clone();
        move |_: MouseEvent| cluster.start_node()
    };
    if world.mode == Mode::Watch {
        return html! {
            <section class="card"><h1>{ texts.node_title }</h1><p class="lead">{ texts.watching_lead }</p>
            <button class="primary" onclick={go_join}>{ texts.join }</button></section>
        };
    }
    let status = &world.status;
    let rows: Vec<(&str, Html)> = match &world.started {
        None => vec![(texts.state, html! { texts.status_starting })],
        Some(started) => {
            let storage = match started.durability {
                Durability::Durable => texts.storage_durable,
                Durability::Volatile => texts.storage_volatile,
            };
            let kept = if started.persisted { texts.storage_persisted } else { texts.storage_best_effort };
            let mut rows = vec![
                (texts.name, html! { <strong>{ world.name(started.id) }</strong> }),
                (texts.identity, html! { <code>{ qunlong_core::id::hex(started.id) }</code> }),
                (texts.boot, html! { started.generation.0 }),
                (texts.storage, html! { <>{ storage }<br /><small>{ kept }</small></> }),
                (
                    texts.journal,
                    html! { format!("{} · {} {}", bytes(status.journal_bytes), status.syncs, texts.syncs) },
                ),
                (texts.last_sync, html! { format!("{:.1} ms", status.last_sync_us as f64 / 1_000.0) }),
                (texts.worker_lag, html! { format!("{} ms", status.lag_ms) }),
                (
                    texts.first_gossip,
                    html! { world.first_message_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms")) },
                ),
                (texts.inputs, html! { status.inputs }),
            ];
            if let Some(reason) = &started.reason {
                rows.push((texts.reason, html! { i18n::trouble(screen.view.language, reason) }));
            }
            rows
        }
    };
    let rows = rows.into_iter().map(|(label, value)| html! { <><dt>{ label }</dt><dd>{ value }</dd></> });
    let links = status.links.iter().map(|link| {
        let state = match (&link.peer, &link.trouble) {
            (Some(peer), _) => html! { <>{ "● " }{ badge(&world, *peer) }</> },
            (None, Some(trouble)) => {
                html! { <span class="trouble">{ format!("✕ {}", i18n::trouble(screen.view.language, trouble)) }</span> }
            }
            (None, None) => html! { texts.status_connecting },
        };
        html! { <tr><td><code>{ &link.address }</code></td><td>{ state }</td></tr> }
    });
    let copy = {
        let (text, copied) = (diagnostics(&world), copied.clone());
        move |_: MouseEvent| {
            let (promise, copied) = (window().navigator().clipboard().write_text(&text), copied.clone());
            spawn_local(async move { copied.set(JsFuture::from(promise).await.is_ok()) });
        }
    };
    html! {
        <div class="columns two">
            <section class="card">
                <h1>{ texts.node_title }</h1>
                <p class="lead">{ texts.node_lead }</p>
                if world.crashed || world.failure.is_some() {
                    <div class="alarm" role="alert">
                        <strong>{ texts.status_crashed }</strong>
                        <p>{ texts.crashed_lead }</p>
                        if let Some((code, message)) = &world.failure { <p><code>{ code }</code>{ " " }{ message }</p> }
                        <button class="primary" onclick={restart}>{ texts.restart_node }</button>
                    </div>
                }
                <dl class="facts">{ for rows }</dl>
                <button onclick={copy}>{ if *copied { texts.copied } else { texts.diagnostics } }</button>
            </section>
            <section class="card">
                <h2>{ texts.sockets }</h2>
                <table class="data"><tbody>{ for links }</tbody></table>
                if status.links.is_empty() { <p class="empty">{ texts.no_links }</p> }
            </section>
        </div>
    }
}

/// What helps whoever is asked for help; nothing secret is in it.
fn diagnostics(world: &World) -> String {
    format!(
        "version {} · frames/s {} · events {} · started {:?} · failure {:?} · status {:#?}",
        env!("CARGO_PKG_VERSION"),
        world.frames_per_second,
        world.playback.total(),
        world.started,
        world.failure,
        world.status
    )
}
