//! What the block formats share below the level of a block: half-precision scales, nibbles, packed scales.

use bytemuck::{Pod, Zeroable};

/// An IEEE half as it lies in a file: two bytes, little endian, alignment 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Half(pub [u8; 2]);

impl Half {
    /// The largest finite half.
    pub const MAX: f32 = 65504.0;

    /// The exact value. Free of branches, so that a loop over halves is vectorized, and of subnormal operands, which
    /// are slow: the scales of many real tensors are subnormal halves.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        // Exponents are moved from a half's bias (15) to a single's (127).
        const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
        let bits = u32::from(u16::from_le_bytes(self.0));
        let magnitude = (bits & 0x7fff) << 13;
        let subnormal = f32::from_bits(SMALLEST_NORMAL | magnitude) - f32::from_bits(SMALLEST_NORMAL);
        let magnitude = match bits & 0x7c00 {
            0 => subnormal.to_bits(),
            0x7c00 => magnitude | 0x7f80_0000,
            _ => magnitude + ((127 - 15) << 23),
        };
        f32::from_bits(magnitude | (bits & 0x8000) << 16)
    }

    /// The nearest finite half, ties to even: what lies beyond [`Half::MAX`] becomes [`Half::MAX`].
    pub fn saturating_from_f32(value: f32) -> Self {
        Half(half::f16::from_f32(value.clamp(-Self::MAX, Self::MAX)).to_le_bytes())
    }
}

/// `out` as an array.
///
/// # Panics
/// If the length is not `N`: the contract of [`Block::dequantize`](super::Block::dequantize) is broken.
#[inline(always)]
pub(super) fn exactly<const N: usize>(out: &mut [f32]) -> &mut [f32; N] {
    let found = out.len();
    match out.try_into() {
        Ok(array) => array,
        Err(_) => panic!("a block of {N} weights was given room for {found}"),
    }
}

/// Writes weight `plane * LANES + lane` for each lane and plane: the codes of a lane share bytes. One loop over the
/// lanes with all planes in its body is what LLVM vectorizes best.
#[inline(always)]
pub(super) fn decode_planes<const PLANES: usize, const LANES: usize>(
    out: &mut [f32],
    weight: impl Fn(usize, usize) -> f32,
) {
    for lane in 0..LANES {
        for plane in 0..PLANES {
            out[plane * LANES + lane] = weight(plane, lane);
        }
    }
}

/// `N` bytes of two codes each: the first `N` codes in the lower halves, the others in the upper halves.
pub(super) fn pack_nibbles<const N: usize>(codes: &[u8]) -> [u8; N] {
    let (low, high) = codes.split_at(N);
    std::array::from_fn(|j| low[j] & 15 | high[j] << 4)
}

/// Eight 6-bit scales and eight 6-bit minima in 12 bytes, as Q4_K and Q5_K store them.
///
/// Bytes 0 to 3 hold scales 0 to 3 and bytes 4 to 7 minima 0 to 3 in their lower six bits; bytes 8 to 11 hold
/// the lower four bits of scales (lower half) and minima (upper half) 4 to 7, whose upper two bits are the upper
/// two of bytes 0 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct PackedScales(pub [u8; 12]);

impl PackedScales {
    /// Scales and minima, each from 0 to 63.
    #[inline(always)]
    pub fn unpack(&self) -> ([u8; 8], [u8; 8]) {
        let word = |i: usize| u32::from_le_bytes([self.0[i], self.0[i + 1], self.0[i + 2], self.0[i + 3]]);
        let (first, second, upper) = (word(0), word(4), word(8));
        let eight = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
        let scales = eight(first & 0x3f3f_3f3f, upper & 0x0f0f_0f0f | first >> 2 & 0x3030_3030);
        let minima = eight(second & 0x3f3f_3f3f, upper >> 4 & 0x0f0f_0f0f | second >> 2 & 0x3030_3030);
        (scales, minima)
    }

    /// The inverse of [`PackedScales::unpack`]; takes the lower six bits of each number.
    pub fn pack(scales: &[u8; 8], minima: &[u8; 8]) -> Self {
        let mut bytes = [0; 12];
        for j in 0..4 {
            bytes[j] = scales[j] & 63 | scales[j + 4] >> 4 << 6;
            bytes[j + 4] = minima[j] & 63 | minima[j + 4] >> 4 << 6;
            bytes[j + 8] = scales[j + 4] & 15 | minima[j + 4] << 4;
        }
        PackedScales(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_becomes_the_same_single_as_in_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (Half(bits.to_le_bytes()).to_f32(), half::f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{bits:#06x}: {ours} and {theirs}"
            );
        }
    }

    #[test]
    fn every_finite_half_survives_the_way_through_a_single() {
        for bits in (0..=u16::MAX).filter(|bits| bits & 0x7c00 != 0x7c00) {
            let half = Half(bits.to_le_bytes());
            assert_eq!(Half::saturating_from_f32(half.to_f32()), half);
        }
    }

    #[test]
    fn a_half_saturates() {
        for value in [65520.0, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!(Half::saturating_from_f32(value).to_f32(), Half::MAX);
            assert_eq!(Half::saturating_from_f32(-value).to_f32(), -Half::MAX);
        }
    }

    #[test]
    fn packed_scales_unpack_to_what_was_packed() {
        for seed in 0..64 {
            let scales = std::array::from_fn(|j| ((seed * 7 + j * 13) % 64) as u8);
            let minima = std::array::from_fn(|j| ((seed * 11 + j * 29 + 5) % 64) as u8);
            assert_eq!(PackedScales::pack(&scales, &minima).unpack(), (scales, minima));
        }
    }
}
