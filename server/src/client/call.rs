//! One request to any of several servers, and its attempts.
//!
//! ```text
//!   request ──▶ a server ── done, or refused for good ──▶ the answer
//!      ▲           │ nobody there: the next one, at once
//!      └───────────┘ 503, no answer, or an unknown outcome: the next one, under the same name; after a pause, all again
//! ```
//!
//! A node repeats within the cluster what can be repeated there; this is for what is between a client and its node.
//!
//! **Invariant.** What may have been done is never said to have been refused. Once the outcome of an attempt is unknown, a
//! later one that was refused says nothing of it, and so the outcome stays unknown; unless the request is bound to a version
//! that the register has left: then no attempt has been carried out under its name, and none will be.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request, StatusCode};

use super::EXIT_UNKNOWN;
use crate::failure::Failure;

/// The servers that may be asked, and how patiently.
pub(super) struct Servers {
    addresses: Vec<String>,
    cluster: Option<String>,
    agent: Agent,
    patience: Patience,
    /// The one that is asked first: it answered last.
    first: AtomicUsize,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one answer.
    pub(super) answer: Duration,
    /// What nodes are told to take at most; their default if not given.
    pub(super) node: Option<Duration>,
    /// How often all servers are asked, at most.
    pub(super) rounds: u32,
}

/// A request.
pub(super) struct Call<'a> {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<&'a [u8]>,
    repeats: Repeats,
}

/// Whether it may be asked for again when nobody knows what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    /// It may: it changes nothing, or the same twice.
    Freely,
    /// It may under its name, and is carried out once.
    Named,
    /// So it may, and only this version of a register will take it.
    AtVersion(u64),
    /// It may not.
    Never,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The version of a register.
    pub(super) version: Option<u64>,
    pub(super) body: Value,
}

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Error {
    /// A server says why.
    Answered {
        /// HTTP's.
        status: u16,
        /// Stable.
        code: String,
        /// For a person.
        message: String,
        /// Whether it may have been done, or may be yet. If not, nothing happened and nothing will.
        is_unknown: bool,
        /// Of a register: the version that it has.
        version: Option<u64>,
    },
    /// Nobody is there to be asked: nothing happened.
    Unreachable(String),
    /// It was asked, and there was no answer: a change may have been made, or may be yet.
    Unanswered(String),
    /// Whoever answered is no node of this version.
    Unexpected(String),
}

/// What is to be done after an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    /// Nothing: any other would answer the same, or must not be asked.
    Stop,
    /// Ask another one, which may know more.
    Again,
    /// Ask another one: this one was not asked at all.
    Elsewhere,
}

