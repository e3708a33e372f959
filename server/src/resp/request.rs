//! From the bytes of a connection to commands: lists of arguments.
//!
//! ```text
//!   *2 \r\n $3 \r\n GET \r\n $1 \r\n k \r\n      as libraries send it: how many arguments, and each with its length
//!   GET k \r\n                                    inline, as people type it
//! ```
//!
//! A parser of our own: those of the crate `redis-protocol` know no inline commands, follow nested arrays on the stack
//! as deep as the sender likes, and begin with a command anew whenever more of it has come. A command is a flat list;
//! this one keeps its place in it, and nothing grows beyond the limits below: an argument leaves the buffer once it is
//! complete, and no more is read before what is there is taken.
//!
//! Source: Redis, "Redis serialization protocol specification".

use std::fmt;
use std::ops::Range;

use qunlong_core::{Bytes, limits};

use super::inline;

/// Arguments of one command, its name included. More: the connection is closed.
pub(super) const ARGUMENTS: usize = 1_024;
/// Bytes of all arguments of one command. More: the connection is closed.
const COMMAND_BYTES: usize = 1 << 20;
/// Bytes of an inline command, and of any other line. More: the connection is closed.
const LINE_BYTES: usize = 4 << 10;
/// Bytes that are read at once, at least.
const READ_BYTES: usize = 16 << 10;

/// What a client has sent and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    buffer: Vec<u8>,
    /// What lies before here is taken.
    at: usize,
    /// Of the command that has begun: the arguments that are complete,
    arguments: Vec<Bytes>,
    /// their bytes, with what the next one will have,
    bytes: usize,
    /// how many are to come,
    missing: usize,
    /// and the length of the next one, if that has come.
    length: Option<usize>,
}

/// Why nothing that follows can be understood. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A number of arguments that is none, or beyond [`ARGUMENTS`].
    Arguments,
    /// A length that is none.
    Length,
    /// An argument longer than a value may be.
    Argument,
    /// Arguments beyond [`COMMAND_BYTES`].
    Command,
    /// A line without end.
    Line,
    /// No length where one must be, but this.
    NoLength(u8),
    /// An argument that is longer than it says.
    NoEnd,
    /// An inline command with a quote that does not end.
    Quotes,
    /// An inline command that is no text.
    NoText,
    /// A request of HTTP.
    Http,
}

impl Requests {
    /// Where to put more, at the end.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next command, if all of it has come. It has at least one argument, its name.
    ///
    /// # Errors
    ///
    /// If it is none. There is nothing to be taken any more then.
    pub(super) fn take(&mut self) -> Result<Option<Vec<Bytes>>, Malformed> {
        loop {
            if self.missing > 0 {
                return self.rest_of_command();
            }
            let Some(line) = self.line()? else { return Ok(None) };
            let line = &self.buffer[line];
            match line.split_first() {
                None => (),
                Some((b'*', count)) => self.missing = arguments(count)?,
                Some(_) => {
                    let words = inline::words(line)?;
                    if !words.is_empty() {
                        return Ok(Some(words));
                    }
                }
            }
        }
    }

    fn rest_of_command(&mut self) -> Result<Option<Vec<Bytes>>, Malformed> {
        while self.missing > 0 {
            let length = match self.length {
                Some(length) => length,
                None => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let length = length(&self.buffer[line])?;
                    self.bytes += length;
                    if self.bytes > COMMAND_BYTES {
                        return Err(Malformed::Command);
                    }
                    *self.length.insert(length)
                }
            };
            let Some(argument) = self.buffer.get(self.at..self.at + length + END.len()) else { return Ok(None) };
            let (argument, end) = argument.split_at(length);
            if end != END {
                return Err(Malformed::NoEnd);
            }
            self.arguments.push(Bytes::from(argument));
            self.at += length + END.len();
            self.length = None;
            self.missing -= 1;
        }
        self.bytes = 0;
        Ok(Some(std::mem::take(&mut self.arguments)))
    }

    /// Takes the next line, if it has come: where it is in the buffer, without its end.
    fn line(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let (begin, waiting) = (self.at, &self.buffer[self.at..]);
        let Some(length) = waiting.iter().take(LINE_BYTES).position(|&byte| byte == b'\n') else {
            return if waiting.len() < LINE_BYTES { Ok(None) } else { Err(Malformed::Line) };
        };
        self.at += length + 1;
        let without_end = if waiting[..length].ends_with(b"\r") { length - 1 } else { length };
        Ok(Some(begin..begin + without_end))
    }
}

