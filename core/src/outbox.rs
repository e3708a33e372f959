//! The durability gate: what depends on a record leaves only once that record is durable.
//!
//! Records collect in a batch; polling hands the batch out under a number, and the host answers when the number is
//! durable. A message waits for the number that was current when it was written. Acknowledgement is cumulative and
//! numbers never decrease along the queue, so releasing is popping from the front, and while one batch is being
//! made durable the next one fills: group commit without a timer.
//!
//! A node's messages to itself pass the same gate, so that its own vote counts no earlier than anybody else's. And
//! nothing at all leaves before the first batch is durable, because that one holds the boot's generation.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, RequestId};
use crate::lift::{Event, Outcome, Payload, Record};
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::protocol::Gate;
use crate::refusal::Refusal;
use crate::trace::Cause;
use crate::wire::Envelope;

/// Names a batch of records. Acknowledging one acknowledges every earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersistId(pub u64);

/// What a host has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Write these, make them durable, then answer `Input::Persisted`.
    Persist {
        /// To be named in the answer.
        id: PersistId,
        /// The records, oldest first.
        records: Vec<Record>,
    },
    /// Send this. It may be lost, repeated or reordered; it is encoded once for all receivers.
    Send {
        /// To whom; never this node itself.
        to: Vec<NodeId>,
        /// What.
        message: Envelope,
    },
    /// Answer a client.
    Reply {
        /// The request.
        id: RequestId,
        /// Its answer.
        result: Result<Outcome, Refusal>,
    },
    /// Tell whoever listens.
    Trace(Event),
}

/// Something that waits behind the gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "most parcels are messages; a box each would cost more than it saves")]
pub(crate) enum Parcel {
    Send { to: Vec<NodeId>, payload: Payload, cause: Cause },
    Reply { id: RequestId, result: Result<Outcome, Refusal> },
}

/// Everything on its way out of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    ready: VecDeque<Output>,
    /// Released, to be stamped and posted by the node.
    released: VecDeque<Parcel>,
    /// Ids never decrease from front to back.
    held: VecDeque<(PersistId, Parcel)>,
    batch: Vec<Record>,
    issued: PersistId,
    durable: PersistId,
}

/// The first batch, which holds the generation.
const BOOT: PersistId = PersistId(1);

impl Outbox {
    pub(crate) fn persist(&mut self, record: Record) {
        self.batch.push(record);
    }

    pub(crate) fn push(&mut self, parcel: Parcel, gate: Gate) {
        let need = match gate {
            Gate::Durable if planted(Mutant::AckBeforeSync) => BOOT,
            Gate::Durable => PersistId(self.issued.0 + u64::from(!self.batch.is_empty())),
            Gate::Open => BOOT,
        };
        if self.durable < need {
            let place = self.held.partition_point(|(held, _)| *held <= need);
            self.held.insert(place, (need, parcel));
        } else {
            self.released.push_back(parcel);
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether so much waits for the disk that nothing should be added by others.
    pub(crate) fn is_congested(&self) -> bool {
        self.held.len() >= limits::HELD
    }

    /// The next parcel that may leave.
    pub(crate) fn pop_released(&mut self) -> Option<Parcel> {
        self.released.pop_front()
    }

    pub(crate) fn post(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    /// # Panics
    ///
    /// If the host acknowledges what it was never given.
    pub(crate) fn persisted(&mut self, id: PersistId) {
        assert!(id <= self.issued, "a host must not acknowledge a write that was never issued");
        self.durable = self.durable.max(id);
        while let Some((need, parcel)) = self.held.pop_front() {
            if need > self.durable {
                self.held.push_front((need, parcel));
                break;
            }
            self.released.push_back(parcel);
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        if self.batch.is_empty() {
            return self.ready.pop_front();
        }
        // The write goes first, so that the disk works while the host drains the sends.
        self.issued.0 += 1;
        Some(Output::Persist { id: self.issued, records: core::mem::take(&mut self.batch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Generation;

    fn reply(n: u64) -> Parcel {
        Parcel::Reply { id: RequestId(n), result: Err(Refusal::Overloaded) }
    }

    fn released(outbox: &mut Outbox) -> Vec<Parcel> {
        core::iter::from_fn(|| outbox.pop_released()).collect()
    }

    #[test]
    fn nothing_leaves_before_the_boot_is_durable() {
        let mut outbox = Outbox::default();
        outbox.push(reply(1), Gate::Open);
        outbox.persist(Record::Boot(Generation(1)));
        outbox.poll();
        assert!(released(&mut outbox).is_empty());
        outbox.persisted(PersistId(1));
        assert_eq!(released(&mut outbox), [reply(1)]);
    }

    #[test]
    fn a_parcel_waits_for_the_records_before_it_and_not_for_those_after() {
        let mut outbox = Outbox { issued: BOOT, durable: BOOT, ..Outbox::default() };
        outbox.persist(Record::Boot(Generation(2)));
        outbox.push(reply(1), Gate::Durable);
        outbox.poll();
        outbox.persist(Record::Boot(Generation(3)));
        outbox.push(reply(2), Gate::Durable);
        outbox.push(reply(3), Gate::Open);
        outbox.poll();
        assert_eq!(released(&mut outbox), [reply(3)]);
        outbox.persisted(PersistId(2));
        assert_eq!(released(&mut outbox), [reply(1)]);
        outbox.persisted(PersistId(3));
        assert_eq!(released(&mut outbox), [reply(2)]);
    }

    #[test]
    fn one_acknowledgement_covers_all_earlier_batches() {
        let mut outbox = Outbox { issued: BOOT, durable: BOOT, ..Outbox::default() };
        for n in 2..5 {
            outbox.persist(Record::Boot(Generation(n)));
            outbox.push(reply(n), Gate::Durable);
            outbox.poll();
        }
        outbox.persisted(PersistId(4));
        assert_eq!(released(&mut outbox), [reply(2), reply(3), reply(4)]);
    }
}
