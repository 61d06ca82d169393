//! Logits, greedy continuations and invariance against the golden models: see `tests/golden/README.md`.
//!
//! The models are those in `tests/golden`, and every other one in the folder that `WORKER_ORCD_GOLDEN` names.

#![allow(clippy::unwrap_used)]

mod common;

use common::golden::{Case, argmax, cases, relative_l2};
use worker_orcd::forward::{Engine, EngineOptions};
use worker_orcd::gguf::Gguf;
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::reference::{InstructionSet, ReferenceOps};

/// The reference is f32 arithmetic on the same dequantised weights; what is left is the order of sums.
const MOST_ERROR: f64 = 2e-5;

fn engine(case: &Case, context: usize, chunk: usize, ops: ReferenceOps) -> Engine<ReferenceOps> {
    let gguf = Gguf::open(&case.model).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let options = EngineOptions { chunk, logits_rows: chunk, ..EngineOptions::new(context) };
    Engine::load(ops, config, &gguf, options, &mut |_, _| {}).unwrap()
}

fn logits(case: &Case, tokens: &[u32], chunk: usize, ops: ReferenceOps) -> Vec<f32> {
    let mut engine = engine(case, tokens.len(), chunk, ops);
    let mut sequence = engine.begin(tokens.len()).unwrap();
    engine.run_all(&mut sequence, tokens).unwrap()
}

fn ops(n_threads: usize) -> ReferenceOps {
    ReferenceOps::new(n_threads).unwrap()
}

#[test]
fn logits_are_those_of_the_exact_model() {
    for case in cases() {
        for prompt in &case.prompts {
            let got = logits(&case, &prompt.tokens, 512, ops(2));
            let vocabulary = got.len() / prompt.tokens.len();
            // Long prompts keep their last rows only.
            let got = &got[got.len() - prompt.logits.len()..];
            let error = relative_l2(got, &prompt.logits);
            println!("{} {}: {error:.2e}", case.name, prompt.name);
            assert!(error <= MOST_ERROR, "{} {}: {error:e}", case.name, prompt.name);
            for (row, expected) in got.chunks(vocabulary).zip(prompt.logits.chunks(vocabulary)) {
                assert_eq!(argmax(row), argmax(expected), "{} {}", case.name, prompt.name);
            }
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_the_exact_model() {
    for case in cases() {
        for prompt in &case.prompts {
            let context = prompt.tokens.len() + prompt.greedy.len();
            let mut engine = engine(&case, context, 64, ops(2));
            let mut sequence = engine.begin(context).unwrap();
            let mut row = engine.run(&mut sequence, &prompt.tokens).unwrap();
            let mut ids = Vec::new();
            while ids.len() < prompt.greedy.len() {
                let token = argmax(&row) as u32;
                ids.push(token);
                row = engine.run(&mut sequence, &[token]).unwrap();
            }
            assert_eq!(ids, prompt.greedy, "{} {}", case.name, prompt.name);
        }
    }
}

#[test]
fn chunks_and_threads_change_no_bit() {
    for case in cases() {
        let prompt = case.prompts.iter().find(|prompt| prompt.name == "p40").unwrap();
        let whole = logits(&case, &prompt.tokens, 512, ops(1));
        for (chunk, threads) in [(1, 1), (7, 1), (512, 2), (7, 3), (1, 2)] {
            let got = logits(&case, &prompt.tokens, chunk, ops(threads));
            let same = got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{}: chunk {chunk}, {threads} threads", case.name);
        }
    }
}

#[test]
fn a_batch_changes_no_bit() {
    for case in cases() {
        let prompt = case.prompts.iter().find(|prompt| prompt.name == "p7").unwrap();
        let context = 8 * 64;
        let mut engine = engine(&case, context, 64, ops(2));
        let alone = {
            let mut sequence = engine.begin(32).unwrap();
            engine.run(&mut sequence, &prompt.tokens).unwrap();
            let row = engine.run(&mut sequence, &[1]).unwrap();
            engine.end(sequence);
            row
        };
        for n in [2, 8] {
            let mut sequences: Vec<_> = (0..n).map(|_| engine.begin(32).unwrap()).collect();
            for (i, sequence) in sequences.iter_mut().enumerate() {
                // Neighbours of other lengths and contents; the last one is the sequence under test.
                let tokens = if i + 1 == n { &prompt.tokens[..] } else { &prompt.tokens[i % 3..] };
                engine.run(sequence, tokens).unwrap();
            }
            let mut batch: Vec<_> = sequences.iter_mut().map(|sequence| (sequence, 1)).collect();
            let rows = engine.step(&mut batch).unwrap();
            let same = rows[n - 1].iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{}: batch of {n}", case.name);
            for sequence in sequences {
                engine.end(sequence);
            }
        }
    }
}

#[test]
fn every_instruction_set_is_within_the_budget() {
    for case in cases() {
        let prompt = case.prompts.iter().find(|prompt| prompt.name == "p7").unwrap();
        for set in InstructionSet::available() {
            let ops = ReferenceOps::with_instruction_set(1, set).unwrap();
            let got = logits(&case, &prompt.tokens, 512, ops);
            let error = relative_l2(&got, &prompt.logits);
            assert!(error <= MOST_ERROR, "{} on {}: {error:e}", case.name, set.name());
        }
    }
}