impl Servers {
    pub(super) fn new(addresses: &[String], cluster: Option<String>, patience: Patience) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience.answer))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        let addresses = addresses.iter().map(|address| address.trim_end_matches('/').to_owned()).collect();
        Self { addresses, cluster, agent: agent.into(), patience, first: AtomicUsize::new(0) }
    }

    /// Asks until there is an answer to keep to.
    ///
    /// # Errors
    ///
    /// Says whether the request may have been carried out.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let (began, mut doubt, mut last) = (Instant::now(), None, None);
        'rounds: for round in 0..self.patience.rounds {
            if round > 0 {
                std::thread::sleep(PAUSE * 2_u32.saturating_pow(round - 1));
            }
            let (first, mut was_asked) = (self.first.load(Ordering::Relaxed), false);
            for turn in 0..self.addresses.len() {
                if began.elapsed() >= REPEATED_WITHIN {
                    break 'rounds;
                }
                let at = (first + turn) % self.addresses.len();
                let answer = self.attempt(&self.addresses[at], call);
                let advice = answer.as_ref().map_or_else(|error| error.advice(call.repeats), |_| Advice::Stop);
                let next = if advice == Advice::Stop { at } else { at + 1 };
                self.first.store(next, Ordering::Relaxed);
                let error = match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) if advice == Advice::Stop => return Err(call.settle(doubt, error)),
                    Err(error) => error,
                };
                was_asked |= advice == Advice::Again;
                if error.is_unknown() && call.repeats != Repeats::Freely {
                    doubt = Some(error);
                } else if last.is_none() || advice == Advice::Again {
                    last = Some(error);
                }
            }
            if !was_asked && doubt.is_none() {
                break;
            }
        }
        Err(doubt.or(last).expect("there is a server and a round"))
    }

    fn attempt(&self, server: &str, call: &Call<'_>) -> Result<Answer, Error> {
        let mut request = Request::builder().method(call.method.clone()).uri(self.url(server, call));
        request = request.header("accept", "application/json");
        if let Some(cluster) = &self.cluster {
            request = request.header("qunlong-cluster", cluster);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let sent = match call.body {
            Some(body) => request.body(body).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        let mut answer = sent.map_err(|error| unanswered(server, &error))?;
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
        let (status, version) = (answer.status(), tag.and_then(|tag| tag.trim_matches('"').parse().ok()));
        let bytes = answer.body_mut().with_config().limit(BODY_MAX).read_to_vec();
        let bytes = bytes.map_err(|error| unanswered(server, &error))?;
        read(server, status, version, serde_json::from_slice(&bytes).ok())
    }

    fn url(&self, server: &str, call: &Call<'_>) -> String {
        let mut url = format!("{server}{}", call.path);
        let timeout = self.patience.node.map(|span| ("timeout", span.as_millis().to_string()));
        for (nth, (name, value)) in call.query.iter().chain(&timeout).enumerate() {
            let before = if nth == 0 { '?' } else { '&' };
            let _ = write!(url, "{before}{name}={}", encoded(value));
        }
        url
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: String, repeats: Repeats) -> Self {
        Self { method, path, query: Vec::new(), headers: Vec::new(), body: None, repeats }
    }

    /// With a parameter, if it has a value.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// With a header, if it has a value.
    pub(super) fn header(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.headers.extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(super) fn body(self, body: &'a [u8]) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Under this name it is the same request in all its attempts.
    pub(super) fn named(self, name: impl ToString, repeats: Repeats) -> Self {
        Self { repeats, ..self.header("qunlong-request-id", Some(name)) }
    }

    /// What the last word of a server is worth, if the outcome of an earlier attempt is unknown.
    fn settle(&self, doubt: Option<Error>, last: Error) -> Error {
        match doubt {
            Some(doubt) if !self.has_missed(&last) => doubt,
            Some(_) | None => last,
        }
    }

    /// Whether the register has left the version at which this could have happened.
    fn has_missed(&self, last: &Error) -> bool {
        match (self.repeats, last) {
            (Repeats::AtVersion(wanted), Error::Answered { code, version: Some(version), .. }) => {
                code == "CONFLICT" && *version > wanted
            }
            _ => false,
        }
    }
}

impl Error {
    /// Stable.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Answered { code, .. } => code,
            Self::Unreachable(_) => "UNREACHABLE",
            Self::Unanswered(_) => "UNKNOWN",
            Self::Unexpected(_) => "UNEXPECTED",
        }
    }

    /// Whether a change may have been made, or may be yet.
    pub(crate) fn is_unknown(&self) -> bool {
        match self {
            Self::Answered { is_unknown, .. } => *is_unknown,
            Self::Unanswered(_) => true,
            Self::Unreachable(_) | Self::Unexpected(_) => false,
        }
    }

    /// Whether it may be otherwise a little later, without anybody's doing.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Answered { status, is_unknown, .. } => *is_unknown || matches!(*status, 429 | 503 | 507),
            Self::Unreachable(_) | Self::Unanswered(_) => true,
            Self::Unexpected(_) => false,
        }
    }

    fn advice(&self, repeats: Repeats) -> Advice {
        match self {
            Self::Unreachable(_) => Advice::Elsewhere,
            Self::Answered { .. } | Self::Unanswered(_) if repeats == Repeats::Never => Advice::Stop,
            // It is forgotten, and everybody will say so from now on.
            Self::Answered { code, .. } if code == "SESSION_EXPIRED" => Advice::Stop,
            Self::Answered { status, is_unknown, .. } if *status == 503 || *is_unknown => Advice::Again,
            Self::Unanswered(_) => Advice::Again,
            Self::Answered { .. } | Self::Unexpected(_) => Advice::Stop,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = if error.is_unknown() { EXIT_UNKNOWN } else { 1 };
        let code = match &error {
            Error::Answered { is_unknown: false, .. } => "REFUSED",
            Error::Answered { is_unknown: true, .. } | Error::Unanswered(_) => "UNKNOWN",
            Error::Unreachable(_) => "UNREACHABLE",
            Error::Unexpected(_) => "UNEXPECTED",
        };
        let message = match error {
            Error::Answered { code, message, .. } => format!("{code}: {message}"),
            Error::Unreachable(message) | Error::Unanswered(message) | Error::Unexpected(message) => message,
        };
        Self { exit, ..Self::new(code, message) }
    }
}

/// A good answer, or the server's own error.
fn read(server: &str, status: StatusCode, version: Option<u64>, body: Option<Value>) -> Result<Answer, Error> {
    if status.as_u16() < 400 {
        let not_json = || Error::Unexpected("the answer is not JSON; is it a node of this version?".to_owned());
        return body.map(|body| Answer { version, body }).ok_or_else(not_json);
    }
    let body = body.unwrap_or_default();
    let error = &body["error"];
    Err(match (error["code"].as_str(), error["message"].as_str()) {
        (Some(code), Some(message)) => Error::Answered {
            status: status.as_u16(),
            code: code.to_owned(),
            message: message.to_owned(),
            is_unknown: body["outcome"] == "unknown",
            version,
        },
        _ => Error::Unexpected(format!("{server} answered {status}; is it a node of this version?")),
    })
}

