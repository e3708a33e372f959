//! `cargo xtask sim`: builds the simulator's command line with its planted bugs, and hands over to it.

use std::ffi::OsStr;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::{Failure, cargo};

/// What is passed on; see `core/examples/sim.rs`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Passed on; `cargo xtask sim --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs it and ends with its exit code, which tells safety, liveness and crashes apart.
///
/// # Errors
///
/// If cargo cannot be started.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let status = command(&arguments.rest).status().map_err(|error| Failure(format!("cannot start cargo: {error}")))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The simulator with these arguments.
pub(crate) fn command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = cargo(["run", "--quiet", "--release", "--package", "qunlong-core", "--features", "mutants"]);
    command.args(["--example", "sim", "--"]).args(arguments);
    command
}
