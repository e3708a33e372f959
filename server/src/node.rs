//! `qunlong node`: puts the parts together and takes them apart again.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;

use qunlong_core::config::{Bootstrap, Config, Tabs};
use qunlong_core::member::{Class, Durability, Profile};
use qunlong_core::{Node, Storage, limits};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use crate::driver::{Command, Driver, Parts};
use crate::failure::Failure;
use crate::http::{App, GRACE, Policy, keep_policy_current, router};
use crate::identity::{Identity, random};
use crate::recording::Recording;
use crate::store::Store;
use crate::{LogFormat, NodeArguments, TabSeats, resp};

/// Runs a node until it is told to stop.
pub(crate) async fn run(arguments: NodeArguments) -> Result<(), Failure> {
    start_log(arguments.log_format);
    let listener = listen(arguments.listen, "--listen", arguments.insecure).await?;
    let resp = match arguments.resp {
        Some(address) => Some(listen(address, "--resp", arguments.insecure).await?),
        None => None,
    };
    let opened = Store::open(&arguments.data, arguments.new_identity)?;
    let address = arguments.advertise.clone().unwrap_or_else(|| arguments.listen.to_string());
    let config = config(&arguments, &opened.identity, &address);
    let seed = u64::from_le_bytes(random()?);
    let record = |path| Recording::start(path, &config, seed, &opened.records);
    let recording = arguments.record.as_deref().map(record).transpose()?;
    let node =
        Node::restore(config, seed, opened.records).map_err(|error| Failure::new("BAD_CONFIG", error.to_string()))?;
    tracing::info!(id = %node.id(), generation = node.generation().0, listen = %arguments.listen, "node starts");

    let counters = opened.store.counters();
    let (words, heard) = unbounded_channel();
    let (batches, journal) = opened.store.spawn(words);
    let parts = Parts {
        node,
        identity: Arc::new(opened.identity),
        address: address.clone(),
        seeds: arguments.join.clone(),
        batches,
        journal: heard,
        recording,
    };
    let (driver, handle) = Driver::new(parts);
    let policy = Policy::new(arguments.listen, &address, &arguments.allow_host);
    tokio::spawn(keep_policy_current(policy.clone(), handle.clone()));
    let commands = handle.commands.clone();
    let resp = resp.map(|listener| resp::Server::new(listener, commands.clone())).transpose()?;
    let app = App {
        node: handle,
        counters,
        policy,
        supervisor: arguments.supervisor.clone(),
        web: arguments.web.clone(),
        resp: resp.as_ref().map(resp::Server::address),
    };
    let resp = resp.map(|server| tokio::spawn(server.serve()));
    let server = tokio::spawn(serve(listener, router(app)));

    let watches_stdin = arguments.supervisor.is_some();
    tokio::spawn(async move {
        told_to_stop(watches_stdin).await;
        commands.send(Command::Leave).await;
    });
    let ended = driver.run().await;
    // The goodbyes are in the links' queues; give them a moment to leave.
    tokio::time::sleep(GRACE).await;
    server.abort();
    resp.inspect(tokio::task::JoinHandle::abort);
    journal.join().map_err(|_| Failure::new("INTERNAL", "the journal's thread panicked"))?;
    ended?;
    tracing::info!("node left");
    Ok(())
}

async fn listen(address: SocketAddr, option: &str, insecure: bool) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() && !insecure {
        return Err(Failure::new(
            "INSECURE_BIND_REFUSED",
            format!(
                "{address} can be reached by others and nothing is encrypted; listen on loopback, or add --insecure on a \
                 network you trust"
            ),
        ));
    }
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new("CANNOT_LISTEN", format!("cannot listen on {address}: {error}; choose another with {option}"))
    })
}

async fn serve(listener: TcpListener, router: axum::Router) {
    use axum::serve::ListenerExt;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the listener failed");
    }
}

fn config(arguments: &NodeArguments, identity: &Identity, address: &str) -> Config {
    let id = identity.node();
    let mut name = arguments.name.clone().unwrap_or_else(|| id.to_string());
    while name.len() > limits::NAME_BYTES {
        name.pop();
    }
    let storage = Storage(identity.storage().incarnation);
    let profile = Profile {
        address: Some(address.to_owned()),
        zone: arguments.zone.clone().unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Profile::new(name, Class::Server, Durability::Durable, storage)
    };
    let replicas = arguments.replicas.min(arguments.owners);
    let (owners, tabs) = (arguments.owners, arguments.tabs_alone);
    let bootstrap = arguments.bootstrap.then_some(Bootstrap { owners, replicas, tabs });
    let mut config = Config { bootstrap, ..Config::new(id, profile) };
    config.autopilot.enabled = !arguments.no_autopilot;
    config.autopilot.tabs = match arguments.tabs {
        TabSeats::Never => Tabs::Never,
        TabSeats::Spare => Tabs::Spare,
        TabSeats::Always => Tabs::Always,
    };
    config.autopilot.replace_after = qunlong_core::Duration::secs(arguments.replace_after);
    config
}

/// Ends with an interrupt, a termination, or, under a supervisor, with the end of standard input.
async fn told_to_stop(watches_stdin: bool) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    let orphaned = async {
        if watches_stdin {
            let _ = end_of_stdin().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => (),
        () = terminated => (),
        () = orphaned => (),
    }
}

/// Resolves when standard input closes. A thread of its own, because a read that never returns must not keep the
/// process from ending.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    end
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("QUNLONG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
