//! How rounds on registers went: who was asked, who has answered, who refused, and what came of it.

use std::collections::VecDeque;

use qunlong_core::paxos::Ballot;
use qunlong_core::registers::{Event, Phase};
use qunlong_core::{Bytes, NodeId};

use crate::epochs::Mark;

/// Rounds that are kept.
const ROUNDS: usize = 24;

/// One round of one proposer on one register.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Counts rounds, for stable keys.
    pub number: u64,
    /// The register.
    pub key: String,
    /// Who asks.
    pub proposer: NodeId,
    /// Its ballot; `None` if it only reads.
    pub ballot: Option<Ballot>,
    /// Whether phase 1 was left out.
    pub at_once: bool,
    /// Whether a read did not agree before.
    pub disagreed: bool,
    /// Who is asked.
    pub acceptors: Vec<NodeId>,
    /// Who has reported or promised, in order.
    pub heard: Vec<NodeId>,
    /// Who has accepted, in order.
    pub accepted: Vec<NodeId>,
    /// Who has refused, and what it had promised to whom.
    pub refused: Vec<(NodeId, Ballot)>,
    /// Votes that count so far in each phase: while owners change, one acceptor may have a vote in both groups.
    pub have: (u8, u8),
    /// How many must report or promise, and how many accept.
    pub needed: (u8, u8),
    /// The version that was proposed or read.
    pub version: Option<u64>,
    /// Requests that it decides.
    pub requests: u16,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A majority has accepted.
    Chosen,
    /// A majority reports the same.
    Agreed,
    /// Another proposer was faster.
    Outbid,
    /// It went on as another one.
    Followed,
}

impl Round {
    /// What is known of one acceptor's answer.
    #[must_use]
    pub fn mark(&self, acceptor: NodeId) -> Mark {
        if self.accepted.contains(&acceptor) {
            return Mark::Accepted;
        }
        if !self.heard.contains(&acceptor) {
            return Mark::Silent;
        }
        if self.ballot.is_some() { Mark::Promised } else { Mark::Reported }
    }

    /// Whom an acceptor has promised more to.
    #[must_use]
    pub fn refusal(&self, acceptor: NodeId) -> Option<Ballot> {
        self.refused.iter().find(|(node, _)| *node == acceptor).map(|(_, promised)| *promised)
    }
}

/// The newest rounds.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    newest_first: VecDeque<Round>,
    count: u64,
}

impl Rounds {
    /// The newest rounds, newest first.
    #[must_use]
    pub fn list(&self) -> &VecDeque<Round> {
        &self.newest_first
    }

    /// Takes in what a node told.
    pub fn see(&mut self, node: NodeId, event: &Event) {
        match event {
            Event::Reading { key, owners, needed, .. } => {
                self.begin(node, key, owners, |round| round.needed.0 = *needed);
            }
            Event::Prepared { key, ballot, owners, needed } => {
                let disagreed = self.of(node, key).is_some_and(|round| round.ballot.is_none());
                self.begin(node, key, owners, |round| {
                    (round.ballot, round.needed.0, round.disagreed) = (Some(*ballot), *needed, disagreed);
                });
            }
            Event::Proposed { key, ballot, owners, version, requests, at_once, needed } => {
                let is_it = |round: &&mut Round| round.ballot == Some(*ballot);
                if self.of(node, key).filter(is_it).is_none() {
                    self.begin(node, key, owners, |round| (round.ballot, round.at_once) = (Some(*ballot), *at_once));
                }
                if let Some(round) = self.of(node, key) {
                    (round.needed.1, round.version, round.requests) = (*needed, Some(*version), *requests);
                }
            }
            Event::Counted { key, phase, from, have, .. } => {
                if let Some(round) = self.of(node, key) {
                    let (counted, votes) = match phase {
                        Phase::Accepting => (&mut round.accepted, &mut round.have.1),
                        Phase::Reading | Phase::Preparing => (&mut round.heard, &mut round.have.0),
                    };
                    *votes = *have;
                    if !counted.contains(from) {
                        counted.push(*from);
                    }
                }
            }
            Event::Outbid { key, ballot, from, promised } => {
                let is_it = |round: &&mut Round| round.ballot == Some(*ballot);
                if let Some(round) = self.of(node, key).filter(is_it) {
                    round.refused.push((*from, *promised));
                }
            }
            Event::Chosen { key, version, .. } => self.end(node, key, *version, End::Chosen),
            Event::Agreed { key, version } => self.end(node, key, *version, End::Agreed),
            Event::Asked { .. } | Event::Finished { .. } | Event::Moved { .. } => (),
        }
    }

    /// The round that a proposer has under way on a register.
    fn of(&mut self, node: NodeId, key: &Bytes) -> Option<&mut Round> {
        let key = key.to_string();
        self.newest_first.iter_mut().find(|round| round.proposer == node && round.key == key && round.end.is_none())
    }

