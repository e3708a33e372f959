//! `qunlong bench --kill`: how long clients wait when a node is killed under load.
//!
//! Five nodes, and clients of one connection each. The same run twice: in peace, and with one node killed in its middle as
//! `kill -9` does. What counts is the longest time between two answers of any client whose own node lived on: it asks for
//! random keys, so it meets soon, and then all the time, what the killed node owned. Clients of the killed node are
//! left out of both runs, for they would have to connect anew, which measures the client.
//!
//! ```text
//! client of a living node   answer  answer  answer ·· gap ·· answer  answer
//!                                           ▲
//!                                      kill -9 n5
//! ```
//!
//! A refusal is no answer, and whoever is not answered until the end has waited until the end.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Answer, Connection, Load, PORT, next_key};
use crate::BenchArguments;
use crate::demo::Cluster;
use crate::failure::Failure;

const NODES: u8 = 5;
/// The last of them; the cluster counts from `n1`.
const VICTIM: &str = "n5";
/// How long a run is. The node is killed in its middle.
const SPAN: Duration = Duration::from_secs(4);

/// Whether the run is disturbed.
#[derive(Clone, Copy)]
enum Course {
    Peace,
    Kill,
}

/// What the clients of living nodes lived through.
struct Outcome {
    /// The longest gap of each client, in ascending order.
    gaps: Vec<Duration>,
    answers: u64,
    errors: u64,
}

/// Runs both loads, each on a cluster of its own, and prints a table.
pub(super) async fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    println!("five nodes, {} clients of one connection each; {VICTIM} is killed in the middle", arguments.clients);
    println!("of {} s; the longest gap between two answers, of clients of the others\n", SPAN.as_secs());
    println!(
        "{:<14} {:<8} {:>16} {:>17} {:>9} {:>7}",
        "load", "run", "of any, ms", "median client, ms", "ops/s", "errors"
    );
    for (name, load) in [("register set", Load::Set), ("quorum put", Load::Put)] {
        let data = std::env::temp_dir().join(format!("qunlong-kill-{}", std::process::id()));
        let result = on_a_new_cluster(load, arguments, &data).await;
        let _ = std::fs::remove_dir_all(&data);
        let [peace, kill] = result?;
        peace.print(name, "in peace");
        kill.print(name, "killed");
    }
    Ok(())
}

async fn on_a_new_cluster(load: Load, arguments: &BenchArguments, data: &Path) -> Result<[Outcome; 2], Failure> {
    let mut cluster = Cluster::start(NODES, PORT, data, None).await?;
    let result = both_courses(&mut cluster, load, arguments).await;
    cluster.stop().await;
    result
}

async fn both_courses(cluster: &mut Cluster, load: Load, arguments: &BenchArguments) -> Result<[Outcome; 2], Failure> {
    cluster.wait_until_one().await?;
    let peace = drive(cluster, load, Course::Peace, arguments).await?;
    let kill = drive(cluster, load, Course::Kill, arguments).await?;
    Ok([peace, kill])
}

async fn drive(
    cluster: &mut Cluster,
    load: Load,
    course: Course,
    arguments: &BenchArguments,
) -> Result<Outcome, Failure> {
    let failed = |error: String| Failure::new("BENCH_FAILED", error);
    let addresses: Vec<String> = cluster.processes().into_iter().map(|(address, _)| address).collect();
    let mut connections = Vec::new();
    for client in 0..usize::from(arguments.clients) {
        let node = client % addresses.len();
        let connection = Connection::separate(&addresses[node]).await.map_err(|error| failed(error.to_string()))?;
        connections.push((node, connection));
    }
    let value = Bytes::from(vec![b'v'; arguments.value]);
    let end = Instant::now() + SPAN;
    let mut witnesses: Vec<JoinHandle<Life>> = Vec::new();
    for (number, (node, connection)) in (0..).zip(connections) {
        let life = live(connection, addresses[node].clone(), load, value.clone(), number, end);
        let task = tokio::task::spawn_local(life);
        // The nodes come in the order of their names, so the last one is the victim.
        if node + 1 < addresses.len() {
            witnesses.push(task);
        }
    }
    sleep(SPAN / 2).await;
    match course {
        Course::Peace => (),
        Course::Kill => {
            cluster.kill(VICTIM).await?;
        }
    }
    let mut outcome = Outcome { gaps: Vec::new(), answers: 0, errors: 0 };
    for witness in witnesses {
        let life = witness.await.map_err(|error| failed(error.to_string()))?;
        outcome.gaps.push(life.gap);
        outcome.answers += life.answers;
        outcome.errors += life.errors;
    }
    outcome.gaps.sort_unstable();
    Ok(outcome)
}

impl Outcome {
    fn print(&self, name: &str, run: &str) {
        let ms = |gap: Option<&Duration>| gap.map_or(0.0, |gap| gap.as_secs_f64() * 1e3);
        println!(
            "{name:<14} {run:<8} {:>16.0} {:>17.0} {:>9.0} {:>7}",
            ms(self.gaps.last()),
            ms(self.gaps.get(self.gaps.len() / 2)),
            self.answers as f64 / SPAN.as_secs_f64(),
            self.errors,
        );
    }
}

/// What one client lived through.
#[derive(Default)]
struct Life {
    answers: u64,
    errors: u64,
    /// The longest time between two answers, or between the last one and the end.
    gap: Duration,
}

async fn live(
    connection: Connection,
    address: String,
    load: Load,
    value: Bytes,
    mut number: u64,
    end: Instant,
) -> Life {
    let mut life = Life::default();
    let mut last: Option<Instant> = None;
    let began = Instant::now();
    while Instant::now() < end {
        let key = next_key(&mut number);
        match connection.ask(&address, load, key, &value).await {
            Answer::Done => {
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    life.gap = life.gap.max(now - last);
                }
                life.answers += 1;
            }
            Answer::Refused => life.errors += 1,
            Answer::Lost => {
                life.errors += 1;
                break;
            }
        }
    }
    life.gap = life.gap.max(end.saturating_duration_since(last.unwrap_or(began)));
    life
}
