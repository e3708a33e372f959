//! The newest change of who owns and votes: who comes and goes, how far the owners to come are, and the votes.

use qunlong_core::NodeId;
use qunlong_core::topology::Progress;
use yew::prelude::*;

use crate::app::Screen;
use crate::cluster::World;
use crate::components::{badge, badges, bytes};
use crate::epochs::{Change, End, Group, Mark};
use crate::i18n::{self, Language, Texts};

/// A disc's place is so wide, and a row so high.
const PLACE: usize = 100;
const ROW: usize = 92;
/// Left of the discs the row says whose it is.
const MARGIN: usize = 110;

/// Who fetches what it is to own before a change begins.
#[function_component]
pub fn LearningPanel(screen: &Screen) -> Html {
    let texts = screen.texts();
    let world = screen.cluster.read();
    let learning = world.playback.epochs().learning();
    if learning.is_empty() {
        return Html::default();
    }
    let rows = world.by_name(learning.keys().copied()).into_iter().map(|node| {
        let progress = learning.get(&node).copied().unwrap_or_default();
        html! {
            <tr key={node.to_string()}>
                <td>{ badge(&world, node) }</td>
                <td><progress max={progress.of.max(1).to_string()} value={progress.have.to_string()} aria-label={texts.learning} /></td>
                <td class="number">{ fetched(texts, progress) }</td>
            </tr>
        }
    });
    html! {
        <section class="card">
            <h2>{ texts.learning }</h2>
            <p class="note">{ texts.learning_lead }</p>
            <table class="data">
                <thead><tr><th colspan="2">{ texts.name }</th><th class="number">{ texts.partitions }</th></tr></thead>
                <tbody>{ for rows }</tbody>
            </table>
        </section>
    }
}

/// How many of its partitions a newcomer has, or that it has not said so yet.
fn fetched(texts: &Texts, progress: Progress) -> String {
    match progress.of {
        0 => texts.learning_unheard.to_owned(),
        of => format!("{} / {of}", progress.have),
    }
}

/// The change, as long as this page has seen any.
#[function_component]
pub fn ChangePanel(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let in_force = world.status.config.as_ref();
    let Some(change) = world.playback.epochs().change(in_force) else { return Html::default() };
    let joint = &change.joint;
    let (tone, state) = match change.end {
        Some(End::Completed) => ("good", texts.change_completed),
        Some(End::GivenUp) => ("bad", texts.change_given_up),
        None => ("waiting", texts.change_under_way),
    };
    let some = |nodes: Vec<NodeId>| match &world.by_name(nodes)[..] {
        [] => html! { texts.nobody },
        nodes => badges(&world, nodes),
    };
    let weighs = change.weighs();
    let weighs =
        weighs.iter().map(|&(node, now, then)| html! { <>{ badge(&world, node) }{ format!(" {now} → {then} ") }</> });
    html! {
        <section class="card change">
            <div class="row">
                <h2>{ texts.change }{ format!(" · {} {} → {}", texts.epoch, joint.epoch.0, joint.epoch.next().0) }</h2>
                <span class={classes!("chip", tone)} role="status"><i class="lamp" aria-hidden="true" />{ state }</span>
            </div>
            <div class="change-layout">
                <div>
                    <dl class="facts">
                        <dt>{ texts.change_joins }</dt><dd>{ some(change.joins()) }</dd>
                        <dt>{ texts.change_leaves }</dt><dd>{ some(change.leaves()) }</dd>
                        if weighs.len() > 0 { <dt>{ texts.change_weighs }</dt><dd>{ for weighs }</dd> }
                        <dt>{ texts.change_moved }</dt><dd>{ format!("{} / {}", change.moved, change.joint.partitions().count()) }</dd>
                    </dl>
                    { takers(screen, &world, &change) }
                </div>
                <div>
                    <h3>{ texts.both_groups }</h3>
                    if screen.view.table { { table(screen, &world, &change) } } else { { picture(language, &world, &change) } }
                </div>
            </div>
        </section>
    }
}

