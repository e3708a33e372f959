//! What a new link is sent first. See the check.
#![no_main]

#[path = "../../tests/fuzz/handshake.rs"]
mod handshake;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    handshake::check(bytes);
});
