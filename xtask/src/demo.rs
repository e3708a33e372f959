//! `cargo xtask demo`: builds what is needed and hands over to `qunlong demo`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::{Failure, build_server, say, server_binary, target, web};

/// What can be chosen.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many native nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// The first node's port; the others follow.
    #[arg(long, default_value_t = 7100)]
    port: u16,
    /// Where to keep the data between runs; a temporary folder if not given.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Run what was built last.
    #[arg(long)]
    no_build: bool,
}

/// Runs the demonstration until it is interrupted.
///
/// # Errors
///
/// If something does not build or cannot be started.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (server, web) = if arguments.no_build {
        let (server, web) = (server_binary(), target().join("web"));
        if !server.exists() || !web.exists() {
            return Err(Failure("nothing has been built yet; run it once without --no-build".to_owned()));
        }
        (server, web)
    } else {
        say("building the web app and then the server (the first time takes some minutes)");
        let web = web::build(web::Profile::Release)?;
        say("building the server");
        (build_server()?, web)
    };
    say(&format!("starting {} nodes", arguments.nodes));
    let mut command = Command::new(server);
    command.arg("demo").args(["--nodes", &arguments.nodes.to_string(), "--port", &arguments.port.to_string()]);
    command.arg("--web").arg(web);
    if let Some(data) = &arguments.data {
        command.arg("--data").arg(data);
    }
    // The demonstration takes this process's place, so that signals reach it and nothing lingers.
    Err(Failure(format!("the server could not be started: {}", command.exec())))
}
