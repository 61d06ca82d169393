//! A device without memory or kernels: models of any size load onto it, and only bytes are counted.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use worker_orcd::device::{Device, DeviceError, Grid, Launch, MemoryInfo, Region};
use worker_orcd::gguf::Gguf;
use worker_orcd::model::{ModelConfig, Slot, schema};
use worker_orcd::synth::{Mix, layout};

/// Memory without bytes behind it, and launches that run nothing.
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
    fn fill<E: From<DeviceError>>(
        &self,
        _: &mut Region<Self>,
        _: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        Ok(())
    }
    fn stream<E: From<DeviceError>>(
        &self,
        _: &mut Region<Self>,
        _: u64,
        _: u64,
        _: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        _: impl FnMut(u64, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        Ok(())
    }
    fn upload(&self, _: &[u8], _: &mut Region<Self>, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
    fn download(&self, _: &Region<Self>, _: u64, _: &mut [u8]) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl Launch for CountingDevice {
    type Graph = Infallible;

    fn multiprocessors(&self) -> usize {
        1
    }
    fn launch<P>(&self, _: &'static str, _: Grid, _: &P) -> Result<(), DeviceError> {
        Ok(())
    }
    fn record<E: From<DeviceError>>(
        &self,
        _: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Infallible>, E> {
        Ok(None)
    }
    fn replay(&self, graph: &Infallible) -> Result<(), DeviceError> {
        match *graph {}
    }
    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A model file of full size whose weights are a hole in the file; only rotary factors, which may not be zero, are
/// written.
pub fn hollow(config: &ModelConfig, mix: Mix, path: &Path) -> Gguf {
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
