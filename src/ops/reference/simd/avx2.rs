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
    fn shift_left(self, a: I, n: u32) -> I {
        unsafe { a.map(|a| _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32))) }
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
    fn multiply_pairs(self, a: I, b: I) -> I {
        unsafe { [_mm256_madd_epi16(a[0], b[0]), _mm256_madd_epi16(a[1], b[1])] }
    }
    #[inline(always)]
    fn dot_pairs(self, sum: I, a: I, b: I) -> I {
        self.add_integers(sum, self.multiply_pairs(a, b))
    }
    #[inline(always)]
    fn load_integers(self, from: &[i32; LANES]) -> I {
        let (low, high) = from.split_at(8);
        unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] }
    }
    #[inline(always)]
    fn splat_integer(self, value: i32) -> I {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }
    #[inline(always)]
    fn add_integers(self, a: I, b: I) -> I {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub_integers(self, a: I, b: I) -> I {
        unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> I {
        let (low, high) = from.split_at(2 * LANES);
        unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] }
    }
    #[inline(always)]
    fn store_bytes(self, value: I, into: &mut [u8; 4 * LANES]) {
        let (low, high) = into.split_at_mut(2 * LANES);
        unsafe {
            _mm256_storeu_si256(low.as_mut_ptr().cast(), value[0]);
            _mm256_storeu_si256(high.as_mut_ptr().cast(), value[1]);
        }
    }
    #[inline(always)]
    fn load_halves(self, from: [&[u8; 2 * LANES]; 2]) -> I {
        unsafe { from.map(|from| _mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn nibbles(self, from: [&[u8; LANES]; 2]) -> I {
        unsafe {
            from.map(|from| {
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                let both =
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(bytes), _mm_srli_epi16::<4>(bytes));
                _mm256_and_si256(both, _mm256_set1_epi8(15))
            })
        }
    }
    #[inline(always)]
    fn spread_byte_bits(self, bits: u64, value: u8) -> I {
        unsafe {
            [bits as i32, (bits >> 32) as i32].map(|bits| {
                // Each byte takes the byte that holds its bit, and looks for it.
                let source = _mm256_setr_epi64x(
                    0,
                    0x0101_0101_0101_0101,
                    0x0202_0202_0202_0202,
                    0x0303_0303_0303_0303,
                );
                let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), source);
                let found = _mm256_cmpeq_epi8(_mm256_and_si256(spread, own), own);
                _mm256_and_si256(found, _mm256_set1_epi8(value as i8))
            })
        }
    }
    #[inline(always)]
    fn add_bytes(self, a: I, b: u8) -> I {
        unsafe { a.map(|a| _mm256_add_epi8(a, _mm256_set1_epi8(b as i8))) }
    }
    #[inline(always)]
    fn rotate_halves(self, a: I, left: [u32; 2]) -> I {
        std::array::from_fn(|i| unsafe {
            let (left, right) = (left[i] as i32, 32 - left[i] as i32);
            _mm256_or_si256(
                _mm256_sll_epi32(a[i], _mm_cvtsi32_si128(left)),
                _mm256_srl_epi32(a[i], _mm_cvtsi32_si128(right)),
            )
        })
    }
    #[inline(always)]
    fn dot_bytes(self, n_bits: u32, sum: I, a: I, b: I) -> I {
        std::array::from_fn(|i| unsafe {
            let two = |a| _mm256_madd_epi16(_mm256_maddubs_epi16(a, b[i]), _mm256_set1_epi16(1));
            if n_bits < 8 {
                _mm256_add_epi32(sum[i], two(a[i]))
            } else {
                // Two products of eight bits by eight may go beyond sixteen.
                let upper = _mm256_and_si256(a[i], _mm256_set1_epi8(i8::MIN));
                let lower = _mm256_and_si256(a[i], _mm256_set1_epi8(i8::MAX));
                _mm256_add_epi32(sum[i], _mm256_add_epi32(two(lower), two(upper)))
            }
        })
    }
    #[inline(always)]
    fn quarter_sums(self, a: &[I; LANES / 2]) -> [I; 2] {
        unsafe {
            // Neighbours are added within each 128 bits, twice; these then hold lower or upper sums of two vectors.
            let two = |i: usize| _mm256_hadd_epi32(a[i][0], a[i][1]);
            let four = |i: usize| _mm256_hadd_epi32(two(i), two(i + 1));
            let (low, high) = ([four(0), four(4)], [four(2), four(6)]);
            let eight = |i: usize| {
                [
                    _mm256_permute2x128_si256::<0x20>(low[i], high[i]),
                    _mm256_permute2x128_si256::<0x31>(low[i], high[i]),
                ]
            };
            let ([first, second], [third, fourth]) = (eight(0), eight(1));
            [[first, third], [second, fourth]]
        }
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
