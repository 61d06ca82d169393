//! A lying count costs nothing, and an honest one no more than it must: counted by the allocator itself.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use worker_orcd::gguf::{Gguf, GgufError, Limits};

#[path = "common/gguf_raw.rs"]
mod raw;
use raw::{Raw, array, kind, string};

/// What the current thread has asked for.
#[derive(Clone, Copy, Default)]
struct Count {
    calls: usize,
    bytes: usize,
}

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { calls: 0, bytes: 0 }) };
}

struct Counting;

fn count(bytes: usize) {
    let Count { calls, bytes: sum } = COUNT.get();
    COUNT.set(Count { calls: calls + 1, bytes: sum + bytes });
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain thread-local that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads bytes that exist already; answers what reading asked for.
fn read(bytes: Vec<u8>, limits: &Limits) -> (Result<Gguf, GgufError>, Count) {
    COUNT.set(Count::default());
    let result = Gguf::from_bytes_with(bytes, limits);
    (result, COUNT.get())
}

#[test]
fn a_lying_count_is_refused_before_it_is_allocated() {
    let unlimited = Limits {
        metadata_keys: u64::MAX,
        string_bytes: u64::MAX,
        array_elements: u64::MAX,
        metadata_bytes: u64::MAX,
        tensors: u64::MAX,
        shards: u64::MAX,
    };
    let list = |kind, count| Raw::default().entry("list", kind::ARRAY, &array(kind, count, &[0; 64]));
    for limits in [Limits::default(), unlimited] {
        for count in [1 << 20, 1 << 40, 1 << 61, 1 << 63, u64::MAX] {
            let mut files = vec![
                Raw { n_tensors: Some(count), ..Raw::default() },
                Raw { n_entries: Some(count), ..Raw::default() },
                Raw::default().entry("text", kind::STRING, &count.to_le_bytes()),
                Raw::default().tensor("t", &[count], raw::F32, 0),
            ];
            files.extend((0..kind::COUNT).map(|kind| list(kind, count)));
            for file in files {
                let (result, count) = read(file.bytes(), &limits);
                assert!(result.is_err(), "{result:?}");
                assert!(count.bytes < 2048, "{} bytes for {:?}", count.bytes, result.unwrap_err());
            }
        }
    }
}

/// A vocabulary of so many tokens.
fn vocabulary(n_tokens: u64) -> Vec<u8> {
    let tokens: Vec<u8> = (0..n_tokens).flat_map(|at| string(format!("token{at:06}").as_bytes())).collect();
    Raw::default().entry("tokens", kind::ARRAY, &array(kind::STRING, n_tokens, &tokens)).bytes()
}

#[test]
fn a_vocabulary_takes_one_allocation_for_each_token() {
    let (n_tokens, token_bytes) = (10_000, 11);
    let (result, count) = read(vocabulary(n_tokens), &Limits::default());
    assert_eq!(
        result.unwrap().metadata().strings("tokens").unwrap().map(<[_]>::len),
        Some(n_tokens as usize)
    );
    let overhead = 50;
    assert!(count.calls <= n_tokens as usize + overhead, "{} allocations", count.calls);
    let least = n_tokens as usize * (size_of::<String>() + token_bytes);
    assert!((least..least + 4096).contains(&count.bytes), "{} bytes", count.bytes);
}

#[test]
fn metadata_is_charged_before_it_is_allocated() {
    let limits = Limits { metadata_bytes: 100_000, ..Limits::default() };
    assert!(read(vocabulary(2_000), &limits).0.is_ok());
    // 5,000 strings are 120,000 bytes without their text; 4,000 pass the limit with their text.
    for (n_tokens, most) in [(5_000, 2048), (4_000, 150_000)] {
        let (result, count) = read(vocabulary(n_tokens), &limits);
        let error = result.unwrap_err();
        assert!(matches!(error, GgufError::Limit { limit: 100_000, .. }), "{error:?}");
        assert!(
            error.to_string().starts_with("metadata key `tokens`: metadata bytes in memory is "),
            "{error}"
        );
        assert!(count.bytes < most, "{} bytes", count.bytes);
    }
}

#[test]
fn tensor_data_is_not_touched() {
    let file = Raw::default().tensor("t", &[1 << 20], raw::F32, 0).data(4 << 20).bytes();
    let (result, count) = read(file, &Limits::default());
    assert_eq!(result.unwrap().tensors()[0].n_bytes, 4 << 20);
    assert!(count.bytes < 4096, "{} bytes", count.bytes);
}
