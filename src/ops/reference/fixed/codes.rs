//! Rows of blocks as integer codes and their scales: a weight is `scale · code`, or `scale · code + offset`.
//!
//! A row is taken in units of 512 columns, which are sixteen chunks of 32: a number for each chunk is one vector.

use std::array::from_fn;

use bytemuck::Pod;

use crate::ops::reference::simd::{LANES, Simd};
use crate::quant::blocks::*;
use crate::quant::{Block, Half, PackedScales};

/// Columns of a chunk: those of one vector of pairs.
pub(super) const CHUNK: usize = 2 * LANES;
/// Chunks of a unit.
pub(super) const UNIT_CHUNKS: usize = LANES;

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
pub(super) trait Codes: Block {
    /// The blocks of a unit.
    type Unit: Pod;
    /// What belongs to a chunk.
    const GROUPING: Grouping;

    /// The codes of the unit's chunks, from -128 to 127, two to a lane.
    fn codes<S: Simd>(simd: S, unit: &Self::Unit) -> [S::I; UNIT_CHUNKS];

    /// The chunks' scales, then their second scales or their offsets. Each is the exact product of what the file holds.
    fn scales<S: Simd>(simd: S, unit: &Self::Unit) -> [S::F; 2];
}

/// The same i16 twice.
const fn both(value: i32) -> i32 {
    value << 16 | value
}

#[inline(always)]
fn bits(half: Half) -> u16 {
    u16::from_le_bytes(half.0)
}

/// 32 bytes of a longer array.
#[inline(always)]
fn bytes<S: Simd>(simd: S, of: &[u8], number: usize) -> S::I {
    simd.pairs_of_u8(&of.as_chunks::<CHUNK>().0[number])
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

impl Codes for BlockQ4_K {
    type Unit = [Self; 2];
    const GROUPING: Grouping = Grouping::ScaleAndOffset;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, unit: &[Self; 2]) -> [S::I; UNIT_CHUNKS] {
        let mut codes = [simd.splat_pair(&[0; 2]); UNIT_CHUNKS];
        for (block, codes) in unit.iter().zip(codes.as_chunks_mut::<8>().0) {
            for pair in 0..4 {
                let bytes = bytes(simd, &block.qs, pair);
                codes[2 * pair] = simd.and(bytes, both(15));
                codes[2 * pair + 1] = simd.and(simd.shift_right::<4>(bytes), both(15));
            }
        }
        codes
    }
    #[inline(always)]
    fn scales<S: Simd>(simd: S, [a, b]: &[Self; 2]) -> [S::F; 2] {
        affine(simd, [a.d, b.d], [a.dmin, b.dmin], [&a.scales, &b.scales])
    }
}

impl Codes for BlockQ5_K {
    type Unit = [Self; 2];
    const GROUPING: Grouping = Grouping::ScaleAndOffset;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, unit: &[Self; 2]) -> [S::I; UNIT_CHUNKS] {
        let mut codes = [simd.splat_pair(&[0; 2]); UNIT_CHUNKS];
        for (block, codes) in unit.iter().zip(codes.as_chunks_mut::<8>().0) {
            let fifths = simd.shift_left::<4>(bytes(simd, &block.qh, 0));
            let fifth = |chunk: usize| simd.and(simd.shift_right_by(fifths, chunk as u32), both(16));
            for pair in 0..4 {
                let bytes = bytes(simd, &block.qs, pair);
                let (low, high) =
                    (simd.and(bytes, both(15)), simd.and(simd.shift_right::<4>(bytes), both(15)));
                codes[2 * pair] = simd.or(low, fifth(2 * pair));
                codes[2 * pair + 1] = simd.or(high, fifth(2 * pair + 1));
            }
        }
        codes
    }
    #[inline(always)]
    fn scales<S: Simd>(simd: S, [a, b]: &[Self; 2]) -> [S::F; 2] {
        affine(simd, [a.d, b.d], [a.dmin, b.dmin], [&a.scales, &b.scales])
    }
}

impl Codes for BlockQ6_K {
    type Unit = [Self; 2];
    const GROUPING: Grouping = Grouping::TwoScales;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, unit: &[Self; 2]) -> [S::I; UNIT_CHUNKS] {
        let mut codes = [simd.splat_pair(&[0; 2]); UNIT_CHUNKS];
        for (block, codes) in unit.iter().zip(codes.as_chunks_mut::<8>().0) {
            for half in 0..2 {
                let highs = simd.shift_left::<4>(bytes(simd, &block.qh, half));
                for i in 0..2 {
                    let lows = bytes(simd, &block.ql, 2 * half + i);
                    let (low, high) =
                        (simd.and(lows, both(15)), simd.and(simd.shift_right::<4>(lows), both(15)));
                    let two_bits =
                        |shift: usize| simd.and(simd.shift_right_by(highs, shift as u32), both(48));
                    codes[4 * half + i] = simd.sub_pairs(simd.or(low, two_bits(2 * i)), 32);
                    codes[4 * half + 2 + i] = simd.sub_pairs(simd.or(high, two_bits(2 * i + 4)), 32);
                }
            }
        }
        codes
    }
    #[inline(always)]
    fn scales<S: Simd>(simd: S, [a, b]: &[Self; 2]) -> [S::F; 2] {
        let d = two_halves(simd, [a.d, b.d]);
        let of = |i: usize| if i < 16 { a.scales[i] } else { b.scales[i - 16] };
        let (first, second) =
            (simd.load_i8(&from_fn(|i| of(2 * i))), simd.load_i8(&from_fn(|i| of(2 * i + 1))));
        [simd.mul(d, simd.to_float(first)), simd.mul(d, simd.to_float(second))]
    }
}

/// Formats of 32 weights with one scale: the codes of a block.
macro_rules! codes_of_32 {
    ($block:ty, |$simd:ident, $of:ident| $codes:expr) => {
        impl Codes for $block {
            type Unit = [Self; UNIT_CHUNKS];
            const GROUPING: Grouping = Grouping::Scale;

            #[inline(always)]
            fn codes<S: Simd>($simd: S, unit: &Self::Unit) -> [S::I; UNIT_CHUNKS] {
                let mut codes = [$simd.splat_pair(&[0; 2]); UNIT_CHUNKS];
                for ($of, codes) in unit.iter().zip(&mut codes) {
                    *codes = $codes;
                }
                codes
            }
            #[inline(always)]
            fn scales<S: Simd>(simd: S, unit: &Self::Unit) -> [S::F; 2] {
                let mut halves = [0; LANES];
                for (half, block) in halves.iter_mut().zip(unit) {
                    *half = bits(block.d);
                }
                [simd.load_half(&halves), simd.splat(0.0)]
            }
        }
    };
}

codes_of_32!(BlockQ8_0, |simd, block| simd.pairs_of_i8(&block.qs));
codes_of_32!(BlockQ4_0, |simd, block| simd.sub_pairs(simd.pairs_of_nibbles(&block.qs), 8));
// The fifth bit counts 16, less 16: where it is not set, the upper bits are those of -16.
codes_of_32!(BlockQ5_0, |simd, block| {
    let upper = simd.spread_pair_bits(!u32::from_le_bytes(block.qh), -16);
    simd.or(simd.pairs_of_nibbles(&block.qs), upper)
});
