//! `qunlong lock`: a command that runs while a lock is held.
//!
//! ```text
//!   contend ──▶ held: the command runs, the lock is renewed ──▶ the command ends ──▶ release ──▶ its exit code
//!                          │ not renewed in time, or robbed
//!                          └──▶ SIGTERM, and SIGKILL if that does not help ──▶ LOCK_LOST
//! ```
//!
//! The rules are those of [`qunlong_core::lease`]; here are a clock, a client and a process. Questions are asked one at a
//! time, by a thread that may wait, while the task watches over the command, the signals and the time.
//!
//! **Invariant.** From the moment until which the lock is held, by this process's own clock, the command is being ended.
//!
//! **Left out.** Signals go to the command alone: what it has started has to end with it. Nobody ends it if this process is
//! killed or stopped, and the clock stands still while the machine sleeps. For all of that there is the token.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qunlong_core::lease::{Contender, Held, Lock, NotALock, Step};
use qunlong_core::{Duration as Span, Instant, WriteId, limits};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::api::{Change, Client, Condition, Done, Register};
use super::call::Error;
use crate::failure::Failure;
use crate::{LockArguments, identity};

/// What the registers of locks begin with, so that no lock is taken for data.
const PREFIX: &str = "lock/";
/// Somebody else kept the lock for longer than was to be waited (`EX_TEMPFAIL`).
const EXIT_HELD: u8 = 75;
/// The lock was lost while it was needed.
const EXIT_LOST: u8 = 76;
/// A command that does not end when it is told to is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Longer nobody tries to give a lock back.
const GOODBYE: Duration = Duration::from_secs(5);

/// Holds the lock while a command runs, or until it is interrupted. The exit code is the command's.
pub(crate) fn run(arguments: &LockArguments) -> Result<ExitCode, Failure> {
    if arguments.show {
        return show(arguments);
    }
    let runtime = crate::runtime()?;
    let done = runtime.block_on(with_lock(arguments));
    // A question that is under way is not waited for.
    runtime.shutdown_background();
    done
}

/// Prints who holds it.
fn show(arguments: &LockArguments) -> Result<ExitCode, Failure> {
    let (name, key) = (&arguments.name, register_of(&arguments.name));
    let Register { value, version } = Client::new(&arguments.server)?.register(&key)?;
    let Some(value) = value else {
        return Err(Failure::new("NOT_HELD", format!("nobody holds {name}; its register is of version {version}")));
    };
    let Lock { owner, token, ttl } = Lock::parse(&value).map_err(|NotALock| not_a_lock(&key))?;
    println!("owner={owner} token={token} version={version} ttl_ms={}", ttl.as_millis());
    Ok(ExitCode::SUCCESS)
}

async fn with_lock(arguments: &LockArguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let mut keeper = Keeper::new(arguments)?;
    let done = match keeper.take(arguments.wait, &mut signals).await {
        Ok(held) => keeper.hold(held, &arguments.command, &mut signals).await,
        Err(failure) => Err(failure),
    };
    keeper.give_back().await;
    done
}

/// Asks a contender's questions and tells it the answers.
struct Keeper {
    client: Arc<Client>,
    name: String,
    key: String,
    ttl: Span,
    contender: Contender,
    /// Where the contender's clock begins.
    began: std::time::Instant,
    /// The question that is under way.
    asked: Option<JoinHandle<Told>>,
    /// Whether anybody has answered yet. Who is never there is not waited for.
    is_met: bool,
}

/// An answer.
enum Told {
    Read(Result<Register, Error>),
    Changed(Result<Done, Error>),
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    On,
    Lost,
    Released,
}

impl Keeper {
    fn new(arguments: &LockArguments) -> Result<Self, Failure> {
        let ttl = Span::millis(u64::try_from(arguments.ttl.as_millis()).unwrap_or(u64::MAX / 1_000));
        // Two answers may fail to come between a renewal's time and the end.
        let patience = (arguments.ttl / 6).clamp(Duration::from_millis(200), Duration::from_secs(5));
        Ok(Self {
            client: Arc::new(Client::hasty(&arguments.server, patience)?),
            name: arguments.name.clone(),
            key: register_of(&arguments.name),
            ttl,
            contender: Contender::new(WriteId(identity::random()?), ttl),
            began: std::time::Instant::now(),
            asked: None,
            is_met: false,
        })
    }

