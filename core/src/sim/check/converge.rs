//! After quiet: owners hold the same, and members see each other as they are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{Generation, NodeId};
use crate::member::State;
use crate::sim::Sim;

/// Whether all running nodes, but for one that nobody has to mind, hold the same members alive, are in the same settled
/// epoch, and the owners of each key hold the same versions of it.
///
/// # Errors
///
/// Says who differs from whom.
pub fn agree(sim: &Sim, except: Option<usize>) -> Result<(), String> {
    let places = (0..sim.len()).filter(|&place| Some(place) != except);
    let running: Vec<_> = places.filter_map(|place| sim.node(place)).collect();
    let alive = |node: &crate::Node| -> Vec<_> {
        let members = node.view().members.values().filter(|member| member.state == State::Alive);
        let ignored = except.map(|place| sim.id(place));
        let members = members.filter(|member| Some(member.id) != ignored);
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
    let newest = running.iter().filter_map(|node| node.view().chosen.as_ref()).map(|chosen| chosen.config.epoch).max();
    for node in &running {
        let Some(chosen) = &node.view().chosen else {
            continue;
        };
        if Some(chosen.config.epoch) != newest || chosen.config.next.is_some() {
            let (name, epoch) = (sim.name(node.id()), chosen.config.epoch.0);
            return Err(format!("{name} is in epoch {epoch}, which is not the last, or not settled"));
        }
    }
    let seated = |node: &crate::Node| {
        let seat = node.view().chosen.as_ref().and_then(|chosen| chosen.config.seat(node.id()));
        seat.is_some_and(|seat| seat.incarnation == node.storage())
    };
    for node in running.iter().filter(|node| seated(node)) {
        let Some(chosen) = &node.view().chosen else {
            continue;
        };
        for (key, versions) in node.store().iter() {
            let owners = chosen.owners_of(key).current;
            if !owners.contains(&node.id()) {
                return Err(format!("{} holds {key:?} and does not own it", sim.name(node.id())));
            }
            let mut others = running.iter().filter(|other| owners.contains(&other.id()) && seated(other));
            if let Some(other) = others.find(|other| other.store().get(key) != Some(versions)) {
                let (one, other) = (sim.name(node.id()), sim.name(other.id()));
                return Err(format!("{one} and {other} hold different versions of {key:?}"));
            }
        }
    }
    Ok(())
}
