//! The one error type that users see, by fault, with the exit code of each.

use std::path::PathBuf;

use thiserror::Error;

use crate::device::{CudaUnavailable, DeviceError};
use crate::forward::EngineError;
use crate::gguf::GgufError;
use crate::kv_cache::CacheError;
use crate::memory::PlanError;
use crate::model::ModelError;
use crate::ops::OpsError;
use crate::sampler::SamplerError;
use crate::tokenizer::{ChatTemplateError, TokenizerError};
use crate::weights::LoadError;

/// Why a request failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferError {
    /// A file is not there.
    #[error("no such file: `{}`; check the path", path.display())]
    MissingFile {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The model file is unsound.
    #[error("`{}`: {source}", path.display())]
    BadModel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ModelError,
    },
    /// The file holds another model than was asked for.
    #[error("`{}` holds a `{found}` model, {expected} was asked for; {hint}", path.display())]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// `general.architecture` of the file.
        found: String,
        /// What was asked for.
        expected: String,
        /// What usually helps.
        hint: String,
    },
    /// A tensor is not in the file.
    #[error("`{}`: tensor `{tensor}` is missing; {hint}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What its absence usually means.
        hint: String,
    },
    /// The file names a pre-tokenizer that is not known; guessing one would give other ids.
    #[error("pre-tokenizer `{name}` is not known; known are {known}")]
    UnknownPreTokenizer {
        /// `tokenizer.ggml.pre` of the file.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(TokenizerError),
    /// The chat template cannot be used.
    #[error(transparent)]
    ChatTemplate(#[from] ChatTemplateError),
    /// The file says nothing of how a conversation looks.
    #[error(
        "the file has no `tokenizer.chat_template`; use `generate` with a prompt in the model's own form"
    )]
    NoChatTemplate,
    /// Tokenizer and model do not belong together.
    #[error("the tokenizer has {tokenizer} tokens, the model {model}; use the tokenizer of this model")]
    TokenizerMismatch {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
    /// A device refused memory; the process can go on.
    #[error("{what} needs {requested} bytes, {available} bytes are available")]
    AllocationFailed {
        /// What the memory was for, and what would fit where something would.
        what: String,
        /// Bytes asked for.
        requested: u64,
        /// Bytes that there were.
        available: u64,
    },
    /// A sequence would grow past its context.
    #[error(
        "{requested} tokens do not fit the context of {max}; shorten the prompt or load the model with a larger context"
    )]
    ContextLengthExceeded {
        /// Tokens of the sequence.
        requested: usize,
        /// Tokens of the context.
        max: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty; give at least one character or token")]
    EmptyPrompt,
    /// A request's field does not agree with the adapter's state.
    #[error("{field} is {given}, but {actual}")]
    StateMismatch {
        /// The field.
        field: &'static str,
        /// What the request says.
        given: String,
        /// What is so.
        actual: String,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        vocabulary: usize,
    },
    /// A sampling parameter, or logits without a number.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The device asked for cannot be used here.
    #[error("device `{device}` cannot be used: {reason}; or use `cpu`")]
    NoDevice {
        /// The device asked for.
        device: String,
        /// What is missing, and the cure.
        reason: String,
    },
    /// This build has no kernels for the device, or none that it takes.
    #[error("device `{device}` cannot be used: {reason}; or use `cpu`")]
    NoKernels {
        /// The device asked for.
        device: String,
        /// What is missing, and the cure.
        reason: String,
    },
    /// A device name that means nothing.
    #[error("`{name}` is not a device; devices are `auto`, `cpu`, `cuda:N` and `emulator`")]
    UnknownDevice {
        /// The name.
        name: String,
    },
    /// Something failed inside the engine.
    #[error(transparent)]
    Engine(EngineError),
    /// The model is in an unknown state, because a thread that used it panicked.
    #[error("a thread panicked while it used the model; load the model again")]
    Poisoned,
    /// The asynchronous task was stopped by its runtime.
    #[error("the task was stopped before it finished")]
    TaskStopped,
}

/// Whose fault an error is; the command's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Something failed: 1.
    Failure = 1,
    /// The request makes no sense: 2.
    Usage = 2,
    /// The model or tokenizer file is missing or unsound: 3.
    BadModel = 3,
    /// The device is not there: 4.
    NoDevice = 4,
    /// The model or the sequence does not fit: 5.
    DoesNotFit = 5,
}

