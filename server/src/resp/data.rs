//! Carries out commands on the registers of a namespace.
//!
//! What a register can do by itself is one change, and as atomic as that: `SET` with its conditions, `INCR`, `DEL`,
//! `EXPIRE`. What has to know the value before, as `GETDEL` or `APPEND`, reads it, decides, and makes its change on the
//! condition that the version is still the one that was read; if it is not, it begins anew. So those are atomic, too,
//! and cost two round trips.
//!
//! Only a change that was certainly not made is tried again. One that may have been made is an error with the code
//! `TIMEOUT_UNKNOWN`, so that nothing is counted twice.

use std::collections::BTreeMap;

use futures::future::join_all;
use qunlong_core::cell::{Change, When};
use qunlong_core::key::place_of;
use qunlong_core::namespace::key_in;
use qunlong_core::registers::{Op as RegisterOp, Outcome as RegisterOutcome};
use qunlong_core::{Bytes, Op, Outcome, Refusal};

use super::command::{Act, Answer, Set, Total};
use super::now;
use super::options::Only;
use super::reply::Reply;
use super::verdict::{Held, Verdict, append, exchange, expire, put, remove_deadline, set_deadline, tell};
use crate::driver::Commands;

/// The registers of one namespace.
pub(super) struct Registers {
    commands: Commands,
    namespace: String,
}

/// Something that is to be answered in its turn.
#[derive(Debug)]
pub(super) enum Task {
    /// With this.
    Said(Reply),
    /// With what comes of this.
    Act { key: Bytes, act: Act },
}

/// A page of the keys.
pub(super) struct Page {
    /// As clients know them, without their namespace.
    pub(super) keys: Vec<Bytes>,
    /// Where the next page begins.
    pub(super) next: Option<Bytes>,
}

/// What came of a change.
enum Made {
    /// It was made; with the sum, if it was an increment.
    Yes(Option<i64>),
    /// What it depends on does not hold.
    No,
}

impl Registers {
    pub(super) fn new(commands: Commands, namespace: &str) -> Self {
        Self { commands, namespace: namespace.to_owned() }
    }

    /// Answers tasks in their order. Those of one key are carried out one after the other, the others at the same time.
    pub(super) async fn carry_out(&self, tasks: Vec<Task>) -> Vec<Reply> {
        let mut replies = vec![Reply::Null; tasks.len()];
        let mut by_key: BTreeMap<Bytes, Vec<(usize, Act)>> = BTreeMap::new();
        for (at, task) in tasks.into_iter().enumerate() {
            match task {
                Task::Said(reply) => replies[at] = reply,
                Task::Act { key, act } => by_key.entry(key).or_default().push((at, act)),
            }
        }
        let lanes: Vec<_> = by_key.into_iter().map(|(key, acts)| self.one_by_one(key, acts)).collect();
        for (at, reply) in join_all(lanes).await.into_iter().flatten() {
            replies[at] = reply;
        }
        replies
    }

    async fn one_by_one(&self, key: Bytes, acts: Vec<(usize, Act)>) -> Vec<(usize, Reply)> {
        let mut replies = Vec::with_capacity(acts.len());
        for (at, act) in acts {
            match self.act(&key, act).await {
                Ok(reply) | Err(reply) => replies.push((at, reply)),
            }
        }
        replies
    }

    /// Carries out what a command does to several keys, `limit` at a time, and gives one answer. There is none for all
    /// of them together: if one key fails others may have been changed, and the answer says how many.
    pub(super) async fn carry_out_all(&self, acts: Vec<(Bytes, Act)>, answer: Total, limit: usize) -> Reply {
        let count = acts.len();
        let (mut replies, mut bytes, mut acts) = (Vec::with_capacity(count), 0, acts.into_iter());
        while replies.len() < count {
            let tasks: Vec<Task> = acts.by_ref().take(limit).map(|(key, act)| Task::Act { key, act }).collect();
            let some = self.carry_out(tasks).await;
            bytes += some.iter().map(weight).sum::<usize>();
            replies.extend(some);
            if bytes > REPLY_BYTES {
                return Reply::Error(format!("TOO_LARGE the values are larger than the limit of {REPLY_BYTES} bytes"));
            }
        }
        let failed = |reply: &&Reply| matches!(reply, Reply::Error(_));
        if let Some(Reply::Error(first)) = replies.iter().find(failed) {
            let done = count - replies.iter().filter(failed).count();
            return Reply::Error(format!("{first} ({done} of {count} keys were done)"));
        }
        match answer {
            Total::Status => Reply::OK,
            Total::List => Reply::Array(replies),
            Total::Sum => Reply::Integer(replies.iter().map(number).sum()),
        }
    }

    /// A page of at most `limit` keys that begin with `prefix`, behind the key where the page before said so.
    pub(super) async fn list(&self, prefix: &[u8], after: Option<Bytes>, limit: u32) -> Result<Page, Reply> {
        let prefix = key_in(&self.namespace, prefix);
        let op = RegisterOp::List { after, prefix, limit, within: None };
        match self.commands.request(Op::Registers(op)).await {
            Ok(Outcome::Registers(RegisterOutcome::Listed { keys, next })) => {
                let own = keys.iter().filter_map(|key| place_of(key)).map(|place| Bytes::from(place.key));
                Ok(Page { keys: own.collect(), next })
            }
            Ok(_) => Err(Reply::mixed_up()),
            Err(refusal) => Err(Reply::refused(&refusal)),
        }
    }

