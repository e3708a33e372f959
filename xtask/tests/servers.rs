//! Real server processes: kill -9 under load, restart, and who may talk to them.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::cluster::{Cluster, agent, free_ports, read, wait_for};

fn start() -> Cluster {
    xtask::build_server().expect("the server builds");
    Cluster::start(None)
}

#[test]
fn every_acknowledged_write_survives_a_kill_and_the_others_clients_see_no_error() {
    let mut cluster = start();
    let mut victim = cluster.nodes.pop().expect("three nodes");
    let written = AtomicU32::new(0);
    let killed = AtomicBool::new(false);
    let acked: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = cluster
            .nodes
            .iter()
            .enumerate()
            .map(|(client, node)| {
                let written = &written;
                scope.spawn(move || {
                    (0..100)
                        .map(|n| {
                            let key = format!("k-{client}-{n}");
                            let (code, body) = node.put(&key, &key).expect("the server answers");
                            assert_eq!(code, 200, "client {client}, write {n}: {body}");
                            written.fetch_add(1, Ordering::Relaxed);
                            key
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        scope.spawn(|| {
            wait_for("half of the writes", Duration::from_secs(20), || written.load(Ordering::Relaxed) >= 80);
            victim.kill();
            killed.store(written.load(Ordering::Relaxed) < 200, Ordering::Relaxed);
        });
        clients.into_iter().flat_map(|client| client.join().expect("no client failed")).collect()
    });
    assert!(killed.load(Ordering::Relaxed), "the kill came in the middle");
    assert_eq!(acked.len(), 200);
    for key in &acked {
        assert_eq!(cluster.nodes[0].value(key).as_deref(), Some(key.as_str()), "an acked write is lost");
    }

    // It comes back from its folder and catches up, without anybody reading.
    victim.start();
    cluster.nodes.push(victim);
    cluster.wait_until_one();
    let digests = || -> Vec<Value> {
        cluster
            .nodes
            .iter()
            .map(|node| node.status().map(|status| status["digest"].clone()).unwrap_or_default())
            .collect()
    };
    wait_for("equal replicas", Duration::from_secs(60), || {
        let digests = digests();
        digests.iter().all(|digest| *digest == digests[0])
    });
    let returned = &cluster.nodes[2];
    assert_eq!(returned.status().expect("it runs")["generation"], 2);
    for key in &acked {
        assert_eq!(returned.value(key).as_deref(), Some(key.as_str()));
    }
}

/// Everybody adds to one register by way of two nodes while the third is killed and comes back: every answer has a version
/// of its own, and the sum is what was acknowledged.
#[test]
fn a_register_counts_exactly_while_a_node_is_killed() {
    let mut cluster = start();
    let mut victim = cluster.nodes.pop().expect("three nodes");
    let counted = AtomicU32::new(0);
    let mut versions: Vec<u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let (node, counted) = (&cluster.nodes[client % 2], &counted);
                scope.spawn(move || {
                    (0..50)
                        .map(|n| {
                            let url = node.url("/v1/registers/counter?increment=1&timeout=20000");
                            let (code, body) = read(agent().post(url).send_empty()).expect("the server answers");
                            assert_eq!(code, 200, "client {client}, request {n}: {body}");
                            counted.fetch_add(1, Ordering::Relaxed);
                            let body: Value = serde_json::from_str(&body).expect("JSON");
                            body["version"].as_u64().expect("a version")
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        scope.spawn(|| {
            wait_for("a third of them", Duration::from_secs(20), || counted.load(Ordering::Relaxed) >= 100);
            victim.kill();
            victim.start();
        });
        clients.into_iter().flat_map(|client| client.join().expect("no client failed")).collect()
    });
    versions.sort_unstable();
    assert_eq!(versions, (1..=300).collect::<Vec<u64>>(), "each has made a version of its own");
    cluster.nodes.push(victim);
    cluster.wait_until_one();
    for node in &cluster.nodes {
        let (code, body) = node.get("/v1/registers/counter").expect("an answer");
        assert_eq!((code, body), (200, "300".to_owned()), "the sum, at every node");
    }
}

#[test]
fn conditions_on_registers_are_those_of_http() {
    let cluster = start();
    let url = cluster.nodes[0].url("/v1/registers/a%2Fb");
    let answer = |request: ureq::RequestBuilder<ureq::typestate::WithBody>| {
        let answer = request.send("value").expect("an answer");
        let tag = answer.headers().get("etag").map(|tag| tag.to_str().expect("text").to_owned());
        (answer.status().as_u16(), tag)
    };
    let tagged = |version: u64| Some(format!("\"{version}\""));
    assert_eq!(answer(agent().put(&url).header("if-none-match", "*")), (200, tagged(1)));
    assert_eq!(answer(agent().put(&url).header("if-none-match", "*")), (412, tagged(1)));
    assert_eq!(answer(agent().put(&url).header("if-match", "\"1\"")), (200, tagged(2)));
    assert_eq!(answer(agent().put(&url).header("if-match", "\"1\"")), (412, tagged(2)));
    let named = || agent().post(format!("{url}?append")).header("qunlong-request-id", "0123456789abcdef".repeat(2));
    assert_eq!(answer(named().header("qunlong-seen", "2")), (200, tagged(3)));
    let elsewhere = cluster.nodes[1].url("/v1/registers/a%2Fb?append");
    let again = agent().post(elsewhere).header("qunlong-request-id", "0123456789abcdef".repeat(2));
    assert_eq!(answer(again.header("qunlong-seen", "2")), (200, tagged(3)), "it was carried out once");
    let (code, body) = cluster.nodes[2].get("/v1/registers/a%2Fb").expect("an answer");
    assert_eq!((code, body), (200, "valuevalue".to_owned()));
    assert_eq!(answer(agent().post(format!("{url}?increment=1"))).0, 409);

    let command = |arguments: &[&str]| cluster.nodes[2].command(arguments);
    assert_eq!(command(&["register", "put", "n", "41"]), (Some(0), "1\n".to_owned()));
    assert_eq!(command(&["register", "increment", "n"]), (Some(0), "42\n".to_owned()));
    assert_eq!(command(&["register", "get", "--version", "n"]), (Some(0), "2\t42\n".to_owned()));
    let elsewhere = ["register", "get", "n", "--server", &cluster.nodes[1].url("")];
    assert_eq!(command(&elsewhere), (Some(0), "42\n".to_owned()), "which node is asked may be said at the end");
    assert_eq!(command(&["register", "delete", "n", "--if-version", "1"]).0, Some(1));
    assert_eq!(command(&["register", "delete", "n", "--if-version", "2"]), (Some(0), "3\n".to_owned()));
    assert_eq!(command(&["register", "get", "n"]).0, Some(1));
}

#[test]
fn a_namespace_has_one_guarantee_for_all_its_keys() {
    let cluster = start();
    let command = |node: usize, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        cluster.nodes[node].command(&words)
    };
    assert_eq!(command(0, "namespace create orders --mode consensus --replicas 3"), (Some(0), String::new()));
    assert_eq!(command(0, "namespace create orders --mode consensus --replicas 3"), (Some(0), String::new()), "again");
    assert_eq!(command(1, "namespace create likes --mode eventual"), (Some(0), String::new()));
    let (code, told) = command(2, "namespace create likes --mode quorum");
    assert!(code == Some(1) && told.contains("NAMESPACE_EXISTS"), "{told}");
    let (_, list) = command(1, "namespace list");
    let rows: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            ["default", "quorum", "3"],
            ["registers", "consensus", "3"],
            ["likes", "eventual", "3"],
            ["orders", "consensus", "3"]
        ]
    );

    assert_eq!(command(1, "register put k 41 -n orders"), (Some(0), "1\n".to_owned()));
    assert_eq!(command(0, "register increment k --namespace orders"), (Some(0), "42\n".to_owned()));
    assert_eq!(command(0, "register get k").0, Some(1), "another namespace's");
    assert_eq!(command(1, "put k liked -n likes"), (Some(0), String::new()));
    assert_eq!(command(1, "list -n likes"), (Some(0), "k\n".to_owned()));
    assert_eq!(command(1, "list"), (Some(0), String::new()));
    for (line, says) in [
        ("put k v -n orders", "WRONG_MODE: the namespace is of mode consensus"),
        ("register put k v -n likes", "WRONG_MODE: the namespace is of mode eventual"),
        ("get k -n nowhere", "NO_NAMESPACE"),
        ("namespace create Orders --mode quorum", "BAD_NAMESPACE"),
        ("namespace create many --mode quorum --replicas 5", "TOO_FEW_MEMBERS"),
    ] {
        let (code, told) = command(0, line);
        assert!(code == Some(1) && told.contains(says), "{line}: {told}");
    }
    let level = |path: &str| cluster.nodes[2].get(path).expect("an answer").0;
    assert_eq!(level("/v1/kv/k?namespace=likes&r=one"), 200);
    assert_eq!(level("/v1/kv/k?namespace=likes&r=local_zone"), 200);
    assert_eq!(level("/v1/kv/k?r=one"), 400);
}

#[test]
fn a_node_leaves_when_it_is_told_to_and_nobody_has_to_suspect() {
    let mut cluster = start();
    assert_eq!(cluster.nodes[2].terminate(), Some(0));
    wait_for("the goodbye", Duration::from_secs(2), || {
        cluster.nodes[0].get("/v1/members").is_some_and(|(_, body)| body.contains(r#""state":"Left""#))
    });
}

#[test]
fn outcomes_are_told_apart() {
    let mut cluster = start();
    let node = &cluster.nodes[0];
    assert_eq!(node.get("/v1/kv/nothing").expect("an answer").0, 404);
    assert_eq!(node.put("key", "one").expect("an answer").0, 200);
    assert_eq!(node.put("key", "two").expect("an answer").0, 200);
    assert_eq!(node.value("key").as_deref(), Some("two"), "a plain put supersedes");
    let (code, body) = node.put("large", &"x".repeat((64 << 10) + 1)).expect("an answer");
    assert_eq!((code, body.contains(r#""code":"TOO_LARGE""#)), (413, true), "{body}");
    for path in ["/v1/nothing", "/v1/kv/key?timeout=soon"] {
        let (code, body) = node.get(path).expect("an answer");
        assert!((400..500).contains(&code) && body.contains(r#""outcome":"refused""#), "{path}: {code} {body}");
    }
    let (code, body) = node.get("/v1/kv/key?r=1").expect("an answer");
    assert_eq!((code, body.contains("BAD_LEVEL")), (400, true));
    // A retry under the same id is the same write.
    let id = "00112233445566778899aabbccddeeff";
    let write = || {
        let request = agent().put(node.url("/v1/kv/once")).header("qunlong-request-id", id);
        let (code, body) = read(request.send("value")).expect("an answer");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")["dot"].clone()
    };
    assert_eq!(write(), write());

    // Alone, a node refuses what is certain not to happen, and says so of what is not certain.
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let node = &cluster.nodes[0];
    let (code, body) = node.put("key", "three").expect("an answer");
    assert_eq!(
        (code, body.contains("NO_QUORUM"), body.contains(r#""outcome":"refused""#)),
        (503, true, true),
        "{body}"
    );
    let request = agent().put(node.url("/v1/kv/key")).header("qunlong-context", "none");
    let (code, body) = read(request.send("four")).expect("an answer");
    assert_eq!(
        (code, body.contains("TIMEOUT_UNKNOWN"), body.contains(r#""outcome":"unknown""#)),
        (504, true, true),
        "{body}"
    );
}

#[test]
fn foreign_pages_and_foreign_names_are_refused() {
    let cluster = start();
    let node = &cluster.nodes[0];
    let with = |name: &str, value: &str| {
        read(agent().get(node.url("/v1/status")).header(name, value).call()).expect("an answer")
    };
    for origin in ["http://evil.example", "null", "https://127.0.0.1:1"] {
        let (code, body) = with("origin", origin);
        assert_eq!((code, body.contains("ORIGIN_REFUSED")), (403, true), "{origin}: {body}");
    }
    let (code, body) = with("host", "evil.example");
    assert_eq!((code, body.contains("HOST_REFUSED")), (421, true), "{body}");
    // The other servers' pages may come, by both names of loopback.
    wait_for("the others' origins", Duration::from_secs(5), || {
        let port = cluster.nodes[1].address.rsplit(':').next().expect("a port").to_owned();
        with("origin", &format!("http://localhost:{port}")).0 == 200
    });
}

#[tokio::test]
async fn sockets_check_origins_and_sizes() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::{Error, Message};
    let cluster = tokio::task::spawn_blocking(start).await.expect("three nodes");
    for path in ["/v1/link", "/v1/trace/socket"] {
        let url = format!("ws://{}{path}", cluster.nodes[0].address);
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("origin", "http://evil.example".parse().expect("a header"));
        let refused = tokio_tungstenite::connect_async(request).await;
        assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 403), "{path}");
    }
    let url = format!("ws://{}/v1/link", cluster.nodes[0].address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a server's own origin is none");
    // Whatever it says before, a frame beyond the limit ends the connection, and the node goes on.
    let _ = socket.send(Message::binary(vec![0; 2 << 20])).await;
    let closed = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => (),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the connection ends");
    assert!(cluster.nodes[0].status().is_some());
}

#[test]
fn the_command_line_reads_what_it_wrote() {
    let cluster = start();
    let server = cluster.nodes[1].url("");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(xtask::server_binary())
            .args(arguments)
            .env("QUNLONG_SERVER", &server)
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    assert_eq!(run(&["put", "a key/with ümläuts", "blue"]).0, Some(0));
    assert_eq!(run(&["get", "a key/with ümläuts"]).1, "blue\n");
    assert_eq!(run(&["list", "a key"]).1, "a key/with ümläuts\n");
    for value in ["red", "green"] {
        let request = agent().put(cluster.nodes[0].url("/v1/kv/colour")).header("qunlong-context", "none");
        assert_eq!(read(request.send(value)).expect("an answer").0, 200);
    }
    let (code, values, _) = run(&["get", "colour"]);
    assert_eq!((code, values.lines().count()), (Some(0), 2), "{values}");
    assert_eq!(run(&["delete", "a key/with ümläuts"]).0, Some(0));
    let (code, _, error) = run(&["get", "a key/with ümläuts"]);
    assert!(code == Some(1) && String::from_utf8_lossy(&error).contains("KEY_NOT_FOUND"));
    assert!(run(&["members"]).1.contains("n3"));
    assert!(run(&["status"]).1.contains("\"epoch\": 1"));
}

#[test]
fn the_trace_tells_a_write_from_beginning_to_end() {
    use std::io::{BufRead, BufReader};
    let cluster = start();
    let node = &cluster.nodes[0];
    let stream = agent().get(node.url("/v1/trace?kinds=kv")).call().expect("an answer");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut lines = BufReader::new(stream.into_body().into_reader()).lines();
    // The level rises with the first subscriber, at the node's next turn.
    std::thread::sleep(Duration::from_millis(300));
    node.put("traced", "value").expect("an answer");
    let mut told = String::new();
    while !told.contains("finished") {
        let line = lines.next().expect("the stream goes on").expect("readable");
        assert!(!line.contains("\"Sent\""), "only kv was asked for");
        told.push_str(&line);
    }
    for word in ["began Put", "minted", "counts 2/2 Writing"] {
        assert!(told.contains(word), "{word} is missing in {told}");
    }
}

#[test]
fn a_node_does_not_listen_to_a_network_by_accident() {
    xtask::build_server().expect("the server builds");
    let data = tempfile::tempdir().expect("a temporary folder");
    let output = std::process::Command::new(xtask::server_binary())
        .args(["node", "--listen", "0.0.0.0:0", "--data"])
        .arg(data.path())
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("INSECURE_BIND_REFUSED"));
}

#[test]
fn two_clusters_never_mix() {
    let (one, two) = (start(), start());
    let data = tempfile::tempdir().expect("a temporary folder");
    // A node of the first cluster is told to join the second as well.
    let port = free_ports(1);
    let mut child = std::process::Command::new(xtask::server_binary())
        .args(["node", "--listen", &format!("127.0.0.1:{port}"), "--join", &one.nodes[0].address, "--data"])
        .arg(data.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let status = || read(agent().get(format!("http://127.0.0.1:{port}/v1/status")).call());
    wait_for("joined", Duration::from_secs(10), || status().is_some_and(|(_, body)| body.contains("\"epoch\":1")));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let log = data.path().join("log");
    let mut child = std::process::Command::new(xtask::server_binary())
        .args(["node", "--listen", &format!("127.0.0.1:{port}"), "--join", &two.nodes[0].address, "--data"])
        .arg(data.path())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("it starts");
    wait_for("the refusal", Duration::from_secs(10), || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("WRONG_CLUSTER"))
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(two.nodes[0].status().expect("it runs")["alive"], 3, "the stranger did not get in");
}