    fn begin(&mut self, node: NodeId, key: &Bytes, acceptors: &[NodeId], fill: impl FnOnce(&mut Round)) {
        if let Some(before) = self.of(node, key) {
            before.end = Some(if before.refused.is_empty() { End::Followed } else { End::Outbid });
        }
        self.count += 1;
        let mut round = Round {
            number: self.count,
            key: key.to_string(),
            proposer: node,
            ballot: None,
            at_once: false,
            disagreed: false,
            acceptors: acceptors.to_vec(),
            heard: Vec::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            have: (0, 0),
            needed: (0, 0),
            version: None,
            requests: 1,
            end: None,
        };
        fill(&mut round);
        self.newest_first.push_front(round);
        self.newest_first.truncate(ROUNDS);
    }

    fn end(&mut self, node: NodeId, key: &Bytes, version: u64, end: End) {
        if let Some(round) = self.of(node, key) {
            (round.version, round.end) = (Some(version), Some(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::Generation;

    fn n(node: u8) -> NodeId {
        NodeId::small(node)
    }

    fn ballot(counter: u64, node: u8) -> Ballot {
        Ballot { counter, node: n(node), generation: Generation(1) }
    }

    fn key() -> Bytes {
        Bytes::from("k")
    }

    fn counted(phase: Phase, from: u8) -> Event {
        Event::Counted { key: key(), phase, from: n(from), have: 1, needed: 2 }
    }

    #[test]
    fn a_round_fills_and_ends() {
        let mut rounds = Rounds::default();
        let owners = vec![n(1), n(2), n(3)];
        rounds.see(n(1), &Event::Prepared { key: key(), ballot: ballot(5, 1), owners: owners.clone(), needed: 2 });
        rounds.see(n(1), &counted(Phase::Preparing, 1));
        rounds.see(n(1), &counted(Phase::Preparing, 3));
        let (version, requests, at_once, needed) = (4, 2, false, 2);
        let proposed = Event::Proposed { key: key(), ballot: ballot(5, 1), owners, version, requests, at_once, needed };
        rounds.see(n(1), &proposed);
        rounds.see(n(1), &counted(Phase::Accepting, 3));
        let marks = |rounds: &Rounds| [1, 2, 3].map(|node| rounds.list()[0].mark(n(node)));
        assert_eq!(marks(&rounds), [Mark::Promised, Mark::Silent, Mark::Accepted]);
        rounds.see(n(1), &Event::Chosen { key: key(), ballot: ballot(5, 1), version: 4 });
        assert_eq!((rounds.list().len(), rounds.list()[0].end), (1, Some(End::Chosen)));
        // Later answers belong to no round that is under way.
        rounds.see(n(1), &counted(Phase::Accepting, 2));
        assert_eq!(marks(&rounds)[1], Mark::Silent);
    }

    #[test]
    fn votes_are_those_that_the_proposer_counts() {
        let mut rounds = Rounds::default();
        let owners = vec![n(1), n(2), n(3), n(4)];
        rounds.see(n(1), &Event::Prepared { key: key(), ballot: ballot(5, 1), owners, needed: 4 });
        // It has a vote in the old group and in the new one.
        let both = Event::Counted { key: key(), phase: Phase::Preparing, from: n(2), have: 2, needed: 4 };
        rounds.see(n(1), &both);
        assert_eq!((rounds.list()[0].have, rounds.list()[0].heard.len()), ((2, 0), 1));
    }

    #[test]
    fn who_is_outbid_begins_again_and_says_by_whom() {
        let mut rounds = Rounds::default();
        let owners = vec![n(1), n(2), n(3)];
        rounds.see(n(1), &Event::Prepared { key: key(), ballot: ballot(5, 1), owners: owners.clone(), needed: 2 });
        rounds.see(n(2), &Event::Prepared { key: key(), ballot: ballot(6, 2), owners: owners.clone(), needed: 2 });
        let outbid = Event::Outbid { key: key(), ballot: ballot(5, 1), from: n(3), promised: ballot(6, 2) };
        rounds.see(n(1), &outbid);
        rounds.see(n(1), &Event::Prepared { key: key(), ballot: ballot(7, 1), owners, needed: 2 });
        let ends: Vec<Option<End>> = rounds.list().iter().map(|round| round.end).collect();
        assert_eq!(ends, [None, None, Some(End::Outbid)]);
        assert_eq!(rounds.list()[2].refusal(n(3)), Some(ballot(6, 2)));
    }

    #[test]
    fn a_read_that_does_not_agree_goes_on_as_a_round_with_a_ballot() {
        let mut rounds = Rounds::default();
        let owners = vec![n(1), n(2), n(3)];
        rounds.see(n(1), &Event::Reading { key: key(), round: 1, owners: owners.clone(), needed: 2 });
        rounds.see(n(1), &counted(Phase::Reading, 1));
        assert_eq!(rounds.list()[0].mark(n(1)), Mark::Reported);
        rounds.see(n(1), &Event::Prepared { key: key(), ballot: ballot(5, 1), owners, needed: 2 });
        assert!(rounds.list()[0].disagreed);
        assert_eq!(rounds.list()[1].end, Some(End::Followed));
    }
}
