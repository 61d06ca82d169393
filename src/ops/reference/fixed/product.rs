//! The product itself: a few tokens straight from the blocks, many with a panel of unpacked codes.

use crate::ops::MatrixShape;
use crate::ops::reference::ahead::Ahead;
use crate::ops::reference::codes::VECTOR_CODES;
use crate::ops::reference::matmul::{PANEL_FLOATS, Target};
use crate::ops::reference::simd::{InstructionSet, Kernel, LANES, Simd, Tile as Size};
use crate::ops::reference::threads::Queue;
use crate::quant::{Block, blocks_of};

use super::activations::{Activations, FEW_TOKENS, TILE_TOKENS, Tile, Token, class_start, position};
use super::scales::{CHUNK, Grouping, Scales, UNIT_CHUNKS, UNIT_VECTORS};
use super::with_codes;

/// Most weight rows that a thread takes at a time, and the least: whole groups of six.
const PANEL_ROWS: std::ops::RangeInclusive<usize> = 6..=48;
/// Floats that a chunk of a row takes in a panel: 32 codes, a scale, a second scale or offset.
const CHUNK_FLOATS: usize = CHUNK / 2 + 2;
/// How far ahead of the blocks at hand memory is asked for.
const AHEAD_BYTES: usize = 4096;
/// Most tiles of tokens that are multiplied side by side.
const MOST_TILES: usize = 2;

/// One product.
#[derive(Clone, Copy)]
pub(in crate::ops::reference) struct Product<'a> {
    pub x: Activations<'a>,
    pub shape: MatrixShape,
    /// The matrix, as it lies in the file.
    pub blocks: &'a [u8],
}

/// What one of several threads does for a product with a matrix of a format that [`super::takes`]: it takes rows until
/// none is left. `scratch` is as long as for a product in f32.
pub(in crate::ops::reference) fn work(
    set: InstructionSet,
    product: Product<'_>,
    rows: &Queue,
    scratch: &mut [f32],
    target: Target<'_>,
) {
    with_codes!(product.shape.format, B => work_of::<B>(set, product, rows, scratch, target), else {});
}

/// Weight rows of so many chunks that a thread takes at a time.
fn panel_rows(n_chunks: usize) -> usize {
    (PANEL_FLOATS / (n_chunks * CHUNK_FLOATS).max(1) / 6 * 6).clamp(*PANEL_ROWS.start(), *PANEL_ROWS.end())
}

fn work_of<B: Scales>(
    set: InstructionSet,
    product: Product<'_>,
    rows: &Queue,
    scratch: &mut [f32],
    target: Target<'_>,
) {
    let Some(blocks) = blocks_of::<B>(product.blocks) else { return };
    let blocks_per_row = product.shape.n_cols / B::ELEMENTS;
    let n_chunks = product.x.n_chunks();
    let panel_rows = panel_rows(n_chunks);
    let are_few = product.x.n_tokens <= FEW_TOKENS;
    let take = || if are_few { rows.take_share(LANES) } else { rows.take(panel_rows) };
    while let Some(rows) = take() {
        let first = rows.start;
        let blocks = &blocks[first * blocks_per_row..rows.end * blocks_per_row];
        if are_few {
            let bytes = &product.blocks[first * blocks_per_row * size_of::<B>()..];
            let ahead = Ahead::new(bytes, AHEAD_BYTES);
            set.run(FewTokens { x: product.x, blocks, blocks_per_row, ahead, first, target });
        } else {
            let (sums, rest) = scratch.split_at_mut(panel_rows * MOST_TILES * TILE_TOKENS);
            let panel = Panel::new(rest, rows.len(), n_chunks);
            set.run(ManyTokens { x: product.x, blocks, panel, sums, first, target });
        }
    }
}

/// Blocks of a unit.
const fn unit_blocks<B: Block>() -> usize {
    UNIT_CHUNKS * CHUNK / B::ELEMENTS
}

/// The product of a few tokens: the classes of a row's sum are the lanes of a vector.
struct FewTokens<'a, B> {
    x: Activations<'a>,
    blocks: &'a [B],
    blocks_per_row: usize,
    ahead: Ahead<'a>,
    /// The first row's number in the matrix.
    first: usize,
    target: Target<'a>,
}

