//! The corpus that fuzzing starts from, on any toolchain: each file goes through the checks that its fuzz target makes.
//!
//! The checks are in `fuzz/`, one file for each target of `core/fuzz/fuzz_targets`, and return whether they understood
//! the input: a corpus that nothing understands any more checks nothing. `run-*` files are recorded from real runs by
//! `fuzz/seeds.rs`; `UPDATE_CORPUS=1 cargo test -p qunlong-core --test corpus` writes them anew, which is due when the
//! wire or the journal has changed. All others were found by fuzzing.
#![cfg(not(target_family = "wasm"))]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "fuzz/frame.rs"]
mod frame;
#[path = "fuzz/handshake.rs"]
mod handshake;
#[path = "fuzz/journal.rs"]
mod journal;
#[path = "fuzz/plan.rs"]
mod plan;
#[path = "fuzz/recording.rs"]
mod recording;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "fuzz/step.rs"]
mod step;

#[test]
fn frames() {
    check("frame", frame::check, seeds::frames);
}

#[test]
fn handshakes() {
    check("handshake", handshake::check, seeds::handshakes);
}

#[test]
fn journals() {
    check("journal", journal::check, seeds::journals);
}

#[test]
fn plans() {
    check("plan", plan::check, seeds::plans);
}

#[test]
fn recordings() {
    check("recording", recording::check, seeds::recordings);
}

#[test]
fn steps() {
    check("step", step::check, seeds::steps);
}

/// Inputs by name.
type Seeds = Vec<(String, Vec<u8>)>;

fn check(target: &str, check: fn(&[u8]) -> bool, seeds: fn() -> Seeds) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        write(&folder, &seeds());
    }
    let files = files(&folder);
    assert!(files.iter().any(|path| is_recorded(path)), "there is something to start from");
    for path in &files {
        // Shown when the check fails.
        println!("{}", path.display());
        let bytes = fs::read(path).expect("readable");
        assert!(bytes.len() <= 4_096, "the corpus is small");
        let understood = check(&bytes);
        assert!(understood || !is_recorded(path), "this is not understood any more; UPDATE_CORPUS=1 records it anew");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the corpus is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

fn is_recorded(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-"))
}

fn write(folder: &Path, seeds: &Seeds) {
    fs::create_dir_all(folder).expect("the folder can be made");
    for path in files(folder).iter().filter(|path| is_recorded(path)) {
        fs::remove_file(path).expect("an old file can be removed");
    }
    for (name, bytes) in seeds {
        fs::write(folder.join(format!("run-{name}")), bytes).expect("a file can be written");
    }
}
