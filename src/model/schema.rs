//! The tensors of a model: slot, name in the file, shape. The only place that knows a tensor's name.
//!
//! Loading, memory planning and synthetic files all walk this list.

use crate::gguf::{Gguf, TensorInfo};

use super::{ModelConfig, ModelError, RopeFactors};

/// A place in a layer that a tensor fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum LayerSlot {
    AttnNorm,
    AttnQkv,
    AttnQ,
    AttnK,
    AttnV,
    AttnQBias,
    AttnKBias,
    AttnVBias,
    AttnQNorm,
    AttnKNorm,
    AttnOutput,
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
}

/// A place in a model that a tensor fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// `[vocabulary, hidden]`; also the output where that is tied.
    TokenEmbedding,
    /// `[hidden]`.
    OutputNorm,
    /// `[vocabulary, hidden]`.
    Output,
    /// `[rotated / 2]`, divides the rotary frequencies.
    RopeFrequencies,
    /// `[rotated / 2]`, divides the rotary frequencies of short contexts.
    RopeFactorsShort,
    /// `[rotated / 2]`, divides the rotary frequencies of long contexts.
    RopeFactorsLong,
    /// A place in the layer of this index.
    Layer(usize, LayerSlot),
}

impl Slot {
    /// The tensor's name in the file.
    pub fn name(self) -> String {
        use LayerSlot::*;
        let suffix = match self {
            Slot::TokenEmbedding => return "token_embd.weight".to_owned(),
            Slot::OutputNorm => return "output_norm.weight".to_owned(),
            Slot::Output => return "output.weight".to_owned(),
            Slot::RopeFrequencies => return "rope_freqs.weight".to_owned(),
            Slot::RopeFactorsShort => return "rope_factors_short.weight".to_owned(),
            Slot::RopeFactorsLong => return "rope_factors_long.weight".to_owned(),
            Slot::Layer(_, AttnNorm) => "attn_norm.weight",
            Slot::Layer(_, AttnQkv) => "attn_qkv.weight",
            Slot::Layer(_, AttnQ) => "attn_q.weight",
            Slot::Layer(_, AttnK) => "attn_k.weight",
            Slot::Layer(_, AttnV) => "attn_v.weight",
            Slot::Layer(_, AttnQBias) => "attn_q.bias",
            Slot::Layer(_, AttnKBias) => "attn_k.bias",
            Slot::Layer(_, AttnVBias) => "attn_v.bias",
            Slot::Layer(_, AttnQNorm) => "attn_q_norm.weight",
            Slot::Layer(_, AttnKNorm) => "attn_k_norm.weight",
            Slot::Layer(_, AttnOutput) => "attn_output.weight",
            Slot::Layer(_, FfnNorm) => "ffn_norm.weight",
            Slot::Layer(_, FfnGate) => "ffn_gate.weight",
            Slot::Layer(_, FfnUp) => "ffn_up.weight",
            Slot::Layer(_, FfnDown) => "ffn_down.weight",
        };
        match self {
            Slot::Layer(layer, _) => format!("blk.{layer}.{suffix}"),
            _ => suffix.to_owned(),
        }
    }

    /// What the absence of this tensor usually means.
    fn hint(self) -> &'static str {
        use LayerSlot::*;
        match self {
            Slot::TokenEmbedding => "the file holds a vocabulary or an adapter only, not a model",
            Slot::RopeFactorsShort | Slot::RopeFactorsLong => {
                "long-rope needs both factor tensors: convert the model again"
            }
            Slot::Layer(_, AttnQkv) => {
                "neither a fused nor separate q, k, v were found: the layer is incomplete"
            }
            Slot::Layer(_, AttnQ | AttnK | AttnV) => {
                "q, k and v must all be there when they are not fused into attn_qkv"
            }
            Slot::Layer(_, AttnQBias | AttnKBias | AttnVBias) => "this family needs biases on q, k and v",
            Slot::Layer(_, AttnQNorm | AttnKNorm) => "this family normalises the heads of q and k",
            Slot::Layer(_, FfnGate) => "gate and up must both be there when they are not fused into ffn_up",
            _ => "the download or the conversion is incomplete, or a part of a split file is missing",
        }
    }
}

/// How a tensor is used, which decides how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Rows to be multiplied with; kept in the file's format.
    Matrix,
    /// A norm, a bias or factors; kept as f32.
    Vector,
}

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Where it belongs.
    pub slot: Slot,
    /// Its name in the file.
    pub name: String,
    /// How it is used.
    pub kind: TensorKind,
    /// Rows; 1 for a vector.
    pub n_rows: usize,
    /// Elements in a row.
    pub n_cols: usize,
}

