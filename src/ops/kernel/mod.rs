//! The operations as launches of the kernels in `kernels/`, on any device that has them.

mod attention;
mod choice;
#[cfg(feature = "lab")]
pub mod lab;
mod matmul;
mod names;
pub(crate) mod params;
#[cfg(all(test, feature = "emulator"))]
mod tests;
mod workspace;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::device::{DeviceError, Grid, Launch, Region, STAGING_BYTES};
use crate::model::ModelConfig;

use super::{
    CacheLayer, HeadNorms, HeadShape, Layout, Matrix, MatrixShape, Norm, Ops, OpsError, Pass, PassLimits,
    Projection, RotaryTable, Rows, expect, expect_room,
};

use choice::Filters;
use matmul::{Epilogue, Next, Order};
use names::{STRIP_ROWS, kernels, layout};
use params::{EmbedParams, ReadParams, RepackParams};
pub use workspace::Workspace;
use workspace::{DECODE_ROWS, PlanesInUse};

/// What a recording of a pass depends on beside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PassShape {
    n_rows: usize,
    n_splits: usize,
    n_logits: usize,
    choices: Option<Filters>,
}

/// The operations on a device with kernels.
#[derive(Debug)]
pub struct KernelOps<D: Launch> {
    device: D,
    /// Passes recorded so far; `None` where they are not to be.
    recordings: Option<Mutex<HashMap<PassShape, Recording<D>>>>,
}

/// A recorded pass, and what it leaves in the workspace.
#[derive(Debug)]
struct Recording<D: Launch> {
    graph: D::Graph,
    in_use: PlanesInUse,
}

impl<D: Launch> KernelOps<D> {
    /// Operations on a device; a pass of a few rows is recorded once for each shape, where the device can.
    pub fn new(device: D) -> Self {
        Self { device, recordings: Some(Mutex::default()) }
    }
    /// The same, with every kernel launched one by one.
    pub fn without_recording(device: D) -> Self {
        Self { device, recordings: None }
    }
    /// Bytes of private scratch memory that passes within `limits` need on any device.
    pub fn workspace_bytes_of(config: &ModelConfig, limits: PassLimits) -> u64 {
        workspace::bytes(config, limits)
    }
    /// Bytes through which weights go on their way into tiles.
    pub const STAGING_BYTES: u64 = 2 * STAGING_BYTES;

    /// Runs a recorded pass, recording it first where there is none of its shape; `false` where the device cannot.
    fn replay<E: From<DeviceError>>(
        &self,
        shape: PassShape,
        workspace: &mut Workspace<D>,
        mut launches: impl FnMut(&mut Workspace<D>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(recordings) = &self.recordings else { return Ok(false) };
        let mut recordings = recordings.lock().unwrap_or_else(PoisonError::into_inner);
        let recording = match recordings.entry(shape) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let Some(graph) = self.device.record(|| launches(workspace))? else { return Ok(false) };
                new.insert(Recording { graph, in_use: workspace.in_use() })
            }
        };
        self.device.replay(&recording.graph)?;
        workspace.set_in_use(recording.in_use);
        Ok(true)
    }
}

impl<D: Launch> Ops for KernelOps<D> {
    type Device = D;
    type Workspace = Workspace<D>;

    fn device(&self) -> &D {
        &self.device
    }

    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64 {
        Self::workspace_bytes_of(config, limits)
    }

    fn staging_bytes(&self) -> u64 {
        Self::STAGING_BYTES
    }

    fn workspace(
        &self,
        config: &ModelConfig,
        limits: PassLimits,
        region: Region<D>,
    ) -> Result<Workspace<D>, OpsError> {
        if config.head_dim > attention::MOST_HEAD_DIM || !config.head_dim.is_multiple_of(8) {
            return Err(OpsError::Shape {
                operation: "attend",
                operand: "head_dim",
                found: config.head_dim,
                expected: config.head_dim.next_multiple_of(8).min(attention::MOST_HEAD_DIM),
            });
        }
        if config.vocab_size > choice::MOST_LOGITS {
            let (found, expected) = (config.vocab_size, choice::MOST_LOGITS);
            return Err(OpsError::Shape { operation: "choose", operand: "vocabulary", found, expected });
        }
        Ok(Workspace::new(config, limits, region)?)
    }

