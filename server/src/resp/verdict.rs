//! What follows from what a register holds, for commands that have to know it before they change it. Nothing here asks
//! anybody: what is read comes in, and a change on the condition that it is still so comes out.

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::{Bytes, WallTime};

use super::command::Set;
use super::now;
use super::options::Only;
use super::reply::Reply;

/// What a register holds.
pub(super) struct Held {
    pub(super) value: Option<Bytes>,
    pub(super) version: u64,
    pub(super) expires: Option<WallTime>,
}

/// What is to follow from what a register holds.
pub(super) enum Verdict {
    /// Nothing but an answer.
    Leave(Reply),
    /// A change, and the answer once it is made.
    Make(Change, Reply),
}

impl Held {
    /// That it is still so.
    fn unchanged(&self) -> When {
        When::Version(self.version)
    }
}

impl Verdict {
    /// 0: nothing is done.
    const NO: Self = Self::Leave(Reply::Integer(0));

    /// 1, once this is done.
    fn yes(change: Change) -> Self {
        Self::Make(change, Reply::Integer(1))
    }
}

/// A value as it is to be set.
pub(super) fn put(set: Set) -> Change {
    Change::Put { value: set.value, when: set.when, expiry: set.expiry }
}

/// Sets a value if its condition holds, and tells the one before.
pub(super) fn exchange(held: Held, set: Set) -> Verdict {
    let holds = match set.when {
        When::Exists => held.value.is_some(),
        When::Holds(None) => held.value.is_none(),
        When::Always | When::Version(_) | When::Holds(Some(_)) => true,
    };
    let (when, before) = (held.unchanged(), Reply::of(held.value));
    if holds { Verdict::Make(put(Set { when, ..set }), before) } else { Verdict::Leave(before) }
}

/// Tells the value, if there is one, and changes it.
pub(super) fn tell(held: Held, change: impl FnOnce(When) -> Change) -> Verdict {
    let when = held.unchanged();
    match held.value {
        Some(value) => Verdict::Make(change(when), Reply::Bulk(value)),
        None => Verdict::Leave(Reply::Null),
    }
}

/// Redis answers with the length, which a register that appends by itself does not tell. So the whole value is set.
pub(super) fn append(held: &Held, suffix: &Bytes) -> Verdict {
    let when = held.unchanged();
    let value = [held.value.as_deref().unwrap_or_default(), suffix].concat();
    let length = Reply::count(value.len());
    Verdict::Make(Change::Put { value: Bytes::from(value), when, expiry: Expiry::Keep }, length)
}

/// `EXPIRE` with an option.
pub(super) fn set_deadline(held: &Held, at: WallTime, only: Only) -> Verdict {
    let applies = held.value.is_some() && applies(only, at, held.expires);
    if applies { Verdict::yes(expire(Some(at), held.unchanged())) } else { Verdict::NO }
}

/// `PERSIST`.
pub(super) fn remove_deadline(held: &Held) -> Verdict {
    let applies = held.value.is_some() && held.expires.is_some();
    if applies { Verdict::yes(expire(None, held.unchanged())) } else { Verdict::NO }
}

/// Gives a value a deadline, or none. A deadline that has passed removes it at once, whatever the owners' clocks say.
pub(super) fn expire(at: Option<WallTime>, when: When) -> Change {
    match at {
        Some(at) if at <= now() => Change::Delete { when },
        at => Change::Expire { at, when },
    }
}

fn applies(only: Only, at: WallTime, expires: Option<WallTime>) -> bool {
    match only {
        Only::Always => true,
        Only::WithNone => expires.is_none(),
        Only::WithOne => expires.is_some(),
        Only::IfLater => expires.is_some_and(|expires| at > expires),
        Only::IfSooner => expires.is_none_or(|expires| at < expires),
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Answer;
    use super::*;

    fn held(value: Option<&str>, expires: Option<WallTime>) -> Held {
        Held { value: value.map(Bytes::from), version: 7, expires }
    }

    /// Whether the verdict makes a change, and what it answers.
    fn judged(verdict: Verdict) -> (bool, Reply) {
        match verdict {
            Verdict::Leave(reply) => (false, reply),
            Verdict::Make(change, reply) => {
                let (Change::Put { when, .. } | Change::Delete { when } | Change::Expire { when, .. }) = change else {
                    panic!("it has no condition");
                };
                assert_eq!(when, When::Version(7), "it depends on what was read");
                (true, reply)
            }
        }
    }

    #[test]
    fn what_was_read_decides() {
        let value = Bytes::from("new");
        let set = |when: When| Set { when, answer: Answer::Before, ..Set::plain(&value) };
        let old = Reply::text("old");
        assert_eq!(judged(exchange(held(Some("old"), None), set(When::Exists))), (true, old.clone()));
        assert_eq!(judged(exchange(held(Some("old"), None), set(When::Holds(None)))), (false, old.clone()));
        assert_eq!(judged(exchange(held(None, None), set(When::Exists))), (false, Reply::Null));
        assert_eq!(judged(exchange(held(None, None), set(When::Always))), (true, Reply::Null));
        let delete = |held: Held| tell(held, |when| Change::Delete { when });
        assert_eq!(judged(delete(held(Some("old"), None))), (true, old));
        assert_eq!(judged(delete(held(None, None))), (false, Reply::Null));
        assert_eq!(judged(append(&held(Some("old"), None), &value)), (true, Reply::Integer(6)));
        assert_eq!(judged(remove_deadline(&held(Some("old"), None))), (false, Reply::Integer(0)));
        assert_eq!(judged(remove_deadline(&held(Some("old"), Some(WallTime(1))))), (true, Reply::Integer(1)));
        assert_eq!(judged(set_deadline(&held(None, None), WallTime(1), Only::WithNone)), (false, Reply::Integer(0)));
    }

    #[test]
    fn no_deadline_is_the_latest_of_all() {
        let (soon, late) = (WallTime(1), WallTime(2));
        let cases = [
            (Only::Always, [true, true, true]),
            (Only::WithNone, [true, false, false]),
            (Only::WithOne, [false, true, true]),
            (Only::IfLater, [false, false, true]),
            (Only::IfSooner, [true, false, false]),
        ];
        for (only, expected) in cases {
            let found = [(soon, None), (soon, Some(soon)), (late, Some(soon))].map(|(at, own)| applies(only, at, own));
            assert_eq!(found, expected, "{only:?}");
        }
    }
}
