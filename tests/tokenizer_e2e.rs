//! The tokenizers of the golden models against the ids and pieces that llama.cpp gives, and against the
//! `tokenizer.json` of the same model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use worker_orcd::tokenizer::{EncodeOptions, Tokenizer};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The cases whose model is in the tree, with the model's tokenizer.
fn cases() -> Vec<(Value, PathBuf, Tokenizer)> {
    let e2e: Value = serde_json::from_slice(&std::fs::read(golden().join("e2e.json")).unwrap()).unwrap();
    let mut found = Vec::new();
    for case in e2e["cases"].as_array().unwrap() {
        let folder = golden().join(case["case"].as_str().unwrap());
        let path = folder.join(case["gguf"].as_str().unwrap());
        if path.exists() {
            let tokenizer = Tokenizer::from_gguf(path).unwrap();
            found.push((case.clone(), folder, tokenizer));
        }
    }
    assert!(found.len() >= 30, "only {} cases", found.len());
    found
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_pieces_and_ends() {
    for (case, _, tokenizer) in cases() {
        let (name, text) = (&case["case"], case["text"].as_str().unwrap());
        assert_eq!(
            tokenizer.encode(text, EncodeOptions::default()).unwrap(),
            ids(&case["ids"]),
            "{name}: {text:?}"
        );
        let pieces = case["pieces_hex"].as_array().unwrap();
        for (id, piece) in ids(&case["hf_greedy"]).into_iter().zip(pieces) {
            let bytes = tokenizer.token_bytes(id).unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, piece.as_str().unwrap(), "{name}: the piece of {id}");
        }
        assert!(tokenizer.end_of_generation().iter().copied().eq(ids(&case["eog"])), "{name}");
        assert_eq!(tokenizer.eos().map(u64::from), case["eos"].as_u64(), "{name}");
        if case["add_bos"] == true {
            assert_eq!(tokenizer.bos().map(u64::from), case["bos"].as_u64(), "{name}");
        }
    }
}

#[test]
fn tokenizer_json_gives_the_same_ids() {
    let mut compared = 0;
    for (case, folder, from_gguf) in cases() {
        if !folder.join("tokenizer.json").exists() {
            continue;
        }
        let tokenizer = Tokenizer::from_json(&folder).unwrap();
        let (name, text) = (&case["case"], case["text"].as_str().unwrap());
        assert_eq!(
            tokenizer.encode(text, EncodeOptions::default()).unwrap(),
            ids(&case["ids"]),
            "{name}: {text:?}"
        );
        assert_eq!(tokenizer.vocabulary_size(), from_gguf.vocabulary_size(), "{name}");
        assert_eq!(tokenizer.end_of_generation(), from_gguf.end_of_generation(), "{name}");
        for id in 0..tokenizer.vocabulary_size() as u32 {
            assert_eq!(tokenizer.token_bytes(id), from_gguf.token_bytes(id), "{name}: the piece of {id}");
            assert_eq!(tokenizer.is_special(id), from_gguf.is_special(id), "{name}: {id}");
        }
        for text in [
            text,
            "<|im_end|><|end|><|eot_id|>",
            "I'LL say 12345 \n\n  it's   HTTPServer\u{3000}x\t\t",
            "a \r\n\r\n b",
        ] {
            for (add_special, parse_special) in [(false, false), (false, true), (true, false), (true, true)] {
                let options = EncodeOptions { add_special, parse_special };
                let encoded = tokenizer.encode(text, options).unwrap();
                assert_eq!(
                    encoded,
                    from_gguf.encode(text, options).unwrap(),
                    "{name}, {options:?}: {text:?}"
                );
                assert_eq!(
                    tokenizer.decode(&encoded, true).unwrap(),
                    from_gguf.decode(&encoded, true).unwrap()
                );
                compared += 1;
            }
        }
    }
    assert!(compared >= 200, "only {compared} comparisons");
}
