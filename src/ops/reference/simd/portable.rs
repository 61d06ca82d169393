//! Sixteen lanes in plain Rust.

use std::array::from_fn;

use half::f16;

use super::{Kernel, LANES, Simd, Tile};

/// Always there.
#[derive(Clone, Copy)]
pub(super) struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];

/// Two i16 as a lane, the first in the lower half.
#[inline(always)]
fn pack([first, second]: [i16; 2]) -> i32 {
    (u32::from(first as u16) | u32::from(second as u16) << 16) as i32
}

#[inline(always)]
fn unpack(lane: i32) -> [i16; 2] {
    [lane as i16, (lane >> 16) as i16]
}

impl Simd for Portable {
    type F = F;
    type I = I;
    const TILE: Tile = Tile::Small;

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        *from
    }
    #[inline(always)]
    fn store(self, value: F, into: &mut [f32; LANES]) {
        *into = value;
    }
    #[inline(always)]
    fn prefetch<T>(self, _from: &T) {}
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        // Without the instruction a fused product is a library call for each lane.
        from_fn(|i| if cfg!(target_feature = "fma") { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }
    #[inline(always)]
    fn fused_mul_add(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        // Adding and taking away 1.5 · 2^23 leaves the nearest integer, ties to even, for |a| < 2^22;
        // a zero keeps its sign.
        const SHIFT: f32 = 12_582_912.0;
        from_fn(|i| ((a[i] + SHIFT) - SHIFT).copysign(a[i]))
    }
    #[inline(always)]
    fn power_of_two(self, n: F) -> F {
        from_fn(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> F {
        from.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> I {
        from.map(i32::from)
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> I {
        from.map(i32::from)
    }
    #[inline(always)]
    fn and(self, a: I, mask: i32) -> I {
        a.map(|a| a & mask)
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: I) -> I {
        a.map(|a| ((a as u32) >> N) as i32)
    }
    #[inline(always)]
    fn shift_left(self, a: I, n: u32) -> I {
        a.map(|a| a << n)
    }
    #[inline(always)]
    fn to_float(self, a: I) -> F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn load_pairs(self, from: &[i16; 2 * LANES]) -> I {
        from_fn(|i| pack([from[2 * i], from[2 * i + 1]]))
    }
    #[inline(always)]
    fn store_pairs(self, value: I, into: &mut [i16; 2 * LANES]) {
        *into = from_fn(|i| unpack(value[i / 2])[i % 2]);
    }
    #[inline(always)]
    fn splat_pair(self, pair: &[i16; 2]) -> I {
        [pack(*pair); LANES]
    }
    #[inline(always)]
    fn pairs_of_i8(self, from: &[i8; 2 * LANES]) -> I {
        self.load_pairs(&from.map(i16::from))
    }
    #[inline(always)]
    fn multiply_pairs(self, a: I, b: I) -> I {
        from_fn(|i| {
            let ([a, c], [b, d]) = (unpack(a[i]), unpack(b[i]));
            i32::from(a) * i32::from(b) + i32::from(c) * i32::from(d)
        })
    }
    #[inline(always)]
    fn dot_pairs(self, sum: I, a: I, b: I) -> I {
        self.add_integers(sum, self.multiply_pairs(a, b))
    }
    #[inline(always)]
    fn load_integers(self, from: &[i32; LANES]) -> I {
        *from
    }
    #[inline(always)]
    fn splat_integer(self, value: i32) -> I {
        [value; LANES]
    }
    #[inline(always)]
    fn add_integers(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_integers(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> I {
        from_fn(|i| i32::from_le_bytes(from_fn(|j| from[4 * i + j])))
    }
    #[inline(always)]
    fn store_bytes(self, value: I, into: &mut [u8; 4 * LANES]) {
        *into = from_fn(|i| value[i / 4].to_le_bytes()[i % 4]);
    }
    #[inline(always)]
    fn load_halves(self, [low, high]: [&[u8; 2 * LANES]; 2]) -> I {
        self.load_bytes(&from_fn(|i| if i < 2 * LANES { low[i] } else { high[i - 2 * LANES] }))
    }
    #[inline(always)]
    fn nibbles(self, from: [&[u8; LANES]; 2]) -> I {
        self.load_bytes(&from_fn(|i| from[i / (2 * LANES)][i % LANES] >> (4 * (i / LANES % 2)) & 15))
    }
    #[inline(always)]
    fn spread_byte_bits(self, bits: u64, value: u8) -> I {
        self.load_bytes(&from_fn(|i| if bits >> i & 1 == 1 { value } else { 0 }))
    }
    #[inline(always)]
    fn add_bytes(self, a: I, b: u8) -> I {
        a.map(|a| i32::from_le_bytes(a.to_le_bytes().map(|a| a.wrapping_add(b))))
    }
    #[inline(always)]
    fn rotate_halves(self, a: I, left: [u32; 2]) -> I {
        from_fn(|i| a[i].rotate_left(left[i / (LANES / 2)]))
    }
    #[inline(always)]
    fn dot_bytes(self, _: u32, sum: I, a: I, b: I) -> I {
        from_fn(|i| {
            let products = a[i].to_le_bytes().into_iter().zip(b[i].to_le_bytes());
            products.fold(sum[i], |sum, (a, b)| sum.wrapping_add(i32::from(a) * i32::from(b as i8)))
        })
    }
    #[inline(always)]
    fn quarter_sums(self, a: &[I; LANES / 2]) -> [I; 2] {
        let sum = |i: usize, first: usize| {
            let lanes = &a[i / 2][8 * (i % 2) + first..][..4];
            lanes.iter().fold(0_i32, |sum, lane| sum.wrapping_add(*lane))
        };
        [from_fn(|i| sum(i, 0)), from_fn(|i| sum(i, 4))]
    }
    #[inline(always)]
    fn lookup(self, table: F, index: I) -> F {
        index.map(|index| table[(index & 15) as usize])
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        let a: [f32; 8] = from_fn(|i| a[i] + a[i + 8]);
        let a: [f32; 4] = from_fn(|i| a[i] + a[i + 4]);
        let a: [f32; 2] = from_fn(|i| a[i] + a[i + 2]);
        a[0] + a[1]
    }
    #[inline(always)]
    fn sums(self, a: &[F; LANES]) -> F {
        from_fn(|i| self.sum(a[i]))
    }
    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |most, a| if a > most { a } else { most })
    }
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
