//! A digest of a member list: one hash per bucket, so that equal lists cost a few hundred bytes to compare.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::hash::{hash_bytes, hash_of};
use crate::id::NodeId;
use crate::limits;
use crate::member::Member;

const BUCKETS: usize = 16;

/// XOR of the hashes of the living members in each bucket. The dead are left out: nodes forget them at different
/// times, and a death that one side missed still shows, as a member that only the other side lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest([u64; BUCKETS]);

impl Digest {
    /// Digests a list.
    pub(super) fn of<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> Self {
        let mut digest = Self::default();
        for member in members.filter(|member| member.is_reachable()) {
            digest.0[bucket(member.id)] ^= hash_of(&(member.id, member.precedence()));
        }
        digest
    }

    /// The buckets in which two digests differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<u8> {
        (0..BUCKETS).filter(|&i| self.0[i] != other.0[i]).map(|i| i as u8).collect()
    }
}

/// The entries of these buckets, the dead included. When there are more than one message may hold, each exchange
/// begins at another of them, so that none is left out for good.
pub(super) fn entries<'a>(
    members: impl Iterator<Item = &'a Arc<Member>>,
    buckets: &[u8],
    random: u64,
) -> Vec<Arc<Member>> {
    let mut chosen: Vec<&Arc<Member>> = members.filter(|member| is_in(member, buckets)).collect();
    if chosen.len() > limits::DELTA_MEMBERS {
        let start = (random % chosen.len() as u64) as usize;
        chosen.rotate_left(start);
        chosen.truncate(limits::DELTA_MEMBERS);
    }
    chosen.into_iter().cloned().collect()
}

/// Those of ours in these buckets that the holder of `theirs` lacks or has older, as many as one message may hold.
pub(super) fn newer<'a>(
    members: impl Iterator<Item = &'a Arc<Member>>,
    buckets: &[u8],
    theirs: &[Arc<Member>],
) -> Vec<Arc<Member>> {
    let theirs: BTreeMap<NodeId, &Arc<Member>> = theirs.iter().map(|member| (member.id, member)).collect();
    members
        .filter(|member| is_in(member, buckets))
        .filter(|member| theirs.get(&member.id).is_none_or(|their| their.precedence() < member.precedence()))
        .take(limits::DELTA_MEMBERS)
        .cloned()
        .collect()
}

fn is_in(member: &Member, buckets: &[u8]) -> bool {
    buckets.contains(&(bucket(member.id) as u8))
}

fn bucket(id: NodeId) -> usize {
    (hash_bytes(&id.0) % BUCKETS as u64) as usize
}
