//! One node and whatever it may be told. See the check.
#![no_main]

#[path = "../../tests/fuzz/step.rs"]
mod step;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    step::check(bytes);
});
