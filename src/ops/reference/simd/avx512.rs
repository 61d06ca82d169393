//! Sixteen lanes in one AVX-512 register.
//!
//! Every `unsafe` block here calls an intrinsic whose instruction set is proved present by the token `Avx512`,
//! which only `detect` makes; loads and stores go through references to whole arrays.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd, Tile};

/// Proof that AVX-512 F, BW, DQ and VL are there, and VNNI where the parameter says so.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const VNNI: bool>(());

impl<const VNNI: bool> Avx512<VNNI> {
    pub(super) fn detect() -> Option<Self> {
        let there = (!VNNI || is_x86_feature_detected!("avx512vnni"))
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma");
        there.then_some(Self(()))
    }
}

/// Adds the halves of `a` and of `b` selected by the shuffles: lane groups of `a` below those of `b`.
#[inline(always)]
unsafe fn fold(a: __m512, b: __m512, low: __m512i, high: __m512i) -> __m512 {
    unsafe { _mm512_add_ps(_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)) }
}

/// `fold` of integers.
#[inline(always)]
unsafe fn fold_integers(a: __m512i, b: __m512i, low: __m512i, high: __m512i) -> __m512i {
    unsafe { _mm512_add_epi32(_mm512_permutex2var_epi32(a, low, b), _mm512_permutex2var_epi32(a, high, b)) }
}

