//! The report for programs.

use serde_json::{Map, Value, json};

use crate::gguf::{MetadataValue, TensorInfo};
use crate::inference::InferError;

use crate::cli::output::number;

use super::facts::{Facts, Memory, config_fields, elements};

/// `file`, `config`, `metadata`, `tensors`, `memory`; what cannot be said is null, and `config_error` or `memory_error`
/// says why.
pub(super) fn report(facts: &Facts) -> Value {
    let gguf = &facts.file.gguf;
    let config = facts.config.as_ref().map(|config| {
        config_fields(config).into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>()
    });
    let metadata: Map<String, Value> =
        gguf.metadata().iter().map(|(key, entry)| (key.to_owned(), value(entry))).collect();
    json!({
        "file": {
            "path": facts.file.path.display().to_string(),
            "bytes": gguf.file_bytes(),
            "version": gguf.version(),
            "alignment": gguf.alignment(),
            "n_shards": gguf.n_shards(),
            "n_metadata": gguf.metadata().len(),
            "n_tensors": gguf.tensors().len(),
        },
        "config": config.ok(),
        "config_error": facts.config.as_ref().err().map(InferError::to_string),
        "metadata": metadata,
        "tensors": gguf.tensors().iter().map(tensor).collect::<Vec<_>>(),
        "memory": facts.memory.as_ref().ok().map(memory),
        "memory_error": facts.memory.as_ref().err().map(InferError::to_string),
    })
}

pub(super) fn value(value: &MetadataValue) -> Value {
    match value {
        MetadataValue::U8(v) => (*v).into(),
        MetadataValue::I8(v) => (*v).into(),
        MetadataValue::U16(v) => (*v).into(),
        MetadataValue::I16(v) => (*v).into(),
        MetadataValue::U32(v) => (*v).into(),
        MetadataValue::I32(v) => (*v).into(),
        MetadataValue::U64(v) => (*v).into(),
        MetadataValue::I64(v) => (*v).into(),
        MetadataValue::F32(v) => number(*v),
        MetadataValue::F64(v) => (*v).into(),
        MetadataValue::Bool(v) => (*v).into(),
        MetadataValue::String(v) => v.as_str().into(),
        MetadataValue::Array(array) => elements(array, usize::MAX).0.into(),
    }
}

fn tensor(tensor: &TensorInfo) -> Value {
    json!({
        "name": tensor.name,
        "format": tensor.format.name(),
        "dims": tensor.dims,
        "bytes": tensor.n_bytes,
        "offset": tensor.file_offset(),
        "shard": tensor.shard(),
    })
}

fn memory(memory: &Memory) -> Value {
    let rows: Vec<Value> = memory
        .plan
        .summary()
        .iter()
        .map(|(purpose, bytes)| json!({ "purpose": purpose.to_string(), "bytes": bytes }))
        .collect();
    json!({
        "device": memory.device,
        "context": memory.plan.options.context,
        "kv_type": memory.plan.options.kv_format.name().to_lowercase(),
        "rows": rows,
        "total_bytes": memory.plan.total_bytes,
        "kv_bytes_per_token": memory.kv_bytes_per_token,
        "weight_bytes_per_token": memory.weight_bytes_per_token,
        "available_bytes": memory.available_bytes,
        "driver_bytes": memory.driver_bytes,
        "limit_bytes": memory.limit_bytes,
        "fits": memory.fits(),
        "largest_context": memory.largest_context,
    })
}
