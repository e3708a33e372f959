//! The command line's side of the HTTP interface.

use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::middleware::MiddlewareNext;
use ureq::{Agent, Body, SendBody};

use crate::failure::Failure;
use crate::{Change, ModeName, NamespaceCommand, Register, Server};

/// Exit code of a request that may still take effect: scripts must not take it for a refusal.
const EXIT_UNKNOWN: u8 = 3;
/// Longer than any deadline of a node.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn put(server: &Server, key: &str, value: &str) -> Result<(), Failure> {
    let body = bytes_of(value)?;
    let url = key_url(server, key);
    checked(server, agent(server).put(&url).header("content-type", "application/octet-stream").send(&body[..]))
        .map(drop)
}

pub(crate) fn get(server: &Server, key: &str) -> Result<(), Failure> {
    let url = key_url(server, key);
    let answer = json_of(checked(server, agent(server).get(&url).header("accept", "application/json").call())?)?;
    let values = answer["values"].as_array().cloned().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    for value in &values {
        let bytes = decode_base64(value["base64"].as_str().unwrap_or_default());
        let printed = out.write_all(&bytes).and_then(|()| out.write_all(b"\n"));
        printed.map_err(|error| Failure::new("OUTPUT", error.to_string()))?;
    }
    if values.len() > 1 {
        eprintln!("qunlong: {} concurrent values; write with the context of a read to resolve them", values.len());
    }
    Ok(())
}

pub(crate) fn delete(server: &Server, key: &str) -> Result<(), Failure> {
    checked(server, agent(server).delete(&key_url(server, key)).call()).map(drop)
}

pub(crate) fn list(server: &Server, prefix: &str) -> Result<(), Failure> {
    each_page(server, "kv", prefix, |entry| {
        let count = entry["values"].as_array().map_or(0, Vec::len);
        let key = entry["key"].as_str().unwrap_or_default();
        if count > 1 { println!("{key}\t({count} siblings)") } else { println!("{key}") }
    })
}

fn list_registers(server: &Server, prefix: &str) -> Result<(), Failure> {
    each_page(server, "registers", prefix, |key| println!("{}", key.as_str().unwrap_or_default()))
}

