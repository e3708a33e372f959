//! A lock that is kept in a register: who holds it, for how long, and what that is worth.
//!
//! A lock is the value of a linearizable register ([`crate::cell`]): its owner, the *token* that it was taken under, and the
//! time for which a sign of life counts. No server knows what it means. All rules are followed by those who want the
//! lock, and every change is on condition of the exact version that its contender has seen:
//!
//! ```text
//!   nothing, version v ──── take: put at v, with token v + 1 ───▶ held, version v + 1
//!           ▲                                                       │ │ ▲
//!           └──────────────── release: remove at v ─────────────────┘ └─┘ renew: put at v, the token as it is
//!
//!   held, version v ─────── steal: put at v, with token v + 1 ──▶ held, by a rival that has seen v for the whole ttl
//!
//!   holder     ┤ sends ────────────── ttl ─────────────┤ may act before here, and not any more
//!   register      └▶ makes v
//!   rival                └▶ has seen v ─────────────── ttl ─────────────┤ may put at v
//! ```
//!
//! **Time.** Nobody reads a wall clock, and no two clocks are compared. A holder counts from when it *sent* the change that
//! was done, a rival from when it *had the answer* that first showed the version; the one is before the other. So where
//! clocks run equally fast the holder has stopped before anybody takes the lock from it.
//!
//! **Expiry only allows.** A ttl that has passed takes nothing away; it lets rivals take the lock. While nobody does, the
//! version is as it was, and a renewal is good however late it comes.
//!
//! **Invariants.** Of contenders whose clocks run equally fast at most one holds the lock at a time. Whoever takes it has a
//! token above all before, because a register's versions never restart; a renewal leaves the token as it is.
//!
//! **A lock is not mutual exclusion.** Between a look at the clock and the deed any time may pass: a process is stopped, a
//! machine sleeps, a packet is held up. So what is protected must refuse a token below the greatest that it has seen; then
//! whoever comes late is turned away, whatever it believes.
//!
//! **If the outcome of a change is unknown** the next read decides: the lock is its contender's if owner and token are. If
//! nothing has happened yet, it still may. So the same change is asked for again, under its name, and counts from when it
//! was first sent. Since it is bound to one version, it can do nothing any more once the register has moved on; only who
//! gives up in doubt may leave a lock that nobody holds, for one ttl.
//!
//! **Not here**: an order among those who wait, and what a deadline of the register would do: its owners' wall clocks decide
//! on that, and a lock must not.
//!
//! Sources: Gray and Cheriton, "Leases", SOSP 1989; Burrows, "The Chubby lock service", OSDI 2006, §2.4, where a token is
//! called sequencer; Kleppmann, "How to do distributed locking", 2016.

use alloc::string::{String, ToString};
use core::fmt;

use crate::id::{Name, WriteId};
use crate::limits;
use crate::time::{Duration, Instant};

/// What a register holds while somebody has the lock. Written as `lock owner=… token=17 ttl_ms=10000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Who has it.
    pub owner: WriteId,
    /// Under which token.
    pub token: Token,
    /// For how long a sign of life counts: whole milliseconds between [`limits::LOCK_TTL_MIN`] and
    /// [`limits::LOCK_TTL_MAX`].
    pub ttl: Duration,
}

/// The version of the register that the lock was taken with. Greater than that of everybody who had it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The register holds something that is no lock. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotALock;

