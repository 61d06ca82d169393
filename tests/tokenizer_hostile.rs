//! Vocabularies as no converter writes them, and texts as no user types them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use worker_orcd::gguf::{Metadata, MetadataArray, MetadataValue};
use worker_orcd::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};

fn strings(texts: &[&str]) -> MetadataValue {
    MetadataValue::Array(MetadataArray::String(texts.iter().map(|&text| text.to_owned()).collect()))
}
fn scores(scores: &[f32]) -> MetadataValue {
    MetadataValue::Array(MetadataArray::F32(scores.to_vec()))
}
fn types(types: &[i32]) -> MetadataValue {
    MetadataValue::Array(MetadataArray::I32(types.to_vec()))
}
fn text(text: &str) -> MetadataValue {
    MetadataValue::String(text.to_owned())
}

/// A SentencePiece vocabulary of eight tokens, without byte tokens.
fn sentence_piece() -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in [
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "ab", "ba"])),
        ("tokenizer.ggml.scores", scores(&[0.0, 0.0, 0.0, -1.0, -1.0, -1.0, -5.0, -5.0])),
        ("tokenizer.ggml.token_type", types(&[2, 3, 3, 1, 1, 1, 1, 1])),
    ] {
        metadata.set(key, value);
    }
    metadata
}

/// A byte-level vocabulary of six tokens.
fn byte_level() -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in [
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", strings(&["a", "b", "\u{120}", "ab", "\u{120}ab", "<|endoftext|>"])),
        ("tokenizer.ggml.token_type", types(&[1, 1, 1, 1, 1, 3])),
        ("tokenizer.ggml.merges", strings(&["a b", "\u{120} ab"])),
        ("tokenizer.ggml.eos_token_id", MetadataValue::U32(5)),
    ] {
        metadata.set(key, value);
    }
    metadata
}

fn error(mut metadata: Metadata, key: &str, value: MetadataValue) -> TokenizerError {
    metadata.set(key, value);
    Tokenizer::from_metadata(&metadata).expect_err(key)
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, EncodeOptions::default()).unwrap()
}

#[test]
fn the_vocabularies_these_tests_break_are_whole() {
    let tokenizer = Tokenizer::from_metadata(&sentence_piece()).unwrap();
    // Of two pairs with one score, the left one is joined first.
    assert_eq!(ids(&tokenizer, "aba"), [1, 3, 6, 4]);
    assert_eq!(ids(&tokenizer, "bab"), [1, 3, 7, 5]);
    assert_eq!(ids(&tokenizer, ""), [1]);
    // Without byte tokens, what is no token is the unknown token.
    assert_eq!(ids(&tokenizer, "a\u{e9}b"), [1, 3, 4, 0, 5]);
    let tokenizer = Tokenizer::from_metadata(&byte_level()).unwrap();
    assert_eq!(ids(&tokenizer, "ab ab<|endoftext|>a"), [3, 4, 5, 0]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(5)));
}

#[test]
fn lists_must_fit_together() {
    let found = error(sentence_piece(), "tokenizer.ggml.tokens", strings(&[]));
    assert!(
        matches!(found, TokenizerError::EmptyVocabulary | TokenizerError::LengthMismatch { .. }),
        "{found}"
    );
    let found = error(sentence_piece(), "tokenizer.ggml.scores", scores(&[0.0; 7]));
    assert!(matches!(found, TokenizerError::LengthMismatch { expected: 8, found: 7, .. }), "{found}");
    let found = error(sentence_piece(), "tokenizer.ggml.token_type", types(&[1; 9]));
    assert!(matches!(found, TokenizerError::LengthMismatch { expected: 8, found: 9, .. }), "{found}");
    let mut nan = [0.0; 8];
    nan[3] = f32::NAN;
    let found = error(sentence_piece(), "tokenizer.ggml.scores", scores(&nan));
    assert!(matches!(found, TokenizerError::BadScore { token: 3 }), "{found}");
    let mut infinite = [0.0; 8];
    (infinite[6], infinite[7]) = (f32::INFINITY, f32::NEG_INFINITY);
    let mut metadata = sentence_piece();
    metadata.set("tokenizer.ggml.scores", scores(&infinite));
    assert_eq!(ids(&Tokenizer::from_metadata(&metadata).unwrap(), "bab"), [1, 3, 5, 6]);
}

#[test]
fn special_ids_must_be_in_the_vocabulary() {
    for key in ["bos", "eos", "eot", "eom", "unknown", "fim_pad", "fim_pre", "prefix"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let found = error(sentence_piece(), &key, MetadataValue::U32(8));
        let TokenizerError::SpecialOutOfRange { key: named, id: 8, size: 8 } = &found else {
            panic!("{found}")
        };
        assert_eq!(*named, key);
    }
    let list = MetadataValue::Array(MetadataArray::U32(vec![2, 99]));
    let found = error(sentence_piece(), "tokenizer.ggml.eos_token_ids", list);
    assert!(matches!(found, TokenizerError::SpecialOutOfRange { id: 99, .. }), "{found}");
    let found = error(byte_level(), "tokenizer.ggml.add_bos_token", MetadataValue::Bool(true));
    assert!(found.to_string().contains("tokenizer.ggml.bos_token_id"), "{found}");
    let found = error(sentence_piece(), "tokenizer.ggml.bos_token_id", MetadataValue::I32(-1));
    assert!(matches!(found, TokenizerError::Metadata(_)), "{found}");
}

