//! From the arguments of a command to what is to be done. Nothing here asks anybody, and the time is an argument.
//!
//! Each command is one line of a `match` over its name and its arguments: what fits no line has the wrong number of
//! them. What a command of several keys does to each of them is what a command of one key does, so there is one list of
//! [`Act`]s.

use std::borrow::Cow;

use qunlong_core::cell::{Expiry, When};
use qunlong_core::{Bytes, WallTime};

use super::about;
use super::options::{self, Only, Unit};
use super::reply::{NOT_AN_INTEGER, Protocol, Reply};

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// Nothing that anybody has to be asked for.
    Said(Reply),
    /// Something of one key.
    Act { key: Bytes, act: Act },
    /// What is carried out alone: after all that came before it, and before all that comes after it.
    Alone(Alone),
}

/// What is done to one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Get,
    /// Tell the value and remove it.
    GetDelete,
    /// Tell the value and give it another deadline, or none.
    GetExpire(Option<WallTime>),
    Length,
    Type,
    Exists,
    Set(Set),
    Append(Bytes),
    Increment(i64),
    Delete,
    Expire {
        at: WallTime,
        only: Only,
    },
    /// Remove the deadline.
    Persist,
    /// Tell the deadline.
    Deadline(Unit),
}

/// How a value is set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Set {
    pub(super) value: Bytes,
    pub(super) when: When,
    pub(super) expiry: Expiry,
    pub(super) answer: Answer,
}

/// What a client is told that has set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `OK`, or nothing if the condition did not hold.
    Status,
    /// 1, or 0 if the condition did not hold.
    Flag,
    /// The value that was there before, whether the condition held or not.
    Before,
}

/// What is carried out alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Alone {
    /// Something of several keys, each for itself.
    Acts { acts: Vec<(Bytes, Act)>, answer: Total },
    /// A page of the keys.
    Scan(Scan),
    /// All keys that fit a pattern.
    Keys(Bytes),
    /// Something of the connection.
    Own(Own),
}

/// What several acts are told as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Total {
    Sum,
    List,
    Status,
}

/// A page of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) cursor: u64,
    pub(super) pattern: Option<Bytes>,
    /// How many keys are looked at.
    pub(super) count: u32,
    /// Whether keys of the type that is asked for can be there at all.
    pub(super) type_exists: bool,
}

/// What is of one connection only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Hello { protocol: Option<Protocol>, name: Option<Bytes> },
    Select(Bytes),
    Reset,
    Quit,
    Name(Bytes),
    TellName,
    TellId,
    TellClient,
    Info,
    Multi,
    Exec,
    Discard,
}

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    ///
    /// What its client is told if it is none, or one that is not carried out here.
    pub(super) fn read(arguments: &[Bytes], now: WallTime) -> Result<Self, Reply> {
        let Some((first, arguments)) = arguments.split_first() else { return Err(unknown("")) };
        let name = word(first);
        if let Some((key, act)) = of_one_key(&name, arguments, now)? {
            return Ok(Self::Act { key: key.clone(), act });
        }
        if let Some(alone) = of_many_keys(&name, arguments)? {
            return Ok(Self::Alone(alone));
        }
        if let Some(reply) = about::said(&name, arguments)? {
            return Ok(Self::Said(reply));
        }
        match of_connection(&name, arguments)? {
            Some(own) => Ok(Self::Alone(Alone::Own(own))),
            None if about::is_known(&name) => Err(wrong_number(&name)),
            None => Err(unknown(&text(first))),
        }
    }
}

impl Set {
    /// Sets the value, whatever was there.
    pub(super) fn plain(value: &Bytes) -> Self {
        Self { value: value.clone(), when: When::Always, expiry: Expiry::Never, answer: Answer::Status }
    }
}

