//! Bits that must not change: over chunks, phases, batches, threads, the order of blocks and warps, recorded passes.

#![allow(clippy::unwrap_used)]

mod common;

use common::golden::{Case, cases};
use worker_orcd::device::CudaDevice;
use worker_orcd::forward::{Engine, EngineOptions};
use worker_orcd::gguf::Gguf;
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::kernel::KernelOps;
use worker_orcd::ops::reference::{ReferenceOps, choose};
use worker_orcd::ops::{Arithmetic, Choice, Ops, Penalties, Recent};
use worker_orcd::quant::Format;

/// Both kinds of attention heads, biases, head norms, both pairings, long rope, rows that are no whole block of 256.
const KERNEL_CASES: [&str; 5] =
    ["phi3-mini-Q4_K_M", "phi4-mini-Q4_K_M", "tinyllama-Q4_K_M", "qwen2-Q4_K_M", "qwen3-Q4_K_M"];

fn kernel_cases() -> Vec<Case> {
    let cases: Vec<Case> =
        cases().into_iter().filter(|case| KERNEL_CASES.contains(&case.name.as_str())).collect();
    assert_eq!(cases.len(), KERNEL_CASES.len());
    cases
}

fn reference(n_threads: usize, arithmetic: Arithmetic) -> ReferenceOps {
    ReferenceOps::new(n_threads).unwrap().with_arithmetic(arithmetic)
}

fn engine<O: Ops>(ops: O, case: &Case, context: usize, chunk: usize) -> Engine<O> {
    let gguf = Gguf::open(&case.model).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let kv_format = Format::F16;
    let options = EngineOptions { chunk, logits_rows: chunk, kv_format, ..EngineOptions::new(context) };
    Engine::load(ops, config, &gguf, options, &mut |_, _| {}).unwrap()
}

/// The prompt of 40 tokens and its continuation: more than a page.
fn tokens(case: &Case) -> Vec<u32> {
    let prompt = case.prompts.iter().find(|prompt| prompt.name == "p40").unwrap();
    [&prompt.tokens[..], &prompt.greedy[..]].concat()
}

/// The bits of every token's logits, with the prompt cut into chunks.
fn bits<O: Ops>(ops: O, case: &Case, chunk: usize) -> Vec<u32> {
    let tokens = tokens(case);
    let mut engine = engine(ops, case, tokens.len(), chunk);
    let mut sequence = engine.begin(tokens.len()).unwrap();
    engine.run_all(&mut sequence, &tokens).unwrap().iter().map(|logit| logit.to_bits()).collect()
}

/// A chunk of one token is a step of generation, so this holds prefill to decode too.
fn chunks_change_no_bit<O: Ops>(make: impl Fn() -> O, case: &Case) {
    let whole = bits(make(), case, 512);
    for chunk in [1, 7, 64] {
        assert!(bits(make(), case, chunk) == whole, "{}: chunks of {chunk}", case.name);
    }
}

/// The most likely token, and draws with each filter.
fn choices() -> Vec<Choice> {
    let draw = |random| Choice { temperature: 0.8, top_k: 40, random, ..Choice::default() };
    let penalties = Penalties { repeat: 1.3, frequency: 0.1, presence: 0.2 };
    vec![
        Choice::default(),
        draw(1 << 52),
        Choice { top_k: 0, top_p: 0.95, ..draw(1 << 51) },
        Choice { min_p: 0.05, penalties, recent: Recent::of(&[1, 2, 3, 1]), ..draw(3 << 51) },
    ]
}

fn a_batch_changes_no_bit<O: Ops>(ops: O, case: &Case) {
    let prompt = case.prompts.iter().find(|prompt| prompt.name == "p7").unwrap();
    let mut engine = engine(ops, case, 8 * 64, 64);
    let alone = {
        let mut sequence = engine.begin(32).unwrap();
        engine.run(&mut sequence, &prompt.tokens).unwrap();
        let row = engine.run(&mut sequence, &[1]).unwrap();
        engine.end(sequence);
        row
    };
    // What the host chooses from these logits, every device must choose, alone and in a batch.
    let choices = choices();
    let chosen: Vec<_> = choices.iter().map(|choice| choose(&mut alone.clone(), choice)).collect();
    for n in [1, 2, 8] {
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
        for (choice, chosen) in choices.iter().zip(&chosen) {
            let mut batch: Vec<_> = sequences.iter_mut().map(|sequence| (sequence, 1)).collect();
            for (sequence, _) in &mut batch {
                sequence.truncate(sequence.len() - 1);
            }
            let tokens = engine.step_and_choose(&mut batch, &vec![choice.clone(); n]).unwrap();
            assert_eq!(tokens[n - 1], *chosen, "{}: batch of {n}, {choice:?}", case.name);
        }
        for sequence in sequences {
            engine.end(sequence);
        }
    }
}

