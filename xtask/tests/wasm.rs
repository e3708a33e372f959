//! The core's own tests, compiled to wasm32 and run in a real browser.
//!
//! A test program for wasm32-unknown-unknown needs nothing from its host: its `main` runs all tests and returns, and
//! a failed one traps, with its name in the trace. So the tests are the native ones, unchanged, and what they pin
//! (hashes of states, placements, golden traces) is pinned for both.

mod support;

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use support::browser::Browser;

/// The core's test programs, built for wasm32.
fn programs() -> Vec<PathBuf> {
    xtask::setup::rust_target("wasm32-unknown-unknown").expect("the target");
    let arguments = ["test", "--package", "qunlong-core", "--release", "--target", "wasm32-unknown-unknown"];
    let output = xtask::cargo(arguments)
        .args(["--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "the core's tests build for wasm32");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
}

/// Runs a program's `main`; empty if it ends well, else what happened.
fn script(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "(async () => {{
            const digits = '{digits}';
            const bytes = new Uint8Array(digits.length / 2);
            for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(digits.substr(2 * i, 2), 16);
            const {{ instance }} = await WebAssembly.instantiate(bytes, {{}});
            try {{
                const code = instance.exports.main(0, 0);
                return code === 0 ? '' : `main returned ${{code}}`;
            }} catch (error) {{
                return String(error.stack);
            }}
        }})()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_passes_its_tests_under_wasm32() {
    let programs = programs();
    for name in ["qunlong_core", "scenarios", "seam", "swarm"] {
        let found = programs.iter().any(|path| path.to_string_lossy().contains(&format!("/{name}-")));
        assert!(found, "{name} was not built");
    }
    let browser = Browser::launch().await;
    let tab = browser.open("about:blank").await;
    for program in programs {
        let bytes = std::fs::read(&program).expect("readable");
        let result = tab.eval(&script(&bytes)).await;
        assert_eq!(result, json!(""), "{}", program.display());
        println!("ok: {}", program.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_program_is_noticed() {
    // A module whose `main` is `unreachable`: what a failed test ends in.
    const TRAP: [u8; 43] = [
        0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic and version
        0x01, 0x07, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x01, 0x7f, // type (i32, i32) -> i32
        0x03, 0x02, 0x01, 0x00, // one function of it
        0x07, 0x08, 0x01, 0x04, b'm', b'a', b'i', b'n', 0x00, 0x00, // exported as main
        0x0a, 0x05, 0x01, 0x03, 0x00, 0x00, 0x0b, // its body: unreachable
        0x00, 0x03, 0x01, b'x', 0x00, // a custom section, empty but for its name
    ];
    let browser = Browser::launch().await;
    let tab = browser.open("about:blank").await;
    let result = tab.eval(&script(&TRAP)).await;
    assert!(result.as_str().is_some_and(|text| text.contains("unreachable")), "{result}");
}
