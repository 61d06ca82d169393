//! Recorded launches.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::{CudaDevice, lock};
use crate::device::DeviceError;

/// Launches that the driver runs at one call.
pub struct CudaGraph {
    /// The driver wants calls on one graph one after the other.
    exec: Mutex<Exec>,
    device: CudaDevice,
}

struct Exec(sys::CUgraphExec);

// SAFETY: the handle may be used from any thread, one at a time.
unsafe impl Send for Exec {}

impl std::fmt::Debug for CudaGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaGraph on {:?}", self.device)
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        let exec = lock(&self.exec);
        // A lost context has taken its graphs along.
        if self.device.0.ready().is_ok() {
            // SAFETY: the handle came from `instantiate` and is destroyed once, here.
            let _ = unsafe { result::graph::exec_destroy(exec.0) };
        }
    }
}

impl CudaGraph {
    /// Queues the recorded launches.
    pub(super) fn launch(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        let exec = lock(&self.exec);
        // SAFETY: the graph lives as long as `self`, the stream as long as the device that passes it.
        unsafe { result::graph::launch(exec.0, stream) }
    }
}

/// A stream while it records; ends the recording however it is left.
struct Capture<'a> {
    device: &'a CudaDevice,
}

impl<'a> Capture<'a> {
    fn begin(device: &'a CudaDevice) -> Result<Self, DeviceError> {
        let queue = &device.0;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        queue.ready()?;
        // SAFETY: the stream lives as long as the device.
        unsafe { result::stream::begin_capture(queue.stream.cu_stream(), mode) }
            .map_err(|error| queue.failed("beginning to record", error))?;
        queue.recording.store(true, Ordering::SeqCst);
        Ok(Self { device })
    }

    /// Ends the recording with what was recorded.
    fn end(self) -> Result<Graph, DriverError> {
        let graph = self.stop();
        std::mem::forget(self);
        graph
    }

    fn stop(&self) -> Result<Graph, DriverError> {
        let queue = &self.device.0;
        queue.recording.store(false, Ordering::SeqCst);
        // SAFETY: the stream lives as long as the device.
        unsafe { result::stream::end_capture(queue.stream.cu_stream()) }.map(Graph)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // What was recorded until something else failed is of no use.
        drop(self.stop());
    }
}

/// A recording that the driver has not prepared to run.
struct Graph(sys::CUgraph);

impl Graph {
    fn instantiate(&self) -> Result<sys::CUgraphExec, DriverError> {
        // SAFETY: the graph is whole: the recording has ended.
        unsafe { result::graph::instantiate(self.0, sys::CUgraphInstantiate_flags(0)) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the handle came from `end_capture` and is destroyed once, here.
            let _ = unsafe { result::graph::destroy(self.0) };
        }
    }
}

/// Records what `record` launches.
pub(super) fn record<E: From<DeviceError>>(
    device: &CudaDevice,
    mut record: impl FnMut() -> Result<(), E>,
) -> Result<CudaGraph, E> {
    let capture = Capture::begin(device)?;
    record()?;
    let exec = capture.end().and_then(|graph| graph.instantiate());
    let exec = exec.map_err(|error| device.0.failed("recording", error))?;
    Ok(CudaGraph { exec: Mutex::new(Exec(exec)), device: device.clone() })
}
