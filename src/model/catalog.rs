//! The models that users know by name, at full size and in a tiny form for tests.

use super::{Architecture, ModelConfig, ModelError, RopeConfig, RopeFactors};

/// One named model, at full size.
#[derive(Debug)]
pub struct CatalogRow {
    /// The name that `synth --model` and [`ModelConfig::named`] take.
    pub name: &'static str,
    architecture: Architecture,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotated: usize,
    ffn: usize,
    vocabulary: usize,
    context: usize,
    theta: f32,
    eps: f32,
    factors: RopeFactors,
    attention_factor: f32,
    tied: bool,
}

const LONG_ROPE: RopeFactors = RopeFactors::ShortLong { original_context: 4096 };
/// `sqrt(1 + ln(131072 / 4096) / ln(4096))`, as Phi-4-mini's configuration implies.
const PHI4_MINI_ATTENTION_FACTOR: f32 = 1.190_238_1;

const PHI3: CatalogRow = CatalogRow {
    name: "phi3-mini-4k",
    architecture: Architecture::Phi3,
    layers: 32,
    hidden: 3072,
    heads: 32,
    kv_heads: 32,
    head_dim: 96,
    rotated: 96,
    ffn: 8192,
    vocabulary: 32064,
    context: 4096,
    theta: 1e4,
    eps: 1e-5,
    factors: RopeFactors::None,
    attention_factor: 1.0,
    tied: false,
};

const LLAMA31: CatalogRow = CatalogRow {
    name: "llama31-8b",
    architecture: Architecture::Llama,
    hidden: 4096,
    kv_heads: 8,
    head_dim: 128,
    rotated: 128,
    ffn: 14336,
    vocabulary: 128256,
    context: 131072,
    theta: 5e5,
    factors: RopeFactors::Single,
    ..PHI3
};

const QWEN3_4B: CatalogRow = CatalogRow {
    name: "qwen3-4b",
    architecture: Architecture::Qwen3,
    layers: 36,
    hidden: 2560,
    kv_heads: 8,
    head_dim: 128,
    rotated: 128,
    ffn: 9728,
    vocabulary: 151936,
    context: 40960,
    theta: 1e6,
    eps: 1e-6,
    tied: true,
    ..PHI3
};

/// One row per named model.
pub static CATALOG: [CatalogRow; 10] = [
    PHI3,
    CatalogRow {
        name: "phi4",
        layers: 40,
        hidden: 5120,
        heads: 40,
        kv_heads: 10,
        head_dim: 128,
        rotated: 128,
        ffn: 17920,
        vocabulary: 100352,
        context: 16384,
        theta: 2.5e5,
        ..PHI3
    },
    CatalogRow {
        name: "phi4-mini",
        heads: 24,
        kv_heads: 8,
        head_dim: 128,
        vocabulary: 200064,
        context: 131072,
        factors: LONG_ROPE,
        attention_factor: PHI4_MINI_ATTENTION_FACTOR,
        tied: true,
        ..PHI3
    },
    LLAMA31,
    CatalogRow {
        name: "tinyllama-1.1b",
        layers: 22,
        hidden: 2048,
        kv_heads: 4,
        head_dim: 64,
        rotated: 64,
        ffn: 5632,
        vocabulary: 32000,
        context: 2048,
        theta: 1e4,
        factors: RopeFactors::None,
        ..LLAMA31
    },
    CatalogRow {
        name: "smollm2-1.7b",
        layers: 24,
        hidden: 2048,
        kv_heads: 32,
        head_dim: 64,
        rotated: 64,
        ffn: 8192,
        vocabulary: 49152,
        context: 8192,
        theta: 1.3e5,
        factors: RopeFactors::None,
        tied: true,
        ..LLAMA31
    },
    CatalogRow {
        name: "qwen2.5-0.5b",
        architecture: Architecture::Qwen2,
        layers: 24,
        hidden: 896,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        rotated: 64,
        ffn: 4864,
        context: 32768,
        ..QWEN3_4B
    },
    CatalogRow { name: "qwen3-0.6b", layers: 28, hidden: 1024, heads: 16, ffn: 3072, ..QWEN3_4B },
    QWEN3_4B,
    CatalogRow { name: "qwen3-8b", hidden: 4096, ffn: 12288, tied: false, ..QWEN3_4B },
];

impl CatalogRow {
    /// The configuration at full size.
    pub fn config(&self) -> ModelConfig {
        let family = self.architecture.row();
        ModelConfig {
            architecture: self.architecture,
            name: self.name.to_owned(),
            vocab_size: self.vocabulary,
            hidden_dim: self.hidden,
            num_layers: self.layers,
            num_q_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            ffn_dim: self.ffn,
            context_length: self.context,
            rms_norm_eps: self.eps,
            rope: RopeConfig {
                theta: self.theta,
                rotated_dims: self.rotated,
                pairing: family.pairing,
                factors: self.factors,
                attention_factor: self.attention_factor,
            },
            tied_output: self.tied,
            fused_qkv: family.fused,
            fused_gate_up: family.fused,
            qkv_bias: family.qkv_bias,
            qk_norm: family.qk_norm,
        }
    }

