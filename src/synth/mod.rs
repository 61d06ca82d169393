//! Synthetic models: complete GGUF files of random weights, for tests and measurements of any size without a download.
//!
//! A file holds every tensor of [`schema`] in the formats that llama.cpp's quantizer would choose, the metadata that
//! [`ModelConfig::from_gguf`] reads, and a small tokenizer. Its logits are finite and mean nothing.
//!
//! ```
//! use worker_orcd::model::ModelConfig;
//! use worker_orcd::synth::{Mix, SynthOptions, layout};
//!
//! let options = SynthOptions { seed: 1, mix: Mix::from_name("q4_k_m")? };
//! let config = ModelConfig::named("phi3-mini-4k")?;
//! let tensors = layout(&config, options.mix)?.layout()?.tensors;
//! assert_eq!(tensors.iter().map(|tensor| tensor.n_bytes).sum::<u64>(), 2_396_032_512);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The bytes depend on configuration, mix and seed alone, not on the machine or its threads.

mod data;
mod error;
mod metadata;
mod mix;
mod pool;
mod random;

use std::path::Path;

pub use error::SynthError;
pub use mix::{MIXES, Mix, MixRow, Raise};
pub(crate) use random::Key;

use crate::gguf::GgufWriter;
use crate::model::{ModelConfig, schema};

use data::{Pools, vector};

/// Bytes of a tensor that are made before they are written.
const PIECE_BYTES: usize = 2 << 20;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynthOptions {
    /// Decides all random numbers.
    pub seed: u64,
    /// The formats of the tensors.
    pub mix: Mix,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynthReport {
    /// Bytes of the file.
    pub bytes: u64,
    /// Tensors in it.
    pub tensors: usize,
    /// Bytes of all tensors, without metadata and padding.
    pub tensor_bytes: u64,
}

/// The metadata and the tensor table of a synthetic file.
///
/// # Errors
/// As for [`fn@write`], except those of the disk and of formats that cannot be written.
pub fn layout(config: &ModelConfig, mix: Mix) -> Result<GgufWriter, SynthError> {
    let mut writer = GgufWriter::new();
    *writer.metadata_mut() = metadata::metadata(config, mix)?;
    for spec in schema(config) {
        writer.add_tensor(spec.name.as_str(), &spec.dims(), mix.format_of(config, &spec))?;
    }
    Ok(writer)
}

/// Writes a synthetic model as a new file, or over an old one. `progress(done, total)` is told of the bytes of tensors
/// that were written.
///
/// # Errors
/// The configuration is unsound or its vocabulary too small, the mix needs a format that this crate does not write, or
/// the disk refuses.
pub fn write(
    config: &ModelConfig,
    options: &SynthOptions,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SynthReport, SynthError> {
    let mix = options.mix;
    let writer = layout(config, mix)?;
    let tensors = writer.layout()?.tensors;
    let tensor_bytes = tensors.iter().map(|tensor| tensor.n_bytes).sum();
    let specs = schema(config);
    let formats = tensors.iter().map(|tensor| tensor.format);
    let (pool_key, tensor_key) = (Key(options.seed).at(0), Key(options.seed).at(1));
    let pools = Pools::new(pool_key, specs.iter().zip(formats))
        .map_err(|source| SynthError::Format { mix, source })?;

    let mut done = 0;
    let mut buffer = vec![0; PIECE_BYTES];
    let bytes = writer.write_file(path, |index, tensor, file| {
        let (spec, key) = (&specs[index], tensor_key.at(index as u64));
        let mut write = |bytes: &[u8]| {
            file.write_all(bytes)?;
            done += bytes.len() as u64;
            progress(done, tensor_bytes);
            Ok(())
        };
        match pools.of(spec, tensor.format) {
            Some(pool) => pool.stream(key, tensor.n_bytes, &mut buffer, &mut write),
            None => write(&vector(spec, key)),
        }
    })?;
    Ok(SynthReport { bytes, tensors: specs.len(), tensor_bytes })
}
