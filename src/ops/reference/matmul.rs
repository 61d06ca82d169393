//! The dequantising matrix product: `out[t][r] = Σ_k weights[r][k] · x[t][k]`.
//!
//! Every sum runs the same way, whatever the number of tokens, of threads, or the tile: lane `k mod 16` adds its
//! products in order of k, then the lanes are folded (`Simd::sum`). A prompt therefore has the same bits whole, in
//! chunks and token by token. A few tokens take each weight from its block straight into the product; more tokens
//! share weights that were unpacked into a panel first.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::quant::blocks_of;

use super::simd::{InstructionSet, Kernel, LANES, Simd, Tile};
use super::threads::{SharedColumns, Workers};
use super::unpack::{Sink, Unpack};

/// Weight rows that a thread unpacks at a time; a panel of them stays in a core's second-level cache.
const PANEL_ROWS: usize = 32;
/// Columns after which the tile's sums go to memory, so that its tokens stay in the first-level cache.
const PANEL_COLUMNS: usize = 64 * LANES;
/// Tokens up to which weights are not unpacked into a panel.
const FEW_TOKENS: usize = 4;
/// Columns that the kernel for few tokens takes of one row before it goes to the next.
const STEP_COLUMNS: usize = 256;
/// Weight rows that the kernel for few tokens works on at a time, to hide the latency of additions.
const STEP_ROWS: usize = 4;
/// Most tokens of a panel tile.
const TILE_TOKENS: usize = 6;

/// f32 of scratch that one thread needs for rows of this many (padded) columns.
pub(super) fn scratch_floats(n_columns: usize) -> usize {
    PANEL_ROWS * n_columns.next_multiple_of(LANES) + PANEL_ROWS * TILE_TOKENS * LANES
}

/// One product: x `[n_tokens, stride]`, padded with zeros to whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub x: &'a [f32],
    pub n_tokens: usize,
    pub n_rows: usize,
    pub n_cols: usize,
    /// The matrix, as it lies in the file.
    pub blocks: &'a [u8],
    /// Added to each row's result.
    pub bias: Option<&'a [f32]>,
    /// Whether results are added to what `out` holds.
    pub accumulate: bool,
}

/// Runs a product on all workers. `out` takes column r of token t.
pub(super) fn matmul<B: Unpack>(
    workers: &Workers,
    set: InstructionSet,
    product: Product<'_>,
    scratch: &mut [f32],
    out: SharedColumns<'_>,
) {
    let Some(rows) = blocks_of::<B>(product.blocks) else { return };
    let next = AtomicUsize::new(0);
    workers.each(scratch, |scratch| {
        set.run(Share { product, rows, next: &next, scratch, out });
    });
}

/// What one thread does: panels of rows, until none is left.
struct Share<'a, B> {
    product: Product<'a>,
    rows: &'a [B],
    next: &'a AtomicUsize,
    scratch: &'a mut [f32],
    out: SharedColumns<'a>,
}

impl<B: Unpack> Kernel for Share<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { product, rows, next, scratch, out } = self;
        let blocks_per_row = product.n_cols / B::ELEMENTS;
        loop {
            let first = next.fetch_add(PANEL_ROWS, Ordering::Relaxed);
            if first >= product.n_rows {
                return;
            }
            let n_rows = PANEL_ROWS.min(product.n_rows - first);
            let rows = &rows[first * blocks_per_row..(first + n_rows) * blocks_per_row];
            let panel = Panel { product: &product, rows, first, n_rows, out };
            match product.n_tokens {
                1 => panel.few_tokens::<S, 1>(simd),
                2 => panel.few_tokens::<S, 2>(simd),
                3 => panel.few_tokens::<S, 3>(simd),
                FEW_TOKENS => panel.few_tokens::<S, FEW_TOKENS>(simd),
                _ => match S::TILE {
                    Tile::Large => panel.many_tokens::<S, 4, TILE_TOKENS>(simd, scratch),
                    Tile::Small => panel.many_tokens::<S, 2, 2>(simd, scratch),
                },
            }
        }
    }
}

/// Some rows of the matrix, by one thread.
struct Panel<'a, B> {
    product: &'a Product<'a>,
    rows: &'a [B],
    /// The first row's number in the matrix.
    first: usize,
    n_rows: usize,
    out: SharedColumns<'a>,
}

/// Multiplies weights as they come and adds to one sum for each token.
struct Dot<'a, F, const T: usize> {
    x: [&'a [[f32; LANES]]; T],
    sums: &'a mut [F; T],
}

impl<S: Simd, const T: usize> Sink<S> for (S, Dot<'_, S::F, T>) {
    #[inline(always)]
    fn push(&mut self, index: usize, weights: S::F) {
        let (simd, dot) = self;
        for t in 0..T {
            dot.sums[t] = simd.mul_add(weights, simd.load(&dot.x[t][index]), dot.sums[t]);
        }
    }
}

/// Stores weights as they come.
struct Store<'a>(&'a mut [[f32; LANES]]);

impl<S: Simd> Sink<S> for (S, Store<'_>) {
    #[inline(always)]
    fn push(&mut self, index: usize, weights: S::F) {
        self.0.store(weights, &mut self.1.0[index]);
    }
}

