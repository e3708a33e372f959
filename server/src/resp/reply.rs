//! What clients are told, and how it looks on the wire.
//!
//! A connection speaks RESP2 until it says `HELLO 3`. The two differ little here: nothing is `$-1` in the one and `_`
//! in the other, and a map is a flat list of keys and values in the one and a map in the other.
//!
//! Written out here rather than by a crate: it is the smaller half of what [`super::request`] had to be written for,
//! and it encodes straight into the buffer that is sent.

use std::io::Write;

use qunlong_core::{Bytes, Refusal};

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    /// What every client speaks first.
    #[default]
    Two,
    /// After `HELLO 3`.
    Three,
}

impl Protocol {
    /// As clients write it.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A word that is one line.
    Simple(&'static str),
    /// What went wrong: a code, a space and a sentence.
    Error(String),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// There is nothing.
    Null,
    /// A list.
    Array(Vec<Self>),
    /// Keys and values.
    Map(Vec<(Self, Self)>),
}

impl Reply {
    /// It was done.
    pub(super) const OK: Self = Self::Simple("OK");

    /// An error: its code, a space and a sentence.
    pub(super) fn error(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }

    /// Text of any length.
    pub(super) fn text(text: &str) -> Self {
        Self::Bulk(Bytes::from(text))
    }

    /// A value, or that there is none.
    pub(super) fn of(value: Option<Bytes>) -> Self {
        value.map_or(Self::Null, Self::Bulk)
    }

    /// How many.
    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// 1 for yes and 0 for no.
    pub(super) fn flag(holds: bool) -> Self {
        Self::Integer(i64::from(holds))
    }

    /// Why the cluster did not do it: the stable code and the sentence that belongs to it. Two are told in the words
    /// that clients of Redis look for.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        if matches!(refusal, Refusal::NotANumber) {
            return Self::error(NOT_AN_INTEGER);
        }
        let code = match refusal.code() {
            "WRONG_MODE" => "WRONGMODE",
            code => code,
        };
        Self::Error(format!("{code} {refusal}"))
    }

    /// The node answered another question, which is a mistake of its own.
    pub(super) fn mixed_up() -> Self {
        Self::error("INTERNAL the node answered another question; please report this")
    }

    /// Appends it as it is sent.
    pub(super) fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        match (self, protocol) {
            (Self::Simple(text), _) => line(b'+', text, out),
            (Self::Error(text), _) => line(b'-', text, out),
            (Self::Integer(number), _) => head(b':', number, out),
            (Self::Bulk(bytes), _) => {
                head(b'$', bytes.len(), out);
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            (Self::Null, Protocol::Two) => out.extend_from_slice(b"$-1\r\n"),
            (Self::Null, Protocol::Three) => out.extend_from_slice(b"_\r\n"),
            (Self::Array(items), _) => {
                head(b'*', items.len(), out);
                items.iter().for_each(|item| item.encode(protocol, out));
            }
            (Self::Map(pairs), _) => {
                match protocol {
                    Protocol::Two => head(b'*', 2 * pairs.len(), out),
                    Protocol::Three => head(b'%', pairs.len(), out),
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }
}

/// What Redis says of a number that is none.
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// A line of text. Nothing that a client sent and that is told back may end it early, or begin another answer.
fn line(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

fn head(kind: u8, number: impl std::fmt::Display, out: &mut Vec<u8>) {
    out.push(kind);
    // A vector takes whatever is written to it.
    let _ = write!(out, "{number}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> String {
        let mut out = Vec::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn answers_look_as_the_protocol_wants_them() {
        let value = Bytes::from("a\r\nb");
        let both = [
            (Reply::OK, "+OK\r\n"),
            (Reply::error("ERR no"), "-ERR no\r\n"),
            (Reply::Integer(-7), ":-7\r\n"),
            (Reply::Bulk(value), "$4\r\na\r\nb\r\n"),
            (Reply::text(""), "$0\r\n\r\n"),
            (Reply::Array(vec![Reply::Integer(1), Reply::text("x")]), "*2\r\n:1\r\n$1\r\nx\r\n"),
            (Reply::Array(Vec::new()), "*0\r\n"),
        ];
        for (reply, wire) in both {
            assert_eq!(encoded(&reply, Protocol::Two), wire);
            assert_eq!(encoded(&reply, Protocol::Three), wire);
        }
        assert_eq!(encoded(&Reply::Null, Protocol::Two), "$-1\r\n");
        assert_eq!(encoded(&Reply::Null, Protocol::Three), "_\r\n");
        let map = Reply::Map(vec![(Reply::text("k"), Reply::Null)]);
        assert_eq!(encoded(&map, Protocol::Two), "*2\r\n$1\r\nk\r\n$-1\r\n");
        assert_eq!(encoded(&map, Protocol::Three), "%1\r\n$1\r\nk\r\n_\r\n");
    }

    #[test]
    fn what_a_client_sent_cannot_forge_an_answer() {
        let reply = Reply::error("ERR unknown command 'x\r\n+OK'");
        assert_eq!(encoded(&reply, Protocol::Two), "-ERR unknown command 'x  +OK'\r\n");
    }

    #[test]
    fn a_refusal_begins_with_its_code() {
        let refused = |refusal: &Refusal| match Reply::refused(refusal) {
            Reply::Error(text) => text.split(' ').next().unwrap_or_default().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&Refusal::NoQuorum { answered: 1, needed: 2 }), "NO_QUORUM");
        assert_eq!(refused(&Refusal::TimeoutUnknown { acked: 1, needed: 2 }), "TIMEOUT_UNKNOWN");
        assert_eq!(refused(&Refusal::Overloaded), "OVERLOADED");
        assert_eq!(Reply::refused(&Refusal::NotANumber), Reply::error(NOT_AN_INTEGER));
    }
}
