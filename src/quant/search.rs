//! Weights into K-quants: the search for scales.
//!
//! A group's range is spread over a few more or fewer codes than there are; each spread gives codes, and the codes give
//! the scale (and minimum) of least squared error in closed form. The best scales are then quantized together, and the
//! codes are chosen anew for what the block really holds.
//!
//! ggml weighs an error by the size of its weight; here all errors count alike. How many spreads are tried was
//! chosen by the error and the time on normal weights of uneven size.

use super::bits::{Half, PackedScales, pack_nibbles};
use super::blocks::{BlockQ4_K, BlockQ5_K, BlockQ6_K};
use super::quantize::{Quantize, inverse, largest};

/// Weights are brought within this before sums of squares are taken. No K-quant reaches it: its largest weight is a
/// half times 128 times 32.
const CEILING: f32 = 1e12;
/// A group below this is zero: a half cannot hold its scale.
const FLOOR: f32 = 1e-15;
/// How far from the nearest code a scale or a minimum is tried, to make up for the rounding of the other.
const REACH: u8 = 3;

/// The integer from 0 to `max` nearest to `value`; `max` is below 2^22.
#[inline(always)]
fn nearest(value: f32, max: f32) -> f32 {
    // A single of this size has no room for a fraction: the sum is rounded to an integer.
    const INTEGERS_ONLY: f32 = (3 << 22) as f32;
    (value.clamp(0.0, max) + INTEGERS_ONLY) - INTEGERS_ONLY
}

/// The sum of products, in eight lanes so that it is vectorized.
#[inline(always)]
fn dot<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    let mut lanes = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}

/// A scale and a minimum (what is subtracted, zero or more): a code `q` stands for `scale * q - minimum`.
#[derive(Clone, Copy)]
struct Affine {
    scale: f32,
    minimum: f32,
}

impl Affine {
    fn codes(self, x: &[f32; 32], max: f32) -> [f32; 32] {
        let inverse = inverse(self.scale);
        x.map(|x| nearest((x + self.minimum) * inverse, max))
    }

    fn squared_error(self, x: &[f32; 32], codes: &[f32; 32]) -> f32 {
        let difference: [f32; 32] = std::array::from_fn(|j| self.scale * codes[j] - self.minimum - x[j]);
        dot(&difference, &difference)
    }

    /// The scale and minimum of least squared error for these codes; `None` if the codes are all the same.
    fn of_least_error(x: &[f32; 32], codes: &[f32; 32]) -> Option<Self> {
        const ONES: [f32; 32] = [1.0; 32];
        let (n, sum_x) = (32.0, dot(x, &ONES));
        let (sum_q, sum_qq, sum_qx) = (dot(codes, &ONES), dot(codes, codes), dot(codes, x));
        let determinant = n * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            return None;
        }
        let minimum = (sum_q * sum_qx - sum_qq * sum_x) / determinant;
        if minimum < 0.0 {
            return Some(Affine { scale: sum_qx / sum_qq, minimum: 0.0 });
        }
        Some(Affine { scale: (n * sum_qx - sum_q * sum_x) / determinant, minimum })
    }

    /// The scale and minimum of least squared error for codes from 0 to `max`.
    fn fit(x: &[f32; 32], max: f32) -> Self {
        let low = x.iter().copied().fold(0.0, f32::min);
        let high = x.iter().copied().fold(low, f32::max);
        let minimum = 0.0 - low;
        if high - low < FLOOR {
            return Affine { scale: 0.0, minimum };
        }
        let mut best = Affine { scale: (high - low) / max, minimum };
        let mut best_error = f32::INFINITY;
        for step in -2i8..=1 {
            let tried = Affine { scale: (high - low) / (max + f32::from(step)), minimum };
            let codes = tried.codes(x, max);
            let Some(fit) = Affine::of_least_error(x, &codes) else { continue };
            let error = fit.squared_error(x, &codes);
            if error < best_error {
                (best, best_error) = (fit, error);
            }
        }
        best
    }
}

/// The scale of least squared error for codes from -32 to 31.
fn fit_centered(x: &[f32; 16]) -> f32 {
    let largest = largest(x);
    if largest.abs() < FLOOR {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, 0.0);
    for step in -8i8..=1 {
        let inverse_scale = -(32.0 + f32::from(step)) / largest;
        let codes = x.map(|x| nearest(x * inverse_scale + 32.0, 63.0) - 32.0);
        let (sum_qq, sum_qx) = (dot(&codes, &codes), dot(&codes, x));
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
        let fits: [Affine; 8] = std::array::from_fn(|g| Affine::fit(&groups[g], max));
        let (d, mut scales) = quantize_positive(fits.map(|fit| fit.scale));
        let (dmin, mut minima) = quantize_positive(fits.map(|fit| fit.minimum));
        let grid = Grid { d: d.to_f32(), dmin: dmin.to_f32(), max };
        let mut codes = [0; 256];
        for (g, (codes, x)) in codes.as_chunks_mut::<32>().0.iter_mut().zip(groups).enumerate() {
            (scales[g], minima[g]) = grid.best_near(x, scales[g], minima[g]);
            *codes = grid.at(scales[g], minima[g]).codes(x, max).map(|q| q as u8);
        }
        AffineBlock { d, dmin, scales: PackedScales::pack(&scales, &minima), codes }
    }
}

/// The scales and minima that a block can hold, once their own scales are chosen.
struct Grid {
    d: f32,
    dmin: f32,
    max: f32,
}

impl Grid {
    fn at(&self, scale: u8, minimum: u8) -> Affine {
        Affine { scale: self.d * f32::from(scale), minimum: self.dmin * f32::from(minimum) }
    }

    /// The codes of least squared error among those at most [`REACH`] from these. Beside them the error differs
    /// little, and a scale that was rounded one way wants a minimum that was rounded to suit.
    fn best_near(&self, x: &[f32; 32], scale: u8, minimum: u8) -> (u8, u8) {
        let near = |code: u8| code.saturating_sub(REACH)..=(code + REACH).min(63);
        let (mut best, mut best_error) = ((scale, minimum), f32::INFINITY);
        for scale in near(scale) {
            for minimum in near(minimum) {
                let tried = self.at(scale, minimum);
                let error = tried.squared_error(x, &tried.codes(x, self.max));
                if error < best_error {
                    (best, best_error) = ((scale, minimum), error);
                }
            }
        }
        best
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
