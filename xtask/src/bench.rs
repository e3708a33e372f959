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
}

/// Runs all benches.
///
/// # Errors
///
/// If something does not build or run.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = build_server()?;
    say("three nodes under load");
    let mut command = Command::new(server);
    command.arg("bench").args(["--clients", &arguments.clients.to_string()]);
    command.args(["--seconds", &arguments.seconds.to_string()]);
    crate::run(command, "the cluster's bench")?;
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
