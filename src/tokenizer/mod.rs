//! Text to token ids and back, and chat templates.
//!
//! A [`Tokenizer`] comes from the metadata of a GGUF file or from a `tokenizer.json`:
//!
//! - From GGUF it answers what llama.cpp answers for the same file: SentencePiece vocabularies (model `llama`) and
//!   byte-level ones (model `gpt2`) with the pre-tokenizers of `pre_tokenizer.rs`; any other pre-tokenizer is an error
//!   rather than a guess.
//! - From `tokenizer.json` it answers what the `tokenizers` crate answers. The two agree on most texts and not on all:
//!   some files normalize, which llama.cpp does not, and llama.cpp's `gpt-4o` patterns treat letters outside ASCII
//!   in their own way.
//!
//! [`ChatTemplate`] renders messages into the text a chat model expects.

mod chat;
mod encoder;
mod error;
mod json;
mod merge;
mod pre_tokenizer;
mod special;
mod stream;
mod vocabulary;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

pub(crate) use chat::strftime;
pub use chat::{ChatMessage, ChatTemplate};
pub use error::{ChatTemplateError, TokenizerError};
pub use stream::DecodeStream;

use crate::gguf::{Gguf, Metadata};
use encoder::Encoder;
use json::JsonEncoder;
pub(crate) use vocabulary::BYTE_LEVEL;
use vocabulary::Vocabulary;

/// What encoding does beside turning text into tokens; both by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the begin-of-sequence token before the text, and the end-of-sequence token after it, where the
    /// vocabulary asks for them.
    pub add_special: bool,
    /// Take the name of a special token in the text for that token. Without it `<|end|>` is seven characters, as it
    /// must be in text that is not trusted; tokens that the vocabulary's user defined count all the same.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { add_special: true, parse_special: true }
    }
}

/// Text to token ids and back. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vocabulary: Vocabulary,
    source: Source,
    chat_template: Option<String>,
}

#[derive(Debug)]
enum Source {
    Gguf(Box<Encoder>),
    Json(Box<JsonEncoder>),
}

