//! Operations with one fault: for tests that must see it.

use std::ops::Range;

use worker_orcd::device::{DeviceError, Region};
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::{
    CacheLayer, HeadNorms, HeadShape, Matrix, MatrixShape, Norm, Ops, OpsError, Pass, PassLimits, Projection,
    RotaryTable, Rows,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// One bit of a matrix, once it is loaded.
    Weight,
    /// One result of this operation is not written.
    Embed,
    NormProject,
    NormGateUp,
    Attend,
    /// One result of this operation is a little off.
    Project,
    /// A head of q is turned, and then turned a little more.
    Rotate,
    /// A key lands in the wrong place.
    Append,
    /// The token after the most likely one is chosen.
    Choose,
}

/// Operations of which one is at fault.
#[derive(Debug)]
pub struct Broken<O> {
    pub ops: O,
    pub fault: Fault,
}

impl<O: Ops> Broken<O> {
    /// Changes the last value of a row, if this is the fault.
    fn spoil(
        &self,
        fault: Fault,
        rows: &mut Rows<O::Device>,
        change: impl Fn(f32) -> f32,
    ) -> Result<(), OpsError> {
        if self.fault == fault {
            let mut value = [0.0];
            let at = rows.width - 1;
            rows.values.download(at, &mut value)?;
            rows.values.upload(&[change(value[0])], at)?;
        }
        Ok(())
    }
}

const UNWRITTEN: f32 = f32::NAN;

impl<O: Ops> Ops for Broken<O> {
    type Device = O::Device;
    type Workspace = O::Workspace;

    fn device(&self) -> &O::Device {
        self.ops.device()
    }
    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64 {
        self.ops.workspace_bytes(config, limits)
    }
    fn staging_bytes(&self) -> u64 {
        self.ops.staging_bytes()
    }
    fn workspace(
        &self,
        config: &ModelConfig,
        limits: PassLimits,
        region: Region<O::Device>,
    ) -> Result<O::Workspace, OpsError> {
        self.ops.workspace(config, limits, region)
    }
    fn load_matrix<E: From<OpsError> + From<DeviceError>>(
        &self,
        shape: MatrixShape,
        into: Region<O::Device>,
        staging: &mut Region<O::Device>,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Matrix<O::Device>, E> {
        let mut matrix = self.ops.load_matrix(shape, into, staging, read)?;
        if self.fault == Fault::Weight {
            let mut byte = [0];
            let at = matrix.blocks.len() / 2;
            matrix.blocks.download(at, &mut byte)?;
            matrix.blocks.upload(&[byte[0] ^ 0x40], at)?;
        }
        Ok(matrix)
    }
    fn run<E: From<OpsError> + From<DeviceError>>(
        &self,
        pass: &Pass<'_>,
        rotary: &RotaryTable<O::Device>,
        workspace: &mut O::Workspace,
        operations: impl FnMut(&mut O::Workspace) -> Result<(), E>,
    ) -> Result<(), E> {
        self.ops.run(pass, rotary, workspace, operations)
    }
    fn read_all(&self, region: &Region<O::Device>, workspace: &mut O::Workspace) -> Result<(), OpsError> {
        self.ops.read_all(region, workspace)
    }
    fn choose(
        &self,
        pass: &Pass<'_>,
        logits: &mut Rows<O::Device>,
        workspace: &mut O::Workspace,
    ) -> Result<(), OpsError> {
        self.ops.choose(pass, logits, workspace)
    }
    fn chosen(&self, n: usize, workspace: &O::Workspace) -> Result<Vec<Option<u32>>, OpsError> {
        let mut chosen = self.ops.chosen(n, workspace)?;
        if self.fault == Fault::Choose {
            chosen[0] = chosen[0].map(|token| token + 1);
        }
        Ok(chosen)
    }
    fn embed(
        &self,
        pass: &Pass<'_>,
        table: &Matrix<O::Device>,
        workspace: &mut O::Workspace,
        x: &mut Rows<O::Device>,
    ) -> Result<(), OpsError> {
        self.ops.embed(pass, table, workspace, x)?;
        self.spoil(Fault::Embed, x, |_| UNWRITTEN)
    }
    fn norm_project(
        &self,
        x: &Rows<O::Device>,
        rows: Range<usize>,
        norm: &Norm<O::Device>,
        projection: &Projection<O::Device>,
        workspace: &mut O::Workspace,
        out: &mut Rows<O::Device>,
    ) -> Result<(), OpsError> {
        self.ops.norm_project(x, rows, norm, projection, workspace, out)?;
        self.spoil(Fault::NormProject, out, |_| UNWRITTEN)
    }
    fn rotate_and_append(
        &self,
        pass: &Pass<'_>,
        qkv: &mut Rows<O::Device>,
        heads: HeadShape,
        qk_norm: Option<HeadNorms<'_, O::Device>>,
        rotary: &RotaryTable<O::Device>,
        workspace: &mut O::Workspace,
        cache: &mut CacheLayer<O::Device>,
    ) -> Result<(), OpsError> {
        self.ops.rotate_and_append(pass, qkv, heads, qk_norm, rotary, workspace, cache)?;
        if self.fault == Fault::Rotate {
            let mut pair = [0.0; 2];
            qkv.values.download(0, &mut pair)?;
            let (sin, cos) = 0.01_f32.sin_cos();
            qkv.values.upload(&[pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos], 0)?;
        }
        if self.fault == Fault::Append {
            let mut bytes = vec![0; cache.keys.len()];
            cache.keys.download(0, &mut bytes)?;
            bytes.rotate_right(heads.head_dim * cache.format.block_bytes());
            cache.keys.upload(&bytes, 0)?;
        }
        Ok(())
    }
    fn attend(
        &self,
        pass: &Pass<'_>,
        qkv: &Rows<O::Device>,
        heads: HeadShape,
        cache: &CacheLayer<O::Device>,
        workspace: &mut O::Workspace,
        out: &mut Rows<O::Device>,
    ) -> Result<(), OpsError> {
        self.ops.attend(pass, qkv, heads, cache, workspace, out)?;
        self.spoil(Fault::Attend, out, |_| UNWRITTEN)
    }
    fn project(
        &self,
        a: &Rows<O::Device>,
        n_rows: usize,
        projection: &Projection<O::Device>,
        next_norm: Option<&Norm<O::Device>>,
        workspace: &mut O::Workspace,
        x: &mut Rows<O::Device>,
    ) -> Result<(), OpsError> {
        self.ops.project(a, n_rows, projection, next_norm, workspace, x)?;
        self.spoil(Fault::Project, x, |value| value + 0.1)
    }
    fn norm_gate_up(
        &self,
        x: &Rows<O::Device>,
        n_rows: usize,
        norm: &Norm<O::Device>,
        gate_up: &Projection<O::Device>,
        workspace: &mut O::Workspace,
        h: &mut Rows<O::Device>,
    ) -> Result<(), OpsError> {
        self.ops.norm_gate_up(x, n_rows, norm, gate_up, workspace, h)?;
        self.spoil(Fault::NormGateUp, h, |_| UNWRITTEN)
    }
}
