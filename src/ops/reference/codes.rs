//! Blocks as integer codes: a weight is `scale · (code - bias)`, or `scale · code + offset`.
//!
//! Codes are unpacked as bytes, a vector at a time; what is made of them is its user's: products of integers (`fixed`) or
//! weights in f32 (`unpack`).

use bytemuck::Zeroable;

use crate::quant::Block;
use crate::quant::blocks::*;

use super::simd::{LANES, Simd};

/// Codes of a vector: four to a lane.
pub(super) const VECTOR_CODES: usize = 4 * LANES;

/// A block type whose weights have integer codes.
pub(super) trait Codes: Block {
    /// What is taken from a code.
    const BIAS: u8 = 0;
    /// Bits of a code.
    const BITS: u32;

    /// Codes `64 · number` to `64 · number + 63` of some blocks of a row; beyond the last block they are zero or nothing
    /// that counts.
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I;

    /// The same with the bias taken away, in memory: a byte is widened at a load, where it costs least.
    #[inline(always)]
    fn signed_codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> [i8; VECTOR_CODES] {
        let codes = Self::codes(simd, blocks, number);
        let signed = if Self::BIAS == 0 { codes } else { simd.add_bytes(codes, Self::BIAS.wrapping_neg()) };
        let mut bytes = [0; VECTOR_CODES];
        simd.store_bytes(signed, &mut bytes);
        bytemuck::cast(bytes)
    }
}

/// The same byte four times.
const fn four(byte: u8) -> i32 {
    i32::from_le_bytes([byte; 4])
}

/// Some bytes of a longer array.
#[inline(always)]
fn part<const N: usize>(of: &[u8], number: usize) -> &[u8; N] {
    &of.as_chunks::<N>().0[number]
}

/// Of 32 bytes the lower halves, then the upper ones.
#[inline(always)]
fn both_nibbles<S: Simd>(simd: S, bytes: &[u8; 32]) -> S::I {
    simd.and(simd.rotate_halves(simd.load_halves([bytes; 2]), [0, 28]), four(15))
}

impl Codes for BlockQ4_K {
    const BITS: u32 = 4;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I {
        both_nibbles(simd, part(&blocks[number / 4].qs, number % 4))
    }
}

impl Codes for BlockQ5_K {
    const BITS: u32 = 5;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I {
        let (block, number) = (&blocks[number / 4], number % 4);
        // Bit i of a byte of `qh` belongs to the block's chunk i of 32.
        let left = 32 + 4 - 2 * number as u32;
        let fifth = simd.rotate_halves(simd.load_halves([&block.qh; 2]), [left % 32, (left - 1) % 32]);
        simd.or(both_nibbles(simd, part(&block.qs, number)), simd.and(fifth, four(16)))
    }
}

impl Codes for BlockQ6_K {
    const BIAS: u8 = 32;
    const BITS: u32 = 6;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I {
        let (block, half, upper) = (&blocks[number / 4], number % 4 / 2, number % 2 == 1);
        let low = simd.load_bytes(part(&block.ql, half));
        let low = if upper { simd.shift_right::<4>(low) } else { low };
        // A byte of `qh` holds the upper two bits of four codes, 32 apart.
        let left = if upper { [0, 30] } else { [4, 2] };
        let high = simd.rotate_halves(simd.load_halves([part(&block.qh, half); 2]), left);
        simd.or(simd.and(low, four(15)), simd.and(high, four(48)))
    }
}

impl Codes for BlockQ4_0 {
    const BIAS: u8 = 8;
    const BITS: u32 = 4;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I {
        let none = Self::zeroed();
        let (a, b) = (&blocks[2 * number], blocks.get(2 * number + 1).unwrap_or(&none));
        simd.nibbles([&a.qs, &b.qs])
    }
}

impl Codes for BlockQ5_0 {
    const BIAS: u8 = 16;
    const BITS: u32 = 5;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I {
        let none = Self::zeroed();
        let (a, b) = (&blocks[2 * number], blocks.get(2 * number + 1).unwrap_or(&none));
        let fifth = u64::from(u32::from_le_bytes(a.qh)) | u64::from(u32::from_le_bytes(b.qh)) << 32;
        simd.or(simd.nibbles([&a.qs, &b.qs]), simd.spread_byte_bits(fifth, 16))
    }
}

impl Codes for BlockQ8_0 {
    const BIAS: u8 = 128;
    const BITS: u32 = 8;

    #[inline(always)]
    fn codes<S: Simd>(simd: S, blocks: &[Self], number: usize) -> S::I {
        let none = Self::zeroed();
        let (a, b) = (&blocks[2 * number], blocks.get(2 * number + 1).unwrap_or(&none));
        simd.add_bytes(simd.load_halves([bytemuck::cast_ref(&a.qs), bytemuck::cast_ref(&b.qs)]), 128)
    }
}
