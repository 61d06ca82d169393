//! Rows of blocks as vectors of sixteen weights, to the bits of [`Block::dequantize`].
//!
//! The formats that matter most are unpacked in registers; the others go through `dequantize` and memory.

use std::array::from_fn;

use crate::quant::Block;
use crate::quant::blocks::*;

use super::simd::{LANES, Simd, load_padded};

/// Takes weights, sixteen at a time and in order; implementations are `#[inline(always)]`.
pub(super) trait Sink<S: Simd> {
    /// Weights `16 · index` to `16 · index + 15` of the row; beyond its end they are zero.
    fn push(&mut self, index: usize, weights: S::F);
}

/// A block type whose rows can be had in vectors.
pub(super) trait Unpack: Block {
    /// Whether weights are unpacked in registers, so that a product may take them straight from the blocks.
    const IN_REGISTERS: bool = false;

    /// Pushes the weights of consecutive blocks, numbered from `first` on.
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        let mut values = [0.0; 256];
        let values = &mut values[..Self::ELEMENTS];
        for (b, block) in blocks.iter().enumerate() {
            block.dequantize(values);
            for (j, weights) in values.as_chunks::<LANES>().0.iter().enumerate() {
                sink.push(first + b * (Self::ELEMENTS / LANES) + j, simd.load(weights));
            }
        }
    }
}

impl Unpack for BlockQ4_1 {}
impl Unpack for BlockQ5_1 {}
impl Unpack for BlockQ2_K {}
impl Unpack for BlockQ3_K {}
impl Unpack for BlockQ8_K {}
impl Unpack for BlockIQ4_NL {}
impl Unpack for BlockIQ4_XS {}

/// Rows of single floats: sixteen are read at a time, the last ones padded with zeros.
macro_rules! unpack_floats {
    ($block:ty, |$simd:ident, $sixteen:ident| $load:expr) => {
        impl Unpack for $block {
            const IN_REGISTERS: bool = true;

            #[inline(always)]
            fn unpack<S: Simd>($simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
                let (whole, rest) = blocks.as_chunks::<LANES>();
                for (i, $sixteen) in whole.iter().enumerate() {
                    sink.push(first + i, $load);
                }
                if !rest.is_empty() {
                    let mut values = [0.0; LANES];
                    for (value, block) in values.iter_mut().zip(rest) {
                        block.dequantize(std::slice::from_mut(value));
                    }
                    sink.push(first + whole.len(), load_padded($simd, &values));
                }
            }
        }
    };
}

unpack_floats!(BlockF32, |simd, sixteen| simd.load(&sixteen.map(|block| f32::from_le_bytes(block.bytes))));
unpack_floats!(BlockF16, |simd, sixteen| simd
    .load_half(&sixteen.map(|block| u16::from_le_bytes(block.value.0))));
unpack_floats!(BlockBF16, |simd, sixteen| {
    simd.load(&sixteen.map(|block| f32::from_bits(u32::from(u16::from_le_bytes(block.bytes)) << 16)))
});

/// The sixteen numbers that four bits can mean.
#[inline(always)]
fn ramp<S: Simd>(simd: S, from: f32) -> S::F {
    simd.load(&from_fn(|i| from + i as f32))
}

/// Sixteen bytes of a longer array.
#[inline(always)]
fn sixteen<T>(bytes: &[T], chunk: usize) -> &[T; LANES] {
    &bytes.as_chunks::<LANES>().0[chunk]
}

impl Unpack for BlockQ4_K {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        let ramp = ramp(simd, 0.0);
        for (b, block) in blocks.iter().enumerate() {
            let (d, dmin) = (block.d.to_f32(), block.dmin.to_f32());
            let (scales, minima) = block.scales.unpack();
            let table = |group: usize| {
                let scale = simd.splat(d * f32::from(scales[group]));
                simd.sub(simd.mul(scale, ramp), simd.splat(dmin * f32::from(minima[group])))
            };
            for pair in 0..4 {
                let at = first + 16 * b + 4 * pair;
                let (low, high) = (table(2 * pair), table(2 * pair + 1));
                let codes: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&block.qs, 2 * pair + half)));
                sink.push(at, simd.lookup(low, codes[0]));
                sink.push(at + 1, simd.lookup(low, codes[1]));
                sink.push(at + 2, simd.lookup(high, simd.shift_right::<4>(codes[0])));
                sink.push(at + 3, simd.lookup(high, simd.shift_right::<4>(codes[1])));
            }
        }
    }
}

impl Unpack for BlockQ5_K {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        for (b, block) in blocks.iter().enumerate() {
            let (d, dmin) = (block.d.to_f32(), block.dmin.to_f32());
            let (scales, minima) = block.scales.unpack();
            let mut fifth: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&block.qh, half)));
            for pair in 0..4 {
                let at = first + 16 * b + 4 * pair;
                let scale: [S::F; 2] = from_fn(|i| simd.splat(d * f32::from(scales[2 * pair + i])));
                let minimum: [S::F; 2] = from_fn(|i| simd.splat(dmin * f32::from(minima[2 * pair + i])));
                let codes: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&block.qs, 2 * pair + half)));
                for half in 0..2 {
                    let high = simd.shift_left::<4>(simd.and(fifth[half], 1));
                    let code = simd.to_float(simd.or(simd.and(codes[half], 15), high));
                    sink.push(at + half, simd.sub(simd.mul(scale[0], code), minimum[0]));
                }
                for half in 0..2 {
                    let high = simd.shift_left::<3>(simd.and(fifth[half], 2));
                    let code = simd.to_float(simd.or(simd.shift_right::<4>(codes[half]), high));
                    sink.push(at + 2 + half, simd.sub(simd.mul(scale[1], code), minimum[1]));
                }
                fifth = fifth.map(|bits| simd.shift_right::<2>(bits));
            }
        }
    }
}

