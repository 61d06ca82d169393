//! A loaded kernel, and its start.

use std::ffi::{CString, c_void};

use bytemuck::NoUninit;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::device::Grid;

/// The virtual architecture from which on kernels are compiled with `griddepcontrol` (`kernels/include/platform.cuh`): what
/// is compiled for an earlier one does not wait for its inputs.
const LEAST_OVERLAPPING: i32 = 90;

/// A kernel of a module that is never unloaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    function: sys::CUfunction,
    /// Whether it may be started before the kernel before it has ended: it waits for its inputs itself.
    overlaps: bool,
}

// SAFETY: the handle is a number to the driver, whose functions may be called from any thread; its module is never unloaded.
unsafe impl Send for Kernel {}
// SAFETY: as above; nothing is written through it.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Finds a kernel and lets its launches ask for all shared memory that its own leaves of a block's.
    ///
    /// # Safety
    /// The module is loaded in the current context and stays so.
    pub(super) unsafe fn find(
        module: sys::CUmodule,
        name: &str,
        most_shared: i32,
    ) -> Result<Self, DriverError> {
        use sys::CUfunction_attribute_enum as Is;
        // The build script takes names from the source; none holds a zero byte.
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: the caller vouches for the module.
        let function = unsafe { result::module::get_function(module, symbol) }?;
        // SAFETY: the function was found above.
        let ask = |what| unsafe { result::function::get_function_attribute(function, what) };
        let (own, compiled_for) =
            (ask(Is::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?, ask(Is::CU_FUNC_ATTRIBUTE_PTX_VERSION)?);
        let most_dynamic = Is::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        unsafe { result::function::set_function_attribute(function, most_dynamic, most_shared - own) }?;
        Ok(Self { function, overlaps: compiled_for >= LEAST_OVERLAPPING })
    }

    /// Queues the kernel; with `may_overlap` it may start, up to where it waits for its inputs, while the one before it ends
    /// (CUDA's programmatic dependent launch).
    ///
    /// # Safety
    /// The kernel takes one parameter, a struct laid out as `P`; what the addresses in it point to lives until the kernel has
    /// run, and so does the stream.
    pub(super) unsafe fn launch<P: NoUninit>(
        self,
        grid: Grid,
        params: &P,
        may_overlap: bool,
        stream: sys::CUstream,
    ) -> Result<(), DriverError> {
        let [x, y, z] = grid.blocks;
        let mut arguments: [*mut c_void; 1] = [std::ptr::from_ref(params).cast_mut().cast()];
        if !(may_overlap && self.overlaps) {
            let (blocks, threads) = ((x, y, z), (grid.threads, 1, 1));
            let shared = grid.shared_bytes;
            // SAFETY: the driver copies the parameter before it returns; the caller vouches for the rest.
            return unsafe {
                result::launch_kernel(self.function, blocks, threads, shared, stream, &mut arguments)
            };
        }
        let mut overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: grid.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared_bytes,
            hStream: stream,
            attrs: &raw mut overlap,
            numAttrs: 1,
        };
        // SAFETY: as above; the configuration and its one attribute outlive the call.
        unsafe { sys::cuLaunchKernelEx(&config, self.function, arguments.as_mut_ptr(), std::ptr::null_mut()) }
            .result()
    }
}
