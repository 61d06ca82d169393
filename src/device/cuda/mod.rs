//! NVIDIA GPUs, through the driver alone: no toolkit is needed at run time.
#![allow(unsafe_code)]

mod graph;
mod kernels;
mod launch;
mod open;
#[cfg(feature = "nvtx")]
mod ranges;
mod staging;

pub use graph::CudaGraph;
pub use open::{CudaFacts, CudaUnavailable};
#[cfg(feature = "nvtx")]
pub(crate) use ranges::TimeRange;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::NoUninit;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaStream, sys};

use super::{Device, DeviceError, Grid, Launch, MemoryInfo, Region, STAGING_BYTES, Transfers};
use open::{Context, describe};
use staging::{Staging, Timed};

/// A value behind a lock; a thread that panicked leaves it as sound as any other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A GPU and a queue of its own; clones share the queue. While one thread records, no other may use the same queue.
#[derive(Clone)]
pub struct CudaDevice(Arc<Queue>);

/// A stream of work on a GPU.
struct Queue {
    context: Arc<Context>,
    stream: Arc<CudaStream>,
    /// The kernel launched last.
    last: Mutex<Option<&'static str>>,
    /// Whether launches are recorded instead of run.
    recording: AtomicBool,
}

/// The failure that ended a context: nothing on the GPU can be used after it.
#[derive(Debug)]
struct Lost {
    /// The kernel launched last before it was noticed.
    kernel: Option<&'static str>,
    what: &'static str,
    cause: String,
}

impl std::fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaDevice({}, {})", self.0.context.name, self.0.context.facts.name)
    }
}

impl CudaDevice {
    /// The GPU of this number, with a queue of its own. The process makes one context a GPU, when first asked, and keeps
    /// it.
    ///
    /// # Errors
    /// No driver, no such GPU, one too old, or no kernels for it.
    pub fn new(ordinal: usize) -> Result<Self, CudaUnavailable> {
        let context = open::open(ordinal)?;
        let stream = context.cuda.new_stream();
        let stream = stream
            .map_err(|error| CudaUnavailable::Driver { what: "making a stream", cause: describe(error) })?;
        Ok(Self(Arc::new(Queue {
            context,
            stream,
            last: Mutex::new(None),
            recording: AtomicBool::new(false),
        })))
    }

    /// Whether [`CudaDevice::new`] would find the GPU and kernels; takes no memory of it.
    ///
    /// # Errors
    /// As for [`CudaDevice::new`].
    pub fn available(ordinal: usize) -> Result<(), CudaUnavailable> {
        open::find(ordinal).map(drop)
    }

    /// The kernels in this build.
    pub fn kernel_names() -> impl Iterator<Item = &'static str> {
        kernels::MODULES.iter().flat_map(|module| module.kernels.iter().copied())
    }

    /// What the GPU is.
    pub fn facts(&self) -> &CudaFacts {
        &self.0.context.facts
    }
}

/// Errors after which nothing in the context works any more.
fn is_fatal(error: DriverError) -> bool {
    use sys::CUresult as Is;
    matches!(
        error.0,
        Is::CUDA_ERROR_ILLEGAL_ADDRESS
            | Is::CUDA_ERROR_LAUNCH_TIMEOUT
            | Is::CUDA_ERROR_LAUNCH_FAILED
            | Is::CUDA_ERROR_ASSERT
            | Is::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Is::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Is::CUDA_ERROR_MISALIGNED_ADDRESS
            | Is::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Is::CUDA_ERROR_INVALID_PC
            | Is::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | Is::CUDA_ERROR_ECC_UNCORRECTABLE
            | Is::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | Is::CUDA_ERROR_CONTAINED
            | Is::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Is::CUDA_ERROR_DEINITIALIZED
            | Is::CUDA_ERROR_EXTERNAL_DEVICE
            | Is::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | Is::CUDA_ERROR_UNKNOWN
    )
}

impl Queue {
    fn device(&self) -> String {
        self.context.name.clone()
    }

    fn lost(&self, lost: &Lost) -> DeviceError {
        let (device, cause, fatal) = (self.device(), lost.cause.clone(), true);
        match lost.kernel {
            Some(kernel) => DeviceError::Kernel { device, kernel, cause, fatal },
            None => DeviceError::Driver { device, what: lost.what, cause, fatal },
        }
    }

    /// What the driver's error means. Kernels run on after their launch, so a fatal one may be any earlier kernel's.
    fn failed(&self, what: &'static str, error: DriverError) -> DeviceError {
        if !is_fatal(error) {
            return DeviceError::Driver { device: self.device(), what, cause: describe(error), fatal: false };
        }
        let lost = self.context.lost.get_or_init(|| {
            let kernel = *lock(&self.last);
            let hint = if self.context.synchronous || kernel.is_none() {
                ""
            } else {
                " (noticed after this launch; WORKER_ORCD_SYNC=1 finds the kernel)"
            };
            Lost { kernel, what, cause: format!("{}{hint}", describe(error)) }
        });
        self.lost(lost)
    }

