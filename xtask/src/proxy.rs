//! `cargo xtask proxy`: stands in front of a node and spoils its links, frame by frame.
//!
//! ```text
//!   peer ── upgrade, verbatim ──▶ proxy ── upgrade, verbatim ──▶ node
//!   peer ── message ──▶ [ cut? lost? duplicated? reordered? delayed? ] ──▶ node       inwards
//!   peer ◀── [ the same, with dice of its own ] ◀── message ── node                   outwards
//! ```
//!
//! The node advertises the proxy's address, so everybody who dials the node dials the proxy, and the node takes the
//! proxy's address for its own name. Links that the node dials itself pass the proxy of the other end.
//!
//! Frames are found, not unwrapped: masks, pings and close codes pass as they are. A proxy that answered pings itself
//! would hide a one-way cut from the very timers that should notice it.
//!
//! What each fault means:
//!
//! - **delay**: each message waits, and those behind it wait for it: TCP keeps the order;
//! - **reorder**: a message waits longer and those behind it do not;
//! - **duplicate**: a message comes a second time, a little later;
//! - **loss**: TCP loses no single message, so the whole connection is dropped in its place, and the peer dials again;
//! - **cut**: messages of a direction are dropped without a word, pings included, and the connection stays.
//!
//! The handshake is the first two messages each way. It is delayed and cut like the rest and otherwise left alone: a
//! doubled hello is refused for good reasons, and would only look like loss. The end of a connection passes a cut.
//!
//! **Invariant**: without faults, bytes pass as they came. Requests that are no upgrades always pass so.
//!
//! One thread serves all connections of a proxy. All dice come from one seed; which message meets which dice depends on
//! timing, so a seed repeats the odds and not the run.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Args, ValueEnum};
use qunlong_core::limits;
use qunlong_core::rng::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use crate::{Failure, say};

/// What can be chosen.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where peers reach the node: start it with --advertise and this address.
    #[arg(long)]
    listen: SocketAddr,
    /// Where the node listens.
    #[arg(long)]
    to: SocketAddr,
    /// Hold each message back for up to this long, as in 50ms or 2s; their order stays.
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    delay: Duration,
    /// Messages in whose place the connection is dropped, as in 1% or 0.1%. Peers dial again.
    #[arg(long, default_value = "0%")]
    loss: Rate,
    /// Messages that come twice.
    #[arg(long, default_value = "0%")]
    duplicate: Rate,
    /// Messages that later ones may overtake.
    #[arg(long, default_value = "0%")]
    reorder: Rate,
    /// Drop all messages towards the node, from it, or both; connections stay.
    #[arg(long, value_enum, default_value_t = Cut::None)]
    cut: Cut,
    /// Where the dice begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is done to messages, in both directions unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Each message waits for up to this long.
    pub delay: Duration,
    /// Messages in whose place the connection is dropped.
    pub loss: Rate,
    /// Messages that come twice.
    pub duplicate: Rate,
    /// Messages that later ones may overtake.
    pub reorder: Rate,
    /// Messages that are dropped.
    pub cut: Cut,
}

/// A share of all messages, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// At most 1,000.
    pub per_mille: u32,
}

impl FromStr for Rate {
    type Err = String;

    /// Reads a percentage with at most one digit behind the point.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no rate between 0% and 100%, such as 1% or 0.1%");
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.parse::<u16>().map(u32::from).map_err(|_| wrong());
        let per_mille = 10 * digits(whole)? + digits(tenths)?;
        if tenths.len() != 1 || per_mille > 1_000 { Err(wrong()) } else { Ok(Self { per_mille }) }
    }
}

/// Directions whose messages are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Cut {
    /// Neither.
    #[default]
    None,
    /// Towards the node: it hears nothing and is heard.
    In,
    /// From the node: it hears and is not heard.
    Out,
    /// Both.
    Both,
}

impl Cut {
    fn covers(self, direction: Direction) -> bool {
        match self {
            Self::None => false,
            Self::In => direction == Direction::Inwards,
            Self::Out => direction == Direction::Outwards,
            Self::Both => true,
        }
    }
}

/// What a proxy has done so far, in messages unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Links that were opened.
    pub links: u64,
    /// Written to their receivers, copies included.
    pub passed: u64,
    /// Made to wait.
    pub delayed: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Put behind later ones.
    pub reordered: u64,
    /// Dropped by a cut.
    pub cut: u64,
    /// Links that were dropped in a message's place.
    pub broken: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, u64::wrapping_add)
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.each(other, u64::wrapping_sub)
    }
}

