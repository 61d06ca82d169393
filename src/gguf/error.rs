//! What can be wrong with a file.

use thiserror::Error;

/// A metadata key that is missing or holds something else than its reader needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// The key is not in the file.
    #[error("metadata key `{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The key holds a value of another type.
    #[error("metadata key `{key}` holds {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What the reader needs.
        expected: &'static str,
        /// What the file holds.
        found: &'static str,
    },
    /// The value has the right type and cannot be used.
    #[error("metadata key `{key}` is {value}, expected {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value, as text.
        value: String,
        /// What would have been right.
        expected: String,
    },
}

/// A GGUF file that cannot be read.
#[derive(Debug, Error)]
pub enum GgufError {
    /// A metadata value is missing or unusable.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}