impl<B: Scales> Kernel for FewTokens<'_, B> {
    type Output = ();
    const DOTS: bool = true;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.x.n_tokens {
            1 => self.tokens::<S, 1>(simd),
            _ => self.tokens::<S, FEW_TOKENS>(simd),
        }
    }
}

impl<B: Scales> FewTokens<'_, B> {
    /// All rows for up to T tokens.
    #[inline(always)]
    fn tokens<S: Simd, const T: usize>(mut self, simd: S) {
        let n_tokens = if T == 1 { 1 } else { self.x.n_tokens.min(T) };
        let tokens: [Token<'_>; T] = std::array::from_fn(|t| self.x.token(t.min(n_tokens - 1)));
        for (i, rows) in self.blocks.chunks(LANES * self.blocks_per_row).enumerate() {
            // The classes of each row, for each token.
            let mut classes = [[simd.splat(0.0); LANES]; T];
            for (row, blocks) in rows.chunks_exact(self.blocks_per_row).enumerate() {
                let sums: [S::F; T] = self.row(simd, blocks, &tokens[..n_tokens]);
                for (classes, sums) in classes.iter_mut().zip(sums) {
                    classes[row] = sums;
                }
            }
            let n_rows = rows.len() / self.blocks_per_row;
            for (t, classes) in classes.iter().enumerate().take(n_tokens) {
                let mut sums = simd.splat(0.0);
                for class in simd.transpose(classes) {
                    sums = simd.add(sums, class);
                }
                let mut results = [0.0; LANES];
                simd.store(sums, &mut results);
                for (row, &result) in results.iter().enumerate().take(n_rows) {
                    self.target.finish(self.first + i * LANES + row, t, result);
                }
            }
        }
    }

    /// The classes of a row's sum for each token.
    #[inline(always)]
    fn row<S: Simd, const T: usize>(&mut self, simd: S, blocks: &[B], tokens: &[Token<'_>]) -> [S::F; T] {
        let mut sums = [simd.splat(0.0); T];
        let (units, last) = blocks.split_at(blocks.len() / unit_blocks::<B>() * unit_blocks::<B>());
        for (i, unit) in units.chunks_exact(unit_blocks::<B>()).enumerate() {
            self.ahead.advance(simd, size_of::<B>() * unit_blocks::<B>());
            add_unit(simd, unit, UNIT_VECTORS, (tokens, i), &mut sums);
        }
        if !last.is_empty() {
            self.ahead.advance(simd, size_of_val(last));
            let n_vectors = (last.len() * B::ELEMENTS).div_ceil(VECTOR_CODES);
            add_unit(simd, last, n_vectors, (tokens, units.len() / unit_blocks::<B>()), &mut sums);
        }
        sums
    }
}

/// Adds the chunks of unit `i`, each to its class, for each token; the unit's codes fill so many vectors.
#[inline(always)]
fn add_unit<S: Simd, B: Scales>(
    simd: S,
    unit: &[B],
    n_vectors: usize,
    (tokens, i): (&[Token<'_>], usize),
    sums: &mut [S::F],
) {
    let mut codes = [simd.splat_integer(0); UNIT_VECTORS];
    for (number, codes) in codes.iter_mut().enumerate().take(n_vectors) {
        *codes = B::codes(simd, unit, number);
    }
    let scales = B::scales(simd, unit);
    for (token, sums) in tokens.iter().zip(sums) {
        *sums = add_token::<S, B>(simd, &codes, scales, (token, i), *sums);
    }
}

/// Adds the chunks of unit `i` for one token.
#[inline(always)]
fn add_token<S: Simd, B: Scales>(
    simd: S,
    codes: &[S::I; UNIT_VECTORS],
    [scales, others]: [S::F; 2],
    (token, i): (&Token<'_>, usize),
    sums: S::F,
) -> S::F {
    let mut products = *codes;
    for (codes, [upper, lower]) in products.iter_mut().zip(&token.codes[i]) {
        let product = simd.dot_bytes(B::BITS, simd.splat_integer(0), *codes, simd.load_bytes(upper));
        *codes = simd.dot_bytes(B::BITS, simd.shift_left(product, 8), *codes, simd.load_bytes(lower));
    }
    let mut integers = simd.quarter_sums(&products);
    if B::BIAS > 0 {
        for (integers, sums) in integers.iter_mut().zip(&token.sums[i]) {
            let bias = simd.shift_left(simd.load_integers(sums), B::BIAS.ilog2());
            *integers = simd.sub_integers(*integers, bias);
        }
    }
    let [first, second] = integers;
    let x_scales = simd.load(&token.scales[i]);
    let add = |integers: S::I, scales: S::F, sums: S::F| {
        simd.fused_mul_add(simd.to_float(integers), simd.mul(scales, x_scales), sums)
    };
    match B::GROUPING {
        Grouping::Scale => add(simd.add_integers(first, second), scales, sums),
        Grouping::TwoScales => add(second, others, add(first, scales, sums)),
        Grouping::ScaleAndOffset => {
            let sums = add(simd.add_integers(first, second), scales, sums);
            let [first, second] = token.sums[i].map(|sums| simd.load_integers(&sums));
            let x_sums = simd.mul(simd.to_float(simd.add_integers(first, second)), x_scales);
            simd.fused_mul_add(others, x_sums, sums)
        }
    }
}

/// Unpacked rows, chunks by `position`.
struct Panel<'a> {
    n_rows: usize,
    n_chunks: usize,
    /// `[rows, chunks]`: sixteen pairs each.
    codes: &'a mut [[[i16; 2]; LANES]],
    /// `[rows, chunks]`.
    scales: &'a mut [f32],
    /// Second scales, or offsets: `[rows, chunks]`.
    others: &'a mut [f32],
}

/// Some chunks of a row of a panel.
#[derive(Clone, Copy)]
struct Row<'a> {
    codes: &'a [[[i16; 2]; LANES]],
    scales: &'a [f32],
    others: &'a [f32],
}

impl<'a> Panel<'a> {
    fn new(memory: &'a mut [f32], n_rows: usize, n_chunks: usize) -> Self {
        let n = n_rows * n_chunks;
        let (codes, rest) = memory.split_at_mut(n * CHUNK / 2);
        let (scales, rest) = rest.split_at_mut(n);
        Self { n_rows, n_chunks, codes: bytemuck::cast_slice_mut(codes), scales, others: &mut rest[..n] }
    }

    /// Unpacks all rows.
    #[inline(always)]
    fn unpack<S: Simd, B: Scales>(&mut self, simd: S, blocks: &[B]) {
        for (row, blocks) in blocks.chunks_exact(blocks.len() / self.n_rows).enumerate() {
            for (i, unit) in blocks.chunks(unit_blocks::<B>()).enumerate() {
                let [scales, others] = B::scales(simd, unit).map(|numbers| {
                    let mut stored = [0.0; UNIT_CHUNKS];
                    simd.store(numbers, &mut stored);
                    stored
                });
                for vector in 0..(unit.len() * B::ELEMENTS).div_ceil(VECTOR_CODES) {
                    let codes = B::signed_codes(simd, unit, vector);
                    for (half, codes) in codes.as_chunks::<CHUNK>().0.iter().enumerate() {
                        let chunk = 2 * vector + half;
                        if i * UNIT_CHUNKS + chunk < self.n_chunks {
                            let at = row * self.n_chunks + position(i * UNIT_CHUNKS + chunk, self.n_chunks);
                            simd.store_pairs(
                                simd.pairs_of_i8(codes),
                                bytemuck::cast_mut(&mut self.codes[at]),
                            );
                            (self.scales[at], self.others[at]) = (scales[chunk], others[chunk]);
                        }
                    }
                }
            }
        }
    }

    /// Chunks of a row; rows beyond the last repeat it.
    #[inline(always)]
    fn row(&self, row: usize, positions: std::ops::Range<usize>) -> Row<'_> {
        let first = row.min(self.n_rows - 1) * self.n_chunks;
        let range = first + positions.start..first + positions.end;
        Row {
            codes: &self.codes[range.clone()],
            scales: &self.scales[range.clone()],
            others: &self.others[range],
        }
    }
}

/// The product of any number of tokens, sixteen to a vector: class after class, all rows of the panel for each.
struct ManyTokens<'a, B> {
    x: Activations<'a>,
    blocks: &'a [B],
    panel: Panel<'a>,
    /// `[rows, tiles, tokens]`: the sums over the classes so far.
    sums: &'a mut [f32],
    /// The first row's number in the matrix.
    first: usize,
    target: Target<'a>,
}

