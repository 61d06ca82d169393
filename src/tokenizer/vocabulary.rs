//! The vocabulary: tokens by id and by text, what kind each is, and the bytes it stands for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashMap;

use super::{TokenizerError, special};
use crate::gguf::Metadata;

/// The space of SentencePiece.
pub(super) const SPACE: char = '\u{2581}';

/// The largest vocabulary that is believed.
const MAX_TOKENS: u64 = 1 << 24;

/// What a token is: a set, because a token that ends a generation counts as a control token whatever the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes(u8);

impl Attributes {
    /// Neither text nor special; prints nothing.
    pub(super) const UNUSED: Self = Self(0);
    pub(super) const NORMAL: Self = Self(1);
    pub(super) const UNKNOWN: Self = Self(2);
    pub(super) const CONTROL: Self = Self(4);
    pub(super) const USER_DEFINED: Self = Self(8);
    pub(super) const BYTE: Self = Self(16);
    /// White space to the right of the token belongs to it.
    pub(super) const STRIP_RIGHT: Self = Self(32);

    /// The values of `tokenizer.ggml.token_type`.
    fn from_token_type(token_type: u32) -> Self {
        match token_type {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            6 => Self::BYTE,
            _ => Self::UNUSED,
        }
    }
    /// Whether any of `other` is in the set.
    pub(super) fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// Both sets.
    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// The set less another.
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// How a token's text spells the bytes it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// UTF-8 with `▁` for a space, and `<0xE2>` for a byte.
    SentencePiece,
    /// One character for each byte, as GPT-2 has it.
    ByteLevel,
}

/// Tokens by id and by text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    tokens: Vec<Arc<str>>,
    attributes: Vec<Attributes>,
    ids: AHashMap<Arc<str>, u32>,
    pub(super) spelling: Spelling,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    /// A text begins with `bos`.
    pub(super) add_bos: bool,
    /// A text ends with `eos`.
    pub(super) add_eos: bool,
    /// A text begins with a space that is not its own.
    pub(super) add_space_prefix: bool,
    pub(super) end_of_generation: BTreeSet<u32>,
}

impl Vocabulary {
    /// A vocabulary of tokens and their kinds, which must be equally many, with nothing special yet. Of two tokens
    /// with one text, the later one is found by it.
    pub(super) fn new(
        tokens: Vec<Arc<str>>,
        attributes: Vec<Attributes>,
        spelling: Spelling,
    ) -> Result<Self, TokenizerError> {
        if tokens.is_empty() {
            return Err(TokenizerError::EmptyVocabulary);
        }
        Self::check_id(tokens.len() as u64)?;
        debug_assert_eq!(tokens.len(), attributes.len());
        let ids = tokens.iter().zip(0..).map(|(token, id)| (Arc::clone(token), id)).collect();
        Ok(Self {
            tokens,
            attributes,
            ids,
            spelling,
            bos: None,
            eos: None,
            unknown: None,
            add_bos: false,
            add_eos: false,
            add_space_prefix: false,
            end_of_generation: BTreeSet::new(),
        })
    }

    /// Refuses an id that no vocabulary reaches, before memory is spent on it.
    pub(super) fn check_id(id: u64) -> Result<(), TokenizerError> {
        if id > MAX_TOKENS {
            return Err(TokenizerError::TooManyTokens { id, limit: MAX_TOKENS });
        }
        Ok(())
    }

    /// The tokens of a GGUF file and their kinds, with nothing special yet.
    pub(super) fn from_metadata(metadata: &Metadata, spelling: Spelling) -> Result<Self, TokenizerError> {
        let texts = metadata.require("tokenizer.ggml.tokens", Metadata::strings)?;
        let name_if_empty = |(id, text): (usize, &String)| match text.as_str() {
            "" => Arc::from(format!("[EMPTY_{id}]")),
            text => Arc::from(text),
        };
        let tokens = texts.iter().enumerate().map(name_if_empty).collect();
        let attributes = match metadata.u32s("tokenizer.ggml.token_type")? {
            None => vec![Attributes::NORMAL; texts.len()],
            Some(types) => {
                check_length("tokenizer.ggml.token_type", texts.len(), types.len())?;
                types.into_iter().map(Attributes::from_token_type).collect()
            }
        };
        Self::new(tokens, attributes, spelling)
    }

    /// Reads the special ids and flags of a GGUF file, and finds the tokens that are special by their names.
    pub(super) fn read_specials(&mut self, metadata: &Metadata, add_bos: bool) -> Result<(), TokenizerError> {
        let is_sentence_piece = self.spelling == Spelling::SentencePiece;
        // SentencePiece vocabularies begin with `<unk>`, `<s>`, `</s>` and files leave that unsaid.
        let usual = |id: u32| (is_sentence_piece && self.get(id).is_some()).then_some(id);
        let key_or = |key: &str, otherwise: Option<u32>| Ok(self.special_id(metadata, key)?.or(otherwise));
        let bos: Result<_, TokenizerError> = key_or("tokenizer.ggml.bos_token_id", usual(1));
        let eos: Result<_, TokenizerError> = key_or("tokenizer.ggml.eos_token_id", usual(2));
        let unknown: Result<_, TokenizerError> = key_or("tokenizer.ggml.unknown_token_id", usual(0));
        (self.bos, self.eos, self.unknown) = (bos?, eos?, unknown?);
        self.add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
        self.add_eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        self.add_space_prefix =
            is_sentence_piece && metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let missing = |flag, id_key| Err(TokenizerError::MissingSpecial { flag, id_key });
        if self.add_bos && self.bos.is_none() {
            return missing("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id");
        }
        if self.add_eos && self.eos.is_none() {
            return missing("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id");
        }
        special::find(self, metadata)
    }