fn of_one_key<'a>(name: &str, arguments: &'a [Bytes], now: WallTime) -> Result<Option<(&'a Bytes, Act)>, Reply> {
    let of = |text: &Bytes, unit: Unit| unit.lifetime(integer(text)?, now, name).map(Expiry::At);
    let expire = |text: &Bytes, unit: Unit, more: &[Bytes]| {
        let at = unit.moment(integer(text)?, now).ok_or_else(|| options::bad_expiry(name))?;
        Ok::<_, Reply>(Act::Expire { at, only: options::only(more)? })
    };
    let (key, act) = match (name, arguments) {
        ("get", [key]) => (key, Act::Get),
        ("getdel", [key]) => (key, Act::GetDelete),
        ("getex", [key, more @ ..]) => (key, options::get_expire(more, now)?),
        ("strlen", [key]) => (key, Act::Length),
        ("type", [key]) => (key, Act::Type),
        ("exists", [key]) => (key, Act::Exists),
        ("set", [key, value, more @ ..]) => (key, Act::Set(options::set(value, more, now)?)),
        ("setnx", [key, value]) => {
            (key, Act::Set(Set { when: When::Holds(None), answer: Answer::Flag, ..Set::plain(value) }))
        }
        ("getset", [key, value]) => (key, Act::Set(Set { answer: Answer::Before, ..Set::plain(value) })),
        ("setex", [key, number, value]) => {
            (key, Act::Set(Set { expiry: of(number, Unit::SecondsFromNow)?, ..Set::plain(value) }))
        }
        ("psetex", [key, number, value]) => {
            (key, Act::Set(Set { expiry: of(number, Unit::MillisFromNow)?, ..Set::plain(value) }))
        }
        ("append", [key, suffix]) => (key, Act::Append(suffix.clone())),
        ("incr", [key]) => (key, Act::Increment(1)),
        ("decr", [key]) => (key, Act::Increment(-1)),
        ("incrby", [key, by]) => (key, Act::Increment(integer(by)?)),
        ("decrby", [key, by]) => {
            let by = integer(by)?.checked_neg().ok_or_else(|| Reply::error("ERR decrement would overflow"))?;
            (key, Act::Increment(by))
        }
        ("del" | "unlink", [key]) => (key, Act::Delete),
        ("expire", [key, number, more @ ..]) => (key, expire(number, Unit::SecondsFromNow, more)?),
        ("pexpire", [key, number, more @ ..]) => (key, expire(number, Unit::MillisFromNow, more)?),
        ("expireat", [key, number, more @ ..]) => (key, expire(number, Unit::Seconds, more)?),
        ("pexpireat", [key, number, more @ ..]) => (key, expire(number, Unit::Millis, more)?),
        ("persist", [key]) => (key, Act::Persist),
        ("ttl", [key]) => (key, Act::Deadline(Unit::SecondsFromNow)),
        ("pttl", [key]) => (key, Act::Deadline(Unit::MillisFromNow)),
        ("expiretime", [key]) => (key, Act::Deadline(Unit::Seconds)),
        ("pexpiretime", [key]) => (key, Act::Deadline(Unit::Millis)),
        _ => return Ok(None),
    };
    Ok(Some((key, act)))
}

fn of_many_keys(name: &str, arguments: &[Bytes]) -> Result<Option<Alone>, Reply> {
    let all = |act: Act| -> Vec<(Bytes, Act)> { arguments.iter().map(|key| (key.clone(), act.clone())).collect() };
    Ok(Some(match (name, arguments) {
        ("del" | "unlink", [_, _, ..]) => Alone::Acts { acts: all(Act::Delete), answer: Total::Sum },
        ("exists", [_, _, ..]) => Alone::Acts { acts: all(Act::Exists), answer: Total::Sum },
        ("mget", [_, ..]) => Alone::Acts { acts: all(Act::Get), answer: Total::List },
        ("mset", [_, _, ..]) if arguments.len().is_multiple_of(2) => {
            let pairs = arguments.chunks_exact(2);
            let acts = pairs.map(|pair| (pair[0].clone(), Act::Set(Set::plain(&pair[1])))).collect();
            Alone::Acts { acts, answer: Total::Status }
        }
        ("scan", [cursor, more @ ..]) => Alone::Scan(options::scan(cursor, more)?),
        ("keys", [pattern]) => Alone::Keys(options::pattern(pattern)?),
        _ => return Ok(None),
    }))
}