impl TensorSpec {
    /// Number of elements.
    pub fn n_elements(&self) -> u64 {
        self.n_rows as u64 * self.n_cols as u64
    }
    /// The dimensions as a file states them, row length first.
    pub fn dims(&self) -> Vec<u64> {
        match self.kind {
            TensorKind::Matrix => vec![self.n_cols as u64, self.n_rows as u64],
            TensorKind::Vector => vec![self.n_cols as u64],
        }
    }
    /// The file's tensor for this spec, its shape checked.
    pub fn find<'a>(&self, gguf: &'a Gguf) -> Result<&'a TensorInfo, ModelError> {
        let Some(tensor) = gguf.tensor(&self.name) else {
            return Err(ModelError::MissingTensor {
                name: self.name.clone(),
                n_tensors: gguf.tensors().len(),
                hint: self.slot.hint().to_owned(),
            });
        };
        // Trailing dimensions of 1 say nothing.
        let significant = |dims: &[u64]| {
            let keep = dims.iter().rposition(|&dim| dim != 1).map_or(0, |at| at + 1);
            dims.get(..keep).map(<[u64]>::to_vec)
        };
        if significant(&tensor.dims) != significant(&self.dims()) {
            let (name, found, expected) = (self.name.clone(), tensor.dims.clone(), self.dims());
            return Err(ModelError::TensorShape { name, found, expected });
        }
        Ok(tensor)
    }
}

/// Every tensor of a model, in the order in which a forward pass meets them.
pub fn schema(config: &ModelConfig) -> Vec<TensorSpec> {
    use LayerSlot::*;
    let (hidden, head_dim, ffn) = (config.hidden_dim, config.head_dim, config.ffn_dim);
    let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
    let mut specs = Vec::new();
    let mut add = |slot: Slot, kind: TensorKind, n_rows: usize, n_cols: usize| {
        specs.push(TensorSpec { slot, name: slot.name(), kind, n_rows, n_cols });
    };
    add(Slot::TokenEmbedding, TensorKind::Matrix, config.vocab_size, hidden);
    let half = config.rope.rotated_dims / 2;
    match config.rope.factors {
        RopeFactors::None => {}
        RopeFactors::Single => add(Slot::RopeFrequencies, TensorKind::Vector, 1, half),
        RopeFactors::ShortLong { .. } => {
            add(Slot::RopeFactorsShort, TensorKind::Vector, 1, half);
            add(Slot::RopeFactorsLong, TensorKind::Vector, 1, half);
        }
    }
    for layer in 0..config.num_layers {
        let mut matrix =
            |slot, n_rows, n_cols| add(Slot::Layer(layer, slot), TensorKind::Matrix, n_rows, n_cols);
        if config.fused_qkv {
            matrix(AttnQkv, config.qkv_dim(), hidden);
        } else {
            matrix(AttnQ, q_dim, hidden);
            matrix(AttnK, kv_dim, hidden);
            matrix(AttnV, kv_dim, hidden);
        }
        matrix(AttnOutput, hidden, q_dim);
        if config.fused_gate_up {
            matrix(FfnUp, 2 * ffn, hidden);
        } else {
            matrix(FfnGate, ffn, hidden);
            matrix(FfnUp, ffn, hidden);
        }
        matrix(FfnDown, hidden, ffn);
        let mut vector = |slot, n_cols| add(Slot::Layer(layer, slot), TensorKind::Vector, 1, n_cols);
        vector(AttnNorm, hidden);
        if config.qkv_bias {
            vector(AttnQBias, q_dim);
            vector(AttnKBias, kv_dim);
            vector(AttnVBias, kv_dim);
        }
        if config.qk_norm {
            vector(AttnQNorm, head_dim);
            vector(AttnKNorm, head_dim);
        }
        vector(FfnNorm, hidden);
    }
    add(Slot::OutputNorm, TensorKind::Vector, 1, hidden);
    if !config.tied_output {
        add(Slot::Output, TensorKind::Matrix, config.vocab_size, hidden);
    }
    specs
}

/// Refuses tensors that the schema does not name: the model has parts that would be left out of the computation.
pub(super) fn refuse_others(gguf: &Gguf, config: &ModelConfig) -> Result<(), ModelError> {
    let known: std::collections::HashSet<String> = schema(config).into_iter().map(|spec| spec.name).collect();
    match gguf.tensors().iter().find(|tensor| !known.contains(&tensor.name)) {
        Some(tensor) => Err(ModelError::UnexpectedTensor {
            name: tensor.name.clone(),
            architecture: config.architecture.name(),
        }),
        None => Ok(()),
    }
}

/// Whether the file holds a tensor for this slot.
pub(super) fn is_present(gguf: &Gguf, slot: Slot) -> bool {
    gguf.tensor(&slot.name()).is_some()
}

/// Rows of the token embedding.
pub(super) fn embedding_rows(gguf: &Gguf) -> Result<u64, ModelError> {
    let name = Slot::TokenEmbedding.name();
    gguf.tensor(&name).map(TensorInfo::n_rows).ok_or_else(|| ModelError::MissingTensor {
        name,
        n_tensors: gguf.tensors().len(),
        hint: Slot::TokenEmbedding.hint().to_owned(),
    })
}
