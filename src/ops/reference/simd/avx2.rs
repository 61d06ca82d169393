//! Sixteen lanes in two AVX2 registers.
//!
//! Every `unsafe` block here calls an intrinsic whose instruction set is proved present by the token `Avx2`, which
//! only `detect` makes; loads and stores go through references to whole arrays.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd, Tile};

/// Proof that AVX2, FMA and F16C are there.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        there.then_some(Self(()))
    }
}

/// Lanes 0 to 7 and 8 to 15.
type F = [__m256; 2];
type I = [__m256i; 2];

impl Simd for Avx2 {
    type F = F;
    type I = I;
    const TILE: Tile = Tile::Small;

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        let (low, high) = from.split_at(8);
        unsafe { [_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())] }
    }
    #[inline(always)]
    fn store(self, value: F, into: &mut [f32; LANES]) {
        let (low, high) = into.split_at_mut(8);
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(high.as_mut_ptr(), value[1]);
        }
    }
    #[inline(always)]
    fn prefetch(self, from: &[f32; LANES]) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
    }
    #[inline(always)]
    fn power_of_two(self, n: F) -> F {
        unsafe {
            n.map(|n| {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            })
        }
    }
    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> F {
        let (low, high) = from.split_at(8);
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(high.as_ptr().cast())),
            ]
        }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> I {
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            [_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes))]
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> I {
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))]
        }
    }
    #[inline(always)]
    fn and(self, a: I, mask: i32) -> I {
        unsafe { a.map(|a| _mm256_and_si256(a, _mm256_set1_epi32(mask))) }
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: I) -> I {
        unsafe { a.map(|a| _mm256_srli_epi32::<N>(a)) }
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: I) -> I {
        unsafe { a.map(|a| _mm256_slli_epi32::<N>(a)) }
    }
    #[inline(always)]
    fn shift_right_by(self, a: I, n: u32) -> I {
        unsafe { a.map(|a| _mm256_srl_epi32(a, _mm_cvtsi32_si128(n as i32))) }
    }
    #[inline(always)]
    fn spread_bits(self, bits: u32) -> I {
        unsafe {
            let bits = _mm256_set1_epi32(bits as i32);
            [0, 8].map(|first| {
                let lanes =
                    _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
                _mm256_and_si256(_mm256_srlv_epi32(bits, lanes), _mm256_set1_epi32(1))
            })
        }
    }
    #[inline(always)]
    fn to_float(self, a: I) -> F {
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    fn lookup(self, table: F, index: I) -> F {
        // permutevar looks at three bits; the fourth, moved to the sign, chooses the half of the table.
        let pick = |index: __m256i| unsafe {
            let low = _mm256_permutevar8x32_ps(table[0], index);
            let high = _mm256_permutevar8x32_ps(table[1], index);
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
        };
        [pick(index[0]), pick(index[1])]
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        unsafe {
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }
    #[inline(always)]
    fn sums(self, a: &[F; LANES]) -> F {
        let sums: [f32; LANES] = std::array::from_fn(|i| self.sum(a[i]));
        self.load(&sums)
    }
    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(a, &mut lanes);
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        unsafe { inner(self, kernel) }
    }
}