/// How far each owner to come is.
fn takers(screen: &Screen, world: &World, change: &Change) -> Html {
    let texts = screen.texts();
    let rows = world.by_name(change.takers.keys().copied()).into_iter().map(|node| {
        let taking = change.takers.get(&node).copied().unwrap_or_default();
        // Whoever has nothing to take over is done.
        let (have, of) = if taking.of == 0 { (1, 1) } else { (taking.have, taking.of) };
        // Other tabs do not tell this page what they do.
        let is_known = taking.of == 0 || taking.have > 0 || world.playback.tells(node);
        let (taken, fetched) = match is_known {
            true => (taking.have.to_string(), bytes(taking.bytes)),
            false => (texts.unknown.to_owned(), texts.unknown.to_owned()),
        };
        html! {
            <tr key={node.to_string()}>
                <td>{ badge(world, node) }</td>
                <td><progress max={of.to_string()} value={have.to_string()} aria-label={texts.taking_over} /></td>
                <td class="number">{ format!("{taken} / {}", taking.of) }</td>
                <td class="number">{ fetched }</td>
            </tr>
        }
    });
    html! {
        <div class="scroll"><table class="data">
            <thead><tr><th colspan="2">{ texts.taking_over }</th><th class="number">{ texts.partitions }</th><th class="number">{ texts.fetched }</th></tr></thead>
            <tbody>{ for rows }</tbody>
        </table></div>
    }
}

/// Both groups of voters with what they are called, the voters by name.
fn groups(language: Language, world: &World, change: &Change) -> [(&'static str, Group); 2] {
    let texts = language.texts();
    [(texts.old_group, change.old_group()), (texts.new_group, change.new_group())].map(|(label, mut group)| {
        group.voters.sort_by_cached_key(|&(voter, _)| (world.name(voter), voter));
        (label, group)
    })
}

/// Two rows of discs that fill.
fn picture(language: Language, world: &World, change: &Change) -> Html {
    let texts = language.texts();
    let groups = groups(language, world, change);
    let most = groups.iter().map(|(_, group)| group.voters.len()).max().unwrap_or(0);
    let width = MARGIN + PLACE * most;
    let rows = groups.into_iter().enumerate().map(|(row, (label, group))| {
        let y = ROW * row + 32;
        let discs = group.voters.iter().enumerate().map(|(i, &(voter, mark))| {
            let name = world.name(voter);
            let x = MARGIN + PLACE * i + PLACE / 2;
            html! {
                <g transform={format!("translate({x} {y})")}>
                    <title>{ format!("{name}: {}", i18n::mark(language, mark)) }</title>
                    { disc(mark) }
                    <text class="name" y="41">{ short(&name) }</text>
                </g>
            }
        });
        html! {
            <g>
                <text class="group" y={(y - 2).to_string()}>{ label }</text>
                <text class="under" y={(y + 16).to_string()}>{ i18n::accepted(language, group.accepted(), group.needed) }</text>
                { for discs }
            </g>
        }
    });
    let legend = [Mark::Silent, Mark::Reported, Mark::Promised, Mark::Accepted].map(|mark| {
        html! {
            <span><svg viewBox="-24 -24 48 48" width="20" height="20" aria-hidden="true">{ disc(mark) }</svg>{ i18n::mark(language, mark) }</span>
        }
    });
    html! {
        <>
            <div class="scroll"><svg class="discs" viewBox={format!("0 0 {width} {}", 2 * ROW)} width={width.to_string()} role="img" aria-label={texts.change_picture}>{ for rows }</svg></div>
            <p class="disc-legend">{ for legend }</p>
        </>
    }
}

/// A voter: empty, with a point, half full, or full.
pub(super) fn disc(mark: Mark) -> Html {
    let (class, inside) = match mark {
        Mark::Silent => ("silent", Html::default()),
        Mark::Reported => ("reported", html! { <circle class="fill" r="6" /> }),
        Mark::Promised => ("promised", html! { <path class="fill" d="M0 -20A20 20 0 0 0 0 20Z" /> }),
        Mark::Accepted => {
            ("accepted", html! { <><circle class="fill" r="20" /><path class="tick" d="M-8 1L-2 7L9 -6" /></> })
        }
    };
    html! { <g class={classes!("disc", class)}><circle class="rim" r="20" />{ inside }</g> }
}

/// A name that fits under a disc.
fn short(name: &str) -> String {
    const FITS: usize = 11;
    if name.chars().count() <= FITS { name.to_owned() } else { name.chars().take(FITS - 1).chain(['…']).collect() }
}

/// The picture's twin.
fn table(screen: &Screen, world: &World, change: &Change) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let rows = groups(language, world, change).into_iter().flat_map(|(label, group)| {
        group.voters.into_iter().map(move |(voter, mark)| {
            html! { <tr><td>{ label }</td><td>{ badge(world, voter) }</td><td>{ i18n::mark(language, mark) }</td></tr> }
        })
    });
    html! {
        <div class="scroll"><table class="data">
            <thead><tr><th>{ texts.group }</th><th>{ texts.voter }</th><th>{ texts.state }</th></tr></thead>
            <tbody>{ for rows }</tbody>
        </table></div>
    }
}
