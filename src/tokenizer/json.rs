//! A tokenizer from `tokenizer.json`, run by the `tokenizers` crate as its authors meant it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::special;
use super::vocabulary::{Attributes, Spelling, Vocabulary, byte_of};
use super::{EncodeOptions, TokenizerError};

/// A tokenizer of the `tokenizers` crate.
#[derive(Debug)]
pub(super) struct JsonEncoder {
    tokenizer: tokenizers::Tokenizer,
    /// The same, taking special tokens in a text as text; made when first asked for.
    plain: OnceLock<tokenizers::Tokenizer>,
    /// Put `bos` before a text, which the file's own post-processor does not do.
    add_bos: bool,
}

/// What a folder with a `tokenizer.json` holds.
pub(super) struct Loaded {
    pub(super) vocabulary: Vocabulary,
    pub(super) encoder: JsonEncoder,
    pub(super) chat_template: Option<String>,
}

/// A JSON file and where it came from, for messages.
struct File {
    path: PathBuf,
    value: Value,
}

impl File {
    fn read(path: PathBuf) -> Result<Self, TokenizerError> {
        let text =
            std::fs::read(&path).map_err(|source| TokenizerError::File { path: path.clone(), source })?;
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Self { path, value }),
            Err(error) => Err(unusable(&path, error.to_string())),
        }
    }
    fn read_if_there(path: PathBuf) -> Result<Option<Self>, TokenizerError> {
        if path.exists() { Self::read(path).map(Some) } else { Ok(None) }
    }
    fn unusable(&self, reason: impl Into<String>) -> TokenizerError {
        unusable(&self.path, reason)
    }
}

fn unusable(path: &Path, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Json { path: path.to_owned(), reason: reason.into() }
}

/// Reads `tokenizer.json`, and `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja` beside it
/// where they are there.
pub(super) fn load(path: &Path) -> Result<Loaded, TokenizerError> {
    let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
    let file = File::read(path)?;
    let beside = |name| File::read_if_there(file.path.with_file_name(name));
    let configs: Vec<File> = [beside("tokenizer_config.json")?, beside("special_tokens_map.json")?]
        .into_iter()
        .flatten()
        .collect();
    let mut tokenizer: tokenizers::Tokenizer =
        serde_json::from_value(file.value.clone()).map_err(|error| file.unusable(error.to_string()))?;
    // A length to cut to is training's concern; a prompt must not lose its end here.
    tokenizer.with_truncation(None).map_err(|error| file.unusable(error.to_string()))?;
    tokenizer.with_padding(None);
    let mut vocabulary = vocabulary(&file, &tokenizer)?;
    vocabulary.add_space_prefix = removes_space(&file.value["decoder"]);
    vocabulary.bos = special_token(&configs, &vocabulary, "bos_token")?
        .or_else(|| ["<|begin_of_text|>", "<s>"].iter().find_map(|text| vocabulary.id(text)));
    vocabulary.eos = special_token(&configs, &vocabulary, "eos_token")?;
    vocabulary.end_of_generation = BTreeSet::from_iter(vocabulary.eos);
    special::find_by_name(&mut vocabulary);
    let add_bos = adds_bos(&file.value, &configs, &vocabulary);
    let chat_template = chat_template(&file.path, &configs)?;
    Ok(Loaded {
        vocabulary,
        encoder: JsonEncoder { tokenizer, plain: OnceLock::new(), add_bos },
        chat_template,
    })
}

/// The tokens of the file, by id; ids that no token has become unused tokens without text.
fn vocabulary(file: &File, tokenizer: &tokenizers::Tokenizer) -> Result<Vocabulary, TokenizerError> {
    let spelling = spelling(file)?;
    let by_text = tokenizer.get_vocab(true);
    let largest = by_text.values().copied().max().ok_or(TokenizerError::EmptyVocabulary)?;
    Vocabulary::check_id(largest.into())?;
    let size = largest as usize + 1;
    let mut tokens: Vec<Arc<str>> = vec![Arc::from(""); size];
    let mut attributes = vec![Attributes::UNUSED; size];
    let has_bytes = file.value["model"]["byte_fallback"].as_bool() == Some(true);
    for (text, id) in by_text {
        let is_byte = has_bytes && byte_of(&text).is_some();
        attributes[id as usize] = if is_byte { Attributes::BYTE } else { Attributes::NORMAL };
        tokens[id as usize] = Arc::from(text);
    }
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        attributes[id as usize] = if token.special { Attributes::CONTROL } else { Attributes::USER_DEFINED };
    }
    let mut vocabulary = Vocabulary::new(tokens, attributes, spelling)?;
    if let Some(id) = file.value["model"]["unk_token"].as_str().and_then(|text| vocabulary.id(text)) {
        vocabulary.unknown = Some(id);
        vocabulary.set_attributes(id, Attributes::UNKNOWN);
    }
    Ok(vocabulary)
}