/// Asks for one page of keys after the other.
fn each_page(server: &Server, what: &str, prefix: &str, each: impl Fn(&Value)) -> Result<(), Failure> {
    let mut after: Option<String> = None;
    loop {
        let url = in_namespace(server, format!("{server}/v1/{what}"));
        let mut request = agent(server).get(url).query("prefix", prefix);
        if let Some(after) = &after {
            request = request.query("after", after);
        }
        let answer = json_of(checked(server, request.call())?)?;
        answer["keys"].as_array().into_iter().flatten().for_each(&each);
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Reads or changes a register.
pub(crate) fn register(server: &Server, what: Register) -> Result<(), Failure> {
    let agent = agent(server);
    let url = |key: &str| in_namespace(server, path_url(server, "registers", key));
    let if_version = |version: Option<u64>| version.map(|version| ("if-match", format!("\"{version}\"")));
    let (answer, printed) = match what {
        Register::Get { key, version } => return get_register(server, &url(&key), version),
        Register::List { prefix } => return list_registers(server, &prefix),
        Register::Put { key, value, condition, ttl } => {
            let body = bytes_of(&value)?;
            let absent = condition.if_absent.then(|| ("if-none-match", "*".to_owned()));
            let mut request = agent.put(url(&key)).header("content-type", "application/octet-stream");
            for (name, value) in absent.into_iter().chain(if_version(condition.if_version)) {
                request = request.header(name, value);
            }
            if let Some(ttl) = ttl {
                request = request.query("ttl", ttl.saturating_mul(1_000).to_string());
            }
            (request.send(&body[..]), "version")
        }
        Register::Delete { key, if_version: version } => {
            let mut request = agent.delete(url(&key));
            if let Some((name, value)) = if_version(version) {
                request = request.header(name, value);
            }
            (request.call(), "version")
        }
        Register::Increment { key, by } => {
            (agent.post(url(&key)).query("increment", by.to_string()).send_empty(), "number")
        }
        Register::Append { key, value } => {
            (agent.post(url(&key)).query("append", "").send(&bytes_of(&value)?[..]), "version")
        }
    };
    println!("{}", json_of(checked(server, answer)?)?[printed]);
    Ok(())
}

/// Creates a namespace or lists them.
pub(crate) fn namespace(server: &Server, what: NamespaceCommand) -> Result<(), Failure> {
    let agent = agent(server);
    match what {
        NamespaceCommand::Create { name, mode, replicas } => {
            let mode = match mode {
                ModeName::Eventual => "eventual",
                ModeName::Quorum => "quorum",
                ModeName::Atomic => "atomic",
                ModeName::Consensus => "consensus",
            };
            let body = json!({ "mode": mode, "replicas": replicas }).to_string();
            checked(server, agent.put(path_url(server, "namespaces", &name)).send(body)).map(drop)
        }
        NamespaceCommand::List => {
            let answer = json_of(checked(server, agent.get(format!("{server}/v1/namespaces")).call())?)?;
            println!("{:<32} {:<10} {:>6}", "NAME", "MODE", "COPIES");
            for namespace in answer["namespaces"].as_array().into_iter().flatten() {
                let text = |what: &str| namespace[what].as_str().unwrap_or_default().to_owned();
                println!("{:<32} {:<10} {:>6}", text("name"), text("mode"), namespace["replicas"]);
            }
            Ok(())
        }
    }
}

fn get_register(server: &Server, url: &str, version: bool) -> Result<(), Failure> {
    let answer = json_of(checked(server, agent(server).get(url).header("accept", "application/json").call())?)?;
    let bytes = decode_base64(answer["base64"].as_str().unwrap_or_default());
    let mut out = std::io::stdout().lock();
    let before = if version { format!("{}\t", answer["version"]) } else { String::new() };
    let printed = out.write_all(before.as_bytes()).and_then(|()| out.write_all(&bytes));
    printed.and_then(|()| out.write_all(b"\n")).map_err(|error| Failure::new("OUTPUT", error.to_string()))
}

fn bytes_of(value: &str) -> Result<Vec<u8>, Failure> {
    if value == "-" { from_stdin() } else { Ok(value.as_bytes().to_vec()) }
}

pub(crate) fn members(server: &Server) -> Result<(), Failure> {
    let answer = json_of(checked(server, agent(server).get(format!("{server}/v1/members")).call())?)?;
    let owners: Vec<&str> = answer["owners"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    println!(
        "{:<20} {:<8} {:<8} {:>4} {:>4}  {:<6} ADDRESS OR RELAYS",
        "NAME", "STATE", "CLASS", "BOOT", "INC", "OWNS"
    );
    for member in answer["members"].as_array().into_iter().flatten() {
        let profile = &member["profile"];
        let relays: Vec<String> = profile["relays"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|relay| relay.as_str().map(|relay| relay.chars().take(8).collect()))
            .collect();
        let owns = member["id"].as_str().is_some_and(|id| owners.contains(&id));
        println!(
            "{:<20} {:<8} {:<8} {:>4} {:>4}  {:<6} {}",
            profile["name"].as_str().unwrap_or_default(),
            member["state"].as_str().unwrap_or_default(),
            profile["class"].as_str().unwrap_or_default(),
            member["generation"].to_string(),
            member["incarnation"].to_string(),
            if owns { "yes" } else { "no" },
            profile["address"].as_str().map_or_else(|| relays.join(" "), str::to_owned),
        );
    }
    Ok(())
}

/// Who owns and votes, a line each, and what is under way.
pub(crate) fn topology(server: &Server) -> Result<(), Failure> {
    let answer = fetch_topology(server)?;
    println!(
        "epoch {}, {}: {} copies of each key, {} of {} votes decide",
        answer["epoch"],
        answer["state"].as_str().unwrap_or_default(),
        answer["replicas"],
        answer["votes_needed"],
        answer["voters"],
    );
    println!("servers that may still fail: {}", answer["servers_that_may_still_fail"]);
    if answer["volatile"] == true {
        println!("only tabs own and vote: nothing outlives their closing");
    }
    println!(
        "\n{:<20} {:<8} {:<6} {:>6} {:>10}  {:<6} ZONE",
        "NAME", "CLASS", "VOTES", "WEIGHT", "PARTITIONS", "ALIVE"
    );
    let yes = |value: &Value| if *value == true { "yes" } else { "no" };
    for seat in answer["seats"].as_array().into_iter().flatten() {
        println!(
            "{:<20} {:<8} {:<6} {:>6} {:>10}  {:<6} {}",
            seat["name"].as_str().unwrap_or_default(),
            seat["class"].as_str().unwrap_or_default(),
            yes(&seat["votes"]),
            seat["weight"].to_string(),
            seat["partitions"].to_string(),
            yes(&seat["alive"]),
            seat["zone"].as_str().filter(|zone| !zone.is_empty()).unwrap_or("-"),
        );
    }
    if !answer["change"].is_null() {
        println!("\n{}", under_way(&answer["change"]));
    }
    Ok(())
}

fn under_way(change: &Value) -> String {
    if change["recovers"].is_string() {
        return "survivors of a lost majority merge what they hold; until all have, nobody is served".to_owned();
    }
    let names = |key: &str| {
        let names: Vec<&str> = change[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    };
    format!(
        "a change is under way: {} joins, {} leaves, {} partitions get other owners",
        names("joins"),
        names("leaves"),
        change["partitions_moved"]
    )
}

fn fetch_topology(server: &Server) -> Result<Value, Failure> {
    json_of(checked(server, agent(server).get(format!("{server}/v1/topology")).call())?)
}

/// Asks for a change and waits until it is done.
pub(crate) fn change(server: &Server, change: &Change) -> Result<(), Failure> {
    let members = json_of(checked(server, agent(server).get(format!("{server}/v1/members")).call())?)?;
    let id = |name: &String| find_member(&members, name);
    let add = |name: &String| Ok(json!({ "add": id(name)? }));
    let remove = |name: &String| Ok(json!({ "remove": id(name)? }));
    let steps: Vec<Value> = match change {
        Change::Add { members } => members.iter().map(add).collect::<Result<_, Failure>>()?,
        Change::Remove { members } => members.iter().map(remove).collect::<Result<_, Failure>>()?,
        Change::Replace { old, new } => vec![add(new)?, remove(old)?],
        Change::Weight { member, weight } => vec![json!({ "weigh": { "member": id(member)?, "weight": weight } })],
        Change::Abort => vec![json!("abort")],
    };
    if steps.is_empty() {
        return Err(Failure::new("BAD_REQUEST", "name at least one member"));
    }
    let url = format!("{server}/v1/topology/changes");
    let answer = json_of(checked(server, agent(server).post(&url).send(json!({ "steps": steps }).to_string()))?)?;
    let epoch = answer["epoch"].as_u64().unwrap_or_default();
    let begun = if answer["outcome"] == "learning" { wait_until_learnt(server)? } else { epoch };
    println!("epoch {begun} was chosen");
    wait_until_settled(server, begun)
}

/// Begins a new cluster with what survivors hold, after a majority was lost for good.
pub(crate) fn recover(server: &Server, survivors: &[String], yes: bool) -> Result<(), Failure> {
    let members = json_of(checked(server, agent(server).get(format!("{server}/v1/members")).call())?)?;
    let ids = survivors.iter().map(|name| find_member(&members, name)).collect::<Result<Vec<_>, _>>()?;
    let topology = fetch_topology(server)?;
    println!("{}", warning(&topology, &ids));
    if !yes && !is_wanted()? {
        return Err(Failure::new("NOT_CONFIRMED", "nothing was done; to go on without being asked, add --yes"));
    }
    let body = json!({ "survivors": ids, "accept_loss": true }).to_string();
    let url = format!("{server}/v1/topology/recoveries");
    let answer = json_of(checked(server, agent(server).post(&url).send(body))?)?;
    println!("cluster {} begins with epoch {}", answer["cluster"].as_str().unwrap_or_default(), answer["epoch"]);
    wait_until_settled(server, answer["epoch"].as_u64().unwrap_or_default())
}

/// What a recovery costs, in so many words.
fn warning(topology: &Value, survivors: &[String]) -> String {
    let seats = || topology["seats"].as_array().into_iter().flatten();
    let given_up = seats().filter(|seat| seat["id"].as_str().is_none_or(|id| survivors.iter().all(|s| s != id)));
    let mut given_up: Vec<&str> = given_up.filter_map(|seat| seat["name"].as_str()).collect();
    given_up.sort_unstable();
    format!(
        "This begins a new cluster with what {} of {} members hold.\n\
         Given up for good: {}. They must not come back under their old identities.\n\
         Writes that only they hold are lost, acknowledged ones too, and what they decide from now on does not count.\n\
         Clients that name the old cluster, {}, are refused.",
        survivors.len(),
        seats().count(),
        if given_up.is_empty() { "nobody".to_owned() } else { given_up.join(", ") },
        topology["cluster"].as_str().unwrap_or_default(),
    )
}

/// Asks a person, if there is one.
fn is_wanted() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("Type fork to go on: ");
    let mut answer = String::new();
    let read = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    read.map_err(|error| Failure::new("OUTPUT", error.to_string()))?;
    Ok(answer.trim() == "fork")
}

/// Waits until the newcomers have fetched what they are to own, and the change begins. Returns its epoch.
fn wait_until_learnt(server: &Server) -> Result<u64, Failure> {
    let (mut told, mut heard) = (String::new(), Instant::now());
    loop {
        let learning = fetch_topology(server)?["learning"].take();
        if let Some(code) = learning["error"]["code"].as_str() {
            let message = learning["error"]["message"].as_str().unwrap_or_default();
            return Err(Failure::new("REFUSED", format!("{code}: {message}")));
        }
        if let Some(epoch) = learning["begun"].as_u64() {
            return Ok(epoch);
        }
        let far = |member: &Value| {
            let name = member["name"].as_str().unwrap_or_default();
            match member["of"].as_u64() {
                Some(0) => format!("{name} has not answered yet"),
                _ => format!("{name} has fetched {} of {} partitions", member["have"], member["of"]),
            }
        };
        let now = learning["newcomers"].as_array().into_iter().flatten().map(far).collect::<Vec<_>>().join("; ");
        if now != told {
            println!("{now}");
            (told, heard) = (now, Instant::now());
        }
        if heard.elapsed() >= PATIENCE {
            let message = "nothing was heard of the change for long; see qunlong topology, and ask again";
            return Err(Failure { exit: EXIT_UNKNOWN, ..Failure::new("UNKNOWN", message) });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn wait_until_settled(server: &Server, begun: u64) -> Result<(), Failure> {
    let mut told = String::new();
    loop {
        let answer = fetch_topology(server)?;
        let epoch = answer["epoch"].as_u64().unwrap_or_default();
        if epoch >= begun && answer["state"] == "settled" {
            println!("epoch {epoch} is settled");
            return Ok(());
        }
        let now = if answer["change"].is_null() { String::new() } else { under_way(&answer["change"]) };
        if now != told {
            println!("{now}");
            told = now;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The id of the one member that has this name, this id, or an id that begins so.
fn find_member(members: &Value, name: &str) -> Result<String, Failure> {
    let members = || members["members"].as_array().into_iter().flatten();
    let ids = |matches: &dyn Fn(&Value) -> bool| -> Vec<String> {
        members().filter(|member| matches(member)).filter_map(|m| m["id"].as_str().map(str::to_owned)).collect()
    };
    let mut found = ids(&|member| member["profile"]["name"] == name || member["id"] == name);
    if found.is_empty() {
        found = ids(&|member| member["id"].as_str().is_some_and(|id| id.starts_with(name)));
    }
    if found.len() > 1 {
        // Who is gone may have left its name to another.
        let is_there = |member: &Value| member["state"] == "Alive" || member["state"] == "Suspect";
        let there =
            ids(&|member| is_there(member) && member["id"].as_str().is_some_and(|id| found.iter().any(|f| f == id)));
        if !there.is_empty() {
            found = there;
        }
    }
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::new("UNKNOWN_MEMBER", format!("no member is called {name}; qunlong members lists them"))),
        _ => Err(Failure::new("BAD_REQUEST", format!("several members are called {name}; name one by its id"))),
    }
}

pub(crate) fn status(server: &Server) -> Result<(), Failure> {
    let answer = json_of(checked(server, agent(server).get(format!("{server}/v1/status")).call())?)?;
    println!("{}", serde_json::to_string_pretty(&answer).expect("JSON prints"));
    Ok(())
}

fn agent(server: &Server) -> Agent {
    let cluster = server.cluster.clone();
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .middleware(move |mut request: Request<SendBody>, next: MiddlewareNext| {
            if let Some(cluster) = cluster.as_deref().and_then(|cluster| cluster.parse().ok()) {
                request.headers_mut().insert("qunlong-cluster", cluster);
            }
            next.handle(request)
        })
        .build()
        .into()
}

fn key_url(server: &Server, key: &str) -> String {
    in_namespace(server, path_url(server, "kv", key))
}

fn in_namespace(server: &Server, url: String) -> String {
    match &server.namespace {
        None => url,
        Some(name) => format!("{url}?namespace={}", encoded(name)),
    }
}

fn path_url(server: &Server, what: &str, key: &str) -> String {
    format!("{server}/v1/{what}/{}", encoded(key))
}

/// As part of a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A good answer, or the server's own error as a failure.
fn checked(server: &Server, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
    let answer = answer.map_err(|error| unanswered(server, &error))?;
    if answer.status().as_u16() < 400 {
        return Ok(answer);
    }
    let status = answer.status();
    let body = json_of(answer).unwrap_or_default();
    let (code, message) = (body["error"]["code"].as_str(), body["error"]["message"].as_str());
    let mut failure = match (code, message) {
        (Some(code), Some(message)) => Failure::new("REFUSED", format!("{code}: {message}")),
        _ => Failure::new("UNEXPECTED", format!("{server} answered {status}; is it a node of this version?")),
    };
    if body["outcome"] == "unknown" {
        failure.code = "UNKNOWN";
        failure.exit = EXIT_UNKNOWN;
    }
    Err(failure)
}

/// No answer came. If the request may have got through, a write may have happened: never to be taken for a refusal.
fn unanswered(server: &Server, error: &ureq::Error) -> Failure {
    let never_connected = match error {
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => true,
        _ => false,
    };
    if never_connected {
        let advice = "is a node running there? Name another with --server or QUNLONG_SERVER";
        return Failure::new("UNREACHABLE", format!("{server}: {error}; {advice}"));
    }
    let message = format!("{server} did not answer ({error}); if this was a write, it may have happened");
    Failure { exit: EXIT_UNKNOWN, ..Failure::new("UNKNOWN", message) }
}

fn json_of(mut answer: Response<Body>) -> Result<Value, Failure> {
    let unreadable = |_| Failure::new("UNEXPECTED", "the answer is not JSON; is it a node of this version?");
    let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(unreadable)?;
    serde_json::from_str(&text)
        .map_err(|_| Failure::new("UNEXPECTED", "the answer is not JSON; is it a node of this version?"))
}

fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| Failure::new("INPUT", error.to_string()))?;
    Ok(bytes)
}

fn decode_base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}
