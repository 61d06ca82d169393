//! The dequantising matrix product: `out[t][r] = Σ_k weights[r][k] · x[t][k]`.
//!
//! Every sum runs the same way, whatever the number of tokens, of threads, or the tile: lane `k mod 16` adds its
//! products in order of k, then the lanes are folded (`Simd::sum`). A prompt therefore has the same bits whole, in
//! chunks and token by token. A few tokens take each weight from its block straight into the product; more tokens
//! share weights that were unpacked into a panel first.

use crate::quant::blocks_of;

use super::ahead::Ahead;
use super::simd::{InstructionSet, Kernel, LANES, Simd, Tile};
use super::threads::{Queue, SharedColumns};
use super::unpack::{Sink, Unpack};

/// Most weight rows that a thread takes at a time, and the least.
const PANEL_ROWS: std::ops::RangeInclusive<usize> = 16..=64;
/// Floats of unpacked weights that stay in a core's second-level cache, beside the activations that pass through.
pub(super) const PANEL_FLOATS: usize = 192 << 10;
/// Columns after which the tile's sums go to memory, so that its tokens stay in the first-level cache.
const PANEL_COLUMNS: usize = 64 * LANES;
/// Tokens up to which weights are not unpacked into a panel.
const FEW_TOKENS: usize = 4;
/// Weight rows that the kernel for few tokens works on at a time, to hide the latency of additions.
const STEP_ROWS: usize = 4;
/// Most tokens of a panel tile.
const TILE_TOKENS: usize = 6;

/// f32 of scratch that one thread needs for rows of this many (padded) columns.
pub(super) fn scratch_floats(n_columns: usize) -> usize {
    let rows = panel_rows(n_columns.next_multiple_of(LANES));
    // Of two widths the narrower may take more rows, but never more floats than the larger of these.
    (rows * n_columns.next_multiple_of(LANES)).max(PANEL_FLOATS) + PANEL_ROWS.end() * TILE_TOKENS * LANES
}

/// Weight rows of this many columns that a thread takes at a time: whole tiles.
fn panel_rows(n_columns: usize) -> usize {
    (PANEL_FLOATS / n_columns / 4 * 4).clamp(*PANEL_ROWS.start(), *PANEL_ROWS.end())
}

/// One product: x `[n_tokens, stride]`, padded with zeros to whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub x: &'a [f32],
    pub n_tokens: usize,
    pub n_cols: usize,
    /// The matrix, as it lies in the file.
    pub blocks: &'a [u8],
}

/// Where a product goes: row r of the matrix to column r of each token.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub out: SharedColumns<'a>,
    /// Added to each row's result.
    pub bias: Option<&'a [f32]>,
    /// Whether results are added to what `out` holds.
    pub accumulate: bool,
}

impl Target<'_> {
    /// Writes one result.
    #[inline(always)]
    pub(super) fn finish(&self, row: usize, token: usize, sum: f32) {
        let sum = self.bias.map_or(sum, |bias| sum + bias[row]);
        if self.accumulate {
            self.out.add(token, row, sum);
        } else {
            self.out.set(token, row, sum);
        }
    }
}

impl Product<'_> {
    /// Floats from one token to the next.
    #[inline(always)]
    fn stride(&self) -> usize {
        self.x.len() / self.n_tokens
    }
}

/// What one of several threads does for a product: it takes rows until none is left.
pub(super) fn work<B: Unpack>(
    set: InstructionSet,
    product: Product<'_>,
    rows: &Queue,
    scratch: &mut [f32],
    target: Target<'_>,
) {
    let Some(blocks) = blocks_of::<B>(product.blocks) else { return };
    let blocks_per_row = product.n_cols / B::ELEMENTS;
    let panel_rows = panel_rows(product.stride());
    let in_registers = B::IN_REGISTERS && product.n_tokens <= FEW_TOKENS;
    let take = || if in_registers { rows.take_share(STEP_ROWS) } else { rows.take(panel_rows) };
    while let Some(rows) = take() {
        let blocks = &blocks[rows.start * blocks_per_row..rows.end * blocks_per_row];
        let panel = Panel { product: &product, first: rows.start, n_rows: rows.len(), target };
        if in_registers {
            let row_bytes = blocks_per_row * size_of::<B>();
            let ahead = Ahead::new(&product.blocks[rows.start * row_bytes..], STEP_ROWS * row_bytes);
            set.run(FewTokens { panel, blocks, ahead });
        } else {
            let vectors = product.stride() / LANES;
            let (weights, sums) = scratch.as_chunks_mut::<LANES>().0.split_at_mut(panel_rows * vectors);
            for (row, into) in blocks.chunks_exact(blocks_per_row).zip(weights.chunks_exact_mut(vectors)) {
                set.run(UnpackRow { row, into });
            }
            set.run(ManyTokens { panel, weights, sums });
        }
    }
}