/// One that wants a lock, has it, and gives it back: a state machine without I/O.
///
/// Its host asks for the [`next`](Self::next) step, does it, says what came of it with one of the `on_` methods, and asks
/// again. Asked for a step twice, it says the same. `now` is the host's monotonic clock, which never goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    owner: WriteId,
    ttl: Duration,
    /// Whether the lock is wanted still.
    wanted: bool,
    phase: Phase,
    end: Option<End>,
    /// Whether a read has to decide before anything else is done.
    doubt: bool,
    /// The last change asked for, until it is known what came of it.
    attempt: Option<Attempt>,
    /// Counts attempts.
    number: u64,
    /// The highest version that was ever read or made.
    seen: u64,
    /// When the rival is to be looked at again.
    look_at: Instant,
    /// Nothing is asked before then.
    rest_until: Instant,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the register; answered by [`Contender::on_read`], or by [`Contender::on_refused`] if that failed in any way.
    Read,
    /// Change the register, if it is of just this version; answered by [`Contender::on_changed`],
    /// [`Contender::on_conflict`], [`Contender::on_refused`] or [`Contender::on_unknown`].
    Change {
        /// The request's name, the same as long as this is the same request.
        name: Name,
        /// The version. The contender has seen it, so it also says since when the request may have been carried out.
        version: u64,
        /// What it is to hold; `None`: nothing.
        value: Option<String>,
    },
    /// Nothing is to be done before then.
    WaitUntil(Instant),
    /// The lock was held, and somebody took it away. There are no more steps.
    Lost,
    /// The lock is not wanted any more and not held. There are no more steps.
    Released,
}

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The same as long as it is held.
    pub token: Token,
    /// Its holder may act before then, unless it is renewed.
    pub until: Instant,
}

/// What is known of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody holds it.
    Free { version: u64 },
    /// Somebody else does.
    Rival(Rival),
    /// This contender does.
    Mine(Hold),
}

/// A version by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rival {
    version: u64,
    /// When the answer came that first showed it.
    since: Instant,
    /// The rival's own.
    ttl: Duration,
}

/// A version by this contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    version: u64,
    token: Token,
    /// When the change that made it was first sent.
    since: Instant,
}

/// A change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    number: u64,
    version: u64,
    /// `None`: to release it.
    token: Option<Token>,
    /// When it was first sent.
    since: Instant,
    /// Whether it may have been done, or may be yet, whatever is answered from now on.
    doubtful: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lost,
    Released,
}

impl Lock {
    /// Reads what `Display` writes, and nothing else.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn parse(value: &[u8]) -> Result<Self, NotALock> {
        let read = || {
            let text = core::str::from_utf8(value).ok()?;
            let (owner, rest) = text.strip_prefix("lock owner=")?.split_once(" token=")?;
            let (token, ttl) = rest.split_once(" ttl_ms=")?;
            let (token, ttl) = (Token(token.parse().ok()?), Duration::millis(u64::from(ttl.parse::<u32>().ok()?)));
            let lock = Self { owner: WriteId::parse_hex(owner)?, token, ttl };
            let is_bounded = (limits::LOCK_TTL_MIN..=limits::LOCK_TTL_MAX).contains(&ttl);
            // Each lock is written in one way.
            (is_bounded && lock.to_string() == text).then_some(lock)
        };
        read().ok_or(NotALock)
    }
}

impl Contender {
    /// Wants a lock. `owner` is random and no other contender's, for that is how it knows its own lock. `ttl` is taken in
    /// whole milliseconds and within its limits. A long one lets a lock whose holder has died lie idle for longer; a
    /// short one is lost in a shorter disturbance, and is renewed more often.
    #[must_use]
    pub fn new(owner: WriteId, ttl: Duration) -> Self {
        Self {
            owner,
            ttl: Duration::millis(ttl.as_millis()).clamp(limits::LOCK_TTL_MIN, limits::LOCK_TTL_MAX),
            wanted: true,
            phase: Phase::Free { version: 0 },
            end: None,
            doubt: true,
            attempt: None,
            number: 0,
            seen: 0,
            look_at: Instant(0),
            rest_until: Instant(0),
        }
    }

    /// The lock is not wanted any more. It is not held from here on, and given back as soon as can be.
    pub fn release(&mut self) {
        self.wanted = false;
        self.rest_until = Instant(0);
        // The host may have stopped to wait for an answer.
        self.doubt = self.attempt.is_some();
        if let Some(attempt) = &mut self.attempt {
            attempt.doubtful = true;
        }
    }

