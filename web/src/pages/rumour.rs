//! How the newest rumour spread: a curve with the tree in it, and the same as a table.

use qunlong_core::config::MembershipConfig;
use yew::prelude::*;

use crate::app::Screen;
use crate::cluster::World;
use crate::components::badge;
use crate::i18n;
use crate::rumour::{Chart, Infection, Rumour, predicted};

/// The chart without its margins.
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 230.0;
/// More names than these would cover each other.
const NAMES: usize = 12;

/// The panel.
#[function_component]
pub fn RumourPanel(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let content = match world.playback.rumours().newest() {
        None => html! { <p class="empty">{ texts.rumour_empty }</p> },
        Some(rumour) => {
            let seen = rumour.spread();
            html! {
                <>
                    <p class="claim">{ i18n::claim(language, &rumour.claim) }</p>
                    <div class="rumour-layout">
                        { picture(screen, &world, rumour, &seen) }
                        { table(screen, &world, &seen) }
                    </div>
                </>
            }
        }
    };
    html! {
        <section class="card">
            <h2>{ texts.rumour_title }</h2>
            <p class="note">{ texts.rumour_lead }</p>
            { content }
        </section>
    }
}

fn picture(screen: &Screen, world: &World, rumour: &Rumour, seen: &[Infection]) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    // What nodes run with unless their operator says otherwise.
    let settings = MembershipConfig::default();
    let reachable = world.status.members.iter().filter(|member| member.is_reachable()).map(|member| member.id);
    let audience = rumour.audience(reachable.filter(|&id| world.playback.tells(id)));
    let curve = predicted(audience, rumour.sources(&settings), &settings);
    let chart = Chart::fit(WIDTH, HEIGHT, seen, &curve, audience);
    let times = chart.times().into_iter().map(|ms| {
        let x = format!("{:.1}", chart.x(ms));
        html! { <><line class="grid" x1={x.clone()} x2={x.clone()} y1="0" y2={HEIGHT.to_string()} /><text class="time" {x} y={(HEIGHT + 18.0).to_string()}>{ format!("{ms:.0}") }</text></> }
    });
    let counts = chart.counts().into_iter().map(|count| {
        let y = chart.y(count as f64);
        html! { <><line class="grid" x1="0" x2={WIDTH.to_string()} y1={format!("{y:.1}")} y2={format!("{y:.1}")} /><text class="count" x="-8" y={format!("{:.1}", y + 4.0)}>{ count }</text></> }
    });
    let points = seen.iter().map(|infection| {
        let (x, y) = (chart.x(infection.after_ms), chart.y(infection.know as f64));
        // A name stands under its step, or left of it where there is no room.
        let (anchor, dx, dy) = if x > 0.82 * WIDTH { ("end", -9.0, -6.0) } else { ("start", 10.0, 14.0) };
        let name = world.name(infection.node);
        html! {
            <g class={classes!((!infection.told).then_some("untold"))} transform={format!("translate({x:.1} {y:.1})")}>
                <title>{ format!("{name} · {}", after(infection)) }</title>
                <circle r="5" />
                if seen.len() <= NAMES { <text text-anchor={anchor} x={dx.to_string()} y={dy.to_string()}>{ name }</text> }
            </g>
        }
    });
    let branches = chart.branches(seen).into_iter().map(|d| html! { <path class="branch" {d} /> });
    let key = |class: &'static str| html! { <svg viewBox="0 0 28 8" width="28" height="8" class="rumour" aria-hidden="true"><path {class} d="M0 4H28" /></svg> };
    html! {
        <div>
            <svg class="rumour" viewBox={format!("-36 -30 {} {}", WIDTH + 56.0, HEIGHT + 72.0)} role="img" aria-label={texts.rumour_picture}>
                { for times }
                { for counts }
                <text class="axis" x="-28" y="-16">{ texts.rumour_know }</text>
                <text class="axis end" x={WIDTH.to_string()} y={(HEIGHT + 36.0).to_string()}>{ texts.rumour_ms }</text>
                <path class="predicted" d={chart.line(&curve)} />
                { for branches }
                <path class="seen" d={chart.steps(seen)} />
                <g class="points">{ for points }</g>
            </svg>
            <p class="chart-legend">
                <span>{ key("seen") }{ texts.rumour_seen }</span>
                <span>{ key("branch") }{ texts.rumour_branch }</span>
                <span>{ key("predicted") }{ i18n::prediction(language, &settings) }</span>
            </p>
        </div>
    }
}

/// When it knew, or by when.
fn after(infection: &Infection) -> String {
    let by = if infection.told { "" } else { "≤ " };
    format!("{by}{:.1} ms", infection.after_ms)
}

/// The picture's twin.
fn table(screen: &Screen, world: &World, seen: &[Infection]) -> Html {
    let texts = screen.texts();
    let rows = seen.iter().map(|infection| {
        let from = match infection.from {
            Some(from) => badge(world, from),
            None if infection.told => html! { texts.rumour_itself },
            None => html! { <span title={texts.rumour_untold}>{ texts.unknown }</span> },
        };
        html! {
            <tr key={infection.node.to_string()}>
                <td class="number">{ infection.know }</td>
                <td>{ badge(world, infection.node) }</td>
                <td class="number">{ after(infection) }</td>
                <td>{ from }</td>
            </tr>
        }
    });
    html! {
        <div class="scroll tall" tabindex="0"><table class="data">
            <thead><tr><th class="number">{ "#" }</th><th>{ texts.name }</th><th class="number">{ texts.rumour_after }</th><th>{ texts.rumour_from }</th></tr></thead>
            <tbody>{ for rows }</tbody>
        </table></div>
    }
}
