//! Why a synthetic file could not be written.

use thiserror::Error;

use crate::gguf::GgufError;
use crate::model::ModelError;
use crate::quant::QuantError;

use super::Mix;

/// Why a synthetic file could not be written. Only [`SynthError::Gguf`] leaves a file behind.
#[derive(Debug, Error)]
pub enum SynthError {
    /// No mix goes by this name.
    #[error("no mix of formats is named `{name}`; there are {known}")]
    UnknownMix {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The configuration describes no model, or none that a file of its family can state.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer has no room.
    #[error(
        "a vocabulary of {found} tokens is too small for a tokenizer that knows every byte; it takes {least} or more"
    )]
    SmallVocabulary {
        /// Tokens of the configuration.
        found: usize,
        /// Tokens needed.
        least: usize,
    },
    /// The mix needs a format that this crate does not write.
    #[error("{mix} of this model: {source}; choose another mix")]
    Format {
        /// The mix.
        mix: Mix,
        /// What is wrong with the format.
        source: QuantError,
    },
    /// The file could not be laid out or written; what there is of it is incomplete.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}
