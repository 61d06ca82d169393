//! Causal grouped-query attention of one row and one head at a time.
//!
//! A position's score, its place in the sum and in the weighted sum of values depend on the position alone, so a
//! row's result does not depend on the rows that are computed with it.

use half::f16;

use crate::ops::{HeadShape, PAGE_TOKENS, Span};

use super::rotary::cache_index;
use super::simd::{Kernel, LANES, Simd, exp, load_padded};
use super::threads::SharedColumns;

/// An element type of the cache.
pub(super) trait CacheElement: bytemuck::Pod + Send + Sync {
    /// Up to sixteen elements; lanes beyond them are zero.
    fn load<S: Simd>(simd: S, from: &[Self]) -> S::F;
}

impl CacheElement for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32]) -> S::F {
        load_padded(simd, from)
    }
}

impl CacheElement for f16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f16]) -> S::F {
        let mut bits = [0; LANES];
        for (bits, half) in bits.iter_mut().zip(from) {
            *bits = half.to_bits();
        }
        simd.load_half(&bits)
    }
}

/// Attention of the query heads that share one key head, for some rows of a span.
pub(super) struct Attend<'a, E> {
    pub heads: HeadShape,
    pub kv_head: usize,
    pub span: Span<'a>,
    /// Rows of the span.
    pub rows: std::ops::Range<usize>,
    /// `[all rows, stride]`, q first.
    pub qkv: &'a [f32],
    pub stride: usize,
    pub keys: &'a [E],
    pub values: &'a [E],
    /// One score for each position, padded to whole vectors.
    pub scores: &'a mut [f32],
    pub out: SharedColumns<'a>,
}

impl<E: CacheElement> Kernel for Attend<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let group = self.heads.q_heads / self.heads.kv_heads;
        for row in self.rows.clone() {
            for head in self.kv_head * group..(self.kv_head + 1) * group {
                self.one(simd, row, head);
            }
        }
    }
}

impl<E: CacheElement> Attend<'_, E> {
    #[inline(always)]
    fn one<S: Simd>(&mut self, simd: S, row: usize, head: usize) {
        let head_dim = self.heads.head_dim;
        let n_positions = self.span.position + row + 1;
        let q = &self.qkv[(self.span.first_row + row) * self.stride + head * head_dim..][..head_dim];
        let scale = 1.0 / (head_dim as f32).sqrt();
        let largest = self.score(simd, q, n_positions, scale);
        let sum = self.weigh(simd, n_positions, largest);
        let row = self.span.first_row + row;
        let mut from = 0;
        while from < head_dim {
            let column = head * head_dim + from;
            from += match (head_dim - from) / LANES {
                8.. => self.mix::<S, 8>(simd, n_positions, from, sum, row, column),
                6.. => self.mix::<S, 6>(simd, n_positions, from, sum, row, column),
                4.. => self.mix::<S, 4>(simd, n_positions, from, sum, row, column),
                _ => self.mix::<S, 1>(simd, n_positions, from, sum, row, column),
            };
        }
    }

    /// Writes `q · k · scale` for each position and answers the largest.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, q: &[f32], n_positions: usize, scale: f32) -> f32 {
        let head_dim = self.heads.head_dim;
        let mut largest = simd.splat(f32::NEG_INFINITY);
        for first in (0..n_positions).step_by(LANES) {
            // Sixteen positions never straddle a page.
            let at = cache_index(self.heads, self.span.pages, first, self.kv_head);
            let keys = &self.keys[at..at + LANES * head_dim];
            let mut sums = [simd.splat(0.0); LANES];
            for (j, q) in q.chunks(LANES).enumerate() {
                let q = load_padded(simd, q);
                for (sum, key) in sums.iter_mut().zip(keys.chunks_exact(head_dim)) {
                    let key = E::load(simd, &key[j * LANES..head_dim.min((j + 1) * LANES)]);
                    *sum = simd.mul_add(q, key, *sum);
                }
            }
            let mut scores = [0.0; LANES];
            simd.store(simd.mul(simd.sums(&sums), simd.splat(scale)), &mut scores);
            // What lies in the cache beyond the row's own position is not its to see.
            scores[LANES.min(n_positions - first)..].fill(f32::NEG_INFINITY);
            self.scores[first..first + LANES].copy_from_slice(&scores);
            largest = simd.max(simd.load(&scores), largest);
        }
        simd.largest(largest)
    }

    /// Turns scores into `e^(score - largest)` and answers their sum.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, n_positions: usize, largest: f32) -> f32 {
        let largest = simd.splat(largest);
        let mut sum = simd.splat(0.0);
        let padded = n_positions.next_multiple_of(LANES);
        let n_vectors = padded / LANES;
        for (i, scores) in self.scores[..padded].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            simd.store(exp(simd, simd.sub(simd.load(scores), largest)), scores);
            if i + 1 == n_vectors {
                scores[n_positions - i * LANES..].fill(0.0);
            }
            sum = simd.add(sum, simd.load(scores));
        }
        simd.sum(sum)
    }

    /// Writes `Σ weight · value / sum` for up to `16 N` dimensions of a head, and answers how many.
    #[inline(always)]
    fn mix<S: Simd, const N: usize>(
        &self,
        simd: S,
        n_positions: usize,
        from: usize,
        sum: f32,
        row: usize,
        column: usize,
    ) -> usize {
        let head_dim = self.heads.head_dim;
        let n_dims = (N * LANES).min(head_dim - from);
        let mut mixed = [simd.splat(0.0); N];
        for first in (0..n_positions).step_by(PAGE_TOKENS) {
            let n = PAGE_TOKENS.min(n_positions - first);
            let at = cache_index(self.heads, self.span.pages, first, self.kv_head);
            let values = self.values[at..at + n * head_dim].chunks_exact(head_dim);
            for (value, &weight) in values.zip(&self.scores[first..first + n]) {
                let weight = simd.splat(weight);
                let value = &value[from..from + n_dims];
                for (i, mixed) in mixed.iter_mut().enumerate() {
                    let value = E::load(simd, &value[i * LANES..n_dims.min((i + 1) * LANES)]);
                    *mixed = simd.mul_add(weight, value, *mixed);
                }
            }
        }
        let sum = simd.splat(sum);
        let mut lanes = [0.0; LANES];
        for (i, mixed) in mixed.iter().enumerate() {
            simd.store(simd.div(*mixed, sum), &mut lanes);
            for (j, &lane) in lanes[..LANES.min(n_dims - i * LANES)].iter().enumerate() {
                self.out.set(row, column + i * LANES + j, lane);
            }
        }
        n_dims
    }
}
