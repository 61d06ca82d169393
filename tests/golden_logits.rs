//! Logits and greedy continuations against the golden models: see `tests/golden/README.md`.
//!
//! The models are those in `tests/golden`, and every other one in the folder that `WORKER_ORCD_GOLDEN` names.

#![allow(clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;

use common::device::kernel_devices_or_skip;
use common::golden::{Case, Prompt, argmax, cases, relative_l2};
use worker_orcd::forward::{Engine, EngineOptions};
use worker_orcd::gguf::Gguf;
use worker_orcd::inference::{DeviceChoice, GenerateOptions, LoadOptions, Model};
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::Arithmetic;
use worker_orcd::ops::reference::{InstructionSet, ReferenceOps};
use worker_orcd::quant::Format;
use worker_orcd::sampler::SamplerConfig;

/// The reference is f32 arithmetic on the same dequantised weights; what is left is the order of sums.
const MOST_ERROR: f64 = 2e-5;

/// Kernels take activations in 16-bit fixed point (1.4e-4 at most in each product), and the cache rounds keys and values.
const MOST_KERNEL_ERROR: [(Format, f64); 2] = [(Format::F16, 3e-3), (Format::F32, 1e-3)];

/// The processor's fixed point is as the kernels', with an f32 cache.
const MOST_FIXED_POINT_ERROR: f64 = MOST_KERNEL_ERROR[1].1;

/// How far the first token must be before the second, relative to the logits' root mean square, for a kernel to choose
/// it: five deviations of the difference of two logits, each as wrong as it may be.
const SURE: f64 = 5.0 * std::f64::consts::SQRT_2 * 3e-3;

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

#[test]
fn fixed_point_is_near_the_exact_model() {
    for case in cases() {
        for prompt in &case.prompts {
            let ops = ops(2).with_arithmetic(Arithmetic::FixedPoint);
            let got = logits(&case, &prompt.tokens, 512, ops);
            let error = relative_l2(&got[got.len() - prompt.logits.len()..], &prompt.logits);
            println!("fixed point {} {}: {error:.2e}", case.name, prompt.name);
            assert!(error <= MOST_FIXED_POINT_ERROR, "{} {}: {error:e}", case.name, prompt.name);
        }
    }
}

/// Room for the longest prompt, in chunks that end within a page.
fn load(device: DeviceChoice, case: &Case, kv_format: Format) -> Model {
    let chunk = 100;
    let context = Some(332);
    let options =
        LoadOptions { device, context, kv_format, chunk, logits_rows: chunk, ..LoadOptions::default() };
    Model::load(&case.model, &options, &mut |_, _| {}).unwrap()
}

#[test]
fn kernels_are_near_the_exact_model() {
    for device in kernel_devices_or_skip("kernels_are_near_the_exact_model") {
        for case in cases() {
            for (kv_format, most) in MOST_KERNEL_ERROR {
                let mut model = load(device, &case, kv_format);
                let wanted = |prompt: &&Prompt| match prompt.name.as_str() {
                    "p7" | "p40" => true,
                    // Slow where it is emulated: once is enough.
                    "p300" => kv_format == Format::F16,
                    _ => false,
                };
                for prompt in case.prompts.iter().filter(wanted) {
                    let got = model.logits(&prompt.tokens, None).unwrap();
                    let error = relative_l2(&got[got.len() - prompt.logits.len()..], &prompt.logits);
                    println!("{device} {} {} {kv_format}: {error:.2e}", case.name, prompt.name);
                    assert!(error <= most, "{device} {} {} {kv_format}: {error:e}", case.name, prompt.name);
                }
            }
        }
    }
}

/// How many steps of the exact model's continuation come before one of which a kernel need not be sure.
fn sure_steps(model: &mut Model, prompt: &Prompt) -> usize {
    let tokens = [&prompt.tokens[..], &prompt.greedy[..prompt.greedy.len() - 1]].concat();
    let logits = model.logits(&tokens, None).unwrap();
    let rows = logits.chunks(model.config.vocab_size).skip(prompt.tokens.len() - 1);
    let mut sure = 0;
    for (step, row) in rows.enumerate() {
        let squares: f64 = row.iter().map(|logit| f64::from(*logit).powi(2)).sum();
        if f64::from(prompt.margins[step]) <= SURE * f64::sqrt(squares / row.len() as f64) {
            break;
        }
        assert_eq!(argmax(row), prompt.greedy[step] as usize, "{} step {step}", prompt.name);
        sure += 1;
    }
    sure
}

#[test]
fn kernels_continue_as_the_exact_model_where_it_is_sure() {
    for device in kernel_devices_or_skip("kernels_continue_as_the_exact_model_where_it_is_sure") {
        let (mut sure, mut all) = (0, 0);
        for case in cases() {
            let mut model = load(device, &case, Format::F16);
            let prompt = case.prompts.iter().find(|prompt| prompt.name == "p7").unwrap();
            let steps = sure_steps(&mut model, prompt);
            let options = GenerateOptions {
                max_tokens: Some(prompt.greedy.len()),
                sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
                ignore_eos: true,
                ..GenerateOptions::default()
            };
            let ids =
                model.generate(&prompt.tokens, &options, &mut |_| ControlFlow::Continue(())).unwrap().ids;
            assert_eq!(ids[..steps], prompt.greedy[..steps], "{device} {}", case.name);
            println!("{device} {}: {steps} of {} steps are sure", case.name, ids.len());
            sure += steps;
            all += ids.len();
        }
        assert!(2 * sure > all, "only {sure} of {all} steps say something");
    }
}
