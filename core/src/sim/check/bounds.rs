//! Nothing in a node grows beyond its limit, whatever its peers and its clients do.

use alloc::format;
use alloc::string::String;

use crate::limits;
use crate::node::Holding;
use crate::sim::Sim;

/// Whether all running nodes keep within their limits.
///
/// # Errors
///
/// Says which node holds too much of what.
pub fn check(sim: &Sim) -> Result<(), String> {
    for node in (0..sim.len()).filter_map(|place| sim.node(place)) {
        let holding = node.holding();
        if let Some((what, have, limit)) = exceeded(&holding) {
            return Err(format!("{} holds {have} {what}, and {limit} is the limit", sim.name(node.id())));
        }
    }
    Ok(())
}

fn exceeded(holding: &Holding) -> Option<(&'static str, usize, usize)> {
    let asked = holding.operations + holding.requests;
    let bounds = [
        // Gossip goes on beyond the limit of what waits for the disk; that much again is more than it ever says.
        ("parcels that wait for the disk", holding.held, 2 * limits::HELD),
        ("operations", holding.operations, limits::PENDING_OPERATIONS),
        ("requests", holding.requests, limits::PENDING_OPERATIONS),
        // Besides what clients wait for, the registers that are being moved.
        ("proposals", holding.proposals, limits::PENDING_OPERATIONS + limits::TRANSFERS * limits::MOVES),
        ("promised ballots", holding.promised, limits::PROMISED + holding.proposals),
        ("members", holding.members, limits::MEMBERS),
        ("rumours", holding.rumours, holding.members + 1),
        // A deadline and a repetition for each that is asked, a round's for what waits for it, a probe's and a suspicion's
        // for each member, some of its own.
        ("timers", holding.timers, 2 * asked + holding.proposals + 3 * holding.members + 16),
    ];
    bounds.into_iter().find(|(_, have, limit)| have > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_beyond_its_limit_is_noticed() {
        let fine = Holding {
            held: 10,
            operations: 3,
            requests: 2,
            proposals: 2,
            promised: 2,
            timers: 20,
            members: 5,
            rumours: 5,
        };
        assert_eq!(exceeded(&fine), None);
        assert_eq!(exceeded(&Holding { timers: 1_000, ..fine }).map(|(what, ..)| what), Some("timers"));
        assert_eq!(exceeded(&Holding { rumours: 7, ..fine }).map(|(what, ..)| what), Some("rumours"));
        let held = Holding { held: 1 << 20, ..fine };
        assert_eq!(exceeded(&held).map(|(what, ..)| what), Some("parcels that wait for the disk"));
    }
}
