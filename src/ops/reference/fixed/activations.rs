//! Activations as 16-bit fixed point: `x = scale · code`, one scale for a token and 256 columns.
//!
//! The numbers are those that the CUDA kernels make (`kernels/include/quantize.cuh`): `scale = largest |x| / 32512`,
//! codes rounded to the nearest; a block whose largest value is below 2^-100 is zero; what is infinite or not a number
//! stands in the scale alone, with codes of zero, so that products are not numbers either.

use crate::ops::reference::codes::VECTOR_CODES;
use crate::ops::reference::simd::{InstructionSet, Kernel, LANES, Simd};
use crate::ops::reference::threads::Workers;

use super::scales::{CHUNK, UNIT_CHUNKS, UNIT_VECTORS};

/// Columns under one scale.
const BLOCK: usize = 256;
/// Chunks of a block.
const BLOCK_CHUNKS: usize = BLOCK / CHUNK;
/// The largest code: 127 · 256, as in the kernels, so that a code is two signed bytes.
const LARGEST_CODE: f32 = 32512.0;
/// 2^-100: below it a scale would come near the subnormal numbers.
const SMALLEST_LARGEST: f32 = 7.888_609e-31;
/// 1.5 · 2^23: a single of this size has no bits below the units.
const ROUND: f32 = 12_582_912.0;
/// Tokens up to which each stands by itself, for products straight from the blocks.
pub(super) const FEW_TOKENS: usize = 4;
/// Tokens of a tile: one to a lane.
pub(super) const TILE_TOKENS: usize = LANES;
/// Floats that a chunk of a token takes at most: 32 codes, a scale, two sums.
const CHUNK_FLOATS: usize = CHUNK / 2 + 3;

/// Chunks of a token in memory: whole units.
fn padded_chunks(n_columns: usize) -> usize {
    n_columns.div_ceil(CHUNK).next_multiple_of(UNIT_CHUNKS)
}

/// Tokens in memory: whole tiles, unless they are few.
fn padded_tokens(n_tokens: usize) -> usize {
    if n_tokens <= FEW_TOKENS { n_tokens } else { n_tokens.next_multiple_of(TILE_TOKENS) }
}

/// Floats of memory for so many tokens of so many columns.
pub(in crate::ops::reference) fn floats(n_tokens: usize, n_columns: usize) -> usize {
    padded_tokens(n_tokens).saturating_mul(padded_chunks(n_columns) * CHUNK_FLOATS)
}

/// Where a chunk stands among `n_chunks` in a tile or in a panel of weights: one class after another, class j holding
/// chunks j, j + 16, j + 32 and so on.
#[inline(always)]
pub(super) fn position(chunk: usize, n_chunks: usize) -> usize {
    class_start(chunk % UNIT_CHUNKS, n_chunks) + chunk / UNIT_CHUNKS
}

/// The position of a class's first chunk; that of class 16 is the number of chunks.
#[inline(always)]
pub(super) fn class_start(class: usize, n_chunks: usize) -> usize {
    class * (n_chunks / UNIT_CHUNKS) + class.min(n_chunks % UNIT_CHUNKS)
}

/// Activations of some tokens. Up to four stand token by token, chunks in order; more stand in tiles of sixteen tokens,
/// chunks by `position`.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops::reference) struct Activations<'a> {
    pub(super) n_tokens: usize,
    n_columns: usize,
    codes: &'a [i16],
    scales: &'a [f32],
    /// Of tiles as in [`Tile`]; of single tokens the bits of those in [`Token`].
    sums: &'a [f32],
}

/// One token, unit by unit.
#[derive(Clone, Copy)]
pub(super) struct Token<'a> {
    /// Codes as bytes, `256 · upper + lower`, both signed: the upper ones of 64 columns, then the lower ones.
    pub codes: &'a [[[[u8; VECTOR_CODES]; 2]; UNIT_VECTORS]],
    /// The scale of each chunk.
    pub scales: &'a [[f32; UNIT_CHUNKS]],
    /// `Σ code` of each chunk's first sixteen columns, then of its others.
    pub sums: &'a [[[i32; UNIT_CHUNKS]; 2]],
}

