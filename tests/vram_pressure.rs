//! Memory under pressure, on every device at hand: what fits is used to the last byte, what does not is refused before
//! anything is lost, and nothing grows.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::command::golden;
use common::device::devices;
use worker_orcd::device::{allocated_bytes, allocations_made};
use worker_orcd::gguf::Gguf;
use worker_orcd::inference::{
    AdapterForwardConfig, DeviceChoice, GenerateOptions, InferError, LlamaInferenceAdapter, LoadOptions,
    Model,
};
use worker_orcd::sampler::SamplerConfig;

/// The counters are the process's, so tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The smallest golden models.
fn model_path() -> PathBuf {
    golden("phi3-mini/phi3-mini-Q4_K_M").into()
}
fn other_path() -> PathBuf {
    golden("qwen3/qwen3-Q4_K_M").into()
}

fn options(device: DeviceChoice, context: usize) -> LoadOptions {
    LoadOptions { device, n_threads: Some(2), context: Some(context), ..LoadOptions::default() }
}

fn load(device: DeviceChoice, context: usize) -> Model {
    Model::load(model_path(), &options(device, context), &mut |_, _| {}).unwrap()
}

fn planned(options: &LoadOptions) -> u64 {
    let gguf = Gguf::open(model_path()).unwrap();
    Model::plan(&gguf, &model_path(), options).unwrap().total_bytes
}

fn request(seq_len: usize) -> AdapterForwardConfig {
    AdapterForwardConfig {
        is_prefill: true,
        batch_size: 1,
        seq_len,
        cache_len: 0,
        temperature: 0.7,
        seed: 42,
    }
}

#[test]
fn the_plan_is_what_is_allocated() {
    let _turn = turn();
    for device in devices() {
        for context in [1, 100, 512] {
            let (before, count) = (allocated_bytes(), allocations_made());
            let model = load(device, context);
            assert_eq!(model.total_vram_bytes, planned(&options(device, context)));
            assert_eq!(allocated_bytes() - before, model.total_vram_bytes, "{device}");
            assert_eq!(allocations_made() - count, 1);
            drop(model);
            assert_eq!(allocated_bytes(), before);
        }
    }
}

#[test]
fn a_full_context_works_and_one_token_more_is_refused() {
    let _turn = turn();
    for device in devices() {
        // One page and a part of the next.
        let context = 100;
        let adapter = LlamaInferenceAdapter::new(load(device, context));
        let full: Vec<u32> = (0..context as u32).collect();
        let too_many = |error| match error {
            InferError::ContextLengthExceeded { requested, max } => assert_eq!((requested, max), (101, 100)),
            error => panic!("{error}"),
        };
        adapter.prefill(&full, &request(context)).unwrap();
        too_many(adapter.decode_token(0).unwrap_err());
        too_many(adapter.prefill(&[0; 101], &request(101)).unwrap_err());
        // And the model goes on.
        adapter.prefill(&[1], &request(1)).unwrap();
        adapter.decode_token(0).unwrap();
    }
}

#[test]
fn a_thousand_tokens_allocate_nothing() {
    let _turn = turn();
    for device in devices() {
        let adapter = LlamaInferenceAdapter::new(load(device, 1100));
        let before = (worker_orcd::get_vram_usage(), allocations_made());
        adapter.prefill(&[1, 2, 3], &request(3)).unwrap();
        for _ in 0..1000 {
            adapter.decode_token(5).unwrap();
        }
        assert_eq!(adapter.cache_len().unwrap(), 1003);
        assert_eq!((worker_orcd::get_vram_usage(), allocations_made()), before, "{device}");
    }
}

#[test]
fn loading_and_dropping_a_hundred_times_returns_every_byte() {
    let _turn = turn();
    for device in devices() {
        let before = allocated_bytes();
        for _ in 0..100 {
            load(device, 64);
        }
        assert_eq!(allocated_bytes(), before, "{device}");
    }
}

#[test]
fn one_byte_less_than_the_plan_is_refused_before_anything_is_allocated() {
    let _turn = turn();
    for device in devices() {
        let options = options(device, 512);
        let needed = planned(&options);
        let count = allocations_made();
        let limited = LoadOptions { limit_bytes: Some(needed - 1), ..options };
        match Model::load(model_path(), &limited, &mut |_, _| {}) {
            Err(InferError::AllocationFailed { what, requested, available }) => {
                assert_eq!((requested, available), (needed, needed - 1));
                assert!(what.contains("448 tokens would fit"), "{what}");
            }
            other => panic!("{device}: {other:?}"),
        }
        assert_eq!(allocations_made(), count);
        let enough = LoadOptions { limit_bytes: Some(needed), ..options };
        Model::load(model_path(), &enough, &mut |_, _| {}).unwrap();
    }
}

#[test]
fn a_context_beyond_all_memory_is_refused() {
    let _turn = turn();
    for device in devices() {
        let load =
            |context| Model::load(model_path(), &options(device, context), &mut |_, _| {}).unwrap_err();
        let count = allocations_made();
        let error = load(1 << 40);
        assert!(matches!(error, InferError::AllocationFailed { .. }), "{device}: {error}");
        let error = load(usize::MAX);
        assert!(error.to_string().contains("context"), "{device}: {error}");
        assert_eq!(allocations_made(), count);
    }
}

