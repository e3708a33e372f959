//! A native node of a leaderless cluster, and the command line to talk to one.

mod bench;
mod client;
mod demo;
mod driver;
mod failure;
mod files;
mod http;
mod hub;
mod identity;
mod link;
mod node;
mod recording;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use failure::Failure;

/// A leaderless cluster of servers and browser tabs.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node.
    Node(Box<NodeArguments>),
    /// Run a cluster on this machine, to look at and to play with.
    Demo(DemoArguments),
    /// Write a key: prints nothing but errors.
    Put {
        #[command(flatten)]
        server: Server,
        key: String,
        /// The value; `-` reads it from standard input.
        value: String,
    },
    /// Read a key: prints its value, or all of them, one a line, when there are several.
    Get {
        #[command(flatten)]
        server: Server,
        key: String,
    },
    /// Delete a key.
    Delete {
        #[command(flatten)]
        server: Server,
        key: String,
    },
    /// List keys.
    List {
        #[command(flatten)]
        server: Server,
        /// Only keys that begin with this.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Show who is in the cluster.
    Members {
        #[command(flatten)]
        server: Server,
    },
    /// Show how a node is doing.
    Status {
        #[command(flatten)]
        server: Server,
    },
    /// Live through a recording again: prints what its nodes decided, and whether they came to the same state.
    Replay {
        file: PathBuf,
        /// Also print every message.
        #[arg(long)]
        messages: bool,
    },
    /// Measure a cluster of three nodes on this machine.
    Bench(BenchArguments),
}

/// Which node to ask.
#[derive(Args, Clone)]
struct Server {
    /// Any node of the cluster.
    #[arg(long, env = "QUNLONG_SERVER", default_value = "http://127.0.0.1:7100")]
    server: String,
}

#[derive(Args, Clone)]
struct NodeArguments {
    /// Where to listen. Anything but loopback needs --insecure.
    #[arg(long, default_value = "127.0.0.1:7100")]
    listen: SocketAddr,
    /// How others reach this node, host:port; where it listens if not given.
    #[arg(long)]
    advertise: Option<String>,
    /// Nodes to join, host:port, separated by commas. They may come up later.
    #[arg(long, value_delimiter = ',')]
    join: Vec<String>,
    /// The folder for the node's key and journal.
    #[arg(long)]
    data: PathBuf,
    /// What people call the node; its id's first digits if not given.
    #[arg(long)]
    name: Option<String>,
    /// Make the first epoch of a new cluster. Exactly one node of a new cluster is told so.
    #[arg(long)]
    bootstrap: bool,
    /// With --bootstrap: owners to wait for, this node included.
    #[arg(long, default_value_t = 3, requires = "bootstrap")]
    owners: u8,
    /// With --bootstrap: copies of each key. At most the number of owners.
    #[arg(long, default_value_t = 3, requires = "bootstrap")]
    replicas: u8,
    /// Serve the dashboard from this folder.
    #[arg(long)]
    web: Option<PathBuf>,
    /// Another host:port that browsers may call this node by.
    #[arg(long)]
    allow_host: Vec<String>,
    /// Listen on a network without encryption. Everybody who reaches the port can read and write.
    #[arg(long)]
    insecure: bool,
    /// Start under a new identity, with the old key and journal moved aside.
    #[arg(long)]
    new_identity: bool,
    /// Write down all that this node is told in a new file, values included, for `qunlong replay` and the dashboard.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How to write the log to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Set by the demonstration: its supervisor's address. The node stops when its standard input closes.
    #[arg(long, hide = true)]
    supervisor: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Args, Clone)]
struct DemoArguments {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// The first node's port; the others follow.
    #[arg(long, default_value_t = 7100)]
    port: u16,
    /// Where to keep the data between runs; a temporary folder if not given.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The dashboard's files.
    #[arg(long)]
    web: Option<PathBuf>,
}

#[derive(Args, Clone)]
struct BenchArguments {
    /// Requests outstanding at once.
    #[arg(long, default_value_t = 64)]
    clients: u16,
    /// How long each load runs.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value: usize,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("qunlong: {failure}");
            ExitCode::from(failure.exit)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Node(arguments) => runtime()?.block_on(node::run(*arguments)),
        Command::Demo(arguments) => runtime()?.block_on(demo::run(arguments)),
        Command::Bench(arguments) => runtime()?.block_on(bench::run(arguments)),
        Command::Replay { file, messages } => recording::replay(&file, messages),
        Command::Put { server, key, value } => client::put(&server.server, &key, &value),
        Command::Get { server, key } => client::get(&server.server, &key),
        Command::Delete { server, key } => client::delete(&server.server, &key),
        Command::List { server, prefix } => client::list(&server.server, &prefix),
        Command::Members { server } => client::members(&server.server),
        Command::Status { server } => client::status(&server.server),
    }
}

/// One thread for everything but the journal: the core is one task anyway, and a request that never changes threads
/// costs fewer wake-ups.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("NO_RUNTIME", format!("cannot start: {error}")))
}
