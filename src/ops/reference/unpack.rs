//! Rows of blocks as vectors of sixteen weights, to the bits of [`Block::dequantize`].
//!
//! The formats that matter most are unpacked in registers; the others go through `dequantize` and memory.

use std::array::from_fn;

use crate::quant::blocks::*;
use crate::quant::{Block, PackedScales};

use super::simd::{LANES, Simd, load_padded};

/// Takes the weights of a unit, sixteen at a time and in order; implementations are `#[inline(always)]`.
pub(super) trait Sink<S: Simd> {
    /// Weights `16 · index` to `16 · index + 15` of the unit; beyond the row's end they are zero.
    fn push(&mut self, index: usize, weights: S::F);
}

/// A block type whose rows can be had in vectors. A row is taken in units of whole vectors.
pub(super) trait Unpack: Block {
    /// Blocks in a unit; the last unit of a row of single floats may be shorter.
    const UNIT: usize = 1;
    /// Vectors in a unit.
    const VECTORS: usize = Self::UNIT * Self::ELEMENTS / LANES;
    /// Whether weights are unpacked in registers, so that a product may take them straight from the blocks.
    const IN_REGISTERS: bool = true;

    /// Pushes the weights of one unit.
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>);
}

/// Formats that go through memory.
macro_rules! unpack_through_memory {
    ($($block:ty),*) => {$(
        impl Unpack for $block {
            const IN_REGISTERS: bool = false;

            #[inline(always)]
            fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
                let mut values = [0.0; <$block>::ELEMENTS];
                for block in unit {
                    block.dequantize(&mut values);
                    for (i, weights) in values.as_chunks::<LANES>().0.iter().enumerate() {
                        sink.push(i, simd.load(weights));
                    }
                }
            }
        }
    )*};
}

unpack_through_memory!(BlockQ4_1, BlockQ5_1, BlockQ2_K, BlockQ3_K, BlockQ8_K, BlockIQ4_NL, BlockIQ4_XS);

/// Rows of single floats: a unit is one vector, the last one of a row padded with zeros.
macro_rules! unpack_floats {
    ($block:ty, |$simd:ident, $sixteen:ident| $load:expr) => {
        impl Unpack for $block {
            const UNIT: usize = LANES;

            #[inline(always)]
            fn unpack<S: Simd>($simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
                if let Some($sixteen) = unit.first_chunk::<LANES>() {
                    return sink.push(0, $load);
                }
                let mut values = [0.0; LANES];
                for (value, block) in values.iter_mut().zip(unit) {
                    block.dequantize(std::slice::from_mut(value));
                }
                sink.push(0, load_padded($simd, &values));
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

/// Sixteen consecutive numbers.
#[inline(always)]
fn ramp<S: Simd>(simd: S, from: f32) -> S::F {
    simd.load(&from_fn(|i| from + i as f32))
}

/// Sixteen bytes of a longer array.
#[inline(always)]
fn sixteen<T>(bytes: &[T], chunk: usize) -> &[T; LANES] {
    &bytes.as_chunks::<LANES>().0[chunk]
}

/// Sixteen factors, to be taken one by one: `d · code` of each code.
///
/// They go through memory on purpose: a broadcast from memory costs a load, one from a register a shuffle, and shuffles
/// are what unpacking is short of.
#[inline(always)]
fn factors<S: Simd>(simd: S, codes: S::I, d: S::F) -> [f32; LANES] {
    let mut factors = [0.0; LANES];
    simd.store(simd.mul(d, simd.to_float(codes)), &mut factors);
    std::hint::black_box(factors)
}

/// The scales of the eight groups of a Q4_K or Q5_K block, then their minima.
#[inline(always)]
fn scales_and_minima<S: Simd>(simd: S, d: f32, dmin: f32, packed: &PackedScales) -> [f32; LANES] {
    let (scales, minima) = packed.unpack();
    let codes = from_fn(|i| if i < 8 { scales[i] } else { minima[i - 8] });
    let d = simd.load(&from_fn(|i| if i < 8 { d } else { dmin }));
    factors(simd, simd.load_u8(&codes), d)
}

impl Unpack for BlockQ4_K {
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        let ramp = ramp(simd, 0.0);
        for block in unit {
            let factors = scales_and_minima(simd, block.d.to_f32(), block.dmin.to_f32(), &block.scales);
            for pair in 0..4 {
                let table: [S::F; 2] = from_fn(|i| {
                    let (scale, minimum) = (factors[2 * pair + i], factors[8 + 2 * pair + i]);
                    simd.sub(simd.mul(simd.splat(scale), ramp), simd.splat(minimum))
                });
                let codes: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&block.qs, 2 * pair + half)));
                sink.push(4 * pair, simd.lookup(table[0], codes[0]));
                sink.push(4 * pair + 1, simd.lookup(table[0], codes[1]));
                sink.push(4 * pair + 2, simd.lookup(table[1], simd.shift_right::<4>(codes[0])));
                sink.push(4 * pair + 3, simd.lookup(table[1], simd.shift_right::<4>(codes[1])));
            }
        }
    }
}

