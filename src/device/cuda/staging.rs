//! Pinned memory in two halves: while one is copied to the GPU, the other is filled.

use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};

use crate::device::STAGING_BYTES;

/// [`STAGING_BYTES`] of pinned memory, and an event behind the last copy out of it.
struct Half {
    memory: *mut u8,
    copied: CudaEvent,
}

/// Lives as long as its context, which this process keeps.
pub(super) struct Staging {
    halves: [Half; 2],
    /// Which half is filled next.
    next: usize,
}

// SAFETY: pinned memory and events may be used from any thread, and this value alone owns them.
unsafe impl Send for Staging {}

impl Half {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let copied = context.new_event(None)?;
        // SAFETY: the context is current: `new_event` has bound it.
        let memory = unsafe { result::malloc_host(STAGING_BYTES as usize, 0) }?.cast::<u8>();
        // SAFETY: the memory has this many bytes and nobody else knows of it.
        unsafe { memory.write_bytes(0, STAGING_BYTES as usize) };
        Ok(Self { memory, copied })
    }
}

impl Staging {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Self { halves: [Half::new(context)?, Half::new(context)?], next: 0 })
    }

    /// The first `bytes` bytes (at most [`STAGING_BYTES`]) of the next half, once no copy reads them any more.
    pub(super) fn piece(&mut self, bytes: u64) -> Result<&mut [u8], DriverError> {
        let half = &self.halves[self.next];
        half.copied.synchronize()?;
        let bytes = bytes.min(STAGING_BYTES) as usize;
        // SAFETY: the half is initialised, that long, read by no copy any more, and borrowed with `self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(half.memory, bytes) })
    }

    /// Starts copying what [`Staging::piece`] gave to an address on the GPU, and goes on to the other half.
    ///
    /// # Safety
    /// `address` and the `bytes` behind it lie in an allocation that lives until the stream has come past the copy.
    pub(super) unsafe fn send(
        &mut self,
        address: u64,
        bytes: u64,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        let half = &self.halves[self.next];
        let bytes = bytes.min(STAGING_BYTES) as usize;
        // SAFETY: as in `piece`; nothing writes there before the event below has come.
        let piece = unsafe { std::slice::from_raw_parts(half.memory, bytes) };
        self.next = 1 - self.next;
        // SAFETY: the target is the caller's promise.
        let started = unsafe { result::memcpy_htod_async(address, piece, stream.cu_stream()) };
        started.and_then(|()| half.copied.record(stream))
    }
}