impl<B: Scales> Kernel for ManyTokens<'_, B> {
    type Output = ();
    const DOTS: bool = true;
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.panel.unpack::<S, B>(simd, self.blocks);
        let n_tiles = self.x.n_tiles();
        match S::TILE {
            Size::Large => {
                for tile in (0..n_tiles - n_tiles % MOST_TILES).step_by(MOST_TILES) {
                    self.tiles::<S, 6, MOST_TILES>(simd, tile);
                }
                if !n_tiles.is_multiple_of(MOST_TILES) {
                    self.tiles::<S, 6, 1>(simd, n_tiles - 1);
                }
            }
            Size::Small => {
                for tile in 0..n_tiles {
                    self.tiles::<S, 2, 1>(simd, tile);
                }
            }
        }
    }
}

impl<B: Scales> ManyTokens<'_, B> {
    /// All rows for T tiles of tokens, R rows at a time.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize>(&mut self, simd: S, tile: usize) {
        let (n_rows, n_chunks) = (self.panel.n_rows, self.panel.n_chunks);
        let sums = self.sums.as_chunks_mut::<TILE_TOKENS>().0.as_chunks_mut::<T>().0;
        let sums = &mut sums[..n_rows.next_multiple_of(R)];
        sums.fill([[0.0; TILE_TOKENS]; T]);
        for class in 0..UNIT_CHUNKS.min(n_chunks) {
            let positions = class_start(class, n_chunks)..class_start(class + 1, n_chunks);
            let x: [Tile<'_>; T] = std::array::from_fn(|t| self.x.tile(tile + t, positions.clone()));
            for (i, sums) in sums.chunks_exact_mut(R).enumerate() {
                let rows: [Row<'_>; R] =
                    std::array::from_fn(|r| self.panel.row(i * R + r, positions.clone()));
                add_class::<S, B, R, T>(simd, rows, x, sums);
            }
        }
        for t in 0..T {
            let first = (tile + t) * TILE_TOKENS;
            for lane in 0..TILE_TOKENS.min(self.x.n_tokens - first) {
                for (row, sums) in sums.iter().enumerate().take(n_rows) {
                    self.target.finish(self.first + row, first + lane, sums[t][lane]);
                }
            }
        }
    }
}

