//! The parts of `cargo xtask`, as a library so that the whole-system tests can build what they need.

pub mod bench;
pub mod check;
pub mod demo;
pub mod fuzz;
pub mod proxy;
pub mod setup;
pub mod sim;
pub mod web;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// One clear sentence about what went wrong.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// The project's folder.
#[must_use]
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command in the project's folder.
#[must_use]
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command, its output passed through.
///
/// # Errors
///
/// If it cannot be started or fails; `what` says what was tried.
pub fn run(mut command: Command, what: &str) -> Result<(), Failure> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure(format!("{what} failed ({status}); what it printed above says why"))),
        Err(error) => Err(Failure(format!("{what} could not be started: {error}"))),
    }
}

/// Says what is being done.
pub fn say(what: &str) {
    println!("▸ {what}");
}

/// The release build of the server, built now if need be.
///
/// # Errors
///
/// If it does not build.
pub fn build_server() -> Result<PathBuf, Failure> {
    run(cargo(["build", "--release", "--package", "qunlong-server"]), "building the server")?;
    Ok(server_binary())
}

/// Where the release build of the server is.
#[must_use]
pub fn server_binary() -> PathBuf {
    target().join("release").join("qunlong")
}
