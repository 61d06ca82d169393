//! What all block types have in common, and the one match from a run-time format to a block type.

use super::Format;

/// A block as it lies in the file: `repr(C)`, alignment 1, every bit pattern valid.
///
/// A generic body is called with the block type of a run-time format through `with_block!`.
pub trait Block: bytemuck::Pod + Send + Sync {
    /// The format that this block belongs to.
    const FORMAT: Format;
    /// Weights in the block.
    const ELEMENTS: usize;

    /// Writes the weights. Every product and sum is rounded to single precision on its own, in the order of ggml's
    /// reference (`scale * code - minimum`), so the result is the same on every machine.
    ///
    /// Implementations are plain loops over arrays, inlined into the caller: compiled for AVX2 or AVX-512 there,
    /// they are vectorized for it.
    ///
    /// # Panics
    /// If `out.len()` is not [`Block::ELEMENTS`].
    fn dequantize(&self, out: &mut [f32]);
}

/// The bytes of whole blocks as blocks, without a copy; `None` if a part of a block is left over.
#[inline]
pub fn blocks_of<B: Block>(bytes: &[u8]) -> Option<&[B]> {
    bytemuck::try_cast_slice(bytes).ok()
}

/// Evaluates an expression with a type name bound to the block type of a run-time [`Format`]:
/// `with_block!(format, B => size_of::<B>())`. The expression is compiled once per format.
macro_rules! with_block {
    ($format:expr, $B:ident => $body:expr) => {
        $crate::quant::with_block!(@match $format, $B => $body;
            F32 BlockF32, F16 BlockF16, BF16 BlockBF16, Q4_0 BlockQ4_0, Q4_1 BlockQ4_1, Q5_0 BlockQ5_0,
            Q5_1 BlockQ5_1, Q8_0 BlockQ8_0, Q2_K BlockQ2_K, Q3_K BlockQ3_K, Q4_K BlockQ4_K, Q5_K BlockQ5_K,
            Q6_K BlockQ6_K, Q8_K BlockQ8_K, IQ4_NL BlockIQ4_NL, IQ4_XS BlockIQ4_XS)
    };
    (@match $format:expr, $B:ident => $body:expr; $($name:ident $block:ident),*) => {
        match $format {
            $($crate::quant::Format::$name => {
                type $B = $crate::quant::blocks::$block;
                $body
            })*
        }
    };
}
pub(crate) use with_block;