fn greedy(model: &mut Model) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens: Some(6),
        sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    model.generate(&[1, 2, 3, 4, 5], &options, &mut |_| ControlFlow::Continue(())).unwrap().ids
}

#[test]
fn two_models_side_by_side_do_not_meet() {
    let _turn = turn();
    for device in devices() {
        let load = |path| Model::load(path, &options(device, 64), &mut |_, _| {}).unwrap();
        let before = allocated_bytes();
        let alone = [greedy(&mut load(model_path())), greedy(&mut load(other_path()))];
        let (mut one, mut other) = (load(model_path()), load(other_path()));
        assert_eq!(allocated_bytes() - before, one.total_vram_bytes + other.total_vram_bytes);
        for _ in 0..2 {
            assert_eq!([greedy(&mut one), greedy(&mut other)], alone, "{device}");
        }
        drop(other);
        assert_eq!(greedy(&mut one), alone[0]);
        drop(one);
        assert_eq!(allocated_bytes(), before);
    }
}

#[cfg(feature = "emulator")]
mod emulator {
    use super::*;
    use worker_orcd::device::{EmulatorDevice, EmulatorOptions};
    use worker_orcd::forward::{Engine, EngineError, EngineOptions};
    use worker_orcd::model::ModelConfig;
    use worker_orcd::ops::kernel::KernelOps;

    type EmulatedEngine = Engine<KernelOps<EmulatorDevice>>;

    fn device(options: EmulatorOptions) -> EmulatorDevice {
        EmulatorDevice::new(options).unwrap()
    }

    fn load(device: &EmulatorDevice) -> Result<EmulatedEngine, EngineError> {
        let gguf = Gguf::open(model_path()).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        Engine::load(KernelOps::new(device.clone()), config, &gguf, EngineOptions::new(128), &mut |_, _| {})
    }

    fn last_logits(mut engine: EmulatedEngine) -> Vec<f32> {
        let mut sequence = engine.begin(128).unwrap();
        engine.run(&mut sequence, &[1, 2, 3]).unwrap()
    }

    #[test]
    fn a_device_of_just_the_plan_suffices_and_one_byte_less_does_not() {
        let _turn = turn();
        let needed = load(&device(EmulatorOptions::default())).unwrap().plan().total_bytes;
        let of =
            |capacity| device(EmulatorOptions { capacity: Some(capacity), ..EmulatorOptions::default() });
        let count = allocations_made();
        match load(&of(needed - 1)).map_err(InferError::from) {
            Err(InferError::AllocationFailed { requested, available, .. }) => {
                assert_eq!((requested, available), (needed, needed - 1));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(allocations_made(), count);
        let just = of(needed);
        // Twice, one after the other: the first gives all of it back.
        for _ in 0..2 {
            let logits = last_logits(load(&just).unwrap());
            assert!(logits.iter().all(|logit| logit.is_finite()));
        }
        // But not side by side.
        let first = load(&just).unwrap();
        assert!(load(&just).is_err());
        last_logits(first);
    }

    #[test]
    fn every_allocation_may_fail() {
        let _turn = turn();
        let (before, count) = (allocated_bytes(), allocations_made());
        let expected = last_logits(load(&device(EmulatorOptions::default())).unwrap());
        let n_allocations = allocations_made() - count;
        for failing in 0..n_allocations {
            let device =
                device(EmulatorOptions { fail_allocation: Some(failing), ..EmulatorOptions::default() });
            let error = load(&device).map_err(InferError::from).unwrap_err();
            assert!(matches!(error, InferError::AllocationFailed { .. }), "{error}");
            assert_eq!(allocated_bytes(), before);
            // The process and the device go on.
            assert_eq!(last_logits(load(&device).unwrap()), expected);
        }
        assert_eq!(allocated_bytes(), before);
    }
}

/// The GPU's whole memory is taken by one model's cache, so that a second model meets a device without memory.
#[test]
fn a_full_gpu_refuses_and_recovers() {
    let _turn = turn();
    let is_gpu = |device: &DeviceChoice| matches!(device, DeviceChoice::Cuda(_));
    let Some(device) = devices().into_iter().find(is_gpu) else {
        println!("skipped: no GPU; WORKER_ORCD_TEST_DEVICE=cuda:0 names one");
        return;
    };
    let per_page = planned(&options(device, 128)) - planned(&options(device, 64));
    let pages = device.available_bytes().unwrap().unwrap() / per_page;
    // Other programs use the GPU too: as much as there is, in steps.
    let ballast = (0..20).rev().find_map(|step| {
        let context = (pages as usize * (80 + step) / 100) * 64;
        Model::load(model_path(), &options(device, context), &mut |_, _| {}).ok()
    });
    let left = device.available_bytes().unwrap().unwrap();
    let context = (left / per_page + 1) as usize * 64;
    let error = Model::load(model_path(), &options(device, context), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, InferError::AllocationFailed { .. }), "{error}");
    drop(ballast.unwrap());
    Model::load(model_path(), &options(device, context), &mut |_, _| {}).unwrap();
}
