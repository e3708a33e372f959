//! Where things are on the stage. Pure geometry in a field of [`WIDTH`] × [`HEIGHT`].

use std::sync::Arc;

use qunlong_core::NodeId;
use qunlong_core::lift::Family;
use qunlong_core::member::{Class, Member, State};

/// The field's width.
pub const WIDTH: f64 = 1_000.0;
/// The field's height.
pub const HEIGHT: f64 = 735.0;

/// A point of the field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

/// A node's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Who.
    pub member: Arc<Member>,
    /// Where.
    pub at: Point,
}

/// Servers on an inner ring, tabs on an outer one, both by name, so that nobody jumps when somebody joins late.
#[must_use]
pub fn arrange(members: &[Arc<Member>]) -> Vec<Placed> {
    let mut shown: Vec<&Arc<Member>> = members.iter().filter(|member| member.state != State::Left).collect();
    shown.sort_by(|a, b| (&a.profile.name, a.id).cmp(&(&b.profile.name, b.id)));
    let ring = |class: Class, radius: f64, turn: f64| {
        let members: Vec<&Arc<Member>> = shown.iter().copied().filter(|member| member.profile.class == class).collect();
        let count = members.len().max(1) as f64;
        members
            .into_iter()
            .enumerate()
            .map(|(i, member)| {
                let angle = std::f64::consts::TAU * (i as f64 / count) + turn;
                let at = Point { x: WIDTH / 2.0 + 1.45 * radius * angle.cos(), y: HEIGHT / 2.0 + radius * angle.sin() };
                Placed { member: member.clone(), at }
            })
            .collect::<Vec<_>>()
    };
    let top = -std::f64::consts::FRAC_PI_2;
    let servers = shown.iter().filter(|member| member.profile.class == Class::Server).count();
    let between = std::f64::consts::PI / servers.max(1) as f64;
    let mut placed = ring(Class::Server, 165.0, top);
    placed.extend(ring(Class::Tab, 285.0, top + between));
    placed
}

/// A node's place among the placed.
#[must_use]
pub fn place_of(placed: &[Placed], id: NodeId) -> Option<Point> {
    placed.iter().find(|placed| placed.member.id == id).map(|placed| placed.at)
}

/// A point on the slightly bent way from one node to another, so that a question and its answer do not collide.
#[must_use]
pub fn along(from: Point, to: Point, progress: f64) -> Point {
    let eased = progress * progress * (3.0 - 2.0 * progress);
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let bend = 4.0 * eased * (1.0 - eased) * 0.07;
    Point { x: from.x + dx * eased - dy * bend, y: from.y + dy * eased + dx * bend }
}

/// The name of the colour of a family; the style sheet says what it looks like in each theme.
#[must_use]
pub fn colour(family: Family) -> &'static str {
    match family {
        Family::Membership => "--gossip",
        Family::Topology => "--topology",
        Family::Read => "--read",
        Family::Write => "--write",
        Family::Acknowledge => "--ack",
        Family::Repair => "--repair",
        Family::Consensus => "--consensus",
    }
}

/// All families, in the order of the legend.
pub const FAMILIES: [Family; 7] = [
    Family::Read,
    Family::Write,
    Family::Acknowledge,
    Family::Consensus,
    Family::Repair,
    Family::Membership,
    Family::Topology,
];

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::Generation;
    use qunlong_core::member::{Durability, Profile};

    fn member(n: u8, class: Class, state: State) -> Arc<Member> {
        let profile = Profile::new(format!("m{n}"), class, Durability::Durable, qunlong_core::Storage::default());
        Arc::new(Member {
            id: NodeId::small(n),
            generation: Generation(1),
            incarnation: 0,
            state,
            accuser: None,
            profile,
        })
    }

    #[test]
    fn everybody_fits_and_nobody_stands_on_another() {
        let mut members: Vec<Arc<Member>> = (1..=9).map(|n| member(n, Class::Server, State::Alive)).collect();
        members.extend((10..=33).map(|n| member(n, Class::Tab, State::Alive)));
        let placed = arrange(&members);
        assert_eq!(placed.len(), 33);
        for (i, a) in placed.iter().enumerate() {
            assert!((30.0..WIDTH - 30.0).contains(&a.at.x) && (30.0..HEIGHT - 30.0).contains(&a.at.y));
            for b in &placed[..i] {
                assert!((a.at.x - b.at.x).hypot(a.at.y - b.at.y) > 40.0);
            }
        }
    }

    #[test]
    fn those_who_left_are_not_shown() {
        assert!(arrange(&[member(1, Class::Tab, State::Left)]).is_empty());
    }

    #[test]
    fn a_flight_begins_and_ends_where_it_should() {
        let (a, b) = (Point { x: 1.0, y: 2.0 }, Point { x: 9.0, y: 5.0 });
        assert_eq!((along(a, b, 0.0), along(a, b, 1.0)), (a, b));
    }
}
