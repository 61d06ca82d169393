//! Rows of blocks as vectors of sixteen weights, to the bits of [`Block::dequantize`].
//!
//! The formats that matter most are unpacked in registers; the others go through `dequantize` and memory.

use std::array::from_fn;

use crate::quant::blocks::*;
use crate::quant::{Block, Half, PackedScales};

use super::codes::Codes;
use super::simd::{LANES, Simd, load_padded};

/// Takes the weights of a unit, sixteen at a time and in order; implementations are `#[inline(always)]`.
pub(super) trait Sink<S: Simd> {
    /// Weights `16 · index` to `16 · index + 15` of the unit; beyond the row's end they are zero.
    fn push(&mut self, index: usize, weights: S::F);
}

/// A block type whose rows can be had in vectors. A row is taken in units of whole vectors, a unit in parts, so that the
/// units of several rows can be taken side by side.
pub(super) trait Unpack: Block {
    /// What the weights of a unit are made with, unpacked once for all its parts.
    type Scales: Copy;
    /// Blocks in a unit; the last unit of a row may be shorter.
    const UNIT: usize = 1;
    /// Vectors in a unit.
    const VECTORS: usize = Self::UNIT * Self::ELEMENTS / LANES;
    /// Parts of a unit.
    const PARTS: usize = 1;
    /// Whether weights are unpacked in registers, so that a product may take them straight from the blocks.
    const IN_REGISTERS: bool = true;

    /// Unpacks the scales of a unit.
    fn scales<S: Simd>(simd: S, unit: &[Self]) -> Self::Scales;

    /// Pushes the weights of one part.
    fn part<S: Simd>(simd: S, unit: &[Self], scales: &Self::Scales, part: usize, sink: &mut impl Sink<S>);

    /// Pushes the weights of all parts.
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, unit: &[Self], sink: &mut impl Sink<S>) {
        let scales = Self::scales(simd, unit);
        for part in 0..Self::PARTS {
            Self::part(simd, unit, &scales, part, sink);
        }
    }
}

