//! The port that speaks the protocol of Redis, talked to by those who speak it: `redis-cli`, `redis-benchmark`, and the
//! library of Rust programs.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Connection, FromRedisValue, RedisResult};
use support::cluster::{Cluster, Process, Shape, wait_for};

fn start() -> Cluster {
    xtask::build_server().expect("the server builds");
    xtask::setup::program("redis-cli", "redis-tools").expect("Redis's own tools");
    // Each node takes a free port, and says which in its status.
    let more = &["--resp", "127.0.0.1:0"];
    Cluster::of(&Shape { nodes: 3, owners: 3, replicas: 3, more, web: None, proxied: None })
}

/// Runs one of Redis's own programs against a node.
fn run(program: &str, node: &Process, arguments: &[&str], input: &[u8]) -> Output {
    let address = node.resp();
    let (host, port) = address.rsplit_once(':').expect("a port");
    let mut child = Command::new(program)
        .args(["-h", host, "-p", port])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); Debian has it in redis-tools"));
    let mut stdin = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        // Beside reading, or both wait for each other. It ends with the input.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("it ends")
    })
}

/// What `redis-cli` shows to people.
fn cli(node: &Process, command: &str) -> String {
    let arguments: Vec<&str> = ["--no-raw"].into_iter().chain(command.split(' ')).collect();
    let output = run("redis-cli", node, &arguments, b"");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn connect(node: &Process, query: &str) -> Connection {
    let client = redis::Client::open(format!("redis://{}/{query}", node.resp())).expect("an address");
    let connection = client.get_connection_with_timeout(Duration::from_secs(10)).expect("it connects");
    connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    connection
}

/// Asks by way of the library.
fn ask<T: FromRedisValue>(connection: &mut Connection, line: &str) -> RedisResult<T> {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().expect("a name"));
    for word in words {
        command.arg(word);
    }
    command.query(connection)
}

