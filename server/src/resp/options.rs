//! What may follow the key of a command: conditions, deadlines, patterns.
//!
//! Deadlines are given as a span from now or as a moment, in seconds or in milliseconds; the core knows moments only. A
//! span is counted from when its command was read.

use qunlong_core::cell::{Expiry, When};
use qunlong_core::{Bytes, WallTime, limits};

use super::command::{Act, Answer, Own, Scan, Set, integer, no_password, word};
use super::reply::{Protocol, Reply};

/// How a moment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    SecondsFromNow,
    MillisFromNow,
    Seconds,
    Millis,
}

/// Of which keys a deadline is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    Always,
    /// Those that have none.
    WithNone,
    /// Those that have one.
    WithOne,
    /// Those whose own is sooner. To have none counts as the latest of all, here and below.
    IfLater,
    /// Those whose own is later.
    IfSooner,
}

impl Unit {
    fn of_option(name: &str) -> Option<Self> {
        match name {
            "ex" => Some(Self::SecondsFromNow),
            "px" => Some(Self::MillisFromNow),
            "exat" => Some(Self::Seconds),
            "pxat" => Some(Self::Millis),
            _ => None,
        }
    }

    /// The moment that is meant; 1970 for all before it. `None` if there is no such moment.
    pub(super) fn moment(self, number: i64, now: WallTime) -> Option<WallTime> {
        let (from, micros) = match self {
            Self::SecondsFromNow => (now, 1_000_000),
            Self::MillisFromNow => (now, 1_000),
            Self::Seconds => (WallTime(0), 1_000_000),
            Self::Millis => (WallTime(0), 1_000),
        };
        let moment = i128::from(from.0) + i128::from(number) * micros;
        let moment = u64::try_from(moment.max(0)).ok()?;
        // It is told in milliseconds, as a signed number.
        i64::try_from(moment).ok().map(|_| WallTime(moment))
    }

    /// The same for a value that is set now and must live for some time.
    pub(super) fn lifetime(self, number: i64, now: WallTime, command: &str) -> Result<WallTime, Reply> {
        let moment = if number > 0 { self.moment(number, now) } else { None };
        moment.ok_or_else(|| bad_expiry(command))
    }