#[test]
fn on_the_processor() {
    for arithmetic in [Arithmetic::Single, Arithmetic::FixedPoint] {
        for case in cases() {
            chunks_change_no_bit(|| reference(2, arithmetic), &case);
            a_batch_changes_no_bit(reference(2, arithmetic), &case);
            let (one, three) = (reference(1, arithmetic), reference(3, arithmetic));
            assert!(bits(three, &case, 7) == bits(one, &case, 512), "{}: threads", case.name);
        }
    }
}

#[cfg(feature = "emulator")]
mod emulator {
    use super::*;
    use worker_orcd::device::{EmulatorDevice, EmulatorOptions, launched_kernels};

    pub(crate) fn ops(options: EmulatorOptions) -> KernelOps<EmulatorDevice> {
        KernelOps::new(EmulatorDevice::new(options).unwrap())
    }

    #[test]
    fn chunks_and_phases() {
        for case in kernel_cases() {
            chunks_change_no_bit(|| ops(EmulatorOptions::default()), &case);
        }
    }

    #[test]
    fn batches() {
        for case in kernel_cases() {
            a_batch_changes_no_bit(ops(EmulatorOptions::default()), &case);
        }
    }

    /// The kernels with products of warpgroups, alone and with those of all GPUs for a last chunk of few rows.
    #[test]
    fn products_of_warpgroups() {
        for case in kernel_cases() {
            let expected = bits(ops(EmulatorOptions::default()), &case, 512);
            for chunk in [9, 512] {
                let options = EmulatorOptions { warpgroups: true, ..EmulatorOptions::default() };
                assert!(bits(ops(options), &case, chunk) == expected, "{}: chunks of {chunk}", case.name);
            }
        }
        assert!(launched_kernels().contains(&"matmul_warpgroup_q4_k"));
    }

    /// A race would show as another result in another order, memory that nothing wrote as another result when poisoned.
    #[test]
    fn orders_and_poison() {
        for case in kernel_cases() {
            for chunk in [1, 512] {
                let plain = bits(
                    ops(EmulatorOptions { n_threads: Some(1), ..EmulatorOptions::default() }),
                    &case,
                    chunk,
                );
                for (shuffle, poison) in [(Some(1), false), (None, true), (Some(2), true)] {
                    let options = EmulatorOptions { shuffle, poison, ..EmulatorOptions::default() };
                    let same = bits(ops(options), &case, chunk) == plain;
                    assert!(same, "{}: chunk {chunk}, order {shuffle:?}, poison {poison}", case.name);
                }
            }
        }
    }
}

/// The GPU that `WORKER_ORCD_TEST_DEVICE` names.
fn gpu() -> Option<CudaDevice> {
    let name = std::env::var("WORKER_ORCD_TEST_DEVICE").ok()?;
    let ordinal = name.strip_prefix("cuda")?.trim_start_matches(':');
    Some(CudaDevice::new(if ordinal.is_empty() { 0 } else { ordinal.parse().unwrap() }).unwrap())
}

#[test]
fn on_a_gpu() {
    let Some(gpu) = gpu() else {
        println!("skipped: no GPU; WORKER_ORCD_TEST_DEVICE=cuda:0 names one");
        return;
    };
    let recorded = || KernelOps::new(gpu.clone());
    for case in kernel_cases() {
        chunks_change_no_bit(recorded, &case);
        a_batch_changes_no_bit(recorded(), &case);
        let expected = bits(recorded(), &case, 1);
        let launched = bits(KernelOps::without_recording(gpu.clone()), &case, 1);
        assert!(launched == expected, "{}: recorded or not", case.name);
        #[cfg(feature = "emulator")]
        assert!(bits(emulator::ops(Default::default()), &case, 1) == expected, "{}: the emulator", case.name);
    }
}
