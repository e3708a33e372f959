//! The one task that owns the core: it takes all ready inputs, drains the outputs, and hands each link its packets,
//! which the link flushes once.
//!
//! Everybody else sends it [`Command`]s. The queue is bounded; a client that finds it full is told `OVERLOADED`,
//! and a peer's reader waits, which TCP passes on to the peer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Sender as BatchSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::lift::Family;
use qunlong_core::member::{Load, Member};
use qunlong_core::topology::Followed;
use qunlong_core::trace::Level;
use qunlong_core::wire::{self, DecodeError, Side};
use qunlong_core::{
    ClusterId, Event, Generation, Input, Instant, Node, NodeId, Now, Op, Outcome, Output, Refusal, RequestId, WallTime,
    kv, limits, membership, registers,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Bytes;

use crate::failure::Failure;
use crate::hub::{Added, Hub};
use crate::link::{self, LinkContext, LinkError, Outgoing};
use crate::recording::Recording;
use crate::store::{Batch, Word};

/// Commands that wait for the driver.
const QUEUE: usize = 8_192;
/// Inputs handled before the outputs are drained.
const TURN: usize = 1_024;
/// Events that a slow subscriber may lag behind before it loses some.
const TRACE: usize = 16_384;
/// How often links are looked after.
const UPKEEP: Duration = Duration::from_millis(200);
/// Over how long it is measured how busy this node is.
const BUSY_SPAN: Duration = Duration::from_secs(5);

/// What others want of the node.
pub(crate) enum Command {
    Request { op: Op, reply: oneshot::Sender<Result<Outcome, Refusal>> },
    Frame { id: u64, peer: NodeId, frame: Bytes },
    LinkUp { peer: NodeId, side: Side, link: LinkParts, taken: oneshot::Sender<Option<u64>> },
    LinkDown { id: u64, peer: NodeId },
    DialEnded { address: String, result: Result<NodeId, LinkError> },
    Inspect { reply: oneshot::Sender<Snapshot> },
    Cut { peer: NodeId, cut: bool },
    Leave,
}

/// Why the driver has woken up.
enum Woken {
    Word(Word),
    Command(Command),
    Upkeep,
    Deadline,
}

/// The driver's ends of a new link.
pub(crate) struct LinkParts {
    queue: mpsc::Sender<Outgoing>,
    close: watch::Sender<Option<DecodeError>>,
    address: Option<String>,
}

/// What can be seen of a node from outside.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: NodeId,
    pub(crate) generation: Generation,
    pub(crate) config: Option<ClusterConfig>,
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) links: Vec<NodeId>,
    pub(crate) cuts: Vec<NodeId>,
    /// While a change is under way: of how many partitions this node has everything.
    pub(crate) taken_over: usize,
    /// The last change that was asked for here and had newcomers fetch first.
    pub(crate) followed: Option<Followed>,
    pub(crate) keys: usize,
    pub(crate) registers: usize,
    pub(crate) digest: u64,
    pub(crate) dropped: u64,
    pub(crate) uptime: Duration,
}

/// The way to the driver.
#[derive(Clone)]
pub(crate) struct Commands(mpsc::Sender<Command>);

impl Commands {
    /// Waits for room. The driver may be gone, at the very end; then nobody minds.
    pub(crate) async fn send(&self, command: Command) {
        let _ = self.0.send(command).await;
    }

    /// Asks the node; refused at once when it is behind.
    pub(crate) async fn request(&self, op: Op) -> Result<Outcome, Refusal> {
        let (reply, answer) = oneshot::channel();
        let reads = matches!(
            op,
            Op::Kv(kv::Op::Get { .. } | kv::Op::List { .. })
                | Op::Registers(registers::Op::Get { .. } | registers::Op::List { .. } | registers::Op::Watch { .. })
        );
        self.0.try_send(Command::Request { op, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Refusal::Leaving,
        })?;
        // The node stopped before it could answer: a change that had begun may still take effect.
        answer.await.unwrap_or(Err(if reads {
            Refusal::Leaving
        } else {
            Refusal::TimeoutUnknown { acked: 0, needed: 0 }
        }))
    }

