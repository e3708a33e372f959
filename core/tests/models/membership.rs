//! Claims about one member: suspicion, refutation, death, goodbye and the next boot, heard in any order.
//!
//! A *subject* says what it is; *observers* suspect it, rightly or wrongly, and declare it dead; all pass on what they
//! have heard. The subject answers a suspicion with a higher incarnation.
//!
//! ```text
//!   subject    Alive(g,i) ─────────────▶ said      hears Suspect(g,i): Alive(g,i+1)      boots again: Alive(g+1,0)
//!   observer   said ──▶ view: keeps the newer claim    Suspect(g,i), Dead(g,i) ──▶ said
//! ```
//!
//! **Invariant.** A view only moves to a newer claim; nobody but the subject raises its incarnation or its generation;
//! once everything has been heard, all views are the same, and a subject that lives is alive in all of them.
//!
//! The rules are not written here. What a node believes after a claim, how it answers one about itself, and what it
//! says of a member that stays silent is asked of real nodes beforehand, once for each of the few claims there are.
//!
//! **Bounds**: [`OBSERVERS`] observers, who are interchangeable and therefore kept in order; [`BOOTS`] boots; each boot
//! is suspected up to the incarnation before [`REFUTATIONS`], and after that no more, or it would have to refute for
//! ever. All that was said may be heard by anybody, at any time, again, or never.
//!
//! **Not here**: how claims travel, and forgetting. A member is forgotten long after its death, and whoever still
//! repeated an older claim after that would be believed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use qunlong_core::lift::Payload;
use qunlong_core::member::{Member, State};
use qunlong_core::membership::{self, Msg};
use qunlong_core::wire::Envelope;
use qunlong_core::{Epoch, Generation, Input, Instant, Node, NodeId, Op, Output, Record, RequestId};
use stateright::{Model, Property};

use super::{at, config, persisted, prove, refute};

const OBSERVERS: usize = 3;
const BOOTS: u64 = 2;
const REFUTATIONS: u64 = 2;
/// One more than refutations reach for a goodbye, and one for a mistake.
const INCARNATIONS: u64 = REFUTATIONS + 3;

const SUBJECT: NodeId = NodeId::small(1);
const OBSERVER: NodeId = NodeId::small(2);
/// Who passes claims on.
const GOSSIP: NodeId = NodeId::small(3);

const FORWARD: &str = "an older claim never displaces a newer one";
const ITS_OWN: &str = "only the subject raises its incarnation and generation";
const AGREED: &str = "who has heard everything believes the newest claim";
const REFUTED: &str = "a refuted suspicion never wins";

/// A mistake that the model makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Of two claims of one boot the worse wins, whatever their incarnations.
    IncarnationIgnored,
    /// Any claim that the member lives is believed.
    DeadRevived,
    /// The subject says that it lives, and does not raise its incarnation.
    RefutedInPlace,
    /// Who suspects a member raises its incarnation.
    SuspectedAnew,
}

/// A claim about the subject. Their order is the rule: the newest boot, then the highest incarnation, then the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Claim {
    generation: Generation,
    incarnation: u64,
    state: State,
}

impl Claim {
    const fn alive(generation: u64, incarnation: u64) -> Self {
        Self { generation: Generation(generation), incarnation, state: State::Alive }
    }

    fn all() -> impl Iterator<Item = Self> {
        (1..=BOOTS).flat_map(|generation| {
            (0..INCARNATIONS).flat_map(move |incarnation| {
                let states = [State::Alive, State::Suspect, State::Dead, State::Left];
                states.map(|state| Self { state, ..Self::alive(generation, incarnation) })
            })
        })
    }

    fn of(member: &Member) -> Self {
        Self { generation: member.generation, incarnation: member.incarnation, state: member.state }
    }

    fn member(self) -> Member {
        let Self { generation, incarnation, state } = self;
        Member { id: SUBJECT, generation, incarnation, state, accuser: None, profile: config(SUBJECT).profile }
    }
}

/// What nodes do, as asked of them.
#[derive(Debug, Default)]
struct Rules {
    /// What an observer believes after a claim, by what it believed before.
    learned: BTreeMap<(Option<Claim>, Claim), Option<Claim>>,
    /// What the subject is after a claim about it, by what it was.
    answered: BTreeMap<(Claim, Claim), Claim>,
    /// What an observer says of a member that has fallen silent: first this.
    suspected: BTreeMap<Claim, Claim>,
    /// Then this, of one that is suspected.
    declared: BTreeMap<Claim, Claim>,
    /// What the subject is after its goodbye.
    left: BTreeMap<Claim, Claim>,
}

/// Asked once for all tests.
static RULES: LazyLock<Rules> = LazyLock::new(Rules::ask);

