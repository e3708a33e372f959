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
mod resp;
mod store;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use failure::Failure;

/// The first port of the demonstration.
const DEMO_PORT: u16 = 7_100;

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
    /// Read and change linearizable registers: one order of all operations, whichever nodes they go through.
    Register {
        #[command(flatten)]
        server: Server,
        #[command(subcommand)]
        what: Register,
    },
    /// Run a command while a lock is held; without one, hold the lock until interrupted. The exit code is the command's; 75 if
    /// the lock was not to be had in time, 76 if it was lost.
    Lock(LockArguments),
    /// Create namespaces, each with one guarantee for all its keys, and list them.
    Namespace {
        #[command(flatten)]
        server: Server,
        #[command(subcommand)]
        what: NamespaceCommand,
    },
    /// Show who is in the cluster, or change who owns and votes.
    Members {
        #[command(flatten)]
        server: Server,
        #[command(subcommand)]
        change: Option<Change>,
    },
    /// Show the epoch: who owns, who votes, what may still fail, and a change under way.
    Topology {
        #[command(flatten)]
        server: Server,
    },
    /// A majority is lost for good: begin a new cluster with what the survivors hold. Says what that may cost, and asks.
    Recover {
        #[command(flatten)]
        server: Server,
        /// Says that a new cluster is wanted. There is no other way.
        #[arg(long, required = true)]
        fork: bool,
        /// All members that survive, the one that is asked among them: names, ids, or an id's first digits.
        #[arg(required = true)]
        survivors: Vec<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
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
    /// Measure a cluster of three nodes on this machine, or of five of which one is killed.
    Bench(BenchArguments),
}

