//! The operations of a transformer: six a layer, one before and one after. They are the boundaries between a
//! GPU's kernels, and all that the forward pass knows of a device.

pub mod reference;

mod operands;

pub use operands::{
    CacheLayer, HeadNorms, HeadShape, Matrix, Norm, PAGE_TOKENS, Projection, ProjectionPart, RotaryTable,
    Rows, Span, padded_width,
};

use thiserror::Error;

use crate::device::{Buffer, Device, DeviceError};
use crate::model::ModelConfig;

/// What can go wrong in an operation.
#[derive(Debug, Error)]
pub enum OpsError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An operand does not fit the operation.
    #[error("{operation}: {operand} is {found}, expected {expected}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The operand or the dimension of it.
        operand: &'static str,
        /// What it is.
        found: usize,
        /// What the operation needs.
        expected: usize,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// The worker threads could not be started.
    #[error("{n_threads} worker threads could not be started: {cause}")]
    Threads {
        /// Threads asked for.
        n_threads: usize,
        /// What the system said.
        cause: String,
    },
}

/// The largest pass that an implementation is asked for; its workspace is sized by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassLimits {
    /// Rows (tokens) in one pass.
    pub rows: usize,
    /// Positions a sequence may reach.
    pub context: usize,
}

/// The vocabulary of the forward pass. Activations are f32 rows; every sum has one order, whatever the number of
/// rows in the pass, so a result does not depend on how a prompt was cut.
pub trait Ops: Send + Sync {
    /// Where the operands live.
    type Device: Device;

    /// The device.
    fn device(&self) -> &Self::Device;

    /// Bytes of private scratch memory that passes within `limits` need.
    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64;

    /// `x[i] = table[tokens[i]]`; table `[vocabulary, hidden]`, x `[rows, hidden]`.
    fn embed(
        &self,
        tokens: &[u32],
        table: &Matrix<Self::Device>,
        x: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// `out[i] = projection · rms_norm(x[first + i]) + bias` for `n` rows from `first` on.
    fn norm_project(
        &self,
        x: &Rows<Self::Device>,
        rows: std::ops::Range<usize>,
        norm: &Norm<Self::Device>,
        projection: &Projection<Self::Device>,
        workspace: &mut Buffer<Self::Device, f32>,
        out: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// Normalises (where there are norms) and turns the heads of q and k by their positions; q stays in `qkv`,
    /// k and v go into the cache. `qkv` is `[rows, q | k | v]`.
    fn rotate_and_append(
        &self,
        qkv: &mut Rows<Self::Device>,
        heads: HeadShape,
        qk_norm: Option<HeadNorms<'_, Self::Device>>,
        rotary: &RotaryTable<Self::Device>,
        spans: &[Span<'_>],
        cache: &mut CacheLayer<Self::Device>,
    ) -> Result<(), OpsError>;

    /// Causal attention, `softmax(q · kᵀ / √head_dim) · v`, of each row to its own sequence's positions up to its
    /// own; query head h reads key head `h / (q_heads / kv_heads)`. `out` is `[rows, q_heads · head_dim]`.
    fn attend(
        &self,
        qkv: &Rows<Self::Device>,
        heads: HeadShape,
        spans: &[Span<'_>],
        cache: &CacheLayer<Self::Device>,
        workspace: &mut Buffer<Self::Device, f32>,
        out: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// `x[i] += projection · a[i]`.
    fn project(
        &self,
        a: &Rows<Self::Device>,
        n_rows: usize,
        projection: &Projection<Self::Device>,
        workspace: &mut Buffer<Self::Device, f32>,
        x: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// `h[i] = silu(gate) · up` with `[gate | up] = gate_up · rms_norm(x[i])`.
    fn norm_gate_up(
        &self,
        x: &Rows<Self::Device>,
        n_rows: usize,
        norm: &Norm<Self::Device>,
        gate_up: &Projection<Self::Device>,
        workspace: &mut Buffer<Self::Device, f32>,
        h: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;
}
