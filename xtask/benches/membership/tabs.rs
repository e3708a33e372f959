//! Three servers and the tabs of one real browser.

use std::path::Path;
use std::time::{Duration, Instant};

use qunlong_core::NodeId;
use qunlong_core::member::{Member, State};
use tokio::time::sleep;

use crate::support::browser::{Browser, Tab};
use crate::support::cluster::Cluster;
use crate::views::{Heard, Views};
use crate::{figure, seconds};

const SERVERS: usize = 3;
const TABS: usize = 30;
/// The server that is killed, and those that stay.
const VICTIM: usize = 2;
const STAY: [usize; 2] = [0, 1];
/// How long a cluster is watched after the figures are known.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// How often a hidden tab is asked what it holds.
const ASK: Duration = Duration::from_secs(1);
const HIDDEN_SECONDS: u64 = 600;
/// How many members a tab's screen shows alive or suspect.
const SHOWN: &str = "document.querySelectorAll('table.data tbody :is(.state.alive, .state.suspect)').length";

/// How the tabs lie.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lie {
    /// In one window, as people have them: one is in front and the others are hidden.
    OneWindow,
    /// Each in a window of its own, all in sight: every page draws.
    Windows,
}

/// Opens a tab, then all others without waiting for them, and when all are there kills a server.
///
/// The one that comes alone costs what joining costs. The others also wait for each other's pages to start, which is a
/// matter of processors.
pub(crate) async fn many(web: &Path, lie: Lie) {
    println!("{}", if lie == Lie::OneWindow { "tabs of one window:" } else { "tabs all in sight:" });
    let mut cluster = Cluster::start(Some(web));
    let views = Views::follow(&cluster.nodes);
    let browser = Browser::launch().await;
    let first = Instant::now();
    open(&browser, &cluster, 0, lie).await;
    let joined = all_alive(&views, first, 1);
    figure("one tab opened: alive for all servers", &seconds(joined), "");
    let (second, mut last) = (Instant::now(), first);
    for number in 1..TABS {
        last = Instant::now();
        open(&browser, &cluster, number, lie).await;
    }
    let joined = all_alive(&views, last, TABS);
    let what = format!("{} more opened within {}", TABS - 1, seconds(last - second));
    figure(&format!("{what}: all alive for all servers, since the last"), &seconds(joined), "≤ 5 s");
    let tabs: Vec<NodeId> = views.heard().tabs(0).map(|tab| tab.id).collect();
    views.until("two relays for each tab", last, |heard| {
        (0..SERVERS).all(|by| heard.tabs(by).filter(|tab| tab.profile.relays.len() == 2).count() == TABS)
    });
    sleep(AFTERWARDS).await;
    report_false_deaths(&views, &tabs, "while they joined", first);

    let (gone, before) = (views.id(VICTIM), epoch(&cluster));
    let through_it = views.heard().tabs(0).filter(|tab| tab.profile.relays.contains(&gone)).count();
    assert!(through_it > 0, "some tab has it for a relay");
    let began = Instant::now();
    cluster.nodes[VICTIM].kill();
    let reached = views.until("other relays", began, |heard| all_reached(heard, &tabs, gone));
    let steps = epoch(&cluster) - before;
    let what = format!("a relay of {through_it} of {TABS} tabs is killed");
    figure(&format!("{what}: all alive, and none names it"), &seconds(reached), "≤ 3 s");
    figure("… steps of the epoch meanwhile", &steps.to_string(), "0");
    sleep(AFTERWARDS).await;
    report_false_deaths(&views, &tabs, "after the kill", began);
    figure(&format!("… steps of the epoch after {AFTERWARDS:?} more"), &(epoch(&cluster) - before).to_string(), "");
    assert_eq!(views.heard().lost(), 0, "the traces were read in time");
}

/// Opens a tab of one of the servers, on the screen that draws the least.
async fn open(browser: &Browser, cluster: &Cluster, number: usize, lie: Lie) {
    let url = cluster.nodes[number % SERVERS].url("/#/join?lang=en");
    match lie {
        Lie::OneWindow => browser.open_over(&url).await,
        Lie::Windows => browser.open(&url).await,
    };
}

fn all_alive(views: &Views, began: Instant, tabs: usize) -> Duration {
    views.until("all tabs to be members", began, |heard| {
        (0..SERVERS).all(|by| heard.alive(by).count() == SERVERS + tabs)
    })
}

