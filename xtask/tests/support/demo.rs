//! The demonstration as the README starts it, without building.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::cluster::free_ports;

/// A running demonstration. Killed when dropped.
pub struct Demo {
    child: Child,
    /// The page of its first node.
    pub page: String,
    pub port: u16,
    nodes: u16,
}

impl Demo {
    /// Starts so many nodes, which may serve the dashboard, and waits until they are one cluster.
    pub fn start(nodes: u16, web: Option<&Path>) -> Self {
        Self::start_on(free_ports(nodes), nodes, web)
    }

    /// The same on ports that are known.
    pub fn start_on(port: u16, nodes: u16, web: Option<&Path>) -> Self {
        let mut command = Command::new(xtask::server_binary());
        command.args(["demo", "--nodes", &nodes.to_string(), "--port", &port.to_string()]);
        if let Some(web) = web {
            command.arg("--web").arg(web);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the demonstration starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains("Open the dashboard")));
        let page = line.and_then(|line| line.split_whitespace().last().map(str::to_owned)).expect("an address");
        // It goes on printing what it does.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, page, port, nodes }
    }

    /// Where its nodes listen, the first one first.
    pub fn nodes(&self) -> impl Iterator<Item = String> {
        (self.port..self.port + self.nodes).map(|port| format!("127.0.0.1:{port}"))
    }

    /// As Ctrl-C does. Whether it ended well.
    pub fn stop(mut self) -> bool {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill runs");
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its nodes end with it: their standard input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
