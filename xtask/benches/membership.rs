//! Membership among real processes and real browser tabs: `cargo bench -p xtask --bench membership [-- PARTS…]`.
//!
//! | part | what is measured |
//! |---|---|
//! | `processes` | 30 servers: one is killed, one stands still for 4 s, the network falls into halves and heals |
//! | `serf` | 30 agents of Debian's serf, if it is installed: one is killed |
//! | `tabs` | 3 servers and 30 tabs of one browser: joining, and a server is killed |
//! | `hidden` | 3 servers and one tab that is hidden for ten minutes, or `QUNLONG_HIDDEN_SECONDS` |
//!
//! Without arguments all of them run. Each prints a line for every figure, with the bar that it should reach. A slow figure
//! is printed like any other; only what never happens ends the bench.
//!
//! What nodes hold of each other is read from their traces, which say so as it changes (`views.rs`). A moment is known to
//! about 5 ms, and nothing that a node held in passing is missed.

#[path = "membership/processes.rs"]
mod processes;
#[path = "membership/serf.rs"]
mod serf;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "membership/tabs.rs"]
mod tabs;
#[path = "membership/views.rs"]
mod views;

use std::time::{Duration, Instant};

const PARTS: [&str; 4] = ["processes", "serf", "tabs", "hidden"];

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    // Cargo itself adds an option.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !PARTS.contains(&wanted.as_str())) {
        eprintln!("{unknown} is no part; there are: {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    if wants("processes") {
        xtask::build_server().expect("the server builds");
        processes::measure();
    }
    if wants("serf") {
        serf::measure();
    }
    if wants("tabs") || wants("hidden") {
        xtask::build_server().expect("the server builds");
        let web = xtask::web::build(xtask::web::Profile::Release).expect("the web app builds");
        if wants("tabs") {
            tabs::many(&web, tabs::Lie::OneWindow).await;
            tabs::many(&web, tabs::Lie::Windows).await;
        }
        if wants("hidden") {
            tabs::hidden(&web).await;
        }
    }
}

/// Prints a figure, and the bar that it should reach where there is one.
fn figure(what: &str, value: &str, bar: &str) {
    let bar = if bar.is_empty() { String::new() } else { format!("   bar: {bar}") };
    println!("{what:<70} {value:>12}{bar}");
}

/// The median and the worst of several times.
fn figures(what: &str, mut spans: Vec<Duration>, bar: &str) {
    spans.sort();
    let worst = spans.len() - 1;
    figure(&format!("{what}, median of {}", spans.len()), &seconds(spans[worst / 2]), bar);
    figure(&format!("{what}, worst"), &seconds(spans[worst]), bar);
}

fn seconds(span: Duration) -> String {
    format!("{:.3} s", span.as_secs_f64())
}

/// Waits until something holds, looking every few ms. Returns how long that was since `began`.
fn until(what: &str, began: Instant, mut holds: impl FnMut() -> bool) -> Duration {
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(LOOK);
    }
    began.elapsed()
}

/// How often it is looked whether something has come true.
const LOOK: Duration = Duration::from_millis(5);
/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(240);