/// Whether the servers that stay hold every tab alive, with relays of which none is the one that is gone.
fn all_reached(heard: &Heard, tabs: &[NodeId], gone: NodeId) -> bool {
    let is_reached = |tab: &Member| {
        let relays = &tab.profile.relays;
        tab.state == State::Alive && !relays.is_empty() && !relays.contains(&gone)
    };
    STAY.iter().all(|&by| tabs.iter().all(|&tab| heard.member(by, tab).is_some_and(is_reached)))
}

fn report_false_deaths(views: &Views, tabs: &[NodeId], when: &str, since: Instant) {
    let heard = views.heard();
    let count = |state: State| {
        let claims = heard.came_to_hold(since, state);
        tabs.iter().filter(|&&tab| claims.iter().any(|(_, of)| *of == tab)).count().to_string()
    };
    figure(&format!("tabs that any server suspected, {when}"), &count(State::Suspect), "");
    figure(&format!("tabs that any server held dead, {when}"), &count(State::Dead), "0");
}

/// The newest epoch that a server that stays knows.
fn epoch(cluster: &Cluster) -> u64 {
    let epochs = STAY.map(|at| cluster.nodes[at].topology().and_then(|topology| topology["epoch"].as_u64()));
    epochs.into_iter().flatten().max().expect("the servers know an epoch")
}

/// Hides a tab behind another one of its window for long.
///
/// What the tab holds is read from its own screen every second, and seen from what it says: a claim that a living member
/// is dead or suspect reaches the servers within its next rumours, which are in their traces.
pub(crate) async fn hidden(web: &Path) {
    let named = std::env::var("QUNLONG_HIDDEN_SECONDS").ok();
    let span = Duration::from_secs(named.map_or(HIDDEN_SECONDS, |named| named.parse().expect("a number of seconds")));
    let cluster = Cluster::start(Some(web));
    let views = Views::follow(&cluster.nodes);
    let browser = Browser::launch().await;
    let tab = browser.open(&cluster.nodes[0].url("/#/members?lang=en")).await;
    tab.wait_until_joined().await;
    views.until("the tab to be a member", Instant::now(), |heard| (0..SERVERS).all(|by| heard.tabs(by).count() == 1));
    let id = views.heard().tabs(0).next().expect("it was there just now").id;
    tab.wait_for("its screen to show all members", &format!("{SHOWN} === {}", SERVERS + 1)).await;

    let began = Instant::now();
    let other = browser.open_over("about:blank").await;
    let said = views.until("the tab to say that it is hidden", began, |heard| is_drowsy(heard, id, true));
    let what = format!("a tab hidden for {} s", span.as_secs());
    figure(&format!("{what}: known to be hidden to all servers"), &seconds(said), "");
    let mut seen_dead = 0;
    while began.elapsed() < span {
        seen_dead = seen_dead.max(dead_for(&tab).await);
        sleep(ASK).await;
    }
    other.close().await;
    let shown = Instant::now();
    let said = views.until("the tab to say that it is back", shown, |heard| is_drowsy(heard, id, false));
    figure(&format!("{what}: known to be shown again to all servers"), &seconds(said), "");
    sleep(AFTERWARDS).await;
    seen_dead = seen_dead.max(dead_for(&tab).await);

    let heard = views.heard();
    let deaths = heard.came_to_hold(began, State::Dead);
    let of_it = deaths.iter().filter(|(_, of)| *of == id).count();
    figure(&format!("{what}: servers that held it dead"), &of_it.to_string(), "0");
    figure("… members that its own screen showed dead", &seen_dead.to_string(), "0");
    let of_servers = (deaths.len() - of_it).to_string();
    figure("… servers that others held dead, by its word or by any", &of_servers, "0");
    let suspicions = heard.came_to_hold(began, State::Suspect).iter().filter(|(_, of)| *of == id).count();
    figure("… servers that suspected it", &suspicions.to_string(), "");
    figure("… suspicions that it raised", &heard.accused_by(began, id).len().to_string(), "");
    figure("… times a server had to say that it lives", &heard.refuted(began).to_string(), "");
    assert_eq!(heard.lost(), 0, "the traces were read in time");
}

fn is_drowsy(heard: &Heard, tab: NodeId, drowsy: bool) -> bool {
    (0..SERVERS).all(|by| heard.member(by, tab).is_some_and(|tab| tab.profile.drowsy == drowsy))
}

/// How many members a tab's own screen does not show alive or suspect.
async fn dead_for(tab: &Tab) -> u64 {
    (SERVERS as u64 + 1).saturating_sub(tab.eval(SHOWN).await.as_u64().expect("a number"))
}
