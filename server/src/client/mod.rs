//! The command line's side of the HTTP interface: what each command asks, and what it prints.

mod api;
mod call;
pub(crate) mod lock;
mod topology;

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::{ModeName, NamespaceCommand, Register, Server};
use api::{Change, Changed, Client, Condition};
pub(crate) use topology::{change, members, recover, topology};

/// Exit code of a request that may still take effect: scripts must not take it for a refusal.
const EXIT_UNKNOWN: u8 = 3;

pub(crate) fn put(server: &Server, key: &str, value: &str) -> Result<(), Failure> {
    Client::new(server)?.put(key, &bytes_of(value)?).map_err(Failure::from)
}

pub(crate) fn get(server: &Server, key: &str) -> Result<(), Failure> {
    let values = Client::new(server)?.values(key)?;
    for value in &values {
        print_line("", value)?;
    }
    if values.len() > 1 {
        eprintln!("qunlong: {} concurrent values; write with the context of a read to resolve them", values.len());
    }
    Ok(())
}

pub(crate) fn delete(server: &Server, key: &str) -> Result<(), Failure> {
    Client::new(server)?.delete(key).map_err(Failure::from)
}

pub(crate) fn list(server: &Server, prefix: &str) -> Result<(), Failure> {
    each_key(server, "kv", prefix, |entry| {
        let count = entry["values"].as_array().map_or(0, Vec::len);
        let key = entry["key"].as_str().unwrap_or_default();
        if count > 1 { println!("{key}\t({count} siblings)") } else { println!("{key}") }
    })
}

/// Asks for one page of keys after the other.
fn each_key(server: &Server, what: &str, prefix: &str, each: impl Fn(&Value)) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let mut after: Option<String> = None;
    loop {
        let page = client.page(what, prefix, after.as_deref())?;
        page.keys.iter().for_each(&each);
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Reads or changes a register.
pub(crate) fn register(server: &Server, what: Register) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let if_version = |version: Option<u64>| version.map_or(Condition::Always, Condition::Version);
    let changed = match what {
        Register::Get { key, version } => return get_register(&client, &key, version),
        Register::List { prefix } => {
            return each_key(server, "registers", &prefix, |key| println!("{}", key.as_str().unwrap_or_default()));
        }
        Register::Watch { key, prefix } => return watch(&client, &key, prefix),
        Register::Put { key, value, condition, ttl } => {
            let value = bytes_of(&value)?;
            let when = if condition.if_absent { Condition::Absent } else { if_version(condition.if_version) };
            client.change(&key, Change::Put { value: &value, ttl: ttl.map(Duration::from_secs) }, when)?
        }
        Register::Delete { key, if_version: version } => client.change(&key, Change::Delete, if_version(version))?,
        Register::Increment { key, by } => client.change(&key, Change::Increment(by), Condition::Always)?,
        Register::Append { key, value } => {
            client.change(&key, Change::Append(&bytes_of(&value)?), Condition::Always)?
        }
    };
    match changed.number {
        Some(number) => println!("{number}"),
        None => println!("{}", changed.version),
    }
    Ok(())
}

fn get_register(client: &Client, key: &str, version: bool) -> Result<(), Failure> {
    let register = client.register(key)?;
    let absent = || Failure::new("REFUSED", "KEY_NOT_FOUND: there is no such register, or it was deleted");
    let value = register.value.ok_or_else(absent)?;
    let before = if version { format!("{}\t", register.version) } else { String::new() };
    print_line(&before, &value)
}

/// Prints what registers hold, a line each, and from then on what changes. A key that begins with what is watched is printed
/// before its version.
fn watch(client: &Client, key: &str, is_prefix: bool) -> Result<(), Failure> {
    let mut after: Option<String> = None;
    loop {
        let news = client.watch(key, is_prefix, after.as_deref())?;
        if news.resync && after.is_some() {
            eprintln!("qunlong: another node, or the same anew: all there is follows");
        }
        for Changed { key, version, value } in &news.changes {
            let before = if is_prefix { format!("{key}\t{version}\t") } else { format!("{version}\t") };
            print_line(&before, value.as_deref().unwrap_or(b"(deleted)"))?;
        }
        std::io::stdout().flush().map_err(|error| Failure::new("OUTPUT", error.to_string()))?;
        after = Some(news.next);
    }
}

/// Creates a namespace or lists them.
pub(crate) fn namespace(server: &Server, what: NamespaceCommand) -> Result<(), Failure> {
    let client = Client::new(server)?;
    match what {
        NamespaceCommand::Create { name, mode, replicas } => {
            let mode = match mode {
                ModeName::Eventual => "eventual",
                ModeName::Quorum => "quorum",
                ModeName::Atomic => "atomic",
                ModeName::Consensus => "consensus",
            };
            client.create_namespace(&name, mode, replicas)?;
        }
        NamespaceCommand::List => {
            let namespaces = client.namespaces()?;
            println!("{:<32} {:<10} {:>6}", "NAME", "MODE", "COPIES");
            for namespace in &namespaces {
                let text = |what: &str| namespace[what].as_str().unwrap_or_default().to_owned();
                println!("{:<32} {:<10} {:>6}", text("name"), text("mode"), namespace["replicas"]);
            }
        }
    }
    Ok(())
}

pub(crate) fn status(server: &Server) -> Result<(), Failure> {
    let answer = Client::new(server)?.fetch("status")?;
    println!("{}", serde_json::to_string_pretty(&answer).expect("JSON prints"));
    Ok(())
}

/// Prints bytes as they are.
fn print_line(before: &str, value: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(before.as_bytes()).and_then(|()| out.write_all(value));
    printed.and_then(|()| out.write_all(b"\n")).map_err(|error| Failure::new("OUTPUT", error.to_string()))
}

fn bytes_of(value: &str) -> Result<Vec<u8>, Failure> {
    if value == "-" { from_stdin() } else { Ok(value.as_bytes().to_vec()) }
}

fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| Failure::new("INPUT", error.to_string()))?;
    Ok(bytes)
}
