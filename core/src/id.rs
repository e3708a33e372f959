//! Names of things: nodes, boots, clusters, epochs, requests.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// A node's lasting name: the first 16 bytes of the SHA-256 of its Ed25519 public key.
///
/// Whoever can sign with the key owns the name, so a link handshake proves it and nobody hands out names.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The id that belongs to an Ed25519 public key.
    #[must_use]
    pub fn of_public_key(key: &[u8; 32]) -> Self {
        let digest = Sha256::digest(key);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// A small id for simulations and tests, shown as `n1`, `n2`, ….
    #[must_use]
    pub const fn small(n: u8) -> Self {
        let mut id = [0; 16];
        id[15] = n;
        Self(id)
    }

    /// Reads the 32 hexadecimal digits that [`fmt::LowerHex`] writes.
    #[must_use]
    pub fn parse_hex(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

/// Short and good enough to tell nodes apart by eye: eight digits, or `n7` for a [`NodeId::small`].
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0[..15].iter().all(|&byte| byte == 0) {
            return write!(f, "n{}", self.0[15]);
        }
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All 32 digits.
impl fmt::LowerHex for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Counts a node's boots from 1. Durable before the boot's first message, so that two boots never share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// Minted at random by the node that bootstraps; every later member and client can pin it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Reads the 32 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse_hex(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Minted at random with a node's storage, and lost with it. A node without the storage that a promise was made on has
/// not made that promise.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Storage(pub [u8; 16]);

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Numbers the cluster's chosen configurations from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Counts the collections of deletes in one partition of the keys, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Round(pub u64);

impl Round {
    /// The round after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What a host calls a request it has handed to its own node, to match the reply. Unique within one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Names one write across all its retries, whichever node they go through.
///
/// Chosen by the client, or by the node it asked when the client chose none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub [u8; 16]);

impl WriteId {
    /// Reads the 32 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse_hex(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one request to a register across all its attempts, whichever node they go through: which of a session's.
///
/// A session has one request at a time under way: whoever asks for the next one has stopped to ask for those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The session, chosen by the client or by the node that it asked.
    pub session: WriteId,
    /// Counts its requests, upwards; gaps do no harm.
    pub number: u64,
}

impl Name {
    /// The only request of a session.
    #[must_use]
    pub const fn single(session: WriteId) -> Self {
        Self { session, number: 0 }
    }

    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('.') {
            None => WriteId::parse_hex(text).map(Self::single),
            Some((session, number)) => {
                let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                let number = is_number.then(|| number.parse().ok()).flatten()?;
                Some(Self { session: WriteId::parse_hex(session)?, number })
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{}", self.session),
            number => write!(f, "{}.{number}", self.session),
        }
    }
}

/// Names one operation inside the cluster, so that replies find the coordinator that waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// The coordinator.
    pub node: NodeId,
    /// Its boot: a reply to an earlier boot's operation matches nothing.
    pub generation: Generation,
    /// Counts the boot's operations.
    pub seq: u64,
}

/// Sixteen bytes on the wire, hexadecimal digits where people read along.
macro_rules! serialize_as_bytes_or_digits {
    ($($id:ident),*) => { $(
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(&digits(&self.0))
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    parse_hex(&text).map($id).ok_or_else(|| de::Error::custom("expected 32 hexadecimal digits"))
                } else {
                    <[u8; 16]>::deserialize(deserializer).map($id)
                }
            }
        }
    )* };
}

serialize_as_bytes_or_digits!(NodeId, ClusterId, Storage, WriteId);

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// The full hexadecimal form, as an owned string.
#[must_use]
pub fn hex(id: NodeId) -> String {
    alloc::format!("{id:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_digits() {
        let id = NodeId::of_public_key(&[7; 32]);
        assert_eq!(NodeId::parse_hex(&hex(id)), Some(id));
        assert_eq!(NodeId::parse_hex("+f"), None);
        assert_eq!(NodeId::parse_hex(&"é".repeat(16)), None);
    }

    #[test]
    fn signs_are_not_digits() {
        assert_eq!(NodeId::parse_hex(&"+1".repeat(16)), None);
    }
}