impl Counts {
    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            links: of(self.links, other.links),
            passed: of(self.passed, other.passed),
            delayed: of(self.delayed, other.delayed),
            duplicated: of(self.duplicated, other.duplicated),
            reordered: of(self.reordered, other.reordered),
            cut: of(self.cut, other.cut),
            broken: of(self.broken, other.broken),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { links, passed, delayed, duplicated, reordered, cut, broken } = self;
        write!(
            f,
            "{links} links opened, {broken} broken; messages: {passed} passed, {delayed} delayed, {duplicated} \
             duplicated, {reordered} reordered, {cut} cut"
        )
    }
}

/// A running proxy. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// The thread ends when this closes.
    faults: Option<watch::Sender<Faults>>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens, and passes what comes on to `target`.
    ///
    /// # Errors
    ///
    /// If it cannot listen there.
    pub fn start(listen: SocketAddr, target: SocketAddr, faults: Faults, seed: u64) -> io::Result<Self> {
        let listener = StdListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, faults) = watch::channel(faults);
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let served = runtime.block_on(serve(listener, target, faults, shared, Rng::new(seed)));
            if let Err(error) = served {
                eprintln!("the proxy of {target} ended: {error}");
            }
        })?;
        Ok(Self { address, faults: Some(sender), counters, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what is done to messages from now on, on open links too.
    pub fn set(&self, faults: Faults) {
        if let Some(sender) = &self.faults {
            sender.send_replace(faults);
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Counters { links, passed, delayed, duplicated, reordered, cut, broken } = &*self.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            links: of(links),
            passed: of(passed),
            delayed: of(delayed),
            duplicated: of(duplicated),
            reordered: of(reordered),
            cut: of(cut),
            broken: of(broken),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.faults = None;
        if let Some(thread) = self.thread.take() {
            // It has already said why it panicked, if it did.
            let _ = thread.join();
        }
    }
}

/// Runs a proxy until it is interrupted, and says every second what it did in that second.
///
/// # Errors
///
/// If it cannot listen.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let &Arguments { listen, to, delay, loss, duplicate, reorder, cut, seed } = arguments;
    let faults = Faults { delay, loss, duplicate, reorder, cut };
    let proxy = Proxy::start(listen, to, faults, seed)
        .map_err(|error| Failure(format!("cannot listen on {listen}: {error}; choose another with --listen")))?;
    say(&format!("{} stands for {to}; start that node with --advertise {0}", proxy.address()));
    let mut before = Counts::default();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = proxy.counts();
        println!("{}", now - before);
        before = now;
    }
}

#[derive(Debug, Default)]
struct Counters {
    links: AtomicU64,
    passed: AtomicU64,
    delayed: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    cut: AtomicU64,
    broken: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// Towards the node.
    Inwards,
    /// From the node.
    Outwards,
}

/// Accepts until the proxy is dropped.
async fn serve(
    listener: StdListener,
    target: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    counters: Arc<Counters>,
    mut rng: Rng,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return Ok(()) },
            accepted = listener.accept() => {
                // A connection that was reset before it was accepted is its peer's affair.
                let Ok((peer, _)) = accepted else { continue };
                let (faults, counters, rng) = (faults.clone(), Arc::clone(&counters), rng.fork());
                // However a connection ends, both its ends see it end.
                tokio::spawn(async move { connection(peer, target, faults, counters, rng).await });
            }
        }
    }
}

async fn connection(
    mut peer: TcpStream,
    target: SocketAddr,
    faults: watch::Receiver<Faults>,
    counters: Arc<Counters>,
    mut rng: Rng,
) -> io::Result<()> {
    let mut node = TcpStream::connect(target).await?;
    peer.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (request, from_peer) = read_head(&mut peer).await?;
    node.write_all(&request).await?;
    let mut from_node = Vec::new();
    let mut is_link = asks_for_websocket(&request);
    if is_link {
        let answer;
        (answer, from_node) = read_head(&mut node).await?;
        peer.write_all(&answer).await?;
        is_link = answer.starts_with(b"HTTP/1.1 101");
    }
    if !is_link {
        node.write_all(&from_peer).await?;
        peer.write_all(&from_node).await?;
        return copy_bidirectional(&mut peer, &mut node).await.map(drop);
    }
    count(&counters.links);
    let ((peer_in, peer_out), (node_in, node_out)) = (peer.into_split(), node.into_split());
    let mut pump = |direction, from, to, arrived| Pump {
        direction,
        from,
        to,
        arrived,
        faults: faults.clone(),
        counters: Arc::clone(&counters),
        rng: rng.fork(),
        handshake: HANDSHAKE,
        seq: 0,
        in_order: Instant::now(),
        waiting: BTreeMap::new(),
    };
    let inwards = pump(Direction::Inwards, peer_in, node_out, from_peer);
    let outwards = pump(Direction::Outwards, node_in, peer_out, from_node);
    tokio::select! {
        ended = inwards.run() => ended,
        ended = outwards.run() => ended,
    }
}

