//! RMSNorm and SwiGLU, row by row.

use super::simd::{Kernel, LANES, Simd, exp, load_padded};

/// `out = x / sqrt(mean(x²) + eps) · weight`; out's padding becomes zero.
pub(super) struct RmsNorm<'a> {
    /// `[width]`.
    pub x: &'a [f32],
    /// `[width]`.
    pub weight: &'a [f32],
    pub eps: f32,
    /// `[padded width]`.
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut squares = simd.splat(0.0);
        for x in self.x.chunks(LANES) {
            let x = load_padded(simd, x);
            squares = simd.mul_add(x, x, squares);
        }
        let mean = simd.sum(squares) / self.x.len() as f32;
        let scale = simd.splat(1.0 / (mean + self.eps).sqrt());
        let (x, weight) = (self.x.chunks(LANES), self.weight.chunks(LANES));
        for ((x, weight), out) in x.zip(weight).zip(self.out.as_chunks_mut::<LANES>().0) {
            let normed = simd.mul(load_padded(simd, x), scale);
            simd.store(simd.mul(normed, load_padded(simd, weight)), out);
        }
    }
}

/// `out = gate / (1 + e^-gate) · up`; out's padding becomes zero.
pub(super) struct SwiGlu<'a> {
    /// `[width]`.
    pub gate: &'a [f32],
    /// `[width]`.
    pub up: &'a [f32],
    /// `[padded width]`.
    pub out: &'a mut [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        let (gate, up) = (self.gate.chunks(LANES), self.up.chunks(LANES));
        for ((gate, up), out) in gate.zip(up).zip(self.out.as_chunks_mut::<LANES>().0) {
            let gate = load_padded(simd, gate);
            let silu = simd.div(gate, simd.add(one, exp(simd, simd.sub(zero, gate))));
            simd.store(simd.mul(silu, load_padded(simd, up)), out);
        }
    }
}
