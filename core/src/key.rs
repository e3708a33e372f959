//! How a key says which namespace it belongs to.
//!
//! Inside the cluster a key of a namespace is
//!
//! ```text
//!   0 · class · name · 0 · what clients call it
//! ```
//!
//! where the class is the namespace's number of copies, and 0 for as many as the cluster has of everything. So the
//! partition of a key, and with it its owners, follow from the key and the epoch alone. A key that does not begin with 0
//! belongs to one of the two namespaces that are always there: to `default`, of mode quorum, or to `registers`, of mode
//! consensus, whichever protocol is asked.

use alloc::vec::Vec;

use crate::limits;

/// What lies behind all keys of namespaces, and before all others.
pub const BEHIND_NAMESPACES: &[u8] = &[0, u8::MAX];

/// Where a key belongs, and what clients call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The namespace; `None` for one of the two that are always there.
    pub name: Option<&'a str>,
    /// Its class.
    pub class: u8,
    /// What clients call it.
    pub key: &'a [u8],
}

/// Whether a namespace may be called so: 1 to 32 small letters, digits and hyphens, a letter first.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= limits::NAMESPACE_BYTES
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
}

/// A key of a namespace as it is called inside the cluster.
#[must_use]
pub fn inside(class: u8, name: &str, key: &[u8]) -> Vec<u8> {
    let mut inside: Vec<u8> = Vec::with_capacity(name.len() + key.len() + 3);
    inside.extend([0, class]);
    inside.extend(name.as_bytes());
    inside.push(0);
    inside.extend(key);
    inside
}

/// Where a key belongs by its own word; `None` if it says nothing that makes sense.
#[must_use]
pub fn place_of(inside: &[u8]) -> Option<Place<'_>> {
    let [0, class, rest @ ..] = inside else {
        return (inside.first() != Some(&0)).then_some(Place { name: None, class: 0, key: inside });
    };
    let end = rest.iter().position(|&byte| byte == 0)?;
    let name = core::str::from_utf8(&rest[..end]).ok().filter(|name| is_name(name))?;
    Some(Place { name: Some(name), class: *class, key: &rest[end + 1..] })
}
