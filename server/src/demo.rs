//! `qunlong demo`: a cluster of processes on this machine, with a supervisor that can kill and restart them.
//!
//! Each node is a process of its own with its own folder and port. Their standard input is a pipe from here: when
//! it closes, whether because the demo ends or because it was killed, the nodes leave by themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::DemoArguments;
use crate::failure::Failure;

/// A cluster that is not one after so long will not become one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nodes that do not leave in time are killed.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a node waits for the supervisor.
const ANSWER: Duration = Duration::from_secs(5);
/// Where clients of Redis look for it.
const RESP_PORT: u16 = 6_379;

/// What a node passes on from the page.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub(crate) enum Order {
    /// Name the nodes.
    List,
    /// As `kill -9`.
    Kill {
        /// Which.
        name: String,
    },
    /// Start it again on its own folder.
    Restart {
        /// Which.
        name: String,
    },
}

/// Why an order was not carried out, or is not known to have been.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Undone {
    /// There is no such node. Nothing was done.
    NoSuchNode {
        /// What it was called.
        name: String,
    },
    /// It cannot be done, as when a process does not start.
    Refused {
        /// For people.
        why: String,
    },
    /// The supervisor cannot be reached. Nothing was done.
    NoSupervisor,
    /// The order was sent and no answer came: it may have been carried out.
    NoAnswer,
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchNode { name } => f.write_str(&no_such_node(name).message),
            Self::Refused { why } => f.write_str(why),
            Self::NoSupervisor => f.write_str("the demonstration's supervisor cannot be reached; does it still run?"),
            Self::NoAnswer => f.write_str(
                "the demonstration's supervisor was asked and did not answer; see which nodes run before asking again",
            ),
        }
    }
}

impl std::error::Error for Undone {}

/// A running cluster of processes.
pub(crate) struct Cluster {
    nodes: BTreeMap<String, Member>,
    supervisor: TcpListener,
    web: Option<PathBuf>,
}

struct Member {
    address: String,
    /// Where it speaks the protocol of Redis.
    resp: String,
    data: PathBuf,
    seeds: Vec<String>,
    bootstrap: Option<u8>,
    child: Option<Child>,
}

/// Runs the demonstration until it is interrupted.
pub(crate) async fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let temporary = std::env::temp_dir().join(format!("qunlong-demo-{}", std::process::id()));
    let data = arguments.data.clone().unwrap_or_else(|| temporary.clone());
    let mut cluster = Cluster::start(arguments.nodes, arguments.port, &data, arguments.web).await?;
    let formed = tokio::select! {
        formed = cluster.wait_until_one() => Some(formed),
        () = stop.asked() => None,
    };
    if let Some(formed) = formed {
        formed?;
        print_welcome(&cluster, &data);
        cluster.supervise(&mut stop).await;
    }
    println!("\nstopping {} nodes …", cluster.nodes.len());
    cluster.stop().await;
    if arguments.data.is_none() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    println!("stopped.");
    Ok(())
}

fn print_welcome(cluster: &Cluster, data: &Path) {
    let first = cluster.nodes.values().next().map(|member| member.address.clone()).unwrap_or_default();
    println!("\n  {} nodes are one cluster:\n", cluster.nodes.len());
    for (name, member) in &cluster.nodes {
        println!("    {name}  http://{}", localhost(&member.address));
    }
    println!("\n  Open the dashboard:  http://{}\n", localhost(&first));
    let resp: Vec<&str> = cluster.nodes.values().map(|member| member.resp.as_str()).collect();
    if resp.iter().all(|address| !address.ends_with(":0")) {
        println!("  redis-cli works, too:  {}\n", resp.join(", "));
    }
    println!("  Each tab that you open there becomes a node, too. Data and logs: {}", data.display());
    println!("  Ctrl-C stops everything.");
}

/// Where the n-th node speaks the protocol of Redis: in the usual demonstration where clients look for it, so that
/// `redis-cli` finds the first one, else wherever there is room.
async fn resp_address(port: u16, n: u16) -> String {
    let usual = format!("127.0.0.1:{}", RESP_PORT + n);
    let is_usual = port == crate::DEMO_PORT && TcpListener::bind(&usual).await.is_ok();
    if is_usual { usual } else { "127.0.0.1:0".to_owned() }
}

