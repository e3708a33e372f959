//! `cargo xtask test`: everything that continuous integration checks, one named step after the other.

use std::time::{Duration, Instant};

use clap::Args;

use crate::{Failure, cargo, fuzz, run, say, setup, sim};

/// What can be chosen.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only the steps whose names contain this.
    #[arg(long)]
    only: Option<String>,
}

/// A step: its name and what it runs.
type Step = (&'static str, fn() -> Result<(), Failure>);

const STEPS: [Step; 24] = [
    ("set-up", set_up),
    ("format", || run(cargo(["fmt", "--all", "--check"]), "cargo fmt")),
    ("lints", || run(cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]), "cargo clippy")),
    ("lints of the web app", || {
        let arguments = ["clippy", "--package", "qunlong-web", "--target", "wasm32-unknown-unknown", "--lib", "--bins"];
        let mut command = cargo(arguments);
        command.args(["--", "--deny", "warnings"]);
        run(command, "cargo clippy")
    }),
    ("documentation", || {
        let mut command = cargo(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
        command.env("RUSTDOCFLAGS", "--deny warnings");
        run(command, "cargo doc")
    }),
    ("core without std", || {
        run(cargo(["build", "--package", "qunlong-core", "--target", "thumbv7em-none-eabihf"]), "the bare-metal build")
    }),
    ("native tests", || run(cargo(["test", "--workspace", "--exclude", "xtask"]), "the native tests")),
    ("4,000 random clusters", || simulate(&["--seeds", "4000", "--steps", "50000"])),
    ("random clusters run twice", || simulate(&["--seeds", "50", "--steps", "50000", "--twice"])),
    ("beyond what is promised", || simulate(&["--seeds", "200", "--steps", "20000", "--beyond"])),
    ("planted bugs", || simulate(&["--mutants", "--seeds", "5000", "--steps", "10000"])),
    ("members come and go", || simulate(&["--churn", "--seeds", "1000", "--steps", "20000"])),
    ("fuzzing", || fuzz::run_all(&fuzz::Arguments { seconds: 30, target: None })),
    ("core under wasm32", || whole_system("wasm")),
    ("real processes", || whole_system("servers")),
    ("real processes, as described", || whole_system("openapi")),
    ("real processes, clients of Redis", || whole_system("resp")),
    ("real processes, locks", || whole_system("locks")),
    ("real processes, watches", || whole_system("watches")),
    ("real processes, recipes", || whole_system("recipes")),
    ("real processes, other owners", || whole_system("epochs")),
    ("real processes, bad disks", || whole_system("disks")),
    ("real processes under faults", || {
        let tests = cargo(["test", "--package", "xtask", "--lib", "--test", "chaos"]);
        run(tests, "the tests in xtask/src/proxy.rs and xtask/tests/chaos.rs")
    }),
    ("real browser", || whole_system("hybrid")),
];

fn simulate(arguments: &[&str]) -> Result<(), Failure> {
    run(sim::command(arguments), &format!("cargo xtask sim {}", arguments.join(" ")))
}

fn whole_system(name: &str) -> Result<(), Failure> {
    run(cargo(["test", "--package", "xtask", "--test", name]), &format!("the tests in xtask/tests/{name}.rs"))
}

fn set_up() -> Result<(), Failure> {
    setup::rust_component("rustfmt", "fmt")?;
    setup::rust_component("clippy", "clippy")?;
    setup::rust_target("wasm32-unknown-unknown")?;
    setup::rust_target("thumbv7em-none-eabihf")?;
    setup::program("redis-cli", "redis-tools")?;
    setup::program("curl", "curl")?;
    setup::chromium().map(drop)
}

/// Runs all steps, also after one has failed, and sums up.
///
/// # Errors
///
/// If any step failed.
pub fn run_all(arguments: &Arguments) -> Result<(), Failure> {
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut results: Vec<(&str, Duration, Result<(), Failure>)> = Vec::new();
    let started = Instant::now();
    for (name, step) in STEPS.into_iter().filter(|(name, _)| wanted(name)) {
        println!();
        say(name);
        let began = Instant::now();
        let result = step();
        if let Err(failure) = &result {
            println!("✗ {name}: {failure}");
        }
        results.push((name, began.elapsed(), result));
        // Without its tools nothing else can be checked.
        if name == "set-up" && results.last().is_some_and(|(.., result)| result.is_err()) {
            break;
        }
    }
    println!("\n  {:<28} {:>8}", "step", "seconds");
    for (name, span, result) in &results {
        let mark = if result.is_ok() { "✓" } else { "✗" };
        println!("{mark} {name:<28} {:>8.1}", span.as_secs_f64());
    }
    println!("  {:<28} {:>8.1}\n", "all", started.elapsed().as_secs_f64());
    let failed: Vec<&str> = results.iter().filter(|(.., result)| result.is_err()).map(|(name, ..)| *name).collect();
    if results.is_empty() {
        return Err(Failure("no step has such a name".to_owned()));
    }
    if failed.is_empty() {
        println!("everything passed; pictures of the screens are in {}", crate::target().join("screens").display());
        return Ok(());
    }
    Err(Failure(format!("failed: {}", failed.join(", "))))
}