    /// Makes the context this thread's; refuses one that is lost.
    fn ready(&self) -> Result<(), DeviceError> {
        match self.context.lost.get() {
            Some(lost) => Err(self.lost(lost)),
            None => {
                self.context.cuda.bind_to_thread().map_err(|error| self.failed("entering the context", error))
            }
        }
    }

    /// As [`Queue::ready`], for what a recording cannot hold.
    fn ready_to_run(&self, what: &'static str) -> Result<(), DeviceError> {
        self.ready()?;
        if self.recording.load(Ordering::SeqCst) {
            let cause = "a recording holds launches alone".to_owned();
            return Err(DeviceError::Driver { device: self.device(), what, cause, fatal: false });
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream.cu_stream()) }
            .map_err(|error| self.failed("waiting for the GPU", error))
    }

    /// Brings `total` bytes to the GPU in pieces of at most `piece` bytes: `read(offset, bytes)` delivers one,
    /// `place(index, offset)` is the address where it goes, `arrived(address, offset, length)` queues work on it.
    /// Of that, what `timed` says is timed.
    ///
    /// # Safety
    /// Every piece lies in an allocation of this queue: it waits for the queue before it is freed.
    unsafe fn copy_in<E: From<DeviceError>>(
        &self,
        total: u64,
        piece: u64,
        timed: Option<Timed>,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        place: impl Fn(usize, u64) -> u64,
        mut arrived: impl FnMut(u64, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        const WHAT: &str = "copying to the GPU";
        self.ready_to_run(WHAT)?;
        let failed = |error| self.failed(WHAT, error);
        let mut staging = lock(&self.context.staging);
        let staging = match &mut *staging {
            Some(staging) => staging,
            none => none.insert(Staging::new(&self.context.cuda, self.context.facts.driver).map_err(failed)?),
        };
        for (index, offset) in (0..total).step_by(piece.max(1) as usize).enumerate() {
            let bytes = staging.piece(piece.min(total - offset)).map_err(failed)?;
            let (address, length) = (place(index, offset), bytes.len() as u64);
            read(offset, bytes)?;
            if timed.is_some() {
                staging.begin_time(&self.stream).map_err(failed)?;
            }
            // SAFETY: the caller vouches for every place.
            unsafe { staging.send(address, length, &self.stream) }.map_err(failed)?;
            arrived(address, offset, length)?;
            if let Some(timed) = timed {
                staging.end_time(length, timed, &self.stream).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// An owned piece of a GPU's memory.
pub struct CudaAllocation {
    address: sys::CUdeviceptr,
    queue: Arc<Queue>,
}

impl Drop for CudaAllocation {
    fn drop(&mut self) {
        // A lost context has taken its memory along. Otherwise copies and kernels may still be at work there.
        if self.queue.ready().and_then(|()| self.queue.synchronize()).is_ok() {
            // SAFETY: the address came from `malloc_sync` and is freed once, here, with nothing queued that uses it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl Device for CudaDevice {
    type Allocation = CudaAllocation;

    fn name(&self) -> String {
        self.0.device()
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>, DeviceError> {
        self.0.ready()?;
        let (free, total) =
            result::mem_get_info().map_err(|error| self.0.failed("asking for free memory", error))?;
        Ok(Some(MemoryInfo { available: free as u64, total: total as u64 }))
    }

    fn allocate(&self, bytes: u64) -> Result<CudaAllocation, DeviceError> {
        let queue = &self.0;
        queue.ready_to_run("allocating")?;
        // SAFETY: the memory is zeroed below, before anyone has it.
        let allocated = unsafe { result::malloc_sync(bytes.max(1) as usize) };
        let address = match allocated {
            Ok(address) => address,
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let available = self.memory_info()?.map_or(0, |memory| memory.available);
                return Err(DeviceError::OutOfMemory { device: self.name(), requested: bytes, available });
            }
            Err(error) => return Err(queue.failed("allocating", error)),
        };
        let allocation = CudaAllocation { address, queue: Arc::clone(queue) };
        // SAFETY: the allocation has that many bytes; all that uses it comes later in the same stream.
        unsafe { result::memset_d8_async(address, 0, bytes as usize, queue.stream.cu_stream()) }
            .map_err(|error| queue.failed("zeroing memory", error))?;
        Ok(allocation)
    }

    fn address(&self, allocation: &CudaAllocation) -> u64 {
        allocation.address
    }

    fn upload(&self, bytes: &[u8], into: &mut Region<Self>, offset: u64) -> Result<(), DeviceError> {
        into.check(offset, bytes.len() as u64)?;
        let copy = |at: u64, piece: &mut [u8]| {
            piece.copy_from_slice(&bytes[at as usize..][..piece.len()]);
            Ok(())
        };
        let (total, place) = (bytes.len() as u64, |_, at| into.address() + offset + at);
        // SAFETY: the bytes lie in the region.
        unsafe { into.allocation().queue.copy_in(total, STAGING_BYTES, None, copy, place, |_, _, _| Ok(())) }
    }

    fn fill<E: From<DeviceError>>(
        &self,
        into: &mut Region<Self>,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (total, place, timed) = (into.bytes(), |_, at| into.address() + at, Some(Timed::Copy));
        let queue = &into.allocation().queue;
        // SAFETY: the bytes are the whole region.
        unsafe { queue.copy_in(total, STAGING_BYTES, timed, read, place, |_, _, _| Ok(())) }
    }

    fn stream<E: From<DeviceError>>(
        &self,
        staging: &mut Region<Self>,
        total: u64,
        piece: u64,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        arrived: impl FnMut(u64, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let half = (staging.bytes() / 2).min(STAGING_BYTES);
        if piece > half {
            return Err(DeviceError::CopyOutOfRange { offset: 0, bytes: piece, region: half }.into());
        }
        // A half is overwritten after the work on its last piece: copies and launches stand in one queue.
        let place = |index: usize, _| staging.address() + half * (index as u64 % 2);
        let timed = Some(Timed::CopyAndWork);
        // SAFETY: a piece fits each half of the region.
        unsafe { staging.allocation().queue.copy_in(total, piece, timed, read, place, arrived) }
    }

    /// Those of all queues of the GPU: they share the pinned memory.
    fn take_transfers(&self) -> Result<Transfers, DeviceError> {
        self.0.ready()?;
        let mut staging = lock(&self.0.context.staging);
        let transfers = staging.as_mut().map_or(Ok(Transfers::default()), Staging::take_transfers);
        transfers.map_err(|error| self.0.failed("timing copies", error))
    }

    fn download(&self, from: &Region<Self>, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        const WHAT: &str = "copying from the GPU";
        from.check(offset, into.len() as u64)?;
        let queue = &from.allocation().queue;
        queue.ready_to_run(WHAT)?;
        // SAFETY: the bytes lie in the region; `into` outlives the wait below.
        unsafe { result::memcpy_dtoh_async(into, from.address() + offset, queue.stream.cu_stream()) }
            .map_err(|error| queue.failed(WHAT, error))?;
        queue.synchronize()
    }
}

impl Launch for CudaDevice {
    type Graph = CudaGraph;

    fn multiprocessors(&self) -> usize {
        (self.0.context.facts.multiprocessors as usize).max(1)
    }

    fn has_warpgroups(&self) -> bool {
        self.0.context.has_warpgroups
    }

    fn launch<P: NoUninit>(&self, kernel: &'static str, grid: Grid, params: &P) -> Result<(), DeviceError> {
        let queue = &self.0;
        queue.ready()?;
        let refused =
            |cause: String| DeviceError::Kernel { device: self.name(), kernel, cause, fatal: false };
        let function = queue.context.kernels.get(kernel);
        let function = function.ok_or_else(|| refused("there is no such kernel in this build".to_owned()))?;
        let (may_overlap, stream) = (queue.context.may_overlap, queue.stream.cu_stream());
        // SAFETY: a kernel's one parameter is a struct laid out as `P`. What the addresses in it point to is the caller's:
        // `ops::kernel` takes them from regions that it has borrowed.
        let launched = unsafe { function.launch(grid, params, may_overlap, stream) };
        if let Err(error) = launched {
            if is_fatal(error) {
                return Err(queue.failed("launching a kernel", error));
            }
            return Err(refused(format!("{} with {grid:?}", describe(error))));
        }
        *lock(&queue.last) = Some(kernel);
        if queue.context.synchronous { queue.synchronize() } else { Ok(()) }
    }

    fn record<E: From<DeviceError>>(
        &self,
        record: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<CudaGraph>, E> {
        // Launches that are waited for one by one cannot be recorded.
        if self.0.context.synchronous {
            return Ok(None);
        }
        graph::record(self, record).map(Some)
    }

    fn replay(&self, graph: &CudaGraph) -> Result<(), DeviceError> {
        let queue = &self.0;
        queue.ready()?;
        graph.launch(queue.stream.cu_stream()).map_err(|error| queue.failed("running a recording", error))
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.0.ready_to_run("waiting for the GPU")?;
        self.0.synchronize()
    }
}