impl Rules {
    fn ask() -> Self {
        let mut rules = Self::default();
        for before in Claim::all().map(Some).chain([None]) {
            let node = observer(before);
            for claim in Claim::all() {
                let mut node = node.clone();
                tell(&mut node, claim);
                rules.learned.insert((before, claim), believed(&node));
            }
        }
        for alive in Claim::all().filter(|claim| claim.state == State::Alive) {
            let mut node = observer(Some(alive));
            let suspected = outlast(&mut node);
            rules.suspected.insert(alive, suspected);
            rules.declared.insert(suspected, outlast(&mut node));

            let mut node = subject(alive);
            rules.answers(&node);
            node.handle(at(Instant(2)), Input::Request { id: RequestId(1), op: Op::Membership(membership::Op::Leave) });
            rules.left.insert(alive, believed(&node).expect("a node knows itself"));
            rules.answers(&node);
        }
        rules
    }

    fn answers(&mut self, node: &Node) {
        let before = believed(node).expect("a node knows itself");
        for claim in Claim::all() {
            let mut node = node.clone();
            tell(&mut node, claim);
            self.answered.insert((before, claim), believed(&node).expect("a node knows itself"));
        }
    }
}

/// What a node holds of the subject.
fn believed(node: &Node) -> Option<Claim> {
    node.view().members.get(&SUBJECT).map(|member| Claim::of(member))
}

fn tell(node: &mut Node, claim: Claim) {
    let payload = Payload::Membership(Msg::Gossip { rumours: vec![claim.member().into()] });
    node.handle(
        at(Instant(1)),
        Input::Message(Envelope { from: GOSSIP, generation: Generation(1), seq: 1, epoch: Epoch(0), payload }),
    );
}

fn started(mut node: Node) -> Node {
    node.handle(at(Instant(0)), Input::Tick);
    let outputs: Vec<Output> = std::iter::from_fn(|| node.poll()).collect();
    node.handle(at(Instant(0)), Input::Persisted(persisted(&outputs).expect("the boot is recorded")));
    node
}

/// An observer that believes this.
fn observer(belief: Option<Claim>) -> Node {
    let mut node = started(Node::new(config(OBSERVER), 7).expect("sound settings"));
    if let Some(belief) = belief {
        // Nobody makes the acquaintance of the dead.
        tell(&mut node, Claim { state: State::Alive, ..belief });
        tell(&mut node, belief);
    }
    assert_eq!(believed(&node), belief);
    node
}

/// The subject as it is after so many boots and refutations.
fn subject(own: Claim) -> Node {
    let boots = (1..own.generation.0).map(|boot| Record::Boot(Generation(boot)));
    let mut node = started(Node::restore(config(SUBJECT), 7, boots).expect("sound settings"));
    for incarnation in 0..own.incarnation {
        tell(&mut node, Claim { state: State::Suspect, incarnation, ..own });
    }
    assert_eq!(believed(&node), Some(own));
    node
}

/// Lets time pass without an answer until the node believes something else of the subject.
fn outlast(node: &mut Node) -> Claim {
    let before = believed(node);
    for _ in 0..10_000 {
        let deadline = node.deadline().expect("a node always has something to do");
        node.handle(at(deadline), Input::Tick);
        while node.poll().is_some() {}
        if believed(node) != before {
            return believed(node).expect("nobody is forgotten so soon");
        }
    }
    panic!("a silent member must not be believed alive for ever");
}

#[derive(Clone, Debug)]
struct Refutation {
    rules: &'static Rules,
    mistake: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    own: Claim,
    /// Whether the subject's process runs.
    up: bool,
    /// What the subject last was in each earlier boot.
    boots: Vec<Claim>,
    /// Sorted.
    views: Vec<Belief>,
    said: BTreeSet<Claim>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Belief {
    now: Option<Claim>,
    /// The newest that was ever believed.
    newest: Option<Claim>,
}

impl Belief {
    fn turn_to(&mut self, now: Option<Claim>) {
        *self = Self { now, newest: self.newest.max(now) };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// An observer hears a claim.
    Hear(usize, Claim),
    /// The subject hears one.
    Answer(Claim),
    /// An observer finds the subject silent.
    Suspect(usize),
    /// An observer has waited long enough.
    Declare(usize),
    Crash,
    Restart,
    Leave,
}

impl Refutation {
    fn learn(&self, before: Option<Claim>, claim: Claim) -> Option<Claim> {
        match (self.mistake, before) {
            (Mistake::IncarnationIgnored, Some(before))
                if claim.generation == before.generation && claim.state <= before.state =>
            {
                Some(before)
            }
            (Mistake::DeadRevived, Some(_)) if claim.state == State::Alive => Some(claim),
            _ => self.rules.learned[&(before, claim)],
        }
    }

    fn answer(&self, own: Claim, claim: Claim) -> Claim {
        if self.mistake == Mistake::RefutedInPlace { own } else { self.rules.answered[&(own, claim)] }
    }

    fn suspect(&self, alive: Claim) -> Claim {
        let suspected = self.rules.suspected[&alive];
        let raised = u64::from(self.mistake == Mistake::SuspectedAnew);
        Claim { incarnation: suspected.incarnation + raised, ..suspected }
    }

    /// Whether nothing that was said would change anything any more.
    fn is_quiet(&self, world: &World) -> bool {
        world.said.iter().all(|&claim| {
            let heard = world.views.iter().all(|view| self.learn(view.now, claim) == view.now);
            heard && (!world.up || self.answer(world.own, claim) == world.own)
        })
    }
}

impl World {
    fn say(&mut self, claim: Claim) {
        self.said.insert(claim);
    }

