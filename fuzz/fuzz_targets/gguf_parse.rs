//! Any bytes into the GGUF reader: `cargo +nightly fuzz run gguf_parse`.
#![no_main]

#[path = "../bodies/gguf_parse.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
