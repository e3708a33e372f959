//! Watches, of real server processes: on the command line and as server-sent events.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::cluster::{Cluster, agent};

/// What a process or a stream says, line by line.
struct Lines(Receiver<String>);

impl Lines {
    fn of(source: impl std::io::Read + Send + 'static) -> Self {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self(told)
    }

    /// The next line that is one of these.
    fn wait(&self, what: &[&str]) -> String {
        loop {
            let line = self.0.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("nothing of {what:?}"));
            if what.contains(&line.as_str()) {
                return line;
            }
        }
    }
}

struct Watcher(Child);

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> Cluster {
    xtask::build_server().expect("the server builds");
    Cluster::start(None)
}

/// The server that a command follows changes through is killed: it goes on through another one and misses nothing.
#[test]
fn a_command_follows_changes_past_the_death_of_its_server() {
    let mut cluster = start();
    let servers: Vec<String> = cluster.nodes.iter().rev().map(|node| node.url("")).collect();
    let arguments = ["register", "watch", "job", "--prefix", "--server", &servers.join(",")];
    let child = Command::new(xtask::server_binary()).args(arguments).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the command runs");
    let lines = Lines::of(child.stdout.take().expect("it is piped"));
    let _watcher = Watcher(child);
    let command = |node: usize, arguments: &[&str]| {
        let (code, told) = cluster.nodes[node].command(arguments);
        assert_eq!(code, Some(0), "{told}");
    };
    command(0, &["register", "put", "job-1", "a"]);
    lines.wait(&["job-1\t1\ta"]);
    command(1, &["register", "put", "other", "x"]);
    command(1, &["register", "put", "job-2", "b"]);
    lines.wait(&["job-2\t1\tb"]);
    command(0, &["register", "delete", "job-1"]);
    lines.wait(&["job-1\t2\t(deleted)"]);
    let mut asked = cluster.nodes.pop().expect("three nodes");
    asked.kill();
    let (code, told) = cluster.nodes[0].command(&["register", "put", "job-2", "c"]);
    assert_eq!(code, Some(0), "{told}");
    lines.wait(&["job-2\t2\tc"]);
    asked.start();
}

/// As a page's `EventSource` does it: events with ids, and after a while again from the last id on.
#[test]
fn a_stream_goes_on_where_it_was() {
    let cluster = start();
    let put = |value: &str| {
        let (code, told) = cluster.nodes[0].command(&["register", "put", "leader", value]);
        assert_eq!(code, Some(0), "{told}");
    };
    let stream = |last: Option<&str>| {
        let mut request =
            agent().get(cluster.nodes[1].url("/v1/watch?key=leader")).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Lines::of(request.call().expect("an answer").into_body().into_reader())
    };
    let event = |lines: &Lines, value: &str| {
        let data = |version: u64| {
            let base64 = ["bjE=", "bjI=", "bjM="][version as usize - 1];
            format!("data: {{\"base64\":\"{base64}\",\"key\":\"leader\",\"text\":\"{value}\",\"version\":{version}}}")
        };
        let all = [data(1), data(2), data(3)];
        lines.wait(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let id = lines.0.recv_timeout(Duration::from_secs(5)).expect("an id");
        id.strip_prefix("id: ").unwrap_or_else(|| panic!("no id: {id}")).to_owned()
    };
    put("n1");
    let lines = stream(None);
    lines.wait(&["event: resync"]);
    event(&lines, "n1");
    put("n2");
    let id = event(&lines, "n2");
    drop(lines);
    put("n3");
    let lines = stream(Some(&id));
    let first = lines.0.recv_timeout(Duration::from_secs(20)).expect("it goes on");
    assert_eq!(first, "event: change", "nothing is told again");
    event(&lines, "n3");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let cluster = start();
    let (code, told) = cluster.nodes[0].command(&["namespace", "create", "likes", "--mode", "eventual"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = cluster.nodes[0].command(&["register", "watch", "k", "-n", "likes"]);
    assert!(code == Some(1) && told.contains("WRONG_MODE"), "{code:?} {told}");
    let url = cluster.nodes[0].url("/v1/watch?key=k&namespace=likes");
    let answer = agent().get(url).header("accept", "text/event-stream").call().expect("an answer");
    assert_eq!(answer.status().as_u16(), 409);
    let (code, told) = cluster.nodes[0].get("/v1/watch").expect("an answer");
    assert!(code == 400 && told.contains("what to watch"), "{told}");
}
