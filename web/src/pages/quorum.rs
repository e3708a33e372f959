//! R and W of the namespace that Keys works on: how many owners each request waits for, whether that lets every read
//! meet every write, and a measurement of what it leads to.
//!
//! ```text
//!   sliders ─▶ the address ─▶ what Keys reads and writes
//!                        └──▶ measure: own node ── write n ──▶ acknowledged by W
//!                                      own node, or a server, in turn ── read ──▶ answered by R: is it n?
//! ```
//!
//! The page can have other nodes read only where they answer HTTP: the servers. Of the tabs it has its own.

use qunlong_core::kv::{Op, Outcome, WriteContext};
use qunlong_core::namespace::Mode;
use qunlong_core::quorum::Level;
use qunlong_core::version::Context;
use qunlong_core::{Bytes, Duration, NodeId, Refusal};
use wasm_bindgen_futures::spawn_local;
use yew::prelude::*;

use crate::app::{Action, Screen};
use crate::cluster::{Cluster, values_at};
use crate::components::{badge, typed};
use crate::i18n::{self, Language};
use crate::namespaces::{Known, Space};
use crate::overlap::{Counts, Part, Wish, least};
use crate::stale::Sum;

/// Reads of one measurement, each after a write of its own.
const READS: u32 = 50;
/// Each of its requests is given up after so long.
const PATIENCE: Duration = Duration::secs(2);
/// An owner's place in the picture is so wide.
const PLACE: usize = 76;

/// What the panel is drawn from.
#[derive(Properties, PartialEq)]
pub(super) struct QuorumProps {
    pub(super) screen: Screen,
    pub(super) space: Space,
    /// Whether there is a node to ask.
    pub(super) can_ask: bool,
}

/// The panel.
#[function_component]
pub(super) fn QuorumPanel(props: &QuorumProps) -> Html {
    let QuorumProps { screen, space, can_ask } = props;
    let (texts, language, wish) = (screen.texts(), screen.view.language, screen.view.wish);
    let measured = use_state(|| None::<Measured>);
    let Some(Known { mode, copies }) = space.known else { return Html::default() };
    let counts = Counts::of(wish, mode, copies);
    let set_read = screen.act.reform(move |count: Option<u8>| Action::Wish(Wish { read: count, ..wish }));
    let set_write = screen.act.reform(move |count: Option<u8>| Action::Wish(Wish { write: count, ..wish }));
    let range = (least(mode, copies), copies);
    let measure = {
        let (cluster, space, measured) = (screen.cluster.clone(), space.clone(), measured.setter());
        move |_: MouseEvent| spawn_local(run(cluster.clone(), space.clone(), (wish, counts), measured.clone()))
    };
    let is_running = measured.as_ref().is_some_and(|measured| measured.end.is_none());
    let why = match mode {
        Mode::Eventual => texts.counts_any,
        Mode::Quorum | Mode::Atomic | Mode::Consensus => texts.counts_majority,
    };
    let meets = if counts.overlap() > 0 { "good" } else { "bad" };
    html! {
        <section class="card quorum">
            <h2>{ texts.counts }</h2>
            <p class="note">{ texts.counts_lead }</p>
            { slider("count-read", texts.count_read, range, counts.r, &set_read) }
            { slider("count-write", texts.count_write, range, counts.w, &set_write) }
            <p class="note" id="counts-why">{ why }</p>
            if let Some(refusal) = wish.refusal(mode, copies) {
                <p class="told bad" id="counts-refused" role="status">{ i18n::refusal(language, &refusal) }</p>
            }
            { picture(language, counts) }
            <p class={classes!("told", meets)} id="overlap" role="status">{ i18n::overlap(language, counts) }</p>
            <p class="note">{ texts.worst_case }</p>
            <div class="row measure">
                <button id="measure" onclick={measure} disabled={!can_ask || is_running} title={(!can_ask).then_some(texts.keys_need_node)}>{ texts.measure }</button>
                if let Some(measured) = measured.as_ref().filter(|_| is_running) {
                    <progress max={READS.to_string()} value={measured.sum.total().all().to_string()} aria-label={texts.measure} />
                }
            </div>
            <p class="note">{ texts.measure_lead }</p>
            <div role="status" id="measured">{ result(screen, measured.as_ref()) }</div>
        </section>
    }
}

