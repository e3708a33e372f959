//! Three processes of etcd, their loads one after the other, and what they cost.
//!
//! They run with etcd's defaults, on a fresh folder beside the one of our own bench. Whoever drops the cluster, in the end,
//! after an error or after a signal, kills the processes and removes the folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::sleep;
use xtask::Failure;

use crate::load::{Load, Request, Tally, Wiring};
use crate::row::{self, Row};

const MEMBERS: u16 = 3;
/// Where the first member listens for clients; the others follow.
const CLIENT_PORT: u16 = 7_290;
/// Where the first member listens for the others.
const PEER_PORT: u16 = 7_295;
/// Members that are not one cluster after so long will not become one.
const PATIENCE: Duration = Duration::from_secs(30);
/// The metric that counts syncs of the log, with the space before its value.
const WAL_SYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count ";

/// Starts etcd, runs all loads, prints a row for each, and stops it.
///
/// # Errors
///
/// If etcd cannot be started, ends by itself, or somebody interrupts.
pub(crate) fn measure(clients: u16, span: Duration) -> Result<Vec<Row>, Failure> {
    let failed = |error: io::Error| Failure(format!("the load could not be started: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    LocalSet::new().block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            rows = run_loads(clients, span) => rows,
            _ = interrupt.recv() => Err(interrupted()),
            _ = terminate.recv() => Err(interrupted()),
        }
    })
}

fn interrupted() -> Failure {
    Failure("it was interrupted; etcd is stopped and its data removed".to_owned())
}

async fn run_loads(clients: u16, span: Duration) -> Result<Vec<Row>, Failure> {
    let failed = |error: io::Error| Failure(format!("the load could not be run: {error}"));
    let mut cluster = Cluster::start().map_err(|error| Failure(format!("etcd could not be started: {error}")))?;
    cluster.wait_until_healthy().await?;
    row::print_head(fdatasync_rate(&cluster.data).map_err(failed)?);
    let addresses = cluster.addresses();
    let mut rows = Vec::new();
    for load in loads(clients) {
        let before = cluster.reading()?;
        let began = Instant::now();
        let tally = load.drive(&addresses, span).await.map_err(failed)?;
        let elapsed = began.elapsed();
        cluster.check_that_all_run()?;
        let row = sum_up(load.name, tally, elapsed, &cluster.reading()?.since(&before));
        row.print();
        rows.push(row);
    }
    Ok(rows)
}

/// The loads, writes before reads, as in our own bench.
fn loads(clients: u16) -> [Load; 7] {
    let load = |name, request, clients, wiring| Load { name, request, clients, wiring };
    [
        load("write, 1 client", Request::Put, 1, Wiring::Separate),
        load("write, separate connections", Request::Put, clients, Wiring::Separate),
        load("write, one connection a node", Request::Put, clients, Wiring::Multiplexed),
        load("read, 1 client", Request::Get, 1, Wiring::Separate),
        load("read, separate connections", Request::Get, clients, Wiring::Separate),
        load("read, one connection a node", Request::Get, clients, Wiring::Multiplexed),
        load("write, all to one key", Request::PutSame, clients, Wiring::Multiplexed),
    ]
}

fn sum_up(name: &str, mut tally: Tally, elapsed: Duration, cost: &Reading) -> Row {
    tally.latencies.sort_unstable();
    let done = tally.latencies.len().max(1) as f64;
    let at = |share: f64| tally.latencies.get((done * share) as usize).map_or(0.0, |took| took.as_secs_f64() * 1e3);
    Row {
        name: name.to_owned(),
        ops: tally.latencies.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_us: cost.cpu.as_secs_f64() * 1e6 / done,
        syncs: cost.syncs / f64::from(MEMBERS) / done,
        errors: tally.errors,
    }
}

/// A running cluster of processes.
struct Cluster {
    members: Vec<Member>,
    data: PathBuf,
}