    /// What is said of a key. An error is an answer as well; it is told apart only to end early.
    async fn act(&self, key: &Bytes, act: Act) -> Result<Reply, Reply> {
        Ok(match act {
            Act::Get => Reply::of(self.read(key).await?.value),
            Act::Length => Reply::count(self.read(key).await?.value.map_or(0, |value| value.len())),
            Act::Exists => Reply::flag(self.read(key).await?.value.is_some()),
            Act::Type => Reply::Simple(if self.read(key).await?.value.is_some() { "string" } else { "none" }),
            Act::Deadline(unit) => {
                let held = self.read(key).await?;
                Reply::Integer(match (held.value, held.expires) {
                    (None, _) => -2,
                    (Some(_), None) => -1,
                    (Some(_), Some(deadline)) => unit.number(deadline, now()),
                })
            }
            Act::Increment(by) => match self.change(key, Change::Increment { by }).await? {
                Made::Yes(Some(sum)) => Reply::Integer(sum),
                Made::Yes(None) | Made::No => Reply::mixed_up(),
            },
            Act::Delete => self.change_if(key, Change::Delete { when: When::Exists }).await?,
            Act::Set(set) => self.set(key, set).await?,
            Act::Append(suffix) => self.decide(key, |held| append(&held, &suffix)).await?,
            Act::GetDelete => self.decide(key, |held| tell(held, |when| Change::Delete { when })).await?,
            Act::GetExpire(at) => self.decide(key, |held| tell(held, |when| expire(at, when))).await?,
            Act::Expire { at, only: Only::Always } => self.change_if(key, expire(Some(at), When::Exists)).await?,
            Act::Expire { at, only } => self.decide(key, |held| set_deadline(&held, at, only)).await?,
            Act::Persist => self.decide(key, |held| remove_deadline(&held)).await?,
        })
    }

    async fn set(&self, key: &Bytes, set: Set) -> Result<Reply, Reply> {
        match set.answer {
            Answer::Flag => self.change_if(key, put(set)).await,
            Answer::Status => match self.change(key, put(set)).await? {
                Made::Yes(_) => Ok(Reply::OK),
                Made::No => Ok(Reply::Null),
            },
            Answer::Before => self.decide(key, |held| exchange(held, set.clone())).await,
        }
    }

    async fn read(&self, key: &Bytes) -> Result<Held, Reply> {
        let op = RegisterOp::Get { key: key_in(&self.namespace, key), within: None };
        match self.commands.request(Op::Registers(op)).await {
            Ok(Outcome::Registers(RegisterOutcome::Read { value, version, expires })) => {
                Ok(Held { value, version, expires })
            }
            Ok(_) => Err(Reply::mixed_up()),
            Err(refusal) => Err(Reply::refused(&refusal)),
        }
    }

    async fn change(&self, key: &Bytes, change: Change) -> Result<Made, Reply> {
        let key = key_in(&self.namespace, key);
        let op = RegisterOp::Change { key, change, name: None, seen: 0, within: None };
        match self.commands.request(Op::Registers(op)).await {
            Ok(Outcome::Registers(RegisterOutcome::Changed { number, .. })) => Ok(Made::Yes(number)),
            Err(Refusal::Conflict { .. }) => Ok(Made::No),
            Ok(_) => Err(Reply::mixed_up()),
            Err(refusal) => Err(Reply::refused(&refusal)),
        }
    }

    /// Makes a change: 1 if it was made, 0 if what it depends on does not hold.
    async fn change_if(&self, key: &Bytes, change: Change) -> Result<Reply, Reply> {
        Ok(Reply::flag(matches!(self.change(key, change).await?, Made::Yes(_))))
    }

    /// Reads a register and makes the change that follows from what it holds, if it holds that still.
    async fn decide(&self, key: &Bytes, verdict: impl Fn(Held) -> Verdict) -> Result<Reply, Reply> {
        for _ in 0..ATTEMPTS {
            match verdict(self.read(key).await?) {
                Verdict::Leave(reply) => return Ok(reply),
                Verdict::Make(change, reply) => {
                    if let Made::Yes(_) = self.change(key, change).await? {
                        return Ok(reply);
                    }
                }
            }
        }
        Err(Reply::error("CONFLICT others changed the key each time before it could be changed; try again"))
    }
}

fn weight(reply: &Reply) -> usize {
    if let Reply::Bulk(value) = reply { value.len() } else { 0 }
}

fn number(reply: &Reply) -> i64 {
    if let Reply::Integer(number) = reply { *number } else { 0 }
}

/// How often a command that must know the value before it changes it begins anew. Beyond: `CONFLICT`.
const ATTEMPTS: usize = 128;
/// Bytes of values in one answer. Beyond: `TOO_LARGE`.
const REPLY_BYTES: usize = 4 << 20;