/// Adds a class of chunks of R rows and T tiles to their sums.
#[inline(always)]
fn add_class<S: Simd, B: Scales, const R: usize, const T: usize>(
    simd: S,
    rows: [Row<'_>; R],
    x: [Tile<'_>; T],
    sums: &mut [[[f32; TILE_TOKENS]; T]],
) {
    let n = x[0].codes.len();
    let x = x.map(|x| Tile { codes: &x.codes[..n], scales: &x.scales[..n], sums: &x.sums[..n] });
    let rows =
        rows.map(|row| Row { codes: &row.codes[..n], scales: &row.scales[..n], others: &row.others[..n] });
    let mut class = [[simd.splat(0.0); T]; R];
    for chunk in 0..n {
        let groups = if B::GROUPING == Grouping::TwoScales { 2 } else { 1 };
        for group in 0..groups {
            let mut integers = [[simd.splat_pair(&[0; 2]); T]; R];
            for pair in group * LANES / groups..(group + 1) * LANES / groups {
                let x: [S::I; T] = std::array::from_fn(|t| simd.load_pairs(&x[t].codes[chunk][pair]));
                for r in 0..R {
                    let weights = simd.splat_pair(&rows[r].codes[chunk][pair]);
                    for t in 0..T {
                        integers[r][t] = simd.dot_pairs(integers[r][t], weights, x[t]);
                    }
                }
            }
            for t in 0..T {
                let x_scales = simd.load(&x[t].scales[chunk]);
                for r in 0..R {
                    let scales = if group == 0 { rows[r].scales } else { rows[r].others };
                    let scales = simd.mul(simd.splat(scales[chunk]), x_scales);
                    class[r][t] = simd.fused_mul_add(simd.to_float(integers[r][t]), scales, class[r][t]);
                }
            }
        }
        if B::GROUPING == Grouping::ScaleAndOffset {
            for t in 0..T {
                let x_sums = simd.load(&x[t].sums[chunk]);
                for r in 0..R {
                    class[r][t] = simd.fused_mul_add(simd.splat(rows[r].others[chunk]), x_sums, class[r][t]);
                }
            }
        }
    }
    for (class, sums) in class.iter().zip(sums) {
        for (class, sum) in class.iter().zip(sums) {
            simd.store(simd.add(simd.load(sum), *class), sum);
        }
    }
}
