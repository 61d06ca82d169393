//! Holds the code to the layers of `docs/architecture.md`, and `unsafe` to the files that may have it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// The modules of the crate and what each may use, in the order of the layers.
const MAY_USE: &[(&str, &[&str])] = &[
    ("quant", &[]),
    ("device", &[]),
    ("gguf", &["quant"]),
    ("tokenizer", &["gguf"]),
    ("model", &["gguf", "quant"]),
    ("ops", &["device", "model", "quant"]),
    ("memory", &["device", "gguf", "model", "ops", "quant"]),
    ("weights", &["device", "gguf", "memory", "model", "ops", "quant"]),
    ("kv_cache", &["device", "memory", "model", "ops", "quant"]),
    ("synth", &["gguf", "model", "quant", "tokenizer"]),
    ("verify", &["device", "model", "ops", "quant", "synth"]),
    ("forward", &["device", "gguf", "kv_cache", "memory", "model", "ops", "quant", "weights"]),
    ("sampler", &["ops"]),
    (
        "inference",
        &[
            "device",
            "forward",
            "gguf",
            "kv_cache",
            "memory",
            "model",
            "ops",
            "quant",
            "sampler",
            "tokenizer",
            "verify",
            "weights",
        ],
    ),
    ("models", &["inference", "model"]),
    // Plain data of lower layers may be shown and asked for; nothing there is run.
    ("cli", &["gguf", "inference", "memory", "model", "quant", "sampler", "synth", "tokenizer", "verify"]),
];

/// The files that may hold `unsafe`, each with its proofs.
const MAY_BE_UNSAFE: &[&str] = &[
    "device/cuda/graph.rs",
    "device/cuda/launch.rs",
    "device/cuda/mod.rs",
    "device/cuda/open.rs",
    "device/cuda/ranges.rs",
    "device/cuda/staging.rs",
    "device/emulator/kernels.rs",
    "device/emulator/mod.rs",
    "device/host.rs",
    "gguf/mmap.rs",
    "ops/reference/simd/avx2.rs",
    "ops/reference/simd/avx512.rs",
    "ops/reference/threads.rs",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The module that a file belongs to: `gguf/reader.rs` and `gguf.rs` to `gguf`.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The names after each `crate::`.
fn uses(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("crate::").filter(|(at, _)| !text[..*at].ends_with('$')).map(|(at, found)| {
        let rest = &text[at + found.len()..];
        &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())]
    })
}

#[test]
fn modules_use_only_what_their_layer_may() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let own = module(&file);
        if own == "lib" || own == "main" {
            continue;
        }
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == own).unwrap_or_else(|| panic!("{own} has no layer"));
        for used in uses(&text) {
            let is_module = MAY_USE.iter().any(|(name, _)| *name == used);
            if is_module && used != own && !allowed.contains(&used) {
                wrong.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_is_an_order() {
    for (index, (module, allowed)) in MAY_USE.iter().enumerate() {
        for used in *allowed {
            let at = MAY_USE.iter().position(|(name, _)| name == used).unwrap();
            assert!(at < index, "{module} may use {used}, which stands below it");
        }
    }
}

#[test]
fn architecture_page_names_every_module() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (module, _) in MAY_USE {
        assert!(page.contains(&format!("`{module}`")), "docs/architecture.md does not name `{module}`");
    }
}

#[test]
fn unsafe_stands_in_the_named_files_only() {
    let mut found: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| {
            text.lines().any(|line| {
                let code = line.split("//").next().unwrap();
                code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn")
            })
        })
        .map(|(file, _)| file)
        .collect();
    found.sort();
    assert_eq!(found, MAY_BE_UNSAFE);
}
