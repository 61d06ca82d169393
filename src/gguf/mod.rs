//! GGUF files: checked reader, typed metadata, tensor table, writer.
//!
//! Source of the format: `docs/gguf.md` of ggml.

mod error;
mod metadata;

pub use error::{GgufError, MetadataError};
pub use metadata::{Metadata, MetadataArray, MetadataValue};