    /// What is to be done.
    pub fn next(&mut self, now: Instant) -> Step {
        if !self.wanted && !self.doubt && !matches!(self.phase, Phase::Mine(_)) {
            self.end = self.end.or(Some(End::Released));
        }
        match self.end {
            Some(End::Lost) => return Step::Lost,
            Some(End::Released) => return Step::Released,
            None if now < self.rest_until => return Step::WaitUntil(self.rest_until),
            None if self.doubt => return Step::Read,
            None => (),
        }
        match self.phase {
            Phase::Free { version } => self.change(now, version, Some(token_after(version))),
            Phase::Rival(Rival { version, since, ttl }) => {
                let free_at = since + ttl;
                if now >= free_at {
                    self.change(now, version, Some(token_after(version)))
                } else if now >= self.look_at {
                    Step::Read
                } else {
                    Step::WaitUntil(self.look_at.min(free_at))
                }
            }
            Phase::Mine(hold) if !self.wanted => self.change(now, hold.version, None),
            Phase::Mine(hold) => {
                let renew_at = hold.since + Duration(self.ttl.0 / 3);
                if now >= renew_at {
                    self.change(now, hold.version, Some(hold.token))
                } else {
                    Step::WaitUntil(renew_at)
                }
            }
        }
    }

    /// The lock, if its holder may act now. Whoever acts later than it asked is not covered by the answer.
    #[must_use]
    pub fn held(&self, now: Instant) -> Option<Held> {
        let Phase::Mine(Hold { token, since, .. }) = self.phase else { return None };
        let until = since + self.ttl;
        (self.wanted && self.end.is_none() && now < until).then_some(Held { token, until })
    }

    /// The register was read: its answer came at `now`. May also be said unasked, as when a watch has told.
    ///
    /// # Errors
    ///
    /// If what it holds is no lock: it is left alone, and so should be the register.
    pub fn on_read(&mut self, now: Instant, version: u64, value: Option<&[u8]>) -> Result<(), NotALock> {
        if self.end.is_some() {
            return Ok(());
        }
        if version < self.seen {
            // Late, or of a cluster that was recovered without the last of it: to be looked at again, and not at once.
            self.rest_until = now + self.look_every();
            return Ok(());
        }
        let held = match self.phase {
            Phase::Mine(hold) => Some(hold),
            Phase::Free { .. } | Phase::Rival(_) => None,
        };
        let lock = match value.map(Lock::parse).transpose() {
            Ok(lock) => lock,
            // Whoever wrote over it has taken it away.
            Err(NotALock) if held.is_some() => None,
            Err(not_a_lock) => return Err(not_a_lock),
        };
        let taking = self.attempt.filter(|attempt| attempt.token.is_some());
        let token = held.map(|hold| hold.token).or(taking.and_then(|attempt| attempt.token));
        let mine = lock.filter(|lock| lock.owner == self.owner && Some(lock.token) == token);
        // If nobody can say when it was sent, the earliest that it may have been.
        let made = taking.filter(|attempt| attempt.version.checked_add(1) == Some(version));
        let since = made.map(|attempt| attempt.since).or(held.map(|hold| hold.since));
        let since = since.or(taking.map(|attempt| attempt.since));

        self.seen = version;
        self.doubt = false;
        self.look_at = now + self.look_every();
        self.attempt = self.attempt.filter(|attempt| attempt.version >= version);
        self.phase = match (mine.zip(since), lock) {
            (Some((lock, since)), _) => Phase::Mine(Hold { version, token: lock.token, since }),
            (None, None) => Phase::Free { version },
            (None, Some(lock)) => Phase::Rival(self.rival(now, version, lock.ttl)),
        };
        if held.is_some() && mine.is_none() {
            self.end = Some(if self.wanted { End::Lost } else { End::Released });
        }
        Ok(())
    }

    /// The change was done and made this version.
    pub fn on_changed(&mut self, version: u64) {
        let Some(attempt) = self.attempt else { return };
        if attempt.version.checked_add(1) != Some(version) {
            // Not by this change.
            return self.on_unknown();
        }
        self.attempt = None;
        self.doubt = false;
        self.seen = self.seen.max(version);
        match attempt.token {
            Some(token) => self.phase = Phase::Mine(Hold { version, token, since: attempt.since }),
            None => self.end = Some(End::Released),
        }
    }

    /// The register is of another version.
    pub fn on_conflict(&mut self) {
        self.doubt = true;
    }