    fn load_matrix<E: From<OpsError> + From<DeviceError>>(
        &self,
        shape: MatrixShape,
        mut into: Region<D>,
        staging: &mut Region<D>,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Matrix<D>, E> {
        let strip_bytes = into.bytes() / (shape.n_rows / STRIP_ROWS).max(1) as u64;
        let strips_in_piece = staging.bytes() / 2 / strip_bytes.max(1);
        let layout = if strips_in_piece == 0 { Layout::Blocks } else { layout(shape) };
        match (&kernels(shape.format).tiles, layout) {
            (Some(tiles), Layout::Tiles) => {
                let (device, total, address) = (&self.device, into.bytes(), into.address());
                let piece = strips_in_piece * strip_bytes;
                device.stream(staging, total, piece, read, |staged, offset, length| {
                    let n_strips = (length / strip_bytes) as u32;
                    let params = RepackParams {
                        from: staged,
                        into: address + offset,
                        n_rows: n_strips * STRIP_ROWS as u32,
                        n_columns: shape.n_cols as u32,
                    };
                    let blocks = [n_strips, (shape.n_cols / tiles.columns) as u32, 1];
                    device.launch(tiles.repack, Grid { blocks, threads: 128, shared_bytes: 0 }, &params)?;
                    Ok(())
                })?;
            }
            _ => self.device.fill(&mut into, read)?,
        }
        Ok(Matrix { shape, layout, blocks: into.typed() })
    }

    fn run<E: From<OpsError> + From<DeviceError>>(
        &self,
        pass: &Pass<'_>,
        rotary: &RotaryTable<D>,
        workspace: &mut Workspace<D>,
        mut operations: impl FnMut(&mut Workspace<D>) -> Result<(), E>,
    ) -> Result<(), E> {
        if pass.n_rows() > workspace.rows() {
            let (found, expected) = (pass.n_rows(), workspace.rows());
            return Err(OpsError::Shape { operation: "run", operand: "rows", found, expected }.into());
        }
        workspace.begin(pass)?;
        let shape = PassShape {
            n_rows: pass.n_rows(),
            n_splits: workspace.n_splits(),
            n_logits: pass.n_logits,
            choices: Filters::of(pass.choices),
        };
        let mut launches = |workspace: &mut Workspace<D>| {
            attention::angles(&self.device, pass.n_rows(), rotary, workspace)?;
            operations(workspace)
        };
        if shape.n_rows <= DECODE_ROWS && self.replay(shape, workspace, &mut launches)? {
            return Ok(());
        }
        launches(workspace)
    }

    fn synchronize(&self) -> Result<(), OpsError> {
        Ok(self.device.synchronize()?)
    }

    fn read_all(&self, region: &Region<D>, workspace: &mut Workspace<D>) -> Result<(), OpsError> {
        let n_vectors = region.bytes() / 16;
        let into = workspace.choice_scratch();
        let params = ReadParams { from: region.address(), into, n_vectors };
        let blocks = n_vectors.div_ceil(4 * 256).clamp(1, 8192) as u32;
        let grid = Grid { blocks: [blocks, 1, 1], threads: 256, shared_bytes: 0 };
        Ok(self.device.launch("read", grid, &params)?)
    }

    fn choose(
        &self,
        pass: &Pass<'_>,
        logits: &mut Rows<D>,
        workspace: &mut Workspace<D>,
    ) -> Result<(), OpsError> {
        expect("choose", "choices", pass.choices.len(), pass.n_logits)?;
        expect("choose", "choices of the pass", pass.choices.len(), workspace.n_choices())?;
        expect_room("choose", logits, pass.n_logits)?;
        let (found, expected) =
            (workspace.choice_bytes(), choice::scratch_bytes(pass.n_logits, logits.width));
        if found < expected {
            return Err(OpsError::Shape {
                operation: "choose",
                operand: "bytes of workspace",
                found,
                expected,
            });
        }
        Ok(choice::choose(&self.device, pass, logits, workspace)?)
    }

    fn chosen(&self, n: usize, workspace: &Workspace<D>) -> Result<Vec<Option<u32>>, OpsError> {
        expect("chosen", "choices", n, workspace.n_choices())?;
        Ok(workspace.chosen()?.into_iter().map(choice::token).collect())
    }

    fn embed(
        &self,
        pass: &Pass<'_>,
        table: &Matrix<D>,
        workspace: &mut Workspace<D>,
        x: &mut Rows<D>,
    ) -> Result<(), OpsError> {
        let MatrixShape { format, n_cols, .. } = table.shape;
        expect("embed", "hidden size", x.width, n_cols)?;
        expect_room("embed", x, pass.n_rows())?;
        let params = EmbedParams {
            tables: workspace.tables(),
            table: table.blocks.address(),
            x: x.values.address(),
            n_rows: pass.n_rows() as u32,
            n_columns: n_cols as u32,
            stride: x.stride() as u32,
            unused: 0,
        };
        let kernels = kernels(format);
        let kernel = match (&kernels.tiles, table.layout) {
            (Some(tiles), Layout::Tiles) => tiles.embed,
            _ => kernels.embed,
        };
        let grid = Grid { blocks: [pass.n_rows() as u32, 1, 1], threads: 256, shared_bytes: 0 };
        workspace.forget_prepared();
        Ok(self.device.launch(kernel, grid, &params)?)
    }

    fn norm_project(
        &self,
        x: &Rows<D>,
        rows: Range<usize>,
        norm: &Norm<D>,
        projection: &Projection<D>,
        workspace: &mut Workspace<D>,
        out: &mut Rows<D>,
    ) -> Result<(), OpsError> {
        expect("norm_project", "inputs", x.width, projection.n_cols())?;
        expect("norm_project", "outputs", out.width, projection.n_rows())?;
        expect_room("norm_project", x, rows.end)?;
        expect_room("norm_project", out, rows.len())?;
        let order = Order::of(&self.device, projection, rows.len());
        let input = matmul::input(&self.device, x, rows, Some(norm), order, workspace)?;
        Ok(matmul::project(&self.device, input, projection, Epilogue::Store, None, workspace, out)?)
    }

    fn rotate_and_append(
        &self,
        pass: &Pass<'_>,
        qkv: &mut Rows<D>,
        heads: HeadShape,
        qk_norm: Option<HeadNorms<'_, D>>,
        rotary: &RotaryTable<D>,
        workspace: &mut Workspace<D>,
        cache: &mut CacheLayer<D>,
    ) -> Result<(), OpsError> {
        expect("rotate_and_append", "width", qkv.width, heads.q_dim() + 2 * heads.kv_dim())?;
        expect_room("rotate_and_append", qkv, pass.n_rows())?;
        let n_rows = pass.n_rows();
        Ok(attention::rotate(&self.device, n_rows, qkv, heads, qk_norm, rotary, workspace, cache)?)
    }

    fn attend(
        &self,
        pass: &Pass<'_>,
        qkv: &Rows<D>,
        heads: HeadShape,
        cache: &CacheLayer<D>,
        workspace: &mut Workspace<D>,
        out: &mut Rows<D>,
    ) -> Result<(), OpsError> {
        expect("attend", "outputs", out.width, heads.q_dim())?;
        expect_room("attend", out, pass.n_rows())?;
        Ok(attention::attend(&self.device, pass.n_rows(), qkv, heads, cache, workspace, out)?)
    }

    fn project(
        &self,
        a: &Rows<D>,
        n_rows: usize,
        projection: &Projection<D>,
        next_norm: Option<&Norm<D>>,
        workspace: &mut Workspace<D>,
        x: &mut Rows<D>,
    ) -> Result<(), OpsError> {
        expect("project", "inputs", a.width, projection.n_cols())?;
        expect("project", "outputs", x.width, projection.n_rows())?;
        expect_room("project", a, n_rows)?;
        expect_room("project", x, n_rows)?;
        let order = Order::of(&self.device, projection, n_rows);
        let input = matmul::input(&self.device, a, 0..n_rows, None, order, workspace)?;
        let next = next_norm.map(|norm| Next::new(Some(norm)));
        Ok(matmul::project(&self.device, input, projection, Epilogue::Add, next, workspace, x)?)
    }

    fn norm_gate_up(
        &self,
        x: &Rows<D>,
        n_rows: usize,
        norm: &Norm<D>,
        gate_up: &Projection<D>,
        workspace: &mut Workspace<D>,
        h: &mut Rows<D>,
    ) -> Result<(), OpsError> {
        expect("norm_gate_up", "inputs", x.width, gate_up.n_cols())?;
        expect("norm_gate_up", "outputs", 2 * h.width, gate_up.n_rows())?;
        expect_room("norm_gate_up", x, n_rows)?;
        expect_room("norm_gate_up", h, n_rows)?;
        let order = Order::of(&self.device, gate_up, n_rows);
        let input = matmul::input(&self.device, x, 0..n_rows, Some(norm), order, workspace)?;
        matmul::gate_up(&self.device, input, gate_up, Some(Next::new::<D>(None)), workspace, h)
    }
}