/// Some rows of the matrix, by one thread.
#[derive(Clone, Copy)]
struct Panel<'a> {
    product: &'a Product<'a>,
    /// The first row's number in the matrix.
    first: usize,
    n_rows: usize,
    target: Target<'a>,
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
        self.target.finish(self.first + row, token, sum);
    }
}

/// Multiplies weights as they come and adds to one sum for each token.
struct Dot<'a, S: Simd, const T: usize> {
    simd: S,
    /// The activations that the unit's weights meet.
    x: [&'a [[f32; LANES]]; T],
    sums: [S::F; T],
}

impl<S: Simd, const T: usize> Sink<S> for Dot<'_, S, T> {
    #[inline(always)]
    fn push(&mut self, index: usize, weights: S::F) {
        for (sum, x) in self.sums.iter_mut().zip(self.x) {
            *sum = self.simd.mul_add(weights, self.simd.load(&x[index]), *sum);
        }
    }
}

/// Stores weights as they come.
struct Store<'a, S> {
    simd: S,
    into: &'a mut [[f32; LANES]],
}

impl<S: Simd> Sink<S> for Store<'_, S> {
    #[inline(always)]
    fn push(&mut self, index: usize, weights: S::F) {
        self.simd.store(weights, &mut self.into[index]);
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
        for (unit, into) in self.row.chunks(B::UNIT).zip(self.into.chunks_mut(B::VECTORS)) {
            B::unpack(simd, unit, &mut Store { simd, into });
        }
    }
}

/// The product of a few tokens, straight from the blocks.
struct FewTokens<'a, B> {
    panel: Panel<'a>,
    blocks: &'a [B],
    ahead: Ahead<'a>,
}

impl<B: Unpack> Kernel for FewTokens<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        match self.panel.product.n_tokens {
            1 => self.tokens::<S, 1>(simd),
            _ => self.tokens::<S, FEW_TOKENS>(simd),
        }
    }
}

impl<B: Unpack> FewTokens<'_, B> {
    #[inline(always)]
    fn tokens<S: Simd, const T: usize>(&mut self, simd: S) {
        let Panel { product, n_rows, .. } = self.panel;
        let x = self.panel.tokens::<T>(0);
        let blocks_per_row = product.n_cols / B::ELEMENTS;
        for row in (0..n_rows).step_by(STEP_ROWS) {
            let n = STEP_ROWS.min(n_rows - row);
            // Rows beyond the last repeat it; their results are not kept.
            let rows: [&[B]; STEP_ROWS] = std::array::from_fn(|i| {
                &self.blocks[(row + i.min(n - 1)) * blocks_per_row..][..blocks_per_row]
            });
            let mut sums = [[simd.splat(0.0); T]; STEP_ROWS];
            for from in (0..blocks_per_row).step_by(B::UNIT) {
                let to = blocks_per_row.min(from + B::UNIT);
                self.ahead.advance(simd, n * (to - from) * size_of::<B>());
                let at = from / B::UNIT * B::VECTORS;
                let x = x.map(|x| if to - from == B::UNIT { &x[at..at + B::VECTORS] } else { &x[at..] });
                let units = rows.map(|row| &row[from..to]);
                // A loop and not `map`, whose closure would not be compiled for the instruction set.
                let mut scales = [B::scales(simd, units[0]); STEP_ROWS];
                for (scales, unit) in scales.iter_mut().zip(units).skip(1) {
                    *scales = B::scales(simd, unit);
                }
                for part in 0..B::PARTS {
                    for ((unit, scales), sums) in units.iter().zip(&scales).zip(&mut sums) {
                        let mut dot = Dot { simd, x, sums: *sums };
                        B::part(simd, unit, scales, part, &mut dot);
                        *sums = dot.sums;
                    }
                }
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
    /// `[rows, columns]`.
    weights: &'a [[f32; LANES]],
    /// A tile's sums between one part of the columns and the next.
    sums: &'a mut [[f32; LANES]],
}

impl Kernel for ManyTokens<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        match (S::TILE, self.panel.product.n_tokens) {
            (_, 1) => self.tiles::<S, 4, 1>(simd),
            (Tile::Large, _) => self.tiles::<S, 4, TILE_TOKENS>(simd),
            (Tile::Small, _) => self.tiles::<S, 2, 2>(simd),
        }
    }
}

