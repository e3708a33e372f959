//! A client of the HTTP interface, typed: what can be asked of keys, registers and namespaces.
//!
//! Every change has a name, the same in all its attempts, so that it is carried out once through however many servers it is
//! asked; see [`super::call`] for when it is asked again. A change of a register also says which version there was before
//! the first attempt. So that is read first, which costs one round trip and makes all that follows safe to repeat.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qunlong_core::{Name, WriteId};
use serde_json::{Value, json};
use ureq::http::Method;

use super::call::{Answer, Call, Error, Patience, Repeats, Servers, encoded};
use crate::Server;
use crate::failure::Failure;
use crate::identity;

/// Longer than any deadline of a node.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// How long a node is to wait for something to tell.
const WATCHING: Duration = Duration::from_secs(25);
/// How often all servers are asked before a command gives up.
const ROUNDS: u32 = 3;

/// A client of a cluster. It asks one thing at a time.
pub(crate) struct Client {
    servers: Servers,
    namespace: Option<String>,
    /// What its requests are named after.
    session: WriteId,
    /// Counts them.
    number: AtomicU64,
}

/// What a register holds.
#[derive(Debug)]
pub(crate) struct Register {
    /// `None` if it was never written or was deleted.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) version: u64,
}

/// What is to be done to a register.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// Sets the value, for a while or for good.
    Put { value: &'a [u8], ttl: Option<Duration> },
    /// Removes it.
    Delete,
    /// Adds to a number.
    Increment(i64),
    /// Adds at the end.
    Append(&'a [u8]),
}

/// On what a put or a delete depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    /// The register holds nothing.
    Absent,
    /// It is of this version.
    Version(u64),
}

/// What a change did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// The version that it made.
    pub(crate) version: u64,
    /// The sum, if it was an increment.
    pub(crate) number: Option<i64>,
}

/// What a register that is watched holds now.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) key: String,
    pub(crate) version: u64,
    /// `None` if it was deleted.
    pub(crate) value: Option<Vec<u8>>,
}

/// What was told to whoever watches.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) changes: Vec<Changed>,
    /// Where to go on.
    pub(crate) next: String,
    /// Whether this is the beginning of all there is.
    pub(crate) resync: bool,
}

/// A page of keys, as they are listed.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) keys: Vec<Value>,
    /// If set, there may be more behind this key.
    pub(crate) next: Option<String>,
}

impl Client {
    /// One for a person's command: it asks again until little can come of it.
    pub(crate) fn new(server: &Server) -> Result<Self, Failure> {
        Self::with(server, Patience { answer: PATIENCE, node: None, rounds: ROUNDS })
    }

    /// One for whoever has a clock of its own to follow: it asks each server once, for so long.
    pub(crate) fn hasty(server: &Server, patience: Duration) -> Result<Self, Failure> {
        Self::with(server, Patience { answer: patience, node: Some(patience * 4 / 5), rounds: 1 })
    }

    fn with(server: &Server, patience: Patience) -> Result<Self, Failure> {
        Ok(Self {
            servers: Servers::new(&server.server, server.cluster.clone(), patience),
            namespace: server.namespace.clone(),
            session: WriteId(identity::random()?),
            number: AtomicU64::new(0),
        })
    }

    /// The current values of a key; several if writes were concurrent.
    pub(crate) fn values(&self, key: &str) -> Result<Vec<Vec<u8>>, Error> {
        let answer = self.servers.send(&self.about("kv", key, Method::GET))?;
        Ok(answer.body["values"].as_array().into_iter().flatten().map(bytes_of).collect())
    }