    /// Waits until the lock is held.
    async fn take(&mut self, wait: Option<Duration>, signals: &mut Signals) -> Result<Held, Failure> {
        let gives_up = wait.map(|wait| self.now() + span_of(wait));
        loop {
            let now = self.now();
            if let Some(held) = self.contender.held(now) {
                return Ok(held);
            }
            let left = gives_up.filter(|&at| at > now).map(|at| at.since(now));
            if gives_up.is_some() && left.is_none() && self.rests(now) {
                let message = format!("{} could not be had in time: somebody else holds it", self.name);
                return Err(Failure { exit: EXIT_HELD, ..Failure::new("LOCK_HELD", message) });
            }
            tokio::select! {
                turn = self.turn() => if turn? != Turn::On {
                    // It was had and lost before anybody knew.
                    self.contender = Contender::new(WriteId(identity::random()?), self.ttl);
                },
                () = pass(left) => (),
                signal = signals.next() => {
                    let exit = u8::try_from(128 + signal.as_raw()).unwrap_or(1);
                    return Err(Failure { exit, ..Failure::new("INTERRUPTED", "the lock is not waited for any more") });
                }
            }
        }
    }

    /// Runs the command, if there is one, while the lock is held.
    async fn hold(&mut self, held: Held, command: &[OsString], signals: &mut Signals) -> Result<ExitCode, Failure> {
        let mut child = if command.is_empty() { None } else { Some(self.start(held, command)?) };
        if child.is_none() {
            println!("token={} until_ms={}", held.token, wall_ms(held.until.since(self.now())));
        }
        let mut trouble = None;
        while let Some(held) = self.contender.held(self.now()) {
            let left = held.until.since(self.now());
            tokio::select! {
                biased;
                status = ended(&mut child) => return status.map(exit_code).map_err(|error| {
                    Failure::new("NO_COMMAND", format!("the command cannot be waited for: {error}"))
                }),
                signal = signals.next() => match &child {
                    Some(child) => pass_on(child, signal),
                    None => return Ok(ExitCode::SUCCESS),
                },
                turn = self.turn() => trouble = turn.err().or(trouble),
                () = pass(Some(left)) => (),
            }
        }
        if let Some(child) = &mut child {
            end(child).await;
        }
        let why = match (self.contender.next(self.now()), trouble) {
            (Step::Lost, _) => "somebody else has taken it".to_owned(),
            (_, Some(trouble)) => format!("it could not be renewed in time; {trouble}"),
            (_, None) => "it could not be renewed in time".to_owned(),
        };
        let what = if child.is_some() { "; the command was ended" } else { "" };
        Err(Failure { exit: EXIT_LOST, ..Failure::new("LOCK_LOST", format!("{}: {why}{what}", self.name)) })
    }

    /// Lets the next one have it.
    async fn give_back(&mut self) {
        self.contender.release();
        let given_back = timeout(GOODBYE, async { while let Ok(Turn::On) | Err(_) = self.turn().await {} });
        if given_back.await.is_err() {
            eprintln!("qunlong: {} could not be given back; it passes on by itself after its ttl", self.name);
        }
    }

    fn start(&self, held: Held, command: &[OsString]) -> Result<Child, Failure> {
        let [program, arguments @ ..] = command else { return Err(Failure::new("BAD_REQUEST", "no command")) };
        let mut process = Command::new(program);
        process.args(arguments).env("QUNLONG_LOCK_NAME", &self.name).env("QUNLONG_LOCK_TOKEN", held.token.to_string());
        process.kill_on_drop(true).spawn().map_err(|error| {
            // As shells say it.
            let exit = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            let message = format!("cannot start {}: {error}", program.to_string_lossy());
            Failure { exit, ..Failure::new("CANNOT_START", message) }
        })
    }

    /// Does one step. Who stops to wait for it loses nothing: a question that is under way is heard next time.
    async fn turn(&mut self) -> Result<Turn, Failure> {
        if self.asked.is_none() {
            let now = self.now();
            let (client, key) = (Arc::clone(&self.client), self.key.clone());
            let asked = match self.contender.next(now) {
                Step::Lost => return Ok(Turn::Lost),
                Step::Released => return Ok(Turn::Released),
                Step::WaitUntil(at) => {
                    pass(Some(at.since(now))).await;
                    return Ok(Turn::On);
                }
                Step::Read => spawn_blocking(move || Told::Read(client.register(&key))),
                Step::Change { name, version, value } => spawn_blocking(move || {
                    let change = match &value {
                        Some(value) => Change::Put { value: value.as_bytes(), ttl: None },
                        None => Change::Delete,
                    };
                    Told::Changed(client.change_as(name, version, &key, change, Condition::Version(version)))
                }),
            };
            self.asked = Some(asked);
        }
        if let Some(asked) = &mut self.asked {
            let told = asked.await;
            self.asked = None;
            self.hear(told.map_err(|error| Failure::new("INTERNAL", error.to_string()))?)?;
        }
        Ok(Turn::On)
    }

