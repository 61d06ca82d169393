//! Special tokens: which tokens are special by their names, and where they stand in a text.
//!
//! Files mark few of their special tokens by id, and some mark them wrongly. llama.cpp therefore goes by well-known
//! names as well, and so does this.

use std::ops::Range;

use super::TokenizerError;
use super::vocabulary::{Attributes, Vocabulary};
use crate::gguf::Metadata;

/// Tokens that end a generation wherever a vocabulary has them.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

/// Keys that name one more token that ends a generation.
const END_KEYS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// The array of those, where a file has several.
const END_KEY: &str = "tokenizer.ggml.eos_token_ids";

/// A token for filling in code: keys that may name it, else its well-known names.
struct FillIn {
    keys: &'static [&'static str],
    names: &'static [&'static str],
    ends_generation: bool,
}

#[rustfmt::skip]
const FILL_IN: &[FillIn] = &[
    FillIn { keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"], ends_generation: false,
             names: &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\u{ff5c}fim\u{2581}begin\u{ff5c}>", "<PRE>",
                      "\u{2581}<PRE>", "<|code_prefix|>", "<|prefix|>"] },
    FillIn { keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"], ends_generation: false,
             names: &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\u{ff5c}fim\u{2581}hole\u{ff5c}>", "<SUF>",
                      "\u{2581}<SUF>", "<|code_suffix|>", "<|suffix|>"] },
    FillIn { keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"], ends_generation: false,
             names: &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\u{ff5c}fim\u{2581}end\u{ff5c}>", "<MID>",
                      "\u{2581}<MID>", "<|code_middle|>", "<|middle|>"] },
    FillIn { keys: &["tokenizer.ggml.fim_pad_token_id"], ends_generation: true,
             names: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"] },
    FillIn { keys: &["tokenizer.ggml.fim_rep_token_id"], ends_generation: true,
             names: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"] },
    FillIn { keys: &["tokenizer.ggml.fim_sep_token_id"], ends_generation: true,
             names: &["<|file_sep|>"] },
];

/// Vocabularies with the first two tokens talk in channels: `<|end|>` ends a message there, not the reply, and the
/// tokens of the second list are part of what is shown.
const CHANNEL_MARKS: [[&str; 2]; 2] = [["<|return|>", "<|call|>"], ["<|flush|>", "<|calls|>"]];
const CHANNEL_TEXT: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Finds the tokens that end a generation and corrects what the file says of special tokens.
pub(super) fn find(vocabulary: &mut Vocabulary, metadata: &Metadata) -> Result<(), TokenizerError> {
    let ends = END_KEYS.iter().map(|key| vocabulary.special_id(metadata, key));
    let mut ends = ends.collect::<Result<Vec<_>, _>>()?;
    for id in metadata.u32s(END_KEY)?.unwrap_or_default() {
        vocabulary.check_special(END_KEY, id)?;
        ends.push(Some(id));
    }
    ends.push(vocabulary.eos);
    for fill_in in FILL_IN {
        let mut named = None;
        for key in fill_in.keys {
            named = vocabulary.special_id(metadata, key)?.or(named);
        }
        let id = named.or_else(|| {
            let id = fill_in.names.iter().find_map(|name| vocabulary.id(name))?;
            add(vocabulary, id, Attributes::CONTROL);
            Some(id)
        });
        ends.push(id.filter(|_| fill_in.ends_generation));
    }
    vocabulary.end_of_generation.extend(ends.into_iter().flatten());
    find_by_name(vocabulary);
    let name = metadata.str("general.name")?.unwrap_or_default().to_ascii_lowercase();
    if name.contains("phi-3") || name.contains("phi3") {
        strip_right(vocabulary);
    }
    Ok(())
}

/// The part of [`find`] that needs no metadata.
pub(super) fn find_by_name(vocabulary: &mut Vocabulary) {
    for id in ENDS.iter().filter_map(|name| vocabulary.id(name)).collect::<Vec<_>>() {
        vocabulary.end_of_generation.insert(id);
        add(vocabulary, id, Attributes::CONTROL);
    }
    for id in CHANNEL_TEXT.iter().filter_map(|name| vocabulary.id(name)).collect::<Vec<_>>() {
        vocabulary.set_attributes(id, Attributes::USER_DEFINED);
    }
    let talks_in_channels =
        CHANNEL_MARKS.iter().any(|marks| marks.iter().all(|name| vocabulary.id(name).is_some()));
    if let Some(end) = vocabulary.id("<|end|>").filter(|_| talks_in_channels) {
        vocabulary.end_of_generation.remove(&end);
        vocabulary.set_attributes(end, Attributes::USER_DEFINED);
    }
}

/// Phi-3's special tokens own the white space to their right. GGUF has no key for that; its name must do.
fn strip_right(vocabulary: &mut Vocabulary) {
    let mut ids = parsed(vocabulary);
    ids.extend(vocabulary.id("</s>"));
    for id in ids {
        add(vocabulary, id, Attributes::STRIP_RIGHT);
    }
    for id in
        ["<unk>", "<s>", "<|endoftext|>"].iter().filter_map(|name| vocabulary.id(name)).collect::<Vec<_>>()
    {
        vocabulary.set_attributes(id, vocabulary.attributes(id).without(Attributes::STRIP_RIGHT));
    }
}

fn add(vocabulary: &mut Vocabulary, id: u32, attributes: Attributes) {
    vocabulary.set_attributes(id, vocabulary.attributes(id).with(attributes));
}

/// The tokens that are looked for in a text before anything else, the longest first.
pub(super) fn parsed(vocabulary: &Vocabulary) -> Vec<u32> {
    let kinds = Attributes::CONTROL.with(Attributes::USER_DEFINED).with(Attributes::UNKNOWN);
    let mut ids: Vec<u32> =
        (0..).take(vocabulary.len()).filter(|&id| vocabulary.attributes(id).any(kinds)).collect();
    ids.sort_by_key(|&id| std::cmp::Reverse(vocabulary.get(id).map_or(0, str::len)));
    ids
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// Text to encode, as a range of bytes; never empty.
    Text(Range<usize>),
    /// A special token that stands there.
    Token(u32),
}

/// Cuts a text at the special tokens `parsed`: each takes all its places before the next one looks.
/// With `parse_special` false, control and unknown tokens are text like any other, and user-defined ones still count.
pub(super) fn partition(
    vocabulary: &Vocabulary,
    parsed: &[u32],
    text: &str,
    parse_special: bool,
) -> Vec<Fragment> {
    let mut fragments = Vec::new();
    if !text.is_empty() {
        fragments.push(Fragment::Text(0..text.len()));
    }
    for &id in parsed {
        let Some(name) = vocabulary.get(id) else { continue };
        if (!parse_special && vocabulary.is_special(id)) || !text.contains(name) {
            continue;
        }
        let strips_right = vocabulary.attributes(id).any(Attributes::STRIP_RIGHT);
        let mut cut = Vec::with_capacity(fragments.len() + 2);
        for fragment in fragments {
            match fragment {
                Fragment::Text(range) => cut_at(text, range, id, name, strips_right, &mut cut),
                token => cut.push(token),
            }
        }
        fragments = cut;
    }
    fragments
}

/// Cuts one range of the text at every place of one token.
fn cut_at(text: &str, range: Range<usize>, id: u32, name: &str, strips_right: bool, cut: &mut Vec<Fragment>) {
    let mut at = range.start;
    while let Some(found) = text[at..range.end].find(name) {
        if found > 0 {
            cut.push(Fragment::Text(at..at + found));
        }
        cut.push(Fragment::Token(id));
        at += found + name.len();
        if strips_right {
            // The white space of C's `isspace`, which has the vertical tab too.
            let rest = &text[at..range.end];
            at = range.end - rest.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']).len();
        }
    }
    if at < range.end {
        cut.push(Fragment::Text(at..range.end));
    }
}
