//! Owners compare what they hold: who comes back is not kept waiting.

use qunlong_core::kv::{self, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::version::Context;
use qunlong_core::{Bytes, Duration, Op};

/// One owner knows something that nobody else does. Once the others are back it reaches each of them at once, not
/// after as many intervals as there are owners.
#[test]
fn what_one_owner_alone_knows_reaches_all_who_come_back() {
    for seed in 1..=5 {
        let mut sim = Sim::with(seed, 5, 0, 5, |config| config.autopilot.enabled = false);
        sim.run_for(Duration::secs(10));
        (1..5).for_each(|place| sim.crash(place));
        sim.run_for(Duration::secs(20));
        let key = Bytes::from("news");
        let value = Some(Bytes::from("of one alone"));
        // With a context of its own nothing is read first, so the owner mints.
        let context = WriteContext::Seen(Context::default());
        let stored = Level::Majority;
        let put = kv::Op::Put { key: key.clone(), value, context, write: None, stored, within: None };
        let id = sim.request(0, Op::from(put)).expect("it runs");
        assert!(sim.run_until(Duration::secs(20), |sim| sim.reply(id).is_some()));
        assert!(sim.take_reply(id).is_some_and(|reply| reply.is_err()), "nobody else is there");
        (1..5).for_each(|place| sim.start(place));
        let all_linked = |sim: &Sim| sim.node(0).is_some_and(|node| node.view().links.len() == 4);
        assert!(sim.run_until(Duration::secs(10), all_linked));
        let holds = |sim: &Sim, place| sim.node(place).is_some_and(|node| node.store().get(&key).is_some());
        let all_hold = |sim: &Sim| (1..5).all(|place| holds(sim, place));
        assert!(sim.run_until(Duration::secs(2), all_hold), "seed {seed}: somebody still waits");
    }
}