/// Reads up to the empty line of a request or an answer. Returns that, and what came behind it.
async fn read_head(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    loop {
        if let Some(at) = head.windows(END.len()).position(|bytes| bytes == END) {
            let rest = head.split_off(at + END.len());
            return Ok((head, rest));
        }
        if head.len() > HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn asks_for_websocket(request: &[u8]) -> bool {
    let lines = request.split(|&byte| byte == b'\n').map(<[u8]>::to_ascii_lowercase);
    lines.into_iter().any(|line| line.starts_with(b"upgrade:") && line.trim_ascii_end().ends_with(b"websocket"))
}

/// One direction of one link.
struct Pump {
    direction: Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// Read, and not yet a whole message.
    arrived: Vec<u8>,
    faults: watch::Receiver<Faults>,
    counters: Arc<Counters>,
    rng: Rng,
    /// Messages of the handshake that are still to come.
    handshake: u8,
    seq: u64,
    /// No message that keeps its place leaves before this.
    in_order: Instant,
    /// By the time when they leave; those of one time in the order of their arrival.
    waiting: BTreeMap<(Instant, u64), Vec<u8>>,
}

impl Pump {
    /// Runs until the sender has ended and all that waits is delivered, or until the link is lost.
    async fn run(mut self) -> io::Result<()> {
        let mut ended = false;
        loop {
            while let Some(message) = Message::split_off(&mut self.arrived)? {
                self.take_in(message)?;
            }
            while let Some(next) = self.waiting.first_entry().filter(|next| next.key().0 <= Instant::now()) {
                self.to.write_all(&next.remove()).await?;
                count(&self.counters.passed);
            }
            let due = self.waiting.first_key_value().map(|((due, _), _)| *due);
            let has_room = self.waiting.len() < WAITING;
            self.arrived.reserve(READ_BYTES);
            tokio::select! {
                read = self.from.read_buf(&mut self.arrived), if has_room && !ended => ended = read? == 0,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => (),
                else => return Ok(()),
            }
        }
    }

    /// Throws the dice for one message. An error ends the link.
    fn take_in(&mut self, message: Message) -> io::Result<()> {
        let faults = *self.faults.borrow();
        let spared = message.is_control || self.handshake > 0;
        if !message.is_control {
            self.handshake = self.handshake.saturating_sub(1);
        }
        if faults.cut.covers(self.direction) {
            count(&self.counters.cut);
            return Ok(());
        }
        let now = Instant::now();
        let due = now + self.below(faults.delay);
        if due > now {
            count(&self.counters.delayed);
        }
        if !spared && self.rng.chance(faults.loss.per_mille) {
            count(&self.counters.broken);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if !spared && self.rng.chance(faults.duplicate.per_mille) {
            count(&self.counters.duplicated);
            let again = due.max(self.in_order) + self.below(faults.delay.max(OVERTAKEN));
            self.wait(again, message.bytes.clone());
        }
        if !spared && self.rng.chance(faults.reorder.per_mille) {
            count(&self.counters.reordered);
            let behind = due.max(self.in_order) + self.below(faults.delay.max(OVERTAKEN));
            self.wait(behind, message.bytes);
        } else {
            self.in_order = self.in_order.max(due);
            self.wait(self.in_order, message.bytes);
        }
        Ok(())
    }

    fn wait(&mut self, until: Instant, bytes: Vec<u8>) {
        self.seq += 1;
        self.waiting.insert((until, self.seq), bytes);
    }

    fn below(&mut self, max: Duration) -> Duration {
        Duration::from_micros(self.rng.below(max.as_micros() as u64))
    }
}

/// A whole message as it came: one frame, or all the frames that it was cut into.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    bytes: Vec<u8>,
    /// A ping, a pong or a close.
    is_control: bool,
}

impl Message {
    /// Takes the first message, if all of it is there.
    fn split_off(arrived: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut end = 0;
        loop {
            let is_first = end == 0;
            let mut cursor = Cursor::new(&arrived[end..]);
            let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| invalid())? else {
                return Ok(None);
            };
            let length = usize::try_from(length).ok().filter(|&length| length <= MESSAGE_BYTES).ok_or_else(invalid)?;
            end += cursor.position() as usize + length;
            if end > MESSAGE_BYTES {
                return Err(invalid());
            }
            if end > arrived.len() {
                return Ok(None);
            }
            let is_control = matches!(header.opcode, OpCode::Control(_));
            // A control frame between the pieces of a message travels with them.
            let is_whole = if is_control { is_first } else { header.is_final };
            if is_whole {
                let rest = arrived.split_off(end);
                let bytes = std::mem::replace(arrived, rest);
                return Ok(Some(Self { bytes, is_control }));
            }
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no time such as 50ms or 2s");
    let of = |digits: &str| digits.parse::<u32>().map(u64::from).map_err(|_| wrong());
    if let Some(ms) = text.strip_suffix("ms") {
        return of(ms).map(Duration::from_millis);
    }
    of(text.strip_suffix('s').ok_or_else(wrong)?).map(Duration::from_secs)
}

/// Messages of each direction that make up the handshake: hello and proof.
const HANDSHAKE: u8 = 2;
/// How long a message may be overtaken, or its copy stay behind it, where the delay does not say more.
const OVERTAKEN: Duration = Duration::from_millis(20);
/// Messages of one direction that wait. Beyond: nothing more is read, and TCP holds the sender back.
const WAITING: usize = 4_096;
/// Read at once.
const READ_BYTES: usize = 16 << 10;
/// A head of a request or an answer. Longer: the connection is dropped.
const HEAD_BYTES: usize = 16 << 10;
/// A message with its headers. Longer than what nodes refuse anyway: the link is dropped.
const MESSAGE_BYTES: usize = 4 * limits::FRAME_BYTES;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message as WsMessage;
    use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

    use super::*;

    type Socket<S> = WebSocketStream<S>;

    const PATIENCE: Duration = Duration::from_secs(10);
    const ALWAYS: Rate = Rate { per_mille: 1_000 };

    fn anywhere() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    /// The two ends of a link through a proxy, its handshake done.
    async fn link(faults: Faults) -> (Proxy, Socket<MaybeTlsStream<TcpStream>>, Socket<TcpStream>) {
        let listener = TcpListener::bind(anywhere()).await.expect("a free port");
        let target = listener.local_addr().expect("it is bound");
        let proxy = Proxy::start(anywhere(), target, faults, 1).expect("a free port");
        let url = format!("ws://{}/v1/link", proxy.address());
        let accepted = async { accept_async(listener.accept().await.expect("the proxy dials").0).await };
        let (peer, node) = tokio::join!(connect_async(url), accepted);
        let ((mut peer, _), mut node) = (peer.expect("an upgrade"), node.expect("an upgrade"));
        for n in 0..HANDSHAKE {
            peer.send(WsMessage::binary(vec![n])).await.expect("open");
            node.send(WsMessage::binary(vec![n])).await.expect("open");
            assert_eq!((next(&mut node).await, next(&mut peer).await), (Some(vec![n]), Some(vec![n])));
        }
        (proxy, peer, node)
    }

    /// The next message; `None` once the link has ended.
    async fn next<S>(socket: &mut Socket<S>) -> Option<Vec<u8>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message or an end") {
            Some(Ok(WsMessage::Binary(bytes))) => Some(bytes.to_vec()),
            Some(Ok(WsMessage::Pong(_))) => Some(b"pong".to_vec()),
            Some(Ok(other)) => panic!("nobody sent {other:?}"),
            Some(Err(_)) | None => None,
        }
    }

    async fn send_and_count<const N: usize>(faults: Faults, received: usize) -> ([u8; N], Vec<u8>, Counts) {
        let (proxy, mut peer, mut node) = link(faults).await;
        let sent: [u8; N] = std::array::from_fn(|n| n as u8);
        for n in sent {
            peer.feed(WsMessage::binary(vec![n])).await.expect("open");
        }
        peer.flush().await.expect("open");
        let mut got = Vec::new();
        while got.len() < received {
            got.extend(next(&mut node).await.expect("open"));
        }
        (sent, got, proxy.counts())
    }

    #[tokio::test]
    async fn delay_keeps_the_order() {
        let faults = Faults { delay: Duration::from_millis(5), ..Faults::default() };
        let (sent, got, counts) = send_and_count::<100>(faults, 100).await;
        assert_eq!(got, sent);
        assert!(counts.delayed > 50 && counts.passed >= 103, "{counts}");
    }

    #[tokio::test]
    async fn reordering_loses_nothing_and_changes_the_order() {
        let (sent, mut got, counts) =
            send_and_count::<100>(Faults { reorder: Rate { per_mille: 300 }, ..Faults::default() }, 100).await;
        assert_ne!(got, sent);
        got.sort_unstable();
        assert_eq!(got, sent);
        assert!(counts.reordered > 0, "{counts}");
    }

    #[tokio::test]
    async fn a_duplicated_message_comes_twice_and_the_handshake_does_not() {
        let (sent, mut got, counts) =
            send_and_count::<50>(Faults { duplicate: ALWAYS, ..Faults::default() }, 100).await;
        got.sort_unstable();
        assert_eq!(got, sent.map(|n| [n, n]).concat());
        assert_eq!(counts.duplicated, 50);
    }

    #[tokio::test]
    async fn a_cut_silences_one_direction_pings_included_and_the_link_stays() {
        let (proxy, mut peer, mut node) = link(Faults::default()).await;
        proxy.set(Faults { cut: Cut::In, ..Faults::default() });
        peer.send(WsMessage::binary(b"lost".to_vec())).await.expect("open");
        peer.send(WsMessage::Ping(Default::default())).await.expect("open");
        node.send(WsMessage::binary(b"heard".to_vec())).await.expect("open");
        assert_eq!(next(&mut peer).await.as_deref(), Some(&b"heard"[..]));
        while proxy.counts().cut < 2 {
            tokio::task::yield_now().await;
        }
        proxy.set(Faults::default());
        peer.send(WsMessage::binary(b"healed".to_vec())).await.expect("open");
        assert_eq!(next(&mut node).await.as_deref(), Some(&b"healed"[..]));
        node.send(WsMessage::binary(b"no pong before".to_vec())).await.expect("open");
        assert_eq!(next(&mut peer).await.as_deref(), Some(&b"no pong before"[..]));
    }

    #[tokio::test]
    async fn a_lost_message_ends_the_link_at_both_ends() {
        let (proxy, mut peer, mut node) = link(Faults { loss: ALWAYS, ..Faults::default() }).await;
        peer.send(WsMessage::binary(b"lost".to_vec())).await.expect("open");
        assert_eq!((next(&mut node).await, next(&mut peer).await), (None, None));
        assert_eq!(proxy.counts().broken, 1);
    }

    #[tokio::test]
    async fn a_request_that_is_no_upgrade_passes_as_it_is() {
        let listener = TcpListener::bind(anywhere()).await.expect("a free port");
        let proxy = Proxy::start(anywhere(), listener.local_addr().expect("it is bound"), Faults::default(), 1);
        let proxy = proxy.expect("a free port");
        let mut peer = TcpStream::connect(proxy.address()).await.expect("it listens");
        let request = b"PUT /v1/kv/k HTTP/1.1\r\nhost: n\r\n\r\nbody";
        peer.write_all(request).await.expect("open");
        let (mut node, _) = listener.accept().await.expect("the proxy dials");
        let mut got = vec![0; request.len()];
        node.read_exact(&mut got).await.expect("open");
        assert_eq!(got, request);
        assert_eq!(proxy.counts(), Counts::default());
    }

    #[test]
    fn a_message_in_pieces_is_one_message() {
        let whole = [0x02, 1, b'a', 0x89, 0, 0x80, 1, b'b'];
        for end in 0..whole.len() {
            assert_eq!(Message::split_off(&mut whole[..end].to_vec()).expect("well formed"), None, "{end} bytes");
        }
        let mut arrived = [&whole[..], &[0x89, 0]].concat();
        let message = Message { bytes: whole.to_vec(), is_control: false };
        assert_eq!(Message::split_off(&mut arrived).expect("well formed"), Some(message));
        let ping = Message { bytes: vec![0x89, 0], is_control: true };
        assert_eq!(Message::split_off(&mut arrived).expect("well formed"), Some(ping));
        let mut huge = [&[0x82, 127][..], &(4_u64 << 30).to_be_bytes()].concat();
        assert!(Message::split_off(&mut huge).is_err(), "4 GiB are declared");
    }

    #[test]
    fn rates_and_times_are_read_as_people_write_them() {
        let per_mille = |text: &str| text.parse::<Rate>().map(|rate| rate.per_mille);
        assert_eq!([per_mille("1%"), per_mille("0.1%"), per_mille("100%")], [Ok(10), Ok(1), Ok(1_000)]);
        assert!(["", "%", "-1%", "101%", "0.05%", "1.%"].iter().all(|text| per_mille(text).is_err()));
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert!(["", "5", "5m", "s"].iter().all(|text| parse_duration(text).is_err()));
    }
}