impl Unpack for BlockQ6_K {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        let bias = simd.splat(32.0);
        for (b, block) in blocks.iter().enumerate() {
            let d = block.d.to_f32();
            for half in 0..2 {
                // Sixteen bytes of `qh` hold the upper bits of four groups, 32 weights apart.
                let high: [S::I; 2] = from_fn(|part| simd.load_u8(sixteen(&block.qh, 2 * half + part)));
                let low: [S::I; 4] = from_fn(|i| simd.load_u8(sixteen(&block.ql, 4 * half + i)));
                for group in 0..8 {
                    let (high, low) = (high[group % 2], low[group % 4]);
                    let code = match group / 2 {
                        0 => simd.or(simd.and(low, 15), simd.shift_left::<4>(simd.and(high, 3))),
                        1 => simd.or(simd.and(low, 15), simd.shift_left::<2>(simd.and(high, 12))),
                        2 => simd.or(simd.shift_right::<4>(low), simd.and(high, 48)),
                        _ => simd.or(simd.shift_right::<4>(low), simd.shift_right::<2>(simd.and(high, 192))),
                    };
                    let scale = simd.splat(d * f32::from(block.scales[8 * half + group]));
                    let code = simd.sub(simd.to_float(code), bias);
                    sink.push(first + 16 * b + 8 * half + group, simd.mul(scale, code));
                }
            }
        }
    }
}

impl Unpack for BlockQ8_0 {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        for (b, block) in blocks.iter().enumerate() {
            let scale = simd.splat(block.d.to_f32());
            for half in 0..2 {
                let code = simd.to_float(simd.load_i8(sixteen(&block.qs, half)));
                sink.push(first + 2 * b + half, simd.mul(scale, code));
            }
        }
    }
}

impl Unpack for BlockQ4_0 {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        let ramp = ramp(simd, -8.0);
        for (b, block) in blocks.iter().enumerate() {
            let table = simd.mul(simd.splat(block.d.to_f32()), ramp);
            let codes = simd.load_u8(&block.qs);
            sink.push(first + 2 * b, simd.lookup(table, codes));
            sink.push(first + 2 * b + 1, simd.lookup(table, simd.shift_right::<4>(codes)));
        }
    }
}

impl Unpack for BlockQ5_0 {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, blocks: &[Self], first: usize, sink: &mut impl Sink<S>) {
        let bias = simd.splat(16.0);
        for (b, block) in blocks.iter().enumerate() {
            let scale = simd.splat(block.d.to_f32());
            let bits = u32::from_le_bytes(block.qh);
            let codes = simd.load_u8(&block.qs);
            for (half, low) in [simd.and(codes, 15), simd.shift_right::<4>(codes)].into_iter().enumerate() {
                let high = simd.load_u8(&from_fn(|j| ((bits >> (16 * half + j)) as u8 & 1) << 4));
                let code = simd.sub(simd.to_float(simd.or(low, high)), bias);
                sink.push(first + 2 * b + half, simd.mul(scale, code));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{InstructionSet, Kernel};
    use super::*;
    use crate::quant::{FORMATS, blocks_of, with_block};

    struct Collect<'a, B> {
        blocks: &'a [B],
        out: Vec<f32>,
    }

    impl<S: Simd> Sink<S> for (S, &mut Vec<f32>) {
        fn push(&mut self, index: usize, weights: S::F) {
            assert_eq!(self.1.len(), index * LANES, "weights are pushed in order");
            let mut values = [0.0; LANES];
            self.0.store(weights, &mut values);
            self.1.extend(values);
        }
    }

    impl<B: Unpack> Kernel for Collect<'_, B> {
        type Output = Vec<f32>;
        fn run<S: Simd>(mut self, simd: S) -> Vec<f32> {
            B::unpack(simd, self.blocks, 0, &mut (simd, &mut self.out));
            self.out
        }
    }

    #[test]
    fn vectors_are_the_dequantized_weights_to_the_bit() {
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for row in &FORMATS {
            // Float rows end within a vector.
            let n_blocks = if row.block_elements == 1 { 55 } else { 5 };
            let bytes: Vec<u8> = (0..n_blocks * row.block_bytes).map(|_| byte()).collect();
            let n_weights = n_blocks * row.block_elements;
            let mut expected = vec![0.0; n_weights.next_multiple_of(LANES)];
            (row.dequantize)(&bytes, &mut expected[..n_weights]);
            for set in InstructionSet::available() {
                let got = with_block!(row.format, B => {
                    set.run(Collect { blocks: blocks_of::<B>(&bytes).unwrap(), out: Vec::new() })
                });
                assert_eq!(got.len(), expected.len(), "{} on {}", row.name, set.name());
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
                    assert!(same, "{} on {}: weight {i} is {got}, not {expected}", row.name, set.name());
                }
            }
        }
    }
}
