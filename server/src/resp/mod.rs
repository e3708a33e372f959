//! A port that speaks the protocol of Redis, RESP2 and RESP3, so that its clients and tools work with a node.
//!
//! ```text
//!   bytes ── request ──▶ arguments ── command ──▶ acts on keys ── data ──▶ the node        one task for a connection
//!   bytes ◀── reply ──────────────────────────────────┘  └── session: the connection's own state
//! ```
//!
//! Database 0 is the built-in namespace of linearizable registers; `SELECT` takes the name of another one. Each command
//! of one key is atomic, and all of one key have one order, whichever nodes they come through.
//!
//! **Pipelines.** Commands are answered in the order in which they came. Those of the same key are carried out in that
//! order, too; those of different keys, sent without waiting for each other's answers, at the same time. So another
//! client may see the later one first, as if they had come through two connections. What is of several keys or of the
//! connection waits for all before it and holds up all behind it.
//!
//! **Several keys** (`MSET`, `DEL a b`) are as many operations, and not atomic together. What is to be done to several
//! keys at once, `MULTI` and `MSETNX`, is refused.
//!
//! **Bounds**: connections; arguments and bytes of a command; commands of one connection that are carried out at the
//! same time; bytes of an answer; how long a client may take to read it. A client that sends what cannot be understood
//! is told so and hung up on, since where its next command would begin is not known.
//!
//! **Not here**: TLS and passwords, as everywhere in a node; scripts, lists, hashes, publish and subscribe.

mod about;
mod command;
mod data;
mod glob;
mod inline;
mod options;
mod reply;
mod request;
mod scan;
mod session;
mod verdict;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qunlong_core::WallTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::driver::Commands;
use crate::failure::Failure;
use crate::identity::random;
use command::{Alone, Command, Own, no_transactions};
use data::{Registers, Task};
use reply::Reply;
use request::{Malformed, Requests};
use scan::Cursors;
use session::Session;

/// Clients at a time. More are told so and hung up on.
const CONNECTIONS: usize = 1_024;
/// Commands of one connection that are carried out at the same time.
const BATCH: usize = 64;
/// Bytes of answers that are collected before they are sent, but for one that is longer alone.
const ANSWER_BYTES: usize = 64 << 10;
/// A client that has not read its answers after so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client that was hung up on has to read why.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more sockets to give.
const PAUSE: Duration = Duration::from_millis(100);

/// The port, and what its connections share.
pub(crate) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    commands: Commands,
    cursors: Cursors,
    address: SocketAddr,
    started: Instant,
}

/// One client.
struct Connection {
    stream: TcpStream,
    requests: Requests,
    session: Session,
    shared: Arc<Shared>,
    /// Answers that were not sent yet.
    answers: Vec<u8>,
}

/// Commands that have come and can be carried out at the same time, and one that is carried out after them.
#[derive(Default)]
struct Batch {
    tasks: Vec<Task>,
    last: Option<Last>,
}

/// What ends a batch.
enum Last {
    Alone(Alone),
    Malformed(Malformed),
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    GoesOn,
    Ends,
}