    /// The id that a key holds, `None` where the key is missing.
    pub(super) fn special_id(&self, metadata: &Metadata, key: &str) -> Result<Option<u32>, TokenizerError> {
        let Some(id) = metadata.u32(key)? else { return Ok(None) };
        self.check_special(key, id)?;
        Ok(Some(id))
    }

    /// Refuses a special token's id that is not in the vocabulary.
    pub(super) fn check_special(&self, key: &str, id: u32) -> Result<(), TokenizerError> {
        match self.get(id) {
            Some(_) => Ok(()),
            None => Err(TokenizerError::SpecialOutOfRange {
                key: key.to_owned(),
                id: id.into(),
                size: self.len(),
            }),
        }
    }

    /// Tokens in the vocabulary.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
    /// The text of a token, as the vocabulary has it.
    pub(super) fn get(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(|text| &**text)
    }
    /// The token of a text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }
    /// All texts, by id.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().map(|text| &**text)
    }
    /// What a token is; nothing for an id that is not in the vocabulary.
    pub(super) fn attributes(&self, id: u32) -> Attributes {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }
    /// Changes what a token is.
    pub(super) fn set_attributes(&mut self, id: u32, attributes: Attributes) {
        if let Some(place) = self.attributes.get_mut(id as usize) {
            *place = attributes;
        }
    }
    /// Whether a token stands for no text of its own.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.attributes(id).any(Attributes::CONTROL.with(Attributes::UNKNOWN))
    }

    /// The bytes a token stands for: special tokens as they are spelled, unused ones empty.
    pub(super) fn bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let text = self.get(id)?;
        let attributes = self.attributes(id);
        let literal = Attributes::CONTROL.with(Attributes::UNKNOWN).with(Attributes::USER_DEFINED);
        Some(if attributes.any(literal) {
            Cow::Borrowed(text.as_bytes())
        } else if attributes.any(Attributes::NORMAL) {
            match self.spelling {
                Spelling::SentencePiece if !text.contains(SPACE) => Cow::Borrowed(text.as_bytes()),
                Spelling::SentencePiece => Cow::Owned(text.replace(SPACE, " ").into_bytes()),
                Spelling::ByteLevel => Cow::Owned(byte_level_bytes(text)),
            }
        } else if attributes.any(Attributes::BYTE) {
            byte_of(text).map_or(Cow::Borrowed(text.as_bytes()), |byte| Cow::Owned(vec![byte]))
        } else {
            Cow::Borrowed(&[])
        })
    }
}

/// Refuses an array that is not as long as the token list.
pub(super) fn check_length(key: &'static str, expected: usize, found: usize) -> Result<(), TokenizerError> {
    if found != expected {
        return Err(TokenizerError::LengthMismatch { key, expected, found });
    }
    Ok(())
}

/// The byte that `<0xE2>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The bytes that byte-level characters stand for; any other character stands for itself.
fn byte_level_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_level_byte(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// GPT-2's character for each byte: printable Latin-1 stands for itself, the other 68 follow from U+0100 on.
pub(crate) const BYTE_LEVEL: [char; 256] = {
    let mut table = ['\0'; 256];
    let (mut byte, mut moved) = (0, 0);
    while byte < 256 {
        let code = match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte,
            _ => {
                moved += 1;
                0xFF + moved
            }
        };
        if let Some(character) = char::from_u32(code as u32) {
            table[byte] = character;
        }
        byte += 1;
    }
    table
};

/// The byte of a GPT-2 character.
fn byte_level_byte(character: char) -> Option<u8> {
    const MOVED: [u8; 68] = {
        let mut bytes = [0; 68];
        let mut byte = 0;
        while byte < 256 {
            let code = BYTE_LEVEL[byte] as usize;
            if code >= 0x100 {
                bytes[code - 0x100] = byte as u8;
            }
            byte += 1;
        }
        bytes
    };
    match character as usize {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code => MOVED.get(code.checked_sub(0x100)?).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_back() {
        for byte in 0..=255u8 {
            assert_eq!(byte_level_byte(BYTE_LEVEL[usize::from(byte)]), Some(byte));
        }
        assert_eq!((BYTE_LEVEL[0x20], BYTE_LEVEL[0x0A], BYTE_LEVEL[0xAD]), ('\u{120}', '\u{10A}', '\u{143}'));
        assert_eq!((byte_level_byte(' '), byte_level_byte('\u{144}')), (None, None));
    }

    #[test]
    fn byte_tokens_are_two_hexadecimal_digits() {
        assert_eq!((byte_of("<0x0A>"), byte_of("<0xff>")), (Some(10), Some(255)));
        for text in ["<0x0>", "<0x0AA>", "<0xGG>", "0x0A", "<0x\u{e9}>", "<0x+1>"] {
            assert_eq!(byte_of(text), None, "{text}");
        }
    }
}
