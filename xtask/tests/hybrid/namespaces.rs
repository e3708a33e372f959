//! Namespaces and quorums in the page: a tab of the demonstration creates, chooses, measures and is refused, and the
//! servers say over HTTP what came of it.

use serde_json::{Value, json};

use crate::support::browser::{Browser, Tab};
use crate::support::cluster::{Answer, agent, read, wait_for};
use crate::support::demo::Demo;
use crate::{PATIENCE, WEB, gives_seat, my_name};

/// A tab on a screen of the demonstration that has its seat: nothing after that meets the change of the epoch.
async fn open(browser: &Browser, demo: &Demo, screen: &str) -> Tab {
    let tab = browser.open(&format!("{}/#/{screen}?lang=en&theme=light", demo.page)).await;
    let name = my_name(&tab).await;
    wait_for("a seat for the tab", 3 * PATIENCE, || {
        demo.nodes().all(|node| gives_seat(&ask_json(&node, "/v1/topology"), &name))
    });
    tab
}

/// What a server answers.
fn ask(node: &str, path: &str) -> Answer {
    read(agent().get(format!("http://{node}{path}")).call()).expect("an answer")
}

fn ask_json(node: &str, path: &str) -> Value {
    serde_json::from_str(&ask(node, path).1).expect("JSON")
}

/// The guarantee of a namespace, as a server knows it.
fn mode_at(node: &str, name: &str) -> Option<String> {
    let list = ask_json(node, "/v1/namespaces");
    let found = list["namespaces"].as_array()?.iter().find(|namespace| namespace["name"] == name)?;
    found["mode"].as_str().map(str::to_owned)
}

/// The keys that hold anything, as a server lists them.
fn keys_at(node: &str, namespace: &str) -> Vec<String> {
    let list = ask_json(node, &format!("/v1/kv?namespace={namespace}"));
    let keys = list["keys"].as_array().into_iter().flatten();
    let held = keys.filter(|entry| entry["values"].as_array().is_some_and(|values| !values.is_empty()));
    held.filter_map(|entry| entry["key"].as_str().map(str::to_owned)).collect()
}

/// Sets what a person would choose from a list or slide to, and says so to the page.
async fn set(tab: &Tab, selector: &str, value: &str, event: &str) {
    let script = format!(
        "(() => {{ const field = document.querySelector({}); field.value = {}; \
         field.dispatchEvent(new Event('{event}', {{ bubbles: true }})); return field.value; }})()",
        json!(selector),
        json!(value)
    );
    assert_eq!(tab.eval(&script).await, json!(value), "{selector} takes {value}");
}

/// Fills in the form for a new namespace, which is open, and sends it.
async fn create(tab: &Tab, name: &str, mode: &str) {
    tab.fill("#namespace-name", name).await;
    set(tab, "#namespace-mode", mode, "change").await;
    tab.click("#namespace-create").await;
}

/// Waits until the screen works on a namespace, and says this of it.
async fn wait_until_chosen(tab: &Tab, name: &str, says: &str) {
    let chosen = format!(
        "document.querySelector('[data-namespace={name}][aria-pressed=true]')?.textContent.includes({})",
        json!(says)
    );
    tab.wait_for(&format!("{name} chosen: {says}"), &chosen).await;
}

async fn choose(tab: &Tab, name: &str, says: &str) {
    tab.click(&format!("[data-namespace={name}]")).await;
    wait_until_chosen(tab, name, says).await;
}

/// Waits until the form's answer is a refusal that says all of this.
async fn wait_until_refused(tab: &Tab, says: &[&str]) {
    let told = "document.querySelector('#namespace-told .bad')?.textContent";
    let refused = format!("{}.every((part) => {told}?.includes(part))", json!(says));
    tab.wait_for(&format!("a refusal: {says:?}"), &refused).await;
}

/// Moves one of the sliders, `read` or `write`, and waits until it is shown and in the address: whoever moves the other
/// one before that takes this one back.
async fn slide(tab: &Tab, what: &str, count: u8) {
    set(tab, &format!("#count-{what}"), &count.to_string(), "input").await;
    let letter = &what[..1];
    let shown = format!(
        "document.querySelector('output[for=count-{what}]').textContent === '{count} / 3' \
         && /[?&]{letter}={count}(&|$)/.test(location.hash)"
    );
    tab.wait_for(&format!("{what}: {count} of 3"), &shown).await;
}