impl InferError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::MissingFile { .. }
            | Self::BadModel { .. }
            | Self::WrongArchitecture { .. }
            | Self::MissingTensor { .. }
            | Self::UnknownPreTokenizer { .. }
            | Self::Tokenizer(_)
            | Self::ChatTemplate(_)
            | Self::NoChatTemplate
            | Self::TokenizerMismatch { .. } => Fault::BadModel,
            Self::AllocationFailed { .. }
            | Self::ContextLengthExceeded { .. }
            | Self::Engine(
                EngineError::Plan(PlanError::Overflow { .. })
                | EngineError::Cache(CacheError::NoPages { .. }),
            ) => Fault::DoesNotFit,
            Self::EmptyPrompt
            | Self::StateMismatch { .. }
            | Self::UnknownToken { .. }
            | Self::UnknownDevice { .. }
            | Self::Sampler(SamplerError::BadParameter { .. }) => Fault::Usage,
            Self::NoDevice { .. } | Self::NoKernels { .. } => Fault::NoDevice,
            Self::Sampler(_) | Self::Engine(_) | Self::Poisoned | Self::TaskStopped => Fault::Failure,
        }
    }

    /// An error of a model file, with the file's name.
    pub fn of_model(path: &std::path::Path, error: impl Into<ModelError>) -> Self {
        let path = path.to_path_buf();
        match error.into() {
            ModelError::Gguf(GgufError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::MissingFile { path }
            }
            // The fault of one shard names that shard.
            ModelError::Gguf(GgufError::InFile { path, fault }) => {
                Self::BadModel { path, source: (*fault).into() }
            }
            ModelError::MissingTensor { name, hint, .. } => Self::MissingTensor { path, tensor: name, hint },
            source => Self::BadModel { path, source },
        }
    }

    /// A GPU that cannot be used.
    pub(super) fn of_gpu(ordinal: usize, why: &CudaUnavailable) -> Self {
        let (device, reason) = (format!("cuda:{ordinal}"), why.to_string());
        match why {
            CudaUnavailable::NoKernels { .. } | CudaUnavailable::KernelsRefused { .. } => {
                Self::NoKernels { device, reason }
            }
            _ => Self::NoDevice { device, reason },
        }
    }

    /// An error of the engine that loads or runs the model in `path`.
    pub(super) fn of_engine(path: &std::path::Path, error: EngineError) -> Self {
        match error {
            EngineError::Plan(PlanError::Model(error)) => Self::of_model(path, error),
            EngineError::Load(LoadError::Model(error)) => Self::of_model(path, error),
            EngineError::Load(LoadError::Gguf(error)) => Self::of_model(path, error),
            EngineError::Load(LoadError::Device(error)) | EngineError::Device(error) => error.into(),
            other => other.into(),
        }
    }
}

impl From<PlanError> for InferError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::DoesNotFit { what, requested, available, largest_context } => {
                let what = match largest_context {
                    Some(context) => format!("{what} (a context of {context} tokens would fit)"),
                    None => what,
                };
                Self::AllocationFailed { what, requested, available }
            }
            other => Self::Engine(other.into()),
        }
    }
}

impl From<DeviceError> for InferError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::OutOfMemory { device, requested, available } => {
                Self::AllocationFailed { what: device, requested, available }
            }
            other => Self::Engine(other.into()),
        }
    }
}

impl From<CacheError> for InferError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::ContextLengthExceeded { requested, max } => {
                Self::ContextLengthExceeded { requested, max }
            }
            other => Self::Engine(other.into()),
        }
    }
}

impl From<EngineError> for InferError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Plan(error) => error.into(),
            EngineError::Cache(error) => error.into(),
            EngineError::Device(error) => error.into(),
            EngineError::Ops(OpsError::Device(error)) => error.into(),
            EngineError::Ops(OpsError::UnknownToken { token, vocabulary }) => {
                Self::UnknownToken { token, vocabulary }
            }
            EngineError::Arena(crate::memory::ArenaError::Device(error)) => error.into(),
            EngineError::NoTokens => Self::EmptyPrompt,
            other => Self::Engine(other),
        }
    }
}

impl From<TokenizerError> for InferError {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::UnknownPreTokenizer { name, known } => Self::UnknownPreTokenizer { name, known },
            TokenizerError::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::MissingFile { path }
            }
            TokenizerError::UnknownToken { id, size } => Self::UnknownToken { token: id, vocabulary: size },
            other => Self::Tokenizer(other),
        }
    }
}
