//! GGUF files: checked reader, typed metadata, tensor table, writer.
//!
//! A file is read in two passes. The first walks the header with a checked cursor: no byte is read and nothing is
//! allocated before the length is compared with what is left of the file and charged to [`Limits`]. The second proves
//! type, shape, size, alignment and place of every tensor. After that, [`Gguf::data`] hands out views that cannot fail.
//! No byte of tensor data is touched on the way.
//!
//! What is accepted: versions 2 and 3, little-endian; shards (`-00001-of-00003.gguf`); tensors without elements; holes
//! between tensors, missing padding after the last one, bytes after the end. What is refused: everything that overlaps,
//! points outside, does not count, or is no UTF-8.
//!
//! Source of the format: `docs/gguf.md` of ggml; where it is silent, `gguf.cpp` of ggml.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cursor;
mod error;
mod header;
mod limits;
mod metadata;
mod mmap;
mod reader;
mod split;
mod tensor;
mod value;
mod writer;

pub use error::{GgufError, KeyFault, MetadataError, Place, SplitFault, TensorFault};
pub use limits::Limits;
pub use metadata::{Metadata, MetadataArray, MetadataValue};
pub use reader::Gguf;
pub use tensor::TensorInfo;
pub use writer::{GgufWriter, Layout};

/// The first four bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// Dimensions of a tensor, at most.
const MAX_DIMS: u32 = 4;
/// Bytes of a metadata key, at most.
const MAX_KEY_BYTES: u64 = 65_535;
/// Bytes of a tensor's name, at most: ggml keeps 64, one of them for its end mark.
const MAX_NAME_BYTES: u64 = 63;
/// The metadata key of the alignment.
const ALIGNMENT_KEY: &str = "general.alignment";
/// The alignment where no key says another.
const DEFAULT_ALIGNMENT: u64 = 32;
