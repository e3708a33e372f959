//! `cargo xtask`: sets up, builds, runs, tests and measures the project. See `cargo xtask help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{Failure, bench, check, demo, fuzz, proxy, sim, web};

/// Everything there is to do with this project.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and run a cluster of native nodes; open its page to add tabs.
    Demo(demo::Arguments),
    /// Check everything that continuous integration checks.
    Test(check::Arguments),
    /// Run random clusters under random faults, and judge them from outside.
    #[command(disable_help_flag = true)]
    Sim(sim::Arguments),
    /// Feed random bytes, guided by coverage, to everything that reads bytes or text. Needs nightly Rust.
    Fuzz(fuzz::Arguments),
    /// Measure a cluster of three nodes, and the simulator.
    Bench(bench::Arguments),
    /// Stand in front of a node and delay, lose, double, reorder and cut what its peers and it say.
    Proxy(proxy::Arguments),
    /// Build the web app only, into target/web.
    Web {
        /// Quicker to build, slower to run.
        #[arg(long)]
        dev: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => check::run_all(&arguments),
        Command::Fuzz(arguments) => fuzz::run_all(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::Sim(arguments) => match sim::run(&arguments) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Web { dev } => web::build(if dev { web::Profile::Dev } else { web::Profile::Release }).map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
