//! What a connection remembers between commands: the version of the protocol, the namespace, the client's name.
//!
//! **Transactions are refused as a whole.** Libraries send `MULTI`, commands and `EXEC` at one go. Were only `MULTI`
//! refused, the commands behind it would be carried out one by one, which is what nobody asked for; and since Redis
//! never refuses it, libraries come to grief over that (`redis` for Rust panics). So it begins a transaction in which
//! every command is refused with the reason, and which `EXEC` ends as one that was aborted, as libraries know it from
//! Redis.

use std::net::SocketAddr;

use qunlong_core::Bytes;

use super::Shared;
use super::command::Own;
use super::reply::{Protocol, Reply};

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Session {
    id: u64,
    peer: SocketAddr,
    protocol: Protocol,
    namespace: String,
    name: Bytes,
    /// Whether a transaction has begun, and not ended.
    refuses: bool,
}

impl Session {
    /// The state of a new connection.
    pub(super) fn new(id: u64, peer: SocketAddr) -> Self {
        let name = Bytes::default();
        Self { id, peer, protocol: Protocol::default(), namespace: BUILT_IN.to_owned(), name, refuses: false }
    }

    /// The version of the protocol that is spoken.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The namespace that keys are of.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether commands are refused, because a transaction has begun.
    pub(super) fn refuses(&self) -> bool {
        self.refuses
    }

    /// Carries out a command about the connection.
    pub(super) fn carry_out(&mut self, own: Own, shared: &Shared) -> Reply {
        match own {
            Own::Hello { protocol, name } => {
                self.protocol = protocol.unwrap_or(self.protocol);
                self.name = name.unwrap_or_else(|| self.name.clone());
                self.hello()
            }
            Own::Select(name) => self.select(&name),
            Own::Reset => {
                *self = Self::new(self.id, self.peer);
                Reply::Simple("RESET")
            }
            Own::Quit => Reply::OK,
            Own::Name(name) => {
                self.name = name;
                Reply::OK
            }
            Own::TellName if self.name.is_empty() => Reply::Null,
            Own::TellName => Reply::Bulk(self.name.clone()),
            Own::TellId => Reply::Integer(self.id.cast_signed()),
            Own::TellClient => Reply::text(&self.line()),
            Own::Info => Reply::text(&info(shared)),
            Own::Multi => self.begin_transaction(),
            Own::Exec => self.end_transaction("EXEC", Reply::error(ABORTED)),
            Own::Discard => self.end_transaction("DISCARD", Reply::OK),
        }
    }

    fn begin_transaction(&mut self) -> Reply {
        if self.refuses {
            return Reply::error("ERR MULTI calls can not be nested");
        }
        self.refuses = true;
        Reply::OK
    }

    fn end_transaction(&mut self, command: &str, answer: Reply) -> Reply {
        if !self.refuses {
            return Reply::Error(format!("ERR {command} without MULTI"));
        }
        self.refuses = false;
        answer
    }

    fn hello(&self) -> Reply {
        let pairs = [
            ("server", Reply::text("qunlong")),
            ("version", Reply::text(REDIS_VERSION)),
            ("proto", Reply::Integer(self.protocol.number())),
            ("id", Reply::Integer(self.id.cast_signed())),
            ("mode", Reply::text("standalone")),
            ("role", Reply::text("master")),
            ("modules", Reply::Array(Vec::new())),
        ];
        Reply::Map(pairs.into_iter().map(|(key, value)| (Reply::text(key), value)).collect())
    }

    /// Databases have names here, and 0 is the name of the one that every connection begins with. Whether there is one
    /// of this name, and of which mode, says the first command that needs it.
    fn select(&mut self, name: &[u8]) -> Reply {
        let Ok(name) = std::str::from_utf8(name) else { return bad_namespace() };
        let name = match name.parse::<i64>() {
            Ok(0) => BUILT_IN,
            Ok(_) => return Reply::error("ERR DB index is out of range; namespaces other than 0 have names"),
            Err(_) => name,
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAMESPACE_BYTES || !name.bytes().all(is_plain) {
            return bad_namespace();
        }
        name.clone_into(&mut self.namespace);
        Reply::OK
    }

    /// As `CLIENT INFO` tells it.
    fn line(&self) -> String {
        let (id, peer, name, db, resp) = (self.id, self.peer, &self.name, &self.namespace, self.protocol.number());
        format!("id={id} addr={peer} name={name} db={db} resp={resp}\n")
    }
}

/// What libraries and `redis-cli` look for.
fn info(shared: &Shared) -> String {
    format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nqunlong_version:{}\r\nprocess_id:{}\r\n\
         tcp_port:{}\r\nuptime_in_seconds:{}\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        shared.address.port(),
        shared.started.elapsed().as_secs(),
    )
}

fn bad_namespace() -> Reply {
    Reply::error("ERR invalid DB index, and no name of a namespace either")
}

/// What a transaction comes to.
const ABORTED: &str = "EXECABORT nothing was carried out, because transactions are not available in this namespace";
/// The namespace of linearizable registers that is there from the beginning, and that connections begin with.
const BUILT_IN: &str = qunlong_core::namespace::REGISTERS;
/// The version of Redis whose commands these are: libraries decide by it what they may send.
const REDIS_VERSION: &str = "7.0.0";
/// Bytes of a namespace's name.
const NAMESPACE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Session {
        Session::new(7, SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    #[test]
    fn namespaces_are_chosen_by_name() {
        let mut session = new();
        assert_eq!(session.select(b"orders"), Reply::OK);
        assert_eq!(session.namespace(), "orders");
        for wrong in ["1", "-1", "", "a b", "a/b"] {
            assert!(matches!(session.select(wrong.as_bytes()), Reply::Error(_)), "{wrong}");
        }
        assert_eq!(session.namespace(), "orders");
        assert_eq!(session.select(b"0"), Reply::OK);
        assert_eq!(session.namespace(), BUILT_IN);
    }

    #[test]
    fn a_transaction_is_refused_from_its_beginning_to_its_end() {
        let mut session = new();
        assert_eq!(session.end_transaction("EXEC", Reply::OK), Reply::error("ERR EXEC without MULTI"));
        assert_eq!(session.begin_transaction(), Reply::OK);
        assert!(session.refuses());
        assert!(matches!(session.begin_transaction(), Reply::Error(_)));
        assert_eq!(session.end_transaction("DISCARD", Reply::OK), Reply::OK);
        assert!(!session.refuses());
    }
}
