//! A device that only counts bytes and operations that only take their memory: models of any size load on it.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use worker_orcd::device::{Device, DeviceError, MemoryInfo, Region};
use worker_orcd::forward::OpsBytes;
use worker_orcd::gguf::Gguf;
use worker_orcd::model::{ModelConfig, Slot, schema};
use worker_orcd::ops::{
    CacheLayer, HeadNorms, HeadShape, Layout, Matrix, MatrixShape, Norm, Ops, OpsError, Pass, PassLimits,
    Projection, RotaryTable, Rows,
};
use worker_orcd::synth::{Mix, layout};

/// Memory without bytes behind it.
#[derive(Debug, Clone)]
pub struct CountingDevice;

impl Device for CountingDevice {
    type Allocation = ();
    fn name(&self) -> String {
        "counting".to_owned()
    }
    fn memory_info(&self) -> Result<Option<MemoryInfo>, DeviceError> {
        Ok(None)
    }
    fn allocate(&self, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
    fn address(&self, (): &()) -> u64 {
        0
    }
    fn upload(&self, _: &[u8], _: &mut Region<Self>, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
    fn download(&self, _: &Region<Self>, _: u64, _: &mut [u8]) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Operations that are loaded and never run.
#[derive(Debug)]
pub struct CountingOps {
    pub bytes: fn(&ModelConfig, PassLimits) -> OpsBytes,
}

type Done = Result<(), OpsError>;

impl Ops for CountingOps {
    type Device = CountingDevice;
    type Workspace = Region<CountingDevice>;

    fn device(&self) -> &CountingDevice {
        &CountingDevice
    }
    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64 {
        (self.bytes)(config, limits).workspace
    }
    fn staging_bytes(&self) -> u64 {
        (self.bytes)(&ModelConfig::phi3_mini_4k(), PassLimits { rows: 1, context: 1 }).staging
    }
    fn workspace(
        &self,
        _: &ModelConfig,
        _: PassLimits,
        region: Region<CountingDevice>,
    ) -> Result<Self::Workspace, OpsError> {
        Ok(region)
    }
    fn load_matrix<E: From<OpsError> + From<DeviceError>>(
        &self,
        shape: MatrixShape,
        into: Region<CountingDevice>,
        _: &mut Region<CountingDevice>,
        _: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Matrix<CountingDevice>, E> {
        Ok(Matrix { shape, layout: Layout::Blocks, blocks: into.typed() })
    }
    fn begin(&self, _: &Pass<'_>, _: &RotaryTable<CountingDevice>, _: &mut Self::Workspace) -> Done {
        unreachable!()
    }
    fn run<E: From<OpsError>>(
        &self,
        _: &Pass<'_>,
        _: &mut Self::Workspace,
        _: impl FnMut(&mut Self::Workspace) -> Result<(), E>,
    ) -> Result<(), E> {
        unreachable!()
    }
    fn embed(
        &self,
        _: &Pass<'_>,
        _: &Matrix<CountingDevice>,
        _: &mut Self::Workspace,
        _: &mut Rows<CountingDevice>,
    ) -> Done {
        unreachable!()
    }
    fn norm_project(
        &self,
        _: &Rows<CountingDevice>,
        _: Range<usize>,
        _: &Norm<CountingDevice>,
        _: &Projection<CountingDevice>,
        _: &mut Self::Workspace,
        _: &mut Rows<CountingDevice>,
    ) -> Done {
        unreachable!()
    }
    fn rotate_and_append(
        &self,
        _: &Pass<'_>,
        _: &mut Rows<CountingDevice>,
        _: HeadShape,
        _: Option<HeadNorms<'_, CountingDevice>>,
        _: &RotaryTable<CountingDevice>,
        _: &mut Self::Workspace,
        _: &mut CacheLayer<CountingDevice>,
    ) -> Done {
        unreachable!()
    }
    fn attend(
        &self,
        _: &Pass<'_>,
        _: &Rows<CountingDevice>,
        _: HeadShape,
        _: &CacheLayer<CountingDevice>,
        _: &mut Self::Workspace,
        _: &mut Rows<CountingDevice>,
    ) -> Done {
        unreachable!()
    }
    fn project(
        &self,
        _: &Rows<CountingDevice>,
        _: usize,
        _: &Projection<CountingDevice>,
        _: &mut Self::Workspace,
        _: &mut Rows<CountingDevice>,
    ) -> Done {
        unreachable!()
    }
    fn norm_gate_up(
        &self,
        _: &Rows<CountingDevice>,
        _: usize,
        _: &Norm<CountingDevice>,
        _: &Projection<CountingDevice>,
        _: &mut Self::Workspace,
        _: &mut Rows<CountingDevice>,
    ) -> Done {
        unreachable!()
    }
}

/// A model file of full size whose weights are a hole in the file; only rotary factors, which may not be zero, are
/// written.
pub fn hollow(config: &ModelConfig, mix: Mix, path: &Path) -> Gguf {
    use std::io::{Seek, SeekFrom};
    let layout = layout(config, mix).unwrap().layout().unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(&layout.header).unwrap();
    file.set_len(layout.file_bytes).unwrap();
    for (spec, tensor) in schema(config).iter().zip(&layout.tensors) {
        if matches!(spec.slot, Slot::RopeFrequencies | Slot::RopeFactorsShort | Slot::RopeFactorsLong) {
            file.seek(SeekFrom::Start(tensor.file_offset())).unwrap();
            file.write_all(&vec![1.0_f32.to_le_bytes(); spec.n_cols].concat()).unwrap();
        }
    }
    drop(file);
    Gguf::open(path).unwrap()
}
