//! The metadata of a synthetic file: the configuration as [`ModelConfig::from_gguf`] reads it, and a small tokenizer.

use super::SynthError;
use super::mix::Mix;
use crate::gguf::{Metadata, MetadataArray, MetadataValue};
use crate::model::{Architecture, ModelConfig, ModelError, RopeFactors};
use crate::tokenizer::BYTE_LEVEL;

/// `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The tokens that follow the 256 bytes, and their types. llama.cpp wants the last four of a model named like Phi-3.
const TOKENS: [(&str, i32); 5] =
    [("Ġt", NORMAL), ("<|endoftext|>", CONTROL), ("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
const END_OF_TEXT: u32 = 257;
/// The only merge: llama.cpp wants one.
const MERGE: &str = "Ġ t";
const MIN_VOCABULARY: usize = 256 + TOKENS.len();

/// How a model's names begin, and the pre-tokenizer of its published files. The first that fits counts.
const PRE_TOKENIZERS: [(&str, &str); 6] = [
    ("phi4-mini", "gpt-4o"),
    ("phi4", "dbrx"),
    ("llama31", "llama-bpe"),
    ("smollm2", "smollm"),
    ("qwen", "qwen2"),
    // Phi-3-mini and TinyLlama have SentencePiece vocabularies, which say nothing of it.
    ("", "gpt-2"),
];

/// All metadata of a model.
pub(super) fn metadata(config: &ModelConfig, mix: Mix) -> Result<Metadata, SynthError> {
    config.validate()?;
    check_family(config)?;
    let mut metadata = Metadata::default();
    let mut set = |key: &str, value: MetadataValue| drop(metadata.set(key, value));
    set("general.architecture", text(config.architecture.name()));
    set("general.type", text("model"));
    set("general.name", text(&config.name));
    set("general.file_type", MetadataValue::U32(mix.row().file_type));
    set("general.quantization_version", MetadataValue::U32(2));
    for (suffix, value) in model_keys(config) {
        set(&format!("{}.{suffix}", config.architecture.name()), value);
    }
    for (suffix, value) in tokenizer_keys(config)? {
        set(&format!("tokenizer.ggml.{suffix}"), value);
    }
    Ok(metadata)
}

/// Refuses what a file of the family cannot say, so that another model would be read back.
fn check_family(config: &ModelConfig) -> Result<(), ModelError> {
    let family = config.architecture.row();
    let require = |field: &str, holds: bool, value: String, expected: String| match holds {
        true => Ok(()),
        false => Err(ModelError::BadConfig {
            field: field.to_owned(),
            value,
            expected: format!("{expected}, as in every {} model", family.name),
        }),
    };
    let flag = |field, found: bool, expected: bool| {
        require(field, found == expected, found.to_string(), expected.to_string())
    };
    let (found, expected) = (config.rope.pairing, family.pairing);
    require("rope.pairing", found == expected, format!("{found:?}"), format!("{expected:?}"))?;
    flag("qk_norm", config.qk_norm, family.qk_norm)?;
    flag("qkv_bias", config.qkv_bias, config.qkv_bias || family.qkv_bias)?;
    flag("fused_gate_up", config.fused_gate_up, config.fused_gate_up && family.fused)
}

/// The keys under the architecture's name.
fn model_keys(config: &ModelConfig) -> Vec<(&'static str, MetadataValue)> {
    let count = |value: usize| MetadataValue::U32(value as u32);
    let mut keys = vec![
        ("vocab_size", count(config.vocab_size)),
        ("context_length", count(config.context_length)),
        ("embedding_length", count(config.hidden_dim)),
        ("block_count", count(config.num_layers)),
        ("feed_forward_length", count(config.ffn_dim)),
        ("attention.head_count", count(config.num_q_heads)),
        ("attention.head_count_kv", count(config.num_kv_heads)),
        ("attention.key_length", count(config.head_dim)),
        ("attention.value_length", count(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", MetadataValue::F32(config.rms_norm_eps)),
        ("rope.dimension_count", count(config.rope.rotated_dims)),
        ("rope.freq_base", MetadataValue::F32(config.rope.theta)),
    ];
    if config.architecture == Architecture::Phi3 {
        keys.push(("attention.sliding_window", count(config.context_length)));
    }
    if let RopeFactors::ShortLong { original_context } = config.rope.factors {
        keys.push(("rope.scaling.original_context_length", count(original_context)));
    }
    if config.rope.attention_factor != 1.0 {
        keys.push(("rope.scaling.attn_factor", MetadataValue::F32(config.rope.attention_factor)));
    }
    keys
}

/// A byte-level tokenizer that turns any text into tokens and back; the ids it has no use for are unused tokens.
fn tokenizer_keys(config: &ModelConfig) -> Result<Vec<(&'static str, MetadataValue)>, SynthError> {
    let found = config.vocab_size;
    if found < MIN_VOCABULARY {
        return Err(SynthError::SmallVocabulary { found, least: MIN_VOCABULARY });
    }
    let mut tokens: Vec<String> = BYTE_LEVEL.map(String::from).to_vec();
    let mut types = vec![NORMAL; tokens.len()];
    tokens.extend(TOKENS.map(|(token, _)| token.to_owned()));
    types.extend(TOKENS.map(|(_, token_type)| token_type));
    tokens.extend((tokens.len()..found).map(|id| format!("[PAD{id}]")));
    types.resize(found, UNUSED);
    let name = config.name.strip_prefix("tiny-").unwrap_or(&config.name);
    let pre = PRE_TOKENIZERS.iter().find(|(start, _)| name.starts_with(start)).map_or("gpt-2", |row| row.1);
    Ok(vec![
        ("model", text("gpt2")),
        ("pre", text(pre)),
        ("tokens", MetadataValue::Array(MetadataArray::String(tokens))),
        ("token_type", MetadataValue::Array(MetadataArray::I32(types))),
        ("merges", MetadataValue::Array(MetadataArray::String(vec![MERGE.to_owned()]))),
        ("bos_token_id", MetadataValue::U32(END_OF_TEXT)),
        ("eos_token_id", MetadataValue::U32(END_OF_TEXT)),
        ("add_bos_token", MetadataValue::Bool(false)),
    ])
}

fn text(text: &str) -> MetadataValue {
    MetadataValue::String(text.to_owned())
}