/// One count.
fn slider(
    id: &'static str,
    label: &'static str,
    (least, most): (u8, u8),
    count: u8,
    set: &Callback<Option<u8>>,
) -> Html {
    let slide = set.reform(|event: InputEvent| typed(&event).parse().ok());
    html! {
        <label class="count" for={id}>
            <span>{ label }</span>
            <input {id} type="range" min={least.to_string()} max={most.to_string()} step="1" disabled={least == most}
                value={count.to_string()} oninput={slide} aria-describedby="counts-why" />
            <output for={id}>{ format!("{count} / {most}") }</output>
        </label>
    }
}

/// The owners in a row: a bracket above those that hold the write, one below those that answer the read.
fn picture(language: Language, counts: Counts) -> Html {
    let texts = language.texts();
    let n = usize::from(counts.n);
    let (r, w) = (usize::from(counts.r).min(n), usize::from(counts.w).min(n));
    let owners = counts.parts().enumerate().map(|(i, part)| {
        let (class, says) = match part {
            Part { holds: true, answers: true } => ("both", texts.part_both),
            Part { holds: true, answers: false } => ("holds", texts.part_holds),
            Part { holds: false, answers: true } => ("answers", texts.part_answers),
            Part { holds: false, answers: false } => ("neither", texts.part_neither),
        };
        html! {
            <g class={classes!("part", class)} transform={format!("translate({} 56)", middle(i))}>
                <title>{ says }</title>
                <circle class="ground" r="20" />
                if part.holds { <path class="held" d="M0 -20A20 20 0 0 0 0 20Z" /> }
                if part.answers { <path class="answered" d="M0 -20A20 20 0 0 1 0 20Z" /> }
                <circle class="rim" r="20" />
            </g>
        }
    });
    let width = PLACE * n.max(1);
    html! {
        <div class="scroll">
            <svg class="worst-case" viewBox={format!("0 0 {width} 112")} width={width.to_string()} height="112" role="img" aria-label={i18n::overlap(language, counts)}>
                { bracket("write", (0, w), (22, 29, 15), format!("W = {w}")) }
                { for owners }
                { bracket("read", (n - r, n), (90, 83, 107), format!("R = {r}")) }
            </svg>
        </div>
    }
}

/// Where the owner at this place stands.
fn middle(place: usize) -> usize {
    place * PLACE + PLACE / 2
}

/// What holds a set together, from its first owner to before another: how high it runs, where it ends, and where its
/// name stands.
fn bracket(
    class: &'static str,
    (first, behind): (usize, usize),
    (y, end, under): (usize, usize, usize),
    name: String,
) -> Html {
    if first == behind {
        return Html::default();
    }
    let (left, right) = (middle(first), middle(behind - 1));
    html! {
        <g {class}>
            <path class="bracket" d={format!("M{} {end}V{y}H{}V{end}", left - 20, right + 20)} />
            <text x={((left + right) / 2).to_string()} y={under.to_string()}>{ name }</text>
        </g>
    }
}

/// A measurement, also while it is under way.
#[derive(Clone, PartialEq)]
struct Measured {
    /// The namespace.
    space: String,
    /// By which counts.
    counts: Counts,
    sum: Sum,
    /// How it ended, if it has.
    end: Option<End>,
}

#[derive(Clone, PartialEq)]
enum End {
    Done,
    /// A write was refused, so that there was nothing more to read.
    Refused(Refusal),
    NoNode,
}

/// What a measurement came to, once it has ended.
fn result(screen: &Screen, measured: Option<&Measured>) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let Some(Measured { space, counts, sum, end: Some(end) }) = measured else { return Html::default() };
    let total = sum.total();
    let told = i18n::stale(language, total, *counts, space);
    let world = screen.cluster.read();
    let through = sum.by_node().map(|(node, reads)| {
        html! { <>{ badge(&world, node) }{ format!(" {} / {} ", reads.missed, reads.answered) }</> }
    });
    let cut_short = match end {
        End::Done => Html::default(),
        End::Refused(refusal) => html! { <p class="told bad">{ i18n::refusal(language, refusal) }</p> },
        End::NoNode => html! { <p class="told bad">{ texts.keys_need_node }</p> },
    };
    let tone = if total.missed > 0 { "bad" } else { "good" };
    html! {
        <>
            { cut_short }
            if total.answered > 0 {
                <p class={classes!("told", tone)} id="stale">{ told }</p>
                <p class="facts-line">{ texts.read_through }{ " " }{ for through }</p>
            }
        </>
    }
}

