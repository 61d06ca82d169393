//! Starting kernels on a device that has them.

use bytemuck::NoUninit;

use super::{Device, DeviceError};

/// The geometry of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block; a multiple of 32.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// Whether `WORKER_ORCD_WGMMA=1` asks for the kernels with products of warpgroups, where there are any: they have not yet run
/// on a GPU.
pub(crate) fn wants_warpgroups() -> bool {
    std::env::var_os("WORKER_ORCD_WGMMA").is_some_and(|value| value == "1")
}

/// A device that runs the kernels of `kernels/`. Launches run in order, each after the one before and after the copies
/// before it; a copy out of the device waits for all of them.
pub trait Launch: Device {
    /// Launches recorded in order, to be run again at one call.
    type Graph: Send + Sync + std::fmt::Debug;

    /// How many multiprocessors run blocks side by side; at least 1.
    fn multiprocessors(&self) -> usize;

    /// Whether the kernels with products of warpgroups are to be used: the device has them, and `WORKER_ORCD_WGMMA=1` or who
    /// made the device asked for them.
    fn has_warpgroups(&self) -> bool {
        false
    }

    /// Starts a kernel, which takes one struct by value.
    ///
    /// # Errors
    /// There is no such kernel, the geometry is more than the device has, or an earlier kernel failed.
    fn launch<P: NoUninit>(&self, kernel: &'static str, grid: Grid, params: &P) -> Result<(), DeviceError>;

    /// Records what `record` launches instead of running it, and answers `None` where the device cannot; then nothing
    /// was called.
    ///
    /// # Errors
    /// What `record` answers, or what the device says of the recording.
    fn record<E: From<DeviceError>>(
        &self,
        record: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Self::Graph>, E>;

    /// Runs a recording.
    ///
    /// # Errors
    /// The device refused it, or an earlier kernel failed.
    fn replay(&self, graph: &Self::Graph) -> Result<(), DeviceError>;

    /// Waits until everything queued has run.
    ///
    /// # Errors
    /// A kernel failed.
    fn synchronize(&self) -> Result<(), DeviceError>;
}