/// How far the sliders go.
async fn ranges(tab: &Tab) -> Value {
    tab.eval("[...document.querySelectorAll('.count input')].map((e) => [e.id, e.min, e.max])").await
}

/// Measures by these counts, all reads answered. Returns what came out.
async fn measure(tab: &Tab, r: u8, w: u8) -> String {
    tab.click("#measure").await;
    let told = "document.querySelector('#stale')?.textContent";
    let done = format!("[' of 50 reads ', 'R = {r}, W = {w})'].every((part) => {told}?.includes(part))");
    tab.wait_for("the measurement", &done).await;
    let asked = tab.eval("document.querySelectorAll('#measured .badge').length").await;
    assert_eq!(asked, json!(4), "the tab's own node and all servers were read through");
    tab.text("#stale").await
}

/// What the panels say in a language, without what people have named themselves.
async fn words(tab: &Tab, address: &str, language: &str) -> Vec<String> {
    tab.go(&format!("#/{address}&theme=light&lang={language}")).await;
    tab.wait_for("the language", &format!("document.documentElement.lang === '{language}'")).await;
    let own_text = "(e) => [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join('').trim()";
    let parts = "h2, p, summary, label, option, button:not([data-namespace]), #namespaces span, .count span";
    let all = format!(
        "[...document.querySelectorAll('.namespaces, .quorum')] \
         .flatMap((panel) => [...panel.querySelectorAll('{parts}')]).map({own_text}).filter((text) => text)"
    );
    serde_json::from_value(tab.eval(&all).await).expect("a list of texts")
}

/// Checks that nothing in the panels stays English when the page is Chinese, and leaves it English.
async fn check_chinese(tab: &Tab, address: &str) {
    let (chinese, english) = (words(tab, address, "zh").await, words(tab, address, "en").await);
    assert_eq!(english.len(), chinese.len(), "{english:?} {chinese:?}");
    assert!(english.iter().any(|text| text == "Guarantee"), "the form is among {english:?}");
    for (english, chinese) in english.iter().zip(&chinese) {
        let is_chinese = chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        assert!(english != chinese && is_chinese, "{english} is {chinese} in Chinese");
    }
}

