//! Synthetic files: usable models, in the formats of llama.cpp's mixes, the same bytes for the same seed.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use worker_orcd::forward::{Engine, EngineOptions};
use worker_orcd::gguf::{Gguf, Metadata};
use worker_orcd::model::{CATALOG, ModelConfig, ModelError, Slot, schema};
use worker_orcd::ops::reference::ReferenceOps;
use worker_orcd::quant::Format;
use worker_orcd::synth::{MIXES, Mix, SynthError, SynthOptions, layout, write};

const TOKENS: [u32; 6] = [0, 84, 257, 111, 32, 511];

fn tiny(name: &str) -> ModelConfig {
    ModelConfig::named(&format!("tiny-{name}")).unwrap()
}

/// Writes a file into `folder`.
fn written(config: &ModelConfig, seed: u64, mix: Mix, folder: &Path) -> Result<PathBuf, SynthError> {
    let path = folder.join(format!("{}-{mix}-{seed}.gguf", config.name));
    write(config, &SynthOptions { seed, mix }, &path, &mut |_, _| {})?;
    Ok(path)
}

/// The logits of every position of [`TOKENS`].
fn logits(gguf: &Gguf, config: &ModelConfig) -> Vec<f32> {
    let n = TOKENS.len();
    let options = EngineOptions { chunk: n, logits_rows: n, ..EngineOptions::new(n) };
    let ops = ReferenceOps::new(1).unwrap();
    let mut engine = Engine::load(ops, config.clone(), gguf, options, &mut |_, _| {}).unwrap();
    let mut sequence = engine.begin(n).unwrap();
    engine.run_all(&mut sequence, &TOKENS).unwrap()
}

/// The formats of a model's tensors, in the order of the schema.
fn formats(config: &ModelConfig, mix: Mix) -> Vec<Format> {
    schema(config).iter().map(|spec| mix.format_of(config, spec)).collect()
}

