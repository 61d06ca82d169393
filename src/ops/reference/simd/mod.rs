//! Sixteen lanes of f32, three ways: AVX-512, AVX2 with FMA, and plain Rust.
//!
//! Kernels are written once, generic over [`Simd`]. All three compute in the same sixteen lanes and the same order;
//! AVX2 and AVX-512 agree to the bit, plain Rust rounds a product before it adds it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Proof that an instruction set is there, and its arithmetic on sixteen lanes.
pub(super) trait Simd: Copy + Send + Sync {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Weight rows and tokens of the matmul tile that fits the registers.
    const TILE: Tile;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, value: Self::F, into: &mut [f32; LANES]);
    /// Asks for memory that will be read soon.
    fn prefetch<T>(self, from: &T);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a * b + c`, rounded once on every instruction set.
    fn fused_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integers n from -126 to 127.
    fn power_of_two(self, n: Self::F) -> Self::F;
    /// Sixteen IEEE halves, exactly.
    fn load_half(self, from: &[u16; LANES]) -> Self::F;

    /// Sixteen unsigned bytes, widened.
    fn load_u8(self, from: &[u8; LANES]) -> Self::I;
    /// Sixteen signed bytes, widened.
    fn load_i8(self, from: &[i8; LANES]) -> Self::I;
    fn and(self, a: Self::I, mask: i32) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I;
    fn shift_left(self, a: Self::I, n: u32) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;

    /// Thirty-two i16, two to a lane, the first in the lower half.
    fn load_pairs(self, from: &[i16; 2 * LANES]) -> Self::I;
    fn store_pairs(self, value: Self::I, into: &mut [i16; 2 * LANES]);
    /// The same pair in every lane.
    fn splat_pair(self, pair: &[i16; 2]) -> Self::I;
    /// Thirty-two signed bytes, widened to pairs.
    fn pairs_of_i8(self, from: &[i8; 2 * LANES]) -> Self::I;
    /// `a.0 · b.0 + a.1 · b.1` of each lane's pairs.
    fn multiply_pairs(self, a: Self::I, b: Self::I) -> Self::I;
    /// The same, added to `sum`.
    fn dot_pairs(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    fn load_integers(self, from: &[i32; LANES]) -> Self::I;
    fn splat_integer(self, value: i32) -> Self::I;
    fn add_integers(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_integers(self, a: Self::I, b: Self::I) -> Self::I;
    /// Sixty-four bytes, four to a lane.
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::I;
    fn store_bytes(self, value: Self::I, into: &mut [u8; 4 * LANES]);
    /// Two times thirty-two bytes.
    fn load_halves(self, from: [&[u8; 2 * LANES]; 2]) -> Self::I;
    /// The lower halves of sixteen bytes, then their upper halves; then those of the second sixteen.
    fn nibbles(self, from: [&[u8; LANES]; 2]) -> Self::I;
    /// `value` in byte number i where bit i is set, else 0.
    fn spread_byte_bits(self, bits: u64, value: u8) -> Self::I;
    /// `a + b` of each byte, without what goes beyond it.
    fn add_bytes(self, a: Self::I, b: u8) -> Self::I;
    /// Lanes 0 to 7 turned left by the first number of bits, below 32, and lanes 8 to 15 by the second.
    fn rotate_halves(self, a: Self::I, left: [u32; 2]) -> Self::I;
    /// The sum over each lane's bytes of `a · b`, added to `sum`; a are unsigned, below `2^n_bits`, and b signed.
    fn dot_bytes(self, n_bits: u32, sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// Of eight vectors the sums of lanes 0 to 3 and 8 to 11 of each, in order; and those of lanes 4 to 7 and 12 to 15.
    fn quarter_sums(self, a: &[Self::I; LANES / 2]) -> [Self::I; 2];
    /// `table[index & 15]` in each lane.
    fn lookup(self, table: Self::F, index: Self::I) -> Self::F;

    /// The sum of the lanes: halves folded onto each other, 8, 4, 2, 1.
    fn sum(self, a: Self::F) -> f32;
    /// `sum` of each of sixteen vectors, to the same bits.
    fn sums(self, a: &[Self::F; LANES]) -> Self::F;
    /// Lane j of vector i becomes lane i of vector j.
    fn transpose(self, a: &[Self::F; LANES]) -> [Self::F; LANES] {
        let mut rows = [[0.0; LANES]; LANES];
        for (row, a) in rows.iter_mut().zip(a) {
            self.store(*a, row);
        }
        std::array::from_fn(|j| self.load(&std::array::from_fn(|i| rows[i][j])))
    }
    /// The largest lane.
    fn largest(self, a: Self::F) -> f32;

    /// Runs a kernel in a function compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;
}

/// Weight rows and tokens of a matmul tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tile {
    /// For 32 vector registers: twelve sums, and as many for each in fixed point.
    Large,
    /// For 16 registers of half the width: a few sums.
    Small,
}

/// Work that is compiled once for each instruction set.
pub(super) trait Kernel {
    /// What it answers.
    type Output;
    /// Whether it lives on [`Simd::dot_pairs`] or [`Simd::dot_bytes`], for which some processors have an instruction.
    const DOTS: bool = false;
    /// The work; implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The best instruction set of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// The same with VNNI, where a kernel has use for it.
    Avx512Vnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Whatever the compiler makes of plain Rust.
    Portable,
}

impl InstructionSet {
    /// What this machine has, best first; the portable one is always there.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(avx512::Avx512::<true>::detect().map(|_| Self::Avx512Vnni));
            sets.extend(avx512::Avx512::<false>::detect().map(|_| Self::Avx512));
            sets.extend(avx2::Avx2::detect().map(|_| Self::Avx2));
        }
        sets.push(Self::Portable);
        sets
    }
    /// The name, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Portable => "portable",
        }
    }
    /// Runs a kernel on this instruction set, or on the portable one where the machine lacks it.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx512Vnni if K::DOTS => {
                if let Some(simd) = avx512::Avx512::<true>::detect() {
                    return simd.run(kernel);
                }
            }
            Self::Avx512Vnni | Self::Avx512 => {
                if let Some(simd) = avx512::Avx512::<false>::detect() {
                    return simd.run(kernel);
                }
            }
            Self::Avx2 => {
                if let Some(simd) = avx2::Avx2::detect() {
                    return simd.run(kernel);
                }
            }
            Self::Portable => {}
        }
        portable::Portable.run(kernel)
    }
}

/// Loads up to sixteen values; lanes beyond them are zero.
#[inline(always)]
pub(super) fn load_padded<S: Simd>(simd: S, from: &[f32]) -> S::F {
    match from.first_chunk::<LANES>() {
        Some(full) => simd.load(full),
        None => {
            let mut padded = [0.0; LANES];
            padded[..from.len()].copy_from_slice(from);
            simd.load(&padded)
        }
    }
}

/// `e^x`, within 2 units in the last place; beyond ±87 it stays at the bound's value.
///
/// `e^x = 2^n · e^r` with `n = round(x / ln 2)`, `|r| <= ln 2 / 2`, and e^r by its Taylor polynomial of degree 7.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    const LN2_HIGH: f32 = 0.693_359_4; // 355 / 512, so that n · LN2_HIGH is exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const TAYLOR: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = simd.max(simd.min(x, simd.splat(87.0)), simd.splat(-87.0));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN2_LOW), r);
    let mut sum = simd.splat(1.0 / 5040.0);
    for coefficient in TAYLOR {
        sum = simd.mul_add(sum, r, simd.splat(coefficient));
    }
    simd.mul(sum, simd.power_of_two(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a set of lanes can do, as bits.
    struct Probe;

    impl Kernel for Probe {
        type Output = Vec<u32>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u32> {
            let a: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.3) * 1.37);
            let b: [f32; 16] = std::array::from_fn(|i| 0.25 * (i as f32) - 1.5);
            let bytes: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
            let signed: [i8; 16] = bytes.map(|byte| byte as i8);
            let halves: [u16; 16] = std::array::from_fn(|i| (0x2c00 + i * 0x311) as u16);
            let (fa, fb) = (s.load(&a), s.load(&b));
            let (u, i) = (s.load_u8(&bytes), s.load_i8(&signed));
            let rows: [S::F; 16] = std::array::from_fn(|k| s.mul(fa, s.splat(k as f32 + 0.1)));
            let wide: [u8; 32] = std::array::from_fn(|i| (i * 29 + 3) as u8);
            let pairs = s.pairs_of_i8(&wide.map(|byte| byte as i8));
            let products = s.multiply_pairs(pairs, pairs);
            let mut stored = [0; 32];
            s.store_pairs(products, &mut stored);
            let all: [u8; 64] = std::array::from_fn(|i| (i * 37 + 11) as u8);
            let (codes, numbers) = (s.load_bytes(&all), s.load_halves([&wide, &wide.map(|byte| !byte)]));
            let mut stored_bytes = [0; 64];
            s.store_bytes(s.add_bytes(codes, 200), &mut stored_bytes);
            let integers: [S::I; 8] = std::array::from_fn(|k| s.shift_left(codes, k as u32));
            let results = [
                s.add(fa, fb),
                s.sub(fa, fb),
                s.mul(fa, fb),
                s.div(fa, fb),
                s.max(fa, fb),
                s.min(fa, fb),
                s.round(fa),
                s.power_of_two(s.round(fa)),
                s.load_half(&halves),
                s.to_float(u),
                s.to_float(i),
                s.to_float(s.and(u, 15)),
                s.to_float(s.or(s.shift_left(u, 4), i)),
                s.to_float(s.shift_right::<3>(u)),
                s.lookup(fa, u),
                s.sums(&rows),
                s.fused_mul_add(fa, fb, fa),
                s.to_float(products),
                s.to_float(s.dot_pairs(i, pairs, s.splat_pair(&[-3, 32512]))),
                s.to_float(s.add_integers(u, products)),
                s.to_float(s.sub_integers(u, s.splat_integer(1 << 20))),
                s.to_float(s.load_integers(&std::array::from_fn(|i| i as i32 - 9))),
                s.to_float(s.load_bytes(&stored_bytes)),
                s.to_float(s.nibbles([&bytes, &bytes.map(|byte| !byte)])),
                s.to_float(s.spread_byte_bits(0x9a5c_36f1_0f83_77e2, 16)),
                s.to_float(s.rotate_halves(codes, [0, 29])),
                s.to_float(s.dot_bytes(8, i, codes, numbers)),
                s.to_float(s.dot_bytes(7, i, s.and(codes, 0x7f7f_7f7f), numbers)),
                s.to_float(s.quarter_sums(&integers)[0]),
                s.to_float(s.quarter_sums(&integers)[1]),
                s.transpose(&rows)[13],
                s.to_float(s.load_pairs(&stored)),
                s.splat(s.sum(fa)),
                s.splat(s.largest(fa)),
                load_padded(s, &a[..5]),
            ];
            let mut bits = Vec::new();
            for result in results {
                let mut out = [0.0; 16];
                s.store(result, &mut out);
                bits.extend(out.map(f32::to_bits));
            }
            bits.extend(rows.map(|row| s.sum(row).to_bits()));
            bits
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_lanes() {
        let expected = InstructionSet::Portable.run(Probe);
        for set in InstructionSet::available() {
            let bits = set.run(Probe);
            for (i, (got, expected)) in bits.iter().zip(&expected).enumerate() {
                let (result, lane) = (i / LANES, i % LANES);
                assert_eq!(got, expected, "{}: result {result}, lane {lane}", set.name());
            }
            let sums = &bits[15 * 16..16 * 16];
            assert_eq!(sums, &bits[bits.len() - 16..], "{}: sums of sixteen against sum", set.name());
        }
    }

    struct Exp<'a>(&'a [f32]);

    impl Kernel for Exp<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len()];
            for (x, out) in self.0.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                s.store(exp(s, s.load(x)), out);
            }
            out
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let xs: Vec<f32> = (0..160_000).map(|i| -87.0 + i as f32 * (174.0 / 160_000.0)).collect();
        for set in InstructionSet::available() {
            for (x, got) in xs.iter().zip(set.run(Exp(&xs))) {
                let exact = f64::from(*x).exp();
                let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1) - exact as f32);
                let error = (f64::from(got) - exact).abs() / unit;
                assert!(error <= 2.0, "{}: exp({x}) is {error} units off", set.name());
            }
        }
    }
}
