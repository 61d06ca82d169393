//! The names under which the original documentation's programs find models: `models::phi3::Phi3Config` and its kin.
//!
//! ```no_run
//! use worker_orcd::models::{LlamaInferenceAdapter, AdapterForwardConfig, phi3::{Phi3Config, Phi3WeightLoader}};
//! use worker_orcd::tokenizer::{BPEEncoder, BPEDecoder};
//!
//! # fn main() -> Result<(), worker_orcd::InferError> {
//! let config  = Phi3Config::phi3_mini_4k();
//! let model   = Phi3WeightLoader::load_to_vram("phi-3-mini-4k.gguf", &config)?;
//! println!("{} layers, {} bytes", model.config.num_layers, model.total_vram_bytes);
//! let adapter = LlamaInferenceAdapter::new_phi3(model);
//! let encoder = BPEEncoder::from_gguf("phi-3-mini-4k.gguf")?;
//! let ids     = encoder.encode("Write a haiku about ocean waves")?;
//! let fwd     = AdapterForwardConfig {
//!     is_prefill: true, batch_size: 1, seq_len: ids.len(), cache_len: 0, temperature: 0.7, seed: 42,
//! };
//! let out     = adapter.generate(&ids, 30, &fwd)?;
//! let text    = BPEDecoder::from_gguf("phi-3-mini-4k.gguf")?.decode(&out)?;
//! println!("{text}");
//! # Ok(())
//! # }
//! ```

pub use crate::inference::{AdapterForwardConfig, LlamaInferenceAdapter, Model};

macro_rules! family {
    ($(#[$doc:meta])* $module:ident: $config:ident, $loader:ident, $model:ident, $weights:ident, $layer:ident) => {
        $(#[$doc])*
        pub mod $module {
            pub use crate::inference::$loader;
            /// The configuration; one type serves all families.
            pub type $config = crate::model::ModelConfig;
            /// A loaded model.
            pub type $model = crate::inference::Model;
            /// Where a loaded model's tensors lie.
            pub type $weights = crate::inference::DeviceTensors;
            /// Where a layer's tensors lie.
            pub type $layer = crate::inference::LayerTensors;
        }
    };
}

family! {
    /// Phi-3-mini, Phi-4, Phi-4-mini.
    phi3: Phi3Config, Phi3WeightLoader, Phi3Model, Phi3Weights, Phi3LayerWeights
}
family! {
    /// Llama 3.1, TinyLlama, SmolLM2.
    llama: LlamaConfig, LlamaWeightLoader, LlamaModel, LlamaWeights, LlamaLayerWeights
}
family! {
    /// Qwen2 and Qwen2.5.
    qwen2: Qwen2Config, Qwen2WeightLoader, Qwen2Model, Qwen2Weights, Qwen2LayerWeights
}
family! {
    /// Qwen3.
    qwen3: Qwen3Config, Qwen3WeightLoader, Qwen3Model, Qwen3Weights, Qwen3LayerWeights
}
