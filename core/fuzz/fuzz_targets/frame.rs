//! What links and dashboards are sent. See the check.
#![no_main]

#[path = "../../tests/fuzz/frame.rs"]
mod frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    frame::check(bytes);
});
