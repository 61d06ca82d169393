//! The command under test.

use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;

/// The command, with nothing of the environment that it looks at.
pub fn worker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker-orcd"));
    command.args(args);
    for name in ["MODEL", "TOKENIZER", "DEVICE", "THREADS", "CTX_SIZE", "KV_TYPE", "VRAM_LIMIT"] {
        command.env_remove(format!("WORKER_ORCD_{name}"));
    }
    command.env_remove("RUST_LOG");
    command
}

/// What the command prints; it must succeed.
pub fn stdout(args: &[&str]) -> Vec<u8> {
    worker(args).assert().success().get_output().stdout.clone()
}

/// The JSON that the command prints; it must succeed.
pub fn json(args: &[&str]) -> Value {
    serde_json::from_slice(&stdout(args)).unwrap()
}

/// A golden model of the tree, such as `phi3-mini/phi3-mini-Q4_K_M`.
pub fn golden(name: &str) -> String {
    let path = super::root().join("tests/golden").join(name);
    path.with_extension("gguf").to_str().unwrap().to_owned()
}

/// Ids as the command takes them.
pub fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Ids that the command printed.
pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A file in a folder, as text.
pub fn file(folder: &tempfile::TempDir, name: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    path.to_str().unwrap().to_owned()
}
