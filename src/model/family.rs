//! One table row per model family: what `general.architecture` implies and the metadata does not say.

use super::{ModelError, RopePairing};

/// A family of models, as `general.architecture` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Phi-3, Phi-4, Phi-4-mini.
    Phi3,
    /// Llama 3.1, TinyLlama, SmolLM2.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3, dense.
    Qwen3,
}

/// What a family implies. Everything else is metadata or the presence of a tensor.
#[derive(Debug)]
pub struct FamilyRow {
    /// The family.
    pub architecture: Architecture,
    /// `general.architecture`, and the prefix of its metadata keys.
    pub name: &'static str,
    /// Which dimensions the rotary embedding turns together.
    pub pairing: RopePairing,
    /// Whether each head of q and k is normalised before the rotary embedding.
    pub qk_norm: bool,
    /// Whether q, k and v have biases whatever the file holds; elsewhere a bias counts where the file holds one.
    pub qkv_bias: bool,
    /// Whether published files hold q, k and v in one tensor, and gate and up in one.
    pub fused: bool,
}

/// One row per family.
pub static FAMILIES: [FamilyRow; 4] = [
    FamilyRow {
        architecture: Architecture::Phi3,
        name: "phi3",
        pairing: RopePairing::Halves,
        qk_norm: false,
        qkv_bias: false,
        fused: true,
    },
    FamilyRow {
        architecture: Architecture::Llama,
        name: "llama",
        pairing: RopePairing::Interleaved,
        qk_norm: false,
        qkv_bias: false,
        fused: false,
    },
    FamilyRow {
        architecture: Architecture::Qwen2,
        name: "qwen2",
        pairing: RopePairing::Halves,
        qk_norm: false,
        qkv_bias: true,
        fused: false,
    },
    FamilyRow {
        architecture: Architecture::Qwen3,
        name: "qwen3",
        pairing: RopePairing::Halves,
        qk_norm: true,
        qkv_bias: false,
        fused: false,
    },
];

impl Architecture {
    /// This family's row of [`FAMILIES`].
    pub fn row(self) -> &'static FamilyRow {
        &FAMILIES[self as usize]
    }
    /// `general.architecture`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The family of a `general.architecture`.
    pub fn from_name(name: &str) -> Result<Self, ModelError> {
        FAMILIES.iter().find(|row| row.name == name).map(|row| row.architecture).ok_or_else(|| {
            ModelError::UnknownArchitecture {
                found: name.to_owned(),
                supported: FAMILIES.each_ref().map(|row| row.name).join(", "),
            }
        })
    }
}
