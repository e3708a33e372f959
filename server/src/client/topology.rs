//! Commands about who is in the cluster, who owns and who votes.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::EXIT_UNKNOWN;
use super::api::{Client, PATIENCE};
use crate::failure::Failure;
use crate::{Change, Server};

pub(crate) fn members(server: &Server) -> Result<(), Failure> {
    let answer = Client::new(server)?.fetch("members")?;
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
    let answer = Client::new(server)?.fetch("topology")?;
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

/// Asks for a change and waits until it is done.
pub(crate) fn change(server: &Server, change: &Change) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let members = client.fetch("members")?;
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
    let answer = client.post("topology/changes", &json!({ "steps": steps }))?;
    let epoch = answer["epoch"].as_u64().unwrap_or_default();
    let begun = if answer["outcome"] == "learning" { wait_until_learnt(&client)? } else { epoch };
    println!("epoch {begun} was chosen");
    wait_until_settled(&client, begun)
}

/// Begins a new cluster with what survivors hold, after a majority was lost for good.
pub(crate) fn recover(server: &Server, survivors: &[String], yes: bool) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let members = client.fetch("members")?;
    let ids = survivors.iter().map(|name| find_member(&members, name)).collect::<Result<Vec<_>, _>>()?;
    let topology = client.fetch("topology")?;
    println!("{}", warning(&topology, &ids));
    if !yes && !is_wanted()? {
        return Err(Failure::new("NOT_CONFIRMED", "nothing was done; to go on without being asked, add --yes"));
    }
    let answer = client.post("topology/recoveries", &json!({ "survivors": ids, "accept_loss": true }))?;
    println!("cluster {} begins with epoch {}", answer["cluster"].as_str().unwrap_or_default(), answer["epoch"]);
    wait_until_settled(&client, answer["epoch"].as_u64().unwrap_or_default())
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
fn wait_until_learnt(client: &Client) -> Result<u64, Failure> {
    let (mut told, mut heard) = (String::new(), Instant::now());
    loop {
        let learning = client.fetch("topology")?["learning"].take();
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

fn wait_until_settled(client: &Client, begun: u64) -> Result<(), Failure> {
    let mut told = String::new();
    loop {
        let answer = client.fetch("topology")?;
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
