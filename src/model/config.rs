//! One configuration for every family: read from a file's metadata, checked, and compared.

use crate::gguf::{Gguf, Metadata};

use super::schema::{self, LayerSlot, Slot};
use super::{Architecture, ModelError};

/// Which dimensions a rotary embedding turns together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// Neighbours, `(2i, 2i + 1)`; the file's q and k rows are permuted for it.
    Interleaved,
    /// Halves of the rotated width, `(i, i + width / 2)`, as in GPT-NeoX.
    Halves,
}

/// Factors that divide the rotary frequencies; they stand in tensors of `rotated_dims / 2` floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeFactors {
    /// None.
    None,
    /// One set, whatever the context (Llama 3.1).
    Single,
    /// A short set for sequences whose allocated context is within the original one, a long set beyond it (long-rope).
    ShortLong {
        /// The context in tokens up to which the short set holds.
        original_context: usize,
    },
}

/// The rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies: dimension pair i turns at `theta^(-2i / rotated_dims)`.
    pub theta: f32,
    /// How many of a head's first dimensions are turned.
    pub rotated_dims: usize,
    /// Which dimensions are turned together.
    pub pairing: RopePairing,
    /// Factors on the frequencies.
    pub factors: RopeFactors,
    /// Multiplies sine and cosine.
    pub attention_factor: f32,
}

/// The dimensions and parameters of a model. Counts are in elements, tokens or heads.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// `general.name`, or a catalogue name; for people.
    pub name: String,
    /// Tokens of the vocabulary: rows of the embedding and of the output.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_dim: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_q_heads: usize,
    /// Key and value heads; divides `num_q_heads`.
    pub num_kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn_dim: usize,
    /// Tokens that the model was trained for.
    pub context_length: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// The rotary embedding.
    pub rope: RopeConfig,
    /// Whether the output projection is the token embedding.
    pub tied_output: bool,
    /// Whether q, k and v are one tensor.
    pub fused_qkv: bool,
    /// Whether gate and up are one tensor.
    pub fused_gate_up: bool,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether each head of q and k is normalised.
    pub qk_norm: bool,
}

/// Bounds that no real model comes near; a file beyond them is refused before anything is sized by it.
const MAX_LAYERS: usize = 1024;
const MAX_DIM: usize = 1 << 20;
const MAX_CONTEXT: usize = 1 << 26;

impl ModelConfig {
    /// Reads the configuration of a file: metadata, and the presence of tensors where metadata does not say.
    ///
    /// Key names: `docs/gguf.md` of ggml; head dim from `attention.key_length`, else hidden / heads.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let metadata = gguf.metadata();
        let architecture = Architecture::from_name(metadata.require("general.architecture", Metadata::str)?)?;
        let key = |suffix: &str| format!("{}.{suffix}", architecture.name());
        let count = |suffix: &str| -> Result<usize, ModelError> {
            Ok(metadata.require(&key(suffix), Metadata::u32)? as usize)
        };
        let hidden_dim = count("embedding_length")?;
        let num_q_heads = positive(&key("attention.head_count"), count("attention.head_count")?)?;
        let num_kv_heads =
            metadata.u32(&key("attention.head_count_kv"))?.map_or(num_q_heads, |heads| heads as usize);
        let head_dim = match metadata.u32(&key("attention.key_length"))? {
            Some(dim) => dim as usize,
            None => exact_quotient("embedding_length", hidden_dim, num_q_heads)?,
        };
        let rotated_dims = metadata.u32(&key("rope.dimension_count"))?.map_or(head_dim, |dims| dims as usize);
        let present = |slot: Slot| schema::is_present(gguf, slot);
        let layer = |slot: LayerSlot| present(Slot::Layer(0, slot));
        let factors = if present(Slot::RopeFactorsShort) || present(Slot::RopeFactorsLong) {
            RopeFactors::ShortLong { original_context: count("rope.scaling.original_context_length")? }
        } else if present(Slot::RopeFrequencies) {
            RopeFactors::Single
        } else {
            RopeFactors::None
        };
        refuse_other_scaling(metadata, &key)?;
        let family = architecture.row();
        let config = Self {
            architecture,
            name: metadata.str("general.name")?.unwrap_or(architecture.name()).to_owned(),
            vocab_size: vocabulary_size(gguf, &key("vocab_size"))?,
            hidden_dim,
            num_layers: count("block_count")?,
            num_q_heads,
            num_kv_heads,
            head_dim,
            ffn_dim: count("feed_forward_length")?,
            context_length: count("context_length")?,
            rms_norm_eps: metadata.require(&key("attention.layer_norm_rms_epsilon"), Metadata::f32)?,
            rope: RopeConfig {
                theta: metadata.f32(&key("rope.freq_base"))?.unwrap_or(10_000.0),
                rotated_dims,
                pairing: family.pairing,
                factors,
                attention_factor: metadata.f32(&key("rope.scaling.attn_factor"))?.unwrap_or(1.0),
            },
            tied_output: !present(Slot::Output),
            fused_qkv: layer(LayerSlot::AttnQkv) || (family.fused && !layer(LayerSlot::AttnQ)),
            fused_gate_up: family.fused && !layer(LayerSlot::FfnGate),
            qkv_bias: family.qkv_bias || layer(LayerSlot::AttnQBias),
            qk_norm: family.qk_norm,
        };
        config.validate()?;
        schema::refuse_others(gguf, &config)?;
        Ok(config)
    }

    /// Refuses dimensions that no kernel could run.
    pub fn validate(&self) -> Result<(), ModelError> {
        let dims = [
            ("vocab_size", self.vocab_size, MAX_DIM << 2),
            ("hidden_dim", self.hidden_dim, MAX_DIM),
            ("num_layers", self.num_layers, MAX_LAYERS),
            ("num_q_heads", self.num_q_heads, MAX_DIM),
            ("num_kv_heads", self.num_kv_heads, MAX_DIM),
            ("head_dim", self.head_dim, 4096),
            ("ffn_dim", self.ffn_dim, MAX_DIM),
            ("context_length", self.context_length, MAX_CONTEXT),
        ];
        for (field, value, most) in dims {
            require(value >= 1 && value <= most, field, value, format!("1 to {most}"))?;
        }
        let (q, kv) = (self.num_q_heads, self.num_kv_heads);
        require(q.is_multiple_of(kv), "num_kv_heads", kv, format!("a divisor of num_q_heads = {q}"))?;
        require(
            q.saturating_mul(self.head_dim) <= MAX_DIM,
            "num_q_heads",
            q,
            format!("at most {}", MAX_DIM / self.head_dim),
        )?;
        let rope = &self.rope;
        require(
            rope.rotated_dims >= 2
                && rope.rotated_dims.is_multiple_of(2)
                && rope.rotated_dims <= self.head_dim,
            "rope.dimension_count",
            rope.rotated_dims,
            format!("an even number from 2 to head_dim = {}", self.head_dim),
        )?;
        require(
            !(self.fused_qkv && self.qkv_bias),
            "qkv_bias",
            true,
            "no separate biases beside a fused attn_qkv".to_owned(),
        )?;
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let number = || "a finite number above zero".to_owned();
        require(positive(rope.theta), "rope.freq_base", rope.theta, number())?;
        require(
            positive(rope.attention_factor),
            "rope.scaling.attn_factor",
            rope.attention_factor,
            number(),
        )?;
        require(positive(self.rms_norm_eps), "layer_norm_rms_epsilon", self.rms_norm_eps, number())
    }

    /// Refuses a file that is not the model this configuration describes.
    pub fn expect_same_model(&self, file: &ModelConfig) -> Result<(), ModelError> {
        let fields = [
            ("vocab_size", self.vocab_size, file.vocab_size),
            ("hidden_dim", self.hidden_dim, file.hidden_dim),
            ("num_layers", self.num_layers, file.num_layers),
            ("num_q_heads", self.num_q_heads, file.num_q_heads),
            ("num_kv_heads", self.num_kv_heads, file.num_kv_heads),
            ("head_dim", self.head_dim, file.head_dim),
            ("ffn_dim", self.ffn_dim, file.ffn_dim),
        ];
        for (field, expected, found) in fields {
            if expected != found {
                let (expected, found) = (expected.to_string(), found.to_string());
                return Err(ModelError::ConfigMismatch { field, expected, found });
            }
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.num_q_heads * self.head_dim
    }
    /// Width of all key heads together, and of all value heads.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
    /// Width of q, k and v together.
    pub fn qkv_dim(&self) -> usize {
        self.q_dim() + 2 * self.kv_dim()
    }
    /// Number of weights in all tensors of the schema.
    pub fn n_parameters(&self) -> u64 {
        schema::schema(self).iter().map(|spec| spec.n_elements()).sum()
    }
}