/// As the client is told it: a code, a space and a sentence.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument | Self::Command => f.write_str("TOO_LARGE ")?,
            Self::Arguments
            | Self::Length
            | Self::Line
            | Self::NoLength(_)
            | Self::NoEnd
            | Self::Quotes
            | Self::NoText
            | Self::Http => f.write_str("ERR Protocol error: ")?,
        }
        match self {
            Self::Arguments => write!(f, "invalid multibulk length; a command has at most {ARGUMENTS} arguments"),
            Self::Length => f.write_str("invalid bulk length"),
            Self::Argument => write!(f, "an argument is larger than the limit of {} bytes", limits::VALUE_BYTES),
            Self::Command => write!(f, "a command is larger than the limit of {COMMAND_BYTES} bytes"),
            Self::Line => write!(f, "a line is longer than the limit of {LINE_BYTES} bytes"),
            Self::NoLength(byte) => write!(f, "expected '$', got '{}'", byte.escape_ascii()),
            Self::NoEnd => f.write_str("an argument is longer than it says"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::NoText => f.write_str("an inline command must be text"),
            Self::Http => f.write_str("this port speaks the Redis protocol and no HTTP"),
        }
    }
}

/// How many arguments are to come. None at all is no command, as Redis has it.
fn arguments(digits: &[u8]) -> Result<usize, Malformed> {
    let count = number(digits).ok_or(Malformed::Arguments)?;
    let count = usize::try_from(count.max(0)).map_err(|_| Malformed::Arguments)?;
    if count > ARGUMENTS { Err(Malformed::Arguments) } else { Ok(count) }
}

fn length(line: &[u8]) -> Result<usize, Malformed> {
    let digits = match line.split_first() {
        Some((b'$', digits)) => digits,
        Some((&byte, _)) => return Err(Malformed::NoLength(byte)),
        None => return Err(Malformed::Length),
    };
    let length = number(digits).and_then(|length| usize::try_from(length).ok()).ok_or(Malformed::Length)?;
    if length > limits::VALUE_BYTES { Err(Malformed::Argument) } else { Ok(length) }
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What ends a line, and an argument.
const END: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(requests: &mut Requests) -> Vec<Vec<String>> {
        let mut commands = Vec::new();
        while let Some(arguments) = requests.take().expect("well formed") {
            commands.push(arguments.iter().map(ToString::to_string).collect());
        }
        commands
    }

    fn read(bytes: &[u8]) -> Result<Option<Vec<Bytes>>, Malformed> {
        let mut requests = Requests::default();
        requests.room().extend_from_slice(bytes);
        requests.take()
    }

    #[test]
    fn commands_are_the_same_however_they_are_cut() {
        let wire = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*0\r\n\r\nPING\r\n*1\r\n$4\r\nQUIT\r\nset k  v\n";
        let expected = [vec!["GET", "a\r\nb"], vec!["PING"], vec!["QUIT"], vec!["set", "k", "v"]];
        for size in 1..=wire.len() {
            let (mut requests, mut commands) = (Requests::default(), Vec::new());
            for piece in wire.chunks(size) {
                requests.room().extend_from_slice(piece);
                commands.extend(taken(&mut requests));
            }
            assert_eq!(commands, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_web_page_gets_nowhere() {
        for line in ["GET / HTTP/1.1\r\n", "SET /x HTTP/1.1\r\n", "POST / \r\n", "Host: localhost\r\n"] {
            assert_eq!(read(line.as_bytes()), Err(Malformed::Http), "{line}");
        }
        assert!(matches!(read(b"get http/\r\n"), Ok(Some(_))));
    }

    #[test]
    fn nothing_is_taken_beyond_the_limits() {
        assert_eq!(read(b"*1025\r\n"), Err(Malformed::Arguments));
        assert_eq!(read(b"*x\r\n"), Err(Malformed::Arguments));
        assert_eq!(read(b"*1\r\n$65537\r\n"), Err(Malformed::Argument));
        assert_eq!(read(b"*1\r\n$-1\r\n"), Err(Malformed::Length));
        assert_eq!(read(b"*1\r\n*1\r\n"), Err(Malformed::NoLength(b'*')), "nothing is nested");
        assert_eq!(read(b"*1\r\n$1\r\nabc"), Err(Malformed::NoEnd));
        assert_eq!(read(&[b'x'; LINE_BYTES]), Err(Malformed::Line));
        assert_eq!(read(&[b'x'; LINE_BYTES - 1]), Ok(None));
        assert!(matches!(read(b"*-1\r\nPING\r\n"), Ok(Some(_))));

        let mut requests = Requests::default();
        let argument = [b"$65536\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
        requests.room().extend_from_slice(b"*17\r\n");
        for _ in 0..16 {
            requests.room().extend_from_slice(&argument);
            assert_eq!(requests.take(), Ok(None));
            assert!(requests.buffer.capacity() <= 1 << 18, "arguments leave the buffer");
        }
        requests.room().extend_from_slice(b"$1\r\n");
        assert_eq!(requests.take(), Err(Malformed::Command));
    }
}
