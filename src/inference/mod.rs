//! What users call: adapters, the factory, typed wrappers, the generation loop.

mod adapter;
mod error;
mod factory;
mod generate;
mod model;
mod passes;
mod runner;
mod stop;
mod tensors;
mod text;
mod typed;
mod verify;

pub use crate::ops::Arithmetic;
pub use crate::ops::profile::Event;
pub use crate::weights::{LoadTimes, Stage};
pub use adapter::{AdapterForwardConfig, LlamaInferenceAdapter};
pub use error::{Fault, InferError};
pub use factory::{Inference, TokenizerFromModel};
pub use generate::{CancelToken, GenerateOptions, StopReason, Timings, Tokens};
pub use model::{LoadOptions, Model};
pub use passes::Passes;
pub use runner::DeviceChoice;
pub use tensors::{DeviceTensor, DeviceTensors, LayerTensors};
pub use text::{Conversation, Generation, Prompt, TextModel};
pub use typed::{
    Llama, Llama31, LlamaWeightLoader, MODELS, ModelKind, ModelRow, Phi3, Phi3WeightLoader, Phi4, Qwen2,
    Qwen2WeightLoader, Qwen3, Qwen3WeightLoader, SmolLm2, Typed, WeightLoader, open_tokenizer,
};
pub use verify::verify_device;
