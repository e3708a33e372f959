//! What a browser sees of three servers and five tabs: `cargo bench -p xtask --bench browser`.
//!
//! Prints how fast the core runs in a tab and natively, the sizes of the programs, the time from opening a tab to its node's first message from a peer, and the
//! stage's frames per second while the cluster works.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::browser::{Browser, Tab};
use support::cluster::Cluster;
use tokio::time::sleep;

const TABS: usize = 5;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    xtask::build_server().expect("the server builds");
    let web = xtask::web::build(xtask::web::Profile::Release).expect("the web app builds");
    for program in ["app_bg.wasm", "node_bg.wasm"] {
        let size = |name: String| std::fs::metadata(web.join(name)).map_or(0, |meta| meta.len());
        let (plain, packed) = (size(program.to_owned()), size(format!("{program}.br")));
        println!("{program:<44} {:>8.1} KB, {:.1} KB with brotli", plain as f64 / 1e3, packed as f64 / 1e3);
    }

    let browser = Browser::launch().await;
    pace(&browser).await;
    let cluster = Cluster::start(Some(&web));
    let mut tabs: Vec<Tab> = Vec::new();
    for number in 0..TABS {
        let node = &cluster.nodes[number % cluster.nodes.len()];
        let tab = browser.open(&node.url("/#/stage?lang=en")).await;
        tab.wait_until_joined().await;
        let first = first_message(&tab).await;
        println!("{:<44} {first:>8.0} ms", format!("tab {} opened to first message", number + 1));
        tabs.push(tab);
    }

    // Only the first tab is in front; all are nodes.
    let front = &tabs[0];
    front.send("Target.activateTarget", serde_json::json!({ "targetId": front.target() })).await;
    sleep(Duration::from_secs(3)).await;
    for (what, writes) in [("idle", false), ("with 20 writes a second", true)] {
        let writer = writes.then(|| start_writing(&cluster));
        let frames = frames_per_second(front).await;
        println!("{:<44} {frames:>8.1} frames/s", format!("stage, 3 servers and {TABS} tabs, {what}"));
        if let Some(writer) = writer {
            writer.abort();
        }
    }
}

/// The same piece of simulated life natively and in a tab, each once to warm up and once for the clock.
async fn pace(browser: &Browser) {
    const EXAMPLE: [&str; 6] = ["--release", "--quiet", "--package", "qunlong-core", "--example", "pace"];
    let native = || {
        let began = Instant::now();
        let output = std::process::Command::new(xtask::target().join("release/examples/pace")).output().expect("runs");
        let inputs: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a count");
        (inputs, inputs / began.elapsed().as_secs_f64())
    };
    let built = xtask::cargo(["build"]).args(EXAMPLE).status().expect("cargo runs");
    assert!(built.success(), "it builds natively");
    native();
    let (inputs, rate) = native();
    println!("{:<44} {:>8.0} k inputs/s", "the core natively, membership and puts", rate / 1e3);

    xtask::setup::rust_target("wasm32-unknown-unknown").expect("the target");
    let built = xtask::cargo(["build", "--target", "wasm32-unknown-unknown"]).args(EXAMPLE).status();
    assert!(built.expect("cargo runs").success(), "it builds for wasm32");
    let program = xtask::target().join("wasm32-unknown-unknown/release/examples/pace.wasm");
    let digits: String = std::fs::read(program).expect("readable").iter().map(|byte| format!("{byte:02x}")).collect();
    let tab = browser.open("about:blank").await;
    let timed = format!(
        "(async () => {{
            const bytes = Uint8Array.from('{digits}'.match(/../g), (pair) => parseInt(pair, 16));
            const module = await WebAssembly.compile(bytes);
            const run = async () => {{
                const {{ exports }} = await WebAssembly.instantiate(module, {{}});
                const began = performance.now();
                exports.main(0, 0);
                return performance.now() - began;
            }};
            await run();
            return await run();
        }})()"
    );
    let ms = tab.eval(&timed).await.as_f64().expect("a time");
    println!("{:<44} {:>8.0} k inputs/s", "the core in a tab, the same", inputs / ms);
}

/// From the beginning of the page's load to the first message that its node got, in ms.
async fn first_message(tab: &Tab) -> f64 {
    tab.go("#/node?lang=en").await;
    let told = "document.querySelector('main').dataset.firstMessage";
    tab.wait_for("the first message", told).await;
    let value = tab.eval(&format!("Number({told})")).await;
    tab.go("#/stage?lang=en").await;
    value.as_f64().unwrap_or_default()
}

/// Counted by the page itself over five seconds.
async fn frames_per_second(tab: &Tab) -> f64 {
    let count = "new Promise((done) => { let frames = 0; const began = performance.now(); const next = () => { \
                 frames += 1; const span = performance.now() - began; \
                 span < 5000 ? requestAnimationFrame(next) : done(frames * 1000 / span); }; next(); })";
    let value: Value = tab.eval(count).await;
    value.as_f64().unwrap_or_default()
}

fn start_writing(cluster: &Cluster) -> tokio::task::JoinHandle<()> {
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/v1/kv/bench")).collect();
    tokio::spawn(async move {
        for url in urls.iter().cycle() {
            let url = url.clone();
            let put = move || support::cluster::read(support::cluster::agent().put(url).send("value"));
            let _ = tokio::task::spawn_blocking(put).await;
            sleep(Duration::from_millis(50)).await;
        }
    })
}
