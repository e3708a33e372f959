//! Serf beside us: as many agents of Debian's package, with the settings that it has for a local network.
//!
//! An agent writes what it comes to hold to its log as it does; a thread reads each of them.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::cluster::free_ports;
use crate::{figures, until};

const PROGRAM: &str = "/usr/bin/serf";
const AGENTS: u16 = 30;
const KILLS: usize = 5;
/// Between two kills.
const REST: Duration = Duration::from_secs(3);

/// One agent. It is killed when it is dropped.
struct Agent {
    name: String,
    child: Child,
    log: Arc<Mutex<Vec<(Instant, String)>>>,
}

/// Kills agents one after the other.
pub(crate) fn measure() {
    if !std::path::Path::new(PROGRAM).exists() {
        println!("serf is not installed (Debian: apt-get install serf); nothing to compare with");
        return;
    }
    let first = free_ports(2 * AGENTS);
    let mut agents: Vec<Agent> = Vec::new();
    for number in 0..AGENTS {
        agents.push(Agent::start(number, first));
        if number == 0 {
            // Those who join are refused by one that does not listen yet, and give up.
            let began = Instant::now();
            until("the first agent", began, || TcpStream::connect(("127.0.0.1", first)).is_ok());
        }
    }
    let began = Instant::now();
    until("30 agents to be one cluster", began, || {
        agents.iter().all(|by| agents.iter().all(|of| by.said("EventMemberJoin", &of.name, None)))
    });
    let (mut deaths, mut returns) = (Vec::new(), Vec::new());
    for victim in (0..AGENTS).skip(1).take(KILLS) {
        std::thread::sleep(REST);
        let at = usize::from(victim);
        let name = agents[at].name.clone();
        let all_say = |agents: &[Agent], event: &str, since: Instant| {
            let mut others = agents.iter().filter(|agent| agent.name != name);
            others.all(|agent| agent.said(event, &name, Some(since)))
        };
        let began = Instant::now();
        agents[at].kill();
        deaths.push(until("the death known", began, || all_say(&agents, "EventMemberFailed", began)));
        let began = Instant::now();
        agents[at] = Agent::start(victim, first);
        returns.push(until("the return known", began, || all_say(&agents, "EventMemberJoin", began)));
    }
    figures(&format!("{AGENTS} agents of serf, one killed: all others hold it failed"), deaths, "");
    figures(&format!("{AGENTS} agents of serf, it is started again: all others hold it alive"), returns, "");
}

impl Agent {
    /// Starts one that joins the first, unless it is that one.
    fn start(number: u16, first: u16) -> Self {
        let (name, port, rpc) = (format!("s{number}"), first + number, first + AGENTS + number);
        let mut command = Command::new(PROGRAM);
        command.args(["agent", "-profile=lan", "-log-level=info", &format!("-node={name}")]);
        command.args([format!("-bind=127.0.0.1:{port}"), format!("-rpc-addr=127.0.0.1:{rpc}")]);
        if number > 0 {
            command.arg(format!("-join=127.0.0.1:{first}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("serf starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().expect("no thread panicked").push((Instant::now(), line));
            }
        });
        Self { name, child, log }
    }

    /// Whether its log tells of such an event about an agent, since then if that matters.
    fn said(&self, event: &str, name: &str, since: Option<Instant>) -> bool {
        let told = format!("{event}: {name} ");
        let log = self.log.lock().expect("no thread panicked");
        log.iter().any(|(at, line)| since.is_none_or(|since| *at >= since) && line.contains(&told))
    }

    fn kill(&mut self) {
        // One that has ended already is as dead as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
