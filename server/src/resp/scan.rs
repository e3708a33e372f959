//! `SCAN` and `KEYS`: the keys of a namespace, page by page.
//!
//! A cursor is a number in this protocol, and where a page ends is a key. So the node remembers which number means
//! which key. It does so for all its connections together, because libraries that keep a pool ask for the next page
//! through another one. Numbers begin at a random place: after a restart, and at another node, a cursor is unknown and
//! means no other place.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use qunlong_core::{Bytes, limits};

use super::command::Scan;
use super::data::{Page, Registers};
use super::glob;
use super::reply::Reply;

/// Where the scans go on.
pub(super) struct Cursors(Mutex<Inner>);

struct Inner {
    next: u64,
    /// The youngest last.
    places: VecDeque<Place>,
}

struct Place {
    cursor: u64,
    namespace: String,
    after: Bytes,
}

impl Cursors {
    /// Cursors from a random number on.
    pub(super) fn new(random: u64) -> Self {
        // Some libraries keep a cursor in a floating-point number: it has to stay below 2^53. And 0 is no cursor.
        let next = random % (1 << 52) + 1;
        Self(Mutex::new(Inner { next, places: VecDeque::new() }))
    }

    fn keep(&self, namespace: &str, after: Bytes) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cursor = inner.next;
        inner.next += 1;
        if inner.places.len() >= CURSORS {
            inner.places.pop_front();
        }
        inner.places.push_back(Place { cursor, namespace: namespace.to_owned(), after });
        cursor
    }

    /// The place stays known: a client may not have heard the answer, and ask again.
    fn find(&self, cursor: u64, namespace: &str) -> Option<Bytes> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = inner.places.iter().rev().find(|place| place.cursor == cursor)?;
        (place.namespace == namespace).then(|| place.after.clone())
    }
}

/// A page of the keys, and where the next one begins.
pub(super) async fn scan(
    registers: &Registers,
    cursors: &Cursors,
    namespace: &str,
    scan: Scan,
) -> Result<Reply, Reply> {
    let after = match scan.cursor {
        0 => None,
        cursor => Some(cursors.find(cursor, namespace).ok_or_else(unknown_cursor)?),
    };
    let answer =
        |cursor: u64, keys: Vec<Reply>| Reply::Array(vec![Reply::text(&cursor.to_string()), Reply::Array(keys)]);
    if !scan.type_exists {
        return Ok(answer(0, Vec::new()));
    }
    let pattern = scan.pattern.unwrap_or_else(|| Bytes::from("*"));
    let page = registers.list(glob::beginning(&pattern), after, scan.count).await?;
    let keys = fitting(&page, &pattern).collect();
    let cursor = page.next.map_or(0, |next| cursors.keep(namespace, next));
    Ok(answer(cursor, keys))
}

/// All keys that fit, unless there are too many to look through.
pub(super) async fn keys(registers: &Registers, pattern: &Bytes) -> Result<Reply, Reply> {
    let (mut keys, mut seen, mut after) = (Vec::new(), 0, None);
    loop {
        let page = registers.list(glob::beginning(pattern), after, limits::LIST_KEYS).await?;
        keys.extend(fitting(&page, pattern));
        seen += page.keys.len();
        match page.next {
            None => return Ok(Reply::Array(keys)),
            Some(_) if seen >= KEYS => {
                return Err(Reply::Error(format!("ERR there are more than {KEYS} keys; page through them with SCAN")));
            }
            next => after = next,
        }
    }
}

fn fitting(page: &Page, pattern: &Bytes) -> impl Iterator<Item = Reply> {
    page.keys.iter().filter(move |key| glob::matches(pattern, key)).cloned().map(Reply::Bulk)
}

fn unknown_cursor() -> Reply {
    Reply::error("ERR this cursor is not known here, or not any more; begin anew with SCAN 0, at one node all the time")
}

/// Places that are remembered. Beyond: the oldest is forgotten, and its scan has to begin anew.
const CURSORS: usize = 4_096;
/// Keys that `KEYS` looks through. More: an error.
const KEYS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_known_for_a_while_and_in_its_namespace_only() {
        for random in [0, 7, u64::MAX] {
            let cursors = Cursors::new(random);
            let first = cursors.keep("a", Bytes::from("k"));
            assert!(first > 0 && first < 1 << 53);
            assert_eq!(cursors.find(first, "a"), Some(Bytes::from("k")));
            assert_eq!(cursors.find(first, "a"), Some(Bytes::from("k")), "it may be asked for again");
            assert_eq!(cursors.find(first, "b"), None);
            for _ in 0..CURSORS {
                cursors.keep("a", Bytes::from("later"));
            }
            assert_eq!(cursors.find(first, "a"), None);
            assert_eq!(cursors.0.lock().expect("nobody panics").places.len(), CURSORS);
        }
    }
}
