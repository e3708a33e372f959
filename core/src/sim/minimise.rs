//! Shrinks a plan that fails to one that a person can read.
//!
//! Zeller and Hildebrandt's delta debugging ("Simplifying and isolating failure-inducing input", 2002): leave out
//! pieces of the steps, halves first, then quarters, down to single steps, as long as the plan still fails in the same
//! way; then calm the world down, one setting at a time.

use alloc::vec::Vec;

use super::plan::{Plan, Step};
use crate::time::Duration;

/// The smallest plan found for which `fails` still holds. `progress` is told how many steps are left.
pub fn minimise(plan: Plan, mut fails: impl FnMut(&Plan) -> bool, mut progress: impl FnMut(usize)) -> Plan {
    let mut plan = plan;
    loop {
        let before = plan.clone();
        plan = fewer_steps(plan, &mut fails, &mut progress);
        plan = calmer_world(plan, &mut fails);
        if plan == before {
            return plan;
        }
    }
}

fn fewer_steps(mut plan: Plan, fails: &mut impl FnMut(&Plan) -> bool, progress: &mut impl FnMut(usize)) -> Plan {
    let mut size = plan.steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < plan.steps.len() {
            let end = (at + size).min(plan.steps.len());
            let steps: Vec<Step> = plan.steps[..at].iter().chain(&plan.steps[end..]).cloned().collect();
            let smaller = Plan { world: plan.world.clone(), steps };
            if fails(&smaller) {
                plan = smaller;
                progress(plan.steps.len());
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    plan
}

fn calmer_world(mut plan: Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let calmer: [fn(&mut Plan); 6] = [
        |plan| plan.world.bytes = false,
        |plan| plan.world.reorder = false,
        |plan| plan.world.collect = None,
        |plan| plan.world.delay = Duration::millis(2),
        |plan| plan.world.sync = Duration::millis(1),
        |plan| plan.world.servers = 3,
    ];
    for calm in calmer {
        let mut smaller = plan.clone();
        calm(&mut smaller);
        if smaller != plan && fails(&smaller) {
            plan = smaller;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::drawer::Drawer;
    use crate::sim::plan::Action;

    #[test]
    fn only_what_matters_is_left() {
        let mut drawer = Drawer::new(3, false);
        let mut steps: Vec<Step> = drawer.by_ref().take(300).collect();
        steps[70].action = Action::Crash(0);
        steps[200].action = Action::Crash(1);
        let crashes = |plan: &Plan, place| plan.steps.iter().any(|step| step.action == Action::Crash(place));
        let plan = Plan { world: drawer.world, steps };
        let small = minimise(plan, |plan| crashes(plan, 0) && crashes(plan, 1), |_| ());
        assert_eq!(small.steps.len(), 2);
    }
}
