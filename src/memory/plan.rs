//! Every byte a model will use on a device, by purpose, from the file's header alone.

use thiserror::Error;

use crate::device::REGION_ALIGNMENT;
use crate::gguf::Gguf;
use crate::model::{ModelConfig, ModelError, RopeFactors, Slot, TensorKind, TensorSpec, schema};
use crate::ops::{PAGE_TOKENS, padded_width};
use crate::quant::Format;

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Weights in this format.
    Weights(Format),
    /// Keys and values of past tokens.
    KvCache,
    /// What flows between operations, and their scratch.
    Activations,
    /// One number for each token of the vocabulary.
    Logits,
    /// Where a file's weights pass on their way into the device's layout.
    Staging,
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Purpose::Weights(format) => write!(f, "weights {format}"),
            Purpose::KvCache => f.write_str("kv cache"),
            Purpose::Activations => f.write_str("activations"),
            Purpose::Logits => f.write_str("logits"),
            Purpose::Staging => f.write_str("staging"),
        }
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// Tokens of context that all sequences share.
    pub context: usize,
    /// Element type of the cache: [`Format::F32`] or [`Format::F16`].
    pub kv_format: Format,
    /// Rows of the largest pass.
    pub rows: usize,
    /// Rows of logits kept of one pass.
    pub logits_rows: usize,
    /// Scratch of the operations.
    pub workspace_bytes: u64,
    /// Where the operations lay weights out while they are loaded.
    pub staging_bytes: u64,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// What it is for.
    pub purpose: Purpose,
    /// Its name, by which the arena hands it out.
    pub name: String,
    /// Its length in bytes, before alignment.
    pub bytes: u64,
}

/// A plan that cannot be made or met.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The model is unsound.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The bytes do not fit 64 bits.
    #[error("the plan's size does not fit 64 bits at {what}; use a smaller context")]
    Overflow {
        /// The region whose size overflowed.
        what: String,
    },
    /// The cache cannot be kept in this format.
    #[error("a cache in {found} is not supported, use F16 or F32")]
    KvFormat {
        /// The format asked for.
        found: Format,
    },
    /// The plan is larger than it may be.
    #[error(
        "{what} needs {requested} bytes, {available} bytes are available{}",
        .largest_context.map_or_else(String::new, |context| format!("; a context of {context} tokens would fit"))
    )]
    DoesNotFit {
        /// The model.
        what: String,
        /// Bytes of the plan.
        requested: u64,
        /// Bytes that there are, or that the caller allows.
        available: u64,
        /// The largest context that would fit, where any would.
        largest_context: Option<usize>,
    },
}

/// Every byte a model will use on a device.
#[derive(Debug, Clone)]
pub struct MemoryPlan {
    /// The regions, in the order in which they lie.
    pub rows: Vec<PlanRow>,
    /// Bytes of the one allocation that holds them all, each aligned.
    pub total_bytes: u64,
    /// What the plan was made for.
    pub options: PlanOptions,
}

/// Names of the regions that are not tensors.
pub(crate) mod region {
    pub(crate) const ROTARY: &str = "rotary frequencies";
    pub(crate) const ROTARY_LONG: &str = "rotary frequencies, long";
    pub(crate) const X: &str = "residual stream";
    pub(crate) const QKV: &str = "q, k and v";
    pub(crate) const ATTENDED: &str = "attended";
    pub(crate) const HIDDEN: &str = "feed-forward";
    pub(crate) const WORKSPACE: &str = "workspace";
    pub(crate) const LOGITS: &str = "logits";
    pub(crate) const STAGING: &str = "staging";
    pub(crate) fn keys(layer: usize) -> String {
        format!("layer {layer} keys")
    }
    pub(crate) fn values(layer: usize) -> String {
        format!("layer {layer} values")
    }
}

impl MemoryPlan {
    /// The plan of a model file.
    pub fn from_gguf(config: &ModelConfig, gguf: &Gguf, options: PlanOptions) -> Result<Self, PlanError> {
        Self::new(config, options, |spec| {
            let tensor = spec.find(gguf)?;
            Ok(tensor.format)
        })
    }

