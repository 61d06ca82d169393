//! How many kernels and copies a token takes: each costs a GPU time in which it moves no weights.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used)]

mod common;

use common::golden::cases;
use worker_orcd::device::EmulatorDevice;
use worker_orcd::forward::{Engine, EngineOptions};
use worker_orcd::gguf::Gguf;
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::Choice;
use worker_orcd::ops::kernel::KernelOps;

/// Sines and cosines, the embedding, the planes of the first layer; for the logits a product; the greedy choice.
const AROUND_THE_LAYERS: u64 = 5;

/// What a token is drawn with, and the kernels that the choice takes beside the first.
fn draws() -> [(Choice, u64); 5] {
    let plain = Choice { temperature: 0.8, ..Choice::default() };
    [
        (Choice::default(), 0),
        (plain.clone(), 2),
        (Choice { top_k: 40, ..plain.clone() }, 5),
        (Choice { top_p: 0.9, ..plain.clone() }, 5),
        (Choice { top_k: 40, top_p: 0.9, min_p: 0.05, ..plain }, 7),
    ]
}

#[test]
fn a_token_takes_a_known_number_of_launches() {
    for (model, in_a_layer) in [("phi3-mini-Q4_K_M", 6), ("tinyllama-Q4_K_M", 6)] {
        let case = cases().into_iter().find(|case| case.name == model).unwrap();
        let gguf = Gguf::open(&case.model).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        let layers = config.num_layers as u64;
        let device = EmulatorDevice::default();
        let ops = KernelOps::new(device.clone());
        let options = EngineOptions { logits_rows: 2, ..EngineOptions::new(128) };
        let mut engine = Engine::load(ops, config, &gguf, options, &mut |_, _| {}).unwrap();
        let (mut sequence, mut other) = (engine.begin(64).unwrap(), engine.begin(64).unwrap());
        for (choice, of_draw) in draws() {
            let expected = AROUND_THE_LAYERS + layers * in_a_layer + of_draw;
            let before = (device.launches(), device.copies());
            engine.run_and_choose(&mut sequence, &[1], &choice).unwrap();
            assert_eq!(device.launches() - before.0, expected, "{model}, {choice:?}");
            assert_eq!(device.copies() - before.1, 2, "what the pass is, and the token");

            // As many for two tokens: both rows of logits are one product, both choices are made together.
            let before = (device.launches(), device.copies());
            let mut batch = [(&mut sequence, 1), (&mut other, 2)];
            engine.step_and_choose(&mut batch, &[choice, Choice::default()]).unwrap();
            assert_eq!(device.launches() - before.0, expected, "{model}, two sequences");
            assert_eq!(device.copies() - before.1, 2);
        }
        let before = device.launches();
        engine.step(&mut [(&mut sequence, 1), (&mut other, 2)]).unwrap();
        assert_eq!(
            device.launches() - before,
            AROUND_THE_LAYERS - 1 + layers * in_a_layer,
            "{model}, logits"
        );
    }
}