/// Writes and reads in turn, and tells how far it is.
async fn run(cluster: Cluster, space: Space, (wish, counts): (Wish, Counts), told: UseStateSetter<Option<Measured>>) {
    let mut measured = Measured { space: space.name.clone(), counts, sum: Sum::default(), end: None };
    told.set(Some(measured.clone()));
    // A key that nobody else writes: what was acknowledged last is known to this page alone.
    let name = format!("scratch-{:06x}", (js_sys::Math::random() * 16_777_216.0) as u32);
    let key = space.key(&name);
    let mut path = format!("/v1/kv/{name}?namespace={}&timeout={}", space.name, PATIENCE.as_millis());
    path.extend(wish.read.map(|count| format!("&r={count}")));
    let mut readers = readers(&cluster);
    let mut context = Context::default();
    for turn in 1..=READS {
        let value = turn.to_string();
        let written = put(&cluster, &key, Some(value.as_str().into()), context, wish.write_level()).await;
        match written {
            Ok(after) => context = after,
            Err(end) => {
                measured.end = Some(end);
                break;
            }
        }
        let at = turn as usize % readers.len();
        let (node, server) = &readers[at];
        let shown = match server {
            Some(server) => values_at(server, &path).await,
            None => values_here(&cluster, &key, wish.read_level()).await,
        };
        measured.sum.note(*node, &value, shown.as_deref());
        if shown.is_none() && server.is_some() {
            // One that cannot be asked would hold up every round, and say nothing.
            readers.remove(at);
        }
        told.set(Some(measured.clone()));
    }
    clean_up(&cluster, &key).await;
    measured.end.get_or_insert(End::Done);
    told.set(Some(measured));
}

/// The nodes that this page can ask: its own, which is asked without an address, and the servers.
fn readers(cluster: &Cluster) -> Vec<(NodeId, Option<String>)> {
    let own = cluster.read().me().unwrap_or_default();
    let servers = cluster.alive_servers().into_iter().map(|(node, server)| (node, Some(server)));
    [(own, None)].into_iter().chain(servers).collect()
}

/// Writes through this tab's node. Returns what the next write is to supersede: all that the page has written.
async fn put(
    cluster: &Cluster,
    key: &Bytes,
    value: Option<Bytes>,
    context: Context,
    stored: Level,
) -> Result<Context, End> {
    let context = WriteContext::Seen(context);
    let op = Op::Put { key: key.clone(), value, context, write: None, stored, within: Some(PATIENCE) };
    match cluster.ask(op).await {
        Some(Ok(Outcome::Written { dot, mut context, .. })) => {
            // Where the owner that minted it was not among those heard, the context leaves the write itself out.
            context.seen.add(dot);
            Ok(context)
        }
        Some(Err(refusal)) => Err(End::Refused(refusal)),
        Some(Ok(_)) | None => Err(End::NoNode),
    }
}

/// The values of a key as this tab's node reads them.
async fn values_here(cluster: &Cluster, key: &Bytes, read: Level) -> Option<Vec<String>> {
    match cluster.ask(Op::Get { key: key.clone(), read, within: Some(PATIENCE) }).await {
        Some(Ok(Outcome::Read { versions, .. })) => {
            let values = versions.values().filter_map(|sibling| sibling.value.as_ref());
            Some(values.map(ToString::to_string).collect())
        }
        Some(Ok(_) | Err(_)) | None => None,
    }
}

/// Deletes what was written, as far as a majority of the owners can be asked.
async fn clean_up(cluster: &Cluster, key: &Bytes) {
    let op = Op::Get { key: key.clone(), read: Level::Majority, within: Some(PATIENCE) };
    if let Some(Ok(Outcome::Read { versions, .. })) = cluster.ask(op).await
        && !versions.siblings().is_empty()
    {
        // If it fails, a key with a telling name is left.
        let _ = put(cluster, key, None, versions.to_context(), Level::Majority).await;
    }
}
