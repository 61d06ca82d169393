//! Weights into K-quants: the search for scales.
//!
//! A group's scale is found by trying inverse scales around the obvious one; each gives codes, and the codes give
//! the scale (and minimum) of least squared error in closed form. The scales are then quantized, and the codes are
//! chosen anew for what the block really holds.

use super::bits::{Half, PackedScales, pack_nibbles};
use super::blocks::{BlockQ4_K, BlockQ5_K, BlockQ6_K};
use super::quantize::{Quantize, largest};

/// Weights are brought within this before sums of squares are taken. No K-quant reaches it: its largest weight is a
/// half times 128 times 32.
const CEILING: f32 = 1e12;
/// A group below this is zero: a half cannot hold its scale.
const FLOOR: f32 = 1e-15;

/// The integer from 0 to `max` nearest to `value`, as a float; halves round up.
#[inline(always)]
fn nearest(value: f32, max: f32) -> f32 {
    (value.clamp(0.0, max) + 0.5) as i32 as f32
}

/// `1 / value`, or zero where that is not finite.
fn inverse(value: f32) -> f32 {
    let inverse = 1.0 / value;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The scale and the minimum (what is subtracted, zero or more) of least squared error for codes from 0 to `max`.
fn fit_affine(x: &[f32; 32], max: f32) -> (f32, f32) {
    let low = x.iter().copied().fold(0.0, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = high - low;
    if range < FLOOR {
        return (0.0, 0.0 - low);
    }
    let n = x.len() as f32;
    let sum_x: f32 = x.iter().sum();
    let (mut best, mut best_error) = ((range / max, -low), f32::INFINITY);
    for step in -10..=15 {
        let inverse_scale = (max + 0.1 * step as f32) / range;
        let codes = x.map(|x| nearest((x - low) * inverse_scale, max));
        let (mut sum_q, mut sum_qq, mut sum_qx) = (0.0, 0.0, 0.0);
        for (q, x) in codes.iter().zip(x) {
            sum_q += q;
            sum_qq += q * q;
            sum_qx += q * x;
        }
        let determinant = n * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (n * sum_qx - sum_q * sum_x) / determinant;
        let mut minimum = (sum_q * sum_qx - sum_qq * sum_x) / determinant;
        if minimum < 0.0 {
            (scale, minimum) = (sum_qx / sum_qq, 0.0);
        }
        let error: f32 = codes.iter().zip(x).map(|(q, x)| (scale * q - minimum - x).powi(2)).sum();
        if error < best_error {
            (best, best_error) = ((scale, minimum), error);
        }
    }
    best
}

/// The scale of least squared error for codes from -32 to 31.
fn fit_centered(x: &[f32; 16]) -> f32 {
    let largest = largest(x);
    if largest.abs() < FLOOR {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, 0.0);
    for step in -9..=9 {
        let inverse_scale = -(32.0 + 0.1 * step as f32) / largest;
        let (mut sum_qq, mut sum_qx) = (0.0, 0.0);
        for x in x {
            let q = nearest(x * inverse_scale + 32.0, 63.0) - 32.0;
            sum_qq += q * q;
            sum_qx += q * x;
        }
        // The squared error is the sum of x² less this.
        let gain = sum_qx / sum_qq * sum_qx;
        if gain > best_gain {
            (best, best_gain) = (sum_qx / sum_qq, gain);
        }
    }
    best
}

/// What Q4_K and Q5_K have in common: scales and minima, and codes from 0 to `max`.
struct AffineBlock {
    d: Half,
    dmin: Half,
    scales: PackedScales,
    codes: [u8; 256],
}

impl AffineBlock {
    fn new(values: &[f32], max: f32) -> Self {
        let x = bounded(values);
        let groups = x.as_chunks::<32>().0;
        let fits: [(f32, f32); 8] = std::array::from_fn(|g| fit_affine(&groups[g], max));
        let (d, scales) = quantize_positive(fits.map(|(scale, _)| scale));
        let (dmin, minima) = quantize_positive(fits.map(|(_, minimum)| minimum));
        let mut codes = [0; 256];
        for (g, (codes, x)) in codes.as_chunks_mut::<32>().0.iter_mut().zip(groups).enumerate() {
            let inverse_scale = inverse(d.to_f32() * f32::from(scales[g]));
            let minimum = dmin.to_f32() * f32::from(minima[g]);
            *codes = x.map(|x| nearest((x + minimum) * inverse_scale, max) as u8);
        }
        AffineBlock { d, dmin, scales: PackedScales::pack(&scales, &minima), codes }
    }
}

/// The weights within [`CEILING`].
fn bounded(values: &[f32]) -> [f32; 256] {
    std::array::from_fn(|j| values[j].clamp(-CEILING, CEILING))
}

/// Numbers of zero or more as multiples, from 0 to 63, of a common scale.
fn quantize_positive(numbers: [f32; 8]) -> (Half, [u8; 8]) {
    let d = Half::saturating_from_f32(numbers.into_iter().fold(0.0, f32::max) / 63.0);
    let inverse = inverse(d.to_f32());
    (d, numbers.map(|number| nearest(number * inverse, 63.0) as u8))
}

/// Bytes of four bits a weight: those of each `2 N` codes in `N` bytes.
fn pack_low<const N: usize>(codes: &[u8; 256]) -> [u8; 128] {
    let mut bytes = [0; 128];
    for (bytes, codes) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(codes.chunks_exact(2 * N)) {
        *bytes = pack_nibbles(codes);
    }
    bytes
}

/// Planes of the bits above the fourth: those of weight `32 j + l` lie from bit `width * j` on in byte `l`.
fn pack_high(codes: &[u8], width: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (plane, codes) in codes.chunks_exact(32).enumerate() {
        for (byte, code) in bytes.iter_mut().zip(codes) {
            *byte |= code >> 4 << (width * plane);
        }
    }
    bytes
}

impl Quantize for BlockQ4_K {
    fn quantize(values: &[f32]) -> Self {
        let AffineBlock { d, dmin, scales, codes } = AffineBlock::new(values, 15.0);
        BlockQ4_K { d, dmin, scales, qs: pack_low::<32>(&codes) }
    }
}

impl Quantize for BlockQ5_K {
    fn quantize(values: &[f32]) -> Self {
        let AffineBlock { d, dmin, scales, codes } = AffineBlock::new(values, 31.0);
        BlockQ5_K { d, dmin, scales, qh: pack_high(&codes, 1), qs: pack_low::<32>(&codes) }
    }
}

impl Quantize for BlockQ6_K {
    fn quantize(values: &[f32]) -> Self {
        let x = bounded(values);
        let groups = x.as_chunks::<16>().0;
        let fits: [f32; 16] = std::array::from_fn(|g| fit_centered(&groups[g]));
        // The scale of largest magnitude takes the one code that has no opposite, -128.
        let d = Half::saturating_from_f32(largest(&fits) / -128.0);
        let inverse_d = inverse(d.to_f32());
        let scales = fits.map(|scale| (nearest(scale * inverse_d + 128.0, 255.0) - 128.0) as i8);
        let mut codes = [0; 256];
        for ((codes, x), scale) in codes.as_chunks_mut::<16>().0.iter_mut().zip(groups).zip(scales) {
            let inverse_scale = inverse(d.to_f32() * f32::from(scale));
            *codes = x.map(|x| nearest(x * inverse_scale + 32.0, 63.0) as u8);
        }
        let (first, second) = codes.split_at(128);
        let mut qh = [0; 64];
        qh[..32].copy_from_slice(&pack_high(first, 2));
        qh[32..].copy_from_slice(&pack_high(second, 2));
        BlockQ6_K { ql: pack_low::<64>(&codes), qh, scales, d }
    }
}
