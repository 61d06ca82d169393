//! The operations of a transformer: six a layer, one before, and after them logits and choices. They are the boundaries between a
//! GPU's kernels, and all that the forward pass knows of a device.

mod choice;
pub mod kernel;
pub mod profile;
pub mod reference;

mod operands;

pub use choice::{Choice, Penalties, Recent};
pub use operands::{
    CacheLayer, HeadNorms, HeadShape, Layout, Matrix, MatrixShape, Norm, PAGE_TOKENS, Pass, Projection,
    ProjectionPart, RotaryTable, Rows, Span, padded_width,
};

use thiserror::Error;

use crate::device::{Device, DeviceError, Region};
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

/// How products with weights are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// In singles, in an order of the device's own.
    #[default]
    Single,
    /// Activations in 16-bit fixed point, products of integers.
    FixedPoint,
}

impl Arithmetic {
    /// The name, for options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "f32",
            Self::FixedPoint => "fixed16",
        }
    }
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
/// rows in the pass, so a result does not depend on how a prompt was cut. Within a pass rows are changed by operations alone:
/// one may leave in the workspace what the next needs of them.
pub trait Ops: Send + Sync {
    /// Where the operands live.
    type Device: Device;
    /// Private scratch memory of the operations, divided once.
    type Workspace: std::fmt::Debug + Send + Sync;

    /// The device.
    fn device(&self) -> &Self::Device;

    /// Bytes of private scratch memory that passes within `limits` need.
    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64;

    /// Bytes on the device through which a file's weights go on their way into the operations' own layout.
    fn staging_bytes(&self) -> u64;

    /// Divides a region of [`Ops::workspace_bytes`] bytes.
    fn workspace(
        &self,
        config: &ModelConfig,
        limits: PassLimits,
        region: Region<Self::Device>,
    ) -> Result<Self::Workspace, OpsError>;

    /// Fills `into` with a matrix whose file bytes `read(offset, bytes)` delivers piece by piece, in order, and lays it
    /// out as the operations want it. The region is as long as the matrix is in the file; `staging` has
    /// [`Ops::staging_bytes`] bytes.
    fn load_matrix<E: From<OpsError> + From<DeviceError>>(
        &self,
        shape: MatrixShape,
        into: Region<Self::Device>,
        staging: &mut Region<Self::Device>,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Matrix<Self::Device>, E>;

    /// Runs `operations`, those of one pass from [`Ops::embed`] to its logits and choices where it has them; a device may
    /// record them and run the record when a pass of the same shape comes again.
    fn run<E: From<OpsError> + From<DeviceError>>(
        &self,
        pass: &Pass<'_>,
        rotary: &RotaryTable<Self::Device>,
        workspace: &mut Self::Workspace,
        operations: impl FnMut(&mut Self::Workspace) -> Result<(), E>,
    ) -> Result<(), E>;

    /// Waits until all operations so far have run.
    fn synchronize(&self) -> Result<(), OpsError> {
        Ok(())
    }

    /// The operations that follow belong to this layer, or come after the last; for those who watch.
    fn enter_layer(&self, _layer: Option<usize>) {}

    /// The operations since the last call, where they are timed.
    fn take_events(&self) -> Vec<profile::Event> {
        Vec::new()
    }

    /// Reads every byte of a region once, as fast as the device can: the measure of all that is bound by memory.
    fn read_all(
        &self,
        region: &Region<Self::Device>,
        workspace: &mut Self::Workspace,
    ) -> Result<(), OpsError>;

    /// Makes the pass's choices, each from its row of `logits`, of which the logits of recent tokens are changed. Belongs
    /// to the operations of a pass.
    fn choose(
        &self,
        pass: &Pass<'_>,
        logits: &mut Rows<Self::Device>,
        workspace: &mut Self::Workspace,
    ) -> Result<(), OpsError>;

    /// The tokens that the last pass chose, `n` of them; `None` for a row without a finite logit.
    fn chosen(&self, n: usize, workspace: &Self::Workspace) -> Result<Vec<Option<u32>>, OpsError>;

    /// `x[i] = table[tokens[i]]`; table `[vocabulary, hidden]`, x `[rows, hidden]`.
    fn embed(
        &self,
        pass: &Pass<'_>,
        table: &Matrix<Self::Device>,
        workspace: &mut Self::Workspace,
        x: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// `out[i] = projection · rms_norm(x[first + i]) + bias` for `n` rows from `first` on.
    fn norm_project(
        &self,
        x: &Rows<Self::Device>,
        rows: std::ops::Range<usize>,
        norm: &Norm<Self::Device>,
        projection: &Projection<Self::Device>,
        workspace: &mut Self::Workspace,
        out: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// Normalises (where there are norms) and turns the heads of q and k by their positions; q stays in `qkv`,
    /// k and v go into the cache. `qkv` is `[rows, q | k | v]`.
    #[expect(clippy::too_many_arguments, reason = "each is an operand")]
    fn rotate_and_append(
        &self,
        pass: &Pass<'_>,
        qkv: &mut Rows<Self::Device>,
        heads: HeadShape,
        qk_norm: Option<HeadNorms<'_, Self::Device>>,
        rotary: &RotaryTable<Self::Device>,
        workspace: &mut Self::Workspace,
        cache: &mut CacheLayer<Self::Device>,
    ) -> Result<(), OpsError>;

    /// Causal attention, `softmax(q · kᵀ / √head_dim) · v`, of each row to its own sequence's positions up to its
    /// own; query head h reads key head `h / (q_heads / kv_heads)`. `out` is `[rows, q_heads · head_dim]`.
    fn attend(
        &self,
        pass: &Pass<'_>,
        qkv: &Rows<Self::Device>,
        heads: HeadShape,
        cache: &CacheLayer<Self::Device>,
        workspace: &mut Self::Workspace,
        out: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// `x[i] += projection · a[i]`. `next_norm` is the norm through which the operation after this one reads these rows of x,
    /// where it does: what it will need can be made ready.
    fn project(
        &self,
        a: &Rows<Self::Device>,
        n_rows: usize,
        projection: &Projection<Self::Device>,
        next_norm: Option<&Norm<Self::Device>>,
        workspace: &mut Self::Workspace,
        x: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;

    /// `h[i] = silu(gate) · up` with `[gate | up] = gate_up · rms_norm(x[i])`.
    fn norm_gate_up(
        &self,
        x: &Rows<Self::Device>,
        n_rows: usize,
        norm: &Norm<Self::Device>,
        gate_up: &Projection<Self::Device>,
        workspace: &mut Self::Workspace,
        h: &mut Rows<Self::Device>,
    ) -> Result<(), OpsError>;
}

/// Refuses an operand of another size than the operation needs.
pub(crate) fn expect(
    operation: &'static str,
    operand: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), OpsError> {
    if found == expected { Ok(()) } else { Err(OpsError::Shape { operation, operand, found, expected }) }
}

/// Refuses fewer rows than the operation needs.
pub(crate) fn expect_room<D: Device>(
    operation: &'static str,
    rows: &Rows<D>,
    n_rows: usize,
) -> Result<(), OpsError> {
    let found = rows.capacity();
    if found >= n_rows {
        return Ok(());
    }
    Err(OpsError::Shape { operation, operand: "room for rows", found, expected: n_rows })
}
