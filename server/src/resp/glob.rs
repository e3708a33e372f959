//! Patterns as Redis has them: `*` is anything, `?` one byte, `[a-c]` one of some, `[^a-c]` one of the others, and a
//! backslash takes the meaning from what follows.
//!
//! Bytes and not letters, because keys are bytes. Only the last `*` is ever gone back to, so the time is the product of
//! both lengths at worst and never exponential.

/// Whether all of `text` is as the pattern wants it.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind the last `*`: where the pattern goes on, and what of the text it was tried from.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(seen) {
        match step(&pattern[at..], byte) {
            Step::Anything => {
                at += 1;
                retry = Some((at, seen));
            }
            Step::Fits(length) => {
                at += length;
                seen += 1;
            }
            Step::Not => {
                let Some((behind, tried)) = retry else { return false };
                (at, seen) = (behind, tried + 1);
                retry = Some((behind, tried + 1));
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// What every text that fits begins with.
pub(super) fn beginning(pattern: &[u8]) -> &[u8] {
    let plain = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..plain.unwrap_or(pattern.len())]
}

/// What the beginning of a pattern says of one byte.
enum Step {
    /// It is a `*`.
    Anything,
    /// So many bytes of the pattern allow it.
    Fits(usize),
    Not,
}

fn step(pattern: &[u8], byte: u8) -> Step {
    let (fits, length) = match pattern {
        [] => return Step::Not,
        [b'*', ..] => return Step::Anything,
        [b'?', ..] => (true, 1),
        [b'[', class @ ..] => {
            let (fits, length) = one_of(class, byte);
            (fits, 1 + length)
        }
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [literal, ..] => (*literal == byte, 1),
    };
    if fits { Step::Fits(length) } else { Step::Not }
}

/// Whether a byte is in the class that begins here, and how long the class is with its closing bracket. One that is not
/// closed ends with the pattern.
fn one_of(class: &[u8], byte: u8) -> (bool, usize) {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', escaped, after @ ..] => {
                found |= *escaped == byte;
                after
            }
            [low, b'-', high, after @ ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
    (found != negated, class.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        let fits = [
            ("*", ""),
            ("", ""),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            (r"\*", "*"),
            (r"[\]]", "]"),
            ("[abc", "b"),
            ("*[0-9]", "key:7"),
            ("**", "x"),
        ];
        for (pattern, text) in fits {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} fits {text}");
        }
        let not = [
            ("", "a"),
            ("a", ""),
            ("a*", "ba"),
            ("*c", "abd"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("h[a-c]llo", "hdllo"),
            (r"\*", "x"),
            ("a*b", "a-b-c"),
            ("[", "["),
        ];
        for (pattern, text) in not {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} does not fit {text}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_one() {
        let pattern = "a*".repeat(100) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(1_000).as_bytes()));
    }

    #[test]
    fn what_comes_before_the_first_special_byte_is_certain() {
        for (pattern, expected) in [("user:*", "user:"), ("plain", "plain"), ("*", ""), (r"a\*", "a"), ("a[bc]", "a")] {
            assert_eq!(beginning(pattern.as_bytes()), expected.as_bytes(), "{pattern}");
        }
    }
}
