//! Bytes on a link: the handshake, frames of packets, messages.
//!
//! ```text
//!   hello    "QLNG" version  postcard(Hello)            each side sends one, first
//!   proof    postcard(Proof)                            a signature over both hellos
//!   frame    version  cluster id (16)  packet*          one WebSocket message
//!   packet   to (16)  from (16)  hops (1)  length (4, little-endian)  body
//!   body     postcard(generation, seq, epoch, payload)
//! ```
//!
//! A relay reads the packet's head and passes the body on as it is. Decoding never panics and never allocates more
//! than the frame it was given suggests; whatever does not decode costs its sender the link and nobody else.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Epoch, Generation, NodeId};
use crate::lift::{Event, Payload};
use crate::limits;
use crate::trace::MessageId;

/// The protocol's version. Nodes of different versions refuse each other and name both.
pub const VERSION: u8 = 12;

const MAGIC: [u8; 4] = *b"QLNG";
const FRAME_HEAD: usize = 1 + 16;
const PACKET_HEAD: usize = 16 + 16 + 1 + 4;

/// A message with its sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender, as proven by the link or vouched for by a relaying server.
    pub from: NodeId,
    /// The sender's boot.
    pub generation: Generation,
    /// The sender's count of messages.
    pub seq: u64,
    /// The epoch that the sender was in: whoever is behind finds out.
    pub epoch: Epoch,
    /// What it says.
    pub payload: Payload,
}

impl Envelope {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> MessageId {
        MessageId { node: self.from, generation: self.generation, seq: self.seq }
    }
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not this protocol at all.
    NotQunlong,
    /// Another version.
    Version {
        /// This node's.
        mine: u8,
        /// The peer's.
        theirs: u8,
    },
    /// The end came too early, or something does not decode.
    Malformed,
    /// Larger than the limit.
    TooLarge,
    /// A frame of another cluster: the link was made while one side knew of none.
    WrongCluster {
        /// This node's.
        mine: ClusterId,
        /// The peer's.
        theirs: ClusterId,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotQunlong => f.write_str("the peer does not speak this protocol"),
            Self::Version { mine, theirs } => {
                write!(f, "this node speaks protocol version {mine}, the peer version {theirs}")
            }
            Self::Malformed => f.write_str("malformed bytes"),
            Self::TooLarge => write!(f, "larger than {} bytes", limits::FRAME_BYTES),
            Self::WrongCluster { mine, theirs } => {
                write!(f, "WRONG_CLUSTER: this node belongs to cluster {mine}, the peer to cluster {theirs}")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// The body of a message, to be put into as many packets as there are receivers.
///
/// # Errors
///
/// [`DecodeError::TooLarge`] if no frame could hold it.
pub fn encode_message(message: &Envelope) -> Result<Vec<u8>, DecodeError> {
    let body = postcard::to_allocvec(&(message.generation, message.seq, message.epoch, &message.payload))
        .expect("plain data encodes into a growing buffer");
    if body.len() > limits::MESSAGE_BYTES { Err(DecodeError::TooLarge) } else { Ok(body) }
}

/// Reads a packet's body.
///
/// # Errors
///
/// [`DecodeError::Malformed`] if it is anything but one whole message.
pub fn decode_message(from: NodeId, body: &[u8]) -> Result<Envelope, DecodeError> {
    let ((generation, seq, epoch, payload), rest) =
        postcard::take_from_bytes(body).map_err(|_| DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::Malformed);
    }
    Ok(Envelope { from, generation, seq, epoch, payload })
}

/// One message on its way, body unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The receiver.
    pub to: NodeId,
    /// The sender.
    pub from: NodeId,
    /// Relays passed so far.
    pub hops: u8,
    /// See [`decode_message`].
    pub body: &'a [u8],
}

/// Builds one frame.
#[derive(Clone, Debug)]
pub struct FrameWriter {
    bytes: Vec<u8>,
}

impl FrameWriter {
    /// An empty frame. A node without a cluster writes zeros.
    #[must_use]
    pub fn new(cluster: Option<ClusterId>) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(VERSION);
        bytes.extend_from_slice(&cluster.map_or([0; 16], |cluster| cluster.0));
        Self { bytes }
    }

