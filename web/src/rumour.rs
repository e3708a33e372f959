//! How a rumour spread: who came to know a claim about a member, when, and from whom. Pure.
//!
//! Whoever knows a rumour tells it to a few members at random in every round, so the number of those who know it
//! grows like an infection: slowly while few tell, then fast, then slowly again while few are left to be told.
//!
//! ```text
//!   nodes that know      seen, a step per node ──┐        ┌────────
//!                                                │   ┌────┘ · ·
//!                                       predicted · ·│· ·
//!                        first ─────────────┴────────┘             ms since the first
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use qunlong_core::config::MembershipConfig;
use qunlong_core::lift::EventKind;
use qunlong_core::member::Member;
use qunlong_core::membership::Event as MembershipEvent;
use qunlong_core::trace::Cause;
use qunlong_core::{Event, NodeId, WallTime};

/// Claims remembered.
const CLAIMS: usize = 64;
/// Whoever comes to know a claim so long after the first was not there when it spread.
const LATE_MS: u64 = 30_000;

/// The newest claims about members and how they spread.
#[derive(Clone, Debug, Default)]
pub struct Rumours {
    /// Newest first.
    claims: VecDeque<Rumour>,
}

/// One claim and who told that it had come to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rumour {
    /// The claim.
    pub claim: Arc<Member>,
    /// Each node once, by its own clock.
    heard: Vec<Heard>,
}

#[derive(Clone, Debug, PartialEq)]
struct Heard {
    at: WallTime,
    node: NodeId,
    from: Option<NodeId>,
}

/// A step of the curve: one more node knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Infection {
    /// Who.
    pub node: NodeId,
    /// From whom; `None` if it found out itself.
    pub from: Option<NodeId>,
    /// How long after the first.
    pub after_ms: f64,
    /// How many know it with this one.
    pub know: usize,
    /// Whether it told so itself. If not, somebody heard it from this one, who so has known it by then.
    pub told: bool,
}

impl Rumours {
    /// Takes in what a node told. Whether it changed anything.
    pub fn see(&mut self, event: &Event) -> bool {
        let EventKind::Membership(MembershipEvent::Joined(claim) | MembershipEvent::Changed(claim)) = &event.kind
        else {
            return false;
        };
        let from = match event.cause {
            Cause::Message(message) => Some(message.node),
            Cause::Start | Cause::Request(_) | Cause::Durable | Cause::Timer | Cause::Link => None,
        };
        let heard = Heard { at: event.at.wall, node: event.node, from };
        let same =
            |rumour: &&mut Rumour| (rumour.claim.id, rumour.claim.precedence()) == (claim.id, claim.precedence());
        match self.claims.iter_mut().find(same) {
            Some(rumour) => rumour.hear(heard),
            None => {
                self.claims.push_front(Rumour { claim: claim.clone(), heard: vec![heard] });
                self.claims.truncate(CLAIMS);
                true
            }
        }
    }

    /// The newest claim that has spread at all: at least two have told of it.
    #[must_use]
    pub fn newest(&self) -> Option<&Rumour> {
        self.claims.iter().filter(|rumour| rumour.heard.len() > 1).max_by_key(|rumour| rumour.heard[0].at)
    }
}

impl Rumour {
    fn hear(&mut self, heard: Heard) -> bool {
        let late = self.heard.first().is_some_and(|first| heard.at.since(first.at).as_millis() > LATE_MS);
        if late || self.heard.iter().any(|before| before.node == heard.node) {
            return false;
        }
        let at = self.heard.partition_point(|before| (before.at, before.node) <= (heard.at, heard.node));
        self.heard.insert(at, heard);
        true
    }

    /// Who came to know it, in order; also those who told others and whose own word does not reach this page.
    #[must_use]
    pub fn spread(&self) -> Vec<Infection> {
        let mut known: Vec<(WallTime, bool, &Heard)> = self.heard.iter().map(|heard| (heard.at, true, heard)).collect();
        let mut silent = BTreeSet::new();
        for heard in &self.heard {
            let from = heard.from.filter(|from| *from != self.claim.id && !self.heard.iter().any(|h| h.node == *from));
            // The first that it told comes first, for they are in order.
            if from.is_some_and(|from| silent.insert(from)) {
                known.push((heard.at, false, heard));
            }
        }
        known.sort_by_key(|&(at, told, heard)| (at, told, heard.node));
        let first = known.first().map(|&(at, ..)| at).unwrap_or_default();
        let infection = |((at, told, heard), know): ((WallTime, bool, &Heard), usize)| {
            let after_ms = at.since(first).0 as f64 / 1_000.0;
            let (node, from) = if told { (heard.node, heard.from) } else { (heard.from.unwrap_or(heard.node), None) };
            Infection { node, from, after_ms, know, told }
        };
        known.into_iter().zip(1..).map(infection).collect()
    }

