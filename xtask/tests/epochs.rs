//! Real server processes that change who owns and who votes: by command, by the autopilot, and under load.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::cluster::{Cluster, Shape, agent, read, wait_for};

fn start(nodes: u16, owners: u16, more: &[&str]) -> Cluster {
    xtask::build_server().expect("the server builds");
    Cluster::of(&Shape { nodes, owners, replicas: 3, more, web: None, proxied: None })
}

/// The names of those with a seat, as a node knows them; nothing while a change is under way.
fn seats(cluster: &Cluster, at: usize) -> Option<BTreeSet<String>> {
    let topology = cluster.nodes[at].topology().filter(|topology| topology["state"] == "settled")?;
    let names = topology["seats"].as_array()?.iter().filter_map(|seat| seat["name"].as_str().map(str::to_owned));
    Some(names.collect())
}

fn named<const N: usize>(names: [&str; N]) -> Option<BTreeSet<String>> {
    Some(names.map(str::to_owned).into())
}

#[test]
fn owners_change_under_load_and_no_acknowledged_write_is_lost() {
    let mut cluster = start(5, 3, &["--no-autopilot"]);
    // Whoever answered the bootstrapper first; it owns itself, and serves one of the clients.
    let first = seats(&cluster, 0).expect("settled");
    let others: Vec<String> =
        ["n2", "n3", "n4", "n5"].into_iter().filter(|name| !first.contains(*name)).map(str::to_owned).collect();
    let [comes, replaces] = others.as_slice() else { panic!("{first:?} should be three") };
    let place = |name: &String| name[1..].parse::<usize>().expect("a number") - 1;
    let done = AtomicBool::new(false);
    let acked: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = [0, place(comes)]
            .into_iter()
            .map(|at| {
                let (node, done) = (&cluster.nodes[at], &done);
                scope.spawn(move || {
                    let mut acked = Vec::new();
                    for n in 0.. {
                        if done.load(Ordering::Relaxed) && n >= 100 {
                            break;
                        }
                        let key = format!("k-{at}-{n}");
                        let (code, body) = node.put(&key, &key).expect("the server answers");
                        assert_eq!(code, 200, "write {n} through {at}: {body}");
                        acked.push(key);
                    }
                    acked
                })
            })
            .collect();
        let commands: [&[&str]; 3] = [
            &["members", "add", comes],
            &["members", "replace", "n1", replaces],
            &["members", "weight", replaces, "3"],
        ];
        for command in commands {
            let (code, told) = cluster.nodes[place(replaces)].command(command);
            assert_eq!(code, Some(0), "{command:?}: {told}");
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("no client failed")).collect()
    });
    assert!(acked.len() >= 200);
    wait_for("one epoch", Duration::from_secs(20), || {
        (0..5).all(|at| seats(&cluster, at) == named(["n2", "n3", "n4", "n5"]))
    });
    wait_for("n1 to hold nothing any more", Duration::from_secs(20), || {
        cluster.nodes[0].status().is_some_and(|status| status["keys"] == 0)
    });
    // Any one of the owners may go, and everything is there.
    cluster.nodes[place(comes)].kill();
    for key in &acked {
        assert_eq!(cluster.nodes[0].value(key).as_deref(), Some(key.as_str()), "an acked write is lost");
    }
    let (code, told) = cluster.nodes[place(replaces)].command(&["topology"]);
    assert!(code == Some(0) && told.contains("servers that may still fail: 0"), "{told}");
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let cluster = start(3, 3, &["--no-autopilot"]);
    let node = &cluster.nodes[0];
    let (code, told) = node.command(&["members", "remove", "n3"]);
    assert!(code != Some(0) && told.contains("TOO_FEW_MEMBERS"), "{told}");
    let (code, told) = node.command(&["members", "add", "nobody"]);
    assert!(code != Some(0) && told.contains("UNKNOWN_MEMBER"), "{told}");
    let (code, told) = node.command(&["members", "abort"]);
    assert!(code != Some(0) && told.contains("NO_CHANGE"), "{told}");
    let answer = read(agent().post(node.url("/v1/topology/changes")).send("{\"steps\":[{\"fly\":1}]}"));
    let (code, body) = answer.expect("an answer");
    assert!(code == 400 && body.contains("BAD_REQUEST"), "{code} {body}");
}

#[test]
fn the_autopilot_seats_who_has_stayed_and_replaces_who_is_gone() {
    let mut cluster = start(5, 3, &["--replace-after", "3"]);
    wait_for("seats for all", Duration::from_secs(60), || {
        (0..5).all(|at| seats(&cluster, at) == named(["n1", "n2", "n3", "n4", "n5"]))
    });
    for n in 0..50 {
        let (code, body) = cluster.nodes[1].put(&format!("k{n}"), "value").expect("the server answers");
        assert_eq!(code, 200, "{body}");
    }
    cluster.nodes[0].kill();
    wait_for("the dead member's seat to go", Duration::from_secs(60), || {
        seats(&cluster, 1) == named(["n2", "n3", "n4", "n5"])
    });
    cluster.nodes[2].kill();
    for n in 0..50 {
        assert_eq!(cluster.nodes[1].value(&format!("k{n}")).as_deref(), Some("value"));
    }
    // Back from its folder it is a member again, and gets a seat again.
    cluster.nodes[0].start();
    wait_for("its seat again", Duration::from_secs(90), || {
        seats(&cluster, 1).is_some_and(|seats| seats.contains("n1"))
    });
}

