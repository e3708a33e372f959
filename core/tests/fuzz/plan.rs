//! Text that people and tools write: plans of the simulator, and scenarios.
//!
//! The input is taken for each of the two. A plan that is understood is printed and read again as the same plan. What
//! is small enough is also done: a plan is replayed if its first line is `// run`, for judging a whole cluster takes
//! a thousand times as long as reading. A scenario is not read apart from being run, so any that is short is run.

use qunlong_core::Duration;
use qunlong_core::sim::plan::{Action, Plan};
use qunlong_core::sim::{script, swarm};

/// The first line of a plan that is not only read.
pub(crate) const RUN: &str = "// run";

/// Returns whether it was a plan of some steps or a scenario that held.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    // Not `||`: both are looked at.
    plan(text) | scenario(text)
}

fn plan(text: &str) -> bool {
    let plan: Plan = match text.parse() {
        Ok(plan) => plan,
        Err(error) => {
            assert!(text.lines().nth(error.line - 1).is_some_and(|line| line == error.what), "the line is named");
            return false;
        }
    };
    assert_eq!(plan.to_string().parse().as_ref(), Ok(&plan), "a plan reads back as it was printed");
    if text.lines().next() == Some(RUN) && is_small(&plan) {
        let report = swarm::replay(&plan, &mut |_, _| ());
        assert!(report.steps.len() <= plan.steps.len());
    }
    !plan.steps.is_empty()
}

/// Whether it is done in a moment.
fn is_small(plan: &Plan) -> bool {
    let Plan { world, steps } = plan;
    let short = |span: Duration| span <= Duration::secs(2);
    world.servers <= 3
        && world.tabs <= 1
        && world.delay <= Duration::millis(100)
        && world.sync <= Duration::millis(100)
        && world.repair >= Duration::millis(500)
        && steps.len() <= 40
        && steps.iter().all(|step| short(step.at) && short(span(&step.action)))
}

/// How long an action goes on.
fn span(action: &Action) -> Duration {
    match *action {
        Action::Pause(_, span)
        | Action::Clog(_, _, span)
        | Action::Slow(_, _, span)
        | Action::Fill(_, span)
        | Action::Hide(_, span) => span,
        // A faster clock does more in the same time.
        Action::Rate(_, rate) => Duration::millis(rate),
        Action::Put { .. }
        | Action::Get { .. }
        | Action::Again { .. }
        | Action::Crash(_)
        | Action::Start(_)
        | Action::Power
        | Action::Cut(..)
        | Action::Heal(..)
        | Action::Mend
        | Action::Wall(..)
        | Action::Loss(_)
        | Action::Duplicate(_)
        | Action::Wipe(_)
        | Action::Amnesia(_)
        | Action::Change { .. }
        | Action::Fail(_)
        | Action::Flip(_)
        | Action::Misdirect(_) => Duration::ZERO,
    }
}

fn scenario(text: &str) -> bool {
    if !is_short(text) {
        return false;
    }
    match script::run(text) {
        Ok(printed) => !printed.is_empty(),
        Err(error) => {
            assert!((1..=text.lines().count()).contains(&error.line), "the line is named");
            false
        }
    }
}

/// Whether little virtual time passes: a few seconds are waited, and few answers, each for 40 s at most.
fn is_short(text: &str) -> bool {
    let mut waits = 0;
    text.lines().all(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["run", time, ..] => {
            waits += 1;
            waits <= 12 && (time.len() <= 2 || time.len() <= 5 && (time.ends_with("ms") || time.ends_with("us")))
        }
        ["put" | "delete" | "get" | "list", ..] => {
            waits += 1;
            waits <= 12
        }
        _ => true,
    })
}