    /// A deadline as clients are told it.
    pub(super) fn number(self, deadline: WallTime, now: WallTime) -> i64 {
        let (micros, per) = match self {
            Self::SecondsFromNow => (deadline.since(now).0, 1_000_000),
            Self::MillisFromNow => (deadline.since(now).0, 1_000),
            Self::Seconds => (deadline.0, 1_000_000),
            Self::Millis => (deadline.0, 1_000),
        };
        // Rounded, as Redis does: whoever asks at once is told what was set.
        i64::try_from(micros.saturating_add(per / 2) / per).unwrap_or(i64::MAX)
    }
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub(super) fn set(value: &Bytes, options: &[Bytes], now: WallTime) -> Result<Set, Reply> {
    let mut set = Set::plain(value);
    let mut expiry = None;
    let mut rest = options;
    while let Some((option, after)) = rest.split_first() {
        rest = after;
        match word(option).as_str() {
            "nx" if set.when == When::Always => set.when = When::Holds(None),
            "xx" if set.when == When::Always => set.when = When::Exists,
            "get" => set.answer = Answer::Before,
            "keepttl" if expiry.is_none() => expiry = Some(Expiry::Keep),
            name if expiry.is_none() => expiry = Some(Expiry::At(deadline(name, &mut rest, now, "set")?)),
            _ => return Err(syntax_error()),
        }
    }
    set.expiry = expiry.unwrap_or(Expiry::Never);
    Ok(set)
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`.
pub(super) fn get_expire(options: &[Bytes], now: WallTime) -> Result<Act, Reply> {
    let Some((option, mut rest)) = options.split_first() else { return Ok(Act::Get) };
    let at = match word(option).as_str() {
        "persist" => None,
        name => Some(deadline(name, &mut rest, now, "getex")?),
    };
    if rest.is_empty() { Ok(Act::GetExpire(at)) } else { Err(syntax_error()) }
}

/// Takes the number that belongs to an option which names a unit.
fn deadline(option: &str, rest: &mut &[Bytes], now: WallTime, command: &str) -> Result<WallTime, Reply> {
    let unit = Unit::of_option(option).ok_or_else(syntax_error)?;
    let (number, after) = rest.split_first().ok_or_else(syntax_error)?;
    *rest = after;
    unit.lifetime(integer(number)?, now, command)
}

/// `EXPIRE key s [NX | XX | GT | LT]`.
pub(super) fn only(options: &[Bytes]) -> Result<Only, Reply> {
    let [option] = options else {
        let message = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return if options.is_empty() { Ok(Only::Always) } else { Err(Reply::error(message)) };
    };
    match word(option).as_str() {
        "nx" => Ok(Only::WithNone),
        "xx" => Ok(Only::WithOne),
        "gt" => Ok(Only::IfLater),
        "lt" => Ok(Only::IfSooner),
        option => Err(Reply::Error(format!("ERR Unsupported option {option}"))),
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]`.
pub(super) fn scan(cursor: &Bytes, options: &[Bytes]) -> Result<Scan, Reply> {
    let cursor = std::str::from_utf8(cursor).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or_else(|| Reply::error("ERR invalid cursor"))?;
    let mut scan = Scan { cursor, pattern: None, count: PAGE, type_exists: true };
    if !options.len().is_multiple_of(2) {
        return Err(syntax_error());
    }
    for pair in options.chunks_exact(2) {
        match word(&pair[0]).as_str() {
            "match" => scan.pattern = Some(pattern(&pair[1])?),
            "count" => scan.count = count(integer(&pair[1])?)?,
            "type" => scan.type_exists = word(&pair[1]) == "string",
            _ => return Err(syntax_error()),
        }
    }
    Ok(scan)
}

fn count(number: i64) -> Result<u32, Reply> {
    match u32::try_from(number) {
        Ok(0) => Err(syntax_error()),
        Ok(count) => Ok(count.min(limits::LIST_KEYS)),
        Err(_) if number < 0 => Err(syntax_error()),
        Err(_) => Ok(limits::LIST_KEYS),
    }
}

/// A pattern of a bounded length, because each key of a page is held against it.
pub(super) fn pattern(pattern: &Bytes) -> Result<Bytes, Reply> {
    if pattern.len() > PATTERN_BYTES {
        return Err(Reply::Error(format!("TOO_LARGE a pattern is larger than the limit of {PATTERN_BYTES} bytes")));
    }
    Ok(pattern.clone())
}

/// `HELLO [2 | 3 [AUTH user password] [SETNAME name]]`.
pub(super) fn hello(arguments: &[Bytes]) -> Result<Own, Reply> {
    let Some((version, mut rest)) = arguments.split_first() else {
        return Ok(Own::Hello { protocol: None, name: None });
    };
    let not_a_number = |_| Reply::error("ERR Protocol version is not an integer or out of range");
    let protocol = match integer(version).map_err(not_a_number)? {
        2 => Protocol::Two,
        3 => Protocol::Three,
        _ => return Err(Reply::error("NOPROTO unsupported protocol version")),
    };
    let mut name = None;
    while let Some((option, after)) = rest.split_first() {
        match (word(option).as_str(), after) {
            ("auth", [_, _, ..]) => return Err(no_password()),
            ("setname", [of, after @ ..]) => {
                name = Some(client_name(of)?);
                rest = after;
            }
            (option, _) => return Err(Reply::Error(format!("ERR Syntax error in HELLO option '{option}'"))),
        }
    }
    Ok(Own::Hello { protocol: Some(protocol), name })
}

/// A name that may stand in a line with others.
pub(super) fn client_name(name: &Bytes) -> Result<Bytes, Reply> {
    let is_plain = name.iter().all(u8::is_ascii_graphic) && name.len() <= limits::NAME_BYTES;
    let message = "ERR Client names cannot contain spaces, newlines or special characters, nor be long";
    if is_plain { Ok(name.clone()) } else { Err(Reply::error(message)) }
}

pub(super) fn bad_expiry(command: &str) -> Reply {
    Reply::Error(format!("ERR invalid expire time in '{command}' command"))
}

fn syntax_error() -> Reply {
    Reply::error("ERR syntax error")
}

/// Keys that a page of `SCAN` looks at where no number is given.
const PAGE: u32 = 10;
/// Bytes of a pattern. Longer: `TOO_LARGE`.
const PATTERN_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_000_000_000);

