//! Why the command failed, and the exit code of each reason.

use std::io;
use std::path::PathBuf;

use safetensors::SafeTensorError;
use thiserror::Error;

use crate::inference::{Fault, InferError};
use crate::synth::SynthError;

/// Why the command failed.
#[derive(Debug, Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error(transparent)]
    Synth(#[from] SynthError),
    /// A prompt is neither given nor piped.
    #[error("there is no prompt; give -p TEXT, -f FILE or --tokens IDS, or pipe one to stdin")]
    NoPrompt,
    /// A prompt's file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A prompt's file holds no text.
    #[error("`{}` is not UTF-8 at byte {offset}; convert it", path.display())]
    NotUtf8 { path: PathBuf, offset: usize },
    /// A file of logits cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: SafeTensorError },
    /// A device is further from the reference than it may be.
    #[error("{failures} of {total} checks failed; `--seed {seed}` repeats them")]
    Verify { failures: usize, total: usize, seed: u64 },
    /// A trace or a chart cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    WriteFile { path: PathBuf, source: io::Error },
    /// Stdout does not take what is printed.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// The exit code after Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

impl CliError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Infer(error) => error.fault() as u8,
            // Only the disk is nobody's fault.
            Self::Synth(SynthError::Gguf(_)) => Fault::Failure as u8,
            Self::Synth(_) | Self::NoPrompt | Self::NotUtf8 { .. } => Fault::Usage as u8,
            Self::Read { .. } | Self::Write { .. } | Self::WriteFile { .. } | Self::Verify { .. } => {
                Fault::Failure as u8
            }
            // Whoever read our output has had enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => Fault::Failure as u8,
            Self::Interrupted => INTERRUPTED,
        }
    }
    /// Whether there is nothing to say about it.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Interrupted) || self.exit_code() == 0
    }
}
