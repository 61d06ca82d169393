//! What can be wrong with a tokenizer, its file, or what it is given.

use std::path::PathBuf;

use thiserror::Error;

use crate::gguf::{GgufError, MetadataError};

/// A tokenizer that cannot be built, or a text or an id that it cannot take.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A metadata value is missing or has the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// `tokenizer.ggml.model` names a kind of vocabulary that is not supported.
    #[error(
        "tokenizer model `{model}` is not supported; supported are `llama` (SentencePiece) and `gpt2` (byte-level BPE)"
    )]
    UnknownModel {
        /// The name in the file.
        model: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not known, so the text would be cut at wrong places.
    #[error("pre-tokenizer `{name}` is not known; known are {known}")]
    UnknownPreTokenizer {
        /// The name in the file.
        name: String,
        /// Every name that is known, separated by commas.
        known: String,
    },
    /// A pre-tokenizer's pattern does not compile.
    #[error("the pattern of pre-tokenizer `{name}` does not compile: {source}")]
    Pattern {
        /// The pre-tokenizer.
        name: String,
        /// Why.
        source: Box<regex::Error>,
    },
    /// The vocabulary holds no token.
    #[error("the vocabulary is empty; expected at least one token")]
    EmptyVocabulary,
    /// The vocabulary holds more tokens, or a larger id, than can be right.
    #[error("the vocabulary reaches token id {id}; at most {limit} are supported")]
    TooManyTokens {
        /// The largest id.
        id: u64,
        /// The limit.
        limit: u64,
    },
    /// An array that runs beside the token list has another length.
    #[error("metadata key `{key}` has {found} entries, expected {expected}, one for each token")]
    LengthMismatch {
        /// The key.
        key: &'static str,
        /// Tokens in the vocabulary.
        expected: usize,
        /// Entries found.
        found: usize,
    },
    /// A score that is not a number cannot be ordered.
    #[error("the score of token {token} is not a number")]
    BadScore {
        /// The token's id.
        token: usize,
    },
    /// A special token's id lies outside the vocabulary.
    #[error("`{key}` is {id}, expected an id below the vocabulary's {size} tokens")]
    SpecialOutOfRange {
        /// The key in the file.
        key: String,
        /// The id found.
        id: u64,
        /// Tokens in the vocabulary.
        size: usize,
    },
    /// The file asks for a token before or after every text, and does not say which.
    #[error(
        "`{flag}` asks for a token at the ends of a text, and `{id_key}` is missing; set it, or set `{flag}` to false"
    )]
    MissingSpecial {
        /// The flag that is set.
        flag: &'static str,
        /// The key that is missing.
        id_key: &'static str,
    },
    /// A merge is not two parts with a space between them.
    #[error("merge {index} is `{merge}`, expected two tokens with a space between them")]
    MalformedMerge {
        /// The place in the list of merges.
        index: usize,
        /// The merge, as it stands in the file.
        merge: String,
    },
    /// A merge speaks of a token that the vocabulary does not hold.
    #[error("merge {index} is `{merge}`, and `{token}` is not in the vocabulary")]
    MergeOutOfVocabulary {
        /// The place in the list of merges.
        index: usize,
        /// The merge, as it stands in the file.
        merge: String,
        /// The part, or the result, that is missing.
        token: String,
    },
    /// An id that is not in the vocabulary was to be decoded.
    #[error("token id {id} is not in the vocabulary of {size} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        size: usize,
    },
    /// A byte of the text has no token, and the vocabulary no token for unknown text.
    #[error(
        "byte 0x{byte:02X} of the text has no token in this vocabulary, which has no token for unknown text either"
    )]
    Unencodable {
        /// The byte.
        byte: u8,
    },
    /// The text is longer than positions can count.
    #[error("the text has {bytes} bytes; at most {limit} are supported")]
    TextTooLong {
        /// Bytes of the text.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A tokenizer file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tokenizer file is not the JSON it should be.
    #[error("`{}` is not a usable tokenizer file: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tokenizer of a `tokenizer.json` refused the text.
    #[error("the tokenizer refused the text: {reason}")]
    Encode {
        /// Why, in the words of the `tokenizers` crate.
        reason: String,
    },
}

/// A chat template that cannot be used, or refuses the messages.
#[derive(Debug, Error)]
pub enum ChatTemplateError {
    /// The template is not valid.
    #[error("the chat template does not parse: {source}")]
    Syntax {
        /// Where and why.
        source: minijinja::Error,
    },
    /// The template itself refused the messages, with `raise_exception`.
    #[error("the chat template refuses these messages: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The template took more steps than a template needs.
    #[error("the chat template did not end within {limit} steps")]
    Endless {
        /// The limit.
        limit: u64,
    },
    /// The template printed more than a template prints.
    #[error("the chat template printed more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The template failed.
    #[error("the chat template failed: {source}")]
    Render {
        /// Where and why.
        source: minijinja::Error,
    },
}