/// Sends bytes and returns all that comes back, until the node hangs up.
fn raw(node: &Process, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.resp()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(bytes).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_redis_cli_writes_through_one_node_it_reads_through_another() {
    let cluster = start();
    let [one, two, three] = cluster.nodes.as_slice() else { panic!("three nodes") };
    assert_eq!(cli(one, "ping"), "PONG");
    assert_eq!(cli(one, "set colour blue nx"), "OK");
    assert_eq!(cli(two, "get colour"), "\"blue\"");
    assert_eq!(cli(three, "set colour red nx"), "(nil)");
    assert_eq!(cli(three, "set colour red xx get"), "\"blue\"");
    assert_eq!(cli(one, "append colour dish"), "(integer) 7");
    assert_eq!(cli(two, "strlen colour"), "(integer) 7");
    assert_eq!(cli(one, "mset a 1 b 2"), "OK");
    assert_eq!(cli(two, "mget a nothing b"), "1) \"1\"\n2) (nil)\n3) \"2\"");
    assert_eq!(cli(three, "incrby a 41"), "(integer) 42");
    assert_eq!(cli(three, "decr b"), "(integer) 1");
    assert_eq!(cli(one, "exists a a nothing"), "(integer) 2");
    assert_eq!(cli(one, "type a"), "string");
    assert_eq!(cli(two, "getdel a"), "\"42\"");
    assert_eq!(cli(one, "del a b"), "(integer) 1");

    assert_eq!(cli(one, "set lease holder ex 100"), "OK");
    let left = cli(two, "ttl lease");
    assert!(["(integer) 100", "(integer) 99", "(integer) 98"].contains(&left.as_str()), "{left}");
    assert_eq!(cli(two, "expire lease 50 gt"), "(integer) 0");
    assert_eq!(cli(two, "expire lease 200 gt"), "(integer) 1");
    assert_eq!(cli(three, "persist lease"), "(integer) 1");
    assert_eq!(cli(one, "ttl lease"), "(integer) -1");
    assert_eq!(cli(one, "ttl nothing"), "(integer) -2");

    assert_eq!(cli(one, "incr colour"), "(error) ERR value is not an integer or out of range");
    assert_eq!(cli(one, "get"), "(error) ERR wrong number of arguments for 'get' command");
    assert_eq!(cli(one, "lpush list x"), "(error) ERR unknown command 'lpush'");
    assert_eq!(cli(one, "select 1").split(';').next(), Some("(error) ERR DB index is out of range"));
    let protocol = run("redis-cli", one, &["-3", "hello"], b"");
    assert!(String::from_utf8_lossy(&protocol.stdout).contains("qunlong"), "{protocol:?}");

    // As people keep it open, and as they load many keys at once.
    let talk = run("redis-cli", two, &[], b"set talk 1\nincr talk\n");
    assert_eq!(String::from_utf8_lossy(&talk.stdout), "OK\n2\n");
    let load: String = (0..2_000).map(|n| format!("SET load:{n} {n}\r\n")).collect();
    let piped = run("redis-cli", one, &["--pipe"], load.as_bytes());
    let said = String::from_utf8_lossy(&piped.stdout).into_owned();
    assert!(piped.status.success() && said.contains("errors: 0, replies: 2000"), "{piped:?}");
    assert_eq!(cli(three, "get load:1999"), "\"1999\"");
    let scanned = run("redis-cli", two, &["--scan", "--pattern", "load:*"], b"");
    let scanned: BTreeSet<&str> = std::str::from_utf8(&scanned.stdout).expect("text").lines().collect();
    assert_eq!(scanned.len(), 2_000, "every key once");
}

#[test]
fn a_namespace_is_chosen_by_name_and_keeps_what_it_promises() {
    let cluster = start();
    let [one, two, _] = cluster.nodes.as_slice() else { panic!("three nodes") };
    for line in ["namespace create orders --mode consensus", "namespace create likes --mode eventual"] {
        assert_eq!(one.command(&line.split(' ').collect::<Vec<_>>()).0, Some(0));
    }
    // One connection, line by line.
    let say = |node: &Process, lines: &str| {
        let output = run("redis-cli", node, &["--no-raw"], lines.as_bytes());
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(say(one, "select orders\nset 42 paid\nselect 0\nget 42\n"), ["OK", "OK", "OK", "(nil)"]);
    assert_eq!(say(two, "select orders\nget 42\nkeys *\n"), ["OK", "\"paid\"", "1) \"42\""]);
    let (_, told) = two.command(&["register", "get", "42", "-n", "orders"]);
    assert_eq!(told, "paid\n", "the same register as everybody's");
    let wrong = say(one, "select likes\nset k v\n");
    assert!(wrong[1].starts_with("(error) WRONGMODE "), "{wrong:?}");
    let missing = say(one, "select nowhere\nget k\n");
    assert!(missing[1].starts_with("(error) NO_NAMESPACE "), "{missing:?}");
}

#[test]
fn redis_benchmark_finds_no_error() {
    let cluster = start();
    let node = &cluster.nodes[0];
    // It ends with the first error that it is answered.
    let benchmark = |arguments: &[&str]| {
        let output = run("redis-benchmark", node, arguments, b"");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && !said.to_lowercase().contains("error"), "{said}");
        said
    };
    let said = benchmark(&["-t", "ping,set,get,mset", "-n", "2000", "-c", "20", "-P", "8", "-r", "1000", "-q"]);
    for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "MSET (10 keys)"] {
        assert!(said.contains(&format!("{test}: ")) && said.contains("requests per second"), "{test}: {said}");
    }
    // Without random keys all clients add to the same one.
    benchmark(&["-t", "incr", "-n", "2000", "-c", "20", "-P", "4", "-q"]);
    assert_eq!(cli(&cluster.nodes[1], "get counter:__rand_int__"), "\"2000\"");
}

