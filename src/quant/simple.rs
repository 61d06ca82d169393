//! Formats of one weight, and of 32 weights under one scale.

use super::bits::{Half, decode_planes, exactly};
use super::{Block, Format};
use bytemuck::{Pod, Zeroable};

/// One weight in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockF32 {
    /// The weight, little endian.
    pub bytes: [u8; 4],
}

/// One weight in half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockF16 {
    /// The weight.
    pub value: Half,
}

/// One weight as the upper half of a single.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockBF16 {
    /// The upper 16 bits, little endian.
    pub bytes: [u8; 2],
}

/// 32 weights of 4 bits: `d * (q - 8)`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// The scale.
    pub d: Half,
    /// Byte `j` holds weight `j` in its lower and weight `j + 16` in its upper half.
    pub qs: [u8; 16],
}

/// 32 weights of 4 bits: `d * q + m`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// The scale.
    pub d: Half,
    /// The minimum.
    pub m: Half,
    /// As in [`BlockQ4_0`].
    pub qs: [u8; 16],
}

/// 32 weights of 5 bits: `d * (q - 16)`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// The scale.
    pub d: Half,
    /// Bit `j` of this little-endian number is the fifth bit of weight `j`.
    pub qh: [u8; 4],
    /// The lower four bits, as in [`BlockQ4_0`].
    pub qs: [u8; 16],
}

/// 32 weights of 5 bits: `d * q + m`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// The scale.
    pub d: Half,
    /// The minimum.
    pub m: Half,
    /// As in [`BlockQ5_0`].
    pub qh: [u8; 4],
    /// The lower four bits, as in [`BlockQ4_0`].
    pub qs: [u8; 16],
}

/// 32 weights of 8 bits: `d * q`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale.
    pub d: Half,
    /// The weights in order.
    pub qs: [i8; 32],
}

impl Block for BlockF32 {
    const FORMAT: Format = Format::F32;
    const ELEMENTS: usize = 1;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        *exactly::<1>(out) = [f32::from_le_bytes(self.bytes)];
    }
}

impl Block for BlockF16 {
    const FORMAT: Format = Format::F16;
    const ELEMENTS: usize = 1;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        *exactly::<1>(out) = [self.value.to_f32()];
    }
}

impl Block for BlockBF16 {
    const FORMAT: Format = Format::BF16;
    const ELEMENTS: usize = 1;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        *exactly::<1>(out) = [f32::from_bits(u32::from(u16::from_le_bytes(self.bytes)) << 16)];
    }
}

impl Block for BlockQ4_0 {
    const FORMAT: Format = Format::Q4_0;
    const ELEMENTS: usize = 32;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        decode_32(&self.qs, [0; 4], out, centered(8, self.d));
    }
}

impl Block for BlockQ4_1 {
    const FORMAT: Format = Format::Q4_1;
    const ELEMENTS: usize = 32;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        decode_32(&self.qs, [0; 4], out, raised(self.d, self.m));
    }
}

impl Block for BlockQ5_0 {
    const FORMAT: Format = Format::Q5_0;
    const ELEMENTS: usize = 32;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        decode_32(&self.qs, self.qh, out, centered(16, self.d));
    }
}

impl Block for BlockQ5_1 {
    const FORMAT: Format = Format::Q5_1;
    const ELEMENTS: usize = 32;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        decode_32(&self.qs, self.qh, out, raised(self.d, self.m));
    }
}

impl Block for BlockQ8_0 {
    const FORMAT: Format = Format::Q8_0;
    const ELEMENTS: usize = 32;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (out, q) in exactly::<32>(out).iter_mut().zip(self.qs) {
            *out = f32::from(q) * d;
        }
    }
}

/// 32 codes of four bits, with a fifth from `fifth`, through `value`. The order is also that of IQ4_NL and IQ4_XS.
#[inline(always)]
pub(super) fn decode_32(qs: &[u8; 16], fifth: [u8; 4], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let fifth = u32::from_le_bytes(fifth);
    decode_planes::<2, 16>(exactly::<32>(out), |plane, lane| {
        let high = fifth >> (16 * plane + lane) & 1;
        value(qs[lane] >> (4 * plane) & 15 | (high << 4) as u8)
    });
}

#[inline(always)]
fn centered(center: i32, d: Half) -> impl Fn(u8) -> f32 {
    let d = d.to_f32();
    move |q| (i32::from(q) - center) as f32 * d
}

#[inline(always)]
fn raised(d: Half, m: Half) -> impl Fn(u8) -> f32 {
    let (d, m) = (d.to_f32(), m.to_f32());
    move |q| f32::from(q) * d + m
}
