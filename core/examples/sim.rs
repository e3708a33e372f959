//! `cargo xtask sim`: random clusters by the thousand, one of them in detail, or a plan from a file.
//!
//! Exit codes: 0 all held, 2 bad arguments, 3 something happened that must not (safety), 4 something did not happen in
//! time (liveness), 5 the code itself failed (an assertion), 6 a planted bug was not caught or something was never
//! reached, 7 the same seed ran differently the second time.

#![allow(clippy::disallowed_types, reason = "it measures how fast the simulator is")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use clap::Parser;
use qunlong_core::mutant::{self, Mutant};
use qunlong_core::recording;
use qunlong_core::sim::drawer::Drawer;
use qunlong_core::sim::minimise::minimise;
use qunlong_core::sim::plan::{Plan, Registers};
use qunlong_core::sim::swarm::{self, Failure, REACHED, Report, Watched};
use qunlong_core::trace::Level;

/// Runs random clusters under random faults and judges them from outside.
#[derive(Parser, Clone, Debug)]
#[command(bin_name = "cargo xtask sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Inputs that the nodes of one run handle before it is brought to rest.
    #[arg(long, default_value_t = 50_000)]
    steps: u64,
    /// Runs at a time; all processors if it is not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Replay this one seed and tell what happens, a line for each step and decision.
    #[arg(long)]
    seed: Option<u64>,
    /// Shrink the first failing run to a plan as small as it gets, and write it to this file.
    #[arg(long, value_name = "FILE")]
    minimise: Option<PathBuf>,
    /// With --seed or --plan: record the run to this file, for `--replay`, `qunlong replay` and the dashboard.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Live through a recording again: it must come to the same state.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "from", "plan"])]
    replay: Option<PathBuf>,
    /// Run a plan from a file instead of a drawn one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "from"])]
    plan: Option<PathBuf>,
    /// Also do what the cluster does not promise to survive; it must then fail cleanly.
    #[arg(long)]
    beyond: bool,
    /// Let members come and go all the time.
    #[arg(long, conflicts_with = "beyond")]
    churn: bool,
    /// Let the owners stay.
    #[arg(long, conflicts_with_all = ["beyond", "churn"])]
    steady: bool,
    /// Plant this bug.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Plant every bug in turn: each must be caught within --seeds.
    #[arg(long, conflicts_with_all = ["mutant", "plan", "seed"])]
    mutants: bool,
    /// Run each seed twice: both runs must be the same, input by input.
    #[arg(long, conflicts_with_all = ["mutants", "plan", "seed", "hashes"])]
    twice: bool,
    /// Print a hash of each seed's run and nothing else: equal wherever it runs.
    #[arg(long)]
    hashes: bool,
}

impl Arguments {
    /// What a seed draws. Bugs that only a change of owners can show are looked for where there are many, every second
    /// time, all others where there are none; those of registers where every key is one, those that registers know nothing
    /// of where none is.
    fn drawer(&self, seed: u64) -> Drawer {
        let mut drawer = self.drawn(seed);
        match mutant::current() {
            Some(mutant) if mutant.is_of_atomic() => {
                drawer.world.registers = Registers::All;
                (drawer.world.copies, drawer.world.atomic) = (Some(3), true);
            }
            Some(mutant) if mutant.is_of_registers() => {
                // Those of mode atomic know nothing of it.
                (drawer.world.registers, drawer.world.atomic) = (Registers::All, false);
            }
            Some(mutant) if !mutant.is_of_epochs() => drawer.world.registers = Registers::None,
            _ => (),
        }
        drawer
    }

    fn drawn(&self, seed: u64) -> Drawer {
        match mutant::current() {
            None if self.churn => Drawer::churning(seed),
            None if self.steady => Drawer::steady(seed),
            None => Drawer::new(seed, self.beyond),
            Some(mutant) if mutant.is_of_epochs() && seed.is_multiple_of(2) => Drawer::churning(seed),
            Some(mutant) if mutant.is_of_epochs() => Drawer::new(seed, false),
            Some(_) => Drawer::steady(seed),
        }
    }
}

/// How a run ended, when it did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    Failed(Failure),
    Crashed(String),
    /// Of two runs of the same seed.
    Different(u64, u64),
}

