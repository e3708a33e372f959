//! Recordings, real and made up. See the check.
#![no_main]

#[path = "../../tests/fuzz/recording.rs"]
mod recording;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    recording::check(bytes);
});
