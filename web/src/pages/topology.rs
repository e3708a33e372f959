//! Topology: the epoch in force, who has a seat in it, how it changes, and how it was chosen.

use qunlong_core::NodeId;
use qunlong_core::cluster::ClusterConfig;
use qunlong_core::roster::{Roster, Seat};
use yew::prelude::*;

use super::board::Board;
use super::change::{ChangePanel, LearningPanel};
use crate::app::Screen;
use crate::cluster::World;
use crate::components::{badge, figures, state_mark};
use crate::explain::explain;
use crate::i18n;

/// The screen.
#[function_component]
pub fn TopologyPage(screen: &Screen) -> Html {
    html! {
        <div class="stacked">
            <InForce ..screen.clone() />
            <LearningPanel ..screen.clone() />
            <ChangePanel ..screen.clone() />
            <div class="columns two">
                <Board ..screen.clone() />
                <History ..screen.clone() />
            </div>
        </div>
    }
}

/// The epoch in force and its seats.
#[function_component]
fn InForce(screen: &Screen) -> Html {
    let texts = screen.texts();
    let world = screen.cluster.read();
    let Some(config) = &world.status.config else {
        return html! { <section class="card"><h1>{ texts.topology }</h1><p class="empty">{ texts.topology_none }</p></section> };
    };
    let numbers = [
        (texts.epoch, config.epoch.0.to_string()),
        (texts.copies, config.replicas.to_string()),
        (texts.votes_needed, format!("{} / {}", config.current.majority(), config.current.voters.len())),
        (texts.spare, world.spare.map_or_else(|| "–".to_owned(), |spare| spare.to_string())),
    ];
    let (tone, state) = if config.next.is_some() { ("waiting", texts.joint) } else { ("good", texts.settled) };
    let rows = world.by_name(config.storage()).into_iter().map(|node| seat(screen, &world, config, node));
    html! {
        <section class="card">
            <div class="title">
                <div>
                    <h1>{ texts.topology }{ " " }<span class={classes!("chip", tone)}><i class="lamp" aria-hidden="true" />{ state }</span></h1>
                    <p class="lead">{ texts.topology_lead }</p>
                </div>
                { figures(numbers) }
            </div>
            if config.recovers.is_some() { <p class="alarm" role="alert">{ texts.recovering }</p> }
            if config.current.is_tabs_alone() { <p class="alarm" role="note">{ texts.tabs_alone }</p> }
            <h2>{ texts.seats }</h2>
            <div class="scroll">
                <table class="data">
                    <thead><tr>
                        <th>{ texts.name }</th><th>{ texts.state }</th><th>{ texts.class }</th><th>{ texts.zone }</th>
                        <th>{ texts.votes }</th><th class="number">{ texts.weight }</th><th class="number">{ texts.partitions }</th>
                    </tr></thead>
                    <tbody>{ for rows }</tbody>
                </table>
            </div>
        </section>
    }
}

/// What one member has of the roster in force and, while joint, of the one to follow.
fn seat(screen: &Screen, world: &World, config: &ClusterConfig, node: NodeId) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let (now, then) = (config.current.storage.get(&node), config.next.as_ref().map(|next| next.storage.get(&node)));
    let Some(seat) = config.seat(node) else { return Html::default() };
    let comes_or_goes = match (now, then) {
        (None, Some(Some(_))) => Some(texts.joins),
        (Some(_), Some(None)) => Some(texts.leaves),
        _ => None,
    };
    let weight = |seat: Option<&Seat>| seat.map_or_else(|| "–".to_owned(), |seat| seat.weight.to_string());
    let vote = |roster: &Roster| if roster.voters.contains(&node) { "✓" } else { "–" }.to_owned();
    let share = world.ownership.as_ref().map(|ownership| ownership.share(node)).unwrap_or_default();
    let member = world.member(node);
    let state = match member {
        Some(member) => state_mark(language, member.state),
        None => html! { texts.unknown },
    };
    let zone = if seat.zone.is_empty() { "–".to_owned() } else { world.zone(&seat.zone) };
    html! {
        <tr key={node.to_string()} class={classes!((world.me() == Some(node)).then_some("me"))}>
            <td>{ badge(world, node) }if let Some(what) = comes_or_goes { <em>{ format!(" · {what}") }</em> }</td>
            <td>{ state }if member.is_some_and(|member| member.profile.drowsy) { <em>{ format!(" · {}", texts.drowsy) }</em> }</td>
            <td>{ i18n::class(language, seat.class) }</td>
            <td>{ zone }</td>
            <td>{ shift(vote(&config.current), config.next.as_ref().map(vote)) }</td>
            <td class="number">{ shift(weight(now), then.map(weight)) }</td>
            <td class="number">{ shift(share.owned.to_string(), then.map(|_| share.then.to_string())) }</td>
        </tr>
    }
}

/// What is, and what it is to become if that is something else.
fn shift(now: String, then: Option<String>) -> String {
    match then {
        Some(then) if then != now => format!("{now} → {then}"),
        _ => now,
    }
}

/// How epochs were chosen, in sentences.
#[function_component]
fn History(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let history = world.playback.epochs().history();
    let name = |id: NodeId| world.name(id);
    let lines = history.iter().map(|event| {
        let key = format!("{:x}-{}-{}", event.node, event.generation.0, event.seq);
        html! { <li key={key}>{ explain(language, event, &name) }</li> }
    });
    html! {
        <section class="card story">
            <h2>{ texts.epochs_told }</h2>
            <p class="note">{ texts.epochs_told_lead }</p>
            if history.is_empty() { <p class="empty">{ texts.epochs_told_empty }</p> }
            <ol class="epochs" tabindex="0" aria-label={texts.epochs_told}>{ for lines }</ol>
        </section>
    }
}