fn localhost(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

impl Cluster {
    /// Starts `count` processes on the ports from `port` on.
    pub(crate) async fn start(count: u8, port: u16, data: &Path, web: Option<PathBuf>) -> Result<Self, Failure> {
        let supervisor = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| Failure::new("CANNOT_LISTEN", format!("cannot listen on loopback: {error}")))?;
        let too_high = || Failure::new("BAD_PORT", format!("there are not {count} ports from {port} on"));
        port.checked_add(u16::from(count) - 1).ok_or_else(too_high)?;
        let addresses: Vec<String> = (0..count).map(|i| format!("127.0.0.1:{}", port + u16::from(i))).collect();
        for address in &addresses {
            TcpListener::bind(address).await.map_err(|error| {
                Failure::new("PORT_IN_USE", format!("cannot use {address}: {error}; choose other ports with --port"))
            })?;
        }
        let mut nodes = BTreeMap::new();
        for (i, address) in addresses.iter().enumerate() {
            let name = format!("n{}", i + 1);
            let seeds = addresses.iter().filter(|other| *other != address).cloned().collect();
            let bootstrap = (i == 0).then_some(count);
            let resp = resp_address(port, i as u16).await;
            let data = data.join(&name);
            let member = Member { address: address.clone(), resp, data, seeds, bootstrap, child: None };
            nodes.insert(name, member);
        }
        let mut cluster = Self { nodes, supervisor, web };
        let names: Vec<String> = cluster.nodes.keys().cloned().collect();
        for name in names {
            cluster.start_node(&name)?;
        }
        Ok(cluster)
    }

    fn start_node(&mut self, name: &str) -> Result<(), Failure> {
        let failed = |error: &io::Error| Failure::new("CANNOT_START", format!("cannot start {name}: {error}"));
        let supervisor = self.supervisor.local_addr().map_err(|error| failed(&error))?;
        let member = self.nodes.get_mut(name).ok_or_else(|| no_such_node(name))?;
        std::fs::create_dir_all(&member.data).map_err(|error| failed(&error))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(member.data.join("log"))
            .map_err(|error| failed(&error))?;
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.arg("node").args(["--listen", &member.address, "--name", name]).arg("--data").arg(&member.data);
        command.args(["--resp", &member.resp]);
        command.args(["--supervisor", &supervisor.to_string(), "--tabs", "always"]);
        if !member.seeds.is_empty() {
            command.args(["--join", &member.seeds.join(",")]);
        }
        if let Some(owners) = member.bootstrap {
            command.args(["--bootstrap", "--owners", &owners.to_string()]);
        }
        if let Some(web) = &self.web {
            command.arg("--web").arg(web);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        member.child = Some(command.spawn().map_err(|error| failed(&error))?);
        Ok(())
    }

    /// Waits until every node knows the epoch and sees all others.
    pub(crate) async fn wait_until_one(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let count = self.nodes.len() as u64;
        loop {
            self.check_that_all_run()?;
            let mut ready = 0;
            for member in self.nodes.values() {
                let status = status(&member.address).await.unwrap_or_default();
                ready += u64::from(status["alive"].as_u64() >= Some(count) && status["epoch"].is_number());
            }
            if ready == count {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                let what = format!("after {} s only {ready} of {count} nodes see each other", PATIENCE.as_secs());
                return Err(Failure::new("NO_CLUSTER", format!("{what}; their logs are in their data folders")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn check_that_all_run(&mut self) -> Result<(), Failure> {
        for (name, member) in &mut self.nodes {
            let ended = member.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                let log = std::fs::read_to_string(member.data.join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("its log is empty").to_owned();
                return Err(Failure::new("NODE_FAILED", format!("{name} ended ({status}): {last}")));
            }
        }
        Ok(())
    }

    /// The addresses and process ids of the nodes.
    pub(crate) fn processes(&self) -> Vec<(String, u32)> {
        self.nodes.values().filter_map(|member| Some((member.address.clone(), member.child.as_ref()?.id()?))).collect()
    }

    /// Carries out orders until it is time to stop.
    async fn supervise(&mut self, stop: &mut Stop) {
        loop {
            let stream = tokio::select! {
                accepted = self.supervisor.accept() => accepted.map(|(stream, _)| stream),
                () = stop.asked() => return,
            };
            let Ok(stream) = stream else { continue };
            // One order at a time: they are few, and none waits for another's node.
            let _ = timeout(Duration::from_secs(2), self.answer(stream)).await;
        }
    }

    async fn answer(&mut self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let report: Result<Value, Undone> = match serde_json::from_str(&line) {
            Ok(order) => self.carry_out(order).await,
            Err(_) => Err(Undone::Refused { why: "this is no order".to_owned() }),
        };
        let answer = serde_json::to_string(&report).expect("a report encodes");
        stream.get_mut().write_all(format!("{answer}\n").as_bytes()).await
    }

    async fn carry_out(&mut self, order: Order) -> Result<Value, Undone> {
        match order {
            Order::List => (),
            Order::Kill { name } => {
                let killed = self.kill(&name).await;
                if killed.map_err(|_| Undone::NoSuchNode { name: name.clone() })? {
                    println!("  {name} was killed from the page");
                }
            }
            Order::Restart { name } => {
                let member = self.nodes.get_mut(&name).ok_or_else(|| Undone::NoSuchNode { name: name.clone() })?;
                let runs = member.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
                if !runs {
                    self.start_node(&name).map_err(|failure| Undone::Refused { why: failure.message })?;
                    println!("  {name} was restarted from the page");
                }
            }
        }
        Ok(self.report())
    }

    fn report(&mut self) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter_mut()
            .map(|(name, member)| {
                let running = member.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
                json!({ "name": name, "address": member.address, "running": running })
            })
            .collect();
        json!({ "nodes": nodes })
    }

    /// Ends a node's process as `kill -9` does; says whether it ran. Fails only if there is no such node.
    pub(crate) async fn kill(&mut self, name: &str) -> Result<bool, Failure> {
        let member = self.nodes.get_mut(name).ok_or_else(|| no_such_node(name))?;
        let Some(mut child) = member.child.take() else { return Ok(false) };
        let _ = child.kill().await;
        Ok(true)
    }

    /// Lets all nodes leave, and kills those that do not.
    pub(crate) async fn stop(&mut self) {
        for member in self.nodes.values_mut() {
            // Closing the pipe is the request to leave.
            drop(member.child.as_mut().and_then(|child| child.stdin.take()));
        }
        for member in self.nodes.values_mut() {
            let Some(child) = &mut member.child else { continue };
            if timeout(GOODBYE, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}

fn no_such_node(name: &str) -> Failure {
    Failure::new("NO_SUCH_NODE", format!("there is no node {name} in this demonstration"))
}

/// A node's `/v1/status`, if it answers.
pub(crate) async fn status(address: &str) -> Option<Value> {
    let url = format!("http://{address}/v1/status");
    let call = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(1))).build().into();
        agent.get(&url).call().ok()?.body_mut().read_to_string().ok()
    });
    serde_json::from_str(&call.await.ok()??).ok()
}

/// Passes an order to the supervisor.
pub(crate) async fn ask_supervisor(supervisor: &str, order: &Order) -> Result<Value, Undone> {
    let connected = timeout(ANSWER, TcpStream::connect(supervisor)).await;
    let Ok(Ok(stream)) = connected else { return Err(Undone::NoSupervisor) };
    let exchange = async {
        let mut stream = BufReader::new(stream);
        let order = serde_json::to_string(order).expect("an order encodes");
        stream.get_mut().write_all(format!("{order}\n").as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok::<_, io::Error>(line)
    };
    // From here on it may have got the order.
    let answered = timeout(ANSWER, exchange).await;
    let Ok(Ok(line)) = answered else { return Err(Undone::NoAnswer) };
    serde_json::from_str(&line).unwrap_or(Err(Undone::NoAnswer))
}

/// Interrupts and terminations.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new("NO_SIGNALS", error.to_string());
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Self { interrupt, terminate })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill() -> Order {
        Order::Kill { name: "n9".to_owned() }
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it listens").to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn an_order_for_a_node_that_there_is_not_names_it() {
        let (supervisor, address) = listen().await;
        let mut cluster = Cluster { nodes: BTreeMap::new(), supervisor, web: None };
        for order in [kill(), Order::Restart { name: "n9".to_owned() }] {
            let answered = async {
                let (stream, _) = cluster.supervisor.accept().await.expect("a node asks");
                cluster.answer(stream).await
            };
            let (told, answered) = tokio::join!(ask_supervisor(&address, &order), answered);
            answered.expect("it hears the answer");
            assert_eq!(told, Err(Undone::NoSuchNode { name: "n9".to_owned() }), "{order:?}");
        }
        let answered = async {
            let (stream, _) = cluster.supervisor.accept().await.expect("a node asks");
            cluster.answer(stream).await
        };
        let (told, _) = tokio::join!(ask_supervisor(&address, &Order::List), answered);
        assert_eq!(told, Ok(json!({ "nodes": [] })));
    }

    #[tokio::test]
    async fn a_supervisor_that_cannot_be_reached_is_told_from_one_that_does_not_answer() {
        let (supervisor, address) = listen().await;
        let hangs_up = async {
            let (stream, _) = supervisor.accept().await.expect("a node asks");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await
        };
        let order = kill();
        let (told, heard) = tokio::join!(ask_supervisor(&address, &order), hangs_up);
        assert!(heard.is_ok_and(|count| count > 0), "it has the order");
        assert_eq!(told, Err(Undone::NoAnswer));
        drop(supervisor);
        assert_eq!(ask_supervisor(&address, &order).await, Err(Undone::NoSupervisor));
    }
}