impl Trouble {
    fn code(&self) -> u8 {
        match self {
            Self::Failed(Failure::Safety(_)) => 3,
            Self::Failed(Failure::Liveness(_)) => 4,
            Self::Crashed(_) => 5,
            Self::Different(..) => 7,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Crashed(what) => write!(f, "crash: {what}"),
            Self::Different(one, other) => write!(f, "not deterministic: it ran as {one:016x}, then as {other:016x}"),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic is a result here; it is told with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("{message}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    if let Some(name) = &arguments.mutant {
        let found = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == *name);
        let known = || Mutant::ALL.map(|mutant| format!("{mutant:?}")).join(", ");
        mutant::plant(Some(found.ok_or_else(|| (2, format!("no such bug: {name}; there are {}", known())))?));
    }
    if arguments.mutants {
        return prove_mutants(arguments);
    }
    if let Some(path) = &arguments.replay {
        return replay(path);
    }
    if let Some(path) = &arguments.plan {
        let plan = read_plan(path)?;
        let (_, recording, trouble) = tell(|watch| {
            swarm::run_recorded(&plan.world, plan.steps.iter().cloned(), u64::MAX, arguments.record.is_some(), watch)
        });
        write_recording(arguments, recording)?;
        return trouble.map_or(Ok(()), |trouble| fail(arguments, plan, &trouble));
    }
    if let Some(seed) = arguments.seed {
        let drawer = arguments.drawer(seed);
        println!("{}troubles {}", drawer.world, drawer.troubles.join(" "));
        let (report, recording, trouble) = tell(|watch| drawn_recorded(seed, arguments, watch));
        if let Some(report) = &report {
            println!("{} inputs, hash {:016x}", report.inputs, report.hash);
        }
        write_recording(arguments, recording)?;
        return match trouble {
            Some(trouble) => fail(arguments, written(seed, arguments, report.as_ref()), &trouble),
            None => Ok(()),
        };
    }
    if arguments.hashes {
        for seed in arguments.from..arguments.from + arguments.seeds {
            let report = drawn(seed, arguments, &mut |_, _| ());
            println!("{seed} {:016x}", report.hash);
        }
        return Ok(());
    }
    many(arguments)
}

/// Prints a line, unless whoever reads has seen enough.
fn print_line(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn replay(path: &Path) -> Result<(), (u8, String)> {
    let bytes = std::fs::read(path).map_err(|error| (2, format!("cannot read {}: {error}", path.display())))?;
    let sum = recording::replay(&bytes, Level::Decisions, &mut |at, _, event| {
        print_line(format_args!("{at:>14} · {} {}", event.node, event.kind));
    });
    let sum = sum.map_err(|error| (7, format!("{}: {error}", path.display())))?;
    println!("{} starts, {} inputs, the same state {:016x}", sum.starts, sum.inputs, sum.hash);
    Ok(())
}

fn read_plan(path: &Path) -> Result<Plan, (u8, String)> {
    let text =
        std::fs::read_to_string(path).map_err(|error| (2, format!("cannot read {}: {error}", path.display())))?;
    text.parse().map_err(|error| (2, format!("{}: {error}", path.display())))
}

fn write_recording(arguments: &Arguments, recording: Option<Vec<u8>>) -> Result<(), (u8, String)> {
    let (Some(path), Some(bytes)) = (&arguments.record, recording) else { return Ok(()) };
    std::fs::write(path, &bytes).map_err(|error| (2, format!("cannot write {}: {error}", path.display())))?;
    println!("recorded {} bytes to {}", bytes.len(), path.display());
    Ok(())
}

fn drawn(seed: u64, arguments: &Arguments, watch: &mut dyn FnMut(qunlong_core::Instant, Watched<'_>)) -> Report {
    drawn_recorded(seed, arguments, watch).0
}

fn drawn_recorded(
    seed: u64,
    arguments: &Arguments,
    watch: &mut dyn FnMut(qunlong_core::Instant, Watched<'_>),
) -> (Report, Option<Vec<u8>>) {
    let drawer = arguments.drawer(seed);
    let world = drawer.world.clone();
    // Where all is down steps cost no inputs, and go on without end.
    let steps = drawer.take(arguments.steps as usize / 10);
    swarm::run_recorded(&world, steps, arguments.steps, arguments.record.is_some(), watch)
}

/// Runs something that may panic.
fn guarded(run: impl FnOnce() -> Report) -> (Option<Report>, Option<Trouble>) {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(report) => {
            let trouble = report.verdict.clone().err().map(Trouble::Failed);
            (Some(report), trouble)
        }
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            (None, Some(Trouble::Crashed(what.unwrap_or_default())))
        }
    }
}

/// Runs one and prints every step and decision.
fn tell(
    run: impl FnOnce(&mut dyn FnMut(qunlong_core::Instant, Watched<'_>)) -> (Report, Option<Vec<u8>>),
) -> (Option<Report>, Option<Vec<u8>>, Option<Trouble>) {
    println!("legend: ──  a part of the run   ▶ a step, with places by number   · what a node decided");
    let mut recorded = None;
    let (report, trouble) = guarded(|| {
        let (report, recording) = run(&mut |at, what| match what {
            Watched::Phase(phase) => print_line(format_args!("{at:>14} ── {phase}")),
            Watched::Step(step) => print_line(format_args!("{at:>14} ▶ {}", step.action)),
            Watched::Event(event) => print_line(format_args!("{at:>14} · {} {}", event.node, event.kind)),
        });
        recorded = recording;
        report
    });
    (report, recorded, trouble)
}

/// The plan that a seed draws, as far as it was carried out.
fn written(seed: u64, arguments: &Arguments, report: Option<&Report>) -> Plan {
    let mut drawer = arguments.drawer(seed);
    let world = drawer.world.clone();
    let steps = match report {
        Some(report) => report.steps.clone(),
        // It never got so far as to report. As many steps as inputs are more than enough.
        None => drawer.by_ref().take(arguments.steps as usize).collect(),
    };
    Plan { world, steps }
}

/// Says what went wrong, shrinks it if that was asked for, and ends with its code.
fn fail(arguments: &Arguments, plan: Plan, trouble: &Trouble) -> Result<(), (u8, String)> {
    let Some(path) = &arguments.minimise else {
        return Err((trouble.code(), format!("seed {}: {trouble}", plan.world.seed)));
    };
    println!("seed {}: {trouble}; shrinking {} steps …", plan.world.seed, plan.steps.len());
    let again = |plan: &Plan| guarded(|| swarm::replay(plan, &mut |_, _| ())).1;
    let small = minimise(
        plan,
        |plan| again(plan).is_some_and(|other| other.is_like(trouble)),
        |left| {
            print!("\r{left} steps left   ");
            let _ = std::io::stdout().flush();
        },
    );
    let trouble = again(&small).unwrap_or_else(|| trouble.clone());
    let text = format!("// {trouble}\n{small}");
    std::fs::write(path, &text).map_err(|error| (2, format!("cannot write {}: {error}", path.display())))?;
    println!("\n{text}");
    Err((trouble.code(), format!("written to {}; run it with --plan", path.display())))
}

/// Failing seeds that are told, at most.
const TOLD_MAX: usize = 20;

/// What many seeds came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    inputs: u64,
    reached: BTreeMap<&'static str, u64>,
    /// The failing seeds.
    failures: BTreeMap<u64, Trouble>,
}

/// Runs seeds on several threads. Stops early at a failure if `first` is enough.
fn sweep(arguments: &Arguments, first: bool, mut progress: impl FnMut(&Sum)) -> Sum {
    let jobs =
        arguments.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let (next, stop) = (AtomicU64::new(arguments.from), AtomicBool::new(false));
    let end = arguments.from + arguments.seeds;
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.lock().expect("no thread panics while it holds this").clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (report, trouble) = guarded(|| drawn(seed, arguments, &mut |_, _| ()));
                    let trouble = trouble.or_else(|| run_again(seed, arguments, report.as_ref()?.hash));
                    let _ = sender.send((seed, report, trouble));
                }
            });
        }
        drop(sender);
        for (seed, report, trouble) in receiver {
            sum.runs += 1;
            if let Some(report) = report {
                sum.inputs += report.inputs;
                for (what, count) in report.reached {
                    *sum.reached.entry(what).or_default() += count;
                }
            }
            if let Some(trouble) = trouble {
                sum.failures.insert(seed, trouble);
                stop.fetch_or(first, Ordering::Relaxed);
            }
            progress(&sum);
        }
    });
    sum
}

