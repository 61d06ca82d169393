//! What can be wrong with a model whose file is sound.

use thiserror::Error;

use crate::gguf::{GgufError, MetadataError};
use crate::quant::Format;

/// A model that cannot be used.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The file itself is unsound.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A metadata value is missing or unusable.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The file holds a family of models that this crate does not run.
    #[error("architecture `{found}` is not supported; supported are {supported}")]
    UnknownArchitecture {
        /// `general.architecture` of the file.
        found: String,
        /// The families there are.
        supported: String,
    },
    /// The file holds another family than the caller asked for.
    #[error("the file holds a `{found}` model, `{expected}` was asked for; {hint}")]
    WrongArchitecture {
        /// What the file holds.
        found: String,
        /// What the caller asked for.
        expected: String,
        /// What usually helps.
        hint: String,
    },
    /// A dimension or parameter makes no sense.
    #[error("{field} is {value}, expected {expected}")]
    BadConfig {
        /// The field of [`super::ModelConfig`] or the metadata key.
        field: String,
        /// What it is.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// A configuration given by the caller is not the file's.
    #[error(
        "the configuration says {field} = {expected}, the file says {found}; use the configuration of this model, or read it from the file"
    )]
    ConfigMismatch {
        /// The field that differs.
        field: &'static str,
        /// The caller's value.
        expected: String,
        /// The file's value.
        found: String,
    },
    /// A tensor that the schema needs is not in the file.
    #[error("tensor `{name}` is missing (looked through {n_tensors} tensors); {hint}")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// How many tensors the file holds.
        n_tensors: usize,
        /// What its absence usually means.
        hint: String,
    },
    /// A tensor that has no place in a model of this family.
    #[error(
        "tensor `{name}` has no place in a `{architecture}` model of these dimensions; leaving it out would give wrong results"
    )]
    UnexpectedTensor {
        /// The tensor.
        name: String,
        /// The family.
        architecture: &'static str,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error(
        "tensor `{name}` has shape {found:?} (row length first), expected {expected:?}; the file's metadata and its tensors disagree"
    )]
    TensorShape {
        /// The tensor.
        name: String,
        /// The file's dimensions, row length first.
        found: Vec<u64>,
        /// What the configuration asks for.
        expected: Vec<u64>,
    },
    /// A row of a tensor cannot be stored in its format.
    #[error("tensor `{name}`: a row of {n_cols} is not a whole number of {format} blocks of {block}")]
    RowLength {
        /// The tensor.
        name: String,
        /// The row's length.
        n_cols: u64,
        /// The format.
        format: Format,
        /// Weights in a block of it.
        block: usize,
    },
    /// A tensor holds a number that is not finite, or not usable where it stands.
    #[error("tensor `{name}` holds {value} at {index}, expected {expected}")]
    TensorValue {
        /// The tensor.
        name: String,
        /// Where.
        index: usize,
        /// What stands there.
        value: f32,
        /// What would have been right.
        expected: &'static str,
    },
    /// No named configuration goes by this name.
    #[error("no model is named `{name}`; there are {known}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}