/// Some chunks of sixteen tokens.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// For each chunk and each two columns a pair of codes of each token.
    pub codes: &'a [[[i16; CHUNK]; LANES]],
    /// For each chunk the scale of each token.
    pub scales: &'a [[f32; TILE_TOKENS]],
    /// For each chunk `scale · Σ code` of each token.
    pub sums: &'a [[f32; TILE_TOKENS]],
}

impl<'a> Activations<'a> {
    /// Turns `x`, `[n_tokens, stride]`, of which `n_columns` count, into fixed point in `memory`, which has as many
    /// [`floats`] as that takes.
    pub(in crate::ops::reference) fn new(
        workers: &Workers,
        set: InstructionSet,
        (x, n_tokens, n_columns): (&[f32], usize, usize),
        memory: &'a mut [f32],
    ) -> Self {
        let n_chunks = padded_tokens(n_tokens) * padded_chunks(n_columns);
        let (part, sums_per_chunk) = if n_tokens <= FEW_TOKENS { (1, 2) } else { (TILE_TOKENS, 1) };
        let (codes, rest) = memory.split_at_mut(n_chunks * CHUNK / 2);
        let (scales, rest) = rest.split_at_mut(n_chunks);
        let (codes, sums) = (bytemuck::cast_slice_mut(codes), &mut rest[..n_chunks * sums_per_chunk]);
        let stride = x.len() / n_tokens;
        let each = part * padded_chunks(n_columns);
        let parts = x
            .chunks(part * stride)
            .zip(codes.chunks_exact_mut(each * CHUNK))
            .zip(scales.chunks_exact_mut(each))
            .zip(sums.chunks_exact_mut(each * sums_per_chunk));
        workers.for_each(parts, |(((x, codes), scales), sums)| {
            set.run(Quantize { x, stride, n_columns, n_tokens: part, into: Chunks { codes, scales, sums } });
        });
        Self { n_tokens, n_columns, codes, scales, sums }
    }

    /// Chunks that count.
    pub(super) fn n_chunks(&self) -> usize {
        self.n_columns / CHUNK
    }
    /// One of few tokens.
    pub(super) fn token(&self, token: usize) -> Token<'a> {
        let n = padded_chunks(self.n_columns);
        let codes: &[u8] = bytemuck::cast_slice(&self.codes[token * n * CHUNK..][..n * CHUNK]);
        let sums: &[i32] = bytemuck::cast_slice(&self.sums[2 * token * n..][..2 * n]);
        Token {
            codes: codes.as_chunks::<VECTOR_CODES>().0.as_chunks::<2>().0.as_chunks::<UNIT_VECTORS>().0,
            scales: self.scales[token * n..][..n].as_chunks::<UNIT_CHUNKS>().0,
            sums: sums.as_chunks::<UNIT_CHUNKS>().0.as_chunks::<2>().0,
        }
    }
    /// Tiles of many tokens.
    pub(super) fn n_tiles(&self) -> usize {
        self.n_tokens.div_ceil(TILE_TOKENS)
    }
    /// The chunks at some positions of a tile.
    #[inline(always)]
    pub(super) fn tile(&self, tile: usize, positions: std::ops::Range<usize>) -> Tile<'a> {
        let first = tile * padded_chunks(self.n_columns);
        let range = first + positions.start..first + positions.end;
        Tile {
            codes: &self.codes.as_chunks::<CHUNK>().0.as_chunks::<LANES>().0[range.clone()],
            scales: &self.scales.as_chunks::<TILE_TOKENS>().0[range.clone()],
            sums: &self.sums.as_chunks::<TILE_TOKENS>().0[range],
        }
    }
}