#[test]
fn merges_must_be_pairs_of_tokens() {
    for merge in ["ab", "", " ", "a ", " b", "\u{120}"] {
        let found = error(byte_level(), "tokenizer.ggml.merges", strings(&["a b", merge]));
        assert!(matches!(found, TokenizerError::MalformedMerge { index: 1, .. }), "{merge:?}: {found}");
    }
    for (merge, missing) in [("a c", "c"), ("c a", "c"), ("b a", "ba"), ("a b c", "b c")] {
        let found = error(byte_level(), "tokenizer.ggml.merges", strings(&[merge]));
        let TokenizerError::MergeOutOfVocabulary { index: 0, token, .. } = &found else { panic!("{found}") };
        assert_eq!(token, missing);
    }
    let mut metadata = byte_level();
    metadata.set("tokenizer.ggml.merges", strings(&["a b", "a b", "a b"]));
    assert_eq!(ids(&Tokenizer::from_metadata(&metadata).unwrap(), "ab"), [3]);
}

#[test]
fn unknown_kinds_are_errors_that_say_what_is_known() {
    let found = error(byte_level(), "tokenizer.ggml.model", text("bert")).to_string();
    assert!(found.contains("`bert`") && found.contains("`llama`") && found.contains("`gpt2`"), "{found}");
    let found = error(byte_level(), "tokenizer.ggml.pre", text("deepseek-llm")).to_string();
    for name in
        ["`deepseek-llm`", "llama-bpe", "llama3", "qwen2", "gpt-4o", "dbrx", "smollm", "gpt-2", "default"]
    {
        assert!(found.contains(name), "{name}: {found}");
    }
    let found = error(byte_level(), "tokenizer.ggml.tokens", MetadataValue::U32(1));
    assert!(matches!(found, TokenizerError::Metadata(_)), "{found}");
    assert!(matches!(Tokenizer::from_metadata(&Metadata::default()), Err(TokenizerError::Metadata(_))));
}

#[test]
fn odd_tokens_are_taken_as_they_are() {
    let mut metadata = sentence_piece();
    // Two tokens of one text, an empty one, one of no known kind, an unused one.
    let tokens = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "a", "", "<|x|>"];
    metadata.set("tokenizer.ggml.tokens", strings(&tokens));
    metadata.set("tokenizer.ggml.token_type", types(&[2, 3, 3, 1, 1, 1, 77, 5]));
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(ids(&tokenizer, "a"), [1, 3, 5]);
    assert_eq!(tokenizer.token_text(6), Some("[EMPTY_6]"));
    assert_eq!((tokenizer.token_bytes(6).unwrap().len(), tokenizer.token_bytes(7).unwrap().len()), (0, 0));
    assert_eq!(tokenizer.decode(&[1, 3, 4, 7, 6, 5, 2], true).unwrap(), "aa");
    assert!(matches!(tokenizer.decode(&[8], true), Err(TokenizerError::UnknownToken { id: 8, size: 8 })));
    assert_eq!(tokenizer.token_bytes(8), None);
}

#[test]
fn a_byte_without_a_token_is_an_error_where_nothing_stands_for_it() {
    let tokenizer = Tokenizer::from_metadata(&byte_level()).unwrap();
    let found = tokenizer.encode("abc", EncodeOptions::default());
    assert!(matches!(found, Err(TokenizerError::Unencodable { byte: b'c' })));
}

#[test]
fn special_tokens_take_their_places_the_longest_first() {
    let mut metadata = byte_level();
    let tokens = ["a", "b", "<x>", "<x><x>", "x><y", "<y>"];
    metadata.set("tokenizer.ggml.tokens", strings(&tokens));
    metadata.set("tokenizer.ggml.token_type", types(&[1, 1, 3, 3, 3, 4]));
    metadata.set("tokenizer.ggml.merges", strings(&[]));
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(ids(&tokenizer, "a<x><x><x>b"), [0, 3, 2, 1]);
    let found = tokenizer.encode("<x><y>", EncodeOptions::default());
    assert!(matches!(found, Err(TokenizerError::Unencodable { byte: b'<' })), "x><y goes before <x>");
    // Text that is not trusted: control tokens are text, user-defined ones are not.
    let untrusted = EncodeOptions { parse_special: false, ..EncodeOptions::default() };
    assert_eq!(tokenizer.encode("a<y>b", untrusted).unwrap(), [0, 5, 1]);
    assert!(tokenizer.encode("<x>", untrusted).is_err());
}

