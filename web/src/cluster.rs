//! The page's side of the cluster: the worker that runs this tab's node, the servers' traces, and the picture made
//! of both. Screens read it and ask it; it knows nothing of screens.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::oneshot;
use js_sys::{ArrayBuffer, Uint8Array};
use qunlong_core::cluster::ClusterConfig;
use qunlong_core::kv::{Op as KvOp, Outcome as KvOutcome};
use qunlong_core::member::{Class, Member, State};
use qunlong_core::namespace::Namespace;
use qunlong_core::registers::{Op as RegisterOp, Outcome as RegisterOutcome};
use qunlong_core::topology::{Op as TopologyOp, Step, spare_servers};
use qunlong_core::{Event, NodeId, Op, Outcome, Refusal, wire};
use serde_json::Value;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{MessageEvent, Request, RequestInit, Response, Window, Worker, WorkerOptions, WorkerType};

use crate::bridge::{self, FromWorker, Started, Status, ToWorker};
use crate::canvas::Canvas;
use crate::draw::{self, Placed};
use crate::driver::sleep;
use crate::model::Playback;
use crate::ownership::{Colours, Ownership};
use crate::recording::Show;
use crate::socket::{Heard, Socket};
use crate::store::describe;

/// How often servers are asked how they are.
const POLL_MS: i32 = 1_500;

/// A server that has not answered by then counts as unreachable.
const FETCH_MS: u32 = 2_000;
/// How often a page looks for news to show while nothing in it moves. A frame stands for 200 ms at most: with fewer, the
/// picture would fall behind.
const STILL_MS: i32 = 100;
/// A server whose trace could not be had is asked for it again after so long.
const FEED_AGAIN_MS: i32 = 5_000;
/// To create a namespace, another change of the configuration is waited for so long.
const CREATE_MS: f64 = 15_000.0;
/// How often it is looked for meanwhile.
const LOOK_MS: i32 = 100;
/// So many servers are told that the page is closed: one may be gone itself.
const FAREWELLS: usize = 2;

/// Whether this tab is a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It runs one.
    Node,
    /// It only looks.
    Watch,
}

/// A node of the demonstration, as its supervisor reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct DemoNode {
    /// `n1`, `n2`, …
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Whether its process runs.
    pub running: bool,
}

/// Everything the screens show.
#[allow(missing_debug_implementations, reason = "it holds the page's callbacks")]
pub struct World {
    /// The picture.
    pub playback: Playback,
    /// The node's state, or, when watching, what a server says of the cluster.
    pub status: Status,
    /// The node's identity, once it runs.
    pub started: Option<Started>,
    /// Why there is no node.
    pub failure: Option<(String, String)>,
    /// Whether the worker died.
    pub crashed: bool,
    /// Node or watcher.
    pub mode: Mode,
    /// The demonstration's nodes; `None` if this is none.
    pub demo: Option<Vec<DemoNode>>,
    /// Links cut by the demonstration: the server that drops, and its peer.
    pub cuts: BTreeSet<(NodeId, NodeId)>,
    /// A recording that is shown instead of the live cluster.
    pub show: Option<Show>,
    /// What is known of the live cluster meanwhile.
    live: Status,
    /// Where nodes stand, made anew when members change.
    pub placed: Vec<Placed>,
    /// Who owns what, made anew when the configuration changes.
    pub ownership: Option<Rc<Ownership>>,
    /// The colours of the members with seats.
    pub colours: Colours,
    /// How many servers may still fail, made anew when the configuration or who is alive changes.
    pub spare: Option<usize>,
    /// Who was alive when that was counted.
    alive: BTreeSet<NodeId>,
    /// The stage's canvas while it is on the screen.
    pub canvas: Option<Canvas>,
    /// Frames drawn in the last second.
    pub frames_per_second: u32,
    /// From the beginning of the page's load to the node's first message from a peer, once there was one.
    pub first_message_ms: Option<f64>,
    /// When the node started, on the page's clock.
    worker_started_ms: f64,
    worker: Option<Worker>,
    answers: HashMap<u64, oneshot::Sender<Result<Outcome, Refusal>>>,
    asked: u64,
    feeds: BTreeSet<String>,
    frames: (f64, u32),
    last_frame: f64,
}