    fn words(line: &str) -> Vec<Bytes> {
        line.split_ascii_whitespace().map(Bytes::from).collect()
    }

    #[test]
    fn options_of_set() {
        let value = Bytes::from("v");
        let read = |line: &str| set(&value, &words(line), NOW);
        let plain = Set::plain(&value);
        assert_eq!(read(""), Ok(plain.clone()));
        let absent = Set { when: When::Holds(None), ..plain.clone() };
        assert_eq!(read("nx"), Ok(absent.clone()));
        let absent = Set { answer: Answer::Before, expiry: Expiry::At(WallTime(1_002_000_000)), ..absent };
        assert_eq!(read("EX 2 NX GET"), Ok(absent));
        let kept = Set { when: When::Exists, expiry: Expiry::Keep, ..plain.clone() };
        assert_eq!(read("keepttl xx"), Ok(kept));
        let until = |micros| Set { expiry: Expiry::At(WallTime(micros)), ..plain.clone() };
        assert_eq!(read("px 1500"), Ok(until(1_001_500_000)));
        assert_eq!(read("exat 7"), Ok(until(7_000_000)));
        assert_eq!(read("pxat 7"), Ok(until(7_000)));
        for line in ["nx xx", "ex", "ex 1 px 1", "ex 1 keepttl", "keepttl ex 1", "soon"] {
            assert_eq!(read(line), Err(syntax_error()), "{line}");
        }
        for line in ["ex 0", "px -1", "ex 9223372036854775807"] {
            assert_eq!(read(line), Err(bad_expiry("set")), "{line}");
        }
        assert!(matches!(read("ex 1.5"), Err(Reply::Error(text)) if text.contains("not an integer")));
    }

    #[test]
    fn deadlines_are_told_as_they_were_set() {
        for (unit, number) in
            [(Unit::SecondsFromNow, 100), (Unit::MillisFromNow, 100), (Unit::Seconds, 100), (Unit::Millis, 100)]
        {
            let moment = unit.moment(number, NOW).expect("there is one");
            assert_eq!(unit.number(moment, NOW), number, "{unit:?}");
        }
        assert_eq!(Unit::SecondsFromNow.moment(-5_000, NOW), Some(WallTime(0)), "long ago");
        assert_eq!(Unit::SecondsFromNow.number(WallTime(0), NOW), 0, "over, and not yet gone");
        assert_eq!(get_expire(&words(""), NOW), Ok(Act::Get));
        assert_eq!(get_expire(&words("persist"), NOW), Ok(Act::GetExpire(None)));
        assert_eq!(get_expire(&words("persist ex 1"), NOW), Err(syntax_error()));
    }

    #[test]
    fn options_of_the_others() {
        assert_eq!(only(&words("GT")), Ok(Only::IfLater));
        assert!(only(&words("nx gt")).is_err());
        let read = |line: &str| scan(&Bytes::from("7"), &words(line));
        let pattern = Some(Bytes::from("a*"));
        let page = Scan { cursor: 7, pattern, count: limits::LIST_KEYS, type_exists: false };
        assert_eq!(read("match a* count 1000000 type hash"), Ok(page));
        assert_eq!(read("count 0"), Err(syntax_error()));
        assert_eq!(read("match"), Err(syntax_error()));
        assert!(scan(&Bytes::from("x"), &[]).is_err());
        let named = Own::Hello { protocol: Some(Protocol::Three), name: Some(Bytes::from("me")) };
        assert_eq!(hello(&words("3 setname me")), Ok(named));
        assert!(matches!(hello(&words("4")), Err(Reply::Error(text)) if text.starts_with("NOPROTO")));
        assert_eq!(hello(&words("3 auth default secret")), Err(no_password()));
    }
}
