//! The whole: three real server processes and real browser tabs, from joining to a killed server.
//!
//! A picture of every screen is kept under `target/screens`.

#[path = "hybrid/namespaces.rs"]
mod namespaces;
mod support;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use support::browser::{Browser, Tab};
use support::cluster::{Cluster, Process, Shape, agent, read, wait_for};
use support::demo::Demo;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);

/// Built once for all tests of this program: two at a time would write the same files.
static WEB: LazyLock<PathBuf> = LazyLock::new(|| {
    xtask::build_server().expect("the server builds");
    xtask::web::build(xtask::web::Profile::Release).expect("the web app builds")
});

fn start() -> Cluster {
    Cluster::start(Some(&WEB))
}

/// The members that a server knows, by name, with their states.
fn members(node: &Process) -> Vec<(String, String, Value)> {
    let (_, body) = node.get("/v1/members").expect("the server answers");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = body["members"].as_array().cloned().unwrap_or_default();
    list.into_iter().map(|member| (text(&member["profile"]["name"]), text(&member["state"]), member)).collect()
}

fn is_alive(node: &Process, name: &str) -> bool {
    members(node).iter().any(|(known, state, _)| known == name && state == "Alive")
}

async fn my_name(tab: &Tab) -> String {
    tab.wait_until_joined().await;
    tab.text(".top .chip b").await
}

async fn my_id(tab: &Tab) -> String {
    tab.eval("sessionStorage.getItem('qunlong-node')").await.as_str().unwrap_or_default().to_owned()
}

/// Whether the epoch, as a server knows it, is settled and gives this member a seat, and a vote.
fn has_seat(node: &Process, name: &str) -> bool {
    node.topology().is_some_and(|topology| gives_seat(&topology, name))
}

fn gives_seat(topology: &Value, name: &str) -> bool {
    let mut seats = topology["seats"].as_array().into_iter().flatten();
    topology["state"] == "settled" && seats.any(|seat| seat["name"] == name && seat["partitions"].as_u64() > Some(0))
}

/// Writes a key on the Keys screen of a tab and waits for the node's answer.
async fn put(tab: &Tab, key: &str, value: &str) {
    tab.go("#/keys?lang=en").await;
    tab.fill("#key", key).await;
    tab.fill("#value", value).await;
    tab.click("#put").await;
    tab.wait_for("the write", "document.querySelector('#told .good')").await;
}

