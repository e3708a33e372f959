//! The house rules that a compiler does not know.
#![cfg(not(target_arch = "wasm32"))]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the plain to the composed. A file may use its own rank's neighbours only where listed below, and
/// nothing from a higher rank.
const RANKS: [&[&str]; 8] = [
    &["bytes", "hash", "id", "key", "limits", "mutant", "rng", "time"],
    &[
        "abd",
        "cell",
        "cluster",
        "config",
        "lease",
        "member",
        "namespace",
        "paxos",
        "placement",
        "quorum",
        "refusal",
        "roster",
        "version",
    ],
    &["timers", "trace", "view", "protocol"],
    &["kv", "membership", "registers", "topology"],
    &["lift"],
    &["wire", "outbox", "journal"],
    &["node"],
    &["recording"],
];

/// No edges among the protocols.
const STRANGERS: usize = 3;

fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("the source is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = vec![];
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn room(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("inside");
    let first = relative.components().next().expect("not empty").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn rank(room: &str) -> Option<usize> {
    RANKS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn dependencies_point_one_way() {
    for path in sources() {
        let room = room(&path);
        let Some(mine) = rank(&room) else { continue };
        let text = fs::read_to_string(&path).expect("readable");
        let code = text.split("#[cfg(test)]").next().expect("a first part");
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let other: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(theirs) = rank(&other) else { continue };
                let allowed = theirs < mine || (theirs == mine && (other == room || mine != STRANGERS));
                assert!(allowed, "{}: {room} must not use {other}: {line}", path.display());
            }
        }
    }
}

#[test]
fn every_room_has_a_place_in_the_order() {
    for path in sources() {
        let room = room(&path);
        let known = rank(&room).is_some() || room == "lib" || room == "sim";
        assert!(known, "{} has no rank; add it to the order above", path.display());
    }
}

#[test]
fn what_leaves_at_once_says_why_a_crash_cannot_falsify_it() {
    for path in sources().iter().filter(|path| rank(&room(path)) == Some(STRANGERS)) {
        let text = fs::read_to_string(path).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains("fx.send_now(") || line.contains("fx.send_all_now("))
        {
            let explained = lines[i.saturating_sub(3)..i].iter().any(|line| line.trim_start().starts_with("//"));
            assert!(explained, "{}:{}: {}", path.display(), i + 1, line.trim());
        }
    }
}
