//! Every bound in one place, each with what happens when it is reached.

use crate::time::Duration;

/// Bytes of a key. Longer: the request is refused with `TOO_LARGE`.
pub const KEY_BYTES: usize = 1 << 10;
/// Bytes of a value. Longer: `TOO_LARGE`; larger content belongs in files.
pub const VALUE_BYTES: usize = 64 << 10;
/// Writes that a context names. More: `INVALID_CONTEXT`; a read never gives more.
pub const CONTEXT_WRITES: usize = SUPERSEDED + SIBLINGS * REPLICAS as usize;
/// Refused writes that an owner remembers, so that a late copy of one is refused again. Beyond: the oldest is forgotten.
pub const REFUSED: usize = 1_024;
/// Concurrent versions of a key at the owner that mints the next one. Beyond: `TOO_MANY_SIBLINGS`.
pub const SIBLINGS: usize = 8;
/// Superseded writes that a key remembers, so that a late copy of one does not come back. Beyond: the oldest is
/// forgotten, and a copy of it that comes later than that appears as a sibling.
pub const SUPERSEDED: usize = 8;
/// Sessions whose latest result a register remembers. Beyond: the one that was silent for longest is forgotten, and a retry
/// that is older than that is refused as `SESSION_EXPIRED`.
pub const RESULTS: usize = 64;
/// Requests to one register that are decided in one round. The others wait for the next.
pub const ROUND: usize = 16;
/// Attempts of requests that an owner remembers to have been asked for, so that it takes in a copy of none. Beyond: the
/// oldest is forgotten.
pub const RECENT: usize = 4_096;
/// Versions of registers that a coordinator remembers, twice over. Beyond: those that it was told of longest ago are
/// forgotten, and a change of one may take one round trip more.
pub const VERSIONS: usize = 2_048;
/// Idle registers whose next ballot is promised to a node. Beyond: the one that has been idle for longest is prepared
/// again when it is wanted.
pub const PROMISED: usize = 1_024;
/// Registers of one partition that are moved at once.
pub const MOVES: usize = 32;
/// The highest version believed of a register: far beyond what can be counted to.
pub const CELL_VERSION: u64 = 1 << 62;
/// Bytes of one frame on a link. Longer: the connection is closed, nobody else suffers.
pub const FRAME_BYTES: usize = 1 << 20;
/// Bytes of one message inside a frame; leaves room for the frame's own header.
pub const MESSAGE_BYTES: usize = FRAME_BYTES - 256;
/// Relays that a packet may pass. Beyond: dropped.
pub const HOPS: u8 = 4;
/// Operations that a node coordinates at once. Beyond: `OVERLOADED`.
pub const PENDING_OPERATIONS: usize = 4_096;
/// Members known, the dead included. Beyond: the newcomer is not remembered until others are forgotten.
pub const MEMBERS: usize = 8_192;
/// The worst local health: probes are then this + 1 times as rare and as patient.
pub const HEALTH: u64 = 8;
/// Bytes of a node's name. Longer: cut by the host, refused by peers.
pub const NAME_BYTES: usize = 64;
/// Bytes of a node's address.
pub const ADDRESS_BYTES: usize = 256;
/// Relays that a tab names.
pub const RELAYS: usize = 4;
/// Rumours that one message carries. The others wait for the next message.
pub const RUMOURS_PER_MESSAGE: usize = 8;
/// Members in one push-pull answer. The rest follows in the next exchange.
pub const DELTA_MEMBERS: usize = 512;
/// Listings of registers that a node coordinates at once. Beyond: `OVERLOADED`.
pub const LISTINGS: usize = 64;
/// Registers whose time has passed that an owner removes at once. The rest waits for a second.
pub const EXPIRED: usize = 256;
/// Nodes that an owner tells what it accepts. Beyond: others are told nothing, and look for themselves.
pub const WATCHERS: usize = 1_024;
/// Registers, or beginnings of keys, that a node watches. Beyond: `OVERLOADED`.
pub const FEEDS: usize = 64;
/// Clients that wait for changes at one node. Beyond: `OVERLOADED`.
pub const WAITING: usize = 1_024;
/// Keys and values that one watch follows, in bytes. Beyond: deletions are forgotten, and then it is `TOO_LARGE`.
pub const WATCHED_BYTES: usize = 8 << 20;
/// Registers that a node reads at once because they have changed. The others wait.
pub const FEED_READS: usize = 64;
/// Keys in one hint. The rest follows in the next.
pub const HINT_KEYS: usize = 256;
/// Keys in one page of a listing. More: the answer says where to go on.
pub const LIST_KEYS: u32 = 256;
/// Bytes that one owner adds to a listing before it stops and says where.
pub const LIST_BYTES: usize = 256 << 10;
/// Keys whose digests one repair message carries. The rest waits for the next round.
pub const REPAIR_KEYS: usize = 512;
/// Bytes of versions that one repair round pushes to a peer.
pub const REPAIR_BYTES: usize = 256 << 10;
/// Deleted keys that one round collects in a partition. The rest waits for the next.
pub const COLLECT_KEYS: usize = 64;
/// Bytes of their names, but for one that is longer alone.
pub const COLLECT_BYTES: usize = 4 << 10;
/// Messages that a node may send itself while handling one input. Beyond: a bug, and an assertion.
pub const SETTLE: usize = 65_536;
/// Messages and answers that wait for the disk. Beyond: data messages are dropped, requests refused as `OVERLOADED`.
pub const HELD: usize = 16_384;
/// Storage members of a configuration. More: the configuration is refused.
pub const STORAGE_MEMBERS: usize = 1_024;
/// Voters of a configuration. More would make each decision slower and none safer.
pub const VOTERS: usize = 7;
/// Former members that a configuration remembers. Beyond: the oldest is forgotten.
pub const RETIRED: usize = 256;
/// Namespaces of a cluster. More: refused with `TOO_MANY_NAMESPACES`.
pub const NAMESPACES: usize = 256;
/// Bytes of a namespace's name.
pub const NAMESPACE_BYTES: usize = 32;
/// Bytes of a zone's name.
pub const ZONE_BYTES: usize = 64;
/// The heaviest storage member.
pub const WEIGHT: u32 = 1_000;
/// Partitions that a new owner takes over at once, and bytes of one answer: so much may be under way beside what
/// clients ask for.
pub const TRANSFERS: usize = 16;
/// See [`TRANSFERS`].
pub const TRANSFER_BYTES: usize = 64 << 10;
/// How far a context's counter may be ahead of what the minting owner knows. Further: `INVALID_CONTEXT`.
pub const CONTEXT_AHEAD: u64 = 1 << 32;
/// The highest incarnation and generation believed of a member: far beyond what can be counted to.
pub const INCARNATION: u64 = 1 << 48;
/// The shortest time for which a sign of life of a lock's holder counts. Whoever asks for less gets so much; a register that
/// says less holds no lock.
pub const LOCK_TTL_MIN: Duration = Duration::millis(100);
/// The longest. A lock whose holder has died lies idle for so long.
pub const LOCK_TTL_MAX: Duration = Duration::secs(86_400);
/// The longest deadline that a request may ask for.
pub const DEADLINE_MAX: Duration = Duration::secs(30);
/// A step of the clock beyond this means that this node slept, not that everyone else died.
pub const PAUSE_MAX: Duration = Duration::secs(2);
/// Replicas of a key, at most.
pub const REPLICAS: u8 = 7;
/// Bytes of one journal batch's records. A longer one is damage, not data.
pub const BATCH_BYTES: usize = 16 << 20;
