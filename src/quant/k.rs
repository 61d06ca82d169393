//! K-quants: 256 weights under scales that are quantized themselves.

use super::bits::{Half, PackedScales, decode_planes, exactly};
use super::{Block, Format};
use bytemuck::{Pod, Zeroable};

/// 256 weights of 2 bits in 16 groups: `(d * scale) * q - dmin * minimum`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2_K {
    /// Byte `g` holds the scale of group `g` in its lower and its minimum in its upper half.
    pub scales: [u8; 16],
    /// For each half of the block 32 bytes; the two bits at `2 j` of byte `l` belong to its weight `32 j + l`.
    pub qs: [u8; 64],
    /// The scale of the scales.
    pub d: Half,
    /// The scale of the minima.
    pub dmin: Half,
}

/// 256 weights of 3 bits in 16 groups: `(d * (scale - 32)) * (q - 4)`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3_K {
    /// Bit `j` of byte `l` is the third bit of weight `32 j + l`.
    pub hmask: [u8; 32],
    /// The lower two bits, as in [`BlockQ2_K`].
    pub qs: [u8; 64],
    /// The scales; [`BlockQ3_K::scales`] unpacks them.
    pub packed_scales: [u8; 12],
    /// The scale of the scales.
    pub d: Half,
}

/// 256 weights of 4 bits in 8 groups: `(d * scale) * q - dmin * minimum`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_K {
    /// The scale of the scales.
    pub d: Half,
    /// The scale of the minima.
    pub dmin: Half,
    /// Scales and minima of the groups.
    pub scales: PackedScales,
    /// For each 64 weights 32 bytes; byte `l` holds weight `l` in its lower and `l + 32` in its upper half.
    pub qs: [u8; 128],
}

/// 256 weights of 5 bits in 8 groups: `(d * scale) * q - dmin * minimum`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_K {
    /// The scale of the scales.
    pub d: Half,
    /// The scale of the minima.
    pub dmin: Half,
    /// Scales and minima of the groups.
    pub scales: PackedScales,
    /// Bit `j` of byte `l` is the fifth bit of weight `32 j + l`.
    pub qh: [u8; 32],
    /// The lower four bits, as in [`BlockQ4_K`].
    pub qs: [u8; 128],
}

/// 256 weights of 6 bits in 16 groups: `(d * scale) * (q - 32)`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6_K {
    /// For each half of the block 64 bytes; byte `l` holds the lower four bits of its weights `l` (lower half) and
    /// `l + 64` (upper half).
    pub ql: [u8; 128],
    /// For each half of the block 32 bytes; the two bits at `2 j` of byte `l` are the upper ones of its weight
    /// `32 j + l`.
    pub qh: [u8; 64],
    /// The scales of the groups.
    pub scales: [i8; 16],
    /// The scale of the scales.
    pub d: Half,
}

/// 256 weights of 8 bits: `d * q`. ggml makes it of activations; it may stand in a file all the same.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_K {
    /// The scale: a single, little endian.
    pub d: [u8; 4],
    /// The weights in order.
    pub qs: [i8; 256],
    /// Sums of 16 weights each: 16-bit integers, little endian. They do not enter the values.
    pub bsums: [[u8; 2]; 16],
}

/// A scale and a minimum, multiplied out.
#[derive(Clone, Copy)]
struct Affine {
    scale: f32,
    minimum: f32,
}

impl Affine {
    #[inline(always)]
    fn new((d, scale): (Half, u8), (dmin, minimum): (Half, u8)) -> Self {
        Affine { scale: d.to_f32() * f32::from(scale), minimum: dmin.to_f32() * f32::from(minimum) }
    }
    #[inline(always)]
    fn value(self, code: u8) -> f32 {
        self.scale * f32::from(code) - self.minimum
    }
}

/// Where a weight of Q2_K, Q3_K or Q6_K lies: a block is two halves of four planes of 32 lanes.
#[derive(Clone, Copy)]
struct Place {
    half: usize,
    plane: usize,
    lane: usize,
    /// The group of 16 weights under one scale.
    group: usize,
}