    /// The plan of a model whose tensors have the formats that `format_of` answers.
    pub fn new(
        config: &ModelConfig,
        options: PlanOptions,
        format_of: impl Fn(&TensorSpec) -> Result<Format, ModelError>,
    ) -> Result<Self, PlanError> {
        if !matches!(options.kv_format, Format::F16 | Format::F32) {
            return Err(PlanError::KvFormat { found: options.kv_format });
        }
        let mut plan = Self { rows: Vec::new(), total_bytes: 0, options };
        for spec in schema(config) {
            let format = format_of(&spec)?;
            plan.add_tensor(&spec, format)?;
        }
        let half = config.rope.rotated_dims / 2;
        let weights = Purpose::Weights(Format::F32);
        plan.add(weights, region::ROTARY, &[half, 4])?;
        if matches!(config.rope.factors, RopeFactors::ShortLong { .. }) {
            plan.add(weights, region::ROTARY_LONG, &[half, 4])?;
        }
        let pages = options.context.div_ceil(PAGE_TOKENS);
        let element = options.kv_format.block_bytes();
        for layer in 0..config.num_layers {
            let dims = [pages, PAGE_TOKENS, config.kv_dim(), element];
            plan.add(Purpose::KvCache, region::keys(layer), &dims)?;
            plan.add(Purpose::KvCache, region::values(layer), &dims)?;
        }
        let activations = [
            (region::X, config.hidden_dim),
            (region::QKV, config.qkv_dim()),
            (region::ATTENDED, config.q_dim()),
            (region::HIDDEN, config.ffn_dim),
        ];
        for (name, width) in activations {
            plan.add(Purpose::Activations, name, &[options.rows, padded_width(width), 4])?;
        }
        let length = |bytes: u64, what: &str| {
            usize::try_from(bytes).map_err(|_| PlanError::Overflow { what: what.to_owned() })
        };
        let workspace = length(options.workspace_bytes, region::WORKSPACE)?;
        plan.add(Purpose::Activations, region::WORKSPACE, &[workspace])?;
        plan.add(Purpose::Staging, region::STAGING, &[length(options.staging_bytes, region::STAGING)?])?;
        let logits = [options.logits_rows, padded_width(config.vocab_size), 4];
        plan.add(Purpose::Logits, region::LOGITS, &logits)?;
        Ok(plan)
    }

    fn add_tensor(&mut self, spec: &TensorSpec, format: Format) -> Result<(), PlanError> {
        if matches!(spec.slot, Slot::RopeFrequencies | Slot::RopeFactorsShort | Slot::RopeFactorsLong) {
            return Ok(()); // they only make the rotary frequencies
        }
        match spec.kind {
            TensorKind::Vector => self.add(Purpose::Weights(Format::F32), &spec.name, &[spec.n_cols, 4]),
            TensorKind::Matrix => {
                let row_bytes =
                    format.row_bytes(spec.n_cols as u64).ok_or_else(|| ModelError::RowLength {
                        name: spec.name.clone(),
                        n_cols: spec.n_cols as u64,
                        format,
                        block: format.block_elements(),
                    })?;
                self.add(Purpose::Weights(format), &spec.name, &[spec.n_rows, row_bytes as usize])
            }
        }
    }

    fn add(&mut self, purpose: Purpose, name: impl Into<String>, dims: &[usize]) -> Result<(), PlanError> {
        let name = name.into();
        let bytes = dims.iter().try_fold(1_u64, |bytes, &dim| bytes.checked_mul(dim as u64));
        let end = bytes
            .and_then(|bytes| bytes.checked_next_multiple_of(REGION_ALIGNMENT))
            .and_then(|bytes| self.total_bytes.checked_add(bytes));
        let (Some(bytes), Some(end)) = (bytes, end) else {
            return Err(PlanError::Overflow { what: name });
        };
        self.total_bytes = end;
        self.rows.push(PlanRow { purpose, name, bytes });
        Ok(())
    }

    /// Bytes by purpose, aligned as they lie; they add up to `total_bytes`.
    pub fn summary(&self) -> Vec<(Purpose, u64)> {
        let mut sums = std::collections::BTreeMap::new();
        for row in &self.rows {
            *sums.entry(row.purpose).or_insert(0) += row.bytes.next_multiple_of(REGION_ALIGNMENT);
        }
        sums.into_iter().collect()
    }

    /// Bytes that one token of context costs.
    pub fn kv_bytes_per_token(config: &ModelConfig, kv_format: Format) -> u64 {
        2 * (config.num_layers * config.kv_dim() * kv_format.block_bytes()) as u64
    }

    /// Refuses a plan larger than `available` bytes, and says which context would fit.
    pub fn check_fits(&self, config: &ModelConfig, available: u64) -> Result<(), PlanError> {
        if self.total_bytes <= available {
            return Ok(());
        }
        let cache: u64 = self
            .summary()
            .iter()
            .filter(|(purpose, _)| *purpose == Purpose::KvCache)
            .map(|(_, bytes)| bytes)
            .sum();
        let fixed = self.total_bytes - cache;
        let page = Self::kv_bytes_per_token(config, self.options.kv_format) * PAGE_TOKENS as u64;
        let pages = available.checked_sub(fixed).map_or(0, |left| left / page.max(1)) as usize;
        Err(PlanError::DoesNotFit {
            what: format!("{} with a context of {} tokens", config.name, self.options.context),
            requested: self.total_bytes,
            available,
            largest_context: (pages > 0).then(|| pages * PAGE_TOKENS),
        })
    }
}
