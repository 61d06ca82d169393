//! What belongs to the codes of a row's blocks: scales and offsets.
//!
//! A row is taken in units of 512 columns, which are sixteen chunks of 32: a number for each chunk is one vector.

use std::array::from_fn;

use bytemuck::Zeroable;

use crate::ops::reference::codes::{Codes, VECTOR_CODES};
use crate::ops::reference::simd::{LANES, Simd};
use crate::quant::blocks::*;
use crate::quant::{Half, PackedScales};

/// Columns of a chunk.
pub(super) const CHUNK: usize = 2 * LANES;
/// Chunks of a unit.
pub(super) const UNIT_CHUNKS: usize = LANES;
/// Vectors that a unit's codes fill.
pub(super) const UNIT_VECTORS: usize = UNIT_CHUNKS * CHUNK / VECTOR_CODES;

/// What belongs to a chunk beside its codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    /// One scale.
    Scale,
    /// A scale for its first sixteen columns, and a second one for the others.
    TwoScales,
    /// One scale, and an offset that is added to each weight.
    ScaleAndOffset,
}

/// A block type whose products are made of integers.
pub(super) trait Scales: Codes {
    /// What belongs to a chunk.
    const GROUPING: Grouping;

    /// The scales of a unit's chunks, then their second scales or their offsets: the exact products of what the file
    /// holds. Chunks that the row has no blocks for have zeros.
    fn scales<S: Simd>(simd: S, blocks: &[Self]) -> [S::F; 2];
}

#[inline(always)]
fn bits(half: Half) -> u16 {
    u16::from_le_bytes(half.0)
}

/// Numbers of two blocks side by side.
#[inline(always)]
fn two_halves<S: Simd>(simd: S, halves: [Half; 2]) -> S::F {
    simd.load_half(&from_fn(|i| bits(halves[i / 8])))
}

/// `d · scale`, and `-dmin · minimum`, of two blocks of Q4_K or Q5_K.
#[inline(always)]
fn affine<S: Simd>(simd: S, d: [Half; 2], dmin: [Half; 2], packed: [&PackedScales; 2]) -> [S::F; 2] {
    let unpacked = packed.map(PackedScales::unpack);
    let scales = simd.load_u8(&from_fn(|i| unpacked[i / 8].0[i % 8]));
    let minima = simd.load_u8(&from_fn(|i| unpacked[i / 8].1[i % 8]));
    let minima = simd.mul(two_halves(simd, dmin), simd.to_float(minima));
    [simd.mul(two_halves(simd, d), simd.to_float(scales)), simd.sub(simd.splat(0.0), minima)]
}

macro_rules! affine_scales {
    ($($block:ty),*) => {$(
        impl Scales for $block {
            const GROUPING: Grouping = Grouping::ScaleAndOffset;

            #[inline(always)]
            fn scales<S: Simd>(simd: S, blocks: &[Self]) -> [S::F; 2] {
                let none = Self::zeroed();
                let (a, b) = (&blocks[0], blocks.get(1).unwrap_or(&none));
                affine(simd, [a.d, b.d], [a.dmin, b.dmin], [&a.scales, &b.scales])
            }
        }
    )*};
}

affine_scales!(BlockQ4_K, BlockQ5_K);

impl Scales for BlockQ6_K {
    const GROUPING: Grouping = Grouping::TwoScales;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, blocks: &[Self]) -> [S::F; 2] {
        let none = Self::zeroed();
        let (a, b) = (&blocks[0], blocks.get(1).unwrap_or(&none));
        let d = two_halves(simd, [a.d, b.d]);
        let of = |i: usize| if i < 16 { a.scales[i] } else { b.scales[i - 16] };
        let (first, second) =
            (simd.load_i8(&from_fn(|i| of(2 * i))), simd.load_i8(&from_fn(|i| of(2 * i + 1))));
        [simd.mul(d, simd.to_float(first)), simd.mul(d, simd.to_float(second))]
    }
}

/// Formats of 32 weights with one scale.
macro_rules! scales_of_32 {
    ($($block:ty),*) => {$(
        impl Scales for $block {
            const GROUPING: Grouping = Grouping::Scale;

            #[inline(always)]
            fn scales<S: Simd>(simd: S, blocks: &[Self]) -> [S::F; 2] {
                let mut halves = [0; LANES];
                for (half, block) in halves.iter_mut().zip(blocks) {
                    *half = bits(block.d);
                }
                [simd.load_half(&halves), simd.splat(0.0)]
            }
        }
    )*};
}

scales_of_32!(BlockQ4_0, BlockQ5_0, BlockQ8_0);
