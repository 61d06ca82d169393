//! The public face: typed wrappers, the factory, texts of the golden models, files that hold something else.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use serde_json::Value;
use worker_orcd::gguf::{Gguf, GgufWriter, MetadataArray, MetadataValue};
use worker_orcd::inference::{
    Fault, GenerateOptions, LoadOptions, Model, Phi3WeightLoader, Prompt, TextModel, TokenizerFromModel,
};
use worker_orcd::model::{ModelConfig, ModelError};
use worker_orcd::{InferError, Inference, Llama, Llama31, Phi3, Phi4, Qwen2, Qwen3, SmolLm2};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn texts_are_those_of_the_exact_model() {
    let e2e: Value = serde_json::from_slice(&std::fs::read(golden().join("e2e.json")).unwrap()).unwrap();
    let mut n = 0;
    for case in e2e["cases"].as_array().unwrap() {
        let path = golden().join(case["case"].as_str().unwrap()).join(case["gguf"].as_str().unwrap());
        if !path.exists() {
            continue;
        }
        let expected = ids(&case["hf_greedy"]);
        let options = GenerateOptions {
            max_tokens: Some(expected.len()),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let load = LoadOptions { n_threads: Some(2), context: Some(256), ..LoadOptions::default() };
        let model = TextModel::load(&path, &load, &mut |_, _| {}).unwrap();
        let text = case["text"].as_str().unwrap();
        let got = model.generate(Prompt::Text(text), &options, &mut |_| {}).unwrap();
        assert_eq!(got.prompt_ids, ids(&case["ids"]), "{} {text:?}", case["case"]);
        assert_eq!(got.ids, expected, "{} {text:?}", case["case"]);
        let pieces = case["pieces_hex"].as_array().unwrap().iter();
        let bytes: Vec<u8> = pieces.flat_map(|piece| unhex(piece.as_str().unwrap())).collect();
        assert_eq!(got.text, String::from_utf8_lossy(&bytes), "{} {text:?}", case["case"]);
        n += 1;
    }
    assert!(n >= 30, "only {n} texts");
}

#[test]
fn the_model_in_the_box_says_what_its_reference_says() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let reference = std::fs::read(assets.join("box.reference.json")).unwrap();
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    let model = TextModel::load(assets.join("box.gguf"), &LoadOptions::default(), &mut |_, _| {}).unwrap();
    for case in reference["prompts"].as_array().unwrap() {
        let expected = ids(&case["ids"]);
        let options = GenerateOptions {
            max_tokens: Some(expected.len()),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let got =
            model.generate(Prompt::Text(case["prompt"].as_str().unwrap()), &options, &mut |_| {}).unwrap();
        assert_eq!(got.prompt_ids, ids(&case["prompt_ids"]));
        assert_eq!(got.ids, expected);
        assert_eq!(got.text, case["text"].as_str().unwrap());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn every_wrapper_loads_its_family_and_generates() {
    let inference = Inference::cpu();
    let case = |name: &str| golden().join(name).join(format!("{name}-Q4_K_M.gguf"));
    let tokenizer = |name: &str| golden().join(name);
    macro_rules! check {
        ($method:ident, $case:literal, $tokenizer:expr) => {{
            let model = inference.$method(case($case), $tokenizer).unwrap();
            let (again, other) = (model.clone(), model.clone());
            let text = block_on(async move { again.forward("Hello world", 6).await }).unwrap();
            assert!(!text.is_empty(), $case);
            let handle = std::thread::spawn(move || block_on(other.forward("Hello world", 6)).unwrap());
            assert_eq!(handle.join().unwrap(), text, $case);
            let empty = block_on(model.forward("", 6));
            assert!(matches!(empty, Err(InferError::EmptyPrompt)), $case);
        }};
    }
    check!(use_phi3, "phi3-mini", TokenizerFromModel);
    check!(use_phi4, "phi4", tokenizer("phi4"));
    check!(use_phi4, "phi4-mini", tokenizer("phi4-mini").join("tokenizer.json"));
    check!(use_llama, "tinyllama", case("tinyllama"));
    check!(use_llama31, "llama31", tokenizer("llama31"));
    check!(use_smolm2, "smollm2", tokenizer("smollm2"));
    check!(use_qwen2, "qwen2", tokenizer("qwen2"));
    check!(use_qwen3, "qwen3", tokenizer("qwen3"));
}

#[test]
fn wrappers_are_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug>() {}
    shared::<Phi3>();
    shared::<Phi4>();
    shared::<Llama>();
    shared::<Llama31>();
    shared::<SmolLm2>();
    shared::<Qwen2>();
    shared::<Qwen3>();
    shared::<Inference>();
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    error::<InferError>();
}

#[test]
fn a_gpu_is_refused_with_the_cure() {
    let error = Inference::cuda(0).unwrap_err();
    assert_eq!(error.fault(), Fault::NoDevice);
    assert!(error.to_string().contains("cuda:0") && error.to_string().contains("`cpu`"), "{error}");
}

#[test]
fn missing_files_say_which() {
    for error in [
        Inference::cpu().use_phi3("no/model.gguf", "no/tokenizer.json").unwrap_err(),
        Model::load("no/model.gguf", &LoadOptions::default(), &mut |_, _| {}).unwrap_err(),
        Inference::cpu()
            .use_phi3(golden().join("phi3-mini/phi3-mini-Q4_K_M.gguf"), "no/tokenizer.json")
            .unwrap_err(),
    ] {
        assert!(matches!(error, InferError::MissingFile { .. }), "{error:?}");
        assert_eq!(error.fault(), Fault::BadModel);
    }
}

#[test]
fn another_family_or_another_size_is_refused() {
    let llama = golden().join("tinyllama/tinyllama-Q4_K_M.gguf");
    let error = Inference::cpu().use_phi3(&llama, TokenizerFromModel).unwrap_err();
    assert!(matches!(error, InferError::WrongArchitecture { .. }), "{error:?}");
    assert!(error.to_string().contains("Llama"), "{error}");
    let phi3 = golden().join("phi3-mini/phi3-mini-Q4_K_M.gguf");
    let error = Phi3WeightLoader::load_to_vram(&phi3, &ModelConfig::phi3_mini_4k()).unwrap_err();
    assert!(error.to_string().contains("vocab_size = 32064"), "{error}");
    let own = ModelConfig::from_gguf(&Gguf::open(&phi3).unwrap()).unwrap();
    let small = LoadOptions { context: Some(64), ..LoadOptions::default() };
    assert!(Phi3WeightLoader::load_to(&phi3, &own, &small).is_ok());
}

/// A golden model with its metadata or its tensors changed.
fn changed(case: &str, change: impl Fn(&mut GgufWriter), keep: impl Fn(&str) -> bool) -> Gguf {
    let gguf = Gguf::open(golden().join(case).join(format!("{case}-Q4_K_M.gguf"))).unwrap();
    let mut writer = GgufWriter::new();
    *writer.metadata_mut() = gguf.metadata().clone();
    let kept: Vec<_> = gguf.tensors().iter().filter(|tensor| keep(&tensor.name)).collect();
    for tensor in &kept {
        writer.add_tensor(tensor.name.clone(), &tensor.dims, tensor.format).unwrap();
    }
    change(&mut writer);
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |index, _, sink| sink.write_all(gguf.data(kept[index]))).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

fn set(writer: &mut GgufWriter, key: &str, value: MetadataValue) {
    writer.set(key, value);
}

fn refusal(gguf: &Gguf) -> InferError {
    Model::load_from(gguf, Path::new("changed.gguf"), &LoadOptions::default(), &mut |_, _| {}).unwrap_err()
}

#[test]
fn a_missing_tensor_is_named_with_a_hint() {
    for (case, tensor, hint) in [
        ("phi3-mini", "blk.1.attn_qkv.weight", "q, k, v"),
        ("tinyllama", "blk.0.attn_v.weight", "not fused"),
        ("qwen2", "blk.0.attn_k.bias", "biases"),
        ("qwen3", "blk.0.attn_q_norm.weight", "heads of q and k"),
        ("phi4-mini", "rope_factors_long.weight", "both factor tensors"),
        ("llama31", "output_norm.weight", "incomplete"),
        ("smollm2", "token_embd.weight", "vocabulary"),
    ] {
        match refusal(&changed(case, |_| {}, |name| name != tensor)) {
            InferError::MissingTensor { tensor: named, hint: text, .. } => {
                assert_eq!(named, tensor);
                assert!(text.contains(hint), "{tensor}: {text}");
            }
            other => panic!("{tensor}: {other:?}"),
        }
    }
}

#[test]
fn senseless_metadata_is_refused_before_anything_is_sized_by_it() {
    let u32s: [(&str, &str, u32, &str); 9] = [
        ("phi3-mini", "phi3.attention.head_count", 0, "at least 1"),
        ("phi4", "phi3.attention.head_count_kv", 3, "divisor"),
        ("phi4", "phi3.attention.head_count_kv", 0, "1 to"),
        ("tinyllama", "llama.block_count", 1_000_000_000, "1 to 1024"),
        ("tinyllama", "llama.block_count", 0, "1 to 1024"),
        ("qwen2", "qwen2.context_length", u32::MAX, "context_length"),
        ("phi4-mini", "phi3.rope.dimension_count", 97, "even number"),
        ("phi4-mini", "phi3.rope.dimension_count", 4096, "head_dim"),
        ("llama31", "llama.embedding_length", 1000, "shape"),
    ];
    for (case, key, value, expected) in u32s {
        let error = refusal(&changed(case, |w| set(w, key, MetadataValue::U32(value)), |_| true));
        assert_eq!(error.fault(), Fault::BadModel, "{key} = {value}: {error}");
        assert!(error.to_string().contains(expected), "{key} = {value}: {error}");
    }
    for (key, value) in [
        ("phi3.attention.layer_norm_rms_epsilon", f32::NAN),
        ("phi3.attention.layer_norm_rms_epsilon", 0.0),
        ("phi3.rope.freq_base", f32::INFINITY),
        ("phi3.rope.freq_base", -1.0),
        ("phi3.rope.scaling.attn_factor", 0.0),
    ] {
        let error = refusal(&changed("phi3-mini", |w| set(w, key, MetadataValue::F32(value)), |_| true));
        assert_eq!(error.fault(), Fault::BadModel, "{key} = {value}: {error}");
    }
    let short = MetadataValue::Array(MetadataArray::String(vec!["a".to_owned(); 5]));
    let error = refusal(&changed("phi3-mini", |w| set(w, "tokenizer.ggml.tokens", short.clone()), |_| true));
    assert!(error.to_string().contains("as the embedding has rows"), "{error}");
    let named = MetadataValue::String("gpt-neo".to_owned());
    let error = refusal(&changed("phi3-mini", |w| set(w, "general.architecture", named.clone()), |_| true));
    match error {
        InferError::BadModel { source: ModelError::UnknownArchitecture { found, .. }, .. } => {
            assert_eq!(found, "gpt-neo");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_would_be_left_out_of_the_computation_is_refused() {
    let scaled = |w: &mut GgufWriter| {
        set(w, "qwen2.rope.scaling.type", MetadataValue::String("yarn".to_owned()));
        set(w, "qwen2.rope.scaling.factor", MetadataValue::F32(4.0));
    };
    let error = refusal(&changed("qwen2", scaled, |_| true));
    assert!(error.to_string().contains("rope.scaling.type is yarn"), "{error}");
    let neutral = |w: &mut GgufWriter| {
        set(w, "qwen2.rope.scaling.type", MetadataValue::String("linear".to_owned()));
        set(w, "qwen2.rope.scaling.factor", MetadataValue::F32(1.0));
    };
    let gguf = changed("qwen2", neutral, |_| true);
    assert!(ModelConfig::from_gguf(&gguf).is_ok());

    // A layer more than the metadata says.
    let shorter = |w: &mut GgufWriter| set(w, "phi3.block_count", MetadataValue::U32(1));
    let error = refusal(&changed("phi3-mini", shorter, |_| true));
    assert!(error.to_string().contains("`blk.1."), "{error}");
}

#[test]
fn a_step_of_no_sequences_is_an_error() {
    use worker_orcd::forward::{Engine, EngineError, EngineOptions};
    use worker_orcd::ops::reference::ReferenceOps;
    let gguf = Gguf::open(golden().join("phi3-mini/phi3-mini-Q4_K_M.gguf")).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let ops = ReferenceOps::new(1).unwrap();
    let mut engine = Engine::load(ops, config, &gguf, EngineOptions::new(64), &mut |_, _| {}).unwrap();
    assert!(matches!(engine.step(&mut []), Err(EngineError::NoTokens)));
}
