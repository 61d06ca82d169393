//! Encoding with the vocabulary of a GGUF file: cut at special tokens, then join bytes or characters into tokens.

use ahash::AHashMap;

use super::merge::{Join, Merger};
use super::pre_tokenizer::PreTokenizer;
use super::special::{self, Fragment};
use super::vocabulary::{BYTE_LEVEL, SPACE, Spelling, Vocabulary, check_length};
use super::{EncodeOptions, TokenizerError};
use crate::gguf::Metadata;

/// The longest text: positions are 32 bits wide, and SentencePiece makes three bytes of a space.
const MAX_TEXT: usize = (u32::MAX / 4) as usize;

/// What turns text into tokens.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Special tokens, the longest first.
    parsed: Vec<u32>,
    rules: Rules,
}

#[derive(Debug)]
enum Rules {
    SentencePiece(SentencePiece),
    ByteLevel(ByteLevel),
}

/// Any two neighbours that spell a token are joined, the token with the highest score first.
#[derive(Debug)]
struct SentencePiece {
    /// The order of each token's score among all scores, the highest being 0; equal scores share an order.
    ranks: Vec<u32>,
    /// Bytes of the longest token: no longer text need be looked up.
    longest: usize,
    /// The token of each byte, for text that is no token.
    bytes: [Option<u32>; 256],
}

/// Pairs are joined in the order of a list, within the pieces that the pre-tokenizer cuts.
#[derive(Debug)]
struct ByteLevel {
    pre_tokenizer: PreTokenizer,
    joins: AHashMap<(u32, u32), Join>,
    /// The token of each byte.
    bytes: [Option<u32>; 256],
}

impl Encoder {
    /// The vocabulary of a GGUF file, and what encodes with it.
    pub(super) fn from_metadata(metadata: &Metadata) -> Result<(Vocabulary, Self), TokenizerError> {
        let (vocabulary, rules) = match metadata.require("tokenizer.ggml.model", Metadata::str)? {
            "llama" => {
                let mut vocabulary = Vocabulary::from_metadata(metadata, Spelling::SentencePiece)?;
                vocabulary.read_specials(metadata, true)?;
                let rules = SentencePiece::new(&vocabulary, metadata.f32s("tokenizer.ggml.scores")?)?;
                (vocabulary, Rules::SentencePiece(rules))
            }
            "gpt2" => {
                let mut vocabulary = Vocabulary::from_metadata(metadata, Spelling::ByteLevel)?;
                let name = metadata.str("tokenizer.ggml.pre")?.unwrap_or_else(|| {
                    tracing::warn!(
                        "the file names no pre-tokenizer: `default` may cut its texts at wrong places"
                    );
                    "default"
                });
                let pre_tokenizer = PreTokenizer::named(name)?;
                vocabulary.read_specials(metadata, pre_tokenizer.add_bos)?;
                let merges = metadata.require("tokenizer.ggml.merges", Metadata::strings)?;
                let rules = ByteLevel::new(&vocabulary, merges, pre_tokenizer)?;
                (vocabulary, Rules::ByteLevel(rules))
            }
            model => return Err(TokenizerError::UnknownModel { model: model.to_owned() }),
        };
        let parsed = special::parsed(&vocabulary);
        Ok((vocabulary, Self { parsed, rules }))
    }

    /// The ids of a text.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_TEXT {
            return Err(TokenizerError::TextTooLong { bytes: text.len(), limit: MAX_TEXT });
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        ids.extend(vocabulary.bos.filter(|_| options.add_special && vocabulary.add_bos));
        let mut merger = Merger::default();
        let mut after_special = true;
        for fragment in special::partition(vocabulary, &self.parsed, text, options.parse_special) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(ref range) => match &self.rules {
                    Rules::SentencePiece(rules) => {
                        let space = after_special && vocabulary.add_space_prefix;
                        rules.encode(vocabulary, &text[range.clone()], space, &mut merger, &mut ids)?;
                    }
                    Rules::ByteLevel(rules) => {
                        rules.encode(vocabulary, &text[range.clone()], &mut merger, &mut ids)?;
                    }
                },
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        ids.extend(vocabulary.eos.filter(|_| options.add_special && vocabulary.add_eos));
        Ok(ids)
    }
}

impl SentencePiece {
    fn new(vocabulary: &Vocabulary, scores: Option<&[f32]>) -> Result<Self, TokenizerError> {
        let ranks = match scores {
            None => vec![0; vocabulary.len()],
            Some(scores) => {
                check_length("tokenizer.ggml.scores", vocabulary.len(), scores.len())?;
                ranks(scores)?
            }
        };
        let mut bytes = [None; 256];
        for (byte, character) in (0..0x80).map(|byte| (byte, char::from(byte))) {
            bytes[usize::from(byte)] = vocabulary.id(character.encode_utf8(&mut [0; 4]));
        }
        for byte in 0..=255u8 {
            let named = vocabulary.id(&format!("<0x{byte:02X}>"));
            bytes[usize::from(byte)] = named.or(bytes[usize::from(byte)]);
        }
        let longest = vocabulary.texts().map(str::len).max().unwrap_or(0);
        Ok(Self { ranks, longest, bytes })
    }