impl Server {
    /// For clients that come to this listener.
    ///
    /// # Errors
    ///
    /// If the system gives no randomness, or does not know where the listener listens.
    pub(crate) fn new(listener: TcpListener, commands: Commands) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new("CANNOT_LISTEN", format!("cannot listen: {error}"));
        let address = listener.local_addr().map_err(failed)?;
        let cursors = Cursors::new(u64::from_le_bytes(random()?));
        Ok(Self { listener, shared: Arc::new(Shared { commands, cursors, address, started: Instant::now() }) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves until it is dropped, and all connections with it.
    pub(crate) async fn serve(self) {
        let mut connections: JoinSet<()> = JoinSet::new();
        let mut id = 0;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                // There are as many already that are being told so.
                Ok(_) if connections.len() >= 2 * CONNECTIONS => (),
                Ok((stream, _)) if connections.len() >= CONNECTIONS => {
                    connections.spawn(turn_away(stream));
                }
                Ok((stream, peer)) => {
                    id += 1;
                    let connection = Connection::new(stream, Session::new(id, peer), Arc::clone(&self.shared));
                    connections.spawn(connection.converse());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, session: Session, shared: Arc<Shared>) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, requests: Requests::default(), session, shared, answers: Vec::new() }
    }

    /// Answers commands until the client leaves, or is hung up on.
    async fn converse(mut self) {
        match self.converse_on().await {
            Ok(()) => hang_up(self.stream).await,
            Err(error) => tracing::debug!(%error, "a client is gone"),
        }
    }

    async fn converse_on(&mut self) -> io::Result<()> {
        loop {
            let batch = self.next_batch();
            if batch.tasks.is_empty() && batch.last.is_none() {
                self.send().await?;
                if self.stream.read_buf(self.requests.room()).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            let fate = self.carry_out(batch).await;
            if fate == Fate::Ends {
                return self.send().await;
            }
            if self.answers.len() >= ANSWER_BYTES {
                self.send().await?;
            }
        }
    }

    /// What has come up to the first command that has to be carried out alone.
    fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        while batch.tasks.len() < BATCH && batch.last.is_none() {
            match self.requests.take() {
                Ok(None) => break,
                Ok(Some(arguments)) => {
                    let command = Command::read(&arguments, now()).unwrap_or_else(Command::Said);
                    match self.unless_refused(command) {
                        Command::Said(reply) => batch.tasks.push(Task::Said(reply)),
                        Command::Act { key, act } => batch.tasks.push(Task::Act { key, act }),
                        Command::Alone(alone) => batch.last = Some(Last::Alone(alone)),
                    }
                }
                Err(malformed) => batch.last = Some(Last::Malformed(malformed)),
            }
        }
        batch
    }

    /// Within a transaction only what can end it is carried out.
    fn unless_refused(&self, command: Command) -> Command {
        let ends = matches!(
            command,
            Command::Alone(Alone::Own(Own::Multi | Own::Exec | Own::Discard | Own::Reset | Own::Quit))
        );
        if !self.session.refuses() || ends {
            return command;
        }
        Command::Said(no_transactions())
    }

    async fn carry_out(&mut self, batch: Batch) -> Fate {
        let registers = Registers::new(self.shared.commands.clone(), self.session.namespace());
        for reply in registers.carry_out(batch.tasks).await {
            self.answer(&reply);
        }
        let (reply, fate) = match batch.last {
            None => return Fate::GoesOn,
            Some(Last::Malformed(malformed)) => (Reply::Error(malformed.to_string()), Fate::Ends),
            Some(Last::Alone(Alone::Own(own))) => {
                let fate = if own == Own::Quit { Fate::Ends } else { Fate::GoesOn };
                (self.session.carry_out(own, &self.shared), fate)
            }
            Some(Last::Alone(Alone::Acts { acts, answer })) => {
                (registers.carry_out_all(acts, answer, BATCH).await, Fate::GoesOn)
            }
            Some(Last::Alone(Alone::Scan(scan))) => {
                let page = scan::scan(&registers, &self.shared.cursors, self.session.namespace(), scan).await;
                (page.unwrap_or_else(|error| error), Fate::GoesOn)
            }
            Some(Last::Alone(Alone::Keys(pattern))) => {
                (scan::keys(&registers, &pattern).await.unwrap_or_else(|error| error), Fate::GoesOn)
            }
        };
        self.answer(&reply);
        fate
    }

    fn answer(&mut self, reply: &Reply) {
        reply.encode(self.session.protocol(), &mut self.answers);
    }

    async fn send(&mut self) -> io::Result<()> {
        if !self.answers.is_empty() {
            timeout(PATIENCE, self.stream.write_all(&self.answers)).await??;
            self.answers.clear();
            self.answers.shrink_to(ANSWER_BYTES);
        }
        Ok(())
    }
}

async fn turn_away(mut stream: TcpStream) {
    let _ = timeout(GOODBYE, stream.write_all(b"-ERR max number of clients reached\r\n")).await;
    hang_up(stream).await;
}

/// Closes a connection so that the client can read what it was told last: if it was closed with something unread, the
/// system would reset it, and the answer might be lost.
async fn hang_up(mut stream: TcpStream) {
    let mut unread = vec![0; 4 << 10];
    let rest = async {
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(GOODBYE, rest).await;
}

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(since.as_micros() as u64)
}
