//! Which format each tensor of a file has: the mixes of llama.cpp's quantizer, one table row each.

use super::SynthError;
use crate::model::{LayerSlot, ModelConfig, Slot, TensorKind, TensorSpec};
use crate::quant::Format;

/// A mix of formats, as files are named by it. Names are llama.cpp's own.
#[allow(non_camel_case_types, missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mix {
    F32,
    F16,
    BF16,
    Q4_0,
    Q5_0,
    Q8_0,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
}

/// A better format for the matrices of some layers.
#[derive(Debug)]
pub struct Raise {
    /// The better format.
    pub format: Format,
    /// Whether a layer gets it, of how many.
    pub layers: fn(usize, usize) -> bool,
}

/// What a mix consists of. Norms, biases and factors are F32 in every one.
#[derive(Debug)]
pub struct MixRow {
    /// The mix.
    pub mix: Mix,
    /// llama.cpp's name.
    pub name: &'static str,
    /// `general.file_type`: the number that llama.cpp gives it.
    pub file_type: u32,
    /// The format of all matrices for which nothing else is said.
    pub base: Format,
    /// The format of the output, also where the token embedding serves for it.
    pub output: Format,
    /// Layers whose `attn_v`, or `attn_qkv` where that is fused, is better.
    pub attn_v: Option<Raise>,
    /// Layers whose `ffn_down` is better.
    pub ffn_down: Option<Raise>,
}

/// The first and the last eighth of the layers, and every third between them.
fn many(layer: usize, n_layers: usize) -> bool {
    let eighth = n_layers / 8;
    layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
}
fn first_four(layer: usize, _: usize) -> bool {
    layer < 4
}
fn first_eighth(layer: usize, n_layers: usize) -> bool {
    layer < n_layers / 8
}

/// A row of one format for all matrices.
const fn uniform(mix: Mix, name: &'static str, file_type: u32, format: Format) -> MixRow {
    MixRow { mix, name, file_type, base: format, output: format, attn_v: None, ffn_down: None }
}

/// A row whose output is Q6_K, and which is better in some layers: `attn_v`, `ffn_down`.
const fn mixed(
    mix: Mix,
    name: &'static str,
    file_type: u32,
    base: Format,
    better: [Option<Raise>; 2],
) -> MixRow {
    let [attn_v, ffn_down] = better;
    MixRow { mix, name, file_type, base, output: Format::Q6_K, attn_v, ffn_down }
}

const fn raise(format: Format, layers: fn(usize, usize) -> bool) -> Option<Raise> {
    Some(Raise { format, layers })
}

/// One row per mix, in the order of [`Mix`]. Source: `llama_tensor_get_type_impl` in `llama-quant.cpp` of llama.cpp, where
/// a fused `attn_qkv` goes by the rule for `attn_v`; the numbers are its `llama_ftype`.
pub static MIXES: [MixRow; 11] = [
    uniform(Mix::F32, "F32", 0, Format::F32),
    uniform(Mix::F16, "F16", 1, Format::F16),
    uniform(Mix::BF16, "BF16", 32, Format::BF16),
    mixed(Mix::Q4_0, "Q4_0", 2, Format::Q4_0, [None, None]),
    mixed(Mix::Q5_0, "Q5_0", 8, Format::Q5_0, [None, None]),
    uniform(Mix::Q8_0, "Q8_0", 7, Format::Q8_0),
    mixed(
        Mix::Q4_K_S,
        "Q4_K_S",
        14,
        Format::Q4_K,
        [raise(Format::Q5_K, first_four), raise(Format::Q5_K, first_eighth)],
    ),
    mixed(Mix::Q4_K_M, "Q4_K_M", 15, Format::Q4_K, [raise(Format::Q6_K, many), raise(Format::Q6_K, many)]),
    mixed(Mix::Q5_K_S, "Q5_K_S", 16, Format::Q5_K, [None, None]),
    mixed(Mix::Q5_K_M, "Q5_K_M", 17, Format::Q5_K, [raise(Format::Q6_K, many), raise(Format::Q6_K, many)]),
    uniform(Mix::Q6_K, "Q6_K", 18, Format::Q6_K),
];

// The table and the enum agree, or the crate does not compile.
const _: () = {
    let mut i = 0;
    while i < MIXES.len() {
        assert!(MIXES[i].mix as usize == i, "rows stand in the order of the enum");
        i += 1;
    }
};

impl Mix {
    /// This mix's row of [`MIXES`].
    pub fn row(self) -> &'static MixRow {
        &MIXES[self as usize]
    }
    /// llama.cpp's name, such as `Q4_K_M`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The mix of a name, in upper or lower case.
    ///
    /// # Errors
    /// [`SynthError::UnknownMix`], which lists the names there are.
    pub fn from_name(name: &str) -> Result<Self, SynthError> {
        MIXES.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.mix).ok_or_else(|| {
            SynthError::UnknownMix {
                name: name.to_owned(),
                known: MIXES.each_ref().map(|row| row.name).join(", "),
            }
        })
    }
    /// The format of a tensor of a model. A row that is no whole number of blocks goes to the format that llama.cpp
    /// falls back to.
    pub fn format_of(self, config: &ModelConfig, spec: &TensorSpec) -> Format {
        let row = self.row();
        let raised = |raise: &Option<Raise>, layer| match raise {
            Some(raise) if (raise.layers)(layer, config.num_layers) => raise.format,
            _ => row.base,
        };
        let format = match spec.slot {
            _ if spec.kind == TensorKind::Vector => return Format::F32,
            Slot::TokenEmbedding if config.tied_output => row.output,
            Slot::Output => row.output,
            Slot::Layer(layer, LayerSlot::AttnV | LayerSlot::AttnQkv) => raised(&row.attn_v, layer),
            Slot::Layer(layer, LayerSlot::FfnDown) => raised(&row.ffn_down, layer),
            _ => row.base,
        };
        fitting(format, spec.n_cols)
    }
}

/// The format itself where rows of `n_cols` are whole blocks of it, else what llama.cpp takes in its place.
fn fitting(format: Format, n_cols: usize) -> Format {
    if n_cols.is_multiple_of(format.block_elements()) {
        return format;
    }
    let smaller = match format {
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        _ => Format::F16,
    };
    fitting(smaller, n_cols)
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Mix {
    type Err = SynthError;
    fn from_str(name: &str) -> Result<Self, SynthError> {
        Self::from_name(name)
    }
}