    /// Nothing was read, or nothing was done and nothing will be. It is tried again after a while.
    pub fn on_refused(&mut self, now: Instant) {
        self.rest_until = now + self.look_every();
        self.attempt = self.attempt.filter(|attempt| attempt.doubtful);
    }

    /// The change may have been done, or may be yet.
    pub fn on_unknown(&mut self) {
        self.doubt = true;
        if let Some(attempt) = &mut self.attempt {
            attempt.doubtful = true;
        }
    }

    /// Asks for a change: for the last one again, if it is the same.
    fn change(&mut self, now: Instant, version: u64, token: Option<Token>) -> Step {
        let again = self.attempt.filter(|attempt| attempt.version == version && attempt.token == token);
        let attempt = again.unwrap_or_else(|| {
            self.number += 1;
            Attempt { number: self.number, version, token, since: now, doubtful: false }
        });
        self.attempt = Some(attempt);
        let name = Name { session: self.owner, number: attempt.number };
        let value = token.map(|token| Lock { owner: self.owner, token, ttl: self.ttl }.to_string());
        Step::Change { name, version, value }
    }

    fn rival(&self, now: Instant, version: u64, ttl: Duration) -> Rival {
        match self.phase {
            Phase::Rival(rival) if rival.version == version => rival,
            Phase::Rival(_) | Phase::Free { .. } | Phase::Mine(_) => Rival { version, since: now, ttl },
        }
    }

    /// How often a rival is looked at, and how long a refusal is rested for: so that a release is soon seen.
    fn look_every(&self) -> Duration {
        Duration(self.ttl.0 / 20).clamp(LOOK_MIN, LOOK_MAX)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock owner={} token={} ttl_ms={}", self.owner, self.token, self.ttl.as_millis())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for NotALock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the register holds something that is no lock")
    }
}

impl core::error::Error for NotALock {}

/// The token of whoever takes a lock at this version.
fn token_after(version: u64) -> Token {
    Token(version.saturating_add(1))
}