/// Opens a key on the Keys screen and waits until it has these values.
async fn expect_values(tab: &Tab, key: &str, values: &[&str]) {
    tab.go(&format!("#/keys?lang=en&key={key}")).await;
    let wanted = json!(values);
    let shown = "[...document.querySelectorAll('#versions pre')].map((e) => e.textContent).sort()";
    let holds = format!(
        "document.querySelector('#open-key')?.textContent === {} && JSON.stringify({shown}) === JSON.stringify({wanted})",
        json!(key)
    );
    tab.wait_for(&format!("{key} = {values:?}"), &holds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_are_members_that_store_through_servers_and_survive_them() {
    let mut cluster = start();
    let browser = Browser::launch().await;
    let a = browser.open(&cluster.nodes[0].url("/#/stage?lang=en&theme=light")).await;
    let b = browser.open(&cluster.nodes[1].url("/#/stage?lang=en&theme=light")).await;
    let (name_a, name_b) = (my_name(&a).await, my_name(&b).await);
    assert_ne!(my_id(&a).await, my_id(&b).await, "two tabs are two nodes");

    // Both are members on every server, durable, with two relays each.
    for name in [&name_a, &name_b] {
        wait_for("the tab a member everywhere", PATIENCE, || cluster.nodes.iter().all(|node| is_alive(node, name)));
    }
    wait_for("two relays each", PATIENCE, || {
        members(&cluster.nodes[2])
            .iter()
            .filter(|(name, ..)| *name == name_a || *name == name_b)
            .all(|(.., member)| member["profile"]["relays"].as_array().is_some_and(|relays| relays.len() == 2))
    });
    let (.., member) = members(&cluster.nodes[0]).into_iter().find(|(name, ..)| *name == name_a).expect("a member");
    assert_eq!((&member["profile"]["class"], &member["profile"]["durability"]), (&json!("Tab"), &json!("Durable")));

    // What one tab writes, a server and the other tab read.
    put(&a, "greeting", "hello from a tab").await;
    assert_eq!(cluster.nodes[2].value("greeting").as_deref(), Some("hello from a tab"));
    expect_values(&b, "greeting", &["hello from a tab"]).await;

    // Concurrent writes are siblings, shown and resolved in the page.
    let sibling = |node: &Process, value: &str| {
        let request = agent().put(node.url("/v1/kv/colour")).header("qunlong-context", "none");
        assert_eq!(read(request.send(value)).expect("an answer").0, 200);
    };
    sibling(&cluster.nodes[0], "red");
    sibling(&cluster.nodes[1], "blue");
    expect_values(&a, "colour", &["blue", "red"]).await;
    a.screenshot("keys-siblings-en-light").await;
    a.click("#versions li button").await;
    a.wait_for("one value left", "document.querySelectorAll('#versions pre').length === 1").await;
    assert_eq!(cluster.nodes[1].get("/v1/kv/colour").expect("an answer").0, 200);

    // The server that the tab came from is killed: the tab goes on through its second relay.
    cluster.nodes[0].kill();
    put(&a, "after-the-kill", "still here").await;
    expect_values(&b, "after-the-kill", &["still here"]).await;
    wait_for("the kill known", PATIENCE, || !is_alive(&cluster.nodes[2], "n1"));
    a.go("#/stage?lang=en").await;
    sleep(Duration::from_secs(2)).await;
    a.screenshot("stage-killed-en-light").await;
    cluster.nodes[0].start();
    cluster.wait_until_one();

    // A reloaded tab is the same node in its next boot.
    let (id, generation) = (my_id(&a).await, member["generation"].as_u64().expect("a number"));
    a.reload().await;
    assert_eq!(my_name(&a).await, name_a);
    assert_eq!(my_id(&a).await, id);
    wait_for("the next boot known", PATIENCE, || {
        members(&cluster.nodes[2])
            .iter()
            .any(|(name, state, member)| *name == name_a && state == "Alive" && member["generation"] == generation + 1)
    });
    expect_values(&a, "greeting", &["hello from a tab"]).await;

    // A duplicated tab must not run the same node twice.
    let c = browser.open(&cluster.nodes[0].url("/#/join?lang=en")).await;
    c.eval(&format!("sessionStorage.setItem('qunlong-node', {})", json!(id))).await;
    c.reload().await;
    c.wait_until_joined().await;
    assert_ne!(my_id(&c).await, id, "the first tab holds the identity");

    // A closed tab says goodbye or is found missing.
    let name_c = my_name(&c).await;
    c.close().await;
    wait_for("the closed tab gone", PATIENCE, || !is_alive(&cluster.nodes[1], &name_c));

    // A node that is told to leave says goodbye, and nobody has to suspect it.
    b.go("#/join?lang=en").await;
    b.click("form button[type=button]").await;
    wait_for("the goodbye", PATIENCE, || {
        members(&cluster.nodes[2]).iter().any(|(name, state, _)| *name == name_b && state == "Left")
    });
    b.go("#/stage?lang=en").await;
    b.wait_for("the cluster watched", "document.querySelectorAll('.node.server.alive').length === 3").await;
}

/// Where the operator lets tabs own, a tab is given its share, stores it in its own journal, and says when it is hidden;
/// when it is closed its seat goes at once, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_tab_owns_and_votes_and_makes_room_when_it_is_closed() {
    LazyLock::force(&WEB);
    let (web, more) = (Some(WEB.as_path()), &["--tabs", "always"][..]);
    let cluster = Cluster::of(&Shape { nodes: 3, owners: 3, replicas: 3, more, web, proxied: None });
    let browser = Browser::launch().await;
    let tab = browser.open(&cluster.nodes[0].url("/#/stage?lang=en&theme=light")).await;
    let name = my_name(&tab).await;
    for n in 0..40 {
        assert_eq!(cluster.nodes[0].put(&format!("early-{n}"), "value").expect("an answer").0, 200);
        assert_eq!(add(&cluster.nodes[0], n), 1);
    }
    wait_for("a seat for the tab", 3 * PATIENCE, || cluster.nodes.iter().all(|node| has_seat(node, &name)));
    for n in 0..40 {
        assert_eq!(cluster.nodes[1].put(&format!("late-{n}"), "value").expect("an answer").0, 200);
        assert_eq!(add(&cluster.nodes[1], n), 2, "the registers have moved with their owners");
    }
    // It holds its share in its own journal.
    tab.go("#/node?lang=en").await;
    tab.screenshot("node-owner-en-light").await;

    // Hidden behind another tab it says so, and is not dead.
    let other = browser.open_over("about:blank").await;
    wait_for("the tab to say that it is hidden", PATIENCE, || {
        members(&cluster.nodes[2])
            .iter()
            .any(|(known, _, member)| *known == name && member["profile"]["drowsy"] == true)
    });
    assert!(is_alive(&cluster.nodes[2], &name));
    other.close().await;

    // Closed before its worker has heard of it: the page's own word is enough.
    tab.eval("Worker.prototype.postMessage = () => {}").await;
    tab.close().await;
    wait_for("its seat to go", 3 * PATIENCE, || {
        cluster.nodes.iter().all(|node| {
            node.topology().is_some_and(|topology| topology["state"] == "settled") && !has_seat(node, &name)
        })
    });
    for n in 0..40 {
        assert_eq!(cluster.nodes[2].value(&format!("early-{n}")).as_deref(), Some("value"));
        assert_eq!(cluster.nodes[2].value(&format!("late-{n}")).as_deref(), Some("value"));
        assert_eq!(add(&cluster.nodes[2], n), 3);
    }
}

/// Adds to a register, and returns the sum.
fn add(node: &Process, register: u32) -> i64 {
    let url = node.url(&format!("/v1/registers/r-{register}?increment=1&timeout=20000"));
    let (code, body) = read(agent().post(url).send_empty()).expect("an answer");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["number"].as_i64().expect("a number")
}

/// What a tab asks of a register is decided in rounds, and the page shows how; a condition that fails is told as such.
#[tokio::test(flavor = "multi_thread")]
async fn rounds_on_a_register_are_shown_as_they_are_decided() {
    let cluster = start();
    let browser = Browser::launch().await;
    let tab = browser.open(&cluster.nodes[0].url("/#/consensus?lang=en&theme=light")).await;
    tab.wait_until_joined().await;
    tab.wait_for("an epoch", "!document.querySelector('#register-add').disabled").await;
    // The servers' traces open a moment after the servers are known.
    sleep(Duration::from_secs(1)).await;
    tab.click("#register-add").await;
    tab.wait_for("the sum", "document.querySelector('#register-told .good')?.textContent.includes('= 1')").await;
    tab.click("#register-many").await;
    tab.wait_for("all of them", "document.querySelector('#register-told .good')?.textContent.includes('8 / 8')").await;
    tab.wait_for("a round that left phase 1 out", "document.querySelector('#rounds').innerText.includes('left out')")
        .await;
    let ticks = "document.querySelectorAll('#rounds .round:first-child .disc.accepted').length >= 2";
    tab.wait_for("a majority of acceptances", ticks).await;
    let (code, value) = cluster.nodes[2].get("/v1/registers/counter").expect("an answer");
    assert_eq!((code, value.as_str()), (200, "9"));
    tab.fill("#register-value", "too late").await;
    tab.fill("#register-version", "3").await;
    tab.click("#register-set").await;
    tab.wait_for("the conflict", "document.querySelector('#register-told .bad')?.textContent.includes('CONFLICT')")
        .await;
    tab.click("#register-get").await;
    tab.wait_for("the value", "document.querySelector('#register-told .good b')?.textContent === '9'").await;
    tab.wait_for("the read", "document.querySelector('#rounds').innerText.includes('a majority agrees')").await;
    tab.screenshot("consensus-rounds-en-light").await;
}

/// A server that only relays, and three tabs that own and vote among themselves.
#[tokio::test(flavor = "multi_thread")]
async fn tabs_alone_are_a_cluster_with_a_server_as_a_mere_relay() {
    LazyLock::force(&WEB);
    let (web, more) = (Some(WEB.as_path()), &["--tabs-alone"][..]);
    let shape = Shape { nodes: 1, owners: 3, replicas: 3, more, web, proxied: None };
    let cluster = Cluster::forming(&shape);
    let relay = &cluster.nodes[0];
    wait_for("the relay to listen", PATIENCE, || relay.status().is_some());
    let browser = Browser::launch().await;
    let mut tabs = Vec::new();
    for _ in 0..3 {
        tabs.push(browser.open(&relay.url("/#/topology?lang=en&theme=light")).await);
    }
    wait_for("an epoch of tabs", 3 * PATIENCE, || {
        relay.topology().is_some_and(|topology| topology["volatile"] == true && topology["voters"] == 3)
    });
    assert_eq!(relay.put("colour", "red").expect("an answer").0, 200, "the relay hands it to tabs");
    assert_eq!(relay.status().expect("it runs")["keys"], 0, "and holds nothing itself");
    expect_values(&tabs[1], "colour", &["red"]).await;
    tabs[1].go("#/topology?lang=en&theme=light").await;
    tabs[1].wait_for("the banner", "document.querySelector('main')?.textContent.includes('outlives')").await;
    tabs[1].screenshot("topology-tabs-alone-en-light").await;
    // One of three may go.
    tabs[0].close().await;
    assert_eq!(relay.value("colour").as_deref(), Some("red"));
    put(&tabs[2], "colour", "green").await;
    expect_values(&tabs[1], "colour", &["green"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_screen_in_both_languages_and_themes() {
    let cluster = start();
    let browser = Browser::launch().await;
    let other = browser.open(&cluster.nodes[1].url("/#/stage")).await;
    let tab = browser.open(&cluster.nodes[0].url("/#/stage?lang=en&theme=light")).await;
    other.wait_until_joined().await;
    tab.wait_until_joined().await;
    for key in ["apple", "banana", "colour"] {
        assert_eq!(cluster.nodes[0].put(key, "a value").expect("an answer").0, 200);
    }
    let problems = "(window.__problems ??= [])";
    tab.eval(&format!("addEventListener('error', (e) => {problems}.push(`${{e.message}} ${{e.error?.stack}}`))")).await;
    for event in ["unhandledrejection", "securitypolicyviolation"] {
        tab.eval(&format!(
            "addEventListener('{event}', (e) => {problems}.push(`${{e.type}} ${{e.reason ?? e.violatedDirective}}`))"
        ))
        .await;
    }
    for (language, theme) in [("en", "light"), ("zh", "dark"), ("en", "dark"), ("zh", "light")] {
        for screen in ["join", "stage", "keys", "consensus", "members", "topology", "node"] {
            let query = if screen == "keys" { "&key=colour" } else { "" };
            tab.go(&format!("#/{screen}?lang={language}&theme={theme}{query}")).await;
            if screen == "stage" {
                tab.eval("document.querySelector('.try-it button').click()").await;
                sleep(Duration::from_millis(1_900)).await;
            }
            sleep(Duration::from_millis(300)).await;
            tab.screenshot(&format!("{screen}-{language}-{theme}")).await;
            assert_eq!(tab.eval("document.documentElement.lang").await, json!(language));
            assert_eq!(tab.eval("document.documentElement.dataset.theme").await, json!(theme));
            assert!(!tab.text("main").await.is_empty(), "{screen} shows something");
            let panels = match screen {
                "keys" => ".namespaces, .quorum",
                "consensus" => ".namespaces",
                _ => "main",
            };
            let shown = format!("'{panels}'.split(', ').every((panel) => document.querySelector(panel))");
            assert_eq!(tab.eval(&shown).await, json!(true), "{screen} has {panels}");
        }
    }
    // The key sheet opens with ? and closes with its button, and then the keys work.
    let press = |key: &str| format!("dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}' }}))");
    tab.eval(&press("?")).await;
    tab.click("#close-help").await;
    tab.wait_for("the sheet closed", "!document.querySelector('.sheet')").await;
    tab.eval(&press("2")).await;
    tab.wait_for("the stage", "location.hash.startsWith('#/stage')").await;
    tab.eval(&press("t")).await;
    tab.wait_for("the table", "document.querySelector('.theatre table')").await;
    tab.screenshot("stage-table").await;
    tab.eval("history.back()").await;
    tab.wait_for("the screen before", "!location.hash.startsWith('#/stage')").await;
    assert_eq!(tab.eval(problems).await, json!([]), "no script failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stage_draws_real_messages_and_votes() {
    let cluster = start();
    let browser = Browser::launch().await;
    let tab = browser.open(&cluster.nodes[0].url("/#/stage?lang=en")).await;
    tab.wait_until_joined().await;
    tab.wait_for("all servers met", "document.querySelector('.story').innerText.includes('met n3')").await;
    // The servers' traces open a moment after the servers are known.
    sleep(Duration::from_secs(1)).await;
    tab.click(".try-it button").await;
    tab.wait_for("the quorum filled", "document.querySelector('.quorums .chip.good')").await;
    let filled = tab.eval("document.querySelectorAll('.quorums li:first-child .pip.filled').length").await;
    assert!(filled.as_u64() >= Some(4), "two answers and two acknowledgements, not {filled}");
    tab.wait_for("the story told", "document.querySelector('.story').innerText.includes('minted version')").await;
    // The newest line is on top: nothing is told before what caused it.
    let order = "(() => { const lines = [...document.querySelectorAll('.story li')].map((e) => e.textContent); \
                 const at = (part) => lines.findIndex((line) => line.includes(part)); \
                 return at('has its quorum') < at('minted version') && at('minted version') < at('handed the write') \
                 && at('handed the write') < at('began put'); })()";
    tab.wait_for("the story in order", order).await;
    // Something flies: the canvas is not empty at some moment.
    let painted = "(() => { const c = document.querySelector('.picture canvas'); const d = c.getContext('2d')\
                   .getImageData(0, 0, c.width, c.height).data; return d.some((v) => v !== 0); })()";
    tab.wait_for("a message drawn", painted).await;
    // Pausing stops the picture and counts what waits.
    tab.click("#pause").await;
    tab.wait_for("events waiting", "/\\d+ events behind/.test(document.querySelector('.strip').innerText)").await;
    tab.screenshot("stage-paused").await;
    // The whole view is in the address.
    tab.eval("document.querySelector('.node.server').dispatchEvent(new MouseEvent('click', { bubbles: true }))").await;
    tab.wait_for("the selection in the address", "location.hash.includes('node=')").await;
}

/// Selects a node on the stage by its name.
async fn select(tab: &Tab, name: &str) {
    let node = format!(
        "[...document.querySelectorAll('.node')].find((n) => n.querySelector('.name').textContent === '{name}')"
    );
    tab.wait_for(&format!("{name} on the stage"), &node).await;
    tab.eval(&format!("{node}.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")).await;
}

/// Presses a button that asks back.
async fn confirm(tab: &Tab, selector: &str) {
    tab.click(selector).await;
    tab.wait_for("the question", &format!("document.querySelector('{selector}.asks')")).await;
    tab.click(selector).await;
}

async fn wait_for_state(tab: &Tab, name: &str, state: &str) {
    let holds =
        format!("[...document.querySelectorAll('.node.{state} .name')].some((name) => name.textContent === '{name}')");
    tab.wait_for(&format!("{name} {state}"), &holds).await;
}

async fn put_on_stage(tab: &Tab, demo: &Demo, value: &str) {
    tab.fill(".try-it input:nth-of-type(2)", value).await;
    tab.click(".try-it button").await;
    let written = || {
        demo.nodes().any(|node| {
            let answer = read(agent().get(format!("http://{node}/v1/kv/color")).call());
            answer == Some((200, value.to_owned()))
        })
    };
    wait_for(&format!("color = {value}"), PATIENCE, written);
}

/// Recordings are read by the page: one of a simulation with names that the live cluster does not have, and one that a
/// live node made of itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_replayed_in_the_page() {
    let mut cluster = start();
    let recording = cluster.data.path().join("n3.qlrec");
    cluster.nodes[2].terminate();
    cluster.nodes[2].start_with(&["--record", &recording.display().to_string()]);
    cluster.wait_until_one();
    assert_eq!(cluster.nodes[2].put("color", "blue").map(|(code, _)| code), Some(200));
    assert_eq!(cluster.nodes[2].terminate(), Some(0));

    let mut sim = qunlong_core::sim::Sim::recorded(1, 5, 2, 3, |_| ());
    sim.run_for(qunlong_core::Duration::secs(10));
    sim.crash(4);
    sim.run_for(qunlong_core::Duration::secs(60));
    let simulated = cluster.data.path().join("simulated.qlrec");
    std::fs::write(&simulated, sim.take_recording().expect("it was recorded")).expect("writable");

    let browser = Browser::launch().await;
    let tab = browser.open(&cluster.nodes[0].url("/#/stage?lang=en&theme=light")).await;
    tab.wait_until_joined().await;
    let name = my_name(&tab).await;
    for file in [&simulated, &recording] {
        tab.choose_file("#recording", file).await;
        let shown = format!(
            "document.querySelector('.showing')?.textContent.includes({})",
            json!(file.file_name().and_then(|name| name.to_str()))
        );
        tab.wait_for("the recording", &shown).await;
        tab.wait_for("the same state", "document.querySelector('.showing .good')").await;
        if file == &simulated {
            tab.wait_for("five servers", "document.querySelectorAll('.node.server.alive').length === 5").await;
            tab.screenshot("stage-recording-en-light").await;
        }
        let live =
            format!("[...document.querySelectorAll('.node .name')].some((e) => e.textContent === {})", json!(name));
        assert_eq!(tab.eval(&live).await, json!(false), "the live tab is not in the recording");
    }
    tab.click("#live").await;
    let live = format!(
        "!document.querySelector('.showing') && [...document.querySelectorAll('.node .name')].some((e) => e.textContent === {})",
        json!(name)
    );
    tab.wait_for("the live cluster", &live).await;

    // What is no recording is refused in words.
    let nonsense = cluster.data.path().join("nonsense.qlrec");
    std::fs::write(&nonsense, b"nonsense").expect("writable");
    tab.choose_file("#recording", &nonsense).await;
    tab.wait_for("the refusal", "document.querySelector('.stage-bar .bad')?.textContent.includes('NOT_A_RECORDING')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_kills_a_server_from_the_page_and_nothing_breaks() {
    let demo = Demo::start(3, Some(&WEB));
    let browser = Browser::launch().await;
    let tab = browser.open(&format!("{}/#/stage?lang=en&theme=dark", demo.page)).await;
    let other = browser.open(&format!("{}/#/keys?lang=en", demo.page)).await;
    tab.wait_until_joined().await;
    other.wait_until_joined().await;
    put_on_stage(&tab, &demo, "before").await;
    expect_values(&other, "color", &["before"]).await;

    // The server that served the page is killed, from the page.
    select(&tab, "n1").await;
    confirm(&tab, "#kill").await;
    put_on_stage(&tab, &demo, "during").await;
    wait_for_state(&tab, "n1", "dead").await;
    tab.screenshot("stage-dead-en-dark").await;
    expect_values(&other, "color", &["during"]).await;
    tab.click("#restart").await;
    wait_for_state(&tab, "n1", "alive").await;

    // A link is cut and healed; nodes with a majority go on, through others where they must.
    let link = "[...document.querySelectorAll('.wire title')].find((t) => t.textContent.includes('n2') && t.textContent.includes('n3'))";
    tab.wait_for("the link", link).await;
    tab.eval(&format!("{link}.parentElement.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")).await;
    confirm(&tab, "#cut").await;
    tab.wait_for("the cut drawn", "document.querySelector('.wire.cut')").await;
    put_on_stage(&tab, &demo, "after").await;
    tab.screenshot("stage-cut-en-dark").await;
    tab.click("#heal").await;
    tab.wait_for("the link whole", "!document.querySelector('.wire.cut')").await;
    expect_values(&other, "color", &["after"]).await;

    // A new cluster takes the old one's place on the same ports: the tab comes back as a new node by itself.
    let (port, old) = (demo.port, my_id(&tab).await);
    assert!(demo.stop(), "Ctrl-C ends it well");
    let demo = Demo::start_on(port, 3, Some(&WEB));
    let another = format!("(sessionStorage.getItem('qunlong-node') ?? {0}) !== {0}", json!(old));
    tab.wait_for("a new identity", &another).await;
    tab.wait_until_joined().await;
    put_on_stage(&tab, &demo, "in a new life").await;
    assert!(demo.stop(), "Ctrl-C ends it well");
}
