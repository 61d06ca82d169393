//! Pre-tokenizers: where a text is cut before byte-level BPE joins bytes within each piece.
//!
//! A pre-tokenizer is one or more patterns. Each cuts every piece that the one before it left: a match is a piece,
//! and so is what lies between two matches. The names are the values of `tokenizer.ggml.pre`, and the patterns those
//! that llama.cpp runs, which for `gpt-4o` differ from the original ones: a letter outside ASCII counts as
//! upper and as lower case at once, and a combining mark is no letter. Categories are those of Unicode 16;
//! llama.cpp's tables are those of 15.1, so characters added since may be cut elsewhere.
//!
//! The published patterns end in `\s+(?!\S)|\s+`: white space before a word leaves its last character to the word.
//! That look-ahead costs a backtracking engine its linear time, so here the patterns end in `\s+`, and
//! [`PreTokenizer::split`] gives the last character back.

use std::ops::Range;

use regex::Regex;

use super::TokenizerError;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+(?:'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD]))?|",
    r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*(?:'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD]))?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
);

/// A group of pre-tokenizers that do the same.
struct Row {
    /// The values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// The patterns, in the order in which they cut.
    patterns: &'static [&'static str],
    /// A piece that is a token as it stands is not put together from merges.
    ignore_merges: bool,
    /// A text begins with the begin-of-sequence token, unless the file says otherwise.
    add_bos: bool,
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row { names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
          patterns: &[LLAMA3], ignore_merges: true, add_bos: true },
    Row { names: &["dbrx", "smaug-bpe"],
          patterns: &[LLAMA3], ignore_merges: false, add_bos: false },
    Row { names: &["qwen2", "deepseek-r1-qwen", "megrez", "kormo", "stablelm2", "hunyuan", "solar-open", "grok-2"],
          patterns: &[QWEN2], ignore_merges: false, add_bos: false },
    Row { names: &["gpt-4o", "llama4", "kanana2"],
          patterns: &[GPT4O], ignore_merges: false, add_bos: false },
    Row { names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
          patterns: &[r"\p{N}", GPT2], ignore_merges: false, add_bos: false },
    Row { names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "exaone4", "trillion"],
          patterns: &[GPT2], ignore_merges: false, add_bos: false },
    Row { names: &["default"],
          patterns: &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ignore_merges: false, add_bos: false },
];

/// One pattern, ready to run.
#[derive(Debug)]
struct Stage {
    regex: Regex,
    /// The pattern takes line ends with the white space before them, so such a match gives nothing back.
    keeps_line_ends: bool,
}

/// Cuts a text into the pieces within which bytes are joined.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    stages: Vec<Stage>,
    /// A piece that is a token as it stands is not put together from merges.
    pub(super) ignore_merges: bool,
    /// A text begins with the begin-of-sequence token, unless the file says otherwise.
    pub(super) add_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer of a name.
    pub(super) fn named(name: &str) -> Result<Self, TokenizerError> {
        let row = TABLE.iter().find(|row| row.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = TABLE.iter().flat_map(|row| row.names).copied().collect();
            TokenizerError::UnknownPreTokenizer { name: name.to_owned(), known: known.join(", ") }
        })?;
        let stages = row.patterns.iter().map(|pattern| {
            let regex = Regex::new(pattern).map_err(|source| TokenizerError::Pattern {
                name: name.to_owned(),
                source: Box::new(source),
            })?;
            Ok(Stage { regex, keeps_line_ends: pattern.contains(r"\s*[\r\n]+") })
        });
        Ok(Self {
            stages: stages.collect::<Result<_, TokenizerError>>()?,
            ignore_merges: row.ignore_merges,
            add_bos: row.add_bos,
        })
    }

    /// The pieces of a text, in order and without gaps, as ranges of bytes.
    pub(super) fn split(&self, text: &str) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        if !text.is_empty() {
            pieces.push(0..text.len());
        }
        for stage in &self.stages {
            let mut cut = Vec::with_capacity(pieces.len());
            for piece in pieces {
                stage.split(text, piece, &mut cut);
            }
            pieces = cut;
        }
        pieces
    }
}

impl Stage {
    fn split(&self, text: &str, piece: Range<usize>, pieces: &mut Vec<Range<usize>>) {
        let text = &text[..piece.end];
        let mut at = piece.start;
        while let Some(found) = self.regex.find_at(text, at) {
            if found.start() > at {
                pieces.push(at..found.start());
            }
            at = found.end() - self.given_back(text, found.range());
            pieces.push(found.start()..at);
        }
        if at < piece.end {
            pieces.push(at..piece.end);
        }
    }

    /// Bytes at the end of a match that belong to the next one: the last character of a run of white space that
    /// something follows, unless it is the whole run.
    fn given_back(&self, text: &str, found: Range<usize>) -> usize {
        let Some(last) = text[found.clone()].chars().next_back() else { return 0 };
        let is_line_end = matches!(last, '\r' | '\n');
        if !last.is_whitespace()
            || (self.keeps_line_ends && is_line_end)
            || found.end == text.len()
            || found.len() == last.len_utf8()
        {
            return 0;
        }
        last.len_utf8()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        PreTokenizer::named(name).unwrap().split(text).into_iter().map(|piece| &text[piece]).collect()
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        assert_eq!(pieces("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(pieces("gpt-2", "a \n b  "), ["a", " \n", " b", "  "]);
        assert_eq!(pieces("llama-bpe", "a \n  b"), ["a", " \n", " ", " b"]);
        assert_eq!(pieces("llama-bpe", "a\u{3000}\u{3000}b"), ["a", "\u{3000}", "\u{3000}b"]);
    }

    #[test]
    fn digits_stand_alone_in_threes_or_together() {
        assert_eq!(pieces("qwen2", "1234"), ["1", "2", "3", "4"]);
        assert_eq!(pieces("smollm", "a  12"), ["a", "  ", "1", "2"]);
        assert_eq!(pieces("dbrx", "12345"), ["123", "45"]);
        assert_eq!(pieces("gpt-2", " 12345"), [" 12345"]);
        assert_eq!(pieces("default", " 12345!"), [" ", "123", "45", "!"]);
    }

    #[test]
    fn gpt_4o_cuts_where_lower_case_turns_upper() {
        assert_eq!(pieces("gpt-4o", "HTTPServer's fooBar"), ["HTTPServer's", " foo", "Bar"]);
        assert_eq!(pieces("gpt-4o", "//\n/x"), ["//\n/", "x"]);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let message = PreTokenizer::named("nonsense").unwrap_err().to_string();
        assert!(
            message.contains("`nonsense`") && message.contains("llama-bpe") && message.contains("gpt-4o")
        );
    }

    #[test]
    fn a_long_run_costs_linear_time() {
        for name in ["llama-bpe", "qwen2", "gpt-4o", "smollm", "gpt-2", "default"] {
            let text = " ".repeat(1 << 20) + "a";
            assert_eq!(
                PreTokenizer::named(name).unwrap().split(&text),
                [0..(1 << 20) - 1, (1 << 20) - 1..text.len()]
            );
        }
    }
}
