//! What nodes hold of each other, followed live.
//!
//! ```text
//!   node ── /v1/trace?kinds=membership ──▶ thread ──▶ [ what it holds of whom ] [ all that it said ]
//!   node ── /v1/members, once ───────────▶ thread ──▶ [ what it held before ]
//! ```
//!
//! One thread follows one node, and takes it up again when the node was restarted. Between the node's own change of mind
//! and its being known here lies a line of text over loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use qunlong_core::NodeId;
use qunlong_core::member::{Class, Member, State};
use qunlong_core::membership::Event;
use serde_json::Value;

use crate::support::cluster::{Process, agent, read};
use crate::until;

/// A node that does not answer is asked again after this. More often would be a load of its own while one is dead.
const AGAIN: Duration = Duration::from_millis(200);

/// The views of several nodes, which are numbered as they were given.
pub(crate) struct Views {
    ids: Vec<NodeId>,
    heard: Arc<Mutex<Heard>>,
}

/// What was heard of the nodes.
#[derive(Default)]
pub(crate) struct Heard {
    /// By who holds it, and of whom.
    held: BTreeMap<(usize, NodeId), Arc<Member>>,
    claims: Vec<Claim>,
    /// Refutations of suspicions and deaths.
    refuted: Vec<Instant>,
    /// Events that a node dropped because this program was too slow.
    lost: u64,
}

/// What one node came to hold.
struct Claim {
    at: Instant,
    by: usize,
    of: Arc<Member>,
}

impl Views {
    /// Follows nodes from now on. Waits until each of them is heard.
    pub(crate) fn follow(nodes: &[Process]) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        for (by, node) in nodes.iter().enumerate() {
            let (heard, address) = (Arc::downgrade(&heard), node.address.clone());
            std::thread::spawn(move || {
                while heard.strong_count() > 0 {
                    // However a trace ends, its node is asked again.
                    let _ = listen(&heard, by, &address);
                    std::thread::sleep(AGAIN);
                }
            });
        }
        let mut ids = Vec::new();
        until("the nodes to answer", Instant::now(), || {
            let statuses = nodes[ids.len()..].iter().map_while(Process::status);
            ids.extend(statuses.map_while(|status| NodeId::parse_hex(status["id"].as_str()?)));
            ids.len() == nodes.len()
        });
        let views = Self { ids, heard };
        let everybody: Vec<usize> = (0..nodes.len()).collect();
        views.until("the traces", Instant::now(), |heard| {
            everybody.iter().all(|&by| heard.held.contains_key(&(by, views.ids[by])))
        });
        views
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.ids[node]
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// Waits until something holds of what was heard. Returns how long that was since `began`.
    pub(crate) fn until(&self, what: &str, began: Instant, holds: impl Fn(&Heard) -> bool) -> Duration {
        until(what, began, || holds(&self.heard()))
    }

    /// Waits until each of these nodes holds all of these in the same state.
    pub(crate) fn until_all_hold(&self, began: Instant, by: &[usize], of: &[usize], state: State) -> Duration {
        self.until(&format!("{} to be {state:?} for all", of.len()), began, |heard| {
            by.iter().all(|&by| of.iter().all(|&of| heard.state(by, self.ids[of]) == Some(state)))
        })
    }
}

impl Heard {
    /// A node's view of a member.
    pub(crate) fn member(&self, by: usize, of: NodeId) -> Option<&Member> {
        self.held.get(&(by, of)).map(Arc::as_ref)
    }

    fn state(&self, by: usize, of: NodeId) -> Option<State> {
        self.member(by, of).map(|member| member.state)
    }

    /// Whom a node holds alive.
    pub(crate) fn alive(&self, by: usize) -> impl Iterator<Item = &Member> {
        let members = self.held.iter().filter(move |((who, _), _)| *who == by).map(|(_, member)| member.as_ref());
        members.filter(|member: &&Member| member.state == State::Alive)
    }