/// The one world of a page, shared by its screens.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "it holds the page's callbacks")]
pub struct Cluster {
    world: Rc<RefCell<World>>,
    changed: Rc<Cell<bool>>,
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.world, &other.world)
    }
}

/// The browser's window.
#[must_use]
pub fn window() -> Window {
    web_sys::window().expect("the page has a window")
}

/// `host:port` that this page came from.
#[must_use]
pub fn own_host() -> String {
    window().location().host().unwrap_or_default()
}

fn now() -> f64 {
    window().performance().map_or(0.0, |performance| performance.now())
}

impl Cluster {
    /// Starts everything that runs beside the screens.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let world = World {
            playback: Playback::default(),
            status: Status::default(),
            started: None,
            failure: None,
            crashed: false,
            mode,
            demo: None,
            cuts: BTreeSet::new(),
            show: None,
            live: Status::default(),
            placed: Vec::new(),
            ownership: None,
            colours: Colours::default(),
            spare: None,
            alive: BTreeSet::new(),
            canvas: None,
            frames_per_second: 0,
            first_message_ms: None,
            worker_started_ms: 0.0,
            worker: None,
            answers: HashMap::new(),
            asked: 0,
            feeds: BTreeSet::new(),
            frames: (0.0, 0),
            last_frame: 0.0,
        };
        let cluster = Self { world: Rc::new(RefCell::new(world)), changed: Rc::new(Cell::new(true)) };
        if mode == Mode::Node {
            // Only pages may ask; the worker sees the answer. Some browsers ask the user, and a no is fine.
            let _ = window().navigator().storage().persist();
            cluster.start_node();
        }
        cluster.start_frames();
        spawn_local(cluster.clone().poll());
        cluster
    }

    /// To read.
    #[must_use]
    pub fn read(&self) -> Ref<'_, World> {
        self.world.borrow()
    }

    /// To change; the screens are drawn again.
    pub fn write(&self) -> RefMut<'_, World> {
        self.changed.set(true);
        self.world.borrow_mut()
    }

    /// Whether anything changed since the last call.
    #[must_use]
    pub fn take_changed(&self) -> bool {
        self.changed.replace(false)
    }

    /// Runs a node in a new worker; an older worker is stopped.
    pub fn start_node(&self) {
        self.stop_worker();
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        let worker = match Worker::new_with_options("/worker.js", &options) {
            Ok(worker) => worker,
            Err(error) => {
                self.write().failure = Some(("NO_WORKER".to_owned(), describe(&error)));
                return;
            }
        };
        let on_message = {
            let cluster = self.clone();
            Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
                let bytes = Uint8Array::new(&event.data()).to_vec();
                if let Some(message) = bridge::decode(&bytes) {
                    cluster.receive(message);
                }
            })
        };
        let on_error = {
            let cluster = self.clone();
            Closure::<dyn FnMut(JsValue)>::new(move |_| {
                let mut world = cluster.write();
                world.crashed = true;
                // Nobody will answer any more; dropping the senders tells those who wait.
                world.answers.clear();
            })
        };
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        // They live as long as the page; a page starts few workers.
        on_message.forget();
        on_error.forget();
        let mut world = self.write();
        world.mode = Mode::Node;
        world.worker = Some(worker);
    }

    /// Says goodbye and goes on watching.
    pub fn stop_node(&self) {
        self.tell(&ToWorker::Leave);
        let (cluster, leaving) = (self.clone(), self.world.borrow().worker.clone());
        spawn_local(async move {
            // The goodbye needs a moment to leave; by then another node may have been started.
            sleep(150).await;
            let current = cluster.world.borrow().worker.clone();
            if current == leaving {
                cluster.stop_worker();
                cluster.write().mode = Mode::Watch;
            }
        });
    }

    fn stop_worker(&self) {
        let mut world = self.write();
        if let Some(worker) = world.worker.take() {
            worker.terminate();
        }
        world.started = None;
        world.failure = None;
        world.crashed = false;
        world.status.links.clear();
        world.answers.clear();
    }

    /// The page is going away. The browser may end the worker before it gets to say so, but delivers what it is given
    /// here.
    pub fn leave(&self) {
        self.tell(&ToWorker::Leave);
        let world = self.world.borrow();
        let Some(started) = world.started.as_ref().filter(|_| world.mode == Mode::Node) else { return };
        let farewell = serde_json::json!({ "generation": started.generation }).to_string();
        for server in self.servers().iter().take(FAREWELLS) {
            let url = format!("http://{server}/v1/members/{:x}/farewell", started.id);
            let _ = window().navigator().send_beacon_with_opt_str(&url, Some(&farewell));
        }
    }

    /// The page is hidden or about to be frozen, or is back in front: other members are told.
    pub fn drowsy(&self, drowsy: bool) {
        self.tell(&ToWorker::Drowsy(drowsy));
    }

    /// Whether anybody looks at the page.
    pub fn watch(&self, on: bool) {
        self.tell(&ToWorker::Watch(on));
    }

    fn tell(&self, message: &ToWorker) {
        if let Some(worker) = &self.world.borrow().worker {
            let buffer: ArrayBuffer = Uint8Array::from(&bridge::encode(message)[..]).buffer();
            let _ = worker.post_message_with_transfer(&buffer, &js_sys::Array::of1(&buffer));
        }
    }

    fn receive(&self, message: FromWorker) {
        match message {
            FromWorker::Ready => {
                let hint = session_storage().and_then(|storage| storage.get_item("qunlong-node").ok().flatten());
                let name = stored_for_tab("name");
                self.tell(&ToWorker::Join { hint, name, server: own_host() });
            }
            FromWorker::Started(started) => {
                if let Some(storage) = session_storage() {
                    let _ = storage.set_item("qunlong-node", &qunlong_core::id::hex(started.id));
                }
                let mut world = self.write();
                world.worker_started_ms = now();
                world.started = Some(started);
            }
            FromWorker::Forgotten { .. } => {
                if let Some(storage) = session_storage() {
                    let _ = storage.remove_item("qunlong-node");
                }
                // Nothing of the cluster that is gone says anything of the one to come.
                self.write().status = Status::default();
                self.start_node();
            }
            FromWorker::Failed { code, message } => self.write().failure = Some((code, message)),
            FromWorker::Status(status) => {
                let mut world = self.write();
                if status.first_gossip_ms > 0 && world.first_message_ms.is_none() {
                    // The worker counts from its own start; the page, from the beginning of its load.
                    let since_start = world.worker_started_ms + status.first_gossip_ms as f64;
                    world.first_message_ms = Some(since_start);
                }
                world.set_status(*status);
                drop(world);
                self.open_feeds();
            }
            FromWorker::Answer { id, result } => {
                if let Some(waiting) = self.world.borrow_mut().answers.remove(&id) {
                    let _ = waiting.send(result);
                }
            }
            FromWorker::Events(events) => self.world.borrow_mut().hear(events),
        }
    }

    /// Asks this tab's own node about keys. `None` if it died or there is none.
    pub async fn ask(&self, op: KvOp) -> Option<Result<KvOutcome, Refusal>> {
        match self.request(Op::Kv(op)).await? {
            Ok(Outcome::Kv(outcome)) => Some(Ok(outcome)),
            Ok(_) => None,
            Err(refusal) => Some(Err(refusal)),
        }
    }

    /// Asks this tab's own node about registers. `None` if it died or there is none.
    pub async fn ask_register(&self, op: RegisterOp) -> Option<Result<RegisterOutcome, Refusal>> {
        match self.request(Op::Registers(op)).await? {
            Ok(Outcome::Registers(outcome)) => Some(Ok(outcome)),
            Ok(_) => None,
            Err(refusal) => Some(Err(refusal)),
        }
    }

    /// Has this tab's own node create a namespace, or find that it is there, and waits until the node has heard of it.
    /// `None` if it died or there is none.
    pub async fn create_namespace(&self, name: &str, namespace: Namespace) -> Option<Result<(), Refusal>> {
        let until = now() + CREATE_MS;
        loop {
            let steps = vec![Step::Create { name: name.to_owned(), namespace }];
            match self.request(Op::Topology(TopologyOp::Change { steps })).await? {
                Ok(_) | Err(Refusal::NoChange) => break,
                Err(Refusal::ConfigChangeInProgress { .. } | Refusal::NotAVoter) if now() < until => {
                    sleep(LOOK_MS).await;
                }
                Err(refusal) => return Some(Err(refusal)),
            }
        }
        let is_known = || self.read().live_config().is_some_and(|config| config.namespaces.get(name).is_ok());
        while !is_known() && now() < until {
            sleep(LOOK_MS).await;
        }
        Some(Ok(()))
    }

    async fn request(&self, op: Op) -> Option<Result<Outcome, Refusal>> {
        let answer = {
            let mut world = self.world.borrow_mut();
            world.worker.as_ref()?;
            world.started.as_ref()?;
            world.asked += 1;
            let (answer, waiting) = oneshot::channel();
            let id = world.asked;
            world.answers.insert(id, answer);
            drop(world);
            self.tell(&ToWorker::Ask { id, op });
            waiting
        };
        answer.await.ok()
    }

    /// Draws for as long as the page lives: at the screen's pace where something moves, else at a leisurely one, for many
    /// pages may share a machine.
    fn start_frames(&self) {
        let callback = FrameCallback::default();
        let again = Rc::clone(&callback);
        let cluster = self.clone();
        *callback.borrow_mut() = Some(Closure::new(move |at: f64| {
            if cluster.world.borrow_mut().frame(at) {
                cluster.changed.set(true);
            }
            let moves = {
                let world = cluster.world.borrow();
                world.canvas.is_some() || world.show.is_some()
            };
            if moves {
                return request_frame(&again);
            }
            let again = Rc::clone(&again);
            spawn_local(async move {
                sleep(STILL_MS).await;
                request_frame(&again);
            });
        }));
        request_frame(&callback);
    }

    /// Follows the servers: their traces, and how they are.
    async fn poll(self) {
        loop {
            if !is_hidden() {
                self.open_feeds();
                self.ask_servers().await;
            }
            sleep(POLL_MS).await;
        }
    }

    /// Reads a recording and shows it.
    ///
    /// # Errors
    ///
    /// Why it cannot be shown.
    pub async fn open_recording(&self, file: web_sys::File) -> Result<(), String> {
        let bytes = JsFuture::from(file.array_buffer()).await.map_err(|error| describe(&error))?;
        let show = Show::open(file.name(), &Uint8Array::new(&bytes).to_vec());
        let show = show.map_err(|error| format!("{}: {error}", error.code()))?;
        self.write().open_show(show);
        Ok(())
    }

    /// The servers' addresses, this page's own first.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        let world = self.world.borrow();
        let own = own_host();
        let members = &world.live().members;
        let alive = members.iter().filter(|m| m.profile.class == Class::Server && m.state != State::Left);
        let mut servers: Vec<String> = alive.filter_map(|member| member.profile.address.clone()).collect();
        // Two spellings of loopback are one server.
        servers.retain(|server| server.replace("127.0.0.1", "localhost") != own.replace("127.0.0.1", "localhost"));
        servers.insert(0, own);
        servers
    }

    /// The servers that gossip holds alive, each with the address that this page may ask it by.
    #[must_use]
    pub fn alive_servers(&self) -> Vec<(NodeId, String)> {
        let world = self.world.borrow();
        let members = &world.live().members;
        let alive = members.iter().filter(|m| m.profile.class == Class::Server && m.state == State::Alive);
        alive.filter_map(|member| Some((member.id, spelled(member.profile.address.clone()?)))).collect()
    }

    fn open_feeds(&self) {
        if is_hidden() {
            return;
        }
        for server in self.servers() {
            if self.world.borrow_mut().feeds.insert(server.clone()) {
                spawn_local(self.clone().feed(server));
            }
        }
    }

    /// One server's trace until it closes.
    async fn feed(self, server: String) {
        let mut was_open = false;
        if let Ok((_socket, mut heard)) = Socket::open(&format!("ws://{server}/v1/trace/socket")) {
            while let Some(heard) = heard.next().await {
                match heard {
                    Heard::Open => was_open = true,
                    Heard::Bytes(bytes) => {
                        if let Ok(events) = wire::decode_events(&bytes) {
                            self.world.borrow_mut().hear(events);
                        }
                    }
                    Heard::Closed(_) => break,
                }
                if is_hidden() {
                    break;
                }
            }
        }
        if !was_open {
            sleep(FEED_AGAIN_MS).await;
        }
        self.world.borrow_mut().feeds.remove(&server);
    }

    async fn ask_servers(&self) {
        let mut cuts = BTreeSet::new();
        for server in self.servers() {
            let Ok(status) = fetch("GET", &format!("http://{server}/v1/status")).await else { continue };
            let Some(id) = parse_id(&status["id"]) else { continue };
            cuts.extend(status["cuts"].as_array().into_iter().flatten().filter_map(parse_id).map(|peer| (id, peer)));
        }
        let demo = self.fetch_any("GET", "/v1/demo").await.ok().map(|report| demo_nodes(&report));
        let members = if self.world.borrow().mode == Mode::Watch {
            self.fetch_any("GET", "/v1/members").await.ok()
        } else {
            None
        };
        let mut world = self.world.borrow_mut();
        if world.cuts != cuts || world.demo != demo {
            world.cuts = cuts;
            world.demo = demo;
            self.changed.set(true);
        }
        if let Some(members) = members
            && let Ok(list) = serde_json::from_value::<Vec<Arc<Member>>>(members["members"].clone())
        {
            let config = serde_json::from_value(members["config"].clone()).ok();
            let status = Status { members: list, config, ..world.live().clone() };
            world.set_status(status);
            self.changed.set(true);
        }
    }

    /// Asks the servers in turn until one answers.
    ///
    /// # Errors
    ///
    /// What the last one said.
    pub async fn fetch_any(&self, method: &str, path: &str) -> Result<Value, String> {
        let mut last = "UNREACHABLE".to_owned();
        for server in self.servers() {
            match fetch(method, &format!("http://{server}{path}")).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Kills or restarts a node of the demonstration.
    ///
    /// # Errors
    ///
    /// What the servers said.
    pub async fn order(&self, name: &str, action: &str) -> Result<(), String> {
        let report = self.fetch_any("POST", &format!("/v1/demo/nodes/{name}/{action}")).await?;
        self.write().demo = Some(demo_nodes(&report));
        Ok(())
    }

    /// Cuts or heals the link between a server and a peer.
    ///
    /// # Errors
    ///
    /// What the server said.
    pub async fn set_cut(&self, server: NodeId, peer: NodeId, cut: bool) -> Result<(), String> {
        let address = self.address_of(server).ok_or("UNREACHABLE")?;
        let action = if cut { "cut" } else { "heal" };
        fetch("POST", &format!("http://{address}/v1/demo/links/{peer:x}/{action}")).await?;
        let mut world = self.write();
        if cut {
            world.cuts.insert((server, peer));
        } else {
            world.cuts.remove(&(server, peer));
        }
        Ok(())
    }

    fn address_of(&self, server: NodeId) -> Option<String> {
        let world = self.world.borrow();
        Some(spelled(world.member(server)?.profile.address.clone()?))
    }
}

impl World {
    /// A member by its id.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.status.members.iter().find(|member| member.id == id).map(Arc::as_ref)
    }

    /// What people call a node.
    #[must_use]
    pub fn name(&self, id: NodeId) -> String {
        self.member(id).map_or_else(|| id.to_string(), |member| member.profile.name.clone())
    }

    /// This tab's node.
    #[must_use]
    pub fn me(&self) -> Option<NodeId> {
        self.started.as_ref().map(|started| started.id)
    }

    /// What is known of the live cluster, whatever is shown.
    fn live(&self) -> &Status {
        if self.show.is_some() { &self.live } else { &self.status }
    }

    /// The configuration of the live cluster, once known: what requests go by, also while a recording is shown.
    #[must_use]
    pub fn live_config(&self) -> Option<&ClusterConfig> {
        self.live().config.as_ref()
    }

    /// Whether a node owns data in the chosen epoch.
    #[must_use]
    pub fn is_owner(&self, id: NodeId) -> bool {
        self.status.config.as_ref().is_some_and(|config| config.seats(id))
    }

    /// What a live node told; while a recording is shown, nobody listens.
    fn hear(&mut self, events: Vec<Event>) {
        if self.show.is_none() {
            self.playback.push(now(), events);
        }
    }

    fn set_status(&mut self, status: Status) {
        if self.show.is_some() {
            self.live = status;
            let (members, config) = (std::mem::take(&mut self.status.members), self.status.config.take());
            self.show_members(members, config);
        } else {
            self.status = status;
            self.arrange();
        }
    }

    /// Shows a recording instead of the live cluster.
    pub fn open_show(&mut self, show: Show) {
        if self.show.is_none() {
            self.live = std::mem::take(&mut self.status);
        }
        self.playback = self.playback.fresh();
        self.show = Some(show);
        self.show_members(Vec::new(), None);
    }

    /// The recording's members; this tab's own links and journal go on.
    fn show_members(&mut self, members: Vec<Arc<Member>>, config: Option<ClusterConfig>) {
        self.status = Status { members, config, ..self.live.clone() };
        self.arrange();
    }

    /// Back to the live cluster.
    pub fn close_show(&mut self) {
        self.show = None;
        self.playback = self.playback.fresh();
        let live = std::mem::take(&mut self.live);
        self.set_status(live);
    }

    fn advance_show(&mut self, at: f64, step: f64) -> bool {
        if self.playback.is_paused() {
            return false;
        }
        let speed = self.playback.speed();
        let Some(show) = &mut self.show else { return false };
        let before = show.position_s();
        let (events, glance) = show.advance(step * speed);
        let changed = show.position_s() != before || glance.is_some();
        self.playback.push(at, events);
        if let Some(glance) = glance {
            self.show_members(glance.members, glance.config);
        }
        changed
    }

    fn arrange(&mut self) {
        self.placed = draw::arrange(&self.status.members);
        let config = self.status.config.as_ref();
        let alive = self.status.members.iter().filter(|member| member.state == State::Alive);
        let alive: BTreeSet<NodeId> = alive.map(|member| member.id).collect();
        let same_config = self.ownership.as_ref().map(|ownership| &ownership.config) == config;
        if same_config && alive == self.alive {
            return;
        }
        if !same_config {
            self.ownership = config.map(|config| Rc::new(Ownership::of(config)));
            config.into_iter().for_each(|config| self.colours.follow(config));
        }
        self.spare = config.map(|config| {
            let spare = |roster| spare_servers(roster, &config.copies(), |node, _| alive.contains(&node));
            config.rosters().map(spare).min().unwrap_or(0)
        });
        self.alive = alive;
    }

    /// Nodes in the order of their names.
    #[must_use]
    pub fn by_name(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_by_cached_key(|&node| (self.name(node), node));
        nodes
    }

    /// The names of all that have a seat.
    #[must_use]
    pub fn seat_names(&self) -> BTreeMap<NodeId, String> {
        let seats = self.status.config.iter().flat_map(ClusterConfig::storage);
        seats.map(|node| (node, self.name(node))).collect()
    }

    /// What people call a zone: a tab's is the server that it is linked to first, unless its operator says otherwise.
    #[must_use]
    pub fn zone(&self, zone: &str) -> String {
        NodeId::parse_hex(zone).map_or_else(|| zone.to_owned(), |server| self.name(server))
    }

    /// Moves and draws the picture. Whether anything changed that the screens tell in words.
    fn frame(&mut self, at: f64) -> bool {
        let step = (at - self.last_frame).clamp(0.0, 200.0);
        self.last_frame = at;
        let changed = self.advance_show(at, step) | self.playback.frame(at);
        self.frames.1 += 1;
        if at - self.frames.0 >= 1_000.0 {
            self.frames_per_second = self.frames.1;
            self.frames = (at, 0);
        }
        let Self { canvas, playback, placed, cuts, status, .. } = self;
        if let Some(canvas) = canvas {
            canvas.draw(at, playback, placed, |from, to| arrives(cuts, &status.members, from, to));
        }
        changed
    }
}