struct Member {
    /// Where clients reach it.
    address: String,
    log: PathBuf,
    process: Child,
}

impl Cluster {
    fn start() -> io::Result<Self> {
        let data = std::env::temp_dir().join(format!("etcd-bench-{}", std::process::id()));
        // What another process of this number may have left.
        let _ = fs::remove_dir_all(&data);
        // It is there before its members, so that one that fails to start takes those before it along.
        let mut cluster = Self { members: Vec::new(), data };
        for number in 0..MEMBERS {
            let member = Member::start(number, &cluster.data)?;
            cluster.members.push(member);
        }
        Ok(cluster)
    }

    async fn wait_until_healthy(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            self.check_that_all_run()?;
            if self.members.iter().all(Member::is_healthy) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(Failure(format!("after {seconds} s not all members of etcd say that they are healthy")));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Says what etcd said last where a member has ended.
    fn check_that_all_run(&mut self) -> Result<(), Failure> {
        for member in &mut self.members {
            if let Ok(Some(status)) = member.process.try_wait() {
                let log = fs::read_to_string(&member.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("its log is empty");
                return Err(Failure(format!("etcd at {} ended ({status}): {last}", member.address)));
            }
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    fn reading(&self) -> Result<Reading, Failure> {
        let mut all = Reading { cpu: Duration::ZERO, syncs: 0.0 };
        for member in &self.members {
            let one = member.reading();
            let one = one.ok_or_else(|| Failure(format!("etcd at {} tells nothing of its costs", member.address)))?;
            all.cpu += one.cpu;
            all.syncs += one.syncs;
        }
        Ok(all)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
        }
        for member in &mut self.members {
            let _ = member.process.wait();
        }
        let _ = fs::remove_dir_all(&self.data);
    }
}

impl Member {
    fn start(number: u16, data: &Path) -> io::Result<Self> {
        let (address, peer) = (loopback(CLIENT_PORT + number), loopback(PEER_PORT + number));
        // Another etcd that has this port would be measured in its place.
        for address in [&address, &peer] {
            TcpListener::bind(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        }
        let name = |number: u16| format!("m{number}");
        let cluster: Vec<String> =
            (0..MEMBERS).map(|other| format!("{}=http://{}", name(other), loopback(PEER_PORT + other))).collect();
        let folder = data.join(name(number));
        fs::create_dir_all(&folder)?;
        let log = folder.join("log");
        let output = File::create(&log)?;
        let (client_url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--name", &name(number)]).arg("--data-dir").arg(folder.join("data"));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { address, log, process: command.spawn()? })
    }

    /// Whether it knows a leader and has carried out a read of its own.
    fn is_healthy(&self) -> bool {
        fetch(&self.address, "/health").is_some_and(|answer| answer.contains("\"true\""))
    }

    fn reading(&self) -> Option<Reading> {
        let metrics = fetch(&self.address, "/metrics")?;
        let syncs = metrics.lines().find_map(|line| line.strip_prefix(WAL_SYNCS))?.trim().parse().ok()?;
        Some(Reading { cpu: processor_time(self.process.id())?, syncs })
    }
}

/// What processes have used since they were started.
struct Reading {
    cpu: Duration,
    /// Those of the log that every write goes through. The database behind it syncs a few times a second besides.
    syncs: f64,
}

impl Reading {
    fn since(&self, earlier: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), syncs: self.syncs - earlier.syncs }
    }
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A page of a member. It blocks: nothing else is under way when it is called.
fn fetch(address: &str, path: &str) -> Option<String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build();
    let agent: ureq::Agent = config.into();
    agent.get(format!("http://{address}{path}")).call().ok()?.body_mut().read_to_string().ok()
}

/// User and system time of a process, from /proc, in the kernel's ticks of 10 ms.
fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// How often one thread syncs half a KiB in a second, as in our own bench.
fn fdatasync_rate(data: &Path) -> io::Result<f64> {
    let mut file = File::create(data.join("fdatasync"))?;
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