#[test]
fn a_library_works_in_both_versions_of_the_protocol() {
    let cluster = start();
    for (version, query) in [("two", ""), ("three", "?protocol=resp3")] {
        let connection = &mut connect(&cluster.nodes[0], query);
        let elsewhere = &mut connect(&cluster.nodes[1], query);

        // Answers come in the order of the questions, and what is of one key happens in it.
        let mut pipeline = redis::pipe();
        for n in 0..200 {
            pipeline.cmd("INCR").arg(format!("same:{version}"));
            pipeline.cmd("SET").arg(format!("key:{version}:{n}")).arg(n).ignore();
        }
        let sums: Vec<u32> = pipeline.query(connection).expect("it is carried out");
        assert_eq!(sums, (1..=200).collect::<Vec<u32>>());
        let values: Vec<Option<u32>> = ask(elsewhere, &format!("MGET key:{version}:7 nothing")).expect("an answer");
        assert_eq!(values, [Some(7), None]);

        let mut scan = redis::cmd("SCAN");
        scan.cursor_arg(0).arg("MATCH").arg(format!("key:{version}:*")).arg("COUNT").arg(17);
        let keys = scan.iter::<String>(elsewhere).expect("a page");
        let keys: BTreeSet<String> = keys.map(|key| key.expect("a key")).collect();
        assert_eq!(keys.len(), 200);

        let saved: HashMap<String, String> = ask(connection, "CONFIG GET appendonly").expect("an answer");
        assert_eq!(saved["appendonly"], "yes");
        assert_eq!(ask::<Option<String>>(connection, "GET nothing").expect("an answer"), None);
        let refused = ask::<String>(connection, "DBSIZE").expect_err("it is refused");
        assert_eq!(refused.code(), Some("ERR"));

        // Nothing of a transaction is carried out, and the connection goes on.
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("SET").arg("never").arg(1).cmd("INCR").arg("never");
        assert!(transaction.query::<(String, u32)>(connection).is_err());
        assert_eq!(ask::<Option<String>>(connection, "GET never").expect("an answer"), None);

        let set: String = ask(connection, &format!("SET soon:{version} x PX 300")).expect("an answer");
        assert_eq!(set, "OK");
        wait_for("the end of a value", Duration::from_secs(10), || {
            ask::<bool>(elsewhere, &format!("EXISTS soon:{version}")).is_ok_and(|exists| !exists)
        });
    }
}

/// Everybody adds to one key by way of two nodes while the third is killed and comes back. An answer is a sum of its
/// own, and what is not known to have been done is an error and is not tried again by anybody.
#[test]
fn increments_are_counted_once_while_a_node_is_killed() {
    let mut cluster = start();
    let mut victim = cluster.nodes.pop().expect("three nodes");
    let counted = AtomicU32::new(0);
    let answers: Vec<RedisResult<u32>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let (node, counted) = (&cluster.nodes[client % 2], &counted);
                scope.spawn(move || {
                    let mut connection = connect(node, "");
                    let once = |_| {
                        let answer = ask::<u32>(&mut connection, "INCR counter");
                        counted.fetch_add(1, Ordering::Relaxed);
                        answer
                    };
                    (0..50).map(once).collect::<Vec<_>>()
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
    let sums: BTreeSet<u32> = answers.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
    let errors: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(sums.len() + errors.len(), 300, "no sum was told twice");
    let is_unknown = |code: &str| ["TIMEOUT_UNKNOWN", "SESSION_EXPIRED"].contains(&code);
    let unknown = errors.iter().filter(|error| error.code().is_some_and(is_unknown)).count();
    let total: usize = ask(&mut connect(&cluster.nodes[0], ""), "GET counter").expect("an answer");
    assert!((sums.len()..=sums.len() + unknown).contains(&total), "{total} of {} and {errors:?}", sums.len());
}

#[test]
fn what_makes_no_sense_ends_its_connection_and_no_other() {
    let cluster = start();
    let node = &cluster.nodes[0];
    let connection = &mut connect(node, "");
    assert_eq!(raw(node, b"PING\r\nQUIT\r\nPING\r\n"), "+PONG\r\n+OK\r\n");
    assert_eq!(raw(node, b"PING\r\n*1\r\n$x\r\n"), "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n");
    // What a web page can make a browser send is no command.
    let page = raw(node, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\nSET evil 1\r\n");
    assert!(page.starts_with("-ERR Protocol error: ") && page.lines().count() == 1, "{page}");
    assert_eq!(ask::<Option<String>>(connection, "GET evil").expect("an answer"), None);

    let too_large = [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$65537\r\n".as_slice(), &[b'x'; 65_537], b"\r\n"].concat();
    assert!(raw(node, &too_large).starts_with("-TOO_LARGE "));
    let set = redis::cmd("SET").arg("k").arg(vec![b'x'; 65_536]).query::<String>(connection);
    assert_eq!(set.expect("an answer"), "OK");
    let long = "k".repeat(1_025);
    let refused = ask::<String>(connection, &format!("SET {long} v")).expect_err("it is refused");
    assert_eq!(refused.code(), Some("TOO_LARGE"));
    assert_eq!(ask::<u32>(connection, "STRLEN k").expect("the connection goes on"), 65_536);
}