/// No answer came. If the request may have got through, a write may have happened: never to be taken for a refusal.
fn unanswered(server: &str, error: &ureq::Error) -> Error {
    let never_connected = match error {
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            true
        }
        _ => false,
    };
    if never_connected {
        let advice = "is a node running there? Name another with --server or QUNLONG_SERVER";
        return Error::Unreachable(format!("{server}: {error}; {advice}"));
    }
    Error::Unanswered(format!("{server} did not answer ({error}); if this was a write, it may have happened"))
}

/// As part of a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Before all servers are asked again; then twice as long, and so on.
const PAUSE: Duration = Duration::from_millis(100);
/// Later nothing is asked again: a key that was deleted meanwhile may have been forgotten, and with it what was asked.
const REPEATED_WITHIN: Duration = Duration::from_secs(25);
/// Bytes of an answer.
const BODY_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// A status and a body; `None`: it hangs up.
    type Said = Option<(u16, &'static str)>;

    const DONE: Said = Some((200, r#"{"outcome":"done"}"#));
    const HANGS_UP: Said = None;
    const CONFLICT: Said =
        Some((412, r#"{"error":{"code":"CONFLICT","message":"it is at version 7"},"outcome":"refused"}"#));
    const NO_QUORUM: Said = Some((503, r#"{"error":{"code":"NO_QUORUM","message":"too few"},"outcome":"refused"}"#));

    /// A server that gives every request the next of these answers, and tells under which names they came.
    fn server(answers: &'static [Said]) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("bound"));
        let (told, names) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().expect("a client");
                let mut reader = BufReader::new(stream);
                let (mut name, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a line");
                    match line.trim_end().split_once(": ") {
                        Some(("qunlong-request-id", value)) => value.clone_into(&mut name),
                        Some(("content-length", value)) => length = value.parse().expect("a number"),
                        Some(_) => (),
                        None if line.trim_end().is_empty() => break,
                        None => (),
                    }
                }
                reader.read_exact(&mut vec![0; length]).expect("a body");
                told.send(name).expect("somebody listens");
                if let Some((status, body)) = answer {
                    let tag = if *status == 412 { "etag: \"7\"\r\n" } else { "" };
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} Said\r\n{tag}connection: close\r\ncontent-length: {length}");
                    write!(reader.get_mut(), "{head}\r\n\r\n{body}").expect("it listens");
                }
            }
        });
        (address, names)
    }

    fn send(addresses: &[&String], repeats: Repeats) -> Result<Answer, Error> {
        let addresses: Vec<String> = addresses.iter().map(|&address| address.clone()).collect();
        let patience = Patience { answer: Duration::from_secs(5), node: None, rounds: 2 };
        let call = Call::new(Method::PUT, "/v1/registers/k".to_owned(), repeats).body(b"value");
        Servers::new(&addresses, None, patience).send(&call.named("the name", repeats))
    }

    #[test]
    fn a_retry_is_the_same_request_by_the_next_server() {
        let ((one, first), (two, second)) = (server(&[HANGS_UP, DONE]), server(&[NO_QUORUM]));
        assert!(send(&[&one, &two], Repeats::Named).is_ok(), "the third time, after a pause");
        let names: Vec<String> = first.iter().chain(second.iter()).collect();
        assert_eq!(names, ["the name"; 3]);
    }

    #[test]
    fn what_may_have_been_done_is_not_said_to_be_refused() {
        // A register of version 7 takes nothing any more that wants version 6, and may yet come to version 8.
        let all = [
            (Repeats::Named, true),
            (Repeats::AtVersion(6), false),
            (Repeats::AtVersion(8), true),
            (Repeats::Freely, false),
        ];
        for (repeats, is_unknown) in all {
            let ((one, _first), (two, _second)) = (server(&[HANGS_UP]), server(&[CONFLICT]));
            let error = send(&[&one, &two], repeats).expect_err("it is refused in the end");
            assert_eq!(error.is_unknown(), is_unknown, "{repeats:?}: {error:?}");
        }
    }

    #[test]
    fn what_must_not_be_repeated_is_not() {
        let ((one, first), (two, second)) = (server(&[HANGS_UP]), server(&[DONE]));
        assert!(matches!(send(&[&one, &two], Repeats::Never), Err(Error::Unanswered(_))));
        assert!(first.recv().is_ok() && second.try_recv().is_err());
    }

    #[test]
    fn where_nobody_is_the_next_is_asked_at_once_and_nothing_has_happened() {
        let gone = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            format!("http://{}", listener.local_addr().expect("bound"))
        };
        let (two, _names) = server(&[DONE]);
        assert!(send(&[&gone(), &two], Repeats::Never).is_ok());
        let error = send(&[&gone(), &gone()], Repeats::Named).expect_err("nobody is there");
        assert!(matches!(error, Error::Unreachable(_)) && !error.is_unknown() && error.may_pass());
    }
}
