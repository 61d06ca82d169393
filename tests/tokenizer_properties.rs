//! What holds for every text.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use worker_orcd::tokenizer::{EncodeOptions, Tokenizer};

/// One vocabulary of each kind and pre-tokenizer.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    [
        "data/tokenizer/ggml-vocab-phi-3.gguf",
        "data/tokenizer/ggml-vocab-gpt-2.gguf",
        "golden/llama31/llama31-Q4_K_M.gguf",
        "golden/phi4/phi4-Q4_K_M.gguf",
        "golden/phi4-mini/phi4-mini-Q4_K_M.gguf",
        "golden/qwen2/qwen2-Q4_K_M.gguf",
        "golden/smollm2/smollm2-Q4_K_M.gguf",
        "golden/tinyllama/tinyllama-Q4_K_M.gguf",
    ]
    .map(|file| Tokenizer::from_gguf(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file)).unwrap())
    .into()
});

/// Texts of words, white space, marks, special tokens and any characters; no `▁`, which comes back as a space.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z']{1,8}",
        "[ \t\n\r\u{3000}]{1,5}",
        "[0-9.,!?/(){}=+-]{1,6}",
        "\\PC{1,4}",
        any::<char>().prop_map(String::from),
        prop::sample::select(vec!["<|end|>", "<|im_end|>", "<|eot_id|>", "</s>", "<s>", "<0x0A>", "<unk>"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat().replace('\u{2581}', ""))
}

proptest! {
    #[test]
    fn text_that_is_not_trusted_comes_back_and_holds_no_special_token(text in text()) {
        let untrusted = EncodeOptions { add_special: false, parse_special: false };
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, untrusted).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, false).unwrap(), &text);
            prop_assert!(!ids.iter().any(|&id| tokenizer.is_special(id)));
        }
    }

    #[test]
    fn the_stream_prints_what_the_pieces_say(text in text(), cut in any::<prop::sample::Index>()) {
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, EncodeOptions::default()).unwrap();
            // From anywhere, so that the first and the last character may be halves.
            let ids = &ids[cut.index(ids.len() + 1)..];
            let pieces: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap().into_owned()).collect();
            let mut stream = tokenizer.stream().keep_special(true);
            let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            streamed += &stream.finish();
            prop_assert_eq!(streamed, String::from_utf8_lossy(&pieces));
        }
    }
}