    /// Whether the subject has been, or may have been, in this incarnation of this boot.
    fn has_reached(&self, claim: Claim) -> bool {
        let boots = self.boots.iter().chain([&self.own]);
        boots.clone().any(|own| own.generation == claim.generation && claim.incarnation <= own.incarnation)
    }
}

impl Model for Refutation {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let own = Claim::alive(1, 0);
        let views = vec![Belief::default(); OBSERVERS];
        vec![World { own, up: true, boots: vec![], views, said: [own].into() }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (i, view) in world.views.iter().enumerate() {
            // Of several that believe the same one may stand for all.
            if i > 0 && world.views[i - 1] == *view {
                continue;
            }
            actions.extend(world.said.iter().map(|&claim| Action::Hear(i, claim)));
            match view.now {
                Some(claim) if claim.state == State::Alive && claim.incarnation < REFUTATIONS => {
                    actions.push(Action::Suspect(i));
                }
                Some(claim) if claim.state == State::Suspect => actions.push(Action::Declare(i)),
                Some(_) | None => (),
            }
        }
        if world.up {
            actions.extend(world.said.iter().map(|&claim| Action::Answer(claim)));
            actions.extend([Action::Crash, Action::Leave]);
        } else if world.own.generation.0 < BOOTS {
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Hear(i, claim) => {
                let now = self.learn(world.views[i].now, claim);
                world.views[i].turn_to(now);
            }
            Action::Answer(claim) => world.own = self.answer(world.own, claim),
            Action::Suspect(i) => {
                let claim = self.suspect(world.views[i].now?);
                world.views[i].turn_to(Some(claim));
                world.say(claim);
            }
            Action::Declare(i) => {
                let claim = self.rules.declared[&world.views[i].now?];
                world.views[i].turn_to(Some(claim));
                world.say(claim);
            }
            Action::Crash => world.up = false,
            Action::Restart => {
                world.boots.push(world.own);
                (world.own, world.up) = (Claim::alive(world.own.generation.0 + 1, 0), true);
            }
            Action::Leave => (world.own, world.up) = (self.rules.left[&world.own], false),
        }
        let own = world.own;
        world.say(own);
        world.views.sort_unstable();
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FORWARD, |_: &Self, world: &World| world.views.iter().all(|view| view.now == view.newest)),
            Property::always(ITS_OWN, |_: &Self, world: &World| {
                let believed = world.views.iter().filter_map(|view| view.now);
                world.said.iter().copied().chain(believed).all(|claim| world.has_reached(claim))
            }),
            Property::always(AGREED, |model: &Self, world: &World| {
                let newest = world.said.last().copied();
                !model.is_quiet(world) || world.views.iter().all(|view| view.now == newest)
            }),
            Property::always(REFUTED, |model: &Self, world: &World| {
                !world.up || !model.is_quiet(world) || world.views.iter().all(|view| view.now == Some(world.own))
            }),
            Property::sometimes("a suspicion is refuted everywhere", |model: &Self, world: &World| {
                world.up && world.own == Claim::alive(1, REFUTATIONS) && model.is_quiet(world)
            }),
            Property::sometimes("one declared dead proves that it lives", |model: &Self, world: &World| {
                let dead = Claim { state: State::Dead, ..Claim::alive(1, 0) };
                world.up && world.own.generation.0 == 1 && world.said.contains(&dead) && model.is_quiet(world)
            }),
            Property::sometimes("a goodbye reaches everybody", |model: &Self, world: &World| {
                world.own.state == State::Left && model.is_quiet(world)
            }),
            Property::sometimes("one that was dead boots again and is believed", |model: &Self, world: &World| {
                let dead = |claim: &Claim| claim.state == State::Dead && claim.generation.0 < BOOTS;
                world.up && world.own.generation.0 == BOOTS && world.said.iter().any(dead) && model.is_quiet(world)
            }),
            Property::sometimes("opinions differ", |_: &Self, world: &World| {
                let states: BTreeSet<State> = world.views.iter().filter_map(|view| Some(view.now?.state)).collect();
                states.len() == OBSERVERS
            }),
        ]
    }
}

fn model(mistake: Mistake) -> Refutation {
    Refutation { rules: &RULES, mistake }
}

#[test]
fn views_move_forward_and_meet_and_a_member_that_lives_is_believed() {
    prove(model(Mistake::None), 50_000);
}

#[test]
fn without_incarnations_a_suspicion_cannot_be_refuted() {
    refute(model(Mistake::IncarnationIgnored), REFUTED);
    refute(model(Mistake::IncarnationIgnored), AGREED);
}

#[test]
fn an_old_sign_of_life_must_not_raise_the_dead() {
    refute(model(Mistake::DeadRevived), FORWARD);
}

#[test]
fn a_refutation_must_raise_the_incarnation() {
    refute(model(Mistake::RefutedInPlace), REFUTED);
}

#[test]
fn a_suspicion_must_not_raise_the_incarnation() {
    refute(model(Mistake::SuspectedAnew), ITS_OWN);
}
