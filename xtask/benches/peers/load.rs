//! A load on etcd: puts and linearizable gets over gRPC.
//!
//! gRPC is tonic's; the connections below it are hyper's, made by hand as in our own bench. So both sides pay for the same
//! HTTP client, and it is known what a connection is: tonic's own channels put a queue and a task in front of each.
//!
//! Of etcd's messages there is here what is sent, by its numbers in etcd's `rpc.proto`. Answers are taken for empty
//! messages, which skip all fields: like our own load, this one looks at the status only.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{Request as HttpRequest, Response as HttpResponse, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic_prost::ProstCodec;

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;
/// Keys that the load writes to.
const KEYS: u64 = 10_000;

/// A load: what is asked, by how many clients at once, and on which connections.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) request: Request,
    pub(crate) clients: u16,
    pub(crate) wiring: Wiring,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// Write some key.
    Put,
    /// Write the same key as everybody.
    PutSame,
    /// Read some key, such that every acknowledged write is seen.
    Get,
}

/// How clients reach the members.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wiring {
    /// One connection a client.
    Separate,
    /// One connection a member, shared by all clients.
    Multiplexed,
}

/// What became of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How long each took that was done.
    pub(crate) latencies: Vec<Duration>,
    /// How many were not.
    pub(crate) errors: u64,
}

impl Load {
    /// Runs the load on members at these addresses. Clients are spread over them evenly.
    ///
    /// # Errors
    ///
    /// If a member cannot be reached in the beginning.
    pub(crate) async fn drive(&self, addresses: &[String], span: Duration) -> io::Result<Tally> {
        let wires = match self.wiring {
            Wiring::Separate => usize::from(self.clients),
            Wiring::Multiplexed => addresses.len(),
        };
        let mut connections = Vec::new();
        for wire in 0..wires {
            connections.push(connect(&addresses[wire % addresses.len()]).await?);
        }
        let end = Instant::now() + span;
        let clients: Vec<_> = (0..self.clients)
            .map(|client| {
                let connection = connections[usize::from(client) % wires].clone();
                tokio::task::spawn_local(ask_until(end, connection, self.request, u64::from(client)))
            })
            .collect();
        let mut all = Tally::default();
        for client in clients {
            let tally = client.await.map_err(io::Error::other)?;
            all.latencies.extend(tally.latencies);
            all.errors += tally.errors;
        }
        Ok(all)
    }
}

/// One client: asks, waits for the answer, and asks again. Its number is where its random keys begin.
async fn ask_until(end: Instant, mut connection: Grpc<Transport>, request: Request, mut number: u64) -> Tally {
    let value = Bytes::from(vec![b'v'; VALUE]);
    let mut tally = Tally::default();
    while Instant::now() < end {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (number >> 33) % KEYS;
        let began = Instant::now();
        if connection.ready().await.is_err() {
            // Nobody answers any more on a closed connection.
            tally.errors += 1;
            break;
        }
        let done = match request {
            Request::Put => put(&mut connection, key, &value).await,
            Request::PutSame => put(&mut connection, 0, &value).await,
            Request::Get => get(&mut connection, key).await,
        };
        if done {
            tally.latencies.push(began.elapsed());
        } else {
            tally.errors += 1;
        }
    }
    tally
}

/// etcd's `PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// etcd's `RangeRequest`. Without an end it is of one key; that it is not serializable, but linearizable, is the default.
#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// Whether it was done.
async fn put(connection: &mut Grpc<Transport>, key: u64, value: &Bytes) -> bool {
    let message = tonic::Request::new(Put { key: name(key), value: value.clone() });
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    connection.unary(message, path, ProstCodec::<Put, ()>::new()).await.is_ok()
}

/// Whether it was done; that there is no such key is an answer, too.
async fn get(connection: &mut Grpc<Transport>, key: u64) -> bool {
    let message = tonic::Request::new(Range { key: name(key) });
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    connection.unary(message, path, ProstCodec::<Range, ()>::new()).await.is_ok()
}

fn name(key: u64) -> Bytes {
    Bytes::from(format!("bench-{key}"))
}

/// An HTTP/2 connection of its own.
async fn connect(address: &str) -> io::Result<Grpc<Transport>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(connection);
    let origin = format!("http://{address}").parse::<Uri>().map_err(io::Error::other)?;
    Ok(Grpc::with_origin(Transport(sender), origin))
}

/// hyper's connection, as tonic wants it.
#[derive(Debug, Clone)]
struct Transport(http2::SendRequest<Body>);

impl GrpcService<Body> for Transport {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Incoming>, hyper::Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