#[test]
fn of_two_processes_with_one_identity_the_older_stops() {
    let mut cluster = start(3, 3, &["--no-autopilot"]);
    let original = &mut cluster.nodes[2];
    assert_eq!(original.terminate(), Some(0));
    let copy = original.data.with_file_name("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&original.data).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    original.start();
    cluster.wait_until_one();
    // The copy is started twice, so that its boot is the newer one.
    let port = support::cluster::free_ports(1);
    for _ in 0..2 {
        let mut twin = std::process::Command::new(xtask::server_binary());
        twin.args(["node", "--listen", &format!("127.0.0.1:{port}"), "--join", &cluster.nodes[0].address]);
        twin.arg("--data").arg(&copy).stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut twin = twin.spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs(2));
        if cluster.nodes[2].ended().is_none() {
            let _ = twin.kill();
            let _ = twin.wait();
            continue;
        }
        let _ = twin.kill();
        let _ = twin.wait();
    }
    let log = std::fs::read_to_string(cluster.nodes[2].data.with_extension("log")).expect("a log");
    assert!(cluster.nodes[2].ended().is_some() && log.contains("DUPLICATE_NODE_ID"), "{log}");
}

/// On real sockets a process that is killed is known to be gone at once, because its machine says so.
#[test]
fn a_killed_process_is_known_to_all_without_a_suspicion() {
    let mut cluster = start(12, 5, &["--no-autopilot"]);
    cluster.nodes[7].kill();
    let knows = |at: usize| {
        let (_, body) = cluster.nodes[at].get("/v1/members")?;
        let members: serde_json::Value = serde_json::from_str(&body).ok()?;
        let gone = members["members"].as_array()?.iter().find(|member| member["profile"]["name"] == "n8")?;
        Some(gone["state"] == "Dead")
    };
    // A suspicion alone would take twice as long.
    wait_for("everybody to know", Duration::from_secs(3), || {
        (0..12).filter(|at| *at != 7).all(|at| knows(at) == Some(true))
    });
}

/// Three of five are gone for good. A person names the two that are left, and they begin anew with what they hold.
#[test]
fn survivors_of_a_lost_majority_begin_a_new_cluster() {
    let mut cluster = start(5, 5, &["--no-autopilot"]);
    for n in 0..30 {
        let (code, body) = cluster.nodes[0].put(&format!("k{n}"), "value").expect("the server answers");
        assert_eq!(code, 200, "{body}");
    }
    let before = cluster.nodes[0].topology().expect("an epoch")["cluster"].clone();
    let before = before.as_str().expect("an id").to_owned();
    let (code, told) = cluster.nodes[0].command(&["recover", "--fork", "n1", "n2", "--yes"]);
    assert!(code != Some(0) && told.contains("MAJORITY_ALIVE"), "{told}");
    // Everything has come to rest on all of its owners by now, or at least on the two.
    std::thread::sleep(Duration::from_secs(12));
    for at in [2, 3, 4] {
        cluster.nodes[at].kill();
    }
    wait_for("the dead to be known", Duration::from_secs(20), || {
        cluster.nodes[0].topology().is_some_and(|topology| {
            let alive = topology["seats"].as_array().into_iter().flatten().filter(|seat| seat["alive"] == true);
            alive.count() == 2
        })
    });
    let (code, told) = cluster.nodes[0].command(&["recover", "--fork", "n1", "n2"]);
    assert!(code != Some(0) && told.contains("NOT_CONFIRMED") && told.contains("n3, n4, n5"), "{told}");
    let (code, told) = cluster.nodes[0].command(&["recover", "--fork", "n1", "n2", "--yes"]);
    assert!(code == Some(0) && told.contains("is settled"), "{told}");

    let held = (0..30).filter(|n| cluster.nodes[1].value(&format!("k{n}")).as_deref() == Some("value")).count();
    // A key has three copies on five members: with two of those left, a tenth of the keys is gone.
    assert!(held >= 15, "{held} of 30 keys");
    let (code, body) = cluster.nodes[1].put("after", "all").expect("the server answers");
    assert_eq!(code, 200, "{body}");
    let pinned = agent().get(cluster.nodes[0].url("/v1/kv/after")).header("qunlong-cluster", &before).call();
    let (code, body) = read(pinned).expect("an answer");
    assert!(code == 409 && body.contains("WRONG_CLUSTER"), "{code} {body}");

    // Who was given up comes back, and is not let in.
    cluster.nodes[2].start();
    wait_for("it to be refused", Duration::from_secs(20), || {
        let log = std::fs::read_to_string(cluster.nodes[2].data.with_extension("log")).unwrap_or_default();
        log.contains("WRONG_CLUSTER")
    });
    assert_eq!(cluster.nodes[0].value("after").as_deref(), Some("all"));
}