fn golden(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

#[test]
fn a_megabyte_of_one_character_is_encoded_and_comes_back() {
    for file in [
        "data/tokenizer/ggml-vocab-phi-3.gguf",
        "data/tokenizer/ggml-vocab-gpt-2.gguf",
        "golden/phi4-mini/phi4-mini-Q4_K_M.gguf",
        "golden/smollm2/smollm2-Q4_K_M.gguf",
        "golden/llama31/llama31-Q4_K_M.gguf",
    ] {
        let tokenizer = Tokenizer::from_gguf(golden(file)).unwrap();
        for text in
            [" ".repeat(1 << 20) + "x", "a".repeat(1 << 20), "\n".repeat(1 << 20), "<|end|".repeat(1 << 17)]
        {
            let ids = tokenizer.encode(&text, EncodeOptions::default()).unwrap();
            assert!(tokenizer.decode(&ids, true).unwrap() == text, "{file}: {:?}", &text[..8]);
        }
    }
}

#[test]
fn a_long_run_does_not_go_past_the_limits_of_tokenizer_json() {
    for case in ["llama31", "phi4-mini", "phi4", "qwen2", "smollm2"] {
        let from_json = Tokenizer::from_json(golden("golden").join(case)).unwrap();
        let from_gguf = Tokenizer::from_gguf(golden(&format!("golden/{case}/{case}-Q4_K_M.gguf"))).unwrap();
        for run in [" ", "\n", "\t \n", "a", "1", "!", "\u{3000}"] {
            let text = run.repeat(100_000) + "x";
            let options = EncodeOptions::default();
            assert!(
                from_json.encode(&text, options).unwrap() == from_gguf.encode(&text, options).unwrap(),
                "{case}: {run:?}"
            );
        }
    }
}

#[test]
fn a_tokenizer_json_that_is_none_is_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::from_json(&path), Err(TokenizerError::File { .. })));
    assert!(matches!(Tokenizer::from_json(folder.path()), Err(TokenizerError::File { .. })));
    let good = std::fs::read_to_string(golden("golden/qwen2/tokenizer.json")).unwrap();
    for bad in
        ["", "{", "[]", "{}", "null", &good[..good.len() / 2], &good.replace("ByteLevel", "Whitespace")]
    {
        std::fs::write(&path, bad).unwrap();
        let found = Tokenizer::from_json(&path).expect_err(&bad[..bad.len().min(20)]);
        assert!(matches!(found, TokenizerError::Json { .. }), "{found}");
    }
    let mut huge: serde_json::Value = serde_json::from_str(&good).unwrap();
    huge["model"]["vocab"]["<far away>"] = 4_000_000_000u32.into();
    std::fs::write(&path, huge.to_string()).unwrap();
    let found = Tokenizer::from_json(&path).expect_err("a huge id");
    assert!(matches!(found, TokenizerError::TooManyTokens { id: 4_000_000_000, .. }), "{found}");
}

#[test]
fn files_beside_a_tokenizer_json_name_its_ends_and_its_template() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden("golden/qwen2/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = folder.path().join("tokenizer_config.json");
    let bare = Tokenizer::from_json(folder.path()).unwrap();
    assert_eq!((bare.bos(), bare.eos(), bare.chat_template()), (None, None, None));
    std::fs::write(
        &config,
        r#"{"bos_token": null, "eos_token": {"content": "<|im_end|>"}, "chat_template": "{{ messages }}"}"#,
    )
    .unwrap();
    let tokenizer = Tokenizer::from_json(folder.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, tokenizer.id_of("<|im_end|>")));
    assert_eq!(tokenizer.chat_template(), Some("{{ messages }}"));
    std::fs::write(
        &config,
        r#"{"bos_token": "<|im_start|>", "add_bos_token": true, "chat_template": [{"name": "default", "template": "x"}]}"#,
    )
    .unwrap();
    std::fs::write(folder.path().join("special_tokens_map.json"), r#"{"eos_token": "<|endoftext|>"}"#)
        .unwrap();
    let tokenizer = Tokenizer::from_json(folder.path()).unwrap();
    assert_eq!(ids(&tokenizer, ""), [tokenizer.id_of("<|im_start|>").unwrap()]);
    assert_eq!((tokenizer.eos(), tokenizer.chat_template()), (tokenizer.id_of("<|endoftext|>"), Some("x")));
    std::fs::write(folder.path().join("chat_template.jinja"), "own").unwrap();
    assert_eq!(Tokenizer::from_json(folder.path()).unwrap().chat_template(), Some("own"));
    std::fs::write(&config, r#"{"eos_token": "<|not there|>"}"#).unwrap();
    assert!(matches!(Tokenizer::from_json(folder.path()), Err(TokenizerError::Json { .. })));
}