fn of_connection(name: &str, arguments: &[Bytes]) -> Result<Option<Own>, Reply> {
    Ok(Some(match (name, arguments) {
        ("hello", more) => options::hello(more)?,
        ("select", [name]) => Own::Select(name.clone()),
        ("reset", []) => Own::Reset,
        ("quit", _) => Own::Quit,
        ("client", [what, more @ ..]) => return of_client(&word(what), more),
        ("info", _) => Own::Info,
        ("multi", []) => Own::Multi,
        ("exec", []) => Own::Exec,
        ("discard", []) => Own::Discard,
        _ => return Ok(None),
    }))
}

fn of_client(what: &str, arguments: &[Bytes]) -> Result<Option<Own>, Reply> {
    Ok(Some(match (what, arguments) {
        ("setname", [name]) => Own::Name(options::client_name(name)?),
        ("getname", []) => Own::TellName,
        ("id", []) => Own::TellId,
        ("info", []) => Own::TellClient,
        _ => return Err(unknown_part("CLIENT", what)),
    }))
}

/// A word that is the same in capitals and in small letters.
pub(super) fn word(bytes: &Bytes) -> String {
    text(bytes).to_ascii_lowercase()
}

/// A word that may be told back.
fn text(bytes: &Bytes) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(WORD_BYTES)])
}

/// A whole number of 64 bits.
pub(super) fn integer(text: &Bytes) -> Result<i64, Reply> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Reply::error(NOT_AN_INTEGER))
}

pub(super) fn no_password() -> Reply {
    Reply::error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?",
    )
}

pub(super) fn no_transactions() -> Reply {
    Reply::error("ERR transactions are not available in this namespace; use SET with a condition")
}

fn wrong_number(name: &str) -> Reply {
    Reply::Error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn unknown(name: &str) -> Reply {
    Reply::Error(format!("ERR unknown command '{name}'"))
}

/// A command that has parts, and not this one.
pub(super) fn unknown_part(name: &str, part: &str) -> Reply {
    Reply::Error(format!("ERR unknown subcommand or wrong number of arguments for '{part}' of {name}"))
}

/// Bytes of a word. More are not looked at, and not told back.
const WORD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_000_000_000);

    fn read(line: &str) -> Result<Command, Reply> {
        let arguments: Vec<Bytes> = line.split(' ').map(Bytes::from).collect();
        Command::read(&arguments, NOW)
    }

    fn act(line: &str) -> Act {
        match read(line) {
            Ok(Command::Act { act, .. }) => act,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_counted_as_redis_counts() {
        assert_eq!(act("gEt k"), Act::Get);
        assert_eq!(read("get"), Err(Reply::error("ERR wrong number of arguments for 'get' command")));
        assert_eq!(read("MSET a 1 b"), Err(Reply::error("ERR wrong number of arguments for 'mset' command")));
        assert_eq!(read("lpush k v"), Err(Reply::error("ERR unknown command 'lpush'")));
        assert_eq!(read("LPUSH k v"), Err(Reply::error("ERR unknown command 'LPUSH'")));
        assert_eq!(act("decrby k 5"), Act::Increment(-5));
        assert!(read("decrby k -9223372036854775808").is_err());
        assert_eq!(read("incrby k 1.5"), Err(Reply::error(NOT_AN_INTEGER)));
    }

    #[test]
    fn a_command_of_several_keys_does_to_each_what_one_of_one_key_does() {
        let Ok(Command::Alone(Alone::Acts { acts, answer })) = read("DEL a b") else { panic!("two keys") };
        assert_eq!((acts[1].clone(), answer), ((Bytes::from("b"), act("DEL b")), Total::Sum));
        let Ok(Command::Alone(Alone::Acts { acts, answer })) = read("MSET a 1 b 2") else { panic!("two keys") };
        assert_eq!((acts[1].clone(), answer), ((Bytes::from("b"), act("SET b 2")), Total::Status));
    }
}