#[test]
fn every_tiny_model_in_every_mix_runs() {
    let folder = TempDir::new().unwrap();
    for (row, mix) in CATALOG.iter().flat_map(|row| MIXES.iter().map(move |mix| (row, mix.mix))) {
        let config = tiny(row.name);
        let what = format!("{} {mix}", config.name);
        let unwritable = formats(&config, mix).into_iter().find(|format| format.row().quantize.is_none());
        let path = match (written(&config, 1, mix, folder.path()), unwritable) {
            (Ok(path), None) => path,
            (Err(SynthError::Format { source, .. }), Some(format)) => {
                assert!(source.to_string().contains(format.name()), "{what}: {source}");
                continue;
            }
            (result, unwritable) => panic!("{what}: {result:?}, unwritable: {unwritable:?}"),
        };
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(ModelConfig::from_gguf(&gguf).unwrap(), config, "{what}");
        let found: Vec<Format> = gguf.tensors().iter().map(|tensor| tensor.format).collect();
        assert_eq!(found, formats(&config, mix), "{what}");

        let logits = logits(&gguf, &config);
        assert_eq!(logits.len(), TOKENS.len() * config.vocab_size, "{what}");
        for row in logits.chunks(config.vocab_size) {
            assert!(row.iter().all(|logit| logit.is_finite()), "{what}");
            let n = row.len() as f32;
            let mean = row.iter().sum::<f32>() / n;
            let deviation = (row.iter().map(|logit| (logit - mean).powi(2)).sum::<f32>() / n).sqrt();
            assert!((2.0..8.0).contains(&deviation), "{what}: logits deviate by {deviation}");
        }
        let (first, last) = (&logits[..config.vocab_size], &logits[logits.len() - config.vocab_size..]);
        assert_ne!(first, last, "{what}: the logits do not depend on the tokens");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_seed_alone_decides_the_bytes() {
    let folder = TempDir::new().unwrap();
    let config = tiny("phi4-mini");
    let bytes = |seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let path = pool.install(|| written(&config, seed, Mix::Q4_K_M, folder.path())).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = bytes(1, 1);
    assert_eq!(first, bytes(1, 1));
    assert_eq!(first, bytes(1, 3));
    assert_ne!(first, bytes(2, 1));
}

#[test]
fn no_two_rows_of_a_matrix_are_equal() {
    let folder = TempDir::new().unwrap();
    let path = written(&tiny("phi3-mini-4k"), 3, Mix::Q8_0, folder.path()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let mut seen = std::collections::HashSet::new();
    for tensor in gguf.tensors().iter().filter(|tensor| tensor.dims.len() == 2) {
        let mut bytes = vec![0; tensor.n_bytes as usize];
        gguf.read_at(tensor, 0, &mut bytes).unwrap();
        let row_bytes = tensor.format.row_bytes(tensor.dims[0]).unwrap() as usize;
        seen.clear();
        for row in bytes.chunks(row_bytes) {
            assert!(seen.insert(row.to_vec()), "{}", tensor.name);
        }
    }
}

#[test]
fn sizes_are_those_of_llama_cpps_files() {
    // Bytes read per decoded token, of files that llama.cpp quantized: all tensors, and of a token embedding that is
    // not the output one row.
    for (name, expected) in [
        ("phi3-mini-4k", 2_340_627_648),
        ("tinyllama-1.1b", 630_215_808),
        // The output is the embedding, and the row counts once more.
        ("qwen2.5-0.5b", 391_860_664),
    ] {
        let config = ModelConfig::named(name).unwrap();
        let tensors = layout(&config, Mix::Q4_K_M).unwrap().layout().unwrap().tensors;
        let embedding = tensors.iter().find(|tensor| tensor.name == Slot::TokenEmbedding.name()).unwrap();
        let row_bytes = embedding.n_bytes / config.vocab_size as u64;
        let unread = if config.tied_output { 0 } else { embedding.n_bytes };
        let total: u64 = tensors.iter().map(|tensor| tensor.n_bytes).sum();
        assert_eq!(total - unread + row_bytes, expected, "{name}");
    }
}

#[test]
fn tensors_have_the_formats_of_llama_cpps_files() {
    use Format::*;
    #[rustfmt::skip]
    let expected = [
        // Tied or own output, and a fused attn_qkv by the rule for attn_v.
        ("phi3-mini-4k", Mix::Q4_K_M, "token_embd.weight", Q4_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "output.weight", Q6_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.3.attn_qkv.weight", Q6_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.4.attn_qkv.weight", Q4_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.6.ffn_down.weight", Q6_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.27.ffn_down.weight", Q6_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.28.ffn_down.weight", Q6_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.26.ffn_down.weight", Q4_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.0.ffn_up.weight", Q4_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.0.attn_output.weight", Q4_K),
        ("phi3-mini-4k", Mix::Q4_K_M, "blk.0.attn_norm.weight", F32),
        ("phi4-mini", Mix::Q4_K_M, "token_embd.weight", Q6_K),
        ("phi4-mini", Mix::Q4_K_M, "rope_factors_long.weight", F32),
        // 22 layers: an eighth is 2, seven eighths 19.
        ("tinyllama-1.1b", Mix::Q4_K_M, "blk.1.attn_v.weight", Q6_K),
        ("tinyllama-1.1b", Mix::Q4_K_M, "blk.2.attn_v.weight", Q4_K),
        ("tinyllama-1.1b", Mix::Q4_K_M, "blk.4.attn_v.weight", Q6_K),
        ("tinyllama-1.1b", Mix::Q4_K_M, "blk.19.attn_v.weight", Q6_K),
        ("tinyllama-1.1b", Mix::Q4_K_M, "blk.1.attn_k.weight", Q4_K),
        ("tinyllama-1.1b", Mix::Q4_K_S, "blk.3.attn_v.weight", Q5_K),
        ("tinyllama-1.1b", Mix::Q4_K_S, "blk.4.attn_v.weight", Q4_K),
        ("tinyllama-1.1b", Mix::Q4_K_S, "blk.1.ffn_down.weight", Q5_K),
        ("tinyllama-1.1b", Mix::Q4_K_S, "blk.2.ffn_down.weight", Q4_K),
        ("tinyllama-1.1b", Mix::Q5_K_M, "blk.4.ffn_down.weight", Q6_K),
        ("tinyllama-1.1b", Mix::Q5_K_M, "blk.5.ffn_down.weight", Q5_K),
        ("tinyllama-1.1b", Mix::Q5_K_S, "blk.4.ffn_down.weight", Q5_K),
        ("tinyllama-1.1b", Mix::Q4_0, "output.weight", Q6_K),
        ("tinyllama-1.1b", Mix::Q8_0, "output.weight", Q8_0),
        ("tinyllama-1.1b", Mix::F16, "output.weight", F16),
        ("tinyllama-1.1b", Mix::BF16, "output_norm.weight", F32),
        // Rows of 896 are no multiple of 256; those of 4864 are.
        ("qwen2.5-0.5b", Mix::Q4_K_M, "token_embd.weight", Q8_0),
        ("qwen2.5-0.5b", Mix::Q4_K_M, "blk.0.attn_v.weight", Q8_0),
        ("qwen2.5-0.5b", Mix::Q4_K_M, "blk.3.attn_v.weight", Q5_0),
        ("qwen2.5-0.5b", Mix::Q4_K_M, "blk.0.attn_q.bias", F32),
        ("qwen2.5-0.5b", Mix::Q4_K_M, "blk.0.ffn_down.weight", Q6_K),
        ("qwen2.5-0.5b", Mix::Q5_K_M, "blk.0.attn_q.weight", Q5_1),
    ];
    for (model, mix, name, format) in expected {
        let config = ModelConfig::named(model).unwrap();
        let writer = layout(&config, mix).unwrap().layout().unwrap();
        let tensor = writer.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(tensor.format, format, "{model} {mix} {name}");
    }
}

#[test]
fn mixes_go_by_llama_cpps_names() {
    for row in &MIXES {
        assert_eq!(Mix::from_name(&row.name.to_lowercase()).unwrap(), row.mix);
        assert_eq!(row.name.parse::<Mix>().unwrap(), row.mix);
    }
    let message = Mix::from_name("q9_z").unwrap_err().to_string();
    assert!(message.contains("`q9_z`") && message.contains("Q4_K_M"), "{message}");
}

#[test]
fn the_report_and_the_progress_are_those_of_the_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    let mut calls = Vec::new();
    let options = SynthOptions { seed: 1, mix: Mix::Q6_K };
    let report = write(&tiny("qwen3-8b"), &options, &path, &mut |done, total| calls.push((done, total)));
    let (report, gguf) = (report.unwrap(), Gguf::open(&path).unwrap());
    assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(report.tensors, gguf.tensors().len());
    assert_eq!(report.tensor_bytes, gguf.tensors().iter().map(|tensor| tensor.n_bytes).sum::<u64>());
    assert!(calls.is_sorted_by(|a, b| a.0 < b.0));
    assert!(calls.iter().all(|call| call.1 == report.tensor_bytes));
    assert_eq!(calls.last().unwrap().0, report.tensor_bytes);
}

#[test]
fn the_vocabulary_knows_every_byte() {
    let config = tiny("llama31-8b");
    let writer = layout(&config, Mix::F32).unwrap();
    let metadata = writer.metadata();
    let string = |key: &str| metadata.require(key, Metadata::str).unwrap().to_owned();
    assert_eq!(string("tokenizer.ggml.model"), "gpt2");
    assert_eq!(string("tokenizer.ggml.pre"), "llama-bpe");
    let tokens = metadata.require("tokenizer.ggml.tokens", Metadata::strings).unwrap();
    let types = metadata.require("tokenizer.ggml.token_type", Metadata::u32s).unwrap();
    assert_eq!((tokens.len(), types.len()), (512, 512));
    let distinct: std::collections::BTreeSet<&String> = tokens.iter().collect();
    assert_eq!(distinct.len(), 512);
    assert!(tokens[..256].iter().all(|token| token.chars().count() == 1));
    assert_eq!([0, 32, 65, 173, 255].map(|id: usize| tokens[id].as_str()), ["Ā", "Ġ", "A", "Ń", "ÿ"]);
    assert_eq!(tokens[256..262], ["Ġt", "<|endoftext|>", "<unk>", "<s>", "</s>", "[PAD261]"]);
    assert_eq!(types[255..262], [1, 1, 3, 2, 3, 3, 5]);
    assert_eq!(metadata.u32("tokenizer.ggml.eos_token_id").unwrap(), Some(257));
    let merges = metadata.require("tokenizer.ggml.merges", Metadata::strings).unwrap();
    assert_eq!(merges, ["Ġ t"]);
}

#[test]
fn what_no_file_can_say_is_refused_before_one_is_made() {
    let folder = TempDir::new().unwrap();
    let refused = |config: ModelConfig| {
        let error = written(&config, 1, Mix::F16, folder.path()).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        error
    };
    let small = refused(ModelConfig { vocab_size: 260, ..tiny("phi4") });
    assert!(matches!(small, SynthError::SmallVocabulary { found: 260, least: 261 }), "{small}");
    let bad = |error: SynthError, expected: &str| {
        let SynthError::Model(ModelError::BadConfig { field, .. }) = error else { panic!("{error}") };
        assert_eq!(field, expected);
    };
    bad(refused(ModelConfig { num_layers: 0, ..tiny("phi4") }), "num_layers");
    bad(refused(ModelConfig { qk_norm: true, ..tiny("phi4") }), "qk_norm");
    bad(refused(ModelConfig { qkv_bias: false, ..tiny("qwen2.5-0.5b") }), "qkv_bias");
    bad(refused(ModelConfig { fused_gate_up: true, ..tiny("qwen3-4b") }), "fused_gate_up");
    let mut rope = tiny("phi4").rope;
    rope.pairing = tiny("llama31-8b").rope.pairing;
    bad(refused(ModelConfig { rope, ..tiny("phi4") }), "rope.pairing");
    let missing = folder.path().join("missing");
    assert!(matches!(written(&tiny("phi4"), 1, Mix::F16, &missing), Err(SynthError::Gguf(_))));
}

#[test]
fn a_file_says_what_a_configuration_can_differ_in() {
    let folder = TempDir::new().unwrap();
    let (phi, llama) = (tiny("phi3-mini-4k"), tiny("llama31-8b"));
    for config in [
        ModelConfig { fused_qkv: false, fused_gate_up: false, ..phi.clone() },
        ModelConfig { tied_output: true, name: "named by hand".to_owned(), ..phi },
        ModelConfig { qkv_bias: true, vocab_size: 261, num_layers: 1, ..llama },
    ] {
        let gguf = Gguf::open(written(&config, 1, Mix::Q8_0, folder.path()).unwrap()).unwrap();
        assert_eq!(ModelConfig::from_gguf(&gguf).unwrap(), config);
    }
}

#[test]
fn the_tokenizer_of_a_synthetic_file_takes_any_text() {
    use worker_orcd::tokenizer::{EncodeOptions, Tokenizer};
    let text = "Hello, w\u{f6}rld! \u{1f600}\n\t 123";
    for row in &worker_orcd::model::CATALOG {
        let config = worker_orcd::model::ModelConfig::named(&format!("tiny-{}", row.name)).unwrap();
        let file = worker_orcd::synth::layout(&config, worker_orcd::synth::Mix::Q8_0).unwrap();
        let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
        let ids = tokenizer.encode(text, EncodeOptions::default()).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{}", row.name);
    }
}
