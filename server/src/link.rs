//! One WebSocket between this node and a peer: handshake, then frames both ways until it closes.
//!
//! ```text
//!   dialer ── hello ──▶ ◀── hello ── listener      versions and clusters compared, both named where they differ
//!   dialer ── proof ──▶ ◀── proof ── listener      each signs both hellos: the node id is proven, not claimed
//!   frames
//! ```
//!
//! Reading and writing are two tasks, so that two peers that both write a lot cannot wait for each other. The writer
//! packs whatever is ready into one frame and flushes once. Queues are bounded: gossip is dropped first, then
//! everything; protocols live with loss.

use std::sync::Arc;
use std::time::Duration;

use futures::{Sink, SinkExt, Stream, StreamExt};
use qunlong_core::wire::{
    self, DecodeError, FrameWriter, HandshakeError, Hello, Packet, Proof, Side, check_hello, decode_proof,
    encode_hello, encode_proof, transcript,
};
use qunlong_core::{ClusterId, NodeId, limits};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Bytes};

use crate::driver::{Command, Commands};
use crate::identity::{Identity, random, verify};

/// Packets that wait for one peer. Gossip is dropped beyond half of it, everything beyond all of it.
pub(crate) const QUEUE: usize = 4_096;
/// A peer that does not finish its handshake in time is hung up on.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Each side pings this often…
const PING: Duration = Duration::from_secs(5);
/// …and hangs up when it has heard nothing for so long.
const SILENCE: Duration = Duration::from_secs(15);
/// Close code for a refused handshake; the reason carries the error's code and text.
const REFUSED: u16 = 4_001;
/// Close code for a message beyond the limit.
const TOO_BIG: u16 = 1_009;
/// Close code for bytes that make no sense.
const BAD_FRAME: u16 = 1_007;
/// Bytes of a close reason that WebSocket allows.
const REASON: usize = 123;

/// A packet for a peer, or through it.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) to: NodeId,
    pub(crate) from: NodeId,
    pub(crate) hops: u8,
    pub(crate) body: Bytes,
}

/// What travels over a WebSocket, whichever library it is of.
#[derive(Debug)]
pub(crate) enum Wire {
    Binary(Bytes),
    Ping,
    Close(u16, String),
}

/// What a link needs of its node.
#[derive(Clone)]
pub(crate) struct LinkContext {
    pub(crate) identity: Arc<Identity>,
    pub(crate) cluster: watch::Receiver<Option<ClusterId>>,
    pub(crate) commands: Commands,
}

/// Why a link ended before it began.
#[derive(Debug)]
pub(crate) enum LinkError {
    Connect(String),
    /// Nobody listens there: the machine answers, and says so.
    Refused,
    Handshake(HandshakeError),
    Closed(String),
    Slow,
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => f.write_str(error),
            Self::Refused => f.write_str("nobody listens there"),
            Self::Handshake(error) => write!(f, "{}: {error}", error.code()),
            Self::Closed(reason) if reason.is_empty() => f.write_str("the peer hung up"),
            Self::Closed(reason) => write!(f, "the peer hung up: {reason}"),
            Self::Slow => f.write_str("the peer did not finish its handshake in time"),
        }
    }
}

/// The size limits that every WebSocket of this node has: the library's own are 64 MiB and no limit at all.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(limits::FRAME_BYTES))
        .max_frame_size(Some(limits::FRAME_BYTES))
        .max_write_buffer_size(4 * limits::FRAME_BYTES)
}

/// Dials a peer and serves the link until it closes.
pub(crate) async fn dial(address: String, cx: LinkContext) -> Result<NodeId, LinkError> {
    let connect = |error: String| LinkError::Connect(error);
    let stream =
        timeout(HANDSHAKE, TcpStream::connect(&address)).await.map_err(|_| LinkError::Slow)?.map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::ConnectionRefused => LinkError::Refused,
                _ => connect(error.to_string()),
            }
        })?;
    stream.set_nodelay(true).map_err(|error| connect(error.to_string()))?;
    let url = format!("ws://{address}/v1/link");
    let handshake = tokio_tungstenite::client_async_with_config(url, stream, Some(websocket_config()));
    let (socket, _) = timeout(HANDSHAKE, handshake)
        .await
        .map_err(|_| LinkError::Slow)?
        .map_err(|error| connect(error.to_string()))?;
    let (sink, stream) = socket.split();
    let sink = sink.with(|wire: Wire| std::future::ready(Ok::<_, tungstenite::Error>(to_tungstenite(wire))));
    let stream = stream.filter_map(|message| std::future::ready(from_tungstenite(message)));
    serve(Box::pin(sink), Box::pin(stream), Side::Dialer, cx, Some(address)).await
}