    pub(crate) async fn inspect(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Inspect { reply }).await;
        answer.await.ok()
    }

    pub(crate) async fn link_up(
        &self,
        peer: NodeId,
        side: Side,
        queue: mpsc::Sender<Outgoing>,
        close: watch::Sender<Option<DecodeError>>,
        address: Option<String>,
    ) -> Option<u64> {
        let (taken, answer) = oneshot::channel();
        self.send(Command::LinkUp { peer, side, link: LinkParts { queue, close, address }, taken }).await;
        answer.await.ok().flatten()
    }
}

/// The core's host.
pub(crate) struct Driver {
    node: Node,
    hub: Hub,
    link_context: LinkContext,
    commands: mpsc::Receiver<Command>,
    journal: UnboundedReceiver<Word>,
    batches: BatchSender<Batch>,
    waiting: HashMap<RequestId, oneshot::Sender<Result<Outcome, Refusal>>>,
    requests: u64,
    /// Packets passed on, which spreads them over the ways there are.
    relayed: u64,
    trace: broadcast::Sender<Event>,
    cluster: watch::Sender<Option<ClusterId>>,
    servers: watch::Sender<BTreeSet<String>>,
    started: std::time::Instant,
    recording: Option<Recording>,
    leaving: Option<RequestId>,
    left: bool,
    /// Since when, and for how long since then, this task has been at work.
    busy: (std::time::Instant, Duration),
    load: Load,
}