    /// The same model with two layers, few heads and a vocabulary of 512; all that makes it special stays.
    fn tiny(&self) -> ModelConfig {
        let full = self.config();
        let q_heads = if self.heads.is_multiple_of(4) { 4 } else { 7 };
        let hidden_dim = if full.hidden_dim == full.q_dim() { q_heads * self.head_dim } else { 256 };
        ModelConfig {
            name: format!("tiny-{}", self.name),
            vocab_size: 512,
            hidden_dim,
            num_layers: 2,
            num_q_heads: q_heads,
            num_kv_heads: (q_heads * self.kv_heads / self.heads).max(1),
            ffn_dim: 512,
            context_length: full.context_length.min(2048),
            rope: RopeConfig {
                factors: match full.rope.factors {
                    RopeFactors::ShortLong { .. } => RopeFactors::ShortLong { original_context: 256 },
                    other => other,
                },
                ..full.rope
            },
            ..full
        }
    }
}

impl ModelConfig {
    /// The configuration of a named model, such as `phi3-mini-4k` or `tiny-phi3-mini-4k`.
    pub fn named(name: &str) -> Result<Self, ModelError> {
        let (full_name, tiny) = match name.strip_prefix("tiny-") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let Some(row) = CATALOG.iter().find(|row| row.name == full_name) else {
            let known = CATALOG.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
            return Err(ModelError::UnknownName {
                name: name.to_owned(),
                known: format!("{known}, each also with `tiny-` before it"),
            });
        };
        Ok(if tiny { row.tiny() } else { row.config() })
    }
    /// Phi-3-mini-4k-instruct, 3.8B.
    pub fn phi3_mini_4k() -> Self {
        CATALOG[0].config()
    }
    /// Phi-4, 14B.
    pub fn phi4() -> Self {
        CATALOG[1].config()
    }
    /// Phi-4-mini-instruct, 3.8B.
    pub fn phi4_mini() -> Self {
        CATALOG[2].config()
    }
    /// Llama 3.1 8B Instruct.
    pub fn llama31_8b() -> Self {
        CATALOG[3].config()
    }
    /// TinyLlama 1.1B.
    pub fn tinyllama_1_1b() -> Self {
        CATALOG[4].config()
    }
    /// SmolLM2 1.7B.
    pub fn smollm2_1_7b() -> Self {
        CATALOG[5].config()
    }
    /// Qwen2.5-0.5B.
    pub fn qwen2_5_0_5b() -> Self {
        CATALOG[6].config()
    }
    /// Qwen3-0.6B.
    pub fn qwen3_0_6b() -> Self {
        CATALOG[7].config()
    }
    /// Qwen3-4B.
    pub fn qwen3_4b() -> Self {
        CATALOG[8].config()
    }
    /// Qwen3-8B.
    pub fn qwen3_8b() -> Self {
        CATALOG[9].config()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_valid_at_full_size_and_tiny() {
        for row in &CATALOG {
            row.config().validate().unwrap();
            row.tiny().validate().unwrap();
            assert_eq!(ModelConfig::named(row.name).unwrap(), row.config());
        }
    }

    #[test]
    fn shortcuts_are_the_rows_they_name() {
        let names = ["phi3-mini-4k", "phi4", "phi4-mini", "llama31-8b", "tinyllama-1.1b", "smollm2-1.7b"];
        let configs = [
            ModelConfig::phi3_mini_4k(),
            ModelConfig::phi4(),
            ModelConfig::phi4_mini(),
            ModelConfig::llama31_8b(),
            ModelConfig::tinyllama_1_1b(),
            ModelConfig::smollm2_1_7b(),
        ];
        for (name, config) in names.iter().zip(configs) {
            assert_eq!(ModelConfig::named(name).unwrap(), config);
        }
        let qwen = ["qwen2.5-0.5b", "qwen3-0.6b", "qwen3-4b", "qwen3-8b"];
        let configs = [
            ModelConfig::qwen2_5_0_5b(),
            ModelConfig::qwen3_0_6b(),
            ModelConfig::qwen3_4b(),
            ModelConfig::qwen3_8b(),
        ];
        for (name, config) in qwen.iter().zip(configs) {
            assert_eq!(ModelConfig::named(name).unwrap(), config);
        }
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        for (name, billions) in
            [("phi3-mini-4k", 3.82), ("llama31-8b", 8.03), ("phi4", 14.66), ("qwen2.5-0.5b", 0.494)]
        {
            let count = ModelConfig::named(name).unwrap().n_parameters() as f64 / 1e9;
            assert!((count - billions).abs() < 0.01 * billions, "{name}: {count}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = ModelConfig::named("gpt-5").unwrap_err().to_string();
        assert!(error.contains("gpt-5") && error.contains("phi3-mini-4k"), "{error}");
    }
}
