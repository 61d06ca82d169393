//! `tokenize`: text to token ids, and back.

use crate::inference::{InferError, open_tokenizer};
use crate::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};

use super::args::TokenizeArgs;
use super::error::CliError;
use super::output::{print, print_json, table};
use super::source::{self, ModelFile};

pub(super) fn run(args: &TokenizeArgs) -> Result<(), CliError> {
    let tokenizer = match &args.model.tokenizer {
        Some(path) => open_tokenizer(path)?,
        None => ModelFile::open(&args.model)?.tokenizer()?,
    };
    if let Some(ids) = &args.decode {
        let bytes = decode(&tokenizer, ids, args).map_err(InferError::from)?;
        return if args.json { print_json(&String::from_utf8_lossy(&bytes)) } else { print(bytes) };
    }
    let text = source::text(args.prompt.as_deref(), args.file.as_deref())?;
    let ids = tokenizer.encode(&text, options(args)).map_err(InferError::from)?;
    if args.json {
        return print_json(&ids);
    }
    let row = |id: &u32| {
        let piece = tokenizer.token_text(*id).unwrap_or_default();
        vec![id.to_string(), piece.escape_debug().to_string()]
    };
    print(table("><", &ids.iter().map(row).collect::<Vec<_>>()))
}

fn options(args: &TokenizeArgs) -> EncodeOptions {
    EncodeOptions { add_special: !args.no_bos, parse_special: !args.no_special }
}

/// The bytes of ids, without the tokens that encoding with the same flags adds by itself.
fn decode(tokenizer: &Tokenizer, ids: &[u32], args: &TokenizeArgs) -> Result<Vec<u8>, TokenizerError> {
    let added = tokenizer.encode("", options(args))?;
    let begins = |ids: &[u32]| tokenizer.bos().is_some_and(|bos| ids.first() == Some(&bos));
    let ends = |ids: &[u32]| tokenizer.eos().is_some_and(|eos| ids.last() == Some(&eos));
    let mut ids = ids;
    if begins(&added) && begins(ids) {
        ids = &ids[1..];
    }
    if ends(&added) && ends(ids) {
        ids = &ids[..ids.len() - 1];
    }
    tokenizer.decode_bytes(ids, args.no_special)
}
