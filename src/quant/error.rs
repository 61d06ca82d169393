//! Why weights could not be converted.

use super::Format;

/// Why a call of [`Format::dequantize`] or [`Format::quantize`] was refused. Nothing has been written then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The weights do not fill whole blocks.
    #[error(
        "{format}: {values} weights are no whole number of blocks of {block_elements}; a row's length must be a \
         multiple of the block, so choose another format for this tensor"
    )]
    PartialBlock {
        /// The format.
        format: Format,
        /// Weights given.
        values: usize,
        /// Weights in a block.
        block_elements: usize,
    },
    /// Bytes and weights do not belong together.
    #[error("{format}: {values} weights take {expected} bytes, but the byte buffer holds {found}")]
    ByteLength {
        /// The format.
        format: Format,
        /// Weights given.
        values: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The crate reads the format but does not write it.
    #[error("{format} can be read but not written; these can be written: {}", writable())]
    NotWritable {
        /// The format.
        format: Format,
    },
    /// A weight is infinite or not a number.
    #[error("{format}: weight {index} is {value}; only finite weights can be quantized")]
    NotFinite {
        /// The format.
        format: Format,
        /// Position of the first such weight.
        index: usize,
        /// The weight.
        value: f32,
    },
}

fn writable() -> String {
    let names = super::FORMATS.iter().filter(|row| row.quantize.is_some()).map(|row| row.name);
    names.collect::<Vec<_>>().join(", ")
}
