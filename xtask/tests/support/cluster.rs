//! A cluster of real processes on ports that are free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use xtask::proxy::{Faults, Proxy};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Nodes of one cluster, the first of which bootstrapped. Killed when dropped.
pub struct Cluster {
    pub nodes: Vec<Process>,
    /// One before each node, in the same order, if that was asked for.
    pub proxies: Vec<Proxy>,
    pub data: TempDir,
}

/// What a cluster is like.
pub struct Shape<'a> {
    pub nodes: u16,
    /// So many of them own from the start.
    pub owners: u16,
    pub replicas: u8,
    /// More arguments of every node.
    pub more: &'a [&'a str],
    /// The dashboard's files, if the nodes serve it.
    pub web: Option<&'a Path>,
    /// The seed of the proxies, if others reach each node through one.
    pub proxied: Option<u64>,
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
    /// Starts three nodes that may serve the dashboard, and waits until they are one cluster.
    pub fn start(web: Option<&Path>) -> Self {
        Self::of(&Shape { nodes: 3, owners: 3, replicas: 3, more: &[], web, proxied: None })
    }

    /// Starts nodes and waits until they are one cluster.
    pub fn of(shape: &Shape<'_>) -> Self {
        let cluster = Self::forming(shape);
        cluster.wait_until_one();
        cluster
    }

    /// Starts nodes and does not wait.
    pub fn forming(shape: &Shape<'_>) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let addresses = |first: u16| (first..first + shape.nodes).map(|port| SocketAddr::from((LOCALHOST, port)));
        let listens: Vec<SocketAddr> = addresses(free_ports(shape.nodes)).collect();
        let mut proxies = Vec::new();
        if let Some(seed) = shape.proxied {
            for (at, (place, to)) in (0..).zip(addresses(free_ports(shape.nodes)).zip(&listens)) {
                proxies.push(Proxy::start(place, *to, Faults::default(), seed ^ at).expect("the port is free"));
            }
        }
        let advertised: Vec<String> = match proxies.as_slice() {
            [] => listens.iter().map(SocketAddr::to_string).collect(),
            proxies => proxies.iter().map(|proxy| proxy.address().to_string()).collect(),
        };
        let nodes = listens
            .iter()
            .zip(&advertised)
            .enumerate()
            .map(|(i, (listen, me))| {
                let seeds: Vec<&str> = advertised.iter().filter(|other| *other != me).map(String::as_str).collect();
                let mut arguments: Vec<String> = Vec::new();
                if !seeds.is_empty() {
                    arguments.extend(["--join".to_owned(), seeds.join(",")]);
                }
                arguments.extend(["--advertise".to_owned(), me.clone()]);
                if i == 0 {
                    arguments.push("--bootstrap".to_owned());
                    arguments.extend(["--owners".to_owned(), shape.owners.to_string()]);
                    arguments.extend(["--replicas".to_owned(), shape.replicas.to_string()]);
                }
                arguments.extend(shape.more.iter().map(|&more| more.to_owned()));
                if let Some(web) = shape.web {
                    arguments.extend(["--web".to_owned(), web.display().to_string()]);
                }
                Process::new(data.path(), i + 1, listen.to_string(), arguments)
            })
            .collect();
        let mut cluster = Self { nodes, proxies, data };
        cluster.nodes.iter_mut().for_each(Process::start);
        cluster
    }

    /// Waits until every node knows the epoch and sees as many members alive as there are nodes.
    pub fn wait_until_one(&self) {
        let all = self.nodes.len() as u64;
        wait_for("one cluster", Duration::from_secs(20), || {
            self.nodes.iter().all(|node| {
                node.status().is_some_and(|status| status["alive"].as_u64() >= Some(all) && status["epoch"].is_number())
            })
        });
    }
}

impl Process {
    /// The nth node, not started yet, with its own folder in `data`.
    pub fn new(data: &Path, number: usize, address: String, arguments: Vec<String>) -> Self {
        let name = format!("n{number}");
        Self { data: data.join(&name), name, address, arguments, child: None }
    }

    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with some more arguments, this once.
    pub fn start_with(&mut self, more: &[&str]) {
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
            .args(more)
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

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child can be asked")
    }

    /// Stops it where it is; its sockets stay open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Asks it to stop, and waits until it has. Returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.child.as_ref()?;
        self.signal("-TERM");
        let mut child = self.child.take()?;
        child.wait().expect("it ends").code()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A command of the command line, to this node: its exit code and what it printed.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let server = format!("http://{}", self.address);
        let output = Command::new(xtask::server_binary()).args(arguments).env("QUNLONG_SERVER", server).output();
        let output = output.expect("the command runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn topology(&self) -> Option<Value> {
        let (code, body) = self.get("/v1/topology")?;
        (code == 200).then(|| serde_json::from_str(&body).ok())?
    }

    /// Where it speaks the protocol of Redis. It was started with `--resp`.
    pub fn resp(&self) -> String {
        self.status().expect("it answers")["resp"].as_str().expect("it was started with --resp").to_owned()
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
    Agent::config_builder()
        .http_status_as_error(false)
        // A key with siblings answers 300, which leads nowhere.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into()
}

pub fn read(answer: Result<http::Response<ureq::Body>, ureq::Error>) -> Option<Answer> {
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
    // Browsers refuse 10080.
    const FIRST: u16 = 10_100;
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
