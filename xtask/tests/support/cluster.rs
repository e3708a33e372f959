//! A cluster of real processes on ports that are free.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;

/// Three nodes, the first of which bootstrapped. Killed when dropped.
pub struct Cluster {
    pub nodes: Vec<Process>,
    pub data: TempDir,
}

/// One node.
pub struct Process {
    pub name: String,
    pub address: String,
    pub data: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// An answer: its status and its body.
pub type Answer = (u16, String);

impl Cluster {
    /// Starts three nodes that serve the dashboard, and waits until they are one cluster.
    pub fn start(web: Option<&Path>) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let first = free_ports(3);
        let addresses: Vec<String> = (first..first + 3).map(|port| format!("127.0.0.1:{port}")).collect();
        let nodes = addresses
            .iter()
            .enumerate()
            .map(|(i, address)| {
                let seeds: Vec<&str> = addresses.iter().filter(|a| *a != address).map(String::as_str).collect();
                let mut arguments = vec!["--join".to_owned(), seeds.join(",")];
                if i == 0 {
                    arguments.extend(["--bootstrap".to_owned(), "--owners".to_owned(), "3".to_owned()]);
                }
                if let Some(web) = web {
                    arguments.extend(["--web".to_owned(), web.display().to_string()]);
                }
                let name = format!("n{}", i + 1);
                Process { data: data.path().join(&name), name, address: address.clone(), arguments, child: None }
            })
            .collect();
        let mut cluster = Self { nodes, data };
        cluster.nodes.iter_mut().for_each(Process::start);
        cluster.wait_until_one();
        cluster
    }

    /// Waits until every node knows the epoch and sees three members alive.
    pub fn wait_until_one(&self) {
        wait_for("one cluster of three", Duration::from_secs(20), || {
            self.nodes.iter().all(|node| {
                node.status().is_some_and(|status| status["alive"].as_u64() >= Some(3) && status["epoch"].is_number())
            })
        });
    }
}

impl Process {
    pub fn start(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.with_extension("log"))
            .expect("a log can be written");
        let child = Command::new(xtask::server_binary())
            .arg("node")
            .args(["--listen", &self.address, "--name", &self.name])
            .arg("--data")
            .arg(&self.data)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the node starts"));
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the node runs");
            child.wait().expect("it ends");
        }
    }

    /// Asks it to stop, and waits until it has. Returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        child.wait().expect("it ends").code()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn status(&self) -> Option<Value> {
        let (code, body) = self.get("/v1/status")?;
        (code == 200).then(|| serde_json::from_str(&body).ok())?
    }

    pub fn get(&self, path: &str) -> Option<Answer> {
        read(agent().get(self.url(path)).call())
    }

    pub fn put(&self, key: &str, value: &str) -> Option<Answer> {
        read(agent().put(self.url(&format!("/v1/kv/{key}"))).send(value))
    }

    /// The value of a key with a single version.
    pub fn value(&self, key: &str) -> Option<String> {
        let (code, body) = self.get(&format!("/v1/kv/{key}"))?;
        (code == 200).then_some(body)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that takes every status for an answer.
pub fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10))).build().into()
}

pub fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Answer> {
    let mut answer = answer.ok()?;
    Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
}

pub fn wait_for(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first of `count` ports in a row that nobody uses: below the range from which the system takes ports for
/// outgoing connections, so that none of those can come in between, and never the same twice in one program.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const SPAN: u16 = 20_000;
    let start = (std::process::id() % 500) as u16 * 40;
    for _ in 0..SPAN / count {
        let port = FIRST + (start + NEXT.fetch_add(count, Ordering::Relaxed)) % SPAN;
        if (port..port + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
    panic!("no {count} ports in a row are free");
}