/// Refuses a scaling of the rotary embedding that this crate does not compute, where it would change anything. Long-rope and
/// Llama 3 scaling stand in tensors.
fn refuse_other_scaling(metadata: &Metadata, key: &dyn Fn(&str) -> String) -> Result<(), ModelError> {
    let kind = metadata.str(&key("rope.scaling.type"))?.unwrap_or("none");
    let factor = metadata.f32(&key("rope.scaling.factor"))?.unwrap_or(1.0);
    let known = matches!(kind, "none" | "longrope" | "su") || factor == 1.0;
    require(known, &key("rope.scaling.type"), kind, "none or longrope, or a factor of 1".to_owned())?;
    let linear = metadata.f32(&key("rope.scale_linear"))?.unwrap_or(1.0);
    require(linear == 1.0, &key("rope.scale_linear"), linear, "1".to_owned())
}

/// Rows of the embedding, which the token list and the metadata must agree with.
fn vocabulary_size(gguf: &Gguf, key: &str) -> Result<usize, ModelError> {
    let rows = schema::embedding_rows(gguf)?;
    let metadata = gguf.metadata();
    if let Some(tokens) = metadata.strings("tokenizer.ggml.tokens")? {
        let n = tokens.len();
        require(
            n as u64 == rows,
            "tokenizer.ggml.tokens",
            n,
            format!("{rows} tokens, as the embedding has rows"),
        )?;
    } else if let Some(size) = metadata.u32(key)? {
        require(u64::from(size) == rows, key, size, format!("{rows}, as the embedding has rows"))?;
    }
    usize::try_from(rows).map_err(|_| bad("vocab_size", rows, "a number that fits memory".to_owned()))
}

fn bad(field: &str, value: impl ToString, expected: String) -> ModelError {
    ModelError::BadConfig { field: field.to_owned(), value: value.to_string(), expected }
}

fn require(holds: bool, field: &str, value: impl ToString, expected: String) -> Result<(), ModelError> {
    if holds { Ok(()) } else { Err(bad(field, value, expected)) }
}

fn positive(field: &str, value: usize) -> Result<usize, ModelError> {
    require(value > 0, field, value, "at least 1".to_owned())?;
    Ok(value)
}

fn exact_quotient(field: &str, value: usize, divisor: usize) -> Result<usize, ModelError> {
    require(value.is_multiple_of(divisor), field, value, format!("a multiple of the {divisor} heads"))?;
    Ok(value / divisor)
}
