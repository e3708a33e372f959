//! What one load did, as a line of a table.

use serde::Deserialize;

/// The name of the row that tells what the disk can do: how often one thread syncs in a second.
pub(crate) const FDATASYNC: &str = "fdatasync loop";

/// What one load did. `qunlong bench --json` prints one object of these fields for each.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Requests that were done in a second.
    pub(crate) ops: f64,
    /// How long the median request took.
    pub(crate) p50_ms: f64,
    /// How long the slowest but one in a hundred took.
    pub(crate) p99_ms: f64,
    /// Processor time of the three processes together, for each request.
    pub(crate) cpu_us: f64,
    /// Syncs of each of the three, for each request.
    pub(crate) syncs: f64,
    /// Requests that were not done.
    pub(crate) errors: u64,
}

impl Row {
    pub(crate) fn print(&self) {
        let Self { name, ops, p50_ms, p99_ms, cpu_us, syncs, errors } = self;
        println!("{name:<30} {ops:>9.0} {p50_ms:>9.2} {p99_ms:>9.2} {cpu_us:>10.0} {syncs:>13.3} {errors:>7}");
    }
}

/// Prints what the disk can do in this minute, and the head of a table of rows.
pub(crate) fn print_head(syncs_per_second: f64) {
    println!("fdatasync loop of one thread in this minute: {syncs_per_second:.0}/s");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>10} {:>13} {:>7}",
        "load", "ops/s", "p50 ms", "p99 ms", "CPU µs/op", "syncs/op/node", "errors"
    );
}