impl ManyTokens<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize>(&mut self, simd: S) {
        let Panel { product, n_rows, .. } = self.panel;
        let vectors = product.stride() / LANES;
        let sums = std::mem::take(&mut self.sums);
        let sums = &mut sums[..n_rows.next_multiple_of(R) * T];
        for token in (0..product.n_tokens).step_by(T) {
            let x = self.panel.tokens::<T>(token);
            let after = self.panel.tokens::<T>((token + T).min(product.n_tokens - 1));
            for from in (0..vectors).step_by(PANEL_COLUMNS / LANES) {
                let to = vectors.min(from + PANEL_COLUMNS / LANES);
                // The activations that come next: more columns of these tokens, or the first of the next.
                let ahead = match vectors.min(to + PANEL_COLUMNS / LANES) {
                    end if to < end => x.map(|x| &x[to..end]),
                    _ => after.map(|x| &x[..vectors.min(PANEL_COLUMNS / LANES)]),
                };
                let x = x.map(|x| &x[from..to]);
                let n_tiles = n_rows.div_ceil(R);
                for (tile, sums) in sums.as_chunks_mut::<T>().0.chunks_exact_mut(R).enumerate() {
                    let rows: [&[[f32; LANES]]; R] = std::array::from_fn(|r| {
                        let row = (tile * R + r).min(n_rows - 1);
                        &self.weights[row * vectors..][from..to]
                    });
                    // Each tile asks for its share of them.
                    let share =
                        ahead[tile % T].chunks((to - from).div_ceil(n_tiles.div_ceil(T))).nth(tile / T);
                    tile_product::<S, R, T>(simd, rows, x, sums, share.unwrap_or(&[]), from == 0);
                }
            }
            self.finish::<S, T>(simd, sums, token);
        }
    }

    /// Folds the lanes of all sums of T tokens, sixteen sums at a time, and writes the results.
    #[inline(always)]
    fn finish<S: Simd, const T: usize>(&self, simd: S, sums: &[[f32; LANES]], token: usize) {
        let n_tokens = T.min(self.panel.product.n_tokens - token);
        for (i, sums) in sums.chunks(LANES).enumerate() {
            let vectors: [S::F; LANES] =
                std::array::from_fn(|j| simd.load(sums.get(j).unwrap_or(&[0.0; LANES])));
            let mut results = [0.0; LANES];
            simd.store(simd.sums(&vectors), &mut results);
            for (j, &result) in results.iter().enumerate().take(sums.len()) {
                let (row, t) = ((i * LANES + j) / T, (i * LANES + j) % T);
                if row < self.panel.n_rows && t < n_tokens {
                    self.panel.finish(row, token + t, result);
                }
            }
        }
    }
}

/// Adds the products of R rows and T tokens to R x T sums of sixteen lanes; asks for the memory `ahead` meanwhile.
#[inline(always)]
fn tile_product<S: Simd, const R: usize, const T: usize>(
    simd: S,
    rows: [&[[f32; LANES]]; R],
    x: [&[[f32; LANES]]; T],
    sums: &mut [[[f32; LANES]; T]],
    ahead: &[[f32; LANES]],
    fresh: bool,
) {
    let mut acc: [[S::F; T]; R] = std::array::from_fn(|r| {
        std::array::from_fn(|t| if fresh { simd.splat(0.0) } else { simd.load(&sums[r][t]) })
    });
    let n = rows[0].len();
    let rows = rows.map(|row| &row[..n]);
    let x = x.map(|x| &x[..n]);
    for k in 0..n {
        if let Some(line) = ahead.get(k) {
            simd.prefetch(line);
        }
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