/// A part of the pipeline and the parts in it: a `Sequence` holds others.
fn parts(part: &Value) -> Vec<&Value> {
    let inner = ["decoders", "pretokenizers", "processors"].iter().find_map(|name| part[*name].as_array());
    match inner {
        Some(inner) => inner.iter().flat_map(parts).collect(),
        None => vec![part],
    }
}

fn has_part(part: &Value, kind: &str) -> bool {
    parts(part).iter().any(|part| part["type"] == kind)
}

/// How the file's tokens spell bytes, by its decoder.
fn spelling(file: &File) -> Result<Spelling, TokenizerError> {
    let decoder = &file.value["decoder"];
    if has_part(decoder, "ByteLevel") || has_part(&file.value["pre_tokenizer"], "ByteLevel") {
        return Ok(Spelling::ByteLevel);
    }
    if has_part(decoder, "Metaspace") || has_part(decoder, "ByteFallback") {
        return Ok(Spelling::SentencePiece);
    }
    let found =
        if decoder.is_null() { "no decoder".to_owned() } else { format!("decoder {}", decoder["type"]) };
    Err(file.unusable(format!(
        "it has {found}; supported are ByteLevel, and SentencePiece's Metaspace or ByteFallback"
    )))
}

/// Whether the decoder takes a space from the beginning of a text, so that encoding put one there.
fn removes_space(decoder: &Value) -> bool {
    parts(decoder).iter().any(|part| match part["type"].as_str() {
        Some("Strip") => part["content"] == " " && part["start"].as_u64() > Some(0),
        Some("Metaspace") => part["prepend_scheme"] != "never" && part["add_prefix_space"] != false,
        _ => false,
    })
}

/// The id of a special token that one of the files names.
fn special_token(
    configs: &[File],
    vocabulary: &Vocabulary,
    name: &str,
) -> Result<Option<u32>, TokenizerError> {
    for config in configs {
        let token = &config.value[name];
        let Some(text) = token.as_str().or_else(|| token["content"].as_str()) else { continue };
        return vocabulary.id(text).map(Some).ok_or_else(|| {
            config.unusable(format!("its {name} `{text}` is not in the vocabulary of tokenizer.json"))
        });
    }
    Ok(None)
}

/// Whether `bos` must be put before a text by hand. A template in the post-processor knows better; without one,
/// `add_bos_token` decides, and where that is not said either, Llama 3's first token, which is never left out.
fn adds_bos(tokenizer: &Value, configs: &[File], vocabulary: &Vocabulary) -> bool {
    if has_part(&tokenizer["post_processor"], "TemplateProcessing") || vocabulary.bos.is_none() {
        return false;
    }
    let said = configs.iter().find_map(|config| config.value["add_bos_token"].as_bool());
    said.unwrap_or_else(|| vocabulary.bos == vocabulary.id("<|begin_of_text|>"))
}

/// The chat template: a file of its own, or the one in the configuration, of several the one named `default`.
fn chat_template(path: &Path, configs: &[File]) -> Result<Option<String>, TokenizerError> {
    let own = path.with_file_name("chat_template.jinja");
    if own.exists() {
        return match std::fs::read_to_string(&own) {
            Ok(text) => Ok(Some(text)),
            Err(source) => Err(TokenizerError::File { path: own, source }),
        };
    }
    Ok(configs.iter().find_map(|config| {
        let template = &config.value["chat_template"];
        let default =
            || template.as_array()?.iter().find(|entry| entry["name"] == "default")?["template"].as_str();
        template.as_str().or_else(default).map(str::to_owned)
    }))
}

impl JsonEncoder {
    /// The ids of a text.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<u32>, TokenizerError> {
        let tokenizer = if options.parse_special {
            &self.tokenizer
        } else {
            self.plain.get_or_init(|| {
                let mut plain = self.tokenizer.clone();
                plain.set_encode_special_tokens(true);
                plain
            })
        };
        let encoding = tokenizer
            .encode_fast(text, options.add_special)
            .map_err(|error| TokenizerError::Encode { reason: error.to_string() })?;
        let mut ids: Vec<u32> =
            vocabulary.bos.filter(|_| options.add_special && self.add_bos).into_iter().collect();
        ids.extend_from_slice(encoding.get_ids());
        Ok(ids)
    }
}