    /// The tabs that a node holds alive.
    pub(crate) fn tabs(&self, by: usize) -> impl Iterator<Item = &Member> {
        self.alive(by).filter(|member| member.profile.class == Class::Tab)
    }

    /// Who came to hold whom in this state since then, each pair once.
    pub(crate) fn came_to_hold(&self, since: Instant, state: State) -> BTreeSet<(usize, NodeId)> {
        let claims = self.claims.iter().filter(|claim| claim.at >= since && claim.of.state == state);
        claims.map(|claim| (claim.by, claim.of.id)).collect()
    }

    /// When somebody first suspected a member since then.
    pub(crate) fn first_suspected(&self, since: Instant, id: NodeId) -> Option<Instant> {
        let suspicions = self.claims.iter().filter(|claim| claim.of.id == id && claim.of.state == State::Suspect);
        suspicions.map(|claim| claim.at).filter(|&at| at >= since).min()
    }

    /// Suspicions, by whom they are about and at which incarnation, that this member raised itself.
    pub(crate) fn accused_by(&self, since: Instant, accuser: NodeId) -> BTreeSet<(NodeId, u64)> {
        let claims = self.claims.iter().filter(|claim| claim.at >= since && claim.of.accuser == Some(accuser));
        claims.map(|claim| (claim.of.id, claim.of.incarnation)).collect()
    }

    /// How often one of the followed nodes had to say that it lives.
    pub(crate) fn refuted(&self, since: Instant) -> usize {
        self.refuted.iter().filter(|&&at| at >= since).count()
    }

    /// Events that were missed, which should be none.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    fn hear(&mut self, by: usize, event: Event) {
        let at = Instant::now();
        match event {
            Event::Joined(of) | Event::Changed(of) => {
                self.learn(by, of.clone());
                self.claims.push(Claim { at, by, of });
            }
            Event::Forgot(node) => {
                self.held.remove(&(by, node));
            }
            Event::Refuted { .. } => self.refuted.push(at),
            Event::AskedOthers { .. } | Event::Conflict { .. } | Event::Vanished { .. } => (),
        }
    }

    /// A node's list of members may be older than the trace that it is read beside.
    fn learn(&mut self, by: usize, of: Arc<Member>) {
        let before = self.held.get(&(by, of.id));
        if before.is_none_or(|before| before.precedence() < of.precedence()) {
            self.held.insert((by, of.id), of);
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().expect("no thread panicked")
}

/// Follows one node until its trace ends, or until nobody wants to know any more.
fn listen(heard: &Weak<Mutex<Heard>>, by: usize, address: &str) -> Option<()> {
    let trace = ureq::get(format!("http://{address}/v1/trace?kinds=membership")).call().ok()?;
    // A node makes events from the turn after the subscription on; the first answer only lets that turn pass.
    members(address)?;
    let members = members(address)?;
    {
        let heard = heard.upgrade()?;
        let mut heard = lock(&heard);
        heard.held.retain(|(who, _), _| *who != by);
        members.into_iter().for_each(|member| heard.learn(by, member));
    }
    for line in BufReader::new(trace.into_body().into_reader()).lines() {
        let line = line.ok()?;
        let heard = heard.upgrade()?;
        if let Some(data) = line.strip_prefix("data: ") {
            let told: Value = serde_json::from_str(data).ok()?;
            match serde_json::from_value(told["event"]["Membership"].clone()) {
                Ok(event) => lock(&heard).hear(by, event),
                Err(_) => lock(&heard).lost += told.as_u64().expect("an event, or how many were lost"),
            }
        }
    }
    None
}

fn members(address: &str) -> Option<Vec<Arc<Member>>> {
    let (_, body) = read(agent().get(format!("http://{address}/v1/members")).call())?;
    let body: Value = serde_json::from_str(&body).ok()?;
    serde_json::from_value(body["members"].clone()).ok()
}
