//! The worker's loop: the browser's third host of the core.
//!
//! Everything happens in event handlers of one thread: a frame arrives, a timer fires, the page asks. Each hands its
//! inputs to the core, then [`Driver::flush`] does what the core wants done: records are appended and synced at once
//! (the file system's handle is synchronous), packets are collected and leave as one frame a link.
//!
//! The worker, not the page, runs the node, because browsers slow down the timers of hidden pages; ticks that come
//! late all the same are harmless.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures::channel::oneshot;
use futures::{FutureExt, StreamExt, select_biased};
use js_sys::{ArrayBuffer, Function, Uint8Array};
use qunlong_core::config::Config;
use qunlong_core::member::{Class, Durability, Load, Profile, State};
use qunlong_core::trace::Level;
use qunlong_core::wire::{self, FrameWriter, Packet};
use qunlong_core::{
    Event, Input, Instant, Node, NodeId, Now, Op, Output, Refusal, RequestId, Storage, WallTime, limits, membership,
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

use crate::bridge::{self, FromWorker, LinkStatus, Started, Status, ToWorker, spoken_name};
use crate::socket::{self, Heard, Socket};
use crate::store::{self, Identity, Journal, Opened};

/// Links that a tab keeps: two, so that one server's end is no event.
const LINKS: usize = 2;
/// Redialling waits between these, doubling.
const BACKOFF_MIN_MS: f64 = 200.0;
const BACKOFF_MAX_MS: f64 = 5_000.0;
/// A server sends something every five seconds; a link that is silent for so long is dead, whatever the browser says.
const SILENCE_MS: i32 = 15_000;
/// How often links are looked after and the page is told how things are.
const UPKEEP_MS: i32 = 200;
/// Over how long it is measured how busy this worker is.
const BUSY_SPAN_MS: f64 = 5_000.0;
/// How often the page is told of counters alone.
const COUNTERS_MS: f64 = 1_000.0;
/// How often events go to the page.
const EVENTS_MS: i32 = 33;
/// Events kept for the page between two batches; further ones are dropped.
const EVENTS_MAX: usize = 4_096;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, ms: i32) -> i32;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: i32);
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

/// Resolves after a while.
pub async fn sleep(ms: i32) {
    let (fire, fired) = oneshot::channel();
    // Owned by the timer: whoever sleeps may stop waiting, and the timer fires all the same.
    let callback = Closure::once_into_js(move || {
        let _ = fire.send(());
    });
    set_timeout(callback.unchecked_ref(), ms);
    let _ = fired.await;
}

/// The worker's `main`: listens to the page and says so.
pub fn start() {
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| {
        let bytes = Uint8Array::new(&event.data()).to_vec();
        if let Some(message) = bridge::decode::<ToWorker>(&bytes) {
            receive(message);
        }
    });
    scope().set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    post(&FromWorker::Ready);
}

thread_local! {
    /// The one node of this worker, once it has joined.
    static DRIVER: RefCell<Option<Rc<RefCell<Driver>>>> = const { RefCell::new(None) };
}

fn receive(message: ToWorker) {
    let driver = DRIVER.with_borrow(Clone::clone);
    match (message, driver) {
        (ToWorker::Join { hint, name, server }, None) => spawn_local(join(hint, name, server)),
        (ToWorker::Ask { id, op }, Some(driver)) => driver.borrow_mut().ask(id, op),
        (ToWorker::Watch(on), Some(driver)) => driver.borrow_mut().watch(on),
        (ToWorker::Drowsy(drowsy), Some(driver)) => driver.borrow_mut().drowsy(drowsy),
        (ToWorker::Leave, Some(driver)) => driver.borrow_mut().leave(),
        (ToWorker::Ask { id, .. }, None) => post(&FromWorker::Answer { id, result: Err(Refusal::NoEpoch) }),
        (ToWorker::Join { .. } | ToWorker::Watch(_) | ToWorker::Drowsy(_) | ToWorker::Leave, _) => (),
    }
}

