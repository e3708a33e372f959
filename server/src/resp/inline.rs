//! Commands as people type them: words between blanks, in quotes where they have blanks themselves.
//!
//! **Web pages** can make a browser send text to any port. HTTP is recognised by its first line, and the connection
//! ends before anything of it is a command.
//!
//! Source: `sdssplitargs` in Redis's `sds.c`; and its `networking.c` for hanging up on HTTP.

use qunlong_core::Bytes;

use super::request::{ARGUMENTS, Malformed};

/// The words of an inline command.
pub(super) fn words(line: &[u8]) -> Result<Vec<Bytes>, Malformed> {
    if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(Malformed::NoText);
    }
    if is_http(line) {
        return Err(Malformed::Http);
    }
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        words.push(Bytes::from(word(&mut rest)?));
        rest = rest.trim_ascii_start();
    }
    if words.len() > ARGUMENTS { Err(Malformed::Arguments) } else { Ok(words) }
}

/// The first line of a request ends with the version; the others are here in case that was lost.
fn is_http(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    let last = words.next_back().unwrap_or_default();
    last.starts_with(b"HTTP/") || first == b"post" || first == b"host:"
}

/// Takes a word and the blank behind it. Quotes may be anywhere in it; what they enclose may have blanks.
fn word(rest: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut word = Vec::new();
    while let Some(byte) = next(rest) {
        match byte {
            b' ' | b'\t' => break,
            b'"' | b'\'' => {
                quoted(byte, rest, &mut word)?;
                // A quote ends its word.
                return if rest.first().is_none_or(u8::is_ascii_whitespace) {
                    Ok(word)
                } else {
                    Err(Malformed::Quotes)
                };
            }
            byte => word.push(byte),
        }
    }
    Ok(word)
}

/// Takes what a quote encloses, and the quote that ends it.
fn quoted(quote: u8, rest: &mut &[u8], word: &mut Vec<u8>) -> Result<(), Malformed> {
    while let Some(byte) = next(rest) {
        match byte {
            byte if byte == quote => return Ok(()),
            b'\\' if quote == b'"' => word.push(escaped(rest)?),
            b'\\' if rest.first() == Some(&quote) => word.extend(next(rest)),
            byte => word.push(byte),
        }
    }
    Err(Malformed::Quotes)
}

/// Takes what follows a backslash between double quotes.
fn escaped(rest: &mut &[u8]) -> Result<u8, Malformed> {
    let byte = match next(rest).ok_or(Malformed::Quotes)? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        b'x' => match hexadecimal(rest) {
            Some(byte) => {
                *rest = &rest[2..];
                byte
            }
            None => b'x',
        },
        byte => byte,
    };
    Ok(byte)
}

fn hexadecimal(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| rest.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn next(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_commands_may_be_quoted() {
        let words = |line: &str| -> Result<Vec<Vec<u8>>, Malformed> {
            Ok(words(line.as_bytes())?.iter().map(|word| word.to_vec()).collect())
        };
        let are = |line: &str, expected: &[&str]| {
            let expected: Vec<Vec<u8>> = expected.iter().map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(words(line), Ok(expected), "{line}");
        };
        are(r#"set "a b" 'c "d' e"#, &["set", "a b", "c \"d", "e"]);
        are(r#"echo "\x41\n\"\q""#, &["echo", "A\n\"q"]);
        are(r"echo 'it\'s'", &["echo", "it's"]);
        are(r#"echo """#, &["echo", ""]);
        are("  \t ", &[]);
        for open in [r#"echo "a"#, "echo 'a", r#"echo "a"b"#, r#"echo "a\"#] {
            assert_eq!(words(open), Err(Malformed::Quotes), "{open}");
        }
        assert_eq!(words("a\0b"), Err(Malformed::NoText));
    }
}