    /// Whether a packet with such a body still fits.
    #[must_use]
    pub fn fits(&self, body: usize) -> bool {
        self.bytes.len() + PACKET_HEAD + body <= limits::FRAME_BYTES
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_HEAD
    }

    /// Adds a packet.
    ///
    /// # Panics
    ///
    /// If it does not fit; ask [`FrameWriter::fits`] first.
    pub fn push(&mut self, packet: Packet<'_>) {
        assert!(self.fits(packet.body.len()), "a frame must not grow beyond its limit");
        self.bytes.extend_from_slice(&packet.to.0);
        self.bytes.extend_from_slice(&packet.from.0);
        self.bytes.push(packet.hops);
        self.bytes.extend_from_slice(&(packet.body.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(packet.body);
    }

    /// The frame's bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Splits a frame into its packets. `mine` is this node's cluster, if it has one.
///
/// # Errors
///
/// If the frame is too large, of another version or cluster, or cut off.
pub fn read_frame(bytes: &[u8], mine: Option<ClusterId>) -> Result<Vec<Packet<'_>>, DecodeError> {
    if bytes.len() > limits::FRAME_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let (&theirs, rest) = bytes.split_first().ok_or(DecodeError::Malformed)?;
    if theirs != VERSION {
        return Err(DecodeError::Version { mine: VERSION, theirs });
    }
    let (cluster, mut rest) = rest.split_first_chunk::<16>().ok_or(DecodeError::Malformed)?;
    let theirs = (*cluster != [0; 16]).then_some(ClusterId(*cluster));
    match (mine, theirs) {
        (Some(mine), Some(theirs)) if mine != theirs => return Err(DecodeError::WrongCluster { mine, theirs }),
        _ => (),
    }
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let (packet, after) = read_packet(rest)?;
        packets.push(packet);
        rest = after;
    }
    Ok(packets)
}

fn read_packet(bytes: &[u8]) -> Result<(Packet<'_>, &[u8]), DecodeError> {
    let (to, rest) = bytes.split_first_chunk::<16>().ok_or(DecodeError::Malformed)?;
    let (from, rest) = rest.split_first_chunk::<16>().ok_or(DecodeError::Malformed)?;
    let (&hops, rest) = rest.split_first().ok_or(DecodeError::Malformed)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Malformed)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > rest.len() {
        return Err(DecodeError::Malformed);
    }
    let (body, rest) = rest.split_at(length);
    Ok((Packet { to: NodeId(*to), from: NodeId(*from), hops, body }, rest))
}

/// A batch of events for a dashboard.
#[must_use]
pub fn encode_events(events: &[Event]) -> Vec<u8> {
    postcard::to_extend(events, alloc::vec![VERSION]).expect("plain data encodes into a growing buffer")
}

/// Reads a batch of events.
///
/// # Errors
///
/// If it is of another version or malformed.
pub fn decode_events(bytes: &[u8]) -> Result<Vec<Event>, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| DecodeError::Malformed),
        Some((&theirs, _)) => Err(DecodeError::Version { mine: VERSION, theirs }),
        None => Err(DecodeError::Malformed),
    }
}

/// The first thing each side says on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's Ed25519 public key; its node id follows from it.
    pub public_key: [u8; 32],
    /// The cluster it belongs to, if any.
    pub cluster: Option<ClusterId>,
    /// Fresh randomness, so that a recorded proof is worth nothing.
    pub nonce: [u8; 32],
}

/// The second thing each side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// An Ed25519 signature, 64 bytes, over [`transcript`].
    pub signature: Vec<u8>,
}

/// Which side of a link signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened the connection.
    Dialer,
    /// The one that accepted it.
    Listener,
}

/// Why a link was not made. Both sides can tell, because both have both hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Not a hello, or of another version.
    Decode(DecodeError),
    /// The peer belongs to another cluster.
    WrongCluster {
        /// This node's.
        mine: ClusterId,
        /// The peer's.
        theirs: ClusterId,
    },
    /// The peer's signature does not belong to its key.
    BadSignature,
    /// The peer has this node's own key: it called itself, or two processes share one identity.
    SameIdentity,
}