/// Serves a link that a peer has opened.
pub(crate) async fn accept(socket: axum::extract::ws::WebSocket, cx: LinkContext) {
    let (sink, stream) = socket.split();
    let sink = sink.with(|wire: Wire| std::future::ready(Ok::<_, axum::Error>(to_axum(wire))));
    let stream = stream.filter_map(|message| std::future::ready(from_axum(message)));
    if let Err(error) = serve(Box::pin(sink), Box::pin(stream), Side::Listener, cx, None).await {
        tracing::info!(%error, "refused a link");
    }
}

/// What a peer said, or why it hung up.
type Heard = Result<Bytes, String>;

async fn serve<Out, In>(
    mut sink: Out,
    mut stream: In,
    side: Side,
    cx: LinkContext,
    address: Option<String>,
) -> Result<NodeId, LinkError>
where
    Out: Sink<Wire> + Unpin + Send + 'static,
    In: Stream<Item = Heard> + Unpin,
{
    let shaken = timeout(HANDSHAKE, shake_hands(&mut sink, &mut stream, side, &cx)).await;
    let peer = match shaken.map_err(|_| LinkError::Slow)? {
        Ok(peer) => peer,
        Err(error) => {
            if let LinkError::Handshake(error) = &error {
                let mut reason = format!("{}: {error}", error.code());
                reason.truncate(REASON);
                let _ = sink.send(Wire::Close(REFUSED, reason)).await;
            }
            return Err(error);
        }
    };
    let (queue, packets) = mpsc::channel(QUEUE);
    let (close, closing) = watch::channel(None);
    let Some(id) = cx.commands.link_up(peer, side, queue, close, address).await else { return Ok(peer) };
    let writer = tokio::spawn(write(sink, packets, closing, cx.cluster.clone()));
    read(&mut stream, id, peer, &cx.commands).await;
    writer.abort();
    cx.commands.send(Command::LinkDown { id, peer }).await;
    Ok(peer)
}

async fn shake_hands<Out, In>(
    sink: &mut Out,
    stream: &mut In,
    side: Side,
    cx: &LinkContext,
) -> Result<NodeId, LinkError>
where
    Out: Sink<Wire> + Unpin,
    In: Stream<Item = Heard> + Unpin,
{
    let nonce = random().map_err(|failure| LinkError::Connect(failure.to_string()))?;
    let mine = Hello { public_key: cx.identity.public_key(), cluster: *cx.cluster.borrow(), nonce };
    let my_hello = encode_hello(&mine);
    send(sink, my_hello.clone()).await?;
    let their_hello = receive(stream).await?;
    let theirs = check_hello(&mine, &their_hello).map_err(LinkError::Handshake)?;
    let (dialer, listener, their_side) = match side {
        Side::Dialer => (&my_hello[..], &their_hello[..], Side::Listener),
        Side::Listener => (&their_hello[..], &my_hello[..], Side::Dialer),
    };
    let signature = cx.identity.sign(&transcript(side, dialer, listener));
    send(sink, encode_proof(&Proof { signature })).await?;
    let proof = decode_proof(&receive(stream).await?).map_err(LinkError::Handshake)?;
    if !verify(&theirs.public_key, &transcript(their_side, dialer, listener), &proof.signature) {
        return Err(LinkError::Handshake(HandshakeError::BadSignature));
    }
    Ok(NodeId::of_public_key(&theirs.public_key))
}

async fn send<Out: Sink<Wire> + Unpin>(sink: &mut Out, bytes: Vec<u8>) -> Result<(), LinkError> {
    sink.send(Wire::Binary(bytes.into())).await.map_err(|_| LinkError::Closed(String::new()))
}

async fn receive<In: Stream<Item = Heard> + Unpin>(stream: &mut In) -> Result<Bytes, LinkError> {
    loop {
        match stream.next().await {
            Some(Ok(bytes)) if bytes.is_empty() => (),
            Some(Ok(bytes)) => return Ok(bytes),
            Some(Err(reason)) => return Err(LinkError::Closed(reason)),
            None => return Err(LinkError::Closed(String::new())),
        }
    }
}

/// Hands frames to the node until the peer hangs up or falls silent.
async fn read<In: Stream<Item = Heard> + Unpin>(stream: &mut In, id: u64, peer: NodeId, commands: &Commands) {
    while let Ok(Some(Ok(frame))) = timeout(SILENCE, stream.next()).await {
        if !frame.is_empty() {
            commands.send(Command::Frame { id, peer, frame }).await;
        }
    }
}

