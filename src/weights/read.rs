//! Reading tensors from the file: several positioned reads at once, in a fixed order of errors; and what each stage of
//! loading took.

use std::time::{Duration, Instant};

use rayon::ThreadPool;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use crate::device::Transfers;
use crate::gguf::{Gguf, TensorInfo};
use crate::ops::OpsError;

use super::LoadError;

/// Reads that are under way at once. A disk wants several, whatever the number of processors; and one processor copies
/// from the system's cache more slowly than a bus to a GPU goes.
const READERS: usize = 8;
/// What one of them reads; a piece of [`STAGING_BYTES`](crate::device::STAGING_BYTES) is one for each.
const PART_BYTES: usize = 1 << 20;

/// Bytes that went through a stage of loading, and the time it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stage {
    /// Bytes.
    pub bytes: u64,
    /// While at least one of them was on its way.
    pub time: Duration,
}

impl Stage {
    /// Bytes a second; `None` where nothing went through.
    pub fn bytes_per_second(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE))
    }
}

/// What loading took. Stages overlap where a device copies by itself: the next piece is read meanwhile, so they may add
/// up to more than the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadTimes {
    /// From the header to weights that can be used, planning and allocating included.
    pub total: Duration,
    /// From the file to memory that the host can write. On the processor that is where weights stay.
    pub read: Stage,
    /// From the host to the device, by the device's clock where it has one. Nothing on the processor.
    pub copy: Stage,
    /// From the file's layout to the operations' own, on the device.
    pub repack: Stage,
}

impl LoadTimes {
    pub(super) fn new(total: Duration, read: Stage, transfers: Transfers) -> Self {
        Self {
            total,
            read,
            copy: Stage { bytes: transfers.copied_bytes, time: transfers.copy },
            repack: Stage { bytes: transfers.worked_bytes, time: transfers.work },
        }
    }
    /// The stages by name, in the order that bytes take.
    pub fn stages(&self) -> [(&'static str, Stage); 3] {
        [("read", self.read), ("copy", self.copy), ("repack", self.repack)]
    }
}

/// Reads a file's tensors and tells how far it is.
pub(super) struct Reader<'a> {
    gguf: &'a Gguf,
    pool: ThreadPool,
    /// Told of the bytes read and of all.
    progress: &'a mut dyn FnMut(u64, u64),
    total_bytes: u64,
    /// What was read so far.
    pub(super) stage: Stage,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        gguf: &'a Gguf,
        total_bytes: u64,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self, LoadError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(READERS)
            .thread_name(|index| format!("reader-{index}"))
            .build()
            .map_err(|cause| OpsError::Threads { n_threads: READERS, cause: cause.to_string() })?;
        Ok(Self { gguf, pool, progress, total_bytes, stage: Stage::default() })
    }

    pub(super) fn gguf(&self) -> &'a Gguf {
        self.gguf
    }

    /// Fills `into` with a tensor's bytes from `offset` on. Where several reads fail, the error is that of the first in
    /// the file.
    pub(super) fn read(
        &mut self,
        tensor: &TensorInfo,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), LoadError> {
        let (started, n_bytes, gguf) = (Instant::now(), into.len() as u64, self.gguf);
        let part = |(index, part): (usize, &mut [u8])| {
            gguf.read_at(tensor, offset + (index * PART_BYTES) as u64, part).err()
        };
        let failed = if into.len() <= PART_BYTES {
            part((0, into))
        } else {
            self.pool.install(|| into.par_chunks_mut(PART_BYTES).enumerate().find_map_first(part))
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.stage.bytes += n_bytes;
        self.stage.time += started.elapsed();
        (self.progress)(self.stage.bytes, self.total_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::OpenOptions;
    use std::path::Path;

    use crate::gguf::{GgufError, GgufWriter, TensorFault};
    use crate::quant::Format;

    use super::*;

    const N_BYTES: usize = 5 * PART_BYTES + 1000;

    /// A file of one tensor of several parts.
    fn write(path: &Path) -> (Gguf, Vec<u8>) {
        let bytes: Vec<u8> = (0..N_BYTES).map(|at| (at / 251 + at) as u8).collect();
        let mut writer = GgufWriter::new();
        writer.add_tensor("wide", &[N_BYTES as u64 / 4], Format::F32).unwrap();
        writer.write_file(path, |_, _, sink| sink.write_all(&bytes)).unwrap();
        (Gguf::open(path).unwrap(), bytes)
    }

    #[test]
    fn parts_come_together_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (gguf, bytes) = write(&folder.path().join("model.gguf"));
        let tensor = gguf.tensor("wide").unwrap();
        let mut told = Vec::new();
        let mut progress = |done, total| told.push((done, total));
        let mut reader = Reader::new(&gguf, tensor.n_bytes, &mut progress).unwrap();
        let mut found = vec![0; N_BYTES];
        let (first, rest) = found.split_at_mut(777);
        reader.read(tensor, 0, first).unwrap();
        reader.read(tensor, 777, rest).unwrap();
        assert!(found == bytes, "the parts are not where they belong");
        assert_eq!(reader.stage.bytes, N_BYTES as u64);
        assert!(reader.stage.bytes_per_second().is_some_and(|rate| rate > 0.0));
        assert_eq!(told, [(777, N_BYTES as u64), (N_BYTES as u64, N_BYTES as u64)]);
    }

    #[test]
    fn a_file_that_shrinks_fails_at_the_first_part_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let (gguf, _) = write(&path);
        let tensor = gguf.tensor("wide").unwrap();
        let part = 2 * PART_BYTES as u64;
        let cut = tensor.file_offset() + part + 5;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let mut progress = |_, _| panic!("nothing was read");
        let mut reader = Reader::new(&gguf, tensor.n_bytes, &mut progress).unwrap();
        for _ in 0..20 {
            let error = reader.read(tensor, 0, &mut vec![0; N_BYTES]).unwrap_err();
            let LoadError::Gguf(error) = error else { panic!("{error}") };
            let GgufError::Tensor { fault, .. } = error.fault() else { panic!("{error}") };
            let offset = tensor.file_offset() + part;
            assert_eq!(*fault, TensorFault::Shrunk { offset, wanted: PART_BYTES as u64, available: 5 });
        }
        assert_eq!(reader.stage, Stage::default());
    }
}
