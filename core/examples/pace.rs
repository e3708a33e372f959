//! A fixed piece of simulated life, to be timed from outside: natively and in a browser, which has no clock in here.
//! Prints how many inputs its nodes handled, the same on every target.

use qunlong_core::kv::{Op as KvOp, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::sim::Sim;
use qunlong_core::{Bytes, Duration, Op};

/// Simulated seconds without any client.
const IDLE: u64 = 60_000;
/// Puts one after the other.
const PUTS: u64 = 40_000;

fn main() {
    let mut sim = Sim::new(1, 3, 0, 3);
    sim.through_bytes = false;
    sim.run_for(Duration::secs(IDLE));
    for n in 0..PUTS {
        let key = Bytes::from(format!("key-{}", n % 1_000).as_str());
        let (value, context) = (Some(Bytes::from("value")), WriteContext::Current);
        let put = KvOp::Put { key, value, context, write: None, stored: Level::Majority, within: None };
        sim.request((n % 3) as usize, Op::Kv(put));
        sim.run_for(Duration::millis(3));
    }
    println!("{}", sim.inputs());
}
