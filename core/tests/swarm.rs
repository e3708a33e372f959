//! Random clusters under random faults, judged from outside: a share of what `cargo xtask sim` runs by the thousand.
//! Natively and in wasm32 the same.

use qunlong_core::Duration;
use qunlong_core::sim::drawer::Drawer;
use qunlong_core::sim::plan::Plan;
use qunlong_core::sim::swarm::{self, Failure, Report};

/// Inputs that the nodes of one run handle.
const INPUTS: u64 = 3_000;

fn run(seed: u64, tune: impl FnOnce(&mut Drawer)) -> Report {
    let mut drawer = Drawer::new(seed, false);
    tune(&mut drawer);
    let world = drawer.world.clone();
    swarm::run(&world, drawer.take(1_000), INPUTS, &mut |_, _| ())
}

#[test]
fn whatever_a_seed_draws_the_promises_hold() {
    for seed in 1..=40 {
        assert_eq!(run(seed, |_| ()).verdict, Ok(()), "seed {seed}");
    }
}

#[test]
fn beyond_what_is_promised_it_fails_cleanly() {
    for seed in 1..=40 {
        let drawer = Drawer::new(seed, true);
        let world = drawer.world.clone();
        let report = swarm::run(&world, drawer.take(1_000), INPUTS, &mut |_, _| ());
        assert_eq!(report.verdict, Ok(()), "seed {seed}");
    }
}

/// Nothing can survive a disk that acknowledges what it does not keep; the judges must see that.
#[test]
fn a_disk_that_lies_is_found_out() {
    let caught = (1..=40).find(|&seed| {
        let report = run(seed, |drawer| {
            (drawer.world.lies, drawer.world.sync) = (true, Duration::secs(2));
            drawer.troubles = vec!["crash", "power"];
        });
        matches!(report.verdict, Err(Failure::Safety(_)))
    });
    assert!(caught.is_some(), "acknowledging before the sync must lose an acked write in some seed");
}

#[test]
fn a_plan_that_was_written_down_runs_as_the_one_that_was_drawn() {
    for seed in 1..=5 {
        let drawn = run(seed, |_| ());
        let plan = Plan { world: Drawer::new(seed, false).world, steps: drawn.steps.clone() };
        let text = plan.to_string();
        let read: Plan = text.parse().expect("what was written can be read");
        assert_eq!(swarm::replay(&read, &mut |_, _| ()).hash, drawn.hash, "seed {seed}");
    }
}

/// Plans that once failed, shrunk by `cargo xtask sim --minimise FILE`.
#[test]
fn what_once_failed_holds() {
    const KEPT: [(&str, &str); 1] = [("full_disks", include_str!("plans/full_disks.txt"))];
    for (name, text) in KEPT {
        let plan: Plan = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(swarm::replay(&plan, &mut |_, _| ()).verdict, Ok(()), "{name}");
    }
}

/// Equal natively and in wasm32, because both are compared to the same file.
#[test]
fn equal_seeds_give_equal_runs_on_every_target() {
    let hashes = (1..=20).map(|seed| format!("{seed} {:016x}\n", run(seed, |_| ()).hash)).collect::<String>();
    #[cfg(not(target_family = "wasm"))]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swarm.hashes");
        return std::fs::write(file, hashes).expect("the file can be written");
    }
    assert_eq!(hashes, include_str!("swarm.hashes"), "UPDATE_GOLDEN=1 writes what is true now");
}