/// A namespace that promises little is made on the Keys screen, and what its quorums lead to is measured there.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_created_and_its_quorums_are_chosen_and_measured() {
    let demo = Demo::start(3, Some(&WEB));
    let nodes: Vec<String> = demo.nodes().collect();
    let browser = Browser::launch().await;
    let tab = open(&browser, &demo, "keys").await;

    // The form, with its fields in one line.
    tab.click("#namespace-new summary").await;
    tab.wait_for("the form", "document.querySelector('#namespace-new').open").await;
    let lines = "new Set([...document.querySelectorAll('.create-form label')]\
                 .map((e) => Math.round(e.getBoundingClientRect().top))).size";
    assert_eq!(tab.eval(lines).await, json!(1), "a list is as tall as an input");
    create(&tab, "likes", "eventual").await;
    tab.wait_for("the namespace", "document.querySelector('#namespace-told .good')?.textContent.includes('likes')")
        .await;
    wait_until_chosen(&tab, "likes", "eventual · N = 3").await;
    wait_for("the namespace elsewhere", PATIENCE, || mode_at(&nodes[1], "likes").as_deref() == Some("eventual"));

    // What is written there is there, and nowhere else.
    tab.fill("#key", "greeting").await;
    tab.fill("#value", "only here").await;
    tab.click("#put").await;
    tab.wait_for("the write", "document.querySelector('#told .good')").await;
    let written = (200, "only here".to_owned());
    wait_for("the write elsewhere", PATIENCE, || ask(&nodes[2], "/v1/kv/greeting?namespace=likes") == written);
    assert_eq!(ask(&nodes[2], "/v1/kv/greeting").0, 404, "the default namespace has no such key");

    // Quorums that need not meet, and some that must.
    assert_eq!(ranges(&tab).await, json!([["count-read", "1", "3"], ["count-write", "1", "3"]]));
    slide(&tab, "read", 1).await;
    slide(&tab, "write", 1).await;
    tab.wait_for("no overlap", "document.querySelector('#overlap.bad')?.textContent.includes('(1 + 1 ≤ 3)')").await;
    measure(&tab, 1, 1).await;
    slide(&tab, "read", 2).await;
    slide(&tab, "write", 2).await;
    tab.wait_for("an overlap", "document.querySelector('#overlap.good')?.textContent.includes('(2 + 2 > 3)')").await;
    let told = measure(&tab, 2, 2).await;
    assert!(told.starts_with("0 of 50 reads"), "quorums that meet miss nothing: {told}");
    tab.eval("document.querySelector('.quorum').scrollIntoView()").await;
    tab.screenshot("keys-quorums-en-light").await;
    wait_for("the scratch keys gone", PATIENCE, || keys_at(&nodes[1], "likes") == ["greeting"]);

    // What the page knows to be refused, and what only the voters do.
    create(&tab, "likes", "quorum").await;
    wait_until_refused(&tab, &["NAMESPACE_EXISTS", "of mode eventual"]).await;
    assert_eq!(mode_at(&nodes[1], "likes").as_deref(), Some("eventual"));
    tab.fill("#namespace-copies", "7").await;
    create(&tab, "many", "quorum").await;
    wait_until_refused(&tab, &["TOO_FEW_MEMBERS", "fewer than 7 members"]).await;
    assert_eq!(mode_at(&nodes[1], "many"), None);
    tab.screenshot("keys-namespace-en-light").await;
    check_chinese(&tab, "keys?namespace=likes").await;

    // In the default namespace a majority is the least, and nothing of the other one is seen.
    choose(&tab, "default", "quorum · N = 3").await;
    assert_eq!(ranges(&tab).await, json!([["count-read", "2", "3"], ["count-write", "2", "3"]]));
    tab.wait_for("no keys", "document.querySelector('.list .empty')?.textContent.includes('No keys yet')").await;
}

/// Registers of a namespace of mode atomic are set and read on the Consensus screen, and nothing else is offered there.
#[tokio::test(flavor = "multi_thread")]
async fn registers_without_consensus_are_set_and_read_and_not_added_to() {
    let demo = Demo::start(3, Some(&WEB));
    let nodes: Vec<String> = demo.nodes().collect();
    let browser = Browser::launch().await;
    let tab = open(&browser, &demo, "consensus").await;
    let url = format!("http://{}/v1/namespaces/profiles", nodes[1]);
    let create = || read(agent().put(url.as_str()).send(r#"{"mode":"atomic"}"#));
    wait_for("the namespace", PATIENCE, || create().is_some_and(|(code, _)| code == 200));

    tab.wait_for("additions where consensus is", "document.querySelector('#register-add')?.disabled === false").await;
    choose(&tab, "profiles", "atomic · N = 3").await;
    let only_set = "document.querySelector('#register-why') && !document.querySelector('#register-set').disabled \
                    && ['add', 'many', 'version'].every((e) => document.querySelector(`#register-${e}`).disabled)";
    tab.wait_for("nothing but puts and gets", only_set).await;
    tab.fill("#register", "alice").await;
    tab.fill("#register-value", "Alice of the garden").await;
    tab.click("#register-set").await;
    tab.wait_for("the put", "document.querySelector('#register-told .good')?.textContent.includes('✓')").await;
    let held = (200, "Alice of the garden".to_owned());
    wait_for("the put elsewhere", PATIENCE, || ask(&nodes[2], "/v1/registers/alice?namespace=profiles") == held);
    assert_eq!(ask(&nodes[2], "/v1/registers/alice").0, 404, "it is no register of the usual namespace");
    tab.click("#register-get").await;
    let got = "document.querySelector('#register-told .good b')?.textContent === 'Alice of the garden'";
    tab.wait_for("the get", got).await;
    tab.screenshot("consensus-atomic-en-light").await;

    check_chinese(&tab, "consensus?namespace=profiles").await;
}
