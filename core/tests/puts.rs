//! Puts, by way of the simulator: who waits for whom.

use qunlong_core::kv::{self, WriteContext};
use qunlong_core::lift::EventKind;
use qunlong_core::quorum::Level;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::trace::Level as Watched;
use qunlong_core::version::Context;
use qunlong_core::{Bytes, Duration, NodeId, Op};

fn put(key: &str, context: WriteContext) -> Op {
    let (key, value) = (Bytes::from(key), Some(Bytes::from("v")));
    kv::Op::Put { key, value, context, write: None, stored: Level::Majority, within: None }.into()
}

/// The owner that was to mint.
fn minter(sim: &mut Sim) -> Option<NodeId> {
    core::iter::from_fn(|| sim.next_event()).find_map(|event| match event.kind {
        EventKind::Kv(kv::Event::Handed { to, .. }) => Some(to),
        _ => None,
    })
}

/// Who owns nothing of a key hands the write to an owner. If that dies, another one is asked as soon as the link closes,
/// long before the usual time to ask again.
#[test]
fn when_the_owner_that_mints_dies_another_one_is_asked_at_once() {
    for seed in 1..=10 {
        let mut sim = Sim::with(seed, 5, 0, 3, |config| config.autopilot.enabled = false);
        sim.run_for(Duration::secs(10));
        let chosen = sim.node(0).and_then(|node| node.view().chosen.as_ref()).expect("an epoch");
        let asked = (0..5).find(|&place| !chosen.owners_of(b"k").contains(sim.id(place))).expect("three of five own");
        sim.set_level(Watched::Decisions);
        let id = sim.request(asked, put("k", WriteContext::Seen(Context::default()))).expect("it runs");
        let minter = minter(&mut sim).expect("it was handed on");
        let place = (0..5).find(|&place| sim.id(place) == minter).expect("a place");
        let began = sim.now();
        sim.crash(place);
        assert!(sim.run_until(Duration::secs(5), |sim| sim.reply(id).is_some()));
        let took = sim.now().since(began);
        assert!(sim.take_reply(id).is_some_and(|reply| reply.is_ok()), "seed {seed}");
        assert!(took < Duration::millis(100), "seed {seed}: it took {took:?}");
    }
}