const LOOK_MIN: Duration = Duration::millis(20);
const LOOK_MAX: Duration = Duration::millis(500);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::rng::Rng;

    const TTL: Duration = Duration::secs(9);

    /// A register as servers keep it: all that a lock needs of them.
    #[derive(Default)]
    struct Register {
        version: u64,
        value: Option<String>,
    }

    impl Register {
        fn change(&mut self, step: &Step) -> bool {
            let Step::Change { version, value, .. } = step else { panic!("no change: {step:?}") };
            let holds = *version == self.version;
            if holds {
                self.version += 1;
                self.value.clone_from(value);
            }
            holds
        }

        fn show(&self, to: &mut Contender, now: Instant) {
            to.on_read(now, self.version, self.value.as_deref().map(str::as_bytes)).expect("a lock, or nothing");
        }

        /// One step that is answered at once. Whether there was anything to do.
        fn turn(&mut self, contender: &mut Contender, now: Instant) -> bool {
            let step = contender.next(now);
            match &step {
                Step::Read => self.show(contender, now),
                Step::Change { .. } if self.change(&step) => contender.on_changed(self.version),
                Step::Change { .. } => contender.on_conflict(),
                Step::WaitUntil(at) => assert!(*at > now, "it waits for what has been"),
                Step::Lost | Step::Released => (),
            }
            matches!(step, Step::Read | Step::Change { .. })
        }

        /// All steps that there are at a moment.
        fn run(&mut self, contender: &mut Contender, now: Instant) {
            for _ in 0..8 {
                if !self.turn(contender, now) {
                    return;
                }
            }
            panic!("it does not come to rest: {contender:?}");
        }
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000)
    }

    fn contender(owner: u8) -> Contender {
        Contender::new(WriteId([owner; 16]), TTL)
    }

    /// One that took the lock at the very beginning, as the first ever.
    fn holder(register: &mut Register) -> Contender {
        let mut holder = contender(1);
        register.run(&mut holder, at(0));
        assert_eq!(holder.held(at(0)), Some(Held { token: Token(1), until: at(9_000) }));
        holder
    }

    fn is_change(step: &Step) -> bool {
        matches!(step, Step::Change { .. })
    }

    #[test]
    fn a_lock_reads_back_and_nothing_else_is_one() {
        let lock = Lock { owner: WriteId([0xab; 16]), token: Token(17), ttl: Duration::secs(10) };
        let text = lock.to_string();
        assert_eq!(text, alloc::format!("lock owner={} token=17 ttl_ms=10000", "ab".repeat(16)));
        assert_eq!(Lock::parse(text.as_bytes()), Ok(lock));
        let owner = "ab".repeat(16);
        for bad in [
            String::new(),
            alloc::format!("{text} "),
            alloc::format!(" {text}"),
            text.replace("17", "+17"),
            text.replace("17", "017"),
            text.replace("17", ""),
            text.replace("17", "18446744073709551616"),
            text.replace("10000", "99"),
            text.replace("10000", "86400001"),
            text.replace("10000", "4294967296"),
            text.replace("ab", "AB"),
            text.replace(&owner, &owner[1..]),
            text.replace("lock ", "lick "),
            text.replace(' ', "  "),
        ] {
            assert_eq!(Lock::parse(bad.as_bytes()), Err(NotALock), "{bad:?}");
        }
        assert_eq!(Lock::parse(&[0xff; 60]), Err(NotALock));
    }

    /// Anybody can write to the register.
    #[test]
    fn whatever_is_taken_for_a_lock_is_written_so() {
        let mut rng = Rng::new(1);
        let lock = Lock { owner: WriteId([7; 16]), token: Token(u64::MAX - 8), ttl: Duration::secs(10) }.to_string();
        let mut taken = 0;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = lock.bytes().collect();
            for _ in 0..=rng.below(2) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.next_u64() as u8,
                    1 => bytes[at] = b'0' + rng.below(10) as u8,
                    _ => {
                        bytes.remove(at);
                    }
                }
            }
            if let Ok(lock) = Lock::parse(&bytes) {
                assert_eq!(lock.to_string().as_bytes(), bytes);
                taken += 1;
            }
        }
        assert!(taken > 1_000, "{taken}");
    }

    #[test]
    fn the_token_is_the_version_that_the_lock_was_taken_with_and_a_renewal_keeps_it() {
        let mut register = Register::default();
        let mut holder = holder(&mut register);
        assert_eq!(holder.next(at(2_999)), Step::WaitUntil(at(3_000)));
        register.run(&mut holder, at(3_000));
        register.run(&mut holder, at(6_500));
        assert_eq!(register.version, 3);
        assert_eq!(holder.held(at(6_500)), Some(Held { token: Token(1), until: at(15_500) }));
        let lock = Lock::parse(register.value.expect("a lock").as_bytes()).expect("a lock");
        assert_eq!(lock, Lock { owner: WriteId([1; 16]), token: Token(1), ttl: TTL });
    }

    #[test]
    fn a_ttl_is_whole_milliseconds_within_its_limits() {
        let ttl = |ttl| Contender::new(WriteId::default(), ttl).ttl;
        assert_eq!(ttl(Duration(1_500_999)), Duration::millis(1_500), "no holder counts more than it has written");
        assert_eq!(ttl(Duration::ZERO), limits::LOCK_TTL_MIN);
        assert_eq!(ttl(Duration(u64::MAX)), limits::LOCK_TTL_MAX);
    }

    /// The answer to a change comes late: what counts is when it was sent.
    #[test]
    fn a_holder_may_act_until_a_ttl_after_it_sent_and_not_after() {
        let mut register = Register::default();
        let mut slow = contender(1);
        register.run(&mut slow, at(0));
        let renewal = slow.next(at(4_000));
        assert!(register.change(&renewal));
        assert_eq!(slow.held(at(8_999)).map(|held| held.until), Some(at(9_000)), "it does not know yet");
        slow.on_changed(register.version);
        assert_eq!(slow.held(at(12_999)).map(|held| held.until), Some(at(13_000)));
        assert_eq!(slow.held(at(13_000)), None);

        let mut slower = contender(2);
        register.value = None;
        register.version += 1;
        register.show(&mut slower, at(0));
        let take = slower.next(at(0));
        assert!(register.change(&take));
        slower.on_changed(register.version);
        assert_eq!(slower.held(at(9_500)), None, "it was told too late to do anything");
        assert!(is_change(&slower.next(at(9_500))), "it renews at once");
    }

    /// A read may be under way for long. If it was answered after the renewal was sent, it must count from then: a rival
    /// that counts from when it asked would take the lock from a holder that may act.
    #[test]
    fn a_rival_counts_from_the_answer_that_showed_the_version() {
        let mut register = Register::default();
        let _holder = holder(&mut register);
        let mut rival = contender(2);
        assert_eq!(rival.next(at(100)), Step::Read);
        register.show(&mut rival, at(5_000));
        assert!(!is_change(&rival.next(at(9_100))));
        assert!(!is_change(&rival.next(at(13_999))));
        assert!(is_change(&rival.next(at(14_000))));
    }

    #[test]
    fn any_renewal_lets_a_rival_begin_anew() {
        let mut register = Register::default();
        let (mut holder, mut rival) = (holder(&mut register), contender(2));
        for ms in (0..60_000).step_by(100) {
            register.run(&mut holder, at(ms));
            register.run(&mut rival, at(ms));
            assert!(holder.held(at(ms)).is_some() && rival.held(at(ms)).is_none(), "at {ms} ms");
        }
        // The holder stands still. Its last renewal was sent at 57 s, and the rival saw it in the same moment.
        let taken = (60_000..90_000).step_by(100).find(|&ms| {
            register.run(&mut rival, at(ms));
            rival.held(at(ms)).is_some()
        });
        assert_eq!(taken, Some(66_000));
        assert_eq!(holder.held(at(66_000)), None);
    }

    /// The ttl that a rival waits for is the holder's, however short its own.
    #[test]
    fn a_hasty_rival_waits_as_long_as_the_others() {
        let mut register = Register::default();
        let _holder = holder(&mut register);
        let mut hasty = Contender::new(WriteId([2; 16]), Duration::millis(500));
        register.run(&mut hasty, at(0));
        assert!(!is_change(&hasty.next(at(8_999))));
        register.run(&mut hasty, at(9_000));
        assert_eq!(hasty.held(at(9_000)), Some(Held { token: Token(2), until: at(9_500) }));
    }

    #[test]
    fn expiry_only_allows_and_a_late_renewal_is_good_while_nobody_has_taken_the_lock() {
        let mut register = Register::default();
        let mut holder = holder(&mut register);
        assert_eq!(holder.held(at(60_000)), None);
        register.run(&mut holder, at(60_000));
        assert_eq!(holder.held(at(60_000)), Some(Held { token: Token(1), until: at(69_000) }));
    }

    #[test]
    fn who_was_robbed_finds_out_and_has_the_smaller_token() {
        let mut register = Register::default();
        let (mut holder, mut thief) = (holder(&mut register), contender(2));
        register.run(&mut thief, at(0));
        register.run(&mut thief, at(9_000));
        assert_eq!(thief.held(at(9_000)).map(|held| held.token), Some(Token(2)));
        register.run(&mut holder, at(9_001));
        assert_eq!(holder.next(at(9_001)), Step::Lost);
        assert_eq!((holder.held(at(9_001)), register.version), (None, 2), "it has changed nothing");
        holder.release();
        assert_eq!(holder.next(at(9_002)), Step::Lost);
    }

    /// Two rivals come at the same moment: the version decides.
    #[test]
    fn of_two_thieves_one_gets_it() {
        let mut register = Register::default();
        let _holder = holder(&mut register);
        let (mut one, mut two) = (contender(2), contender(3));
        for rival in [&mut one, &mut two] {
            register.run(rival, at(0));
        }
        let (first, second) = (one.next(at(9_000)), two.next(at(9_000)));
        assert!(register.change(&second) && !register.change(&first));
        one.on_conflict();
        two.on_changed(register.version);
        register.run(&mut one, at(9_000));
        assert!(one.held(at(9_000)).is_none() && two.held(at(9_000)).is_some());
        assert!(!is_change(&one.next(at(17_999))), "it waits for the new holder now");
    }

    #[test]
    fn a_release_is_free_at_once_and_tokens_go_on_rising() {
        let mut register = Register::default();
        let (mut holder, mut rival) = (holder(&mut register), contender(2));
        register.run(&mut rival, at(0));
        holder.release();
        assert_eq!(holder.held(at(10)), None, "before anybody else can have it");
        register.run(&mut holder, at(10));
        assert_eq!((holder.next(at(10)), register.value.clone()), (Step::Released, None));
        assert_eq!(rival.next(at(10)), Step::WaitUntil(at(450)));
        register.run(&mut rival, at(450));
        assert_eq!(rival.held(at(450)).map(|held| held.token), Some(Token(3)), "a delete is a version, too");
    }

    /// What was asked of a release that comes late must not take the lock from the next one.
    #[test]
    fn a_late_release_hurts_nobody() {
        let mut register = Register::default();
        let (mut holder, mut thief) = (holder(&mut register), contender(2));
        register.run(&mut thief, at(0));
        holder.release();
        let late = holder.next(at(100));
        register.run(&mut thief, at(9_000));
        assert!(!register.change(&late));
        holder.on_conflict();
        register.run(&mut holder, at(9_100));
        assert_eq!(holder.next(at(9_100)), Step::Released);
        assert!(thief.held(at(9_100)).is_some());
    }

    #[test]
    fn a_take_of_unknown_outcome_that_was_done_is_found_and_counts_from_its_sending() {
        let mut register = Register::default();
        let mut taker = contender(1);
        register.show(&mut taker, at(0));
        let take = taker.next(at(1_000));
        assert!(register.change(&take));
        taker.on_unknown();
        assert_eq!((taker.next(at(4_000)), taker.held(at(4_000))), (Step::Read, None));
        register.show(&mut taker, at(4_000));
        assert_eq!(taker.held(at(4_000)), Some(Held { token: Token(1), until: at(10_000) }));
    }

    /// It was not done, as far as can be seen; it may be yet. So it is asked for again as the same request, and whichever
    /// of the two did it, it counts from the first.
    #[test]
    fn a_take_of_unknown_outcome_is_asked_for_again_under_its_name() {
        for first_comes_through in [false, true] {
            let mut register = Register::default();
            let mut taker = contender(1);
            register.show(&mut taker, at(0));
            let first = taker.next(at(1_000));
            taker.on_unknown();
            register.show(&mut taker, at(4_000));
            let second = taker.next(at(4_000));
            assert_eq!(first, second);
            if first_comes_through {
                assert!(register.change(&first) && !register.change(&second));
                taker.on_conflict();
                assert_eq!(taker.next(at(5_000)), Step::Read);
                register.show(&mut taker, at(5_000));
            } else {
                assert!(register.change(&second) && !register.change(&first));
                taker.on_changed(register.version);
            }
            assert_eq!(taker.held(at(5_000)), Some(Held { token: Token(1), until: at(10_000) }));
        }
    }

    #[test]
    fn a_take_that_somebody_forestalled_can_do_nothing_any_more() {
        let mut register = Register::default();
        let (mut taker, mut other) = (contender(1), contender(2));
        register.show(&mut taker, at(0));
        let take = taker.next(at(0));
        taker.on_unknown();
        register.run(&mut other, at(10));
        assert!(!register.change(&take));
        register.run(&mut taker, at(20));
        assert!(taker.attempt.is_none() && taker.held(at(20)).is_none());
        let Step::Change { name, .. } = taker.next(at(9_020)) else { panic!("it takes it now") };
        assert_eq!(name.number, 2, "another request");
    }

    #[test]
    fn a_renewal_of_unknown_outcome_neither_prolongs_nor_ends_anything_by_itself() {
        let mut register = Register::default();
        let mut holder = holder(&mut register);
        let renewal = holder.next(at(3_000));
        holder.on_unknown();
        assert_eq!(holder.held(at(8_000)).map(|held| held.until), Some(at(9_000)));
        register.show(&mut holder, at(8_000));
        assert_eq!(holder.held(at(8_000)).map(|held| held.until), Some(at(9_000)), "a look is no sign of life");
        assert_eq!(holder.next(at(8_000)), renewal);
        assert!(register.change(&renewal));
        holder.on_conflict();
        register.run(&mut holder, at(8_500));
        let held = holder.held(at(8_500)).expect("its own renewal was in its way");
        assert_eq!(held.token, Token(1));
    }

    #[test]
    fn who_gives_up_in_doubt_takes_back_what_was_done() {
        let mut register = Register::default();
        let mut taker = contender(1);
        register.show(&mut taker, at(0));
        let take = taker.next(at(0));
        // The host does not wait for the answer.
        taker.release();
        assert!(register.change(&take));
        register.run(&mut taker, at(10));
        assert_eq!((taker.next(at(10)), register.value.clone(), register.version), (Step::Released, None, 2));

        let mut idle = contender(2);
        idle.release();
        assert_eq!(idle.next(at(0)), Step::Released, "nothing was ever asked");
    }

    #[test]
    fn a_release_of_unknown_outcome_is_seen_through() {
        for was_done in [false, true] {
            let mut register = Register::default();
            let mut holder = holder(&mut register);
            holder.release();
            let release = holder.next(at(10));
            if was_done {
                assert!(register.change(&release));
            }
            holder.on_unknown();
            register.run(&mut holder, at(20));
            assert_eq!((holder.next(at(20)), register.value.clone(), register.version), (Step::Released, None, 2));
        }
    }

    #[test]
    fn what_is_no_lock_is_left_alone() {
        let mut taker = contender(1);
        assert_eq!(taker.on_read(at(0), 4, Some(b"precious")), Err(NotALock));
        assert_eq!(taker.next(at(0)), Step::Read);

        let mut register = Register::default();
        let mut robbed = holder(&mut register);
        assert_eq!(robbed.on_read(at(1), 2, Some(b"precious")), Ok(()));
        assert_eq!((robbed.next(at(1)), robbed.held(at(1))), (Step::Lost, None));
    }

    /// An administrator deletes the register, or somebody with the same owner is about.
    #[test]
    fn a_lock_that_is_not_of_this_token_is_somebody_elses() {
        let mut register = Register::default();
        let mut holder = holder(&mut register);
        let other = Lock { owner: WriteId([1; 16]), token: Token(2), ttl: TTL }.to_string();
        assert_eq!(holder.on_read(at(1), 2, Some(other.as_bytes())), Ok(()));
        assert_eq!(holder.next(at(1)), Step::Lost);
        let mut stranger = contender(1);
        assert_eq!(stranger.on_read(at(1), 2, Some(other.as_bytes())), Ok(()));
        assert!(stranger.held(at(1)).is_none() && !is_change(&stranger.next(at(1))));
    }

    /// The register is of a much higher version and holds the same, as after a recovery of the cluster.
    #[test]
    fn a_version_that_has_jumped_takes_nothing_away_and_prolongs_nothing() {
        let mut register = Register::default();
        let mut holder = holder(&mut register);
        register.version += 1 << 40;
        register.run(&mut holder, at(3_000));
        assert_eq!(holder.held(at(3_000)), Some(Held { token: Token(1), until: at(12_000) }));
    }

    #[test]
    fn a_refusal_is_rested_for_and_leaves_no_doubt() {
        let mut register = Register::default();
        let mut taker = contender(1);
        taker.on_refused(at(0));
        assert_eq!(taker.next(at(0)), Step::WaitUntil(at(450)));
        register.show(&mut taker, at(450));
        assert!(is_change(&taker.next(at(450))));
        taker.on_refused(at(2_000));
        assert_eq!(taker.next(at(2_000)), Step::WaitUntil(at(2_450)));
        let again = taker.next(at(2_450));
        assert!(register.change(&again));
        taker.on_changed(register.version);
        assert_eq!(taker.held(at(2_450)).map(|held| held.until), Some(at(11_450)), "nothing came of the first");
    }

    #[test]
    fn an_older_version_says_nothing() {
        let mut register = Register::default();
        let mut holder = holder(&mut register);
        assert_eq!(holder.on_read(at(1), 0, None), Ok(()));
        assert!(holder.held(at(1)).is_some());
    }
}