impl HandshakeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode(DecodeError::Version { .. }) => "VERSION_UNSUPPORTED",
            Self::Decode(_) => "BAD_HANDSHAKE",
            Self::WrongCluster { .. } => "WRONG_CLUSTER",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::SameIdentity => "DUPLICATE_NODE_ID",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => fmt::Display::fmt(error, f),
            Self::WrongCluster { mine, theirs } => {
                write!(f, "this node belongs to cluster {mine}, the peer to cluster {theirs}")
            }
            Self::BadSignature => f.write_str("the peer could not prove that it holds its key"),
            Self::SameIdentity => f.write_str("the peer has the same identity as this node"),
        }
    }
}

impl core::error::Error for HandshakeError {}

/// A hello's bytes.
#[must_use]
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    postcard::to_extend(hello, bytes).expect("plain data encodes into a growing buffer")
}

/// Reads the peer's hello and checks that the two belong together.
///
/// # Errors
///
/// Names both sides where they differ.
pub fn check_hello(mine: &Hello, bytes: &[u8]) -> Result<Hello, HandshakeError> {
    let theirs = decode_hello(bytes).map_err(HandshakeError::Decode)?;
    if theirs.public_key == mine.public_key {
        return Err(HandshakeError::SameIdentity);
    }
    match (mine.cluster, theirs.cluster) {
        (Some(mine), Some(theirs)) if mine != theirs => Err(HandshakeError::WrongCluster { mine, theirs }),
        _ => Ok(theirs),
    }
}

fn decode_hello(bytes: &[u8]) -> Result<Hello, DecodeError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(DecodeError::NotQunlong)?;
    let (&theirs, rest) = rest.split_first().ok_or(DecodeError::Malformed)?;
    if theirs != VERSION {
        return Err(DecodeError::Version { mine: VERSION, theirs });
    }
    postcard::from_bytes(rest).map_err(|_| DecodeError::Malformed)
}

/// What `side` signs: both hellos, so that a proof fits this connection only, and the side, so that it cannot be
/// played back to its author.
#[must_use]
pub fn transcript(side: Side, dialer_hello: &[u8], listener_hello: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(b"qunlong link ");
    bytes.push(match side {
        Side::Dialer => b'd',
        Side::Listener => b'l',
    });
    bytes.extend_from_slice(&(dialer_hello.len() as u32).to_le_bytes());
    bytes.extend_from_slice(dialer_hello);
    bytes.extend_from_slice(listener_hello);
    bytes
}

/// A proof's bytes.
#[must_use]
pub fn encode_proof(proof: &Proof) -> Vec<u8> {
    postcard::to_allocvec(proof).expect("plain data encodes into a growing buffer")
}

