//! Memory and launching, knowing no operation: allocate, upload, download, ask what there is, start a kernel.
//!
//! [`Region`] is an owned range of one allocation and can only be split, so two regions never overlap and a
//! `&mut` to one is exclusive. [`Buffer`] is a region read as elements of one type.

mod buffer;
pub mod cuda;
#[cfg(feature = "emulator")]
mod emulator;
mod host;
mod launch;

pub use buffer::{Buffer, Region, allocated_bytes, allocations_made};
pub use cuda::{CudaDevice, CudaUnavailable};
#[cfg(all(test, feature = "emulator"))]
pub(crate) use emulator::layouts;
#[cfg(feature = "emulator")]
pub use emulator::{EmulatorDevice, EmulatorOptions, kernel_names, launched_kernels};
pub use host::HostDevice;
pub use launch::{Grid, Launch};

use std::time::{Duration, Instant};

use thiserror::Error;

/// Every region starts at a multiple of this many bytes: a cache line pair, and what a 16-byte vector load or a
/// bulk copy on any GPU is content with.
pub const REGION_ALIGNMENT: u64 = 256;

/// The largest piece in which a file is read into a device's memory.
pub const STAGING_BYTES: u64 = 8 << 20;

/// What a device says of its memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that an allocation could have now.
    pub available: u64,
    /// Bytes that the device has.
    pub total: u64,
}

/// What can go wrong on a device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The device refused an allocation. Nothing was lost; the process can go on.
    #[error("{device} could not allocate {requested} bytes ({available} available)")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for.
        requested: u64,
        /// Bytes that the device said it had.
        available: u64,
    },
    /// A copy did not fit the region it names.
    #[error("a copy of {bytes} bytes at offset {offset} does not fit a region of {region} bytes")]
    CopyOutOfRange {
        /// First byte.
        offset: u64,
        /// Length of the copy.
        bytes: u64,
        /// Length of the region.
        region: u64,
    },
    /// A region was asked for more than it holds.
    #[error("{requested} bytes do not fit the {available} bytes left of an allocation")]
    RegionExhausted {
        /// Bytes asked for.
        requested: u64,
        /// Bytes left.
        available: u64,
    },
    /// A kernel could not be started or failed. After a failure while it ran, the device's memory is lost.
    #[error("kernel `{kernel}` on {device} failed: {cause}{}", if *.fatal { "; the device's context is lost, restart the process" } else { "" })]
    Kernel {
        /// The device's name.
        device: String,
        /// The kernel.
        kernel: &'static str,
        /// What the device said.
        cause: String,
        /// Whether the device's context is lost.
        fatal: bool,
    },
    /// The driver refused something that is not a kernel nor an allocation.
    #[error("{device} failed at {what}: {cause}{}", if *.fatal { "; the device's context is lost, restart the process" } else { "" })]
    Driver {
        /// The device's name.
        device: String,
        /// What was asked of it.
        what: &'static str,
        /// What the driver said.
        cause: String,
        /// Whether the device's context is lost.
        fatal: bool,
    },
}

/// What bringing pieces to a device took: by its own clock where it copies by itself, else by the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Copying them.
    pub copy: Duration,
    /// Bytes that were worked on after they arrived.
    pub worked_bytes: u64,
    /// Working on them.
    pub work: Duration,
}

impl std::ops::AddAssign for Transfers {
    fn add_assign(&mut self, more: Self) {
        self.copied_bytes += more.copied_bytes;
        self.copy += more.copy;
        self.worked_bytes += more.worked_bytes;
        self.work += more.work;
    }
}

/// A device's memory. An allocation is zeroed and lives until it is dropped.
pub trait Device: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// An owned piece of the device's memory.
    type Allocation: Send + Sync + 'static;
    /// The device as users name it, such as `cpu` or `cuda:0`.
    fn name(&self) -> String;
    /// What is there and what is free; `None` where the system does not tell.
    fn memory_info(&self) -> Result<Option<MemoryInfo>, DeviceError>;
    /// `bytes` zeroed bytes, aligned to [`REGION_ALIGNMENT`].
    fn allocate(&self, bytes: u64) -> Result<Self::Allocation, DeviceError>;
    /// The address of the allocation's first byte, as kernels see it.
    fn address(&self, allocation: &Self::Allocation) -> u64;
    /// Copies bytes into a region.
    fn upload(&self, bytes: &[u8], into: &mut Region<Self>, offset: u64) -> Result<(), DeviceError>;
    /// Fills a region with what `read(offset, bytes)` delivers piece by piece, in order; pieces are at most
    /// [`STAGING_BYTES`] long. A device whose memory the host can write has `read` write there directly.
    fn fill<E: From<DeviceError>>(
        &self,
        into: &mut Region<Self>,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut staging = vec![0; STAGING_BYTES.min(into.bytes()) as usize];
        let mut offset = 0;
        while offset < into.bytes() {
            let piece = &mut staging[..STAGING_BYTES.min(into.bytes() - offset) as usize];
            read(offset, piece)?;
            let (started, copied_bytes) = (Instant::now(), piece.len() as u64);
            into.upload(piece, offset)?;
            self.count(Transfers { copied_bytes, copy: started.elapsed(), ..Transfers::default() });
            offset += copied_bytes;
        }
        Ok(())
    }
    /// Brings `total` bytes to the device through `staging` in pieces of `piece` bytes (the last may be shorter):
    /// `read(offset, bytes)` delivers a piece, `arrived(address, offset, length)` queues work on it. Pieces take the two
    /// halves of `staging` in turn, so that a device may read one while it works on the other.
    fn stream<E: From<DeviceError>>(
        &self,
        staging: &mut Region<Self>,
        total: u64,
        piece: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        mut arrived: impl FnMut(u64, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = vec![0; piece.min(total) as usize];
        let half = staging.bytes() / 2;
        for (index, offset) in (0..total).step_by(piece.max(1) as usize).enumerate() {
            let bytes = &mut bytes[..piece.min(total - offset) as usize];
            let place = half * (index as u64 % 2);
            read(offset, bytes)?;
            let (started, length) = (Instant::now(), bytes.len() as u64);
            staging.upload(bytes, place)?;
            let copy = started.elapsed();
            arrived(staging.address() + place, offset, length)?;
            let work = started.elapsed() - copy;
            self.count(Transfers { copied_bytes: length, copy, worked_bytes: length, work });
        }
        Ok(())
    }
    /// Counts what [`Device::fill`] or [`Device::stream`] took; a device whose memory the host writes has nothing to
    /// count.
    fn count(&self, _: Transfers) {}
    /// What [`Device::fill`] and [`Device::stream`] took since the last call; waits for what is under way.
    fn take_transfers(&self) -> Result<Transfers, DeviceError> {
        Ok(Transfers::default())
    }
    /// Copies bytes out of a region.
    fn download(&self, from: &Region<Self>, offset: u64, into: &mut [u8]) -> Result<(), DeviceError>;
}