/// Formats that go through memory.
macro_rules! unpack_through_memory {
    ($($block:ty),*) => {$(
        impl Unpack for $block {
            type Scales = ();
            const IN_REGISTERS: bool = false;

            #[inline(always)]
            fn scales<S: Simd>(_: S, _: &[Self]) {}
            #[inline(always)]
            fn part<S: Simd>(simd: S, unit: &[Self], _: &(), _: usize, sink: &mut impl Sink<S>) {
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
            type Scales = ();
            const UNIT: usize = LANES;

            #[inline(always)]
            fn scales<S: Simd>(_: S, _: &[Self]) {}
            #[inline(always)]
            fn part<S: Simd>($simd: S, unit: &[Self], _: &(), _: usize, sink: &mut impl Sink<S>) {
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
unpack_floats!(BlockF16, |simd, sixteen| simd.load_half(&sixteen.map(|block| bits(block.value))));
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

#[inline(always)]
fn bits(half: Half) -> u16 {
    u16::from_le_bytes(half.0)
}

/// A half in every lane.
#[inline(always)]
fn splat_half<S: Simd>(simd: S, half: Half) -> S::F {
    simd.load_half(&[bits(half); LANES])
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
fn scales_and_minima<S: Simd>(simd: S, d: Half, dmin: Half, packed: &PackedScales) -> [f32; LANES] {
    let (scales, minima) = packed.unpack();
    let codes = from_fn(|i| if i < 8 { scales[i] } else { minima[i - 8] });
    let halves = from_fn(|i| bits(if i < 8 { d } else { dmin }));
    factors(simd, simd.load_u8(&codes), simd.load_half(&halves))
}

impl Unpack for BlockQ4_K {
    type Scales = [f32; LANES];
    const PARTS: usize = 4;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, unit: &[Self]) -> [f32; LANES] {
        scales_and_minima(simd, unit[0].d, unit[0].dmin, &unit[0].scales)
    }
    #[inline(always)]
    fn part<S: Simd>(simd: S, unit: &[Self], factors: &[f32; LANES], part: usize, sink: &mut impl Sink<S>) {
        let ramp = ramp(simd, 0.0);
        let table: [S::F; 2] = from_fn(|i| {
            let (scale, minimum) = (factors[2 * part + i], factors[8 + 2 * part + i]);
            simd.sub(simd.mul(simd.splat(scale), ramp), simd.splat(minimum))
        });
        let codes: [S::I; 2] = from_fn(|half| simd.load_u8(sixteen(&unit[0].qs, 2 * part + half)));
        sink.push(4 * part, simd.lookup(table[0], codes[0]));
        sink.push(4 * part + 1, simd.lookup(table[0], codes[1]));
        sink.push(4 * part + 2, simd.lookup(table[1], simd.shift_right::<4>(codes[0])));
        sink.push(4 * part + 3, simd.lookup(table[1], simd.shift_right::<4>(codes[1])));
    }
}

impl Unpack for BlockQ5_K {
    type Scales = [f32; LANES];
    const PARTS: usize = 4;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, unit: &[Self]) -> [f32; LANES] {
        scales_and_minima(simd, unit[0].d, unit[0].dmin, &unit[0].scales)
    }
    #[inline(always)]
    fn part<S: Simd>(simd: S, unit: &[Self], factors: &[f32; LANES], part: usize, sink: &mut impl Sink<S>) {
        let codes = Self::signed_codes(simd, unit, part);
        for (i, codes) in codes.as_chunks::<LANES>().0.iter().enumerate() {
            let group = 2 * part + i / 2;
            let (scale, minimum) = (simd.splat(factors[group]), simd.splat(factors[8 + group]));
            let code = simd.to_float(simd.load_i8(codes));
            sink.push(4 * part + i, simd.sub(simd.mul(scale, code), minimum));
        }
    }
}

impl Unpack for BlockQ6_K {
    type Scales = [f32; LANES];
    const PARTS: usize = 4;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, unit: &[Self]) -> [f32; LANES] {
        factors(simd, simd.load_i8(&unit[0].scales), splat_half(simd, unit[0].d))
    }
    #[inline(always)]
    fn part<S: Simd>(simd: S, unit: &[Self], scales: &[f32; LANES], part: usize, sink: &mut impl Sink<S>) {
        let codes = Self::signed_codes(simd, unit, part);
        for (i, codes) in codes.as_chunks::<LANES>().0.iter().enumerate() {
            let (group, code) = (4 * part + i, simd.to_float(simd.load_i8(codes)));
            sink.push(group, simd.mul(simd.splat(scales[group]), code));
        }
    }
}

/// Formats of 32 weights with one scale: what is pushed for each half of a block.
macro_rules! unpack_halves {
    ($block:ty, |$simd:ident, $unit:ident, $d:ident, $half:ident| $weights:expr) => {
        impl Unpack for $block {
            type Scales = ();

            #[inline(always)]
            fn scales<S: Simd>(_: S, _: &[Self]) {}
            #[inline(always)]
            fn part<S: Simd>($simd: S, unit: &[Self], _: &(), _: usize, sink: &mut impl Sink<S>) {
                let $unit = &unit[0];
                let $d = splat_half($simd, $unit.d);
                for $half in 0..2 {
                    sink.push($half, $weights);
                }
            }
        }
    };
}

unpack_halves!(BlockQ8_0, |simd, block, d, half| {
    simd.mul(d, simd.to_float(simd.load_i8(sixteen(&block.qs, half))))
});
unpack_halves!(BlockQ4_0, |simd, block, d, half| {
    let codes = simd.load_u8(&block.qs);
    let table = simd.mul(d, ramp(simd, -8.0));
    simd.lookup(table, if half == 0 { codes } else { simd.shift_right::<4>(codes) })
});
impl Unpack for BlockQ5_0 {
    type Scales = ();
    const UNIT: usize = 2;

    #[inline(always)]
    fn scales<S: Simd>(_: S, _: &[Self]) {}
    #[inline(always)]
    fn part<S: Simd>(simd: S, unit: &[Self], _: &(), _: usize, sink: &mut impl Sink<S>) {
        let codes = Self::signed_codes(simd, unit, 0);
        for (i, block) in unit.iter().enumerate() {
            let d = splat_half(simd, block.d);
            for half in 0..2 {
                let codes = simd.load_i8(&codes.as_chunks::<LANES>().0[2 * i + half]);
                sink.push(2 * i + half, simd.mul(d, simd.to_float(codes)));
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
