//! Where the model, its tokenizer and the prompt come from.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::gguf::Gguf;
use crate::inference::{InferError, LoadOptions, Model, open_tokenizer};
use crate::model::{ModelConfig, Slot, schema};
use crate::tokenizer::{EncodeOptions, Tokenizer};

use super::args::{ModelArgs, PromptArgs};
use super::error::CliError;
use super::output::note;
use super::progress;

/// A small model that writes simple stories, so that the command does something without a download.
static BOX: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/box.gguf"));

/// An opened model file, or the model in the box.
pub(super) struct ModelFile {
    pub gguf: Gguf,
    /// Its path, for messages.
    pub path: PathBuf,
    tokenizer: Option<PathBuf>,
}

impl ModelFile {
    pub(super) fn open(args: &ModelArgs) -> Result<Self, CliError> {
        let (path, opened) = match &args.model {
            Some(path) => (path.clone(), Gguf::open(path)),
            None => {
                note("no -m: using the model in the box");
                (PathBuf::from("the model in the box"), Gguf::from_bytes(BOX.to_vec()))
            }
        };
        let gguf = opened.map_err(|error| InferError::of_model(&path, error))?;
        Ok(Self { gguf, path, tokenizer: args.tokenizer.clone() })
    }

    /// What the file says of the model.
    pub(super) fn config(&self) -> Result<ModelConfig, InferError> {
        ModelConfig::from_gguf(&self.gguf).map_err(|error| InferError::of_model(&self.path, error))
    }

    /// The tokenizer asked for, or the file's own.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer, CliError> {
        Ok(match &self.tokenizer {
            Some(path) => open_tokenizer(path)?,
            None => Tokenizer::from_metadata(self.gguf.metadata()).map_err(InferError::from)?,
        })
    }

    /// Loads the model, with a progress bar.
    pub(super) fn load(&self, options: &LoadOptions) -> Result<Model, CliError> {
        Ok(Model::load_from(&self.gguf, &self.path, options, &mut progress::bar("loading"))?)
    }

    /// The weights that passes read, in bytes.
    pub(super) fn weight_bytes(&self, config: &ModelConfig) -> Result<WeightBytes, InferError> {
        let mut bytes = WeightBytes::default();
        for spec in schema(config) {
            let tensor = spec.find(&self.gguf).map_err(|error| InferError::of_model(&self.path, error))?;
            match spec.slot {
                Slot::TokenEmbedding => {
                    bytes.embedding_row = tensor.n_bytes / tensor.n_rows().max(1);
                    bytes.output += if config.tied_output { tensor.n_bytes } else { 0 };
                }
                Slot::Layer(..) => bytes.layers += tensor.n_bytes,
                _ => bytes.output += tensor.n_bytes,
            }
        }
        Ok(bytes)
    }
}

/// Weights by when they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WeightBytes {
    /// By each token.
    pub embedding_row: u64,
    /// By each pass.
    pub layers: u64,
    /// By a pass whose logits are asked for: the output projection, which may be the embedding, and what is small.
    pub output: u64,
}

impl WeightBytes {
    /// By one generated token.
    pub(super) fn per_token(&self) -> u64 {
        self.embedding_row + self.layers + self.output
    }
}

/// The tokens of a prompt; `tokenizer` is asked for where it is text.
pub(super) fn prompt_ids(
    args: &PromptArgs,
    tokenizer: impl FnOnce() -> Result<Tokenizer, CliError>,
) -> Result<Vec<u32>, CliError> {
    if let Some(tokens) = &args.tokens {
        return Ok(tokens.clone());
    }
    let text = text(args.prompt.as_deref(), args.file.as_deref())?;
    if text.is_empty() {
        return Err(InferError::EmptyPrompt.into());
    }
    Ok(tokenizer()?.encode(&text, EncodeOptions::default()).map_err(InferError::from)?)
}

/// A text that is given, in a file, or piped to stdin; as it is, with nothing trimmed.
pub(super) fn text(given: Option<&str>, file: Option<&Path>) -> Result<String, CliError> {
    let is_stdin = given == Some("-") || file == Some(Path::new("-"));
    match (given, file) {
        (Some(text), _) if !is_stdin => Ok(text.to_owned()),
        (_, Some(path)) if !is_stdin => {
            let bytes =
                std::fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
            utf8(bytes, path)
        }
        (None, None) if std::io::stdin().is_terminal() => Err(CliError::NoPrompt),
        _ => {
            let (path, mut bytes) = (Path::new("stdin"), Vec::new());
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|source| CliError::Read { path: path.to_owned(), source })?;
            utf8(bytes, path)
        }
    }
}

fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|error| CliError::NotUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// The context to load: the one asked for, else what prompt and reply need, at most the model's own. Without a bound
/// on the reply that is [`LoadOptions::DEFAULT_CONTEXT`], or twice the prompt where that is more.
pub(super) fn context(
    own: usize,
    asked: Option<usize>,
    prompt: usize,
    reply: Option<usize>,
) -> Result<usize, CliError> {
    let needed = match reply {
        Some(reply) => prompt.saturating_add(reply),
        None => LoadOptions::DEFAULT_CONTEXT.max(prompt.saturating_mul(2)),
    };
    let context = asked.unwrap_or(needed.min(own));
    if context > own {
        tracing::warn!("a context of {context} tokens is more than the {own} that the model was trained for");
    }
    if prompt > context {
        return Err(InferError::ContextLengthExceeded { requested: prompt, max: context }.into());
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_what_is_needed() {
        let context = |own, asked, prompt, reply| context(own, asked, prompt, reply).ok();
        assert_eq!(context(2048, None, 7, Some(32)), Some(39));
        assert_eq!(context(2048, None, 2000, Some(100)), Some(2048));
        assert_eq!(context(2048, None, 7, None), Some(2048));
        assert_eq!(context(131_072, None, 7, None), Some(4096));
        assert_eq!(context(131_072, None, 4000, None), Some(8000));
        assert_eq!(context(2048, Some(4096), 7, None), Some(4096));
        assert_eq!(context(2048, Some(6), 7, None), None);
        assert_eq!(context(2048, None, 2049, Some(1)), None);
    }
}
