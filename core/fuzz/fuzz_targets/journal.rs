//! Journals, real and damaged ones. See the check.
#![no_main]

#[path = "../../tests/fuzz/journal.rs"]
mod journal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    journal::check(bytes);
});
