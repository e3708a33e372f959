//! `cargo xtask bench`: what the cluster and the simulator do on this machine, now.

use std::process::Command;

use clap::Args;

use crate::{Failure, build_server, cargo, say};

/// What can be chosen.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Requests outstanding at once.
    #[arg(long, default_value_t = 64)]
    clients: u16,
    /// How long each load runs.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only the cluster, and etcd under the same loads beside it.
    #[arg(long)]
    peers: bool,
}

/// Runs all benches.
///
/// # Errors
///
/// If something does not build or run.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (clients, seconds) = (arguments.clients.to_string(), arguments.seconds.to_string());
    if arguments.peers {
        let mut command = cargo(["bench", "--quiet", "--package", "xtask", "--bench", "peers", "--"]);
        command.args(["--clients", &clients, "--seconds", &seconds]);
        return crate::run(command, "the bench beside etcd");
    }
    let server = build_server()?;
    say("three nodes under load");
    let mut command = Command::new(&server);
    command.args(["bench", "--clients", &clients, "--seconds", &seconds]);
    crate::run(command, "the cluster's bench")?;
    say("five nodes under load, and one is killed");
    let mut command = Command::new(&server);
    command.args(["bench", "--kill", "--clients", &clients]);
    crate::run(command, "the bench of a killed node")?;
    say("the browser");
    crate::run(cargo(["bench", "--quiet", "--package", "xtask", "--bench", "browser"]), "the browser's bench")?;
    say("the simulator");
    crate::run(
        cargo(["bench", "--quiet", "--package", "qunlong-core", "--bench", "simulator"]),
        "the simulator's bench",
    )?;
    say("membership at scale, in virtual time");
    crate::run(
        cargo(["bench", "--quiet", "--package", "qunlong-core", "--bench", "membership"]),
        "the bench of membership",
    )
}
