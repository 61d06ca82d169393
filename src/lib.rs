//! worker-orcd loads a GGUF language model and generates text with it.
//!
//! The modules in the order of their layers; each may use only what stands above it:
//!
//! | layer | module | holds |
//! |---|---|---|
//! | 0 | [`quant`] | GGML block formats: one table row each |
//! | 1 | [`gguf`] | the file: checked reader, metadata, tensor table, writer |
//! | 1 | [`device`] | memory, knowing no operation |
//! | 2 | [`tokenizer`] | text to token ids and back, chat templates |
//! | 2 | [`model`] | configurations, the tensor schema |
//! | 3 | [`ops`] | the operations of a transformer layer |
//! | 3 | [`memory`] | the plan and the arena |
//! | 4 | [`weights`], [`kv_cache`] | typed structs over arena regions |
//! | 4 | [`synth`] | complete files of random weights |
//! | 5 | [`verify`] | a device's operations against the reference's |
//! | 5 | [`forward`], [`sampler`] | the layer, written once; how tokens are chosen |
//! | 6 | [`inference`] | adapters, factory, generation loop |
//! | 6 | [`models`] | the names under which programs of the original documentation find all that |
//! | 7 | `cli` | the command |

pub mod quant;

pub mod device;
pub mod gguf;

pub mod model;
pub mod tokenizer;

pub mod ops;

pub mod memory;

pub mod kv_cache;
pub mod weights;

pub mod synth;

pub mod verify;

pub mod forward;
pub mod sampler;

pub mod inference;
pub mod models;

#[doc(hidden)]
pub mod cli;

pub use device::allocated_bytes as get_vram_usage;
pub use inference::{InferError, Inference};
pub use inference::{Llama, Llama31, Phi3, Phi4, Qwen2, Qwen3, SmolLm2};

/// The README's programs are compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
