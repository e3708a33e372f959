//! Scenarios as text, and what happened as text.
//!
//! A scenario is a list of commands, one a line; `#` begins a comment. It needs no compiler, so a lesson, a bug
//! report and a test are the same file. What it prints is pinned as a golden trace.
//!
//! ```text
//!   seed 7 / servers 3 / tabs 1 / replicas 3     before anything else; all optional; no more replicas than servers
//!   delay 1ms 5ms | loss 10 | duplicate 10 | reorder on        the network; rates per thousand
//!   trace off | decisions | messages             what is printed from here on
//!   run 2s                                       let time pass
//!   put n1 key value [new | seen NODE]           plain; as a sibling; superseding what NODE last read
//!   delete n1 key | get n1 key | list n1 prefix  wait for the answer and print it
//!   crash n2 | start n2 | cut n1 n2 | heal       faults
//!   members n1                                   print what a node believes
//!   agree                                        fail unless all members' views and all owners' data agree
//! ```

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use super::Sim;
use super::check::converge::agree;
use crate::bytes::Bytes;
use crate::id::WriteId;
use crate::kv;
use crate::lift::{Op, Outcome};
use crate::limits;
use crate::quorum::Level as Quorum;
use crate::refusal::Refusal;
use crate::time::Duration;
use crate::trace::Level;
use crate::version::{Context, Versions};

/// A line that could not be understood or did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl core::error::Error for ScriptError {}

/// Runs a scenario and returns what it printed.
///
/// # Errors
///
/// The first line that is not understood or does not hold.
pub fn run(text: &str) -> Result<String, ScriptError> {
    let mut stage = Stage::default();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        stage.command(&words).map_err(|what| ScriptError { line: index + 1, what })?;
    }
    Ok(stage.out)
}

struct Stage {
    seed: u64,
    servers: u8,
    tabs: u8,
    replicas: u8,
    sim: Option<Sim>,
    /// What each node's clients last read.
    seen: BTreeMap<String, Context>,
    writes: u8,
    out: String,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            seed: 1,
            servers: 3,
            tabs: 0,
            replicas: 3,
            sim: None,
            seen: BTreeMap::new(),
            writes: 0,
            out: String::new(),
        }
    }
}

/// Longer than any deadline, so that every request is answered.
const PATIENCE: Duration = Duration::secs(40);
/// More than a person can follow.
const SERVERS_MAX: u8 = 16;
const TABS_MAX: u8 = 16;
/// A longer time is a slip of the pen.
const SPAN_MAX: u64 = 1_000_000_000;

