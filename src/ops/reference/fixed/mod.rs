//! The matrix product in fixed point: 16-bit activations, integer codes of weights, exact sums.
//!
//! ```text
//! out[t][r] = Σ_j Σ_c scale[r][c] · scale[t][c] · Σ_k code[r][c][k] · code[t][c][k]     (+ offset[r][c] · sum[t][c])
//! ```
//!
//! over chunks c of 32 columns k. The sum over k is one of integers and exact, so nothing depends on how it is made. The
//! others are f32 and have one order: class j has chunks j, j + 16, j + 32 and so on, each added with one rounding (Q6_K,
//! with two scales to a chunk, adds twice), and the sixteen classes are added in order. Bits therefore depend on neither
//! the number of tokens, of threads, nor the instruction set. Sixteen classes are what decode has in the lanes of one
//! vector, prefill one after the other.
//!
//! An activation is off by at most `largest / 65024` of its 256 columns (`activations`), about 1e-4 of their root mean
//! square; weights and products are exact.

mod activations;
mod product;
mod scales;
#[cfg(test)]
mod tests;

pub(super) use activations::{Activations, floats};
pub(super) use product::{Product, work};

use crate::quant::Format;

/// Evaluates an expression with a type name bound to the block type of a format that has integer codes here, or another
/// expression for all other formats.
macro_rules! with_codes {
    ($format:expr, $B:ident => $body:expr, else $other:expr) => {
        $crate::ops::reference::fixed::with_codes!(@match $format, $B => $body, $other;
            Q4_0 BlockQ4_0, Q5_0 BlockQ5_0, Q8_0 BlockQ8_0, Q4_K BlockQ4_K, Q5_K BlockQ5_K, Q6_K BlockQ6_K)
    };
    (@match $format:expr, $B:ident => $body:expr, $other:expr; $($name:ident $block:ident),*) => {
        match $format {
            $($crate::quant::Format::$name => {
                type $B = $crate::quant::blocks::$block;
                $body
            })*
            _ => $other,
        }
    };
}
use with_codes;

/// Whether products with matrices of this format are made here; the others stay in f32.
pub(super) fn takes(format: Format) -> bool {
    with_codes!(format, B => <B as crate::quant::Block>::FORMAT == format, else false)
}
