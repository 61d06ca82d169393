//! Pinned memory in two halves: while one is copied to the GPU, the other is filled.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, sys};

use crate::device::{STAGING_BYTES, Transfers};

/// What of a piece's way is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timed {
    /// The copy.
    Copy,
    /// The copy, and what is queued behind it.
    CopyAndWork,
}

/// [`STAGING_BYTES`] of pinned memory, and events around the last copy out of it.
struct Half {
    memory: *mut u8,
    /// Before the copy.
    begun: CudaEvent,
    /// Behind it.
    copied: CudaEvent,
    /// Behind the work on what it brought.
    worked: CudaEvent,
    /// Bytes of the copy, where all three events are queued and its time is not yet counted.
    timed: Option<(u64, Timed)>,
}

/// Lives as long as its context, which this process keeps.
pub(super) struct Staging {
    halves: [Half; 2],
    /// Which half is filled next.
    next: usize,
    /// What the timed copies took so far, by the GPU's clock.
    transfers: Transfers,
}

// SAFETY: pinned memory and events may be used from any thread, and this value alone owns them.
unsafe impl Send for Staging {}

impl Half {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let event = || context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        let (begun, copied, worked) = (event()?, event()?, event()?);
        // SAFETY: the context is current: `new_event` has bound it.
        let memory = unsafe { result::malloc_host(STAGING_BYTES as usize, 0) }?.cast::<u8>();
        // SAFETY: the memory has this many bytes and nobody else knows of it.
        unsafe { memory.write_bytes(0, STAGING_BYTES as usize) };
        Ok(Self { memory, begun, copied, worked, timed: None })
    }

    /// The time of the last copy and of the work behind it, where it is still to be counted; waits for both.
    fn take_transfers(&mut self) -> Result<Transfers, DriverError> {
        let Some((copied_bytes, timed)) = self.timed.take() else { return Ok(Transfers::default()) };
        self.worked.synchronize()?;
        let time = |from: &CudaEvent, to: &CudaEvent| {
            let milliseconds = f64::from(from.elapsed_ms(to)?).max(0.0);
            Ok::<_, DriverError>(Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default())
        };
        let copy = time(&self.begun, &self.copied)?;
        let (worked_bytes, work) = match timed {
            Timed::Copy => (0, Duration::ZERO),
            Timed::CopyAndWork => (copied_bytes, time(&self.copied, &self.worked)?),
        };
        Ok(Transfers { copied_bytes, copy, worked_bytes, work })
    }
}

impl Staging {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let halves = [Half::new(context)?, Half::new(context)?];
        Ok(Self { halves, next: 0, transfers: Transfers::default() })
    }

    /// What the timed copies took since the last call; waits for those under way.
    pub(super) fn take_transfers(&mut self) -> Result<Transfers, DriverError> {
        for half in &mut self.halves {
            self.transfers += half.take_transfers()?;
        }
        Ok(std::mem::take(&mut self.transfers))
    }

    /// The first `bytes` bytes (at most [`STAGING_BYTES`]) of the next half, once no copy reads them any more.
    pub(super) fn piece(&mut self, bytes: u64) -> Result<&mut [u8], DriverError> {
        let half = &mut self.halves[self.next];
        self.transfers += half.take_transfers()?;
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

    /// Begins the time of what [`Staging::send`] will send next.
    pub(super) fn begin_time(&self, stream: &CudaStream) -> Result<(), DriverError> {
        self.halves[self.next].begun.record(stream)
    }

    /// Ends the time of the `bytes` bytes that [`Staging::send`] sent last, the work on them being queued.
    pub(super) fn end_time(
        &mut self,
        bytes: u64,
        timed: Timed,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        let half = &mut self.halves[1 - self.next];
        half.worked.record(stream)?;
        half.timed = Some((bytes, timed));
        Ok(())
    }
}