impl Tokenizer {
    /// The tokenizer of a GGUF file.
    ///
    /// # Errors
    /// The file cannot be read, or as for [`from_metadata`](Self::from_metadata).
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        Self::from_metadata(Gguf::open(path)?.metadata())
    }

    /// The tokenizer that the metadata of a GGUF file describe.
    ///
    /// # Errors
    /// A key is missing or of the wrong type, the model or the pre-tokenizer is not known, arrays differ in length, a
    /// score is not a number, a merge is malformed, or a special token's id is outside the vocabulary.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let (vocabulary, encoder) = Encoder::from_metadata(metadata)?;
        let chat_template = metadata.str("tokenizer.chat_template")?.map(str::to_owned);
        Ok(Self {
            inner: Arc::new(Inner { vocabulary, source: Source::Gguf(Box::new(encoder)), chat_template }),
        })
    }

    /// The tokenizer of a `tokenizer.json`, or of a folder that holds one. `tokenizer_config.json`,
    /// `special_tokens_map.json` and `chat_template.jinja` beside it say which tokens begin and end a text and how
    /// a chat looks; they may be missing.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be.
    pub fn from_json(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let json::Loaded { vocabulary, encoder, chat_template } = json::load(path.as_ref())?;
        Ok(Self {
            inner: Arc::new(Inner { vocabulary, source: Source::Json(Box::new(encoder)), chat_template }),
        })
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// The text is longer than a gigabyte, or holds a byte for which the vocabulary has no token.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let Inner { vocabulary, source, .. } = &*self.inner;
        match source {
            Source::Gguf(encoder) => encoder.encode(vocabulary, text, options),
            Source::Json(encoder) => encoder.encode(vocabulary, text, options),
        }
    }

    /// The text of ids; bytes that are not UTF-8 become U+FFFD. Otherwise as [`decode_bytes`](Self::decode_bytes).
    ///
    /// # Errors
    /// [`TokenizerError::UnknownToken`] for an id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let bytes = self.decode_bytes(ids, skip_special)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The bytes of ids, one piece after the other; `skip_special` leaves special tokens out.
    ///
    /// Where encoding puts a space before a text (SentencePiece), one space is taken from the beginning of the first
    /// piece, behind a begin-of-sequence token that is left out, so that decoding undoes encoding. Nothing
    /// else is tidied: a space before a full stop stays. To continue a text, use [`stream`](Self::stream),
    /// which keeps that space.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownToken`] for an id that is not in the vocabulary.
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>, TokenizerError> {
        let vocabulary = &self.inner.vocabulary;
        let mut text = Vec::with_capacity(ids.len() * 4);
        let first = usize::from(skip_special && ids.first().is_some_and(|&id| Some(id) == vocabulary.bos));
        for (at, &id) in ids.iter().enumerate() {
            let bytes = self.checked_bytes(id)?;
            if skip_special && (at < first || vocabulary.is_special(id)) {
                continue;
            }
            let is_prefixed = at == first && vocabulary.add_space_prefix;
            text.extend_from_slice(bytes.strip_prefix(b" ").filter(|_| is_prefixed).unwrap_or(&bytes));
        }
        Ok(text)
    }

    /// Decodes token by token, leaving special tokens out; see [`DecodeStream`].
    pub fn stream(&self) -> DecodeStream {
        DecodeStream::new(self.clone())
    }

    /// The bytes a token stands for, `None` for an id that is not in the vocabulary. SentencePiece's `▁` is a
    /// space, a byte token is its byte, a byte-level token the bytes it spells, a special token its name; an unused token
    /// stands for nothing.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        self.inner.vocabulary.bytes(id)
    }

    /// The bytes of a token, or an error that says which id is wrong.
    fn checked_bytes(&self, id: u32) -> Result<Cow<'_, [u8]>, TokenizerError> {
        self.token_bytes(id).ok_or(TokenizerError::UnknownToken { id, size: self.vocabulary_size() })
    }

    /// The text of a token as the vocabulary spells it: `▁the`, `Ġthe`, `<0x0A>`.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.inner.vocabulary.get(id)
    }

    /// The token that the vocabulary spells so.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.inner.vocabulary.id(text)
    }

    /// Whether a token stands for no text of its own: a control token, or the one for unknown text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.vocabulary.is_special(id)
    }

    /// Tokens in the vocabulary, padding included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.vocabulary.len()
    }

    /// The token that begins a sequence. `None` where the file names none (SentencePiece vocabularies mean
    /// token 1 by that).
    pub fn bos(&self) -> Option<u32> {
        self.inner.vocabulary.bos
    }

    /// The token that ends a sequence. `None` where the file names none (SentencePiece vocabularies mean
    /// token 2 by that).
    pub fn eos(&self) -> Option<u32> {
        self.inner.vocabulary.eos
    }

    /// Every token that ends a generation: those the file names (eos, eot, eom, `eos_token_ids`), and those with
    /// well-known names, such as `<|end|>` and `<|eot_id|>`.
    pub fn end_of_generation(&self) -> &BTreeSet<u32> {
        &self.inner.vocabulary.end_of_generation
    }

    /// The chat template, as the file has it; [`ChatTemplate::of`] makes it ready to use.
    pub fn chat_template(&self) -> Option<&str> {
        self.inner.chat_template.as_deref()
    }
}

/// Text to ids, with the begin-of-sequence token where the vocabulary asks for it and special tokens parsed.
#[derive(Debug, Clone)]
pub struct BPEEncoder {
    tokenizer: Tokenizer,
}

impl BPEEncoder {
    /// The encoder of a GGUF file.
    ///
    /// # Errors
    /// As for [`Tokenizer::from_gguf`].
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        Ok(Self { tokenizer: Tokenizer::from_gguf(path)? })
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.tokenizer.encode(text, EncodeOptions::default())
    }
}

/// Ids to text, with special tokens left out.
#[derive(Debug, Clone)]
pub struct BPEDecoder {
    tokenizer: Tokenizer,
}

impl BPEDecoder {
    /// The decoder of a GGUF file.
    ///
    /// # Errors
    /// As for [`Tokenizer::from_gguf`].
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        Ok(Self { tokenizer: Tokenizer::from_gguf(path)? })
    }

    /// The text of ids.
    ///
    /// # Errors
    /// As for [`Tokenizer::decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.decode(ids, true)
    }
}

impl From<Tokenizer> for BPEEncoder {
    fn from(tokenizer: Tokenizer) -> Self {
        Self { tokenizer }
    }
}

impl From<Tokenizer> for BPEDecoder {
    fn from(tokenizer: Tokenizer) -> Self {
        Self { tokenizer }
    }
}
