//! How many reads missed the write before them. Pure.
//!
//! ```text
//!   write 1 ─▶ acknowledged ─▶ read through A      has 1
//!   write 2 ─▶ acknowledged ─▶ read through B      has 1 only: missed
//!   …
//! ```
//!
//! One writer writes another value each time and waits for its acknowledgement, so the last acknowledged write is the
//! last one there is, and a read that does not show its value has missed it. A read that nobody answered says nothing
//! and is counted apart.

use std::collections::BTreeMap;

use qunlong_core::NodeId;

/// What became of some reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Those that were answered.
    pub answered: u32,
    /// Those of them that did not show the last acknowledged write.
    pub missed: u32,
    /// Those that were refused, or whose node did not answer.
    pub unanswered: u32,
}

impl Reads {
    /// How many there were.
    #[must_use]
    pub fn all(self) -> u32 {
        self.answered + self.unanswered
    }
}

/// What became of all reads, by the node that they went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum(BTreeMap<NodeId, Reads>);

impl Sum {
    /// Takes in what a read through a node showed, `None` if it was not answered, after `last` was acknowledged.
    pub fn note(&mut self, through: NodeId, last: &str, shown: Option<&[String]>) {
        let reads = self.0.entry(through).or_default();
        match shown {
            Some(values) => {
                reads.answered += 1;
                reads.missed += u32::from(values.iter().all(|value| value != last));
            }
            None => reads.unanswered += 1,
        }
    }

    /// By node.
    pub fn by_node(&self) -> impl Iterator<Item = (NodeId, Reads)> + '_ {
        self.0.iter().map(|(&node, &reads)| (node, reads))
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> Reads {
        self.0.values().fold(Reads::default(), |all, reads| Reads {
            answered: all.answered + reads.answered,
            missed: all.missed + reads.missed,
            unanswered: all.unanswered + reads.unanswered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_does_not_show_the_last_write_has_missed_it() {
        let (a, b) = (NodeId::small(1), NodeId::small(2));
        let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
        let mut sum = Sum::default();
        sum.note(a, "1", Some(&values(&["1"])));
        sum.note(b, "2", Some(&values(&["1"])));
        sum.note(b, "3", Some(&values(&[])));
        sum.note(a, "4", Some(&values(&["2", "4"])));
        sum.note(b, "5", None);
        let by_node: Vec<_> = sum.by_node().collect();
        let of_a = Reads { answered: 2, missed: 0, unanswered: 0 };
        assert_eq!(by_node, [(a, of_a), (b, Reads { answered: 2, missed: 2, unanswered: 1 })]);
        assert_eq!(sum.total(), Reads { answered: 4, missed: 2, unanswered: 1 });
        assert_eq!(sum.total().all(), 5);
        assert_eq!(Sum::default().total(), Reads::default());
    }
}
