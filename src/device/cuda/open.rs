//! From a GPU's number to its context with all kernels loaded, or the reason why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, sys};
use thiserror::Error;

use super::kernels::{COMPILER, MISSING, MODULES, Module};
use super::launch::Kernel;
use super::staging::Staging;
use super::{Lost, lock};
use crate::device::launch::wants_warpgroups;

/// The least compute capability that the kernels run on: Ampere.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);
/// The one that an image for sm_90a is for.
const SM90A: (i32, i32) = (9, 0);

/// Why a GPU cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CudaUnavailable {
    /// The library was built without kernels.
    #[error(
        "this build of worker-orcd has no CUDA kernels: {reason}; run scripts/install-nvcc and build again"
    )]
    NoKernels {
        /// Why.
        reason: &'static str,
    },
    /// There is no `libcuda`.
    #[error("the NVIDIA driver is not there: no libcuda on the library path; install the driver")]
    NoDriver,
    /// The driver knows no such GPU.
    #[error(
        "the NVIDIA driver sees {count} GPUs, none of number {ordinal}; see nvidia-smi and CUDA_VISIBLE_DEVICES"
    )]
    NoSuchGpu {
        /// The number asked for.
        ordinal: usize,
        /// GPUs there are.
        count: usize,
    },
    /// The GPU cannot run the kernels.
    #[error("{name} has compute capability {}.{}, the kernels need {}.{} or later", capability.0, capability.1, LEAST_CAPABILITY.0, LEAST_CAPABILITY.1)]
    TooOld {
        /// The GPU.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
    },
    /// The driver did not take the kernels.
    #[error("the driver (for CUDA {}.{}) does not take `{module}`, compiled with CUDA {COMPILER}, for {name} of compute capability {}.{}: {cause}; {cure}", driver.0, driver.1, capability.0, capability.1)]
    KernelsRefused {
        /// The GPU.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
        /// The release of CUDA that the driver is for.
        driver: (i32, i32),
        /// The file of kernels, or the kernel.
        module: &'static str,
        /// What the driver said.
        cause: String,
        /// What usually helps.
        cure: &'static str,
    },
    /// The driver failed otherwise.
    #[error("the NVIDIA driver failed at {what}: {cause}")]
    Driver {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        cause: String,
    },
}

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaFacts {
    /// The GPU's name, such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// The release of CUDA that the driver is for.
    pub driver: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// What the memory could deliver in bytes a second by its clock and width; 0 where the driver does not say.
    pub peak_bandwidth: u64,
    /// Bytes of memory.
    pub total_bytes: u64,
    /// Bytes that were not free once context and kernels were loaded and before anything was allocated: the driver's
    /// own on a GPU that no other program uses.
    pub context_bytes: u64,
}

/// What the driver said, by name and in words.
pub(super) fn describe(error: DriverError) -> String {
    let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
    format!("{:?}: {}", error.0, words.unwrap_or_else(|_| "an unknown error".to_owned()))
}

fn failed(what: &'static str) -> impl Fn(DriverError) -> CudaUnavailable {
    move |error| CudaUnavailable::Driver { what, cause: describe(error) }
}

/// A GPU as this process uses it: one context, all kernels. Made when first asked for and kept.
pub(super) struct Context {
    /// Such as `cuda:0`.
    pub name: String,
    pub cuda: Arc<CudaContext>,
    pub kernels: BTreeMap<&'static str, Kernel>,
    pub facts: CudaFacts,
    /// Pinned memory, made when first needed.
    pub staging: Mutex<Option<Staging>>,
    /// The failure that ended the context.
    pub lost: OnceLock<Lost>,
    /// Whether each launch is waited for, so that a failure names its kernel: `WORKER_ORCD_SYNC=1`.
    pub synchronous: bool,
    /// Whether a kernel may start while the one before it ends, where the GPU can: not with `WORKER_ORCD_OVERLAP=0`.
    pub may_overlap: bool,
    /// Whether the kernels of sm_90a were asked for, and are there.
    pub has_warpgroups: bool,
}

static CONTEXTS: Mutex<BTreeMap<usize, Arc<Context>>> = Mutex::new(BTreeMap::new());

/// Looks for a GPU that can run the kernels, without a context: takes none of its memory.
pub(super) fn find(ordinal: usize) -> Result<sys::CUdevice, CudaUnavailable> {
    if let Some(reason) = MISSING {
        return Err(CudaUnavailable::NoKernels { reason });
    }
    // SAFETY: loading the driver's library runs its initialisers, which ask nothing of the caller.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaUnavailable::NoDriver);
    }
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            return Err(CudaUnavailable::NoSuchGpu { ordinal, count: 0 });
        }
        other => other.map_err(failed("its initialisation"))?,
    }
    let count = result::device::get_count().map_err(failed("counting GPUs"))?.max(0) as usize;
    if ordinal >= count {
        return Err(CudaUnavailable::NoSuchGpu { ordinal, count });
    }
    let device = result::device::get(ordinal as i32).map_err(failed("finding the GPU"))?;
    let capability = capability(device)?;
    if capability < LEAST_CAPABILITY {
        return Err(CudaUnavailable::TooOld { name: name(device)?, capability });
    }
    Ok(device)
}

fn name(device: sys::CUdevice) -> Result<String, CudaUnavailable> {
    result::device::get_name(device).map_err(failed("asking the GPU's name"))
}

fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32, CudaUnavailable> {
    // SAFETY: the device comes from `cuDeviceGet`.
    unsafe { result::device::get_attribute(device, attribute) }.map_err(failed("asking for an attribute"))
}

fn capability(device: sys::CUdevice) -> Result<(i32, i32), CudaUnavailable> {
    use sys::CUdevice_attribute as Is;
    Ok((
        attribute(device, Is::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(device, Is::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ))
}

fn facts(device: sys::CUdevice) -> Result<CudaFacts, CudaUnavailable> {
    use sys::CUdevice_attribute as Is;
    let mut version = 0;
    // SAFETY: the driver writes one int there.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("asking its version"))?;
    let kilohertz = attribute(device, Is::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?.max(0) as u64;
    let bits = attribute(device, Is::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?.max(0) as u64;
    Ok(CudaFacts {
        name: name(device)?,
        capability: capability(device)?,
        driver: (version / 1000, version % 1000 / 10),
        multiprocessors: attribute(device, Is::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(0) as u32,
        // Two transfers a clock.
        peak_bandwidth: 2 * kilohertz * 1000 * bits / 8,
        total_bytes: 0,
        context_bytes: 0,
    })
}

/// The context of a GPU, made if this process has none yet.
pub(super) fn open(ordinal: usize) -> Result<Arc<Context>, CudaUnavailable> {
    let mut contexts = lock(&CONTEXTS);
    if let Some(context) = contexts.get(&ordinal) {
        return Ok(Arc::clone(context));
    }
    let device = find(ordinal)?;
    let mut facts = facts(device)?;
    let cuda = CudaContext::new(ordinal).map_err(failed("making a context"))?;
    let most_shared =
        attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let mut kernels = BTreeMap::new();
    for module in MODULES.iter().filter(|module| !module.kernels.is_empty()) {
        load(module, module.kernels, most_shared, &facts, &mut kernels)?;
    }
    let has_warpgroups = wants_warpgroups() && load_warpgroups(most_shared, &facts, &mut kernels);
    let (free, total) = cuda.mem_get_info().map_err(failed("asking for its free memory"))?;
    facts.total_bytes = total as u64;
    facts.context_bytes = (total - free.min(total)) as u64;
    let context = Arc::new(Context {
        name: format!("cuda:{ordinal}"),
        cuda,
        kernels,
        facts,
        staging: Mutex::new(None),
        lost: OnceLock::new(),
        synchronous: std::env::var_os("WORKER_ORCD_SYNC").is_some_and(|value| value == "1"),
        has_warpgroups,
        may_overlap: std::env::var_os("WORKER_ORCD_OVERLAP").is_none_or(|value| value != "0"),
    });
    contexts.insert(ordinal, Arc::clone(&context));
    Ok(context)
}

/// Loads a module into the current context, which keeps it, and finds kernels in it.
fn load(
    module: &Module,
    names: &[&'static str],
    most_shared: i32,
    facts: &CudaFacts,
    kernels: &mut BTreeMap<&'static str, Kernel>,
) -> Result<(), CudaUnavailable> {
    let refused = |module: &'static str| {
        move |error: DriverError| CudaUnavailable::KernelsRefused {
            name: facts.name.clone(),
            capability: facts.capability,
            driver: facts.driver,
            module,
            cause: describe(error),
            cure: cure(error),
        }
    };
    // SAFETY: the image is a complete fatbin, aligned to 16 bytes, and a context is current.
    let handle =
        unsafe { result::module::load_data(module.image.as_ptr().cast()) }.map_err(refused(module.name))?;
    for &kernel in names {
        // SAFETY: the module was loaded above and stays.
        let found = unsafe { Kernel::find(handle, kernel, most_shared) }.map_err(refused(kernel))?;
        kernels.insert(kernel, found);
    }
    Ok(())
}

/// Loads the kernels of sm_90a; `false` where the GPU is another, or the build has left them out.
fn load_warpgroups(
    most_shared: i32,
    facts: &CudaFacts,
    kernels: &mut BTreeMap<&'static str, Kernel>,
) -> bool {
    let mut modules = MODULES.iter().filter(|module| !module.kernels_of_sm90a.is_empty());
    let mut load = |module: &Module| load(module, module.kernels_of_sm90a, most_shared, facts, kernels);
    let are_there = facts.capability == SM90A && modules.all(|module| load(module).is_ok());
    if !are_there {
        tracing::warn!("WORKER_ORCD_WGMMA=1 changes nothing: {} or this build has no wgmma", facts.name);
    }
    are_there
}

/// What helps where the driver does not take a module.
fn cure(error: DriverError) -> &'static str {
    use sys::CUresult as Is;
    match error.0 {
        Is::CUDA_ERROR_NO_BINARY_FOR_GPU => {
            "build with this GPU in WORKER_ORCD_CUDA_ARCHS, or without that variable for all"
        }
        Is::CUDA_ERROR_INVALID_IMAGE
        | Is::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | Is::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
            "update the driver, or build with the nvcc of a release that the driver is for"
        }
        Is::CUDA_ERROR_OUT_OF_MEMORY => "free memory of the GPU",
        _ => "run `worker-orcd verify` with WORKER_ORCD_SYNC=1 after restarting the process",
    }
}
