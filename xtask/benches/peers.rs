//! etcd under the loads of our cluster, one after the other: `cargo bench -p xtask --bench peers`, or
//! `cargo xtask bench --peers`.
//!
//! Both are three processes on loopback with their data on the same disk, and both sync a write on a majority before they
//! answer it. Each is asked for as long, with as many requests outstanding and with values and keys of the same sizes. The
//! load is spread over all three and runs on the cores that they run on. So only the ratios mean something, and of those
//! only the ones of one run.
//!
//! | ours | etcd's | what both promise |
//! |---|---|---|
//! | register set, register read | put, linearizable range | one order of all operations on a key |
//! | quorum put, quorum get | the same | less: concurrent writes become siblings |
//! | add to one register, by all | put to one key, by all | one order, where everybody meets |
//!
//! What differs and cannot be helped: our separate connections are HTTP/1.1, as most clients' are, and etcd's are HTTP/2,
//! for it speaks nothing else. On both sides the load is hyper's and decodes no answer; it is a release build, which is why
//! this is a bench and no part of `cargo xtask` itself.
//!
//! Left out: encryption, watches, leases, reads that may be stale, and histories that have grown for hours.

#[path = "peers/etcd.rs"]
mod etcd;
#[path = "peers/load.rs"]
mod load;
#[path = "peers/row.rs"]
mod row;

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use xtask::{Failure, say, setup};

use row::Row;

/// What can be chosen.
#[derive(Parser)]
struct Arguments {
    /// Requests outstanding at once.
    #[arg(long, default_value_t = 64)]
    clients: u16,
    /// How long each load runs.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// What is set beside each other: etcd's row, our row of quorum puts and gets, and our row of registers.
const LINES: [(&str, Option<&str>, &str); 7] = [
    ("write, 1 client", Some("put, 1 client"), "register set, 1 client"),
    ("write, separate connections", Some("put, separate connections"), "register set, separate"),
    ("write, one connection a node", Some("put, one connection a node"), "register set, one a node"),
    ("read, 1 client", Some("get, 1 client"), "register read, 1 client"),
    ("read, separate connections", Some("get, separate connections"), "register read, separate"),
    ("read, one connection a node", Some("get, one connection a node"), "register read, one a node"),
    ("write, all to one key", None, "all add to one register"),
];

/// A figure's name, the digits behind its point, and where it is in a row.
type Figure = (&'static str, usize, fn(&Row) -> f64);

/// What is compared of the rows.
const FIGURES: [Figure; 4] = [
    ("ops/s", 0, |row| row.ops),
    ("p50 ms", 2, |row| row.p50_ms),
    ("p99 ms", 2, |row| row.p99_ms),
    ("CPU µs/op", 0, |row| row.cpu_us),
];

fn main() -> ExitCode {
    // Cargo itself adds an option.
    let Arguments { clients, seconds } = Arguments::parse_from(std::env::args().filter(|word| word != "--bench"));
    match run(clients, Duration::from_secs(seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("peers: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(clients: u16, span: Duration) -> Result<(), Failure> {
    setup::program("etcd", "etcd-server")?;
    let server = xtask::build_server()?;
    say("our cluster of three under load");
    let ours = ours(&server, clients, span)?;
    println!();
    say("etcd's cluster of three under load");
    let etcds = etcd::measure(clients, span)?;
    println!();
    say("ours beside etcd's; × is ours divided by etcd's");
    for (figure, digits, of) in FIGURES {
        compare(figure, digits, of, [&ours, &etcds])?;
    }
    Ok(())
}

/// Runs our own bench, and prints its rows as they come.
fn ours(server: &Path, clients: u16, span: Duration) -> Result<Vec<Row>, Failure> {
    let failed = |error: io::Error| Failure(format!("our cluster's bench could not be run: {error}"));
    let mut command = Command::new(server);
    command.args(["bench", "--json", "--value", &load::VALUE.to_string()]);
    command.args(["--clients", &clients.to_string(), "--seconds", &span.as_secs().to_string()]);
    let mut bench = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let rows = bench.stdout.take().map(read_rows).unwrap_or_default();
    let status = bench.wait().map_err(failed)?;
    if !status.success() {
        return Err(Failure(format!("our cluster's bench failed ({status}); what it printed above says why")));
    }
    rows.into_iter().collect()
}

/// Reads all there is, also behind a line that is no row: who writes it must not be stopped in its midst.
fn read_rows(output: impl Read) -> Vec<Result<Row, Failure>> {
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let row = serde_json::from_str::<Row>(&line)
            .map_err(|error| Failure(format!("our cluster's bench printed what is no row ({error}): {line}")));
        match &row {
            Ok(row) if row.name == row::FDATASYNC => row::print_head(row.ops),
            Ok(row) => row.print(),
            Err(_) => (),
        }
        rows.push(row);
    }
    rows
}

/// Prints one figure of all loads; of the two runs, ours is the first.
fn compare(figure: &str, digits: usize, of: fn(&Row) -> f64, [ours, etcds]: [&[Row]; 2]) -> Result<(), Failure> {
    println!(
        "\n{figure:<30} {:>12} {:>12} {:>12} {:>10} {:>10}",
        "quorum", "register", "etcd", "quorum ×", "register ×"
    );
    for (line, quorum, register) in LINES {
        let etcd = of(find(etcds, line)?);
        let quorum = quorum.map(|name| find(ours, name).map(of)).transpose()?;
        let register = of(find(ours, register)?);
        println!(
            "{line:<30} {:>12} {register:>12.digits$} {etcd:>12.digits$} {:>10} {:>10.2}",
            quorum.map_or_else(|| "–".to_owned(), |quorum| format!("{quorum:.digits$}")),
            quorum.map_or_else(|| "–".to_owned(), |quorum| format!("{:.2}", quorum / etcd)),
            register / etcd,
        );
    }
    Ok(())
}

fn find<'a>(rows: &'a [Row], name: &str) -> Result<&'a Row, Failure> {
    rows.iter().find(|row| row.name == name).ok_or_else(|| Failure(format!("there is no row of the name {name:?}")))
}