/// `_mm512_dpwssd_epi32` by name: the compiler takes the intrinsic apart into a product and a sum, which is half as fast.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_with_vnni(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Lane numbers for `fold`: of each group of `2 * half` lanes the lower (`shift` 0) or upper (`shift` `half`) half,
/// first those of `a` (0 to 15), then those of `b` (16 to 31).
const fn halves(half: i32, shift: i32) -> [i32; 16] {
    let mut lanes = [0; 16];
    let mut i = 0;
    while i < 8 {
        let lane = (i / half) * 2 * half + i % half + shift;
        lanes[i as usize] = lane;
        lanes[i as usize + 8] = lane + 16;
        i += 1;
    }
    lanes
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type F = __m512;
    type I = __m512i;
    const TILE: Tile = Tile::Large;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, value: __m512, into: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(into.as_mut_ptr(), value) }
    }
    #[inline(always)]
    fn prefetch<T>(self, from: &T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(from).cast()) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn fused_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.mul_add(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn power_of_two(self, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }
    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn and(self, a: __m512i, mask: i32) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi32(mask)) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: __m512i) -> __m512i {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn shift_left(self, a: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn load_pairs(self, from: &[i16; 2 * LANES]) -> __m512i {
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_pairs(self, value: __m512i, into: &mut [i16; 2 * LANES]) {
        unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), value) }
    }
    #[inline(always)]
    fn splat_pair(self, pair: &[i16; 2]) -> __m512i {
        unsafe { _mm512_set1_epi32(bytemuck::cast(*pair)) }
    }
    #[inline(always)]
    fn pairs_of_i8(self, from: &[i8; 2 * LANES]) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn multiply_pairs(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_madd_epi16(a, b) }
    }
    #[inline(always)]
    fn dot_pairs(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        if VNNI {
            unsafe { dot_with_vnni(sum, a, b) }
        } else {
            self.add_integers(sum, self.multiply_pairs(a, b))
        }
    }
    #[inline(always)]
    fn load_integers(self, from: &[i32; LANES]) -> __m512i {
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn splat_integer(self, value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    fn add_integers(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub_integers(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> __m512i {
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_bytes(self, value: __m512i, into: &mut [u8; 4 * LANES]) {
        unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), value) }
    }
    #[inline(always)]
    fn load_halves(self, from: [&[u8; 2 * LANES]; 2]) -> __m512i {
        unsafe {
            let [low, high] = from.map(|from| _mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
    #[inline(always)]
    fn nibbles(self, from: [&[u8; LANES]; 2]) -> __m512i {
        unsafe {
            let [first, second] =
                from.map(|from| _mm512_broadcast_i32x4(_mm_loadu_si128(from.as_ptr().cast())));
            let bytes = _mm512_mask_mov_epi32(first, 0xff00, second);
            let shifts = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
            _mm512_and_si512(_mm512_srlv_epi32(bytes, shifts), _mm512_set1_epi8(15))
        }
    }
    #[inline(always)]
    fn spread_byte_bits(self, bits: u64, value: u8) -> __m512i {
        unsafe { _mm512_maskz_set1_epi8(bits, value as i8) }
    }
    #[inline(always)]
    fn add_bytes(self, a: __m512i, b: u8) -> __m512i {
        unsafe { _mm512_add_epi8(a, _mm512_set1_epi8(b as i8)) }
    }
    #[inline(always)]
    fn rotate_halves(self, a: __m512i, left: [u32; 2]) -> __m512i {
        let [low, high] = left.map(|left| left as i32);
        unsafe {
            let bits = _mm512_mask_mov_epi32(_mm512_set1_epi32(low), 0xff00, _mm512_set1_epi32(high));
            _mm512_rolv_epi32(a, bits)
        }
    }
    #[inline(always)]
    fn dot_bytes(self, n_bits: u32, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe {
            let two = |a| _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1));
            if VNNI {
                _mm512_dpbusd_epi32(sum, a, b)
            } else if n_bits < 8 {
                _mm512_add_epi32(sum, two(a))
            } else {
                // Two products of eight bits by eight may go beyond sixteen.
                let upper = _mm512_and_si512(a, _mm512_set1_epi8(i8::MIN));
                let lower = _mm512_and_si512(a, _mm512_set1_epi8(i8::MAX));
                _mm512_add_epi32(sum, _mm512_add_epi32(two(lower), two(upper)))
            }
        }
    }
    #[inline(always)]
    fn quarter_sums(self, a: &[__m512i; LANES / 2]) -> [__m512i; 2] {
        // As in `sums`, from groups of four lanes on: two vectors hold the sums of four vectors each.
        unsafe {
            let lanes = |half, shift| _mm512_loadu_si512(halves(half, shift).as_ptr().cast());
            let (low, high) = (lanes(2, 0), lanes(2, 2));
            let a: [__m512i; 4] = std::array::from_fn(|i| fold_integers(a[2 * i], a[2 * i + 1], low, high));
            let (low, high) = (lanes(1, 0), lanes(1, 1));
            let a: [__m512i; 2] = std::array::from_fn(|i| fold_integers(a[2 * i], a[2 * i + 1], low, high));
            [low, high].map(|lanes| _mm512_permutex2var_epi32(a[0], lanes, a[1]))
        }
    }
    #[inline(always)]
    fn lookup(self, table: __m512, index: __m512i) -> __m512 {
        unsafe { _mm512_permutexvar_ps(index, table) }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe {
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }
    #[inline(always)]
    fn sums(self, a: &[__m512; LANES]) -> __m512 {
        // Each round folds the upper half of every group onto the lower and packs two vectors into one: 16 vectors
        // of one group of 16 lanes become 8 of two groups of 8, 4 of four groups of 4, 2 of 2, and 1 of 1.
        unsafe {
            let lanes = |half, shift| _mm512_loadu_si512(halves(half, shift).as_ptr().cast());
            let (low, high) = (lanes(8, 0), lanes(8, 8));
            let a: [__m512; 8] = std::array::from_fn(|i| fold(a[2 * i], a[2 * i + 1], low, high));
            let (low, high) = (lanes(4, 0), lanes(4, 4));
            let a: [__m512; 4] = std::array::from_fn(|i| fold(a[2 * i], a[2 * i + 1], low, high));
            let (low, high) = (lanes(2, 0), lanes(2, 2));
            let a: [__m512; 2] = std::array::from_fn(|i| fold(a[2 * i], a[2 * i + 1], low, high));
            let (low, high) = (lanes(1, 0), lanes(1, 1));
            fold(a[0], a[1], low, high)
        }
    }
    #[inline(always)]
    fn transpose(self, a: &[__m512; LANES]) -> [__m512; LANES] {
        // Blocks of half the size change places within each block, until they are single lanes.
        let mut a = *a;
        for half in [8, 4, 2, 1] {
            let own: [i32; LANES] =
                std::array::from_fn(|i| if i & half == 0 { i as i32 } else { (i - half) as i32 + 16 });
            let other = own.map(|lane| lane + half as i32);
            for i in (0..LANES).filter(|i| i & half == 0) {
                unsafe {
                    let (low, high) =
                        (_mm512_loadu_si512(own.as_ptr().cast()), _mm512_loadu_si512(other.as_ptr().cast()));
                    (a[i], a[i + half]) = (
                        _mm512_permutex2var_ps(a[i], low, a[i + half]),
                        _mm512_permutex2var_ps(a[i], high, a[i + half]),
                    );
                }
            }
        }
        a
    }
    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inner<K: Kernel, const VNNI: bool>(simd: Avx512<VNNI>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn with_vnni<K: Kernel, const VNNI: bool>(simd: Avx512<VNNI>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        if VNNI { unsafe { with_vnni(self, kernel) } } else { unsafe { inner(self, kernel) } }
    }
}
