//! Formats whose four-bit codes go through a table of unevenly spaced values.

use super::bits::{Half, exactly};
use super::simple::decode_32;
use super::{Block, Format};
use bytemuck::{Pod, Zeroable};

/// What a four-bit code of IQ4_NL and IQ4_XS stands for: `kvalues_iq4nl` in ggml.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 weights of 4 bits: `d * IQ4_VALUES[q]`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ4_NL {
    /// The scale.
    pub d: Half,
    /// Byte `j` holds weight `j` in its lower and weight `j + 16` in its upper half.
    pub qs: [u8; 16],
}

/// 256 weights of 4 bits in 8 groups: `(d * (scale - 32)) * IQ4_VALUES[q]`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ4_XS {
    /// The scale of the scales.
    pub d: Half,
    /// Upper two bits of the scales: those of group `g` at bit `2 g` of this little-endian number.
    pub scales_h: [u8; 2],
    /// Lower four bits of the scales: of group `2 j` in the lower and `2 j + 1` in the upper half of byte `j`.
    pub scales_l: [u8; 4],
    /// For each group 16 bytes, as in [`BlockIQ4_NL`].
    pub qs: [u8; 128],
}

impl BlockIQ4_XS {
    /// The scales of the 8 groups, from -32 to 31.
    #[inline(always)]
    pub fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|g| {
            let low = self.scales_l[g / 2] >> (g % 2 * 4) & 15;
            (low | ((high >> (2 * g) & 3) << 4) as u8) as i8 - 32
        })
    }
}

#[inline(always)]
fn decode_values(scale: f32, qs: &[u8; 16], out: &mut [f32; 32]) {
    decode_32(qs, [0; 4], out, |q| scale * f32::from(IQ4_VALUES[usize::from(q & 15)]));
}

impl Block for BlockIQ4_NL {
    const FORMAT: Format = Format::IQ4_NL;
    const ELEMENTS: usize = 32;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        decode_values(self.d.to_f32(), &self.qs, exactly(out));
    }
}

impl Block for BlockIQ4_XS {
    const FORMAT: Format = Format::IQ4_XS;
    const ELEMENTS: usize = 256;
    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let scales = self.scales();
        let out = exactly::<256>(out).as_chunks_mut::<32>().0;
        for ((scale, qs), out) in scales.iter().zip(self.qs.as_chunks::<16>().0).zip(out) {
            decode_values(d * f32::from(*scale), qs, out);
        }
    }
}