/// Reads a proof.
///
/// # Errors
///
/// If it is not one.
pub fn decode_proof(bytes: &[u8]) -> Result<Proof, HandshakeError> {
    postcard::from_bytes(bytes).map_err(|_| HandshakeError::Decode(DecodeError::Malformed))
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec;

    use super::*;
    use crate::rng::Rng;
    use crate::{membership, topology};

    fn message() -> Envelope {
        let payload = Payload::Membership(membership::Msg::PingReq { seq: 7, target: NodeId::small(3) });
        Envelope { from: NodeId::small(1), generation: Generation(2), seq: 9, epoch: Epoch(3), payload }
    }

    fn frame() -> Vec<u8> {
        let body = encode_message(&message()).expect("small");
        let mut frame = FrameWriter::new(Some(ClusterId([5; 16])));
        for to in 2..=4 {
            frame.push(Packet { to: NodeId::small(to), from: NodeId::small(1), hops: 0, body: &body });
        }
        frame.finish()
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = frame();
        let packets = read_frame(&bytes, Some(ClusterId([5; 16]))).expect("whole");
        assert_eq!(packets.len(), 3);
        assert_eq!(decode_message(packets[2].from, packets[2].body), Ok(message()));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = frame();
        bytes[0] = VERSION + 1;
        assert_eq!(read_frame(&bytes, None), Err(DecodeError::Version { mine: VERSION, theirs: VERSION + 1 }));
    }

    #[test]
    fn a_body_with_something_behind_it_is_refused() {
        let mut body = encode_message(&message()).expect("small");
        body.push(0);
        assert_eq!(decode_message(NodeId::small(1), &body), Err(DecodeError::Malformed));
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let mut rng = Rng::new(1);
        for round in 0..20_000 {
            let mut bytes = frame();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
            if let Ok(packets) = read_frame(&bytes, None) {
                for packet in packets {
                    let _ = decode_message(packet.from, packet.body);
                }
            }
            let noise: Vec<u8> = (0..round % 200).map(|_| rng.next_u64() as u8).collect();
            let _ = decode_message(NodeId::small(1), &noise);
            let _ = decode_hello(&noise);
            let _ = decode_proof(&noise);
        }
    }

    #[test]
    fn a_message_too_large_for_a_frame_is_refused_before_it_leaves() {
        let member = |n: u64| crate::member::Member {
            id: NodeId::small(1),
            generation: Generation(n),
            incarnation: 0,
            state: crate::member::State::Alive,
            accuser: None,
            profile: crate::member::Profile {
                address: Some("y".repeat(256)),
                ..crate::member::Profile::new(
                    "x".repeat(64),
                    crate::member::Class::Server,
                    crate::member::Durability::Durable,
                    crate::id::Storage::default(),
                )
            },
        };
        let payload =
            Payload::Membership(membership::Msg::Delta { members: (0..4_000).map(member).map(Arc::new).collect() });
        assert_eq!(encode_message(&Envelope { payload, ..message() }), Err(DecodeError::TooLarge));
    }

    #[test]
    fn clusters_must_agree_unless_one_has_none() {
        let hello = |key: u8, cluster: Option<u8>| Hello {
            public_key: [key; 32],
            cluster: cluster.map(|c| ClusterId([c; 16])),
            nonce: [0; 32],
        };
        assert!(check_hello(&hello(1, Some(1)), &encode_hello(&hello(2, Some(1)))).is_ok());
        assert!(check_hello(&hello(1, Some(1)), &encode_hello(&hello(2, None))).is_ok());
        let error = check_hello(&hello(1, Some(1)), &encode_hello(&hello(2, Some(2)))).expect_err("two clusters");
        let (mine, theirs) = (ClusterId([1; 16]), ClusterId([2; 16]));
        assert_eq!(error, HandshakeError::WrongCluster { mine, theirs });
        let error = check_hello(&hello(1, None), &encode_hello(&hello(1, None))).expect_err("itself");
        assert_eq!(error.code(), "DUPLICATE_NODE_ID");
        let mut other_version = encode_hello(&hello(2, None));
        other_version[4] = VERSION + 1;
        let error = check_hello(&hello(1, None), &other_version).expect_err("another version");
        assert_eq!(error.code(), "VERSION_UNSUPPORTED");
    }

    #[test]
    fn a_proof_fits_one_side_of_one_connection() {
        let (a, b) = (vec![1, 2, 3], vec![4, 5]);
        assert_ne!(transcript(Side::Dialer, &a, &b), transcript(Side::Listener, &a, &b));
        assert_ne!(transcript(Side::Dialer, &[1, 2], &[3, 4, 5]), transcript(Side::Dialer, &a, &b));
    }

    #[test]
    fn every_message_of_topology_survives_the_wire() {
        let seat = topology::seat_of(&crate::member::Profile::new(
            "x".into(),
            crate::member::Class::Server,
            crate::member::Durability::Durable,
            crate::id::Storage([7; 16]),
        ));
        for msg in [topology::Msg::Ask, topology::Msg::Nothing { seat }] {
            let envelope = Envelope { payload: msg.into(), ..message() };
            let body = encode_message(&envelope).expect("small");
            assert_eq!(decode_message(envelope.from, &body), Ok(envelope));
        }
    }
}
