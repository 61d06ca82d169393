//! The rotary embedding of q and k, and the append of k and v to the cache.

use half::f16;

use crate::device::HostDevice;
use crate::model::RopePairing;
use crate::ops::{CacheLayer, HeadNorms, HeadShape, PAGE_TOKENS, RotaryTable, Span};
use crate::quant::Format;

use super::pointwise::RmsNorm;
use super::simd::InstructionSet;

/// What turns the heads of a row.
pub(super) struct Turn<'a> {
    pub set: InstructionSet,
    pub heads: HeadShape,
    pub qk_norm: Option<HeadNorms<'a, HostDevice>>,
    pub rotary: &'a RotaryTable<HostDevice>,
}

impl Turn<'_> {
    /// Normalises and turns q and k of one row `[q | k | v]` at this position.
    pub(super) fn row(&self, row: &mut [f32], position: usize, rotary_set: usize) {
        // The angle is a product of singles, as the models were trained; its sine and cosine are then exact.
        let factor = self.rotary.attention_factor;
        let angles: Vec<(f32, f32)> = self.rotary.sets[rotary_set]
            .as_slice()
            .iter()
            .map(|frequency| {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                (sin as f32 * factor, cos as f32 * factor)
            })
            .collect();
        let head_dim = self.heads.head_dim;
        let n_heads = self.heads.q_heads + self.heads.kv_heads;
        let mut normed = vec![0.0; crate::ops::padded_width(head_dim)];
        for (number, head) in row.chunks_exact_mut(head_dim).take(n_heads).enumerate() {
            if let Some((q_norm, k_norm)) = self.qk_norm {
                let norm = if number < self.heads.q_heads { q_norm } else { k_norm };
                let weight = norm.weight.as_slice();
                self.set.run(RmsNorm { x: head, weight, eps: norm.eps, out: &mut normed });
                head.copy_from_slice(&normed[..head_dim]);
            }
            turn(&mut head[..self.rotary.rotated_dims], self.rotary.pairing, &angles);
        }
    }
}

/// Turns each pair (a, b) to (a cos - b sin, a sin + b cos).
fn turn(head: &mut [f32], pairing: RopePairing, angles: &[(f32, f32)]) {
    let pair = |a: f32, b: f32, (sin, cos): (f32, f32)| (a * cos - b * sin, a * sin + b * cos);
    match pairing {
        RopePairing::Interleaved => {
            for ([a, b], &angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                (*a, *b) = pair(*a, *b, angle);
            }
        }
        RopePairing::Halves => {
            let (first, second) = head.split_at_mut(head.len() / 2);
            for ((a, b), &angle) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = pair(*a, *b, angle);
            }
        }
    }
}

/// Where a head's token lies in a layer of the cache, in elements.
pub(super) fn cache_index(heads: HeadShape, pages: &[u32], position: usize, kv_head: usize) -> usize {
    let page = pages[position / PAGE_TOKENS] as usize;
    ((page * heads.kv_heads + kv_head) * PAGE_TOKENS + position % PAGE_TOKENS) * heads.head_dim
}

/// Copies k and v of a span's rows into the cache.
pub(super) fn append(
    rows: &[f32],
    stride: usize,
    heads: HeadShape,
    span: &Span<'_>,
    cache: &mut CacheLayer<HostDevice>,
) {
    let (q_dim, kv_dim, head_dim) = (heads.q_dim(), heads.kv_dim(), heads.head_dim);
    let format = cache.format;
    for i in 0..span.n_rows {
        let row = &rows[(span.first_row + i) * stride..][..stride];
        let k = &row[q_dim..][..kv_dim];
        let v = &row[q_dim + kv_dim..][..kv_dim];
        for (kv_head, (k, v)) in k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim)).enumerate() {
            let at = cache_index(heads, span.pages, span.position + i, kv_head);
            for (from, into) in [(k, &mut cache.keys), (v, &mut cache.values)] {
                let bytes = into.as_mut_slice();
                if format == Format::F16 {
                    let into: &mut [f16] = bytemuck::cast_slice_mut(bytes);
                    for (into, &from) in into[at..at + head_dim].iter_mut().zip(from) {
                        *into = f16::from_f32(from);
                    }
                } else {
                    let into: &mut [f32] = bytemuck::cast_slice_mut(bytes);
                    into[at..at + head_dim].copy_from_slice(from);
                }
            }
        }
    }
}
