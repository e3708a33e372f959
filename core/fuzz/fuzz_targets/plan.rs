//! Plans and scenarios. See the check.
#![no_main]

#[path = "../../tests/fuzz/plan.rs"]
mod plan;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    plan::check(bytes);
});
