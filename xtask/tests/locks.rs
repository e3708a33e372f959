//! `qunlong lock` with real processes: who runs when, under which token, and what becomes of a lock whose holder is killed,
//! stopped, interrupted, or cut off from the cluster.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::cluster::{Cluster, wait_for};

/// A `qunlong lock` that runs. Killed when dropped.
struct Locker(Option<Child>);

impl Locker {
    fn start(servers: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(xtask::server_binary());
        command.arg("lock").args(arguments).env("QUNLONG_SERVER", servers);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(Some(child.expect("it starts")))
    }

    /// Waits until it holds the lock, having no command to run. Its token.
    fn held(&mut self) -> u64 {
        let out = self.0.as_mut().and_then(|child| child.stdout.take()).expect("piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("readable");
        field(&line, "token")
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    fn is_running(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().expect("a child can be asked").is_none())
    }

    /// Waits until it ends: its exit code, and what it and its command printed.
    fn end(mut self) -> (Option<i32>, String) {
        let child = self.0.take().expect("it runs");
        said(&child.wait_with_output().expect("it ends"))
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start() -> (Cluster, String) {
    xtask::build_server().expect("the server builds");
    let cluster = Cluster::start(None);
    // The last one first: it is the one to be killed.
    let servers: Vec<String> = cluster.nodes.iter().rev().map(|node| node.url("")).collect();
    (cluster, servers.join(","))
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// The number behind `name=` in a line.
fn field(line: &str, name: &str) -> u64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// A script that says when it begins and ends, with its token.
fn script(log: &Path, sleeps: &str) -> String {
    let log = log.display();
    format!("echo begin $QUNLONG_LOCK_TOKEN >> {log}; sleep {sleeps}; echo end $QUNLONG_LOCK_TOKEN >> {log}")
}

/// Some run under a lock again and again, one of them for longer than the ttl, while a server is killed and comes back. No
/// two run at once, and each has a greater token than the one before.
#[test]
fn runs_never_overlap_and_tokens_rise_while_a_server_is_killed() {
    const WORKERS: usize = 3;
    const RUNS: usize = 4;
    let (mut cluster, servers) = start();
    let log = cluster.data.path().join("runs");
    let mut victim = cluster.nodes.pop().expect("three nodes");
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (servers, log) = (&servers, &log);
            scope.spawn(move || {
                for run in 0..RUNS {
                    let sleeps = if (worker, run) == (0, 0) { "6" } else { "0.3" };
                    let script = script(log, sleeps);
                    let (code, told) =
                        Locker::start(servers, &["turn", "--ttl", "4s", "--", "sh", "-c", &script]).end();
                    assert_eq!(code, Some(0), "worker {worker}, run {run}: {told}");
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        victim.kill();
        std::thread::sleep(Duration::from_secs(3));
        victim.start();
    });
    let log = std::fs::read_to_string(&log).expect("they ran");
    let lines: Vec<(&str, u64)> = log
        .lines()
        .map(|line| line.split_once(' ').expect("a word and a token"))
        .map(|(what, token)| (what, token.parse().expect("a token")))
        .collect();
    let mut last = 0;
    for run in lines.chunks(2) {
        assert!(matches!(run, [("begin", begun), ("end", ended)] if begun == ended), "two ran at once:\n{log}");
        assert!(run[0].1 > last, "tokens do not rise:\n{log}");
        last = run[0].1;
    }
    assert_eq!(lines.len(), 2 * WORKERS * RUNS);
}

#[test]
fn the_exit_code_is_the_commands_and_a_lock_is_a_register_that_can_be_looked_at() {
    let (cluster, servers) = start();
    let run = |script: &str| Locker::start(&servers, &["it", "--", "sh", "-c", script]).end();
    assert_eq!(run("exit 7").0, Some(7));
    assert_eq!(run("kill -9 $$").0, Some(128 + 9));
    assert_eq!(run("test $QUNLONG_LOCK_NAME = it && echo $QUNLONG_LOCK_TOKEN"), (Some(0), "5\n".to_owned()));
    let (code, told) = Locker::start(&servers, &["it", "--", "/no/such/command"]).end();
    assert!(code == Some(127) && told.contains("CANNOT_START"), "{told}");

    let mut holder = Locker::start(&servers, &["it", "--ttl", "20s"]);
    assert_eq!(holder.held(), 9);
    let (code, told) = Locker::start(&servers, &["--show", "it"]).end();
    assert_eq!((code, field(&told, "token"), field(&told, "ttl_ms")), (Some(0), 9, 20_000), "{told}");
    let (code, told) = Locker::start(&servers, &["it", "--wait", "0", "--", "true"]).end();
    assert!(code == Some(75) && told.contains("LOCK_HELD"), "{told}");
    let began = Instant::now();
    let (code, told) = Locker::start(&servers, &["it", "--wait", "1500ms", "--", "true"]).end();
    assert!(code == Some(75) && began.elapsed() >= Duration::from_millis(1_500), "{told}");
    holder.signal("-INT");
    assert_eq!(holder.end().0, Some(0));
    let (code, told) = Locker::start(&servers, &["--show", "it"]).end();
    assert!(code == Some(1) && told.contains("NOT_HELD"), "{told}");

    assert_eq!(cluster.nodes[0].command(&["register", "put", "lock/data", "precious"]).0, Some(0));
    let (code, told) = Locker::start(&servers, &["data", "--", "true"]).end();
    assert!(code == Some(1) && told.contains("NOT_A_LOCK"), "{told}");
    assert_eq!(cluster.nodes[1].command(&["register", "get", "lock/data"]), (Some(0), "precious\n".to_owned()));
    let (code, told) = Locker::start("http://127.0.0.1:1", &["it", "--", "true"]).end();
    assert!(code == Some(1) && told.contains("UNREACHABLE"), "{told}");
}

#[test]
fn the_lock_of_a_process_that_was_killed_is_taken_over_after_its_ttl() {
    const TTL: Duration = Duration::from_secs(4);
    let (_cluster, servers) = start();
    let mut holder = Locker::start(&servers, &["it", "--ttl", "4s"]);
    let token = holder.held();
    let mut rival = Locker::start(&servers, &["it", "--ttl", "4s", "--", "sh", "-c", "echo token=$QUNLONG_LOCK_TOKEN"]);
    std::thread::sleep(TTL + TTL / 2);
    assert!(rival.is_running(), "the holder renews");
    holder.signal("-KILL");
    let killed = Instant::now();
    let (code, told) = rival.end();
    let waited = killed.elapsed();
    assert_eq!(code, Some(0), "{told}");
    assert!(field(&told, "token") > token, "{told}");
    // The last renewal was at most a third of the ttl before, and a bit for a machine that is busy.
    assert!(waited > TTL / 2 && waited < TTL * 2, "taken over after {waited:?}");
}

/// A signal is passed on; the command ends as it likes, and the lock goes to the next one at once.
#[test]
fn an_interruption_is_passed_on_and_the_lock_too() {
    let (cluster, servers) = start();
    let ready = cluster.data.path().join("ready");
    let script = format!("trap 'exit 5' TERM; echo > {}; while :; do sleep 0.05; done", ready.display());
    let holder = Locker::start(&servers, &["it", "--ttl", "1m", "--", "sh", "-c", &script]);
    wait_for("the command", Duration::from_secs(10), || ready.exists());
    let mut rival = Locker::start(&servers, &["it", "--ttl", "1m", "--", "true"]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(rival.is_running());
    holder.signal("-TERM");
    let began = Instant::now();
    assert_eq!(holder.end().0, Some(5));
    assert_eq!(rival.end().0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "passed on after {:?}", began.elapsed());

    // Who waits for a lock is interrupted at once.
    let mut holder = Locker::start(&servers, &["it", "--ttl", "1m"]);
    holder.held();
    let mut waiting = Locker::start(&servers, &["it", "--", "true"]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(waiting.is_running());
    waiting.signal("-INT");
    assert_eq!(waiting.end().0, Some(128 + 2));
}

/// A process that stands still does not know that its time is over: it has been robbed meanwhile, its command has gone on,
/// and all that tells the two apart is the token. When it goes on, it ends its command.
#[test]
fn who_was_stopped_for_long_has_lost_its_lock() {
    let (cluster, servers) = start();
    let (ready, ended) = (cluster.data.path().join("ready"), cluster.data.path().join("ended"));
    let script = format!(
        "trap 'echo > {}; exit 0' TERM; echo token=$QUNLONG_LOCK_TOKEN > {}; while :; do sleep 0.05; done",
        ended.display(),
        ready.display()
    );
    let holder = Locker::start(&servers, &["it", "--ttl", "2s", "--", "sh", "-c", &script]);
    let token = || std::fs::read_to_string(&ready).ok().filter(|line| line.ends_with('\n'));
    wait_for("the command", Duration::from_secs(10), || token().is_some());
    holder.signal("-STOP");
    let (code, told) =
        Locker::start(&servers, &["it", "--ttl", "2s", "--", "sh", "-c", "echo token=$QUNLONG_LOCK_TOKEN"]).end();
    assert_eq!(code, Some(0), "{told}");
    assert!(field(&told, "token") > field(&token().expect("it ran"), "token"));
    assert!(!ended.exists(), "the command of the one that was stopped runs all the time");
    holder.signal("-CONT");
    let (code, told) = holder.end();
    assert!(code == Some(76) && told.contains("LOCK_LOST"), "{code:?}: {told}");
    assert!(ended.exists(), "it was told to end, and ended");
}

/// Two of three servers are gone, so nothing can be renewed: from the end of the ttl on the command is being ended, and
/// killed if it does not listen.
#[test]
fn who_cannot_renew_its_lock_ends_its_command() {
    let (mut cluster, servers) = start();
    let ready = cluster.data.path().join("ready");
    let script = format!("trap '' TERM; echo > {}; while :; do sleep 0.05; done", ready.display());
    let mut holder = Locker::start(&servers, &["it", "--ttl", "3s", "--", "sh", "-c", &script]);
    wait_for("the command", Duration::from_secs(10), || ready.exists());
    std::thread::sleep(Duration::from_secs(4));
    assert!(holder.is_running(), "it renews");
    let began = Instant::now();
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let (code, told) = holder.end();
    assert!(code == Some(76) && told.contains("LOCK_LOST"), "{code:?}: {told}");
    assert!(began.elapsed() > Duration::from_secs(1), "not before the end of the ttl");
}