/// The chunks of one or of sixteen tokens, to be filled.
struct Chunks<'a> {
    codes: &'a mut [i16],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Chunks<'_> {
    /// Writes a chunk of the only token.
    #[inline(always)]
    fn set(&mut self, chunk: usize, codes: &[i16; CHUNK], scale: f32) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.codes);
        let vector = &mut bytes.as_chunks_mut::<CHUNK>().0[chunk / 2 * 4..][..4];
        vector[chunk % 2] = codes.map(|code| ((code + 128) >> 8) as u8);
        vector[2 + chunk % 2] = codes.map(|code| code as u8);
        self.scales[chunk] = scale;
        let sums = &mut self.sums[chunk / UNIT_CHUNKS * 2 * UNIT_CHUNKS + chunk % UNIT_CHUNKS..];
        for (half, codes) in codes.as_chunks::<{ CHUNK / 2 }>().0.iter().enumerate() {
            sums[half * UNIT_CHUNKS] = f32::from_bits(sum(codes) as u32);
        }
    }
    /// Writes a chunk of one of sixteen tokens.
    #[inline(always)]
    fn set_in_tile(&mut self, token: usize, position: usize, codes: &[i16; CHUNK], scale: f32) {
        let into = &mut self.codes[position * CHUNK * TILE_TOKENS..][..CHUNK * TILE_TOKENS];
        for (pair, into) in codes.as_chunks::<2>().0.iter().zip(into.as_chunks_mut::<CHUNK>().0) {
            into[2 * token..2 * token + 2].copy_from_slice(pair);
        }
        self.scales[position * TILE_TOKENS + token] = scale;
        self.sums[position * TILE_TOKENS + token] = sum(codes) as f32 * scale;
    }
}

#[inline(always)]
fn sum(codes: &[i16]) -> i32 {
    codes.iter().map(|code| i32::from(*code)).sum()
}

/// Turns one token, or up to sixteen of a tile, into fixed point; tokens that are missing become zeros.
struct Quantize<'a> {
    /// `[up to n_tokens, stride]`.
    x: &'a [f32],
    stride: usize,
    n_columns: usize,
    /// Tokens of a part.
    n_tokens: usize,
    into: Chunks<'a>,
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let n_chunks = self.n_columns / CHUNK;
        for first in (0..padded_chunks(self.n_columns)).step_by(BLOCK_CHUNKS) {
            for token in 0..self.n_tokens {
                let row = self
                    .x
                    .get(token * self.stride..)
                    .and_then(|row| row.get(..self.n_columns))
                    .unwrap_or(&[]);
                let (mut values, start) = ([0.0; BLOCK], (first * CHUNK).min(row.len()));
                let present = &row[start..row.len().min(start + BLOCK)];
                values[..present.len()].copy_from_slice(present);
                let (codes, scale) = quantize(&values);
                for (i, codes) in codes.as_chunks::<CHUNK>().0.iter().enumerate() {
                    if self.n_tokens == 1 {
                        self.into.set(first + i, codes, scale);
                    } else if first + i < n_chunks {
                        self.into.set_in_tile(token, position(first + i, n_chunks), codes, scale);
                    }
                }
            }
        }
    }
}

/// The codes of a block and their scale.
#[inline(always)]
fn quantize(values: &[f32; BLOCK]) -> ([i16; BLOCK], f32) {
    // Bits without the sign are in the order of magnitudes, with what is not a number last.
    let mut largest = 0;
    for value in values {
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    let mut largest = f32::from_bits(largest);
    if largest < SMALLEST_LARGEST {
        largest = 0.0;
    }
    let mut codes = [0; BLOCK];
    if largest > 0.0 && largest <= f32::MAX {
        let inverse = LARGEST_CODE / largest;
        for (code, value) in codes.iter_mut().zip(values) {
            // The lowest sixteen bits of the sum are the nearest integer, ties to even.
            *code = (value * inverse + ROUND).to_bits() as i16;
        }
    }
    (codes, largest / LARGEST_CODE)
}