    /// How many knew it from the start: they found out themselves or have it from the member that it is about, well before
    /// a first round of telling was over.
    #[must_use]
    pub fn sources(&self, settings: &MembershipConfig) -> usize {
        let first = self.heard.first().map(|heard| heard.at).unwrap_or_default();
        let early = |heard: &&Heard| {
            let itself = heard.from.is_none_or(|from| from == self.claim.id);
            itself && heard.at.since(first).times(4) < settings.gossip_interval
        };
        self.heard.iter().filter(early).count().max(1)
    }

    /// How many could know it: of `tellers` all but the member that it is about, and those who do.
    pub fn audience(&self, tellers: impl IntoIterator<Item = NodeId>) -> usize {
        let tellers = tellers.into_iter().filter(|&teller| teller != self.claim.id);
        let all: BTreeSet<NodeId> = tellers.chain(self.spread().into_iter().map(|infection| infection.node)).collect();
        all.len()
    }
}

/// How many of `n` know a rumour after each round, if `sources` know it at first and everybody who knows it tells a few
/// at random in every round: in ms since the first, until less than half a member does not know it.
///
/// Of those who do not know it yet, one is missed by a message with probability 1 − 1/n, and so by all the messages of
/// a round from i members to `fanout` each with that to the power of i · `fanout`.
#[must_use]
pub fn predicted(n: usize, sources: usize, settings: &MembershipConfig) -> Vec<(f64, f64)> {
    /// Bounds the curve where a round reaches nobody.
    const ROUNDS: u32 = 50;
    let n = n.max(sources).max(1) as f64;
    let (fanout, round_ms) = (f64::from(settings.gossip_fanout), settings.gossip_interval.as_millis() as f64);
    let mut know = sources.max(1) as f64;
    let mut curve = vec![(0.0, know)];
    for round in 1..=ROUNDS {
        if n - know < 0.5 {
            break;
        }
        know += (n - know) * (1.0 - (1.0 - 1.0 / n).powf(fanout * know));
        curve.push((round_ms * f64::from(round), know));
    }
    curve
}

/// Where the curve is drawn: from (0, 0) at its lower left, time to the right and nodes upwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chart {
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
    /// The time at its right edge.
    pub last_ms: f64,
    /// The number of nodes at its upper edge.
    pub most: usize,
}

impl Chart {
    /// A chart of this size on which both curves fit.
    #[must_use]
    pub fn fit(width: f64, height: f64, seen: &[Infection], predicted: &[(f64, f64)], audience: usize) -> Self {
        let seen_ms = seen.last().map_or(0.0, |last| last.after_ms);
        let predicted_ms = predicted.last().map_or(0.0, |&(at, _)| at);
        let last_ms = seen_ms.max(predicted_ms).max(1.0) * 1.04;
        Self { width, height, last_ms, most: audience.max(seen.len()).max(1) }
    }

    /// From the left.
    #[must_use]
    pub fn x(&self, ms: f64) -> f64 {
        self.width * ms / self.last_ms
    }

    /// From the top.
    #[must_use]
    pub fn y(&self, know: f64) -> f64 {
        self.height * (1.0 - know / self.most as f64)
    }

    /// The step line: it stays where it is until one more knows.
    #[must_use]
    pub fn steps(&self, seen: &[Infection]) -> String {
        let mut path = format!("M0 {:.1}", self.height);
        for infection in seen {
            path.push_str(&format!("H{:.1}V{:.1}", self.x(infection.after_ms), self.y(infection.know as f64)));
        }
        path.push_str(&format!("H{:.1}", self.width));
        path
    }

    /// The predicted line, level from its last point on.
    #[must_use]
    pub fn line(&self, predicted: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (i, &(ms, know)) in predicted.iter().enumerate() {
            let letter = if i == 0 { 'M' } else { 'L' };
            path.push_str(&format!("{letter}{:.1} {:.1}", self.x(ms), self.y(know)));
        }
        path.push_str(&format!("H{:.1}", self.width));
        path
    }