/// With `--twice`: what is wrong if a seed runs differently the second time.
fn run_again(seed: u64, arguments: &Arguments, hash: u64) -> Option<Trouble> {
    if !arguments.twice {
        return None;
    }
    let (again, trouble) = guarded(|| drawn(seed, arguments, &mut |_, _| ()));
    let other = again.map(|report| report.hash).unwrap_or_default();
    trouble.or_else(|| (other != hash).then_some(Trouble::Different(hash, other)))
}

fn many(arguments: &Arguments) -> Result<(), (u8, String)> {
    let started = Instant::now();
    let mut told = Instant::now();
    let sum = sweep(arguments, false, |sum| {
        if told.elapsed().as_millis() > 1_000 {
            told = Instant::now();
            let rate = sum.inputs as f64 / started.elapsed().as_secs_f64() / 1e6;
            print!("\r{} of {} seeds, {} failed, {rate:.2} M inputs/s ", sum.runs, arguments.seeds, sum.failures.len());
            let _ = std::io::stdout().flush();
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let rate = sum.inputs as f64 / seconds / 1e6;
    println!(
        "\r{} seeds, {} failed, {:.1} M inputs in {seconds:.1} s, {rate:.2} M inputs/s",
        sum.runs,
        sum.failures.len(),
        sum.inputs as f64 / 1e6
    );
    for what in REACHED {
        println!("  {what:<26} {:>12}", sum.reached.get(what).copied().unwrap_or_default());
    }
    for (seed, trouble) in sum.failures.iter().take(TOLD_MAX) {
        println!("seed {seed}: {trouble}");
    }
    if let Some((&seed, trouble)) = sum.failures.first_key_value() {
        let churn = if arguments.churn {
            " --churn"
        } else if arguments.steady {
            " --steady"
        } else {
            ""
        };
        println!("  cargo xtask sim --seed {seed} --steps {}{churn}", arguments.steps);
        if arguments.minimise.is_none() {
            return Err((trouble.code(), format!("{} of {} seeds failed", sum.failures.len(), sum.runs)));
        }
        let (report, _) = guarded(|| drawn(seed, arguments, &mut |_, _| ()));
        return fail(arguments, written(seed, arguments, report.as_ref()), trouble);
    }
    // A few seeds may well miss something; a few hundred may not.
    let missed: Vec<&str> = REACHED.into_iter().filter(|what| !sum.reached.contains_key(what)).collect();
    if sum.runs >= 200 && !missed.is_empty() {
        return Err((6, format!("never reached: {}", missed.join(", "))));
    }
    Ok(())
}

fn prove_mutants(arguments: &Arguments) -> Result<(), (u8, String)> {
    let mut uncaught = Vec::new();
    for mutant in Mutant::ALL {
        let started = Instant::now();
        mutant::plant(Some(mutant));
        let sum = sweep(arguments, true, |_| ());
        // A seed that fails without the bug, too, says nothing about the bug.
        mutant::plant(None);
        let of = mutant.is_of_epochs();
        let sound = |seed: u64| Arguments { churn: of && seed.is_multiple_of(2), steady: !of, ..arguments.clone() };
        let proves = |seed: u64| guarded(|| drawn(seed, &sound(seed), &mut |_, _| ())).1.is_none();
        let caught = sum.failures.iter().find(|(seed, _)| proves(**seed));
        let seconds = started.elapsed().as_secs_f64();
        match caught {
            Some((seed, trouble)) => {
                println!("✓ {:<22} {seconds:>6.1} s  seed {seed}: {trouble}", format!("{mutant:?}"));
            }
            None => {
                println!("✗ {:<22} {seconds:>6.1} s  not caught in {} seeds", format!("{mutant:?}"), sum.runs);
                uncaught.push(format!("{mutant:?}"));
            }
        }
    }
    mutant::plant(None);
    if uncaught.is_empty() {
        println!("all {} planted bugs were caught", Mutant::ALL.len());
        return Ok(());
    }
    Err((6, format!("not caught: {}", uncaught.join(", "))))
}