impl Stage {
    fn command(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            [] => Ok(()),
            ["seed", n] => self.set_up(|stage, n| stage.seed = n, number(n)?),
            ["servers", n] => self.set_up(|stage, n| stage.servers = n, count(n, 1, SERVERS_MAX)?),
            ["tabs", n] => self.set_up(|stage, n| stage.tabs = n, count(n, 0, TABS_MAX)?),
            ["replicas", n] => self.set_up(|stage, n| stage.replicas = n, count(n, 1, limits::REPLICAS)?),
            _ => {
                self.say_line(words);
                self.act(words)?;
                self.drain_trace();
                Ok(())
            }
        }
    }

    fn set_up<N>(&mut self, set: impl FnOnce(&mut Self, N), n: N) -> Result<(), String> {
        if self.sim.is_some() {
            return Err("this belongs before the first command".to_string());
        }
        set(self, n);
        Ok(())
    }

    fn act(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["delay", min, max] => {
                let (min, max) = (span(min)?, span(max)?);
                let network = &mut self.sim().network;
                (network.delay_min, network.delay_max) = (min, max);
            }
            ["loss", rate] => self.sim().network.loss_per_mille = number(rate)? as u32,
            ["duplicate", rate] => self.sim().network.duplicate_per_mille = number(rate)? as u32,
            ["reorder", "on"] => self.sim().network.reorder = true,
            ["reorder", "off"] => self.sim().network.reorder = false,
            ["trace", "off"] => self.sim().set_level(Level::Off),
            ["trace", "decisions"] => self.sim().set_level(Level::Decisions),
            ["trace", "messages"] => self.sim().set_level(Level::Messages),
            ["run", time] => {
                let time = span(time)?;
                self.sim().run_for(time);
            }
            ["put", node, key, value, rest @ ..] => self.put(node, key, Some(value), rest)?,
            ["delete", node, key, rest @ ..] => self.put(node, key, None, rest)?,
            ["get", node, key] => {
                let get = kv::Op::Get { key: Bytes::from(*key), read: Quorum::Majority, within: None };
                self.ask(node, get)?;
            }
            ["list", node, rest @ ..] => {
                let prefix = Bytes::from(rest.first().copied().unwrap_or_default());
                self.ask(node, kv::Op::List { prefix, after: None, limit: 100, within: None })?;
            }
            ["crash", node] => {
                let place = self.place(node)?;
                self.sim().crash(place);
            }
            ["start", node] => {
                let place = self.place(node)?;
                self.sim().start(place);
            }
            ["cut", a, b] => {
                let (a, b) = (self.place(a)?, self.place(b)?);
                self.sim().network.cut(a, b);
                self.sim().network.cut(b, a);
            }
            ["heal"] => self.sim().network.heal_all(),
            ["members", node] => self.members(node)?,
            ["agree"] => agree(self.sim(), None)?,
            _ => return Err(format!("unknown command: {}", words.join(" "))),
        }
        Ok(())
    }

    fn put(&mut self, node: &str, key: &str, value: Option<&&str>, how: &[&str]) -> Result<(), String> {
        let context = match how {
            [] => kv::WriteContext::Current,
            ["new"] => kv::WriteContext::Seen(Context::default()),
            ["seen", reader] => kv::WriteContext::Seen(self.seen.get(*reader).cloned().unwrap_or_default()),
            _ => return Err(format!("unknown: {}", how.join(" "))),
        };
        self.writes = self.writes.checked_add(1).ok_or("a scenario has at most 255 writes")?;
        let put = kv::Op::Put {
            key: Bytes::from(key),
            value: value.map(|value| Bytes::from(*value)),
            context,
            write: Some(WriteId([self.writes; 16])),
            stored: Quorum::Majority,
            within: None,
        };
        self.ask(node, put)
    }

    /// Asks, waits, prints the answer.
    fn ask(&mut self, node: &str, op: kv::Op) -> Result<(), String> {
        let place = self.place(node)?;
        let Some(id) = self.sim().request(place, Op::Kv(op)) else {
            return Err(format!("{node} does not run"));
        };
        let answered = self.sim().run_until(PATIENCE, |sim| sim.reply(id).is_some() || sim.node(place).is_none());
        let reply = self.sim().reply(id).cloned();
        self.drain_trace();
        match reply {
            Some(Ok(Outcome::Kv(outcome))) => self.tell(node, &outcome),
            Some(Ok(_)) => return Err("an answer to another question".to_string()),
            Some(Err(refusal)) => self.tell_refusal(&refusal),
            None => {
                return Err(format!("no answer{}", if answered { ": the node stopped" } else { "" }));
            }
        }
        Ok(())
    }

    fn tell(&mut self, node: &str, outcome: &kv::Outcome) {
        match outcome {
            kv::Outcome::Read { versions, answered } => {
                self.seen.insert(node.to_string(), versions.to_context());
                let answered = self.names(answered);
                self.say(&format!("  = {} from {answered}", values(versions)));
            }
            kv::Outcome::Written { dot, acked, .. } => {
                let dot = format!("({}, {})", self.sim().name(dot.node), dot.counter);
                let acked = self.names(acked);
                self.say(&format!("  = done as {dot} on {acked}"));
            }
            kv::Outcome::Listed { entries, .. } => {
                for (key, versions) in entries {
                    self.say(&format!("  = {key}: {}", values(versions)));
                }
                self.say(&format!("  = {} keys", entries.len()));
            }
        }
    }

    fn tell_refusal(&mut self, refusal: &Refusal) {
        let kind = if refusal.is_definite() { "refused" } else { "unknown" };
        self.say(&format!("  = {kind} {}", refusal.code()));
    }

    fn members(&mut self, node: &str) -> Result<(), String> {
        let place = self.place(node)?;
        let view = self.sim().node(place).ok_or(format!("{node} does not run"))?.view().clone();
        let list: Vec<String> = view
            .members
            .values()
            .map(|member| {
                format!("{} {:?} g{} i{}", member.profile.name, member.state, member.generation.0, member.incarnation)
            })
            .collect();
        self.say(&format!("  = {}", list.join(", ")));
        Ok(())
    }

    fn drain_trace(&mut self) {
        while let Some(event) = self.sim().next_event() {
            let (at, name) = (event.at.mono, self.sim().name(event.node));
            let told = event.kind.to_string();
            self.say(&format!("  {at} {name} {told}"));
        }
    }

    fn say_line(&mut self, words: &[&str]) {
        let line = words.join(" ");
        self.say(&line);
    }

    fn say(&mut self, line: &str) {
        writeln!(self.out, "{line}").expect("writing to a string succeeds");
    }

    fn names(&mut self, nodes: &[crate::id::NodeId]) -> String {
        let names: Vec<String> = nodes.iter().map(|&node| self.sim().name(node)).collect();
        names.join(" ")
    }

    fn place(&mut self, name: &str) -> Result<usize, String> {
        self.sim().place(name).ok_or_else(|| format!("there is no node {name}"))
    }

    fn sim(&mut self) -> &mut Sim {
        let Self { seed, servers, tabs, replicas, sim, .. } = self;
        sim.get_or_insert_with(|| Sim::new(*seed, *servers, *tabs, (*replicas).min(*servers)))
    }
}

fn values(versions: &Versions) -> String {
    let values: Vec<String> =
        versions.values().filter_map(|sibling| sibling.value.as_ref()).map(|value| format!("{value:?}")).collect();
    if values.is_empty() { "nothing".to_string() } else { values.join(" | ") }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn count(text: &str, least: u8, most: u8) -> Result<u8, String> {
    let n = text.parse().ok().filter(|n| (least..=most).contains(n));
    n.ok_or_else(|| format!("not a number from {least} to {most}: {text}"))
}

fn span(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let n = number(&text[..text.len() - unit.len()])?;
    if n > SPAN_MAX {
        return Err(format!("too long: {text}"));
    }
    match unit {
        "us" => Ok(Duration(n)),
        "ms" => Ok(Duration::millis(n)),
        "s" => Ok(Duration::secs(n)),
        _ => Err(format!("not a time: {text}; write 5ms, 200us or 2s")),
    }
}