impl Unpack for BlockQ5_K {
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        for block in unit {
            let factors = scales_and_minima(simd, block.d.to_f32(), block.dmin.to_f32(), &block.scales);
            let mut fifth: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&block.qh, half)));
            for pair in 0..4 {
                let codes: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&block.qs, 2 * pair + half)));
                for i in 0..2 {
                    let scale = simd.splat(factors[2 * pair + i]);
                    let minimum = simd.splat(factors[8 + 2 * pair + i]);
                    for half in 0..2 {
                        let high = simd.shift_left::<4>(simd.and(fifth[half], 1));
                        let low = if i == 0 {
                            simd.and(codes[half], 15)
                        } else {
                            simd.shift_right::<4>(codes[half])
                        };
                        let code = simd.to_float(simd.or(low, high));
                        sink.push(4 * pair + 2 * i + half, simd.sub(simd.mul(scale, code), minimum));
                        fifth[half] = simd.shift_right::<1>(fifth[half]);
                    }
                }
            }
        }
    }
}

impl Unpack for BlockQ6_K {
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        let bias = simd.splat(32.0);
        for block in unit {
            let scales = factors(simd, simd.load_i8(&block.scales), simd.splat(block.d.to_f32()));
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
                    let code = simd.sub(simd.to_float(code), bias);
                    let group = 8 * half + group;
                    sink.push(group, simd.mul(simd.splat(scales[group]), code));
                }
            }
        }
    }
}

impl Unpack for BlockQ8_0 {
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        for block in unit {
            let scale = simd.splat(block.d.to_f32());
            for half in 0..2 {
                let code = simd.to_float(simd.load_i8(sixteen(&block.qs, half)));
                sink.push(half, simd.mul(scale, code));
            }
        }
    }
}

impl Unpack for BlockQ4_0 {
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        let ramp = ramp(simd, -8.0);
        for block in unit {
            let table = simd.mul(simd.splat(block.d.to_f32()), ramp);
            let codes = simd.load_u8(&block.qs);
            sink.push(0, simd.lookup(table, codes));
            sink.push(1, simd.lookup(table, simd.shift_right::<4>(codes)));
        }
    }
}

impl Unpack for BlockQ5_0 {
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        let bias = simd.splat(16.0);
        for block in unit {
            let scale = simd.splat(block.d.to_f32());
            let bits = u32::from_le_bytes(block.qh);
            let codes = simd.load_u8(&block.qs);
            for (half, low) in [simd.and(codes, 15), simd.shift_right::<4>(codes)].into_iter().enumerate() {
                let high = simd.load_u8(&from_fn(|j| ((bits >> (16 * half + j)) as u8 & 1) << 4));
                let code = simd.sub(simd.to_float(simd.or(low, high)), bias);
                sink.push(half, simd.mul(scale, code));
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

    impl<S: Simd> Sink<S> for (S, usize, &mut Vec<f32>) {
        fn push(&mut self, index: usize, weights: S::F) {
            assert_eq!(self.2.len(), (self.1 + index) * LANES, "weights are pushed in order");
            let mut values = [0.0; LANES];
            self.0.store(weights, &mut values);
            self.2.extend(values);
        }
    }

    impl<B: Unpack> Kernel for Collect<'_, B> {
        type Output = Vec<f32>;
        fn run<S: Simd>(mut self, simd: S) -> Vec<f32> {
            for (i, unit) in self.blocks.chunks(B::UNIT).enumerate() {
                B::unpack(simd, unit, &mut (simd, i * B::VECTORS, &mut self.out));
            }
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
