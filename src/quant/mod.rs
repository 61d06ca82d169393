//! GGML block formats: how a row of weights is stored, and how it turns into numbers.
//!
//! Everything the crate knows of a format stands in one row of [`FORMATS`] and in its block type in [`blocks`]. Source
//! of the layouts: `ggml-common.h` and `ggml-quants.c` of ggml, whose reference dequantization is matched to the bit.
//!
//! ```
//! use worker_orcd::quant::Format;
//! let weights: Vec<f32> = (0..64).map(|i| i as f32 / 8.0).collect();
//! let mut bytes = vec![0; 2 * Format::Q8_0.block_bytes()];
//! Format::Q8_0.quantize(&weights, &mut bytes)?;
//! let mut back = vec![0.0; 64];
//! Format::Q8_0.dequantize(&bytes, &mut back)?;
//! assert!(weights.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.04));
//! # Ok::<(), worker_orcd::quant::QuantError>(())
//! ```

mod bits;
mod block;
mod error;
mod iq;
mod k;
mod quantize;
mod search;
mod simple;

pub use bits::{Half, PackedScales};
pub(crate) use block::with_block;
pub use block::{Block, blocks_of};
pub use error::QuantError;
pub use iq::IQ4_VALUES;
pub use quantize::Quantize;

/// One block type per format.
pub mod blocks {
    pub use super::iq::{BlockIQ4_NL, BlockIQ4_XS};
    pub use super::k::{BlockQ2_K, BlockQ3_K, BlockQ4_K, BlockQ5_K, BlockQ6_K, BlockQ8_K};
    pub use super::simple::{
        BlockBF16, BlockF16, BlockF32, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0,
    };
}

use blocks::*;

/// A GGML tensor format that this crate reads. Names are ggml's own.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// 32 weights of 4 bits, one scale.
    Q4_0,
    /// 32 weights of 4 bits, scale and minimum.
    Q4_1,
    /// 32 weights of 5 bits, one scale.
    Q5_0,
    /// 32 weights of 5 bits, scale and minimum.
    Q5_1,
    /// 32 weights of 8 bits, one scale.
    Q8_0,
    /// 256 weights of 2 bits, 16 scales and minima of 4 bits.
    Q2_K,
    /// 256 weights of 3 bits, 16 scales of 6 bits.
    Q3_K,
    /// 256 weights of 4 bits, 8 scales and minima of 6 bits.
    Q4_K,
    /// 256 weights of 5 bits, 8 scales and minima of 6 bits.
    Q5_K,
    /// 256 weights of 6 bits, 16 scales of 8 bits.
    Q6_K,
    /// 256 weights of 8 bits, one single-precision scale.
    Q8_K,
    /// 32 weights of 4 bits through a non-linear table, one scale.
    IQ4_NL,
    /// 256 weights of 4 bits through a non-linear table, 8 scales of 6 bits.
    IQ4_XS,
}

/// Turns blocks into weights.
pub type DequantizeFn = fn(&[u8], &mut [f32]);

/// Turns weights into blocks.
pub type QuantizeFn = fn(&[f32], &mut [u8]);

/// What the crate knows of one format.
#[derive(Debug)]
pub struct FormatRow {
    /// The format.
    pub format: Format,
    /// ggml's name.
    pub name: &'static str,
    /// The number that a GGUF tensor table holds.
    pub ggml_id: u32,
    /// Weights in a block; a row's length is a multiple of it.
    pub block_elements: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Turns blocks into weights, as many as both slices have room for; [`Format::dequantize`] checks the lengths.
    pub dequantize: DequantizeFn,
    /// Turns finite weights into blocks, likewise; [`Format::quantize`] checks lengths and weights. `None` if this crate
    /// only reads the format.
    pub quantize: Option<QuantizeFn>,
}

/// A row for a format that is only read.
const fn read<B: Block>(
    name: &'static str,
    ggml_id: u32,
    block_elements: usize,
    block_bytes: usize,
) -> FormatRow {
    FormatRow {
        format: B::FORMAT,
        name,
        ggml_id,
        block_elements,
        block_bytes,
        dequantize: dequantize_blocks::<B>,
        quantize: None,
    }
}

/// A row for a format that is read and written.
const fn both<B: Quantize>(
    name: &'static str,
    ggml_id: u32,
    block_elements: usize,
    block_bytes: usize,
) -> FormatRow {
    FormatRow {
        quantize: Some(quantize_blocks::<B>),
        ..read::<B>(name, ggml_id, block_elements, block_bytes)
    }
}