/// Whether a message between the two has a chance, as far as this page knows.
fn arrives(cuts: &BTreeSet<(NodeId, NodeId)>, members: &[Arc<Member>], from: NodeId, to: NodeId) -> bool {
    let cut = cuts.contains(&(from, to)) || cuts.contains(&(to, from));
    !cut && members.iter().find(|member| member.id == to).is_none_or(|member| member.is_reachable())
}

/// Draws a frame and asks for the next one, which is itself.
type FrameCallback = Rc<RefCell<Option<Closure<dyn FnMut(f64)>>>>;

fn request_frame(callback: &FrameCallback) {
    if let Some(callback) = callback.borrow().as_ref() {
        let _ = window().request_animation_frame(callback.as_ref().unchecked_ref());
    }
}

fn demo_nodes(report: &Value) -> Vec<DemoNode> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = report["nodes"].as_array().into_iter().flatten();
    nodes
        .map(|node| DemoNode {
            name: text(&node["name"]),
            address: text(&node["address"]),
            running: node["running"].as_bool().unwrap_or(false),
        })
        .collect()
}

fn parse_id(value: &Value) -> Option<NodeId> {
    NodeId::parse_hex(value.as_str()?)
}

fn is_hidden() -> bool {
    window().document().is_some_and(|document| document.hidden())
}