/// What the rest of the process keeps of a driver.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) commands: Commands,
    pub(crate) trace: broadcast::Sender<Event>,
    /// Addresses of the epoch's servers.
    pub(crate) servers: watch::Receiver<BTreeSet<String>>,
    pub(crate) link_context: LinkContext,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) identity: Arc<crate::identity::Identity>,
    pub(crate) address: String,
    pub(crate) seeds: Vec<String>,
    pub(crate) batches: BatchSender<Batch>,
    pub(crate) journal: UnboundedReceiver<Word>,
    pub(crate) recording: Option<Recording>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let (cluster, cluster_seen) = watch::channel(None);
        let (servers, servers_seen) = watch::channel(BTreeSet::new());
        let trace = broadcast::channel(TRACE).0;
        let commands_sender = Commands(sender);
        let link_context =
            LinkContext { identity: parts.identity, cluster: cluster_seen, commands: commands_sender.clone() };
        let hub = Hub::new(parts.node.id(), parts.address, &parts.seeds);
        let handle = Handle {
            commands: commands_sender,
            trace: trace.clone(),
            servers: servers_seen,
            link_context: link_context.clone(),
        };
        let driver = Self {
            node: parts.node,
            hub,
            link_context,
            commands,
            journal: parts.journal,
            recording: parts.recording,
            batches: parts.batches,
            waiting: HashMap::new(),
            requests: 0,
            relayed: 0,
            trace,
            cluster,
            servers,
            started: std::time::Instant::now(),
            leaving: None,
            left: false,
            busy: (std::time::Instant::now(), Duration::ZERO),
            load: Load::default(),
        };
        (driver, handle)
    }

    /// Runs until the node has left.
    ///
    /// # Errors
    ///
    /// If it has to stop before.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut upkeep = tokio::time::interval(UPKEEP);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.input(Input::Tick);
        self.flush();
        while !self.left {
            let deadline = self.node.deadline().unwrap_or(Instant(u64::MAX));
            let wait = Duration::from_micros(deadline.since(self.now().mono).0.min(UPKEEP.as_micros() as u64 * 10));
            let woken = tokio::select! {
                biased;
                Some(word) = self.journal.recv() => Woken::Word(word),
                Some(command) = self.commands.recv() => Woken::Command(command),
                _ = upkeep.tick() => Woken::Upkeep,
                () = tokio::time::sleep(wait) => Woken::Deadline,
            };
            let began = std::time::Instant::now();
            match woken {
                Woken::Word(word) => self.word(word),
                Woken::Command(command) => self.command(command),
                Woken::Upkeep => {
                    self.look_after_links();
                    self.tell_load();
                }
                Woken::Deadline => self.input(Input::Tick),
            }
            for _ in 0..TURN {
                let Ok(command) = self.commands.try_recv() else { break };
                self.command(command);
            }
            while let Ok(word) = self.journal.try_recv() {
                self.word(word);
            }
            self.flush();
            self.busy.1 += began.elapsed();
            if let Some(generation) = self.node.superseded() {
                return Err(Failure::new(
                    "DUPLICATE_NODE_ID",
                    format!(
                        "another process runs under this node's identity (boot {}), and it is the newer; this one stops; \
                         give each node a data folder of its own",
                        generation.0
                    ),
                ));
            }
        }
        if let Some(recording) = self.recording {
            recording.finish(&self.node);
        }
        Ok(())
    }

    /// Says how busy this node has been, once in a while.
    fn tell_load(&mut self) {
        let (since, busy) = self.busy;
        if since.elapsed() < BUSY_SPAN {
            return;
        }
        let permille = busy.as_micros() * 1_000 / since.elapsed().as_micros().max(1);
        self.busy = (std::time::Instant::now(), Duration::ZERO);
        self.load = self.load.after(permille as u64);
        let id = self.next_request();
        self.input(Input::Request { id, op: Op::Membership(membership::Op::Load(self.load)) });
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Instant(self.started.elapsed().as_micros() as u64), wall: WallTime(wall.as_micros() as u64) }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        if let Some(recording) = &mut self.recording {
            recording.input(now, &input);
        }
        self.node.handle(now, input);
    }

    fn word(&mut self, word: Word) {
        self.input(match word {
            Word::Durable(id) => Input::Persisted(id),
            Word::Full(full) => Input::DiskFull(full),
        });
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Request { op, reply } => {
                let id = self.next_request();
                self.waiting.insert(id, reply);
                self.input(Input::Request { id, op });
            }
            Command::Frame { id, peer, frame } => {
                if self.hub.is_current(id, peer) {
                    self.frame(peer, &frame);
                }
            }
            Command::LinkUp { peer, side, link, taken } => {
                let added = self.hub.add(peer, side, link.queue, link.close, link.address.as_deref());
                let id = match added {
                    Added::New(id) => {
                        tracing::info!(%peer, "linked");
                        self.input(Input::Link { peer, up: true });
                        Some(id)
                    }
                    Added::Replaced(id) => Some(id),
                    Added::Refused => None,
                };
                let _ = taken.send(id);
            }
            Command::LinkDown { id, peer } => {
                if self.hub.remove(id, peer) {
                    tracing::info!(%peer, "link closed");
                    self.input(Input::Link { peer, up: false });
                }
            }
            Command::DialEnded { address, result } => self.dial_ended(&address, &result),
            Command::Inspect { reply } => {
                let _ = reply.send(self.snapshot());
            }
            Command::Cut { peer, cut } => {
                tracing::warn!(%peer, cut, "the demonstration changed a link");
                self.hub.set_cut(peer, cut);
            }
            Command::Leave => {
                let id = self.next_request();
                self.leaving = Some(id);
                self.input(Input::Request { id, op: Op::Membership(membership::Op::Leave) });
            }
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Delivers the packets for this node and passes the others on, bodies unread.
    fn frame(&mut self, peer: NodeId, frame: &Bytes) {
        if self.hub.is_cut(peer) {
            return;
        }
        let may_relay = self.node.view().may_relay(peer);
        let cluster = *self.cluster.borrow();
        let packets = match link::admit(frame, peer, may_relay, cluster) {
            Ok(packets) => packets,
            Err(error) => return self.hang_up(peer, error),
        };
        for packet in packets {
            if packet.to == self.node.id() {
                match wire::decode_message(packet.from, packet.body) {
                    Ok(envelope) => self.input(Input::Message(envelope)),
                    // A relay passes bodies on unread: what is wrong with them is not its fault.
                    Err(error) if packet.from != peer => {
                        tracing::warn!(from = %packet.from, %error, "dropped a message");
                    }
                    Err(error) => return self.hang_up(peer, error),
                }
            } else if packet.hops < limits::HOPS {
                self.relayed += 1;
                let next = self.node.view().next_hop(packet.to, self.relayed).filter(|&next| next != peer);
                let (to, from, hops, body) = (packet.to, packet.from, packet.hops + 1, frame.slice_ref(packet.body));
                self.hub.send(next, Outgoing { to, from, hops, body }, false);
            }
        }
    }

    fn hang_up(&mut self, peer: NodeId, error: DecodeError) {
        tracing::warn!(%peer, %error, "hung up on a peer that sent nonsense");
        if self.hub.hang_up(peer, error) {
            self.input(Input::Link { peer, up: false });
        }
    }

    /// Does what the node wants done.
    fn flush(&mut self) {
        let level = if self.trace.receiver_count() > 0 { Level::Messages } else { Level::Off };
        while let Some(output) = self.node.poll() {
            match output {
                Output::Persist { id, records } => {
                    self.batches.send((id, records)).expect("the journal's thread ends the process when it fails");
                }
                Output::Send { to, message } => self.send(&to, &message),
                Output::Reply { id, result } => {
                    if self.leaving == Some(id) {
                        self.left = true;
                    } else if let Some(reply) = self.waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
                Output::Trace(event) => {
                    let _ = self.trace.send(event);
                }
            }
        }
        if let Some(recording) = &mut self.recording {
            recording.drained();
        }
        self.node.set_level(level);
        let cluster = self.node.view().chosen.as_ref().map(|chosen| chosen.config.cluster);
        self.cluster.send_if_modified(|known| std::mem::replace(known, cluster) != cluster);
    }

    fn send(&mut self, to: &[NodeId], message: &wire::Envelope) {
        let is_gossip = message.payload.kind().family() == Family::Membership;
        let body = match wire::encode_message(message) {
            Ok(body) => Bytes::from(body),
            Err(error) => return tracing::error!(%error, "a message is too large to be sent"),
        };
        for &to in to {
            let next = self.node.view().next_hop(to, message.seq);
            self.hub.send(next, Outgoing { to, from: message.from, hops: 0, body: body.clone() }, is_gossip);
        }
    }

    fn look_after_links(&mut self) {
        let view = self.node.view();
        // What gossip says of others is not enough to let their pages in: only those with a seat are servers here.
        let config = view.chosen.as_ref().map(|chosen| &chosen.config);
        let of_epoch = view.members.values().filter(|m| config.is_some_and(|config| config.seats(m.id)));
        let servers: BTreeSet<String> = of_epoch.filter_map(|member| member.profile.address.clone()).collect();
        self.servers.send_if_modified(|known| {
            let changed = *known != servers;
            *known = servers;
            changed
        });
        for address in self.hub.due_dials(self.node.view(), std::time::Instant::now()) {
            let cx = self.link_context.clone();
            tokio::spawn(async move {
                let commands = cx.commands.clone();
                let result = link::dial(address.clone(), cx).await;
                commands.send(Command::DialEnded { address, result }).await;
            });
        }
    }

    fn dial_ended(&mut self, address: &str, result: &Result<NodeId, LinkError>) {
        use qunlong_core::wire::HandshakeError;
        let mut was_myself = false;
        match result {
            Ok(_) => (),
            Err(LinkError::Handshake(HandshakeError::SameIdentity)) => was_myself = true,
            Err(error @ LinkError::Handshake(_)) => tracing::error!(address, %error, "cannot link"),
            Err(LinkError::Refused) => {
                if let Some(peer) = self.hub.listens_at(address) {
                    self.input(Input::Refused { peer });
                }
            }
            Err(error) => tracing::debug!(address, %error, "cannot link"),
        }
        self.hub.dial_ended(address, was_myself);
    }

    fn snapshot(&self) -> Snapshot {
        let view = self.node.view();
        Snapshot {
            id: self.node.id(),
            generation: self.node.generation(),
            config: view.chosen.as_ref().map(|chosen| chosen.config.clone()),
            members: view.members.values().cloned().collect(),
            links: self.hub.peers().collect(),
            cuts: self.hub.cuts(),
            taken_over: view.taken_over.as_ref().map_or(0, |(_, partitions)| partitions.len()),
            followed: self.node.followed().cloned(),
            keys: self.node.store().len(),
            registers: self.node.registers().len(),
            digest: self.node.store().digest(),
            dropped: self.hub.dropped(),
            uptime: self.started.elapsed(),
        }
    }
}