/// Whether this is a phone or the like, as far as browsers tell.
fn is_mobile() -> bool {
    let navigator = scope().navigator();
    let hints = js_sys::Reflect::get(&navigator, &"userAgentData".into());
    let says = hints.and_then(|hints| js_sys::Reflect::get(&hints, &"mobile".into()));
    match says.ok().and_then(|says| says.as_bool()) {
        Some(says) => says,
        None => navigator.user_agent().is_ok_and(|agent| agent.contains("Mobi")),
    }
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// Hands the page a message without copying it once more.
fn post(message: &FromWorker) {
    let buffer: ArrayBuffer = Uint8Array::from(&bridge::encode(message)[..]).buffer();
    let transfer = js_sys::Array::of1(&buffer);
    let _ = scope().post_message_with_transfer(&buffer, &transfer);
}

async fn join(hint: Option<String>, name: Option<String>, server: String) {
    let opened = match store::open(hint).await {
        Ok(opened) => opened,
        Err(message) => return post(&FromWorker::Failed { code: "NO_IDENTITY".to_owned(), message }),
    };
    match Driver::new(opened, name, server) {
        Ok(driver) => {
            let driver = Rc::new(RefCell::new(driver));
            driver.borrow_mut().myself = Rc::downgrade(&driver);
            DRIVER.set(Some(Rc::clone(&driver)));
            driver.borrow_mut().begin();
            spawn_local(look_after(Rc::clone(&driver)));
            spawn_local(tell(driver));
        }
        Err(message) => post(&FromWorker::Failed { code: "BAD_CONFIG".to_owned(), message }),
    }
}

/// Keeps the links up and the page informed.
async fn look_after(driver: Rc<RefCell<Driver>>) {
    loop {
        driver.borrow_mut().upkeep();
        let due = driver.borrow_mut().take_compaction();
        if let Some(journal) = due {
            let result = journal.compacted().await;
            driver.borrow_mut().compacted(result);
        }
        sleep(UPKEEP_MS).await;
    }
}

async fn tell(driver: Rc<RefCell<Driver>>) {
    loop {
        let events = std::mem::take(&mut driver.borrow_mut().events);
        if !events.is_empty() {
            post(&FromWorker::Events(events));
        }
        sleep(EVENTS_MS).await;
    }
}

/// The core's host.
struct Driver {
    myself: std::rc::Weak<RefCell<Driver>>,
    node: Node,
    identity: Identity,
    /// `None` for a volatile node, and while the journal is being compacted.
    journal: Option<Journal>,
    durability: Durability,
    /// Batches that wait for a compaction to end.
    postponed: Vec<Output>,
    compacting: bool,
    links: BTreeMap<NodeId, Linked>,
    dials: BTreeMap<String, Dial>,
    /// The server that the page came from.
    home: String,
    timer: Option<(i32, Instant)>,
    on_timer: Option<Closure<dyn FnMut()>>,
    events: Vec<Event>,
    last_status: Status,
    /// When the page was last told.
    told_ms: f64,
    started_ms: f64,
    status: Status,
    started: Started,
    left: bool,
    /// Since when, and for how many milliseconds since then, the core has been at work.
    busy: (f64, f64),
    load: Load,
}

struct Linked {
    address: String,
    socket: Socket,
}

/// A server worth a link.
struct Dial {
    not_before_ms: f64,
    wait_ms: f64,
    running: bool,
    peer: Option<NodeId>,
    trouble: Option<String>,
}

impl Driver {
    fn new(opened: Opened, name: Option<String>, server: String) -> Result<Self, String> {
        let durability = opened.durability();
        let mut name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| spoken_name(opened.identity.id));
        while name.len() > limits::NAME_BYTES {
            name.pop();
        }
        let storage = Storage(opened.identity.storage().incarnation);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mobile = is_mobile();
        let profile = Profile { version, mobile, ..Profile::new(name, Class::Tab, durability, storage) };
        let config = Config::new(opened.identity.id, profile);
        let seed = u64::from_le_bytes(store::random_bytes());
        let node = Node::restore(config, seed, opened.records).map_err(|error| error.to_string())?;
        let started = Started {
            id: node.id(),
            generation: node.generation(),
            durability,
            reason: opened.reason,
            persisted: opened.persisted,
        };
        Ok(Self {
            myself: std::rc::Weak::new(),
            node,
            identity: opened.identity,
            journal: opened.journal,
            durability,
            postponed: Vec::new(),
            compacting: false,
            links: BTreeMap::new(),
            dials: BTreeMap::from([(server.clone(), Dial::new())]),
            home: server,
            timer: None,
            on_timer: None,
            events: Vec::new(),
            last_status: Status::default(),
            told_ms: 0.0,
            started_ms: performance_now(),
            status: Status::default(),
            started,
            left: false,
            busy: (performance_now(), 0.0),
            load: Load::default(),
        })
    }

    fn begin(&mut self) {
        post(&FromWorker::Started(self.started.clone()));
        self.node.set_level(Level::Messages);
        self.input(Input::Tick);
        self.flush();
    }

    fn now() -> Now {
        Now {
            mono: Instant((performance_now() * 1_000.0) as u64),
            wall: WallTime((js_sys::Date::now() * 1_000.0) as u64),
        }
    }

    fn input(&mut self, input: Input) {
        let began = performance_now();
        self.status.inputs += 1;
        self.node.handle(Self::now(), input);
        self.busy.1 += performance_now() - began;
    }

    fn ask(&mut self, id: u64, op: Op) {
        self.input(Input::Request { id: RequestId(id), op });
        self.flush();
    }

    fn watch(&mut self, on: bool) {
        self.node.set_level(if on { Level::Messages } else { Level::Off });
    }

    /// Tells the others that this node may fall silent at any time, or that it will not any more.
    fn drowsy(&mut self, drowsy: bool) {
        let op = Op::Membership(membership::Op::Drowsy(drowsy));
        self.input(Input::Request { id: RequestId(u64::MAX - 1), op });
        self.flush();
    }

    /// Says how busy this worker has been, once in a while.
    fn tell_load(&mut self) {
        let (since, busy) = self.busy;
        let span = performance_now() - since;
        if span < BUSY_SPAN_MS {
            return;
        }
        self.busy = (performance_now(), 0.0);
        self.load = self.load.after((busy * 1_000.0 / span) as u64);
        let op = Op::Membership(membership::Op::Load(self.load));
        self.input(Input::Request { id: RequestId(u64::MAX - 2), op });
        self.flush();
    }

    fn leave(&mut self) {
        self.input(Input::Request { id: RequestId(u64::MAX), op: Op::Membership(membership::Op::Leave) });
        self.flush();
        self.left = true;
        self.links.clear();
    }

    /// Does what the core wants done, then plans the next wake-up.
    fn flush(&mut self) {
        let cluster = self.node.view().chosen.as_ref().map(|chosen| chosen.config.cluster);
        let mut frames: BTreeMap<NodeId, FrameWriter> = BTreeMap::new();
        while let Some(output) = self.node.poll() {
            match output {
                Output::Persist { .. } if self.compacting => self.postponed.push(output),
                Output::Persist { id, records } => {
                    self.persist(&records);
                    self.input(Input::Persisted(id));
                }
                Output::Send { to, message } => {
                    let Ok(body) = wire::encode_message(&message) else { continue };
                    for to in to {
                        let Some(hop) = self.node.view().next_hop(to, message.seq) else { continue };
                        let frame = frames.entry(hop).or_insert_with(|| FrameWriter::new(cluster));
                        if !frame.fits(body.len()) {
                            let full = std::mem::replace(frame, FrameWriter::new(cluster));
                            self.send(hop, full);
                        }
                        let packet = Packet { to, from: message.from, hops: 0, body: &body };
                        frames.entry(hop).or_insert_with(|| FrameWriter::new(cluster)).push(packet);
                    }
                }
                Output::Reply { id, result } => post(&FromWorker::Answer { id: id.0, result }),
                Output::Trace(event) => {
                    if self.events.len() < EVENTS_MAX {
                        self.events.push(event);
                    }
                }
            }
        }
        for (hop, frame) in frames {
            self.send(hop, frame);
        }
        self.plan();
    }

    fn send(&self, hop: NodeId, frame: FrameWriter) {
        if let Some(link) = self.links.get(&hop) {
            link.socket.send(&frame.finish());
        }
    }

    /// A volatile node's records live as long as it does: in memory, where they are.
    fn persist(&mut self, records: &[qunlong_core::Record]) {
        if self.durability == Durability::Volatile || self.left {
            return;
        }
        let began = performance_now();
        let journal = self.journal.as_mut().expect("batches are postponed while the journal is away");
        if let Err(message) = journal.persist(records) {
            post(&FromWorker::Failed { code: "DISK_FAILED".to_owned(), message: message.clone() });
            panic!("storage failed, and nothing may be said that depends on it: {message}");
        }
        self.status.syncs += 1;
        self.status.last_sync_us = ((performance_now() - began) * 1_000.0) as u64;
        self.status.journal_bytes = journal.length() as u64;
    }

    fn take_compaction(&mut self) -> Option<Journal> {
        if !self.journal.as_ref().is_some_and(Journal::wants_compaction) {
            return None;
        }
        self.compacting = true;
        self.journal.take()
    }

    fn compacted(&mut self, result: Result<Journal, String>) {
        match result {
            Ok(journal) => self.journal = Some(journal),
            Err(message) => {
                post(&FromWorker::Failed { code: "DISK_FAILED".to_owned(), message: message.clone() });
                panic!("storage failed while it was compacted: {message}");
            }
        }
        self.compacting = false;
        for output in std::mem::take(&mut self.postponed) {
            if let Output::Persist { id, records } = output {
                self.persist(&records);
                self.input(Input::Persisted(id));
            }
        }
        self.flush();
    }

    /// Sets the one timer to the core's deadline.
    fn plan(&mut self) {
        let Some(deadline) = self.node.deadline() else { return };
        if self.timer.is_some_and(|(_, planned)| planned == deadline) {
            return;
        }
        if let Some((id, _)) = self.timer.take() {
            clear_timeout(id);
        }
        let myself = self.myself.clone();
        let callback = self.on_timer.get_or_insert_with(|| {
            Closure::new(move || {
                if let Some(driver) = myself.upgrade() {
                    driver.borrow_mut().on_timer();
                }
            })
        });
        let wait = deadline.since(Self::now().mono).0.div_ceil(1_000).min(60_000) as i32;
        self.timer = Some((set_timeout(callback.as_ref().unchecked_ref(), wait), deadline));
    }

    fn on_timer(&mut self) {
        if let Some((_, planned)) = self.timer.take() {
            self.status.lag_ms = Self::now().mono.since(planned).as_millis();
        }
        self.input(Input::Tick);
        self.flush();
    }

    /// Dials until there are two links, and tells the page how things are.
    fn upkeep(&mut self) {
        if !self.left {
            self.tell_load();
            self.dial();
        }
        let view = self.node.view();
        self.status.members = view.members.values().cloned().collect();
        self.status.config = view.chosen.as_ref().map(|chosen| chosen.config.clone());
        self.status.links = self.link_status();
        // What changes all the time is told once a second, with whatever else there is.
        let now = performance_now();
        let is_due = now - self.told_ms >= COUNTERS_MS;
        let visible = if is_due {
            self.status.clone()
        } else {
            let last = &self.last_status;
            let (inputs, lag_ms, last_sync_us) = (last.inputs, last.lag_ms, last.last_sync_us);
            Status { inputs, lag_ms, last_sync_us, ..self.status.clone() }
        };
        if visible != self.last_status {
            post(&FromWorker::Status(Box::new(self.status.clone())));
            self.last_status = self.status.clone();
            self.told_ms = now;
        }
    }

    fn link_status(&self) -> Vec<LinkStatus> {
        let linked = self.links.iter().map(|(&peer, link)| LinkStatus {
            address: link.address.clone(),
            peer: Some(peer),
            trouble: None,
        });
        let troubled = self.dials.iter().filter(|(_, dial)| dial.trouble.is_some() && !dial.running);
        let troubled = troubled.map(|(address, dial)| LinkStatus {
            address: address.clone(),
            peer: None,
            trouble: dial.trouble.clone(),
        });
        linked.chain(troubled).collect()
    }

    fn dial(&mut self) {
        self.learn_servers();
        let open = self.dials.values().filter(|dial| dial.running).count();
        let now = performance_now();
        let due: Vec<String> = self
            .dials
            .iter()
            .filter(|(_, dial)| !dial.running && dial.not_before_ms <= now)
            .map(|(address, _)| address.clone())
            .take(LINKS.saturating_sub(open))
            .collect();
        for address in due {
            if let Some(dial) = self.dials.get_mut(&address) {
                dial.running = true;
            }
            if let Some(driver) = self.myself.upgrade() {
                spawn_local(link(driver, address));
            }
        }
    }

    /// Servers of the epoch that gossip holds alive: only those relay for others.
    fn learn_servers(&mut self) {
        let view = self.node.view();
        let Some(chosen) = &view.chosen else { return };
        for member in view.members.values() {
            let is_relay = chosen.config.relays(member.id) && member.state == State::Alive;
            let Some(address) = member.profile.address.as_ref().filter(|_| is_relay) else { continue };
            let known = self.dials.values().any(|dial| dial.peer == Some(member.id));
            if !known && !self.dials.contains_key(address) {
                self.dials.insert(address.clone(), Dial { peer: Some(member.id), ..Dial::new() });
            }
        }
    }

    fn linked(&mut self, address: &str, peer: NodeId, socket: Socket) {
        if let Some(dial) = self.dials.get_mut(address) {
            *dial = Dial { running: true, peer: Some(peer), ..Dial::new() };
        }
        // The page's own address and the advertised one may name the same server.
        let is_new = self.links.insert(peer, Linked { address: address.to_owned(), socket }).is_none();
        if is_new {
            self.input(Input::Link { peer, up: true });
            self.flush();
        }
    }

    fn unlinked(&mut self, address: &str, trouble: String) {
        let peer = self.links.iter().find(|(_, link)| link.address == address).map(|(&peer, _)| peer);
        if let Some(peer) = peer {
            self.links.remove(&peer);
            self.input(Input::Link { peer, up: false });
            self.flush();
        }
        if let Some(dial) = self.dials.get_mut(address) {
            dial.running = false;
            dial.trouble = Some(trouble);
            dial.not_before_ms = performance_now() + dial.wait_ms;
            dial.wait_ms = (dial.wait_ms * 2.0).min(BACKOFF_MAX_MS);
        }
    }

    /// A frame from a server: packets for this node.
    fn frame(&mut self, peer: NodeId, frame: &[u8]) -> Result<(), wire::DecodeError> {
        let mine = self.node.view().chosen.as_ref().map(|chosen| chosen.config.cluster);
        let packets = wire::read_frame(frame, mine)?;
        let may_relay = self.node.view().may_relay(peer);
        for packet in packets {
            if packet.to == self.node.id() && (packet.from == peer || may_relay) {
                match wire::decode_message(packet.from, packet.body) {
                    Ok(envelope) => self.input(Input::Message(envelope)),
                    // A relay passes bodies on unread: what is wrong with them is not its fault.
                    Err(_) if packet.from != peer => (),
                    Err(error) => return Err(error),
                }
            }
        }
        if self.status.first_gossip_ms == 0 {
            self.status.first_gossip_ms = ((performance_now() - self.started_ms) as u64).max(1);
        }
        self.flush();
        Ok(())
    }
}

