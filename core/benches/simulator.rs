//! Inputs handled per second by simulated clusters: `cargo bench -p qunlong-core --bench simulator`.

#![expect(clippy::disallowed_types, reason = "a bench measures real time")]

use std::time::{Duration, Instant};

use qunlong_core::kv::{Op as KvOp, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::sim::Sim;
use qunlong_core::{Bytes, Duration as Span, Op};

fn main() {
    println!("{:<44} {:>12} {:>16}", "cluster", "inputs/s", "× real time");
    for (servers, tabs, load) in [(3, 0, false), (3, 0, true), (16, 16, false), (16, 16, true)] {
        let mut sim = Sim::new(1, servers, tabs, 3);
        sim.through_bytes = false;
        sim.run_for(Span::secs(3));
        let (before, began, virtual_start) = (sim.inputs(), Instant::now(), sim.now());
        let mut number = 0_u64;
        while began.elapsed() < Duration::from_secs(3) {
            if load {
                for place in 0..sim.len() {
                    number += 1;
                    let key = Bytes::from(format!("key-{}", number % 1_000).as_str());
                    let put = KvOp::Put {
                        key,
                        value: Some(Bytes::from("value")),
                        context: WriteContext::Current,
                        write: None,
                        stored: Level::Majority,
                        within: None,
                    };
                    sim.request(place, Op::Kv(put));
                }
            }
            sim.run_for(Span::millis(10));
        }
        let seconds = began.elapsed().as_secs_f64();
        let what = format!("{servers} servers, {tabs} tabs, {}", if load { "100 puts/s a node" } else { "idle" });
        println!(
            "{what:<44} {:>12.0} {:>16.1}",
            (sim.inputs() - before) as f64 / seconds,
            sim.now().since(virtual_start).0 as f64 / 1e6 / seconds
        );
    }
}
