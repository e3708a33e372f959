//! A recording as the page shows it: the nodes in it live again here, and what they tell is handed out at its pace.

use std::collections::VecDeque;
use std::sync::Arc;

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::member::Member;
use qunlong_core::recording::{self, RecordingError};
use qunlong_core::trace::Level;
use qunlong_core::{Event, EventKind, Instant, Node, NodeId, Now, WallTime};

/// What one node saw of the cluster at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Glance {
    /// As gossip had them there.
    pub members: Vec<Arc<Member>>,
    /// The chosen configuration, once known.
    pub config: Option<ClusterConfig>,
}

/// A recording that is being shown.
#[derive(Clone, Debug)]
pub struct Show {
    /// The file's name.
    pub name: String,
    events: VecDeque<(Instant, Event)>,
    glances: VecDeque<(Instant, Glance)>,
    first: Instant,
    last: Instant,
    /// How much of it has been shown, in ms.
    position: f64,
    /// The state that the replay came to, if the recording has one to compare.
    pub hash: Option<u64>,
}

/// Through whose eyes the members are shown: the node that tells, until another does because it has stopped.
struct Witness {
    node: NodeId,
    heard: Instant,
}

/// A witness that has told nothing for so long has stopped.
const SILENT_MICROS: u64 = 3_000_000;

impl Show {
    /// Replays a whole recording, and keeps what the nodes told.
    ///
    /// # Errors
    ///
    /// If it cannot be replayed.
    pub fn open(name: String, bytes: &[u8]) -> Result<Self, RecordingError> {
        let (mut events, mut glances) = (VecDeque::new(), VecDeque::<(Instant, Glance)>::new());
        let mut witness: Option<Witness> = None;
        let sum = recording::replay(bytes, Level::Messages, &mut |at, node, event| {
            let silent = |witness: &Witness| at.since(witness.heard).0 > SILENT_MICROS;
            if witness.as_ref().is_none_or(|witness| witness.node == node.id() || silent(witness)) {
                witness = Some(Witness { node: node.id(), heard: at });
                let tells_of_members =
                    matches!(event.kind, EventKind::Started | EventKind::Membership(_) | EventKind::Topology(_));
                if tells_of_members || glances.is_empty() {
                    let glance = glance(node);
                    if glances.back().is_none_or(|(_, before)| *before != glance) {
                        glances.push_back((at, glance));
                    }
                }
            }
            // Clocks of different nodes may differ by years; here all share one.
            let event = Event { at: Now { mono: at, wall: WallTime(at.0) }, ..event };
            events.push_back((at, event));
        })?;
        let hash = (sum.states > 0).then_some(sum.hash);
        Ok(Self { name, events, glances, first: sum.first, last: sum.last, position: 0.0, hash })
    }

    /// Moves on by so many ms. Returns what was told meanwhile, and what the cluster looks like now if that changed.
    pub fn advance(&mut self, ms: f64) -> (Vec<Event>, Option<Glance>) {
        self.position = (self.position + ms).min(self.length_ms());
        let until = Instant(self.first.0 + (self.position * 1_000.0) as u64);
        let told = self.events.partition_point(|(at, _)| *at <= until);
        let events = self.events.drain(..told).map(|(_, event)| event).collect();
        let seen = self.glances.partition_point(|(at, _)| *at <= until);
        (events, self.glances.drain(..seen).next_back().map(|(_, glance)| glance))
    }

    /// How much of it has been shown, in whole seconds.
    #[must_use]
    pub fn position_s(&self) -> u64 {
        (self.position / 1_000.0) as u64
    }

    /// How long it lasts, in ms.
    #[must_use]
    pub fn length_ms(&self) -> f64 {
        self.last.since(self.first).0 as f64 / 1_000.0
    }
}

fn glance(node: &Node) -> Glance {
    let view = node.view();
    Glance {
        members: view.members.values().cloned().collect(),
        config: view.chosen.as_ref().map(|chosen| chosen.config.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epochs::End;
    use crate::model::Playback;
    use qunlong_core::Duration;
    use qunlong_core::member::State;
    use qunlong_core::sim::Sim;
    use qunlong_core::topology::{Op, Step};

    #[test]
    fn a_recording_is_shown_from_its_beginning_to_its_end() {
        let mut sim = Sim::recorded(3, 3, 1, 3, |_| ());
        sim.run_for(Duration::secs(4));
        sim.crash(2);
        sim.run_for(Duration::secs(20));
        let bytes = sim.take_recording().expect("it was recorded");
        let mut show = Show::open("a.qlrec".to_owned(), &bytes).expect("it replays");
        assert!(show.hash.is_some());
        let (early, glance) = show.advance(4_000.0);
        assert!(early.len() > 20);
        let alive = |glance: &Glance| glance.members.iter().filter(|m| m.state == State::Alive).count();
        assert_eq!(glance.as_ref().map(alive), Some(4));
        assert!(glance.is_some_and(|glance| glance.config.is_some()));
        let (late, glance) = show.advance(1e9);
        assert!(late.len() > 20);
        assert_eq!(glance.as_ref().map(alive), Some(3), "the crashed one is seen to be dead");
        assert_eq!(show.advance(1_000.0), (Vec::new(), None));
        assert_eq!(show.position_s(), (show.length_ms() / 1_000.0) as u64);
    }

    #[test]
    fn what_is_kept_of_a_recording_is_what_happened_in_it() {
        let mut sim = Sim::recorded(6, 5, 2, 3, |config| config.autopilot.enabled = false);
        sim.run_for(Duration::secs(5));
        let (added, removed) = (sim.id(5), sim.id(1));
        let steps = vec![Step::Add { member: added, weight: 1 }, Step::Remove { member: removed }];
        sim.request(0, Op::Change { steps }.into());
        sim.run_for(Duration::secs(10));
        sim.crash(6);
        sim.run_for(Duration::secs(20));
        let bytes = sim.take_recording().expect("it was recorded");
        let mut show = Show::open("a.qlrec".to_owned(), &bytes).expect("it replays");
        let mut playback = Playback::default();
        let (events, glance) = show.advance(1e9);
        playback.push(0.0, events);
        let config = glance.and_then(|glance| glance.config);
        let change = playback.epochs().change(config.as_ref()).expect("there was a change");
        assert_eq!((change.joins(), change.leaves()), (vec![added], vec![removed]));
        assert_eq!(change.end, Some(End::Completed));
        let rumour = playback.rumours().newest().expect("there was a rumour");
        assert_eq!((rumour.claim.state, rumour.spread().len()), (State::Dead, 6));
    }
}