/// An address as this page may ask it: two spellings of loopback are one server, and the page came by one of them.
fn spelled(address: String) -> String {
    let own = own_host();
    let is_own = address.replace("127.0.0.1", "localhost") == own.replace("127.0.0.1", "localhost");
    if is_own { own } else { address }
}

/// The values of a key as a server reads them; `None` if it does not answer, or refuses.
pub async fn values_at(server: &str, path: &str) -> Option<Vec<String>> {
    let (_, body) = exchange("GET", &format!("http://{server}{path}")).await.ok()?;
    // Nothing and several values are answers too, and have statuses of their own.
    let values = body["values"].as_array().filter(|_| body["outcome"] == "done")?;
    Some(values.iter().filter_map(|value| value["text"].as_str().map(str::to_owned)).collect())
}

/// A request to a server; an error carries its code and message.
async fn fetch(method: &str, url: &str) -> Result<Value, String> {
    let (status, body) = exchange(method, url).await?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let part = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    Err(format!("{}: {}", part("code"), part("message")))
}

/// A request to a server: the status and the body of the answer.
async fn exchange(method: &str, url: &str) -> Result<(u16, Value), String> {
    let init = RequestInit::new();
    init.set_method(method);
    // A server that is stopped in its tracks must not hold up the others.
    init.set_signal(Some(&web_sys::AbortSignal::timeout_with_u32(FETCH_MS)));
    let request = Request::new_with_str_and_init(url, &init).map_err(|error| describe(&error))?;
    request.headers().set("accept", "application/json").map_err(|error| describe(&error))?;
    let promise = window().fetch_with_request(&request);
    let response: Response = JsFuture::from(promise).await.map_err(|error| describe(&error))?.unchecked_into();
    let text = response.text().map_err(|error| describe(&error))?;
    let text = JsFuture::from(text).await.map_err(|error| describe(&error))?.as_string().unwrap_or_default();
    Ok((response.status(), serde_json::from_str(&text).unwrap_or_default()))
}

fn session_storage() -> Option<web_sys::Storage> {
    window().session_storage().ok().flatten()
}

/// A setting of this tab, kept across reloads.
#[must_use]
pub fn stored_for_tab(name: &str) -> Option<String> {
    session_storage()?.get_item(&format!("qunlong-{name}")).ok().flatten()
}

/// Keeps a setting of this tab.
pub fn keep_for_tab(name: &str, value: &str) {
    if let Some(storage) = session_storage() {
        let _ = storage.set_item(&format!("qunlong-{name}"), value);
    }
}

/// A setting kept on this device.
#[must_use]
pub fn stored(name: &str) -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(&format!("qunlong-{name}")).ok().flatten()
}

/// Keeps a setting on this device.
pub fn keep(name: &str, value: &str) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.set_item(&format!("qunlong-{name}"), value);
    }
}
