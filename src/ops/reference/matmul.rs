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

impl Product<'_> {
    /// Floats from one token to the next.
    #[inline(always)]
    fn stride(&self) -> usize {
        self.x.len() / self.n_tokens
    }
}

/// Runs a product on all workers. `out` takes column r of token t.
pub(super) fn matmul<B: Unpack>(
    workers: &Workers,
    set: InstructionSet,
    product: Product<'_>,
    scratch: &mut [f32],
    out: SharedColumns<'_>,
) {
    let Some(blocks) = blocks_of::<B>(product.blocks) else { return };
    let blocks_per_row = product.n_cols / B::ELEMENTS;
    let next = AtomicUsize::new(0);
    workers.each(scratch, |scratch| {
        loop {
            let first = next.fetch_add(PANEL_ROWS, Ordering::Relaxed);
            if first >= product.n_rows {
                return;
            }
            let n_rows = PANEL_ROWS.min(product.n_rows - first);
            let blocks = &blocks[first * blocks_per_row..(first + n_rows) * blocks_per_row];
            let panel = Panel { product: &product, first, n_rows, out };
            if B::IN_REGISTERS && product.n_tokens <= FEW_TOKENS {
                set.run(FewTokens { panel, blocks });
            } else {
                let vectors = product.stride() / LANES;
                let (weights, sums) = scratch.as_chunks_mut::<LANES>().0.split_at_mut(PANEL_ROWS * vectors);
                for (row, into) in blocks.chunks_exact(blocks_per_row).zip(weights.chunks_exact_mut(vectors))
                {
                    set.run(UnpackRow { row, into });
                }
                set.run(ManyTokens { panel, weights, sums });
            }
        }
    });
}

/// Some rows of the matrix, by one thread.
#[derive(Clone, Copy)]
struct Panel<'a> {
    product: &'a Product<'a>,
    /// The first row's number in the matrix.
    first: usize,
    n_rows: usize,
    out: SharedColumns<'a>,
}

impl<'a> Panel<'a> {
    /// The activations of T tokens from `token` on; beyond the last token it is repeated, its result not kept.
    #[inline(always)]
    fn tokens<const T: usize>(&self, token: usize) -> [&'a [[f32; LANES]]; T] {
        let vectors = self.product.stride() / LANES;
        let x = self.product.x.as_chunks::<LANES>().0;
        std::array::from_fn(|t| &x[(token + t).min(self.product.n_tokens - 1) * vectors..][..vectors])
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

/// Unpacks one row to memory.
struct UnpackRow<'a, B> {
    row: &'a [B],
    into: &'a mut [[f32; LANES]],
}

impl<B: Unpack> Kernel for UnpackRow<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        B::unpack(simd, self.row, 0, &mut (simd, Store(self.into)));
    }
}

/// The product of a few tokens, straight from the blocks.
struct FewTokens<'a, B> {
    panel: Panel<'a>,
    blocks: &'a [B],
}

impl<B: Unpack> Kernel for FewTokens<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.panel.product.n_tokens {
            1 => self.tokens::<S, 1>(simd),
            _ => self.tokens::<S, FEW_TOKENS>(simd),
        }
    }
}

impl<B: Unpack> FewTokens<'_, B> {
    #[inline(always)]
    fn tokens<S: Simd, const T: usize>(&self, simd: S) {
        let Panel { product, n_rows, .. } = self.panel;
        let x = self.panel.tokens::<T>(0);
        let blocks_per_row = product.n_cols / B::ELEMENTS;
        let step = (STEP_COLUMNS / B::ELEMENTS).max(1);
        for row in (0..n_rows).step_by(STEP_ROWS) {
            let n = STEP_ROWS.min(n_rows - row);
            let mut sums = [[simd.splat(0.0); T]; STEP_ROWS];
            let mut rest: [&[B]; STEP_ROWS] = std::array::from_fn(|i| {
                &self.blocks[(row + i.min(n - 1)) * blocks_per_row..][..blocks_per_row]
            });
            let mut at = 0;
            while !rest[0].is_empty() {
                for (rest, sums) in rest.iter_mut().zip(&mut sums) {
                    let (blocks, left) = rest.split_at(step.min(rest.len()));
                    *rest = left;
                    B::unpack(simd, blocks, at, &mut (simd, Dot { x, sums }));
                }
                at += step * B::ELEMENTS / LANES;
            }
            for (i, sums) in sums.iter().enumerate().take(n) {
                for (t, sum) in sums.iter().enumerate().take(product.n_tokens) {
                    self.panel.finish(row + i, t, simd.sum(*sum));
                }
            }
        }
    }
}

/// The product of any number of tokens with unpacked rows.
struct ManyTokens<'a> {
    panel: Panel<'a>,
    /// `[PANEL_ROWS, columns]`.
    weights: &'a [[f32; LANES]],
    /// A tile's sums between one part of the columns and the next.
    sums: &'a mut [[f32; LANES]],
}

impl Kernel for ManyTokens<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match (S::TILE, self.panel.product.n_tokens) {
            (_, 1) => self.tiles::<S, 4, 1>(simd),
            (Tile::Large, _) => self.tiles::<S, 4, TILE_TOKENS>(simd),
            (Tile::Small, _) => self.tiles::<S, 2, 2>(simd),
        }
    }
}

impl ManyTokens<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize>(self, simd: S) {
        let Panel { product, n_rows, .. } = self.panel;
        let vectors = product.stride() / LANES;
        let sums = &mut self.sums[..n_rows.next_multiple_of(R) * T];
        for token in (0..product.n_tokens).step_by(T) {
            let x = self.panel.tokens::<T>(token);
            for from in (0..vectors).step_by(PANEL_COLUMNS / LANES) {
                let to = vectors.min(from + PANEL_COLUMNS / LANES);
                let x = x.map(|x| &x[from..to]);
                for (tile, sums) in sums.as_chunks_mut::<T>().0.chunks_exact_mut(R).enumerate() {
                    let rows: [&[[f32; LANES]]; R] = std::array::from_fn(|r| {
                        let row = (tile * R + r).min(n_rows - 1);
                        &self.weights[row * vectors..][from..to]
                    });
                    tile_product::<S, R, T>(simd, rows, x, sums, from == 0);
                }
            }
            for row in 0..n_rows {
                let sums = sums[row * T..][..T].iter().take(product.n_tokens - token);
                for (t, sum) in sums.enumerate() {
                    self.panel.finish(row, token + t, simd.sum(simd.load(sum)));
                }
            }
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