    /// From whoever told to whoever was told, bent to the right of the step line: the branches of the tree.
    #[must_use]
    pub fn branches(&self, seen: &[Infection]) -> Vec<String> {
        let at = |infection: &Infection| (self.x(infection.after_ms), self.y(infection.know as f64));
        let branch = |infection: &Infection| {
            let teller = seen.iter().find(|other| Some(other.node) == infection.from)?;
            let ((x0, y0), (x1, y1)) = (at(teller), at(infection));
            let bend = 10.0 + 8.0 * infection.know.abs_diff(teller.know) as f64;
            let (x, y) = (x0.max(x1) + bend, f64::midpoint(y0, y1));
            Some(format!("M{x0:.1} {y0:.1}Q{x:.1} {y:.1} {x1:.1} {y1:.1}"))
        };
        seen.iter().filter_map(branch).collect()
    }

    /// Times to write under it.
    #[must_use]
    pub fn times(&self) -> Vec<f64> {
        let step = round_step(self.last_ms / 6.0);
        let count = (self.last_ms / step) as u32;
        (0..=count).map(|i| step * f64::from(i)).collect()
    }

    /// Numbers of nodes to write beside it.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        let step = round_step(self.most as f64 / 6.0).max(1.0) as usize;
        (0..=self.most / step).map(|i| step * i).collect()
    }
}