    fn hear(&mut self, told: Told) -> Result<(), Failure> {
        let now = self.now();
        let error = match told {
            Told::Read(Ok(Register { value, version })) => {
                self.is_met = true;
                let read = self.contender.on_read(now, version, value.as_deref());
                return read.map_err(|NotALock| {
                    self.contender.on_refused(now);
                    not_a_lock(&self.key)
                });
            }
            Told::Changed(Ok(Done { version, .. })) => {
                self.contender.on_changed(version);
                return Ok(());
            }
            Told::Changed(Err(error)) if error.code() == "CONFLICT" => {
                self.contender.on_conflict();
                return Ok(());
            }
            Told::Changed(Err(error)) if error.is_unknown() => {
                self.contender.on_unknown();
                return Ok(());
            }
            Told::Read(Err(error)) | Told::Changed(Err(error)) => error,
        };
        self.contender.on_refused(now);
        let is_there = self.is_met || !matches!(error, Error::Unreachable(_));
        if error.may_pass() && is_there { Ok(()) } else { Err(error.into()) }
    }

    /// Whether there is nothing to do but to wait.
    fn rests(&mut self, now: Instant) -> bool {
        self.asked.is_none() && matches!(self.contender.next(now), Step::WaitUntil(_))
    }

    fn now(&self) -> Instant {
        Instant(0) + span_of(self.began.elapsed())
    }
}

/// Interruptions and terminations.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new("NO_SIGNALS", error.to_string());
        let interrupt = unix::signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = unix::signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Self { interrupt, terminate })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// Time that is written as people do: `10`, `10s`, `1500ms`, `2m`, `1h`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        unit => return Err(format!("{unit} is no unit of time; there are ms, s, m and h")),
    };
    let count: u32 = digits.parse().map_err(|_| "it is a whole number and a unit: 10s, 1500ms, 2m".to_owned())?;
    Ok(Duration::from_millis(u64::from(count) * unit_ms))
}

/// A time that a lock may be held for without a sign of life.
pub(crate) fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_time(text)?;
    let (least, most) = (limits::LOCK_TTL_MIN.as_millis(), limits::LOCK_TTL_MAX.as_millis());
    if (u128::from(least)..=u128::from(most)).contains(&ttl.as_millis()) {
        return Ok(ttl);
    }
    Err(format!("it lies between {least} ms and {} h", most / 3_600_000))
}

fn register_of(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn not_a_lock(key: &str) -> Failure {
    Failure::new("NOT_A_LOCK", format!("the register {key} holds something that is no lock; it was left alone"))
}

fn span_of(time: Duration) -> Span {
    Span(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// When so much time has passed, by the clock on the wall: for people, who have no other.
fn wall_ms(left: Span) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + Duration::from_micros(left.0)).as_millis()
}

/// Waits; for ever if it is not said for how long.
async fn pass(span: Option<Span>) {
    match span {
        Some(span) => sleep(Duration::from_micros(span.0)).await,
        None => std::future::pending().await,
    }
}

/// Waits until a process ends; for ever if there is none.
async fn ended(child: &mut Option<Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Ends a process, gently first.
async fn end(child: &mut Child) {
    send(child, Signal::TERM);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn pass_on(child: &Child, signal: Signal) {
    // A terminal has given its Ctrl-C to the command as well.
    if signal != Signal::INT || !io::stdin().is_terminal() {
        send(child, signal);
    }
}

fn send(child: &Child, signal: Signal) {
    // A process that has ended has no id any more, which could be another one's.
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// As shells say it: of a process that a signal has ended, 128 and the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_a_unit_or_in_seconds() {
        for (text, ms) in [("10", 10_000), ("10s", 10_000), ("1500ms", 1_500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1", "1.5s", "10 s", "10x", "4294967296"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert!(parse_ttl("99ms").is_err() && parse_ttl("100ms").is_ok());
        assert!(parse_ttl("24h").is_ok() && parse_ttl("25h").is_err());
    }
}
