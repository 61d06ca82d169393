//! Operations that are timed one by one: where a pass spends its time, and how near each comes to the memory's speed.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::{DeviceError, Region};
use crate::model::ModelConfig;

use super::{
    CacheLayer, HeadNorms, HeadShape, Matrix, MatrixShape, Norm, Ops, OpsError, Pass, PassLimits, Projection,
    RotaryTable, Rows,
};

/// One operation that ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The operation, as [`Ops`] names it.
    pub operation: &'static str,
    /// The layer; `None` before the first and after the last.
    pub layer: Option<usize>,
    /// Rows of the pass.
    pub rows: usize,
    /// Bytes that it must read and write at least: weights, cache and activations, each once.
    pub bytes: u64,
    /// When it began, counted from the making of the wrapper.
    pub begin: Duration,
    /// How long it took, the device idle before and after.
    pub time: Duration,
}

#[derive(Debug)]
struct Record {
    events: Vec<Event>,
    layer: Option<usize>,
}

/// Operations that are timed one by one. Nothing is recorded for replay, and the device is waited for at both ends of
/// each operation: the sum is more than an untimed pass takes.
#[derive(Debug)]
pub struct Profiled<O> {
    inner: O,
    start: Instant,
    record: Mutex<Record>,
}

impl<O: Ops> Profiled<O> {
    /// Times the operations of `inner`.
    pub fn new(inner: O) -> Self {
        let record = Mutex::new(Record { events: Vec::new(), layer: None });
        Self { inner, start: Instant::now(), record }
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn timed<T>(
        &self,
        operation: &'static str,
        rows: usize,
        bytes: u64,
        run: impl FnOnce(&O) -> Result<T, OpsError>,
    ) -> Result<T, OpsError> {
        self.inner.synchronize()?;
        #[cfg(feature = "nvtx")]
        let _range = {
            let layer = self.lock().layer.map_or_else(String::new, |layer| format!(" of layer {layer}"));
            crate::device::cuda::TimeRange::begin(&format!("{operation}{layer}"))
        };
        let begin = self.start.elapsed();
        let result = run(&self.inner)?;
        self.inner.synchronize()?;
        let time = self.start.elapsed() - begin;
        let mut record = self.lock();
        let layer = record.layer;
        record.events.push(Event { operation, layer, rows, bytes, begin, time });
        Ok(result)
    }
}

fn weight_bytes<O: Ops>(projection: &Projection<O::Device>) -> u64 {
    projection.parts.iter().map(|part| part.matrix.blocks.region().bytes()).sum()
}

fn row_bytes(n_rows: usize, width: usize) -> u64 {
    4 * (n_rows * width) as u64
}

/// Bytes of keys and values that a pass's rows attend to; rows of a sequence share them.
fn cache_bytes<O: Ops>(pass: &Pass<'_>, heads: HeadShape, cache: &CacheLayer<O::Device>) -> u64 {
    let positions: usize = pass.spans.iter().map(|span| span.position + span.n_rows).sum();
    2 * (positions * heads.kv_dim() * cache.format.block_bytes()) as u64
}

impl<O: Ops> Ops for Profiled<O> {
    type Device = O::Device;
    type Workspace = O::Workspace;

    fn device(&self) -> &O::Device {
        self.inner.device()
    }
    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64 {
        self.inner.workspace_bytes(config, limits)
    }
    fn staging_bytes(&self) -> u64 {
        self.inner.staging_bytes()
    }
    fn workspace(
        &self,
        config: &ModelConfig,
        limits: PassLimits,
        region: Region<O::Device>,
    ) -> Result<O::Workspace, OpsError> {
        self.inner.workspace(config, limits, region)
    }
    fn load_matrix<E: From<OpsError> + From<DeviceError>>(
        &self,
        shape: MatrixShape,
        into: Region<O::Device>,
        staging: &mut Region<O::Device>,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Matrix<O::Device>, E> {
        self.inner.load_matrix(shape, into, staging, read)
    }
    fn run<E: From<OpsError> + From<DeviceError>>(
        &self,
        pass: &Pass<'_>,
        rotary: &RotaryTable<O::Device>,
        workspace: &mut O::Workspace,
        operations: impl FnMut(&mut O::Workspace) -> Result<(), E>,
    ) -> Result<(), E> {
        self.lock().layer = None;
        let result = self.inner.run(pass, rotary, workspace, operations);
        self.lock().layer = None;
        result
    }
    fn synchronize(&self) -> Result<(), OpsError> {
        self.inner.synchronize()
    }
    fn read_all(&self, region: &Region<O::Device>, workspace: &mut O::Workspace) -> Result<(), OpsError> {
        self.inner.read_all(region, workspace)
    }
    fn choose(
        &self,
        pass: &Pass<'_>,
        logits: &mut Rows<O::Device>,
        workspace: &mut O::Workspace,
    ) -> Result<(), OpsError> {
        let n_rows = pass.choices.len();
        let bytes = row_bytes(n_rows, logits.width);
        self.timed("choose", n_rows, bytes, |ops| ops.choose(pass, logits, workspace))
    }
    fn chosen(&self, n: usize, workspace: &O::Workspace) -> Result<Vec<Option<u32>>, OpsError> {
        self.inner.chosen(n, workspace)
    }
    fn embed(
        &self,
        pass: &Pass<'_>,
        table: &Matrix<O::Device>,
        workspace: &mut O::Workspace,
        x: &mut Rows<O::Device>,
    ) -> Result<(), OpsError> {
        let each = table.blocks.region().bytes() / table.shape.n_rows.max(1) as u64;
        let bytes = pass.n_rows() as u64 * each + row_bytes(pass.n_rows(), x.width);
        self.timed("embed", pass.n_rows(), bytes, |ops| ops.embed(pass, table, workspace, x))
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
        let n_rows = rows.len();
        let bytes = weight_bytes::<O>(projection) + row_bytes(n_rows, x.width + out.width);
        self.timed("norm_project", n_rows, bytes, |ops| {
            ops.norm_project(x, rows, norm, projection, workspace, out)
        })
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
        let appended = 2 * pass.n_rows() * heads.kv_dim() * cache.format.block_bytes();
        let bytes = row_bytes(pass.n_rows(), qkv.width + heads.q_dim()) + appended as u64;
        self.timed("rotate_and_append", pass.n_rows(), bytes, |ops| {
            ops.rotate_and_append(pass, qkv, heads, qk_norm, rotary, workspace, cache)
        })
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
        let bytes = cache_bytes::<O>(pass, heads, cache) + row_bytes(pass.n_rows(), 2 * heads.q_dim());
        self.timed("attend", pass.n_rows(), bytes, |ops| ops.attend(pass, qkv, heads, cache, workspace, out))
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
        let bytes = weight_bytes::<O>(projection) + row_bytes(n_rows, a.width + 2 * x.width);
        self.timed("project", n_rows, bytes, |ops| {
            ops.project(a, n_rows, projection, next_norm, workspace, x)
        })
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
        let bytes = weight_bytes::<O>(gate_up) + row_bytes(n_rows, x.width + h.width);
        self.timed("norm_gate_up", n_rows, bytes, |ops| {
            ops.norm_gate_up(x, n_rows, norm, gate_up, workspace, h)
        })
    }
    fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }
    fn enter_layer(&self, layer: Option<usize>) {
        self.lock().layer = layer;
        self.inner.enter_layer(layer);
    }
}