/// What to do with a register. A change prints the version that it made; one whose condition does not hold says which
/// version there is.
#[derive(Subcommand, Clone)]
enum Register {
    /// Print the value.
    Get {
        key: String,
        /// Print the version before it, and a tab.
        #[arg(long)]
        version: bool,
    },
    /// Set the value.
    Put {
        key: String,
        /// The value; `-` reads it from standard input.
        value: String,
        #[command(flatten)]
        condition: Condition,
        /// Seconds after which the value is removed.
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
    },
    /// Remove the value; its version goes on.
    Delete {
        key: String,
        /// Only if the register is of this version.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
    /// Add to a number, and print the sum.
    Increment {
        key: String,
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// List registers that hold a value.
    List {
        /// Only keys that begin with this.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Print what it holds, and every change as it comes: the version, a tab, and the value.
    Watch {
        key: String,
        /// All registers whose keys begin so; each line begins with the key, and a tab.
        #[arg(long)]
        prefix: bool,
    },
    /// Append to the value.
    Append {
        key: String,
        /// What; `-` reads it from standard input.
        value: String,
    },
}

/// What to do about namespaces. What a namespace is stays as it was created.
#[derive(Subcommand, Clone)]
enum NamespaceCommand {
    /// Create one; where there is the very same already, nothing is done.
    Create {
        /// 1 to 32 small letters, digits and hyphens, a letter first.
        name: String,
        /// What is promised for its keys.
        #[arg(long, value_enum)]
        mode: ModeName,
        /// Copies of each key; as many as the cluster has of everything if not given.
        #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u8).range(0..=7))]
        replicas: u8,
    },
    /// List them.
    List,
}

/// What is promised.
#[derive(Clone, Copy, ValueEnum)]
enum ModeName {
    /// Whatever one owner has; concurrent writes become siblings.
    Eventual,
    /// A read meets every acknowledged write; concurrent writes become siblings.
    Quorum,
    /// One order of all reads and writes, without consensus: `qunlong register get`, `put` and `delete`.
    Atomic,
    /// One order of all operations, with conditions and counters: `qunlong register`.
    Consensus,
}

/// On what a change depends.
#[derive(Args, Clone)]
#[group(multiple = false)]
struct Condition {
    /// Only if the register is of this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if it holds nothing.
    #[arg(long)]
    if_absent: bool,
}

/// A change of who owns and votes. Members are named by their names, their ids, or an id's first digits. The command
/// waits until the change is done; it goes on without it.
#[derive(Subcommand, Clone)]
enum Change {
    /// Give members a seat: they own their share and may vote.
    Add { members: Vec<String> },
    /// Take members' seats, all at once.
    Remove { members: Vec<String> },
    /// Give the seat of one member to another.
    Replace { old: String, new: String },
    /// Give a member a larger or smaller share.
    Weight { member: String, weight: u32 },
    /// Give up the change that is under way.
    Abort,
}

/// Which node to ask.
#[derive(Args, Clone)]
struct Server {
    /// Any node of the cluster. Several, given one by one or separated by commas, are asked in turn until one answers.
    #[arg(long, global = true, env = "QUNLONG_SERVER", default_value = "http://127.0.0.1:7100", value_delimiter = ',')]
    server: Vec<String>,
    /// Only if it belongs to this cluster: an id as `qunlong topology` shows it.
    #[arg(long, global = true, env = "QUNLONG_CLUSTER")]
    cluster: Option<String>,
    /// Of keys and registers: those of this namespace.
    #[arg(long, short, global = true, env = "QUNLONG_NAMESPACE")]
    namespace: Option<String>,
}

/// Which lock, and what to do while it is held.
#[derive(Args, Clone)]
struct LockArguments {
    #[command(flatten)]
    server: Server,
    /// What the lock is called. The register lock/NAME keeps it, and others may read that.
    name: String,
    /// For how long the lock outlives its holder: a number of seconds, or 1500ms, 10s, 2m. It is renewed at a third of that.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = client::lock::parse_ttl)]
    ttl: Duration,
    /// Give up when somebody else holds the lock for so long; 0: at once. If not given, wait as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = client::lock::parse_time)]
    wait: Option<Duration>,
    /// Print who holds the lock, with which token, and nothing more.
    #[arg(long, conflicts_with_all = ["ttl", "wait", "command"])]
    show: bool,
    /// The command and its arguments. It finds its token in QUNLONG_LOCK_TOKEN, the lock's name in QUNLONG_LOCK_NAME.
    #[arg(last = true)]
    command: Vec<OsString>,
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
    /// With --bootstrap: tabs alone are to own and vote, and this server only relays. Nothing outlives their closing.
    #[arg(long, requires = "bootstrap")]
    tabs_alone: bool,
    /// What fails together with this node: copies of a key are spread over zones.
    #[arg(long)]
    zone: Option<String>,
    /// Which tabs the autopilot gives seats to.
    #[arg(long, value_enum, default_value_t = TabSeats::Spare)]
    tabs: TabSeats,
    /// Change who owns and votes only when told to.
    #[arg(long)]
    no_autopilot: bool,
    /// Seconds after which the autopilot gives a dead member's seat to another.
    #[arg(long, default_value_t = 60)]
    replace_after: u64,
    /// Also speak the protocol of Redis, at this address. Anything but loopback needs --insecure.
    #[arg(long, value_name = "ADDRESS")]
    resp: Option<SocketAddr>,
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

/// Which tabs get seats.
#[derive(Clone, Copy, ValueEnum)]
enum TabSeats {
    /// None, where there are servers.
    Never,
    /// Durable ones, as long as a server may fail and all tabs be closed at the same time.
    Spare,
    /// Durable ones, as many as a minority.
    Always,
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
    #[arg(long, default_value_t = DEMO_PORT)]
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
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Instead of the loads: how long clients wait when one of five nodes is killed.
    #[arg(long, conflicts_with_all = ["json", "seconds"])]
    kill: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("qunlong: {failure}");
            ExitCode::from(failure.exit)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Lock(arguments) => return client::lock::run(&arguments),
        Command::Node(arguments) => runtime()?.block_on(node::run(*arguments)),
        Command::Demo(arguments) => runtime()?.block_on(demo::run(arguments)),
        Command::Bench(arguments) => runtime()?.block_on(bench::run(arguments)),
        Command::Replay { file, messages } => recording::replay(&file, messages),
        Command::Put { server, key, value } => client::put(&server, &key, &value),
        Command::Get { server, key } => client::get(&server, &key),
        Command::Delete { server, key } => client::delete(&server, &key),
        Command::List { server, prefix } => client::list(&server, &prefix),
        Command::Register { server, what } => client::register(&server, what),
        Command::Namespace { server, what } => client::namespace(&server, what),
        Command::Members { server, change: None } => client::members(&server),
        Command::Members { server, change: Some(change) } => client::change(&server, &change),
        Command::Recover { server, fork: _, survivors, yes } => client::recover(&server, &survivors, yes),
        Command::Topology { server } => client::topology(&server),
        Command::Status { server } => client::status(&server),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// One thread for everything but the journal: the core is one task anyway, and a request that never changes threads
/// costs fewer wake-ups.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("NO_RUNTIME", format!("cannot start: {error}")))
}
