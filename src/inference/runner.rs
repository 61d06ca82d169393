//! The one dynamic boundary: a loaded engine, whatever its device.

use std::path::Path;
use std::str::FromStr;

use crate::device::{CudaDevice, Device, HostDevice, Launch, MemoryInfo};
#[cfg(feature = "emulator")]
use crate::device::{EmulatorDevice, EmulatorOptions};
use crate::forward::{self, Engine, EngineError, EngineOptions, OpsBytes};
use crate::gguf::Gguf;
use crate::kv_cache::{CacheError, Sequence};
use crate::memory::MemoryPlan;
use crate::model::ModelConfig;
use crate::ops::kernel::KernelOps;
use crate::ops::profile::{Event, Profiled};
use crate::ops::reference::ReferenceOps;
use crate::ops::{Choice, Ops, PassLimits};
use crate::weights::LoadTimes;

use super::tensors::DeviceTensors;
use super::{InferError, LoadOptions};

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The first GPU where this build and this machine can use one, else the CPU.
    #[default]
    Auto,
    /// The reference operations on the host.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
    /// The GPU's kernels on the host: for tests.
    Emulator,
}

impl FromStr for DeviceChoice {
    type Err = InferError;
    fn from_str(name: &str) -> Result<Self, InferError> {
        let unknown = || InferError::UnknownDevice { name: name.to_owned() };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "emulator" => Ok(Self::Emulator),
            _ => {
                let number = name.strip_prefix("cuda:").ok_or_else(unknown)?;
                if !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(unknown());
                }
                Ok(Self::Cuda(number.parse().map_err(|_| unknown())?))
            }
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Emulator => f.write_str("emulator"),
        }
    }
}

/// A device that this build and this machine can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usable {
    /// The reference operations on the host.
    Cpu,
    /// The kernels on the GPU of this number.
    Cuda(usize),
    /// The kernels on the host.
    #[cfg(feature = "emulator")]
    Emulator,
}

impl DeviceChoice {
    /// The device that will run. Takes no memory of it.
    ///
    /// # Errors
    /// [`InferError::NoKernels`] or [`InferError::NoDevice`]: what is missing, and the cure.
    pub(super) fn resolve(self) -> Result<Usable, InferError> {
        match self {
            Self::Cpu => Ok(Usable::Cpu),
            Self::Auto => Ok(CudaDevice::available(0).map_or(Usable::Cpu, |()| Usable::Cuda(0))),
            Self::Cuda(ordinal) => {
                CudaDevice::available(ordinal).map_err(|why| InferError::of_gpu(ordinal, &why))?;
                Ok(Usable::Cuda(ordinal))
            }
            #[cfg(feature = "emulator")]
            Self::Emulator => Ok(Usable::Emulator),
            #[cfg(not(feature = "emulator"))]
            Self::Emulator => Err(InferError::NoDevice {
                device: self.to_string(),
                reason: "it was built without the `emulator` feature (cargo build --features emulator)"
                    .to_owned(),
            }),
        }
    }
    /// The name of the device that will run, such as `cpu`.
    ///
    /// # Errors
    /// The device cannot be used here.
    pub fn resolved_name(self) -> Result<String, InferError> {
        let device = match self.resolve()? {
            Usable::Cpu => Self::Cpu,
            Usable::Cuda(ordinal) => Self::Cuda(ordinal),
            #[cfg(feature = "emulator")]
            Usable::Emulator => Self::Emulator,
        };
        Ok(device.to_string())
    }
    /// Bytes that an allocation on the device could have now; `None` where the system does not tell.
    ///
    /// # Errors
    /// The device cannot be used here.
    pub fn available_bytes(self) -> Result<Option<u64>, InferError> {
        let memory: Option<MemoryInfo> = match self.resolve()? {
            Usable::Cpu => HostDevice.memory_info()?,
            Usable::Cuda(ordinal) => gpu(ordinal)?.memory_info()?,
            #[cfg(feature = "emulator")]
            Usable::Emulator => emulator(None)?.memory_info()?,
        };
        Ok(memory.map(|memory| memory.available))
    }
    /// Bytes of a GPU that the driver took for itself and the kernels, which no plan holds; `None` where there is no
    /// driver.
    ///
    /// # Errors
    /// The device cannot be used here.
    pub fn context_bytes(self) -> Result<Option<u64>, InferError> {
        match self.resolve()? {
            Usable::Cuda(ordinal) => Ok(Some(gpu(ordinal)?.facts().context_bytes)),
            _ => Ok(None),
        }
    }
    /// What a GPU is, for records: its name, compute capability, the driver's release of CUDA; empty for others.
    ///
    /// # Errors
    /// The device cannot be used here.
    pub fn description(self) -> Result<String, InferError> {
        match self.resolve()? {
            Usable::Cuda(ordinal) => {
                let gpu = gpu(ordinal)?;
                let facts = gpu.facts();
                let ((major, minor), (release, update)) = (facts.capability, facts.driver);
                Ok(format!("{}, compute capability {major}.{minor}, CUDA {release}.{update}", facts.name))
            }
            _ => Ok(String::new()),
        }
    }
}

/// The GPU of a number.
pub(super) fn gpu(ordinal: usize) -> Result<CudaDevice, InferError> {
    CudaDevice::new(ordinal).map_err(|why| InferError::of_gpu(ordinal, &why))
}

/// An emulated device on so many threads, or all of the system's.
#[cfg(feature = "emulator")]
pub(super) fn emulator(threads: Option<usize>) -> Result<EmulatorDevice, InferError> {
    let n_threads = threads.map(|threads| n_threads(Some(threads))).transpose()?;
    Ok(EmulatorDevice::new(EmulatorOptions { n_threads, ..EmulatorOptions::asked_for() })?)
}

