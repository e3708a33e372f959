//! After quiet: owners hold the same, and members see each other as they are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{Generation, NodeId};
use crate::member::State;
use crate::sim::Sim;

/// Whether all running nodes hold the same members alive and the owners of each key the same
/// versions of it.
///
/// # Errors
///
/// Says who differs from whom.
pub fn agree(sim: &Sim) -> Result<(), String> {
    let running: Vec<_> = (0..sim.len()).filter_map(|place| sim.node(place)).collect();
    let alive = |node: &crate::Node| -> Vec<_> {
        let members = node.view().members.values().filter(|member| member.state == State::Alive);
        members.map(|member| (member.id, member.generation)).collect()
    };
    let expected: Vec<_> = running.iter().map(|node| (node.id(), node.generation())).collect();
    for node in &running {
        let mut expected = expected.clone();
        expected.sort_unstable();
        if alive(node) != expected {
            let names = |ids: &[(NodeId, Generation)], others: &[(NodeId, Generation)]| -> Vec<String> {
                let only = ids.iter().filter(|id| !others.contains(id));
                let held = |id| node.view().members.get(&id).map(|member| (member.state, member.generation.0));
                only.map(|(id, boot)| format!("{} boot {}, held as {:?}", sim.name(*id), boot.0, held(*id))).collect()
            };
            let alive = alive(node);
            return Err(format!(
                "{} does not see exactly those alive who run: misses [{}], believes in [{}]",
                sim.name(node.id()),
                names(&expected, &alive).join(", "),
                names(&alive, &expected).join(", ")
            ));
        }
    }
    for node in &running {
        let Some(chosen) = &node.view().chosen else {
            continue;
        };
        for (key, versions) in node.store().iter() {
            let owners = chosen.placement.owners_of(key);
            let mut others = running.iter().filter(|other| owners.contains(&other.id()));
            if let Some(other) = others.find(|other| other.store().get(key) != Some(versions)) {
                let (one, other) = (sim.name(node.id()), sim.name(other.id()));
                return Err(format!("{one} and {other} hold different versions of {key:?}"));
            }
        }
    }
    Ok(())
}
