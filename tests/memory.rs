//! What lies where, what it costs, and requests held to the state of the memory. Under pressure: `vram_pressure.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use worker_orcd::gguf::Gguf;
use worker_orcd::inference::{
    AdapterForwardConfig, Arithmetic, DeviceChoice, InferError, LlamaInferenceAdapter, LoadOptions, Model,
    Phi3WeightLoader,
};
use worker_orcd::memory::{MemoryPlan, PlanOptions, Purpose};
use worker_orcd::model::{CATALOG, ModelConfig};
use worker_orcd::quant::Format;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn phi3() -> PathBuf {
    golden("phi3-mini/phi3-mini-Q4_K_M.gguf")
}

fn options(context: usize) -> LoadOptions {
    LoadOptions {
        device: DeviceChoice::Cpu,
        n_threads: Some(1),
        context: Some(context),
        ..LoadOptions::default()
    }
}

fn load(context: usize) -> Model {
    Model::load(phi3(), &options(context), &mut |_, _| {}).unwrap()
}

fn request(seq_len: usize, cache_len: usize) -> AdapterForwardConfig {
    AdapterForwardConfig { is_prefill: true, batch_size: 1, seq_len, cache_len, temperature: 0.7, seed: 42 }
}

#[test]
fn requests_are_held_to_the_state() {
    let adapter = LlamaInferenceAdapter::new_phi3(load(64));
    let field = |config: AdapterForwardConfig, ids: &[u32]| match adapter.prefill(ids, &config) {
        Err(InferError::StateMismatch { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(request(3, 0), &[1, 2]), "seq_len");
    assert_eq!(field(AdapterForwardConfig { batch_size: 2, ..request(2, 0) }, &[1, 2]), "batch_size");
    assert_eq!(field(AdapterForwardConfig { is_prefill: false, ..request(2, 0) }, &[1, 2]), "is_prefill");
    assert_eq!(field(request(2, 5), &[1, 2]), "cache_len");
    let hot = AdapterForwardConfig { temperature: f32::NAN, ..request(2, 0) };
    assert!(matches!(adapter.prefill(&[1, 2], &hot), Err(InferError::Sampler(_))));
    assert!(matches!(adapter.prefill(&[], &request(0, 0)), Err(InferError::EmptyPrompt)));
    let unknown = adapter.prefill(&[1, 9999], &request(2, 0));
    assert!(matches!(unknown, Err(InferError::UnknownToken { token: 9999, .. })), "{unknown:?}");

    // In parts, a prompt says the same as whole.
    let whole = adapter.prefill(&[1, 2, 3, 4], &request(4, 0)).unwrap();
    adapter.prefill(&[1, 2], &request(2, 0)).unwrap();
    assert_eq!(adapter.prefill(&[3, 4], &request(2, 2)).unwrap(), whole);
    // And so does generation, by hand and in one call.
    let generated = adapter.generate(&[1, 2, 3, 4], 4, &request(4, 0)).unwrap();
    let mut token = adapter.prefill(&[1, 2, 3, 4], &request(4, 0)).unwrap();
    for expected in generated {
        assert_eq!(token, expected);
        token = adapter.decode_token(token).unwrap();
    }
}

#[test]
fn tensors_lie_where_their_shapes_say() {
    let model = load(64);
    let weights = model.weights();
    let config = &model.config;
    assert_eq!(weights.layers.len(), config.num_layers);
    for layer in &weights.layers {
        let (q, k, v) = (layer.attn_q_weight, layer.attn_k_weight, layer.attn_v_weight);
        assert_eq!((q.n_rows, q.n_cols), (config.q_dim(), config.hidden_dim));
        // Fused in the file: one after the other.
        assert_eq!((q.address + q.bytes, k.address + k.bytes), (k.address, v.address));
        assert_eq!(layer.ffn_gate_weight.address + layer.ffn_gate_weight.bytes, layer.ffn_up_weight.address);
        assert_eq!(
            (layer.ffn_down_weight.n_rows, layer.ffn_down_weight.n_cols),
            (config.hidden_dim, config.ffn_dim)
        );
    }
    assert_ne!(weights.output_weight.address, weights.token_embedding.address);
    let tied =
        Model::load(golden("qwen2/qwen2-Q4_K_M.gguf"), &options(64), &mut |_, _| {}).unwrap().weights();
    assert_eq!(tied.output_weight, tied.token_embedding);
}

#[test]
fn the_documented_estimate_is_the_model_at_sixteen_bits() {
    let config = ModelConfig::phi3_mini_4k();
    assert_eq!(config.num_q_heads, config.num_kv_heads);
    let bytes = Phi3WeightLoader::calculate_vram_usage(&config);
    assert!(bytes > 6_000_000_000 && bytes < 9_000_000_000, "{bytes}");
}

#[test]
fn the_cache_costs_what_the_arithmetic_says() {
    let phi3 = ModelConfig::phi3_mini_4k();
    assert_eq!(MemoryPlan::kv_bytes_per_token(&phi3, Format::F16), 384 * 1024);
    for row in &CATALOG {
        let config = row.config();
        for context in [64, 4096] {
            let options = PlanOptions {
                context,
                kv_format: Format::F16,
                rows: 1,
                logits_rows: 1,
                workspace_bytes: 0,
                staging_bytes: 0,
            };
            let plan = MemoryPlan::new(&config, options, |_| Ok(Format::F16)).unwrap();
            let cache =
                plan.summary().into_iter().find(|(purpose, _)| *purpose == Purpose::KvCache).unwrap().1;
            assert_eq!(
                cache,
                MemoryPlan::kv_bytes_per_token(&config, Format::F16) * context as u64,
                "{}",
                row.name
            );
            let sum: u64 = plan.summary().iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(sum, plan.total_bytes);
        }
    }
}

#[test]
fn fixed_point_is_in_the_plan() {
    let (f32, fixed) = (options(64), LoadOptions { cpu_arithmetic: Arithmetic::FixedPoint, ..options(64) });
    let gguf = Gguf::open(phi3()).unwrap();
    let total = |options| Model::plan(&gguf, &phi3(), options).unwrap().total_bytes;
    let model = Model::load(phi3(), &fixed, &mut |_, _| {}).unwrap();
    assert_eq!(model.total_vram_bytes, total(&fixed));
    // 64 rows of the widest input in whole units of 512 columns: a code of two bytes for each, and for each 32 of them a
    // scale and two sums.
    let columns = model.config.ffn_dim.max(model.config.hidden_dim).next_multiple_of(512) as u64;
    assert_eq!(total(&fixed) - total(&f32), 64 * (2 * columns + 12 * columns / 32));
}