/// An engine on some device.
pub(super) trait Runner: Send {
    fn config(&self) -> &ModelConfig;
    fn plan(&self) -> &MemoryPlan;
    fn context(&self) -> usize;
    fn load_times(&self) -> LoadTimes;
    fn begin(&mut self, capacity: usize) -> Result<Sequence, CacheError>;
    fn end(&mut self, sequence: Sequence);
    fn run(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
    fn run_and_choose(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        choice: &Choice,
    ) -> Result<Option<u32>, EngineError>;
    fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
    fn step(&mut self, batch: &mut [(&mut Sequence, u32)]) -> Result<Vec<Vec<f32>>, EngineError>;
    fn tensors(&self) -> DeviceTensors;
    fn take_events(&self) -> Vec<Event>;
    fn read_bandwidth(&mut self) -> Result<f64, EngineError>;
}

impl<O: Ops> Runner for Engine<O> {
    fn config(&self) -> &ModelConfig {
        self.config()
    }
    fn plan(&self) -> &MemoryPlan {
        self.plan()
    }
    fn context(&self) -> usize {
        self.context()
    }
    fn load_times(&self) -> LoadTimes {
        self.weights().times
    }
    fn begin(&mut self, capacity: usize) -> Result<Sequence, CacheError> {
        self.begin(capacity)
    }
    fn end(&mut self, sequence: Sequence) {
        self.end(sequence);
    }
    fn run(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.run(sequence, tokens)
    }
    fn run_and_choose(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        choice: &Choice,
    ) -> Result<Option<u32>, EngineError> {
        self.run_and_choose(sequence, tokens, choice)
    }
    fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.run_all(sequence, tokens)
    }
    fn step(&mut self, batch: &mut [(&mut Sequence, u32)]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.step(batch)
    }
    fn tensors(&self) -> DeviceTensors {
        DeviceTensors::new(self.config(), self.weights())
    }
    fn take_events(&self) -> Vec<Event> {
        self.ops().take_events()
    }
    fn read_bandwidth(&mut self) -> Result<f64, EngineError> {
        self.read_bandwidth()
    }
}

/// Most worker threads that may be asked for.
const MAX_THREADS: usize = 1024;

/// As many threads as asked for, or as the machine has.
pub(super) fn n_threads(asked: Option<usize>) -> Result<usize, InferError> {
    let n_threads =
        asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    if n_threads > MAX_THREADS {
        let actual = format!("at most {MAX_THREADS} are supported");
        return Err(InferError::StateMismatch { field: "n_threads", given: n_threads.to_string(), actual });
    }
    Ok(n_threads)
}

/// A model that is to be loaded.
pub(super) struct Source<'a> {
    /// For messages.
    pub path: &'a Path,
    pub gguf: &'a Gguf,
    pub config: &'a ModelConfig,
    pub options: EngineOptions,
}

impl Source<'_> {
    /// Loads with these operations, timed one by one where asked.
    fn load<O: Ops + 'static>(
        &self,
        ops: O,
        profile: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Runner>, InferError> {
        let of_engine = |error| InferError::of_engine(self.path, error);
        let config = self.config.clone();
        if profile {
            let engine = Engine::load(Profiled::new(ops), config, self.gguf, self.options, progress);
            return Ok(Box::new(engine.map_err(of_engine)?));
        }
        let engine = Engine::load(ops, config, self.gguf, self.options, progress);
        Ok(Box::new(engine.map_err(of_engine)?))
    }

    /// What kernels need, on any device.
    fn kernels_need<D: Launch>(&self, limits: PassLimits) -> OpsBytes {
        OpsBytes {
            workspace: KernelOps::<D>::workspace_bytes_of(self.config, limits),
            staging: KernelOps::<D>::STAGING_BYTES,
        }
    }
}

/// The kernels of a device; a recording cannot hold the waiting between operations that are timed.
fn kernels_of<D: Launch>(device: D, profile: bool) -> KernelOps<D> {
    if profile { KernelOps::without_recording(device) } else { KernelOps::new(device) }
}

/// Loads a model onto a device.
pub(super) fn load(
    options: &LoadOptions,
    source: &Source<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Runner>, InferError> {
    let (threads, profile) = (options.n_threads, options.profile);
    match options.device.resolve()? {
        Usable::Cpu => {
            let ops =
                ReferenceOps::new(n_threads(threads)?).map_err(|error| InferError::Engine(error.into()))?;
            source.load(ops.with_arithmetic(options.cpu_arithmetic), profile, progress)
        }
        Usable::Cuda(ordinal) => source.load(kernels_of(gpu(ordinal)?, profile), profile, progress),
        #[cfg(feature = "emulator")]
        Usable::Emulator => source.load(kernels_of(emulator(threads)?, profile), profile, progress),
    }
}

/// The plan that [`load`] would allocate.
pub(super) fn plan(options: &LoadOptions, source: &Source<'_>) -> Result<MemoryPlan, InferError> {
    let usable = options.device.resolve()?;
    let n_threads = n_threads(options.n_threads)?;
    let arithmetic = options.cpu_arithmetic;
    let need = |limits| match usable {
        Usable::Cpu => OpsBytes {
            workspace: ReferenceOps::workspace_bytes_on(n_threads, arithmetic, source.config, limits),
            staging: 0,
        },
        Usable::Cuda(_) => source.kernels_need::<CudaDevice>(limits),
        #[cfg(feature = "emulator")]
        Usable::Emulator => source.kernels_need::<EmulatorDevice>(limits),
    };
    forward::plan(source.config, source.gguf, source.options, need)
        .map_err(|error| InferError::of_engine(source.path, error.into()))
}
