//! The report for people.

use serde_json::Value;

use crate::gguf::{MetadataValue, TensorInfo};

use crate::cli::output::{grouped, size, table};

use super::facts::{Facts, Memory, config_fields, elements};
use super::json::value;

/// Elements of an array, and characters of a value, that are shown.
const MOST_ELEMENTS: usize = 4;
const MOST_CHARACTERS: usize = 72;

pub(super) fn report(facts: &Facts) -> String {
    let gguf = &facts.file.gguf;
    let mut text = section("file", &table("<<", &file(facts)));
    text += &match &facts.config {
        Ok(config) => {
            let rows: Vec<_> = config_fields(config)
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| vec![name.to_owned(), plain(&value)])
                .collect();
            section("config", &table("<<", &rows))
        }
        Err(error) => section("config", &format!("  none: {error}\n")),
    };
    let metadata: Vec<_> =
        gguf.metadata().iter().map(|(key, value)| vec![key.to_owned(), shown(value)]).collect();
    text += &section("metadata", &table("<<", &metadata));
    text += &section("tensors", &table("<<<>>", &gguf.tensors().iter().map(tensor).collect::<Vec<_>>()));
    text += &match &facts.memory {
        Ok(memory) => section(
            &format!("memory on {} with a context of {}", memory.device, memory.plan.options.context),
            &table("<>>", &memory_rows(memory)),
        ),
        // The reason stands under the configuration already.
        Err(_) if facts.config.is_err() => String::new(),
        Err(error) => section("memory", &format!("  unknown: {error}\n")),
    };
    text.trim_end().to_owned() + "\n"
}

fn section(title: &str, body: &str) -> String {
    format!("{title}\n{body}\n")
}

fn file(facts: &Facts) -> Vec<Vec<String>> {
    let gguf = &facts.file.gguf;
    let bytes = gguf.file_bytes();
    let rows = [
        ("path", facts.file.path.display().to_string()),
        ("size", format!("{} ({} bytes)", size(bytes), grouped(bytes))),
        ("version", gguf.version().to_string()),
        ("alignment", gguf.alignment().to_string()),
        ("files", gguf.n_shards().to_string()),
        ("metadata keys", gguf.metadata().len().to_string()),
        ("tensors", gguf.tensors().len().to_string()),
    ];
    rows.map(|(name, value)| vec![name.to_owned(), value]).to_vec()
}

/// A value without JSON's quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A metadata value on one short line.
fn shown(entry: &MetadataValue) -> String {
    let text = match entry {
        MetadataValue::String(text) => text.escape_debug().to_string(),
        MetadataValue::Array(array) => {
            let (first, n, kind) = elements(array, MOST_ELEMENTS);
            let first: Vec<String> = first.iter().map(Value::to_string).collect();
            let rest = if n > first.len() { ", …" } else { "" };
            return format!("{} {kind}: {}", grouped(n as u64), abridged(&first.join(", ")) + rest);
        }
        entry => plain(&value(entry)),
    };
    abridged(&text)
}

fn abridged(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((at, _)) => format!("{}… ({} characters)", &text[..at], grouped(text.chars().count() as u64)),
        None => text.to_owned(),
    }
}

fn tensor(tensor: &TensorInfo) -> Vec<String> {
    let dims: Vec<String> = tensor.dims.iter().map(u64::to_string).collect();
    vec![
        tensor.name.clone(),
        tensor.format.to_string(),
        dims.join(" × "),
        grouped(tensor.n_bytes),
        grouped(tensor.file_offset()),
    ]
}

fn memory_rows(memory: &Memory) -> Vec<Vec<String>> {
    let plan = &memory.plan;
    let mut rows: Vec<(String, Option<u64>)> =
        plan.summary().iter().map(|(purpose, bytes)| (purpose.to_string(), Some(*bytes))).collect();
    rows.push(("total".to_owned(), Some(plan.total_bytes)));
    rows.push(("available on the device".to_owned(), memory.available_bytes));
    if memory.driver_bytes.is_some() {
        rows.push(("taken by the driver".to_owned(), memory.driver_bytes));
    }
    if memory.limit_bytes.is_some() {
        rows.push(("allowed".to_owned(), memory.limit_bytes));
    }
    rows.push(("kv cache per token".to_owned(), Some(memory.kv_bytes_per_token)));
    rows.push(("weights read per token".to_owned(), Some(memory.weight_bytes_per_token)));
    let row = |(name, bytes): (String, Option<u64>)| match bytes {
        Some(bytes) => vec![name, grouped(bytes), size(bytes)],
        None => vec![name, "unknown".to_owned()],
    };
    let mut rows: Vec<_> = rows.into_iter().map(row).collect();
    rows.push(vec!["fits".to_owned(), if memory.fits() { "yes" } else { "no" }.to_owned()]);
    let largest = memory.largest_context.map_or_else(|| "none".to_owned(), |n| grouped(n as u64));
    rows.push(vec!["largest context that fits".to_owned(), largest, "tokens".to_owned()]);
    rows
}