/// The smallest of 1, 2, 5, 10, 20, 50, … that is not below.
fn round_step(at_least: f64) -> f64 {
    let mut power = 1.0;
    loop {
        if let Some(step) = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|&step| step >= at_least) {
            return step;
        }
        power *= 10.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::member::{Class, Durability, Profile, State};
    use qunlong_core::sim::Sim;
    use qunlong_core::trace::{Level, MessageId};
    use qunlong_core::{Duration, Generation, Instant, Now, Storage};

    fn claim(of: u8, incarnation: u64, state: State) -> Arc<Member> {
        let profile = Profile::new(format!("n{of}"), Class::Server, Durability::Durable, Storage::default());
        Arc::new(Member {
            id: NodeId::small(of),
            generation: Generation(1),
            incarnation,
            state,
            accuser: None,
            profile,
        })
    }

    fn heard(node: u8, at_ms: u64, from: Option<u8>, claim: &Arc<Member>) -> Event {
        let wall = at_ms * 1_000;
        let message = |from| MessageId { node: NodeId::small(from), generation: Generation(1), seq: at_ms };
        Event {
            at: Now { mono: Instant(wall), wall: WallTime(wall) },
            node: NodeId::small(node),
            generation: Generation(1),
            seq: at_ms,
            cause: from.map_or(Cause::Timer, |from| Cause::Message(message(from))),
            kind: MembershipEvent::Changed(claim.clone()).into(),
        }
    }

    fn told(events: &[Event]) -> Rumours {
        let mut rumours = Rumours::default();
        for event in events {
            rumours.see(event);
        }
        rumours
    }

    #[test]
    fn a_claim_is_told_in_the_order_in_which_it_became_known() {
        let dead = claim(9, 0, State::Dead);
        let rumours = told(&[heard(3, 140, Some(2), &dead), heard(1, 100, None, &dead), heard(2, 120, Some(1), &dead)]);
        let spread = rumours.newest().expect("a rumour").spread();
        let infection = |node, from: Option<u8>, after_ms, know| Infection {
            node: NodeId::small(node),
            from: from.map(NodeId::small),
            after_ms,
            know,
            told: true,
        };
        let expected = [infection(1, None, 0.0, 1), infection(2, Some(1), 20.0, 2), infection(3, Some(2), 40.0, 3)];
        assert_eq!(spread, expected);
    }

    #[test]
    fn the_newest_that_two_have_told_of_is_shown() {
        let (old, new, lonely) = (claim(9, 0, State::Suspect), claim(9, 1, State::Alive), claim(8, 0, State::Suspect));
        let rumours = told(&[
            heard(1, 100, None, &old),
            heard(2, 110, Some(1), &old),
            heard(1, 200, Some(9), &new),
            heard(2, 210, Some(1), &new),
            heard(1, 300, None, &lonely),
        ]);
        assert_eq!(rumours.newest().map(|rumour| &rumour.claim), Some(&new));
    }

    #[test]
    fn who_knew_it_already_or_came_much_later_is_no_step() {
        let dead = claim(9, 0, State::Dead);
        let rumours = told(&[
            heard(1, 100, None, &dead),
            heard(2, 120, Some(1), &dead),
            heard(2, 150, Some(1), &dead),
            heard(3, 100 + LATE_MS + 1, Some(1), &dead),
        ]);
        let rumour = rumours.newest().expect("a rumour");
        assert_eq!(rumour.spread().len(), 2);
        assert_eq!(rumour.audience([1, 2, 4, 9].map(NodeId::small)), 3, "the dead one is not told");
        assert_eq!(rumour.sources(&MembershipConfig::default()), 1);
    }

    #[test]
    fn who_told_others_knew_it_although_its_own_word_is_missing() {
        let alive = claim(9, 2, State::Alive);
        let rumours = told(&[
            heard(1, 100, Some(9), &alive),
            heard(2, 120, Some(7), &alive),
            heard(3, 130, Some(7), &alive),
            heard(4, 900, Some(9), &alive),
        ]);
        let rumour = rumours.newest().expect("a rumour");
        let spread = rumour.spread();
        let order: Vec<_> = spread.iter().map(|infection| (infection.node, infection.told)).collect();
        let n = NodeId::small;
        assert_eq!(order, [(n(1), true), (n(7), false), (n(2), true), (n(3), true), (n(4), true)]);
        assert_eq!((spread[1].after_ms, spread[1].from), (20.0, None));
        assert_eq!(rumour.sources(&MembershipConfig::default()), 1, "the last came too late to be one");
        assert_eq!(rumour.audience([n(1), n(5)]), 6);
    }

    #[test]
    fn the_prediction_begins_with_one_and_comes_to_all() {
        let settings = MembershipConfig::default();
        for n in [1, 2, 3, 10, 100, 5_000] {
            let curve = predicted(n, 1, &settings);
            assert_eq!(curve[0], (0.0, 1.0));
            assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
            let last = curve[curve.len() - 1].1;
            assert!(last <= n as f64 && last > n as f64 - 0.5, "{last} of {n}");
        }
        // 1 + 99 · (1 − 0.99³): three messages, hardly ever two to the same.
        assert!((predicted(100, 1, &settings)[1].1 - 3.94).abs() < 0.01);
    }

    #[test]
    fn the_chart_holds_both_curves() {
        let dead = claim(9, 0, State::Dead);
        let rumours = told(&[heard(1, 100, None, &dead), heard(2, 500, Some(1), &dead), heard(3, 900, Some(9), &dead)]);
        let seen = rumours.newest().expect("a rumour").spread();
        let curve = predicted(4, 1, &MembershipConfig::default());
        let chart = Chart::fit(500.0, 200.0, &seen, &curve, 4);
        assert!(chart.x(800.0) <= 500.0 && chart.x(curve[curve.len() - 1].0) <= 500.0);
        assert_eq!((chart.y(0.0), chart.y(4.0)), (200.0, 0.0));
        assert_eq!(chart.branches(&seen).len(), 1, "the one that it is about is not in it");
        assert!(chart.times().len() <= 7 && chart.counts() == [0, 1, 2, 3, 4]);
        assert!(chart.steps(&seen).starts_with("M0 200.0H0.0V150.0"));
        assert!(chart.line(&curve).starts_with("M0.0 150.0L") && chart.line(&curve).ends_with("H500.0"));
    }

    #[test]
    fn steps_of_axes_are_round() {
        assert_eq!([0.3, 1.0, 1.2, 3.0, 7.0, 130.0].map(round_step), [1.0, 1.0, 2.0, 5.0, 10.0, 200.0]);
    }

    #[test]
    fn a_real_rumour_reaches_everybody() {
        let mut sim = Sim::new(3, 8, 4, 3);
        sim.set_level(Level::Decisions);
        sim.run_for(Duration::secs(10));
        let silent = sim.id(7);
        sim.pause(7, Duration::secs(60));
        sim.run_for(Duration::secs(30));
        let mut rumours = Rumours::default();
        while let Some(event) = sim.next_event() {
            rumours.see(&event);
        }
        let about =
            rumours.claims.iter().find(|rumour| rumour.claim.id == silent && rumour.claim.state == State::Suspect);
        let spread = about.expect("it was suspected").spread();
        assert_eq!(spread.len(), 11);
        // One finds out for itself, and most are told.
        let told = |infection: &&Infection| infection.from.is_some();
        assert!(spread[0].from.is_none() && spread.iter().filter(told).count() >= 4);
        for infection in spread.iter().filter(told) {
            let knew = |other: &Infection| Some(other.node) == infection.from && other.know < infection.know;
            assert!(spread.iter().any(knew), "{infection:?} was told by one that knew");
        }
    }
}
