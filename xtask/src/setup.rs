//! What the machine must have, installed where that can be done and named where it cannot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Failure, run, say};

/// Adds a compilation target if it is missing.
///
/// # Errors
///
/// If rustup is not there or cannot add it.
pub fn rust_target(target: &str) -> Result<(), Failure> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let installed = installed
        .map_err(|_| Failure(format!("the Rust target {target} is needed and rustup is not there; install rustup")))?;
    if String::from_utf8_lossy(&installed.stdout).lines().any(|line| line == target) {
        return Ok(());
    }
    say(&format!("adding the Rust target {target}"));
    let mut command = Command::new("rustup");
    command.args(["target", "add", target]);
    run(command, &format!("rustup target add {target}"))
}

/// Adds a component of the toolchain if it is missing.
///
/// # Errors
///
/// If rustup cannot add it.
pub fn rust_component(component: &str, program: &str) -> Result<(), Failure> {
    let works = Command::new("cargo").args([program, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if works.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    say(&format!("adding the Rust component {component}"));
    let mut command = Command::new("rustup");
    command.args(["component", "add", component]);
    run(command, &format!("rustup component add {component}"))
}

/// A Chromium for the browser tests: the one that is there, or Debian's, installed when this is root on Debian.
///
/// # Errors
///
/// Says what to install.
pub fn chromium() -> Result<PathBuf, Failure> {
    if let Some(found) = find_chromium() {
        return Ok(found);
    }
    let what =
        "the browser tests need Chromium; install it (Debian: apt-get install chromium), or name one in CHROMIUM";
    debian_packages(&["chromium", "fonts-noto-cjk"], what)?;
    find_chromium().ok_or_else(|| Failure("Chromium was installed and cannot be found".to_owned()))
}

/// A program that a test talks to: the one that is there, or Debian's, installed when this is root on Debian.
///
/// # Errors
///
/// Says what to install.
pub fn program(name: &str, package: &str) -> Result<(), Failure> {
    let is_there = || {
        let found = Command::new("which").arg(name).stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    if is_there() {
        return Ok(());
    }
    debian_packages(&[package], &format!("{name} is needed; install it (Debian: apt-get install {package})"))?;
    if is_there() { Ok(()) } else { Err(Failure(format!("{package} was installed and {name} cannot be found"))) }
}

fn debian_packages(packages: &[&str], what: &str) -> Result<(), Failure> {
    let is_debian = Path::new("/etc/debian_version").exists();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    if !(is_debian && is_root) {
        return Err(Failure(what.to_owned()));
    }
    say(&format!("installing Debian's {}", packages.join(", ")));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        run(command, &format!("apt-get {}", arguments.join(" ")))
    };
    // The package lists may be absent or old; only then are they fetched.
    let install: Vec<&str> =
        ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages.iter().copied()).collect();
    if apt(&install).is_err() {
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

fn find_chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    named.into_iter().chain(usual).find(|path| path.exists())
}
