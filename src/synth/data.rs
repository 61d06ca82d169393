//! What stands in the tensors: weights that keep activations near 1 in every layer, so that logits are finite and differ.

use std::collections::BTreeMap;

use super::pool::Pool;
use super::random::Key;
use crate::model::{LayerSlot, Slot, TensorKind, TensorSpec};
use crate::quant::{Format, QuantError};

/// Deviation of the logits. Output rows of deviation `1 / sqrt(n_cols)` would give 1, and hardly any token would stand
/// out.
const LOGIT_DEVIATION: f32 = 4.0;
/// Deviation of norms around 1 and of biases around 0.
const VECTOR_DEVIATION: f32 = 0.125;

/// What matrices must have in common to be made from one pool: the format, and the bits of the deviation.
type Kind = (Format, u32);

/// The deviation of a matrix's weights: what it multiplies has deviation 1, and so shall what comes out.
fn deviation(spec: &TensorSpec) -> f32 {
    let gain = match spec.slot {
        Slot::TokenEmbedding | Slot::Output => LOGIT_DEVIATION,
        _ => 1.0,
    };
    gain / (spec.n_cols as f32).sqrt()
}

/// The kind of a matrix; `None` for a vector.
fn kind(spec: &TensorSpec, format: Format) -> Option<Kind> {
    (spec.kind == TensorKind::Matrix).then(|| (format, deviation(spec).to_bits()))
}

/// The pools that the matrices of a model are made from.
pub(super) struct Pools {
    pools: BTreeMap<Kind, Pool>,
}

impl Pools {
    /// One pool for each kind of matrix among the tensors.
    pub(super) fn new<'a>(
        key: Key,
        tensors: impl Iterator<Item = (&'a TensorSpec, Format)>,
    ) -> Result<Self, QuantError> {
        let mut sizes = BTreeMap::<Kind, u64>::new();
        for (spec, format) in tensors {
            if let Some(kind) = kind(spec, format) {
                let size = sizes.entry(kind).or_default();
                *size = spec.n_elements().max(*size);
            }
        }
        let pool = |(index, ((format, bits), n_elements)): (u64, (Kind, u64))| {
            let pool = Pool::new(key.at(index), format, f32::from_bits(bits), n_elements)?;
            Ok(((format, bits), pool))
        };
        Ok(Self { pools: (0..).zip(sizes).map(pool).collect::<Result<_, QuantError>>()? })
    }

    /// The pool of a matrix that [`Pools::new`] was told of; `None` for a vector.
    pub(super) fn of(&self, spec: &TensorSpec, format: Format) -> Option<&Pool> {
        self.pools.get(&kind(spec, format)?)
    }
}

/// The values of a norm, a bias or rotary factors, as the file holds them.
pub(super) fn vector(spec: &TensorSpec, key: Key) -> Vec<u8> {
    use LayerSlot::{AttnKBias, AttnQBias, AttnVBias};
    let last = spec.n_cols.saturating_sub(1).max(1) as f32;
    let value = |index: usize| {
        let (noise, part) = (VECTOR_DEVIATION * key.normal(index as u64), index as f32 / last);
        match spec.slot {
            // As published: short factors rise from 1 to 1.5, long ones to 40, and those of Llama 3.1 leave the fast
            // half as it is and slow the slow third down eightfold.
            Slot::RopeFactorsShort => 1.0 + 0.5 * part,
            Slot::RopeFactorsLong => 1.0 + 39.0 * part * part,
            Slot::RopeFrequencies => 1.0 + 7.0 * (6.0 * part - 3.0).clamp(0.0, 1.0),
            Slot::Layer(_, AttnQBias | AttnKBias | AttnVBias) => noise,
            _ => 1.0 + noise,
        }
    };
    (0..spec.n_cols).flat_map(|index| value(index).to_le_bytes()).collect()
}
