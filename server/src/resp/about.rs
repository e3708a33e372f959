//! What needs no key and no connection: what a node says of itself and of the commands that it knows, and what it
//! always refuses.

use qunlong_core::Bytes;

use super::command::{no_password, no_transactions, unknown_part, word};
use super::glob;
use super::reply::Reply;

/// What is answered from what is known here, and what is refused always.
pub(super) fn said(name: &str, arguments: &[Bytes]) -> Result<Option<Reply>, Reply> {
    Ok(Some(match (name, arguments) {
        ("ping", []) => Reply::Simple("PONG"),
        ("ping" | "echo", [text]) => Reply::Bulk(text.clone()),
        ("auth", [_] | [_, _]) => return Err(no_password()),
        ("client", [what, more @ ..]) if is_courtesy(&word(what), more) => Reply::OK,
        ("command", more) => about_commands(more)?,
        ("config", [what, patterns @ ..]) => configuration(&word(what), patterns)?,
        ("dbsize", []) => return Err(Reply::error("ERR no count of keys is kept; page through them with SCAN")),
        ("msetnx", [_, _, ..]) => {
            return Err(Reply::error(
                "ERR several keys are not changed at once here; use SET with NX for each of them",
            ));
        }
        ("watch", [_, ..]) => return Err(no_transactions()),
        // Nothing is watched.
        ("unwatch", []) => Reply::OK,
        _ => return Ok(None),
    }))
}

/// Whether there is a command of this name, in small letters.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// What a client says of itself, and what it wants for itself that has no meaning here.
fn is_courtesy(what: &str, arguments: &[Bytes]) -> bool {
    match (what, arguments) {
        ("setinfo", [_, _]) | ("no-evict" | "no-touch", [_]) => true,
        ("reply", [mode]) => word(mode) == "on",
        _ => false,
    }
}

/// `COMMAND`: libraries ask it for tables that they can do without.
fn about_commands(arguments: &[Bytes]) -> Result<Reply, Reply> {
    let Some((what, names)) = arguments.split_first() else { return Ok(Reply::Array(Vec::new())) };
    match (word(what).as_str(), names) {
        ("count", []) => Ok(Reply::count(NAMES.len())),
        ("docs", _) => Ok(Reply::Map(Vec::new())),
        ("info", names) => Ok(Reply::Array(vec![Reply::Null; names.len()])),
        ("list", []) => Ok(Reply::Array(NAMES.iter().map(|name| Reply::text(name)).collect())),
        (what, _) => Err(unknown_part("COMMAND", what)),
    }
}

/// `CONFIG GET`: what `redis-benchmark` prints, and what libraries look for.
fn configuration(what: &str, patterns: &[Bytes]) -> Result<Reply, Reply> {
    if what != "get" || patterns.is_empty() {
        return Err(unknown_part("CONFIG", what));
    }
    let asked = |name: &str| patterns.iter().any(|pattern| glob::matches(word(pattern).as_bytes(), name.as_bytes()));
    let found = CONFIGURATION.iter().filter(|(name, _)| asked(name));
    Ok(Reply::Map(found.map(|(name, value)| (Reply::text(name), Reply::text(value))).collect()))
}

/// What is true of every node: what was answered is on the disk. One database has a number; the others have names.
const CONFIGURATION: &[(&str, &str)] = &[("appendonly", "yes"), ("databases", "1"), ("save", "")];

/// What there is. A name that is here and fits no line of a `match` came with the wrong number of arguments.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "append", "auth", "client", "command", "config", "dbsize", "decr", "decrby", "del", "discard", "echo", "exec",
    "exists", "expire", "expireat", "expiretime", "get", "getdel", "getex", "getset", "hello", "incr", "incrby", "info",
    "keys", "mget", "mset", "msetnx", "multi", "persist", "pexpire", "pexpireat", "pexpiretime", "ping", "psetex",
    "pttl", "quit", "reset", "scan", "select", "set", "setex", "setnx", "strlen", "ttl", "type", "unlink", "unwatch",
    "watch",
];

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::*;
    use qunlong_core::WallTime;

    fn read(line: &str) -> Result<Command, Reply> {
        let arguments: Vec<Bytes> = line.split(' ').map(Bytes::from).collect();
        Command::read(&arguments, WallTime(0))
    }

    /// Whatever the number of its arguments, a name that is listed is known.
    #[test]
    fn every_name_that_is_listed_is_known() {
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        for name in NAMES {
            for count in 0..6 {
                let line = [*name].into_iter().chain(std::iter::repeat_n("1", count)).collect::<Vec<_>>().join(" ");
                if let Err(Reply::Error(text)) = read(&line) {
                    assert!(!text.starts_with("ERR unknown command"), "{line}: {text}");
                }
            }
        }
        assert_eq!(read("command count"), Ok(Command::Said(Reply::count(NAMES.len()))));
    }

    #[test]
    fn a_client_that_introduces_itself_is_let_be() {
        for line in ["client setinfo lib-name x", "client no-evict on", "unwatch"] {
            assert_eq!(read(line), Ok(Command::Said(Reply::OK)), "{line}");
        }
        let appendonly = (Reply::text("appendonly"), Reply::text("yes"));
        assert_eq!(read("config get appendonly"), Ok(Command::Said(Reply::Map(vec![appendonly]))));
    }
}
