//! The fuzz corpus on a stable toolchain: every file of `fuzz/corpus/gguf_parse` goes through the body of the fuzz
//! target.
//!
//! The corpus holds every hand-made case, and whatever a fuzzer has found. After a change to the cases:
//! `UPDATE_CORPUS=1 cargo test --test gguf_corpus`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/bodies/gguf_parse.rs"]
mod body;
#[path = "common/gguf_cases.rs"]
mod cases;
#[path = "common/gguf_raw.rs"]
mod raw;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/gguf_parse");

#[test]
fn every_file_keeps_the_promises() {
    let mut n_files = 0;
    for file in fs::read_dir(CORPUS).unwrap() {
        body::run(&fs::read(file.unwrap().path()).unwrap());
        n_files += 1;
    }
    assert!(n_files >= cases::cases().len(), "only {n_files} files in {CORPUS}");
}

#[test]
fn every_cut_of_every_case_keeps_the_promises() {
    for (_, bytes) in cases::cases() {
        for end in 0..bytes.len() {
            body::run(&bytes[..end]);
        }
    }
}

#[test]
fn every_flipped_byte_of_a_good_file_keeps_the_promises() {
    let good = cases::good().bytes();
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            body::run(&bytes);
        }
    }
}

#[test]
fn every_case_is_in_the_corpus() {
    let update = std::env::var_os("UPDATE_CORPUS").is_some();
    for (name, bytes) in cases::cases() {
        assert!(bytes.len() < 2048, "{name} has {} bytes", bytes.len());
        let path = Path::new(CORPUS).join(name);
        if update {
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|stored| stored == bytes), "{name} is not up to date");
    }
}