/// Packs what is ready into frames until the node hangs up, which it does by closing the queue.
async fn write<Out: Sink<Wire> + Unpin>(
    mut sink: Out,
    mut packets: mpsc::Receiver<Outgoing>,
    closing: watch::Receiver<Option<DecodeError>>,
    cluster: watch::Receiver<Option<ClusterId>>,
) {
    let mut ping = interval(PING);
    ping.reset_at(Instant::now() + PING);
    loop {
        let first = tokio::select! {
            packet = packets.recv() => packet,
            _ = ping.tick() => {
                // Pages never see pings: an empty frame tells them that the link lives.
                let heartbeat = Wire::Binary(FrameWriter::new(*cluster.borrow()).finish().into());
                if sink.feed(heartbeat).await.is_err() || sink.send(Wire::Ping).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(first) = first else { break };
        let mut frame = FrameWriter::new(*cluster.borrow());
        push(&mut frame, &first);
        while let Ok(packet) = packets.try_recv() {
            if !frame.fits(packet.body.len()) {
                let full = std::mem::replace(&mut frame, FrameWriter::new(*cluster.borrow()));
                if sink.feed(Wire::Binary(full.finish().into())).await.is_err() {
                    return;
                }
            }
            push(&mut frame, &packet);
        }
        if sink.send(Wire::Binary(frame.finish().into())).await.is_err() {
            return;
        }
    }
    let (code, reason) = match *closing.borrow() {
        Some(DecodeError::TooLarge) => (TOO_BIG, DecodeError::TooLarge.to_string()),
        Some(error @ DecodeError::WrongCluster { .. }) => (REFUSED, error.to_string().chars().take(REASON).collect()),
        Some(error) => (BAD_FRAME, error.to_string()),
        None => (1_000, String::new()),
    };
    let _ = sink.send(Wire::Close(code, reason)).await;
}

fn push(frame: &mut FrameWriter, packet: &Outgoing) {
    frame.push(Packet { to: packet.to, from: packet.from, hops: packet.hops, body: &packet.body });
}

fn to_tungstenite(wire: Wire) -> tungstenite::Message {
    match wire {
        Wire::Binary(bytes) => tungstenite::Message::Binary(bytes),
        Wire::Ping => tungstenite::Message::Ping(Bytes::new()),
        Wire::Close(code, reason) => tungstenite::Message::Close(Some(tungstenite::protocol::CloseFrame {
            code: code.into(),
            reason: reason.into(),
        })),
    }
}

/// Pings and pongs count as signs of life: an empty message.
fn from_tungstenite(message: Result<tungstenite::Message, tungstenite::Error>) -> Option<Heard> {
    match message {
        Ok(tungstenite::Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(tungstenite::Message::Close(frame)) => Some(Err(frame.map_or(String::new(), |f| f.reason.to_string()))),
        Ok(_) => Some(Ok(Bytes::new())),
        Err(error) => Some(Err(error.to_string())),
    }
}

fn to_axum(wire: Wire) -> axum::extract::ws::Message {
    use axum::extract::ws::{CloseFrame, Message};
    match wire {
        Wire::Binary(bytes) => Message::Binary(bytes),
        Wire::Ping => Message::Ping(Bytes::new()),
        Wire::Close(code, reason) => Message::Close(Some(CloseFrame { code, reason: reason.into() })),
    }
}

fn from_axum(message: Result<axum::extract::ws::Message, axum::Error>) -> Option<Heard> {
    use axum::extract::ws::Message;
    match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(Message::Close(frame)) => Some(Err(frame.map_or(String::new(), |f| f.reason.to_string()))),
        Ok(_) => Some(Ok(Bytes::new())),
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Splits a frame and checks that the sender may speak for whom it speaks.
///
/// A peer speaks for itself; a server of the epoch also relays for others.
///
/// A link may have been made while one side knew no cluster yet; if they turn out to differ, it must not last.
pub(crate) fn admit(
    frame: &[u8],
    peer: NodeId,
    may_relay: bool,
    mine: Option<ClusterId>,
) -> Result<Vec<Packet<'_>>, DecodeError> {
    let mut packets = wire::read_frame(frame, mine)?;
    let all = packets.len();
    packets.retain(|packet| packet.from == peer || may_relay);
    if packets.len() < all {
        tracing::warn!(%peer, dropped = all - packets.len(), "a peer spoke for others");
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_speaks_for_itself_and_only_servers_of_the_epoch_relay() {
        let (me, peer, other) = (NodeId::small(1), NodeId::small(2), NodeId::small(3));
        let mut frame = FrameWriter::new(None);
        frame.push(Packet { to: me, from: peer, hops: 0, body: &[] });
        frame.push(Packet { to: me, from: other, hops: 1, body: &[] });
        let frame = frame.finish();
        assert_eq!(admit(&frame, peer, false, None).expect("well formed").len(), 1);
        assert_eq!(admit(&frame, peer, true, None).expect("well formed").len(), 2);
    }

    #[test]
    fn a_frame_of_another_cluster_is_not_admitted() {
        let (one, other) = (ClusterId([1; 16]), ClusterId([2; 16]));
        let mut frame = FrameWriter::new(Some(one));
        frame.push(Packet { to: NodeId::small(1), from: NodeId::small(2), hops: 0, body: &[] });
        let frame = frame.finish();
        assert_eq!(admit(&frame, NodeId::small(2), true, Some(one)).expect("well formed").len(), 1);
        assert!(admit(&frame, NodeId::small(2), true, Some(other)).is_err());
        assert_eq!(admit(&frame, NodeId::small(2), true, None).expect("well formed").len(), 1);
    }
}