impl Place {
    /// The two bits of this weight where each half of the block has 32 bytes, with four weights in each.
    #[inline(always)]
    fn two_bits(self, bytes: &[u8; 64]) -> u8 {
        bytes[32 * self.half + self.lane] >> (2 * self.plane) & 3
    }
}

#[inline(always)]
fn decode_places(out: &mut [f32], weight: impl Fn(Place) -> f32) {
    for (half, out) in exactly::<256>(out).as_chunks_mut::<128>().0.iter_mut().enumerate() {
        decode_planes::<8, 16>(out, |group, lane| {
            weight(Place { half, plane: group / 2, lane: 16 * (group % 2) + lane, group: 8 * half + group })
        });
    }
}

impl Block for BlockQ2_K {
    const FORMAT: Format = Format::Q2_K;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let groups = self.scales.map(|packed| Affine::new((self.d, packed & 15), (self.dmin, packed >> 4)));
        decode_places(out, |place| groups[place.group].value(place.two_bits(&self.qs)));
    }
}

impl BlockQ3_K {
    /// The scales of the 16 groups, from -32 to 31.
    ///
    /// Their lower four bits stand in the lower halves of bytes 0 to 7, then in the upper halves; their upper two
    /// in bytes 8 to 11, those of scale `g` at bit `2 (g / 4)` of byte `8 + g % 4`.
    #[inline(always)]
    pub fn scales(&self) -> [i8; 16] {
        let packed = &self.packed_scales;
        std::array::from_fn(|g| {
            let low = packed[g % 8] >> (g / 8 * 4) & 15;
            let high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Block for BlockQ3_K {
    const FORMAT: Format = Format::Q3_K;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let groups = self.scales().map(|scale| d * f32::from(scale));
        decode_places(out, |place| {
            let high = self.hmask[place.lane] >> (4 * place.half + place.plane) & 1;
            groups[place.group] * f32::from((place.two_bits(&self.qs) | high << 2) as i8 - 4)
        });
    }
}

/// Q4_K and Q5_K: `fifth(plane, lane)` is the fifth bit of weight `32 plane + lane`.
#[inline(always)]
fn decode_affine(
    (d, dmin): (Half, Half),
    scales: &PackedScales,
    qs: &[u8; 128],
    out: &mut [f32],
    fifth: impl Fn(usize, usize) -> u8,
) {
    let (scales, minima) = scales.unpack();
    let out = exactly::<256>(out).as_chunks_mut::<64>().0;
    for (pair, (bytes, out)) in qs.as_chunks::<32>().0.iter().zip(out).enumerate() {
        let group = |plane| Affine::new((d, scales[2 * pair + plane]), (dmin, minima[2 * pair + plane]));
        let groups = [group(0), group(1)];
        decode_planes::<2, 32>(out, |plane, lane| {
            let code = bytes[lane] >> (4 * plane) & 15;
            groups[plane].value(code | fifth(2 * pair + plane, lane) << 4)
        });
    }
}

impl Block for BlockQ4_K {
    const FORMAT: Format = Format::Q4_K;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        decode_affine((self.d, self.dmin), &self.scales, &self.qs, out, |_, _| 0);
    }
}

impl Block for BlockQ5_K {
    const FORMAT: Format = Format::Q5_K;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let fifth = |plane: usize, lane: usize| self.qh[lane] >> plane & 1;
        decode_affine((self.d, self.dmin), &self.scales, &self.qs, out, fifth);
    }
}

impl Block for BlockQ6_K {
    const FORMAT: Format = Format::Q6_K;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let groups = self.scales.map(|scale| d * f32::from(scale));
        decode_places(out, |place| {
            let Place { half, plane, lane, group } = place;
            let low = self.ql[64 * half + 32 * (plane % 2) + lane] >> (4 * (plane / 2)) & 15;
            groups[group] * f32::from((low | place.two_bits(&self.qh) << 4) as i8 - 32)
        });
    }
}

impl Block for BlockQ8_K {
    const FORMAT: Format = Format::Q8_K;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let d = f32::from_le_bytes(self.d);
        for (out, q) in exactly::<256>(out).iter_mut().zip(self.qs) {
            *out = d * f32::from(q);
        }
    }
}
