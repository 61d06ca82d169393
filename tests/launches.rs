//! How many kernels a token takes: each launch costs a GPU time in which it moves no weights.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used)]

mod common;

use common::golden::cases;
use worker_orcd::device::EmulatorDevice;
use worker_orcd::forward::{Engine, EngineOptions};
use worker_orcd::gguf::Gguf;
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::kernel::KernelOps;

/// Sines and cosines, the embedding, the planes of the first layer; for the logits a product; the choice.
const AROUND_THE_LAYERS: u64 = 5;

#[test]
fn a_token_takes_a_known_number_of_launches() {
    for (model, in_a_layer) in [("phi3-mini-Q4_K_M", 6), ("tinyllama-Q4_K_M", 6)] {
        let case = cases().into_iter().find(|case| case.name == model).unwrap();
        let gguf = Gguf::open(&case.model).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        let layers = config.num_layers as u64;
        let device = EmulatorDevice::default();
        let ops = KernelOps::new(device.clone());
        let mut engine = Engine::load(ops, config, &gguf, EngineOptions::new(64), &mut |_, _| {}).unwrap();
        let mut sequence = engine.begin(64).unwrap();
        for token in [1, 2] {
            let before = device.launches();
            engine.run_greedy(&mut sequence, &[token]).unwrap();
            assert_eq!(device.launches() - before, AROUND_THE_LAYERS + layers * in_a_layer, "{model}");
        }
    }
}
