//! `qunlong bench`: three nodes on this machine under load, with what the disk and the processor can do beside it.
//!
//! The load runs on the same cores as the nodes. A durable rate means nothing alone: it is printed beside the rate
//! of a plain fdatasync loop of the same minute, as a ratio. `--json` prints the same for programs.

mod kill;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::BenchArguments;
use crate::demo::{Cluster, status};
use crate::failure::Failure;

const PORT: u16 = 7_190;
/// Keys that the load writes to.
const KEYS: u64 = 10_000;

/// How clients reach the nodes.
#[derive(Clone, Copy)]
enum Wiring {
    /// One connection a client.
    Separate,
    /// One connection a node, shared by all clients.
    Multiplexed,
}

#[derive(Clone, Copy)]
enum Load {
    Put,
    Get,
    /// Set a register.
    Set,
    /// Read a register.
    Read,
    /// Add to one register, all clients to the same.
    Add,
}

impl Load {
    /// What is asked of a node for a key.
    fn request(self, key: u64) -> (Method, String) {
        match self {
            Self::Put => (Method::PUT, format!("/v1/kv/bench-{key}")),
            Self::Get => (Method::GET, format!("/v1/kv/bench-{key}")),
            Self::Set => (Method::PUT, format!("/v1/registers/bench-{key}")),
            Self::Read => (Method::GET, format!("/v1/registers/bench-{key}")),
            Self::Add => (Method::POST, "/v1/registers/bench?increment=1".to_owned()),
        }
    }
}

/// What one load did.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    errors: u64,
}

/// What one load did, as a line of a table or as a JSON object.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    /// Requests that were done in a second.
    ops: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Processor time of all nodes together, for each request.
    cpu_us: f64,
    /// Syncs of each node, for each request.
    syncs: f64,
    errors: u64,
}

/// Runs all loads and prints a table, or what `--kill` asks for.
pub(crate) async fn run(arguments: BenchArguments) -> Result<(), Failure> {
    if arguments.kill {
        return LocalSet::new().run_until(kill::run(&arguments)).await;
    }
    let data = std::env::temp_dir().join(format!("qunlong-bench-{}", std::process::id()));
    let mut cluster = Cluster::start(3, PORT, &data, None).await?;
    cluster.wait_until_one().await?;
    let result = LocalSet::new().run_until(measure(&cluster, &data, &arguments)).await;
    cluster.stop().await;
    let _ = std::fs::remove_dir_all(&data);
    result
}

async fn measure(cluster: &Cluster, data: &Path, arguments: &BenchArguments) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new("BENCH_FAILED", error.to_string());
    let syncs = fdatasync_rate(data).map_err(failed)?;
    if arguments.json {
        println!("{}", json!({ "name": "fdatasync loop", "ops": syncs }));
    } else {
        print_head(arguments, syncs);
    }
    let many = arguments.clients;
    let rows = [
        ("put, 1 client", Load::Put, 1, Wiring::Separate),
        ("put, separate connections", Load::Put, many, Wiring::Separate),
        ("put, one connection a node", Load::Put, many, Wiring::Multiplexed),
        ("get, 1 client", Load::Get, 1, Wiring::Separate),
        ("get, separate connections", Load::Get, many, Wiring::Separate),
        ("get, one connection a node", Load::Get, many, Wiring::Multiplexed),
        ("register set, 1 client", Load::Set, 1, Wiring::Separate),
        ("register set, separate", Load::Set, many, Wiring::Separate),
        ("register set, one a node", Load::Set, many, Wiring::Multiplexed),
        ("register read, 1 client", Load::Read, 1, Wiring::Separate),
        ("register read, separate", Load::Read, many, Wiring::Separate),
        ("register read, one a node", Load::Read, many, Wiring::Multiplexed),
        ("all add to one register", Load::Add, many, Wiring::Multiplexed),
    ];
    for (name, load, clients, wiring) in rows {
        let before = Reading::take(cluster).await;
        let started = Instant::now();
        let tally = drive(cluster, load, clients, wiring, arguments).await.map_err(failed)?;
        let seconds = started.elapsed().as_secs_f64();
        let after = Reading::take(cluster).await;
        let row = sum_up(name, tally, seconds, &before, &after);
        if arguments.json { println!("{}", json!(row)) } else { row.print(clients, syncs) }
    }
    Ok(())
}

fn print_head(arguments: &BenchArguments, syncs: f64) {
    println!("three nodes, {}-byte values, synced before the answer, load on the same cores", arguments.value);
    println!("fdatasync loop of one thread in this minute: {syncs:.0}/s\n");
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>10} {:>12} {:>11} {:>7}",
        "load", "ops/s", "p50 ms", "p99 ms", "CPU µs/op", "syncs/op/node", "× fdatasync", "errors"
    );
}

fn sum_up<'a>(name: &'a str, mut tally: Tally, seconds: f64, before: &Reading, after: &Reading) -> Row<'a> {
    tally.latencies.sort_unstable();
    let done = tally.latencies.len().max(1) as f64;
    let at = |share: f64| tally.latencies.get((done * share) as usize).map_or(0.0, |took| took.as_secs_f64() * 1e3);
    Row {
        name,
        ops: tally.latencies.len() as f64 / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_us: (after.cpu - before.cpu).as_secs_f64() * 1e6 / done,
        syncs: (after.syncs - before.syncs) as f64 / 3.0 / done,
        errors: tally.errors,
    }
}

