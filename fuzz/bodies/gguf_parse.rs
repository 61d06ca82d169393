//! What must hold for any bytes that are given to the GGUF reader. Shared by the fuzz target and by the test that
//! replays the corpus.

#![allow(clippy::expect_used)]

use worker_orcd::gguf::{Gguf, GgufWriter, Limits};

/// Reads the bytes; if they are a model, checks what the reader has promised, and that writing it loses nothing.
pub(crate) fn run(data: &[u8]) {
    let limits = Limits { metadata_bytes: 1 << 20, ..Limits::default() };
    match Gguf::from_bytes_with(data.to_vec(), &limits) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(model) => {
            check_places(&model, data.len() as u64);
            check_rewriting(&model, &limits);
        }
    }
}

/// Every tensor lies inside the file, aligned, apart from the others, and reads the same both ways.
fn check_places(model: &Gguf, file_bytes: u64) {
    let mut ranges = Vec::new();
    for tensor in model.tensors() {
        let end =
            tensor.file_offset().checked_add(tensor.n_bytes).expect("the end of a tensor can be counted");
        assert!(end <= file_bytes, "`{}` ends at {end} of {file_bytes}", tensor.name);
        let blocks = tensor.n_elements() / tensor.format.block_elements() as u64;
        assert_eq!(tensor.n_bytes, blocks * tensor.format.block_bytes() as u64);
        let mut copy = vec![0; tensor.n_bytes as usize];
        model.read_at(tensor, 0, &mut copy).expect("the tensor is in the file");
        assert_eq!(copy, model.data(tensor));
        assert_eq!(model.tensor(&tensor.name), Some(tensor));
        if tensor.n_bytes > 0 {
            ranges.push((tensor.file_offset(), end));
        }
    }
    ranges.sort_unstable();
    assert!(ranges.is_sorted_by(|first, second| first.1 <= second.0), "overlap in {ranges:?}");
}

/// A model that is written and read again is the same model.
fn check_rewriting(model: &Gguf, limits: &Limits) {
    // Padding to a large alignment would only fill memory with zeros.
    if model.alignment() > 4096 {
        return;
    }
    let bytes = rewrite(model);
    let again = Gguf::from_bytes_with(bytes.clone(), limits).expect("what was written can be read");
    assert_eq!(bytes, rewrite(&again));
    assert_eq!(model.tensors().len(), again.tensors().len());
    for (old, new) in model.tensors().iter().zip(again.tensors()) {
        assert_eq!((&old.name, &old.dims, old.format), (&new.name, &new.dims, new.format));
        assert_eq!(model.data(old), again.data(new));
    }
}

fn rewrite(model: &Gguf) -> Vec<u8> {
    let writer = GgufWriter::from_gguf(model).expect("what was read can be described");
    let mut bytes = Vec::new();
    let n_bytes = writer
        .write(&mut bytes, |index, _, sink| sink.write_all(model.data(&model.tensors()[index])))
        .expect("memory takes all bytes");
    assert_eq!(n_bytes, bytes.len() as u64);
    bytes
}
