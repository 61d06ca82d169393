//! What there is to say of a file.

use serde_json::Value;

use crate::gguf::MetadataArray;
use crate::inference::{InferError, Model};
use crate::memory::MemoryPlan;
use crate::model::{ModelConfig, RopeFactors, RopePairing};

use crate::cli::args::LoadArgs;
use crate::cli::output::number;
use crate::cli::source::ModelFile;

pub(super) struct Facts {
    pub file: ModelFile,
    /// The configuration, or why there is none.
    pub config: Result<ModelConfig, InferError>,
    /// The memory it needs, or why that cannot be said.
    pub memory: Result<Memory, InferError>,
}

pub(super) struct Memory {
    pub device: String,
    pub plan: MemoryPlan,
    pub kv_bytes_per_token: u64,
    pub weight_bytes_per_token: u64,
    /// What the device has now; `None` where the system does not tell.
    pub available_bytes: Option<u64>,
    /// What a GPU's driver took for itself, which no plan holds; `None` where there is no driver.
    pub driver_bytes: Option<u64>,
    /// What the user allows; `None` for all there is.
    pub limit_bytes: Option<u64>,
    /// The largest context that fits, up to the model's own; `None` where none does.
    pub largest_context: Option<usize>,
}

impl Facts {
    pub(super) fn gather(file: ModelFile, load: &LoadArgs) -> Self {
        let config = file.config();
        let memory = file.config().and_then(|config| Memory::of(&file, &config, load));
        Self { file, config, memory }
    }
}

impl Memory {
    fn of(file: &ModelFile, config: &ModelConfig, load: &LoadArgs) -> Result<Self, InferError> {
        let options = load.options(load.context(config.context_length));
        Ok(Self {
            device: options.device.resolved_name()?,
            plan: Model::plan(&file.gguf, &file.path, &options)?,
            kv_bytes_per_token: MemoryPlan::kv_bytes_per_token(config, options.kv_format),
            weight_bytes_per_token: file.weight_bytes(config)?.per_token(),
            available_bytes: options.device.available_bytes()?,
            driver_bytes: options.device.context_bytes()?,
            limit_bytes: options.limit_bytes,
            largest_context: Model::largest_context(&file.gguf, &file.path, &options)?,
        })
    }

    /// Whether the plan is within what the device has and the user allows.
    pub(super) fn fits(&self) -> bool {
        let most = [self.available_bytes, self.limit_bytes].into_iter().flatten().min();
        most.is_none_or(|most| self.plan.total_bytes <= most)
    }
}

/// Every field of a configuration, by name.
pub(super) fn config_fields(config: &ModelConfig) -> Vec<(&'static str, Value)> {
    let rope = &config.rope;
    let (factors, original_context) = match rope.factors {
        RopeFactors::None => ("none", Value::Null),
        RopeFactors::Single => ("single", Value::Null),
        RopeFactors::ShortLong { original_context } => ("short_long", original_context.into()),
    };
    let pairing = match rope.pairing {
        RopePairing::Interleaved => "interleaved",
        RopePairing::Halves => "halves",
    };
    vec![
        ("architecture", config.architecture.name().into()),
        ("name", config.name.as_str().into()),
        ("n_parameters", config.n_parameters().into()),
        ("vocab_size", config.vocab_size.into()),
        ("hidden_dim", config.hidden_dim.into()),
        ("num_layers", config.num_layers.into()),
        ("num_q_heads", config.num_q_heads.into()),
        ("num_kv_heads", config.num_kv_heads.into()),
        ("head_dim", config.head_dim.into()),
        ("ffn_dim", config.ffn_dim.into()),
        ("context_length", config.context_length.into()),
        ("rms_norm_eps", number(config.rms_norm_eps)),
        ("rope_theta", number(rope.theta)),
        ("rope_rotated_dims", rope.rotated_dims.into()),
        ("rope_pairing", pairing.into()),
        ("rope_factors", factors.into()),
        ("rope_original_context", original_context),
        ("rope_attention_factor", number(rope.attention_factor)),
        ("tied_output", config.tied_output.into()),
        ("fused_qkv", config.fused_qkv.into()),
        ("fused_gate_up", config.fused_gate_up.into()),
        ("qkv_bias", config.qkv_bias.into()),
        ("qk_norm", config.qk_norm.into()),
    ]
}

/// The first elements of an array, at most `most`, and how many there are of which type.
pub(super) fn elements(array: &MetadataArray, most: usize) -> (Vec<Value>, usize, &'static str) {
    macro_rules! take {
        ($($variant:ident $name:literal $value:expr;)*) => {
            match array {
                $(MetadataArray::$variant(all) => {
                    (all.iter().take(most).map($value).collect(), all.len(), $name)
                })*
            }
        };
    }
    take! {
        U8 "u8" |&v| v.into();
        I8 "i8" |&v| v.into();
        U16 "u16" |&v| v.into();
        I16 "i16" |&v| v.into();
        U32 "u32" |&v| v.into();
        I32 "i32" |&v| v.into();
        U64 "u64" |&v| v.into();
        I64 "i64" |&v| v.into();
        F32 "f32" |&v| number(v);
        F64 "f64" |&v| v.into();
        Bool "bool" |&v| v.into();
        String "string" |v| v.as_str().into();
    }
}