/// One row per format, in the order of [`Format`]: name, ggml's number, weights and bytes of a block.
pub static FORMATS: [FormatRow; 16] = [
    both::<BlockF32>("F32", 0, 1, 4),
    both::<BlockF16>("F16", 1, 1, 2),
    both::<BlockBF16>("BF16", 30, 1, 2),
    both::<BlockQ4_0>("Q4_0", 2, 32, 18),
    read::<BlockQ4_1>("Q4_1", 3, 32, 20),
    both::<BlockQ5_0>("Q5_0", 6, 32, 22),
    read::<BlockQ5_1>("Q5_1", 7, 32, 24),
    both::<BlockQ8_0>("Q8_0", 8, 32, 34),
    read::<BlockQ2_K>("Q2_K", 10, 256, 84),
    read::<BlockQ3_K>("Q3_K", 11, 256, 110),
    both::<BlockQ4_K>("Q4_K", 12, 256, 144),
    both::<BlockQ5_K>("Q5_K", 13, 256, 176),
    both::<BlockQ6_K>("Q6_K", 14, 256, 210),
    read::<BlockQ8_K>("Q8_K", 15, 256, 292),
    read::<BlockIQ4_NL>("IQ4_NL", 20, 32, 18),
    read::<BlockIQ4_XS>("IQ4_XS", 23, 256, 136),
];

// The table, the enum, the block types and `with_block!` agree, or the crate does not compile.
const _: () = {
    let mut i = 0;
    while i < FORMATS.len() {
        let row = &FORMATS[i];
        assert!(row.format as usize == i, "rows stand in the order of the enum");
        with_block!(row.format, B => {
            assert!(B::FORMAT as usize == i, "with_block! names the format's own block");
            assert!(B::ELEMENTS == row.block_elements);
            assert!(size_of::<B>() == row.block_bytes && align_of::<B>() == 1);
        });
        i += 1;
    }
};

fn dequantize_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let whole = bytes.len() - bytes.len() % size_of::<B>();
    let blocks = blocks_of::<B>(&bytes[..whole]).unwrap_or(&[]);
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::ELEMENTS)) {
        block.dequantize(out);
    }
}

fn quantize_blocks<B: Quantize>(values: &[f32], bytes: &mut [u8]) {
    for (values, bytes) in values.chunks_exact(B::ELEMENTS).zip(bytes.chunks_exact_mut(size_of::<B>())) {
        bytes.copy_from_slice(bytemuck::bytes_of(&B::quantize(values)));
    }
}

impl Format {
    /// This format's row of [`FORMATS`].
    pub fn row(self) -> &'static FormatRow {
        &FORMATS[self as usize]
    }
    /// ggml's name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The format that a GGUF tensor table names by this number, if this crate reads it.
    pub fn from_ggml_id(id: u32) -> Option<Format> {
        FORMATS.iter().find(|row| row.ggml_id == id).map(|row| row.format)
    }
    /// Weights in a block.
    pub fn block_elements(self) -> usize {
        self.row().block_elements
    }
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }
    /// Bytes of a row of `n_cols` weights; `None` if the row is not a whole number of blocks or the product overflows.
    pub fn row_bytes(self, n_cols: u64) -> Option<u64> {
        let elements = self.block_elements() as u64;
        if !n_cols.is_multiple_of(elements) {
            return None;
        }
        (n_cols / elements).checked_mul(self.block_bytes() as u64)
    }
    /// Turns whole blocks into weights, equal to ggml's reference to the bit.
    ///
    /// # Errors
    /// If the weights are no whole number of blocks, or the bytes are not those blocks.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
        self.check_lengths(out.len(), bytes.len())?;
        (self.row().dequantize)(bytes, out);
        Ok(())
    }
    /// Turns weights into blocks. The scales are finite whatever the weights; weights beyond the format's range
    /// become the nearest that it holds.
    ///
    /// # Errors
    /// If the crate does not write this format, the weights are no whole number of blocks, the bytes are not those
    /// blocks, or a weight is not finite.
    pub fn quantize(self, values: &[f32], bytes: &mut [u8]) -> Result<(), QuantError> {
        let quantize = self.row().quantize.ok_or(QuantError::NotWritable { format: self })?;
        self.check_lengths(values.len(), bytes.len())?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(QuantError::NotFinite { format: self, index, value: values[index] });
        }
        quantize(values, bytes);
        Ok(())
    }
    fn check_lengths(self, values: usize, found: usize) -> Result<(), QuantError> {
        let block_elements = self.block_elements();
        if !values.is_multiple_of(block_elements) {
            return Err(QuantError::PartialBlock { format: self, values, block_elements });
        }
        // At most four bytes a weight, and the weights are in memory: no overflow on 64 bits; saturation is safe on 32.
        let expected = (values / block_elements).saturating_mul(self.block_bytes());
        if expected != found {
            return Err(QuantError::ByteLength { format: self, values, expected, found });
        }
        Ok(())
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