    /// Encodes one stretch of text, after a space of our own if `space`.
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        space: bool,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut escaped = String::with_capacity(text.len() * 2);
        escaped.extend(space.then_some(SPACE));
        escaped.extend(text.chars().map(|character| if character == ' ' { SPACE } else { character }));
        merger.clear();
        for character in escaped.chars() {
            merger.push(character.len_utf8(), vocabulary.id(character.encode_utf8(&mut [0; 4])));
        }
        let left = merger.merge(|left, right| {
            let range = left.range().start..right.range().end;
            if range.len() > self.longest {
                return None;
            }
            let token = vocabulary.id(&escaped[range])?;
            Some(Join { rank: *self.ranks.get(token as usize)?, token })
        });
        for symbol in left {
            match symbol.token {
                Some(token) => ids.push(token),
                None => self.spell(vocabulary, &escaped[symbol.range()], ids)?,
            }
        }
        Ok(())
    }

    /// A character that is no token, as its bytes; as the unknown token where the vocabulary has none for them.
    fn spell(
        &self,
        vocabulary: &Vocabulary,
        character: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let missing = character.bytes().find(|&byte| self.bytes[usize::from(byte)].is_none());
        match (missing, vocabulary.unknown) {
            (None, _) => ids.extend(character.bytes().filter_map(|byte| self.bytes[usize::from(byte)])),
            (Some(_), Some(unknown)) => ids.push(unknown),
            (Some(byte), None) => return Err(TokenizerError::Unencodable { byte }),
        }
        Ok(())
    }
}

/// The order of each score, the highest first; equal scores share an order.
fn ranks(scores: &[f32]) -> Result<Vec<u32>, TokenizerError> {
    if let Some(token) = scores.iter().position(|score| score.is_nan()) {
        return Err(TokenizerError::BadScore { token });
    }
    let mut order: Vec<u32> = (0..).take(scores.len()).collect();
    let score = |id: u32| scores[id as usize];
    // Not `total_cmp`, to which -0.0 and 0.0 differ; no score is NaN here.
    order.sort_unstable_by(|&a, &b| score(b).partial_cmp(&score(a)).unwrap_or(std::cmp::Ordering::Equal));
    let mut ranks = vec![0; scores.len()];
    let (mut rank, mut last) = (0, None);
    for id in order {
        rank += u32::from(last.is_some_and(|last| last != score(id)));
        last = Some(score(id));
        ranks[id as usize] = rank;
    }
    Ok(ranks)
}

impl ByteLevel {
    fn new(
        vocabulary: &Vocabulary,
        merges: &[String],
        pre_tokenizer: PreTokenizer,
    ) -> Result<Self, TokenizerError> {
        let mut joins = AHashMap::with_capacity(merges.len());
        let mut joined = String::new();
        for (merge, rank) in merges.iter().zip(0..) {
            let index = rank as usize;
            // A part may be a space itself, so the search starts behind the first character.
            let parts = merge
                .char_indices()
                .find(|&(at, character)| at > 0 && character == ' ')
                .map(|(at, _)| (&merge[..at], &merge[at + 1..]))
                .filter(|(_, right)| !right.is_empty());
            let Some((left, right)) = parts else {
                return Err(TokenizerError::MalformedMerge { index, merge: merge.clone() });
            };
            let id = |text: &str| {
                vocabulary.id(text).ok_or_else(|| TokenizerError::MergeOutOfVocabulary {
                    index,
                    merge: merge.clone(),
                    token: text.to_owned(),
                })
            };
            joined.clear();
            joined.extend([left, right]);
            joins.entry((id(left)?, id(right)?)).or_insert(Join { rank, token: id(&joined)? });
        }
        let bytes = BYTE_LEVEL.map(|character| vocabulary.id(character.encode_utf8(&mut [0; 4])));
        Ok(Self { pre_tokenizer, joins, bytes })
    }

    /// Encodes one stretch of text.
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut spelled = String::new();
        for piece in self.pre_tokenizer.split(text) {
            let piece = &text.as_bytes()[piece];
            if self.pre_tokenizer.ignore_merges {
                spelled.clear();
                spelled.extend(piece.iter().map(|&byte| BYTE_LEVEL[usize::from(byte)]));
                if let Some(id) = vocabulary.id(&spelled) {
                    ids.push(id);
                    continue;
                }
            }
            merger.clear();
            for &byte in piece {
                merger.push(1, self.bytes[usize::from(byte)]);
            }
            let left = merger.merge(|left, right| self.joins.get(&(left.token?, right.token?)).copied());
            for symbol in left {
                let byte = piece[symbol.range().start];
                ids.push(symbol.token.ok_or(TokenizerError::Unencodable { byte })?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_share_a_rank() {
        assert_eq!(ranks(&[0.0, -1.0, -0.0, 5.0, -1.0]).unwrap(), [1, 2, 1, 0, 2]);
        assert!(matches!(ranks(&[0.0, f32::NAN]), Err(TokenizerError::BadScore { token: 1 })));
    }
}