impl Dial {
    fn new() -> Self {
        Self { not_before_ms: 0.0, wait_ms: BACKOFF_MIN_MS, running: false, peer: None, trouble: None }
    }
}

/// The server that the page came from belongs to another cluster than this tab's node: the cluster it belonged to is
/// not there any more. A tab owns nothing, so it forgets that life and comes back as a new node.
async fn come_back_as_a_new_node(driver: &Rc<RefCell<Driver>>, reason: String) {
    let (identity, journal) = {
        let mut driver = driver.borrow_mut();
        driver.left = true;
        driver.links.clear();
        (driver.identity.clone(), driver.journal.take())
    };
    store::forget(&identity, journal).await;
    post(&FromWorker::Forgotten { reason });
}

/// One link from dialling to its end.
async fn link(driver: Rc<RefCell<Driver>>, address: String) {
    let (identity, cluster) = {
        let driver = driver.borrow();
        let cluster = driver.node.view().chosen.as_ref().map(|chosen| chosen.config.cluster);
        (driver.identity.clone(), cluster)
    };
    let mut link = match socket::dial(&address, &identity, cluster).await {
        Ok(link) => link,
        Err(trouble) => {
            let is_home = driver.borrow().home == address;
            if is_home && trouble.starts_with("WRONG_CLUSTER") {
                return come_back_as_a_new_node(&driver, trouble).await;
            }
            return driver.borrow_mut().unlinked(&address, trouble);
        }
    };
    let peer = link.peer;
    driver.borrow_mut().linked(&address, peer, link.socket);
    let trouble = loop {
        let heard = select_biased! {
            heard = link.heard.next() => heard,
            () = Box::pin(sleep(SILENCE_MS)).fuse() => break "the server fell silent".to_owned(),
        };
        match heard {
            Some(Heard::Bytes(bytes)) => {
                if let Err(error) = driver.borrow_mut().frame(peer, &bytes) {
                    break error.to_string();
                }
            }
            Some(Heard::Open) => (),
            Some(Heard::Closed(reason)) => break reason,
            None => break String::new(),
        }
    };
    driver.borrow_mut().unlinked(&address, trouble);
}