impl Row<'_> {
    /// Prints it as a line of a table. The rate of syncs is that of the disk alone.
    fn print(&self, clients: u16, syncs_per_second: f64) {
        let Self { ops, p50_ms, p99_ms, cpu_us, syncs, errors, .. } = self;
        println!(
            "{:<34} {ops:>9.0} {p50_ms:>9.2} {p99_ms:>9.2} {cpu_us:>10.0} {syncs:>12.3} {:>11.2} {errors:>7}",
            format!("{} ({clients})", self.name),
            ops / syncs_per_second,
        );
    }
}

/// Processor time of all nodes, and their syncs.
struct Reading {
    cpu: Duration,
    syncs: u64,
}

impl Reading {
    async fn take(cluster: &Cluster) -> Self {
        let mut reading = Self { cpu: Duration::ZERO, syncs: 0 };
        for (address, pid) in cluster.processes() {
            reading.cpu += processor_time(pid).unwrap_or_default();
            reading.syncs += status(&address).await.unwrap_or_default()["journal"]["syncs"].as_u64().unwrap_or(0);
        }
        reading
    }
}

/// User and system time of a process, from /proc, in the kernel's ticks of 10 ms.
fn processor_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn fdatasync_rate(data: &Path) -> io::Result<f64> {
    let mut file = File::create(data.join("fdatasync"))?;
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

async fn drive(
    cluster: &Cluster,
    load: Load,
    clients: u16,
    wiring: Wiring,
    arguments: &BenchArguments,
) -> io::Result<Tally> {
    let addresses: Vec<String> = cluster.processes().into_iter().map(|(address, _)| address).collect();
    let shared: Vec<Connection> = match wiring {
        Wiring::Separate => Vec::new(),
        Wiring::Multiplexed => {
            let mut shared = Vec::new();
            for address in &addresses {
                shared.push(Connection::multiplexed(address).await?);
            }
            shared
        }
    };
    let tally = Rc::new(RefCell::new(Tally::default()));
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut tasks = Vec::new();
    for client in 0..u64::from(clients) {
        let node = client as usize % addresses.len();
        let connection = match wiring {
            Wiring::Separate => Connection::separate(&addresses[node]).await?,
            Wiring::Multiplexed => shared[node].clone(),
        };
        let (tally, address, size) = (Rc::clone(&tally), addresses[node].clone(), arguments.value);
        tasks.push(tokio::task::spawn_local(async move {
            let value = Bytes::from(vec![b'v'; size]);
            let mut number = client;
            while Instant::now() < end {
                let key = next_key(&mut number);
                let began = Instant::now();
                let answer = connection.ask(&address, load, key, &value).await;
                let mut tally = tally.borrow_mut();
                match answer {
                    Answer::Done => tally.latencies.push(began.elapsed()),
                    Answer::Refused => tally.errors += 1,
                    // Nobody answers any more on this connection.
                    Answer::Lost => {
                        tally.errors += 1;
                        break;
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.map_err(io::Error::other)?;
    }
    Ok(std::mem::take(&mut *tally.borrow_mut()))
}

/// The next random key, and the number that makes it so.
fn next_key(number: &mut u64) -> u64 {
    *number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*number >> 33) % KEYS
}

/// What became of a request.
enum Answer {
    Done,
    /// The node answered that it was not done.
    Refused,
    /// The connection broke.
    Lost,
}

/// A connection to a node.
#[derive(Clone)]
enum Connection {
    Http1(Rc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn separate(address: &str) -> io::Result<Self> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(connect(address).await?)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(connection);
        Ok(Self::Http1(Rc::new(tokio::sync::Mutex::new(sender))))
    }

    async fn multiplexed(address: &str) -> io::Result<Self> {
        let stream = TokioIo::new(connect(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(connection);
        Ok(Self::Http2(sender))
    }

    /// Asks, and waits for the whole answer.
    async fn ask(&self, address: &str, load: Load, key: u64, value: &Bytes) -> Answer {
        let (method, path) = load.request(key);
        let body = if method == Method::PUT { value.clone() } else { Bytes::new() };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header("host", address)
            .body(Full::new(body))
            .expect("a well-formed request");
        let answer = match self {
            Self::Http1(sender) => sender.lock().await.send_request(request).await,
            Self::Http2(sender) => sender.clone().send_request(request).await,
        };
        match answer {
            Ok(answer) => judge(answer).await,
            Err(_) => Answer::Lost,
        }
    }
}

async fn judge(answer: Response<Incoming>) -> Answer {
    let status = answer.status().as_u16();
    // A key that nobody has written yet, and one with siblings, are good answers, too.
    let done = status == 404 || status == 300 || answer.status().is_success();
    match answer.into_body().collect().await {
        Ok(_) if done => Answer::Done,
        Ok(_) => Answer::Refused,
        Err(_) => Answer::Lost,
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
