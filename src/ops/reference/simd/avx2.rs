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

/// The sums of one half of each of eight vectors.
#[inline(always)]
unsafe fn eight_sums(a: &[I; LANES], first: usize, half: usize) -> __m256i {
    let of = |i: usize| a[first + i][half];
    unsafe {
        // Neighbours are added within each 128 bits, twice; then the 128 bits.
        let two = [
            _mm256_hadd_epi32(of(0), of(1)),
            _mm256_hadd_epi32(of(2), of(3)),
            _mm256_hadd_epi32(of(4), of(5)),
            _mm256_hadd_epi32(of(6), of(7)),
        ];
        let (low, high) = (_mm256_hadd_epi32(two[0], two[1]), _mm256_hadd_epi32(two[2], two[3]));
        let (first, second) =
            (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high));
        _mm256_add_epi32(first, second)
    }
}

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
    fn prefetch<T>(self, from: &T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(from).cast()) }
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
    fn fused_mul_add(self, a: F, b: F, c: F) -> F {
        self.mul_add(a, b, c)
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
    fn load_pairs(self, from: &[i16; 2 * LANES]) -> I {
        let (low, high) = from.split_at(LANES);
        unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] }
    }
    #[inline(always)]
    fn store_pairs(self, value: I, into: &mut [i16; 2 * LANES]) {
        let (low, high) = into.split_at_mut(LANES);
        unsafe {
            _mm256_storeu_si256(low.as_mut_ptr().cast(), value[0]);
            _mm256_storeu_si256(high.as_mut_ptr().cast(), value[1]);
        }
    }
    #[inline(always)]
    fn splat_pair(self, pair: &[i16; 2]) -> I {
        unsafe { [_mm256_set1_epi32(bytemuck::cast(*pair)); 2] }
    }
    #[inline(always)]
    fn pairs_of_u8(self, from: &[u8; 2 * LANES]) -> I {
        let (low, high) = from.split_at(LANES);
        unsafe {
            [
                _mm256_cvtepu8_epi16(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_cvtepu8_epi16(_mm_loadu_si128(high.as_ptr().cast())),
            ]
        }
    }
    #[inline(always)]
    fn pairs_of_i8(self, from: &[i8; 2 * LANES]) -> I {
        let (low, high) = from.split_at(LANES);
        unsafe {
            [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(high.as_ptr().cast())),
            ]
        }
    }
    #[inline(always)]
    fn pairs_of_nibbles(self, from: &[u8; LANES]) -> I {
        unsafe {
            let bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.as_ptr().cast()));
            [_mm256_and_si256(bytes, _mm256_set1_epi16(15)), _mm256_srli_epi16::<4>(bytes)]
        }
    }
    #[inline(always)]
    fn spread_pair_bits(self, bits: u32, value: i16) -> I {
        // Each i16 looks for its own bit.
        let own: [i16; LANES] = std::array::from_fn(|i| (1_u16 << i) as i16);
        unsafe {
            let own = _mm256_loadu_si256(own.as_ptr().cast());
            [bits, bits >> LANES].map(|bits| {
                let found = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(bits as i16), own), own);
                _mm256_and_si256(found, _mm256_set1_epi16(value))
            })
        }
    }
    #[inline(always)]
    fn sub_pairs(self, a: I, b: i16) -> I {
        unsafe {
            [_mm256_sub_epi16(a[0], _mm256_set1_epi16(b)), _mm256_sub_epi16(a[1], _mm256_set1_epi16(b))]
        }
    }
    #[inline(always)]
    fn multiply_pairs(self, a: I, b: I) -> I {
        unsafe { [_mm256_madd_epi16(a[0], b[0]), _mm256_madd_epi16(a[1], b[1])] }
    }
    #[inline(always)]
    fn dot_pairs(self, sum: I, a: I, b: I) -> I {
        self.add_integers(sum, self.multiply_pairs(a, b))
    }
    #[inline(always)]
    fn add_integers(self, a: I, b: I) -> I {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn half_sums(self, a: &[I; LANES]) -> [I; 2] {
        unsafe { [[eight_sums(a, 0, 0), eight_sums(a, 8, 0)], [eight_sums(a, 0, 1), eight_sums(a, 8, 1)]] }
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
