//! Weights into blocks.
//!
//! Q8_0, Q5_0 and Q4_0 give ggml's bytes for all weights whose scale a half can hold. The K-quants are in `search.rs`.

use super::Block;
use super::bits::{Half, pack_nibbles};
use super::blocks::*;

/// A block that can be made of weights.
pub trait Quantize: Block {
    /// The block for `values`, [`Block::ELEMENTS`] finite weights. Its scales are finite; weights beyond the format's
    /// range become the nearest that it holds.
    ///
    /// # Panics
    /// If there are fewer values.
    fn quantize(values: &[f32]) -> Self;
}

impl Quantize for BlockF32 {
    fn quantize(values: &[f32]) -> Self {
        BlockF32 { bytes: values[0].to_le_bytes() }
    }
}

impl Quantize for BlockF16 {
    fn quantize(values: &[f32]) -> Self {
        BlockF16 { value: Half::saturating_from_f32(values[0]) }
    }
}

impl Quantize for BlockBF16 {
    fn quantize(values: &[f32]) -> Self {
        let limit = half::bf16::MAX.to_f32();
        BlockBF16 { bytes: half::bf16::from_f32(values[0].clamp(-limit, limit)).to_le_bytes() }
    }
}

impl Quantize for BlockQ8_0 {
    fn quantize(values: &[f32]) -> Self {
        let scale = Scale::new(largest(values).abs() / 127.0);
        BlockQ8_0 { d: scale.half(), qs: std::array::from_fn(|j| scale.divide(values[j]).round() as i8) }
    }
}

impl Quantize for BlockQ4_0 {
    fn quantize(values: &[f32]) -> Self {
        let scale = Scale::new(largest(values) / -8.0);
        BlockQ4_0 { d: scale.half(), qs: pack_nibbles(&scale.centered_codes::<32>(values, 8)) }
    }
}

impl Quantize for BlockQ5_0 {
    fn quantize(values: &[f32]) -> Self {
        let scale = Scale::new(largest(values) / -16.0);
        let codes = scale.centered_codes::<32>(values, 16);
        let fifth = codes.iter().rev().fold(0u32, |bits, code| bits << 1 | u32::from(code >> 4));
        BlockQ5_0 { d: scale.half(), qh: fifth.to_le_bytes(), qs: pack_nibbles(&codes) }
    }
}

/// The first of the numbers that are largest in magnitude, with its sign.
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |best: f32, &value| if value.abs() > best.abs() { value } else { best })
}

/// `1 / value`, or zero where that is not finite.
pub(super) fn inverse(value: f32) -> f32 {
    let inverse = 1.0 / value;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// A scale within the range of a half, and its inverse.
#[derive(Clone, Copy)]
struct Scale {
    scale: f32,
    inverse: f32,
}

impl Scale {
    fn new(scale: f32) -> Self {
        let scale = scale.clamp(-Half::MAX, Half::MAX);
        Scale { scale, inverse: inverse(scale) }
    }
    fn half(self) -> Half {
        Half::saturating_from_f32(self.scale)
    }
    fn divide(self, value: f32) -> f32 {
        value * self.inverse
    }
    /// Codes from 0 to `2 center - 1`, where `center` stands for zero; halves round up.
    fn centered_codes<const N: usize>(self, values: &[f32], center: u8) -> [u8; N] {
        let middle = f32::from(center);
        std::array::from_fn(|j| ((self.divide(values[j]) + (middle + 0.5)) as u8).min(2 * center - 1))
    }
}
