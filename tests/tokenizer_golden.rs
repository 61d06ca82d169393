//! Real vocabularies against the ids that llama.cpp gives: those in the tree, and all that a folder named by
//! `WORKER_ORCD_TOKENIZERS` holds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use worker_orcd::tokenizer::{BPEDecoder, BPEEncoder, EncodeOptions, Tokenizer};

fn folders() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer")];
    match std::env::var_os("WORKER_ORCD_TOKENIZERS") {
        Some(folder) => folders.push(folder.into()),
        None => println!("skipped: vocabularies outside the tree; WORKER_ORCD_TOKENIZERS names no folder"),
    }
    folders
}

/// Every vocabulary there is: its name, its file, its tokenizer.
fn vocabularies() -> Vec<(String, PathBuf, Tokenizer)> {
    let mut found = Vec::new();
    for folder in folders() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(name) = name.strip_prefix("ggml-vocab-").and_then(|name| name.strip_suffix(".gguf")) {
                found.push((name.to_owned(), path.clone(), Tokenizer::from_gguf(&path).unwrap()));
            }
        }
    }
    assert!(found.len() >= 2, "only {} vocabularies", found.len());
    found
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn cases(vocabulary: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(vocabulary.with_file_name("strings.json")).unwrap()).unwrap()
}

#[test]
fn the_published_vectors() {
    for (name, path, tokenizer) in vocabularies() {
        let read = |extension: &str| {
            std::fs::read_to_string(path.with_file_name(format!("ggml-vocab-{name}.gguf.{extension}")))
                .unwrap()
        };
        let (texts, expected) = (read("inp"), read("out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let expected: Vec<&str> = expected.lines().collect();
        assert!(expected.len() >= 46, "{name}: {} lines", expected.len());
        for (text, expected) in texts.iter().zip(&expected) {
            let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().unwrap()).collect();
            for parse_special in [false, true] {
                let options = EncodeOptions { add_special: false, parse_special };
                assert_eq!(tokenizer.encode(text, options).unwrap(), expected, "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn hard_strings_in_every_variant_and_their_pieces() {
    for (name, path, tokenizer) in vocabularies() {
        let strings = cases(&path);
        let mut compared = 0;
        for case in strings["cases"].as_array().unwrap() {
            let (text, expected) = (case["text"].as_str().unwrap(), &case[&name]);
            for (variant, parse_special, add_special) in [
                ("special=0,bos=0", false, false),
                ("special=0,bos=1", false, true),
                ("special=1,bos=0", true, false),
                ("special=1,bos=1", true, true),
            ] {
                let encoded = tokenizer.encode(text, EncodeOptions { add_special, parse_special }).unwrap();
                assert_eq!(encoded, ids(&expected[variant]), "{name}, {variant}: {text:?}");
                compared += 1;
            }
            let pieces = expected["pieces_hex_of_special=1,bos=0"].as_array().unwrap();
            for (id, piece) in ids(&expected["special=1,bos=0"]).into_iter().zip(pieces) {
                let bytes = tokenizer.token_bytes(id).unwrap();
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(hex, piece.as_str().unwrap(), "{name}: the piece of {id}");
            }
        }
        assert!(compared >= 480, "{name}: only {compared} comparisons");
    }
}

#[test]
fn the_vocabularies_say_how_texts_begin_and_generations_end() {
    for (name, path, tokenizer) in vocabularies() {
        let expected = &cases(&path)["vocabs"][&name];
        let id = |key: &str| expected[key].as_i64().and_then(|id| u32::try_from(id).ok());
        assert_eq!(tokenizer.vocabulary_size() as u64, expected["n_vocab"].as_u64().unwrap(), "{name}");
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (id("bos"), id("eos")), "{name}");
        for end in [id("eos"), id("eot")].into_iter().flatten() {
            assert!(tokenizer.end_of_generation().contains(&end), "{name}: {end}");
        }
    }
}

#[test]
fn decoding_undoes_encoding_and_so_does_the_stream() {
    for (name, path, tokenizer) in vocabularies() {
        for case in cases(&path)["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            // `▁` is SentencePiece's space and comes back as one.
            if text.contains('\u{2581}') {
                continue;
            }
            for add_special in [false, true] {
                let options = EncodeOptions { add_special, parse_special: false };
                let ids = tokenizer.encode(text, options).unwrap();
                assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{name}");
                assert_eq!(tokenizer.decode_bytes(&ids, true).unwrap(), text.as_bytes(), "{name}");
                let mut stream = tokenizer.stream();
                let mut streamed = String::new();
                for &id in &ids {
                    streamed += &stream.push(id).unwrap();
                    assert!(
                        text.contains('\u{fffd}') || !streamed.contains('\u{fffd}'),
                        "{name}: half of {text:?}"
                    );
                }
                streamed += &stream.finish();
                let prefix =
                    if matches!(name.as_str(), "phi-3" | "llama-spm") && !text.is_empty() { " " } else { "" };
                assert_eq!(streamed, format!("{prefix}{text}"), "{name}");
            }
        }
    }
}

#[test]
fn special_tokens_are_kept_or_left_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer/ggml-vocab-phi-3.gguf");
    let tokenizer = Tokenizer::from_gguf(&path).unwrap();
    let ids = BPEEncoder::from_gguf(&path).unwrap().encode("<|user|>\nhi<|end|>\n<|assistant|>\n").unwrap();
    assert_eq!(ids, [1, 32010, 7251, 32007, 32001]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<s><|user|> hi<|end|><|assistant|>");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), " hi");
    assert_eq!(BPEDecoder::from_gguf(&path).unwrap().decode(&ids).unwrap(), " hi");
    assert_eq!(BPEDecoder::from(tokenizer.clone()).decode(&[7251]).unwrap(), "hi");
    let stream = |keep: bool| {
        let mut stream = tokenizer.stream().keep_special(keep);
        ids.iter().map(|&id| stream.push(id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(stream(false), ["", "", " hi", "", ""]);
    assert_eq!(stream(true), ["<s>", "<|user|>", " hi", "<|end|>", "<|assistant|>"]);
    assert!(tokenizer.is_special(32007) && !tokenizer.is_special(7251));
    assert_eq!((tokenizer.token_text(7251), tokenizer.id_of("\u{2581}hi")), (Some("\u{2581}hi"), Some(7251)));
    assert!(tokenizer.end_of_generation().iter().eq(&[2, 32000, 32007]));
}

#[test]
fn a_stream_waits_for_the_rest_of_a_character() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer/ggml-vocab-phi-3.gguf");
    let tokenizer = Tokenizer::from_gguf(path).unwrap();
    let byte = |byte: u8| tokenizer.id_of(&format!("<0x{byte:02X}>")).unwrap();
    let mut stream = tokenizer.stream();
    let pushed: Vec<String> = [0xF0, 0x9F, 0x98, 0x80, 0xFF, 0xC3, 0x41, 0xC3]
        .map(|value| stream.push(byte(value)).unwrap())
        .into();
    assert_eq!(pushed, ["", "", "", "\u{1F600}", "\u{FFFD}", "", "\u{FFFD}A", ""]);
    assert!(stream.push(1 << 30).is_err());
    assert_eq!(stream.finish(), "\u{FFFD}");
    assert_eq!(tokenizer.decode(&[byte(0xC3)], true).unwrap(), "\u{FFFD}");
    assert_eq!(tokenizer.decode_bytes(&[byte(0xC3)], true).unwrap(), [0xC3]);
    assert_eq!(tokenizer.stream().finish(), "");
}