impl<B: Unpack> Panel<'_, B> {
    #[inline(always)]
    fn row(&self, row: usize) -> &[B] {
        let blocks_per_row = self.product.n_cols / B::ELEMENTS;
        &self.rows[row * blocks_per_row..][..blocks_per_row]
    }

    #[inline(always)]
    fn few_tokens<S: Simd, const T: usize>(&self, simd: S) {
        let stride = self.product.x.len() / self.product.n_tokens;
        let x: [&[[f32; LANES]]; T] =
            std::array::from_fn(|t| self.product.x[t * stride..][..stride].as_chunks::<LANES>().0);
        let step = (STEP_COLUMNS / B::ELEMENTS).max(1);
        let vectors = step * B::ELEMENTS / LANES;
        for row in (0..self.n_rows).step_by(STEP_ROWS) {
            let n = STEP_ROWS.min(self.n_rows - row);
            let mut sums = [[simd.splat(0.0); T]; STEP_ROWS];
            let mut rest: [&[B]; STEP_ROWS] = std::array::from_fn(|i| self.row(row + i.min(n - 1)));
            let mut at = 0;
            while !rest[0].is_empty() {
                for (rest, sums) in rest.iter_mut().zip(&mut sums) {
                    let (blocks, left) = rest.split_at(step.min(rest.len()));
                    *rest = left;
                    B::unpack(simd, blocks, at, &mut (simd, Dot { x, sums }));
                }
                at += vectors;
            }
            for (i, sums) in sums.iter().enumerate().take(n) {
                for (t, sum) in sums.iter().enumerate() {
                    self.finish(row + i, t, simd.sum(*sum));
                }
            }
        }
    }

    #[inline(always)]
    fn many_tokens<S: Simd, const R: usize, const T: usize>(&self, simd: S, scratch: &mut [f32]) {
        let stride = self.product.x.len() / self.product.n_tokens;
        let vectors = stride / LANES;
        let (weights, sums) = scratch.as_chunks_mut::<LANES>().0.split_at_mut(PANEL_ROWS * vectors);
        for row in 0..self.n_rows {
            let into = &mut weights[row * vectors..][..vectors];
            B::unpack(simd, self.row(row), 0, &mut (simd, Store(into)));
        }
        let x = self.product.x.as_chunks::<LANES>().0;
        let n_tiles = self.n_rows.div_ceil(R);
        let sums = &mut sums[..n_tiles * R * T];
        for token in (0..self.product.n_tokens).step_by(T) {
            let n_tokens = T.min(self.product.n_tokens - token);
            // A tile that reaches beyond the last token or row repeats it; the result is not kept.
            let x: [&[[f32; LANES]]; T] =
                std::array::from_fn(|t| &x[(token + t.min(n_tokens - 1)) * vectors..][..vectors]);
            for from in (0..vectors).step_by(PANEL_COLUMNS / LANES) {
                let to = vectors.min(from + PANEL_COLUMNS / LANES);
                for (tile, sums) in sums.as_chunks_mut::<T>().0.chunks_exact_mut(R).enumerate() {
                    let rows: [&[[f32; LANES]]; R] = std::array::from_fn(|r| {
                        let row = (tile * R + r).min(self.n_rows - 1);
                        &weights[row * vectors..][from..to]
                    });
                    let x: [&[[f32; LANES]]; T] = std::array::from_fn(|t| &x[t][from..to]);
                    tile_product::<S, R, T>(simd, rows, x, sums, from == 0);
                }
            }
            for row in 0..self.n_rows {
                for (t, sum) in sums[row * T..][..n_tokens].iter().enumerate() {
                    self.finish(row, token + t, simd.sum(simd.load(sum)));
                }
            }
        }
    }

    /// Writes one result.
    #[inline(always)]
    fn finish(&self, row: usize, token: usize, sum: f32) {
        let row = self.first + row;
        let sum = self.product.bias.map_or(sum, |bias| sum + bias[row]);
        if self.product.accumulate {
            self.out.add(token, row, sum);
        } else {
            self.out.set(token, row, sum);
        }
    }
}

/// Adds the products of R rows and T tokens to R x T sums of sixteen lanes.
#[inline(always)]
fn tile_product<S: Simd, const R: usize, const T: usize>(
    simd: S,
    rows: [&[[f32; LANES]]; R],
    x: [&[[f32; LANES]]; T],
    sums: &mut [[[f32; LANES]; T]],
    fresh: bool,
) {
    let mut acc: [[S::F; T]; R] = std::array::from_fn(|r| {
        std::array::from_fn(|t| if fresh { simd.splat(0.0) } else { simd.load(&sums[r][t]) })
    });
    let n = rows[0].len();
    let rows = rows.map(|row| &row[..n]);
    let x = x.map(|x| &x[..n]);
    for k in 0..n {
        let weights: [S::F; R] = std::array::from_fn(|r| simd.load(&rows[r][k]));
        for t in 0..T {
            let x = simd.load(&x[t][k]);
            for r in 0..R {
                acc[r][t] = simd.mul_add(weights[r], x, acc[r][t]);
            }
        }
    }
    for (acc, sums) in acc.iter().zip(sums) {
        for (acc, sum) in acc.iter().zip(sums) {
            simd.store(*acc, sum);
        }
    }
}