    /// Supersedes what a key holds.
    pub(crate) fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let call = self.about("kv", key, Method::PUT).body(value);
        self.servers.send(&call.named(self.write_id(), Repeats::Named)).map(drop)
    }

    /// Deletes what a key holds.
    pub(crate) fn delete(&self, key: &str) -> Result<(), Error> {
        let call = self.about("kv", key, Method::DELETE);
        self.servers.send(&call.named(self.write_id(), Repeats::Named)).map(drop)
    }

    /// Some of the keys, or registers, that begin with a prefix, from behind one on.
    pub(crate) fn page(&self, what: &str, prefix: &str, after: Option<&str>) -> Result<Page, Error> {
        let call = Call::new(Method::GET, format!("/v1/{what}"), Repeats::Freely);
        let call = call.query("namespace", self.namespace.as_deref()).query("prefix", Some(prefix));
        let body = self.servers.send(&call.query("after", after))?.body;
        let keys = body["keys"].as_array().cloned().unwrap_or_default();
        Ok(Page { keys, next: body["next"].as_str().map(str::to_owned) })
    }

    /// What a register holds.
    pub(crate) fn register(&self, key: &str) -> Result<Register, Error> {
        match self.servers.send(&self.about("registers", key, Method::GET)) {
            Ok(Answer { version: Some(version), body }) => Ok(Register { value: Some(bytes_of(&body)), version }),
            Ok(Answer { version: None, .. }) => Err(no_version()),
            Err(Error::Answered { code, version: Some(version), .. }) if code == "KEY_NOT_FOUND" => {
                Ok(Register { value: None, version })
            }
            Err(error) => Err(error),
        }
    }

    /// Changes a register.
    pub(crate) fn change(&self, key: &str, change: Change<'_>, condition: Condition) -> Result<Done, Error> {
        let seen = self.register(key)?.version;
        let name = Name { session: self.session, number: self.next_number() };
        match self.change_as(name, seen, key, change, condition) {
            // In mode atomic a write is none that could be asked for twice, and has no name.
            Err(error) if error.code() == "WRONG_MODE" => {
                changed(&self.servers.send(&self.change_of(key, change, condition))?)
            }
            done => done,
        }
    }

    /// Changes a register, as a request of this name, whose client has seen this version before it first asked.
    pub(crate) fn change_as(
        &self,
        name: Name,
        seen: u64,
        key: &str,
        change: Change<'_>,
        condition: Condition,
    ) -> Result<Done, Error> {
        let repeats = match condition {
            Condition::Version(version) => Repeats::AtVersion(version),
            Condition::Always | Condition::Absent => Repeats::Named,
        };
        let call = self.change_of(key, change, condition).header("qunlong-seen", Some(seen));
        changed(&self.servers.send(&call.named(name, repeats))?)
    }

    /// What has changed of a register, or of all that begin so, behind a token: as soon as anything has.
    pub(crate) fn watch(&self, key: &str, is_prefix: bool, after: Option<&str>) -> Result<News, Error> {
        let call = Call::new(Method::GET, "/v1/watch".to_owned(), Repeats::Freely);
        let call = call.query("namespace", self.namespace.as_deref()).query("timeout", Some(WATCHING.as_millis()));
        let call = call.query(if is_prefix { "prefix" } else { "key" }, Some(key)).query("after", after);
        let body = self.servers.send(&call)?.body;
        let changed = |change: &Value| Changed {
            key: change["key"].as_str().unwrap_or_default().to_owned(),
            version: change["version"].as_u64().unwrap_or_default(),
            value: (change["deleted"] != true).then(|| bytes_of(change)),
        };
        Ok(News {
            changes: body["changes"].as_array().into_iter().flatten().map(changed).collect(),
            next: body["next"].as_str().unwrap_or_default().to_owned(),
            resync: body["resync"] == true,
        })
    }

    /// All namespaces.
    pub(crate) fn namespaces(&self) -> Result<Vec<Value>, Error> {
        Ok(self.fetch("namespaces")?["namespaces"].as_array().cloned().unwrap_or_default())
    }

    /// Creates a namespace, or finds that it is there.
    pub(crate) fn create_namespace(&self, name: &str, mode: &str, replicas: u8) -> Result<(), Error> {
        let body = json!({ "mode": mode, "replicas": replicas }).to_string();
        let path = format!("/v1/namespaces/{}", encoded(name));
        self.servers.send(&Call::new(Method::PUT, path, Repeats::Freely).body(body.as_bytes())).map(drop)
    }

    /// What a node says of itself or of the cluster: `members`, `topology`, `status`.
    pub(crate) fn fetch(&self, what: &str) -> Result<Value, Error> {
        let call = Call::new(Method::GET, format!("/v1/{what}"), Repeats::Freely);
        self.servers.send(&call).map(|answer| answer.body)
    }

    /// Asks for something that has no name, so that it is asked for once.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let body = body.to_string();
        let call = Call::new(Method::POST, format!("/v1/{path}"), Repeats::Never).body(body.as_bytes());
        self.servers.send(&call).map(|answer| answer.body)
    }

    /// A request about a key of the namespace. If it changes anything, it has to be named before it may be repeated.
    fn about(&self, what: &str, key: &str, method: Method) -> Call<'static> {
        let repeats = if method == Method::GET { Repeats::Freely } else { Repeats::Never };
        let call = Call::new(method, format!("/v1/{what}/{}", encoded(key)), repeats);
        call.query("namespace", self.namespace.as_deref())
    }

    fn change_of<'a>(&self, key: &str, change: Change<'a>, condition: Condition) -> Call<'a> {
        let about = |method| self.about("registers", key, method);
        let call: Call<'a> = match change {
            Change::Put { value, ttl } => {
                let ttl = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
                about(Method::PUT).body(value).query("ttl", ttl)
            }
            Change::Delete => about(Method::DELETE),
            Change::Increment(by) => about(Method::POST).body(&[]).query("increment", Some(by)),
            Change::Append(suffix) => about(Method::POST).body(suffix).query("append", Some("")),
        };
        match condition {
            Condition::Always => call,
            Condition::Absent => call.header("if-none-match", Some("*")),
            Condition::Version(version) => call.header("if-match", Some(format!("\"{version}\""))),
        }
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The name of a write of a key, which has no session.
    fn write_id(&self) -> WriteId {
        let WriteId(mut id) = self.session;
        for (byte, counted) in id.iter_mut().rev().zip(self.next_number().to_le_bytes()) {
            *byte ^= counted;
        }
        WriteId(id)
    }
}

fn changed(answer: &Answer) -> Result<Done, Error> {
    let version = answer.version.ok_or_else(no_version)?;
    Ok(Done { version, number: answer.body["number"].as_i64() })
}

fn no_version() -> Error {
    Error::Unexpected("the answer says no version; is it a node of this version?".to_owned())
}

/// A value in an answer.
fn bytes_of(value: &Value) -> Vec<u8> {
    STANDARD.decode(value["base64"].as_str().unwrap_or_default()).unwrap_or_default()
}
