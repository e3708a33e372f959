//! `cargo xtask fuzz`: runs the core's fuzz targets for a while, each on a copy of its corpus.
//!
//! What is checked is in `core/tests/fuzz`; here is only what it takes to run it: nightly Rust, for the coverage that
//! guides libFuzzer, and cargo-fuzz. Without nightly nothing is fuzzed and nothing fails: the corpus itself is checked
//! by `cargo test` on any toolchain. The core has no unsafe code, so no sanitizer slows it down.
//!
//! The copy is under the target folder, is kept, and grows from run to run; the corpus in the repository does not change.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use crate::{Failure, root, run, say, target};

/// The targets, as in `core/fuzz/fuzz_targets`.
const TARGETS: [&str; 6] = ["frame", "handshake", "journal", "plan", "recording", "step"];
/// An input that takes longer is as bad as one that panics.
const INPUT_SECONDS_MAX: u32 = 20;

/// What can be chosen.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How long each target runs.
    #[arg(long, default_value_t = 30)]
    pub seconds: u32,
    /// Only this target.
    #[arg(long)]
    pub target: Option<String>,
}

/// Runs the targets, one line each.
///
/// # Errors
///
/// If a target does not build or finds something; says where the input is and how to replay it.
pub fn run_all(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.target.as_ref().is_some_and(|wanted| !TARGETS.contains(&wanted.as_str())) {
        return Err(Failure(format!("there is no such target; the targets are {}", TARGETS.join(", "))));
    }
    if !works(&["+nightly", "--version"]) {
        say("nothing was fuzzed: that needs nightly Rust; rustup toolchain install nightly adds it");
        return Ok(());
    }
    if !works(&["+nightly", "fuzz", "--version"]) {
        say("installing cargo-fuzz");
        let mut install = Command::new("cargo");
        install.args(["install", "cargo-fuzz", "--locked", "--quiet"]);
        run(install, "cargo install cargo-fuzz --locked")?;
    }
    let wanted = |name: &str| arguments.target.as_deref().is_none_or(|target| target == name);
    let mut failures = Vec::new();
    for name in TARGETS.into_iter().filter(|name| wanted(name)) {
        match fuzz(name, arguments.seconds) {
            Ok(sum) => println!("{sum}"),
            Err(Failure(what)) => failures.push(what),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure(failures.join("\n"))) }
}

/// Runs one target. Returns what there is to say about it.
fn fuzz(name: &str, seconds: u32) -> Result<String, Failure> {
    let scratch = std::path::absolute(target().join("fuzz"));
    let scratch = scratch.map_err(|error| Failure(format!("cannot tell where the target folder is: {error}")))?;
    let (corpus, found) = (scratch.join("corpus").join(name), scratch.join("found").join(name));
    let log = scratch.join(format!("{name}.log"));
    let prepared = prepare(name, &corpus, &found).and_then(|()| Ok((File::create(&log)?, File::create(&log)?)));
    let (out, err) = prepared.map_err(|error| Failure(format!("cannot prepare {}: {error}", scratch.display())))?;

    run(cargo_fuzz("build", name, &scratch, &[]), &format!("building the fuzz target {name}"))?;
    let mut command = cargo_fuzz("run", name, &scratch, &[&corpus]);
    command.arg("--").arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-artifact_prefix={}/", found.display()));
    let status = command.stdout(out).stderr(err).status();
    let status = status.map_err(|error| Failure(format!("cannot start cargo fuzz: {error}")))?;

    let told = fs::read_to_string(&log).unwrap_or_default();
    if status.success() {
        return Ok(format!("{name:<10} {}", sum(&told)));
    }
    let panic = told.lines().skip_while(|line| !line.contains("panicked at")).take(2).collect::<Vec<_>>().join(" ");
    let input = told.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
    Err(Failure(match input {
        Some(input) => format!(
            "{name} found {input}\n  {panic}\n  cargo +nightly fuzz run --sanitizer none --fuzz-dir core/fuzz {name} {input}"
        ),
        None => format!("{name} did not run to its end ({status}); {} says why", log.display()),
    }))
}

fn prepare(name: &str, corpus: &Path, found: &Path) -> io::Result<()> {
    fs::create_dir_all(corpus)?;
    fs::create_dir_all(found)?;
    for entry in fs::read_dir(root().join("core/fuzz/corpus").join(name))? {
        let entry = entry?;
        fs::copy(entry.path(), corpus.join(entry.file_name()))?;
    }
    Ok(())
}

fn cargo_fuzz(verb: &str, name: &str, scratch: &Path, rest: &[&Path]) -> Command {
    let mut command = rustup_cargo();
    command.args(["+nightly", "fuzz", verb, "--sanitizer", "none", "--fuzz-dir", "core/fuzz", "--target-dir"]);
    command.arg(scratch.join("build")).arg(name).args(rest).current_dir(root());
    command
}

/// The cargo that knows toolchains by name: what `cargo xtask` itself was started by knows only its own.
fn rustup_cargo() -> Command {
    let mut command = Command::new("cargo");
    // Those of the toolchain that runs this would overrule the one that is asked for.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC");
    command
}

fn works(arguments: &[&str]) -> bool {
    let status = rustup_cargo().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs, coverage and speed, from libFuzzer's last line: `#90139 DONE cov: 5936 ft: 23113 corp: 882/137Kb … exec/s: 5633`.
fn sum(told: &str) -> String {
    let last = told.lines().rfind(|line| line.contains("cov: ") && line.starts_with('#')).unwrap_or_default();
    let words: Vec<&str> = last.split_whitespace().collect();
    let after = |name: &str| words.iter().skip_while(|word| **word != name).nth(1).copied().unwrap_or("?");
    let runs = words.first().map_or("?", |word| word.trim_start_matches('#'));
    format!("{runs:>10} runs {:>7} exec/s {:>6} edges {:>6} features", after("exec/s:"), after("cov:"), after("ft:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_summed_up() {
        let told = "#2\tINITED cov: 1 ft: 2 exec/s: 3 rss: 30Mb\n\
                    #90139\tDONE   cov: 5936 ft: 23113 corp: 882/137Kb lim: 410 exec/s: 5633 rss: 36Mb\n\
                    Done 90139 runs in 16 second(s)\n";
        assert_eq!(sum(told), "     90139 runs    5633 exec/s   5936 edges  23113 features");
    }

    #[test]
    fn every_target_is_known_here() {
        let folder = root().join("core/fuzz/fuzz_targets");
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("the targets are there")
            .map(|entry| entry.expect("readable").path().file_stem().expect("named").to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, TARGETS);
    }
}
