//! The one dynamic boundary: a loaded engine, whatever its device.

use std::path::Path;
use std::str::FromStr;

use crate::device::{Device, HostDevice};
use crate::forward::{self, Engine, EngineError, EngineOptions, OpsBytes};
use crate::gguf::Gguf;
use crate::kv_cache::{CacheError, Sequence};
use crate::memory::MemoryPlan;
use crate::model::ModelConfig;
use crate::ops::Ops;
use crate::ops::profile::{Event, Profiled};
use crate::ops::reference::ReferenceOps;

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
}

impl FromStr for DeviceChoice {
    type Err = InferError;
    fn from_str(name: &str) -> Result<Self, InferError> {
        let unknown = || InferError::UnknownDevice { name: name.to_owned() };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
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
        }
    }
}

/// A device that this build and this machine can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usable {
    /// The reference operations on the host.
    Cpu,
}

impl DeviceChoice {
    /// The device that will run.
    ///
    /// # Errors
    /// [`InferError::NoKernels`] for a GPU: this build has no kernels.
    pub(super) fn resolve(self) -> Result<Usable, InferError> {
        match self {
            Self::Auto | Self::Cpu => Ok(Usable::Cpu),
            Self::Cuda(_) => Err(InferError::NoKernels { device: self.to_string() }),
        }
    }
    /// The name of the device that will run, such as `cpu`.
    ///
    /// # Errors
    /// The device cannot be used here.
    pub fn resolved_name(self) -> Result<&'static str, InferError> {
        match self.resolve()? {
            Usable::Cpu => Ok("cpu"),
        }
    }
    /// Bytes that an allocation on the device could have now; `None` where the system does not tell.
    ///
    /// # Errors
    /// The device cannot be used here.
    pub fn available_bytes(self) -> Result<Option<u64>, InferError> {
        let memory = match self.resolve()? {
            Usable::Cpu => HostDevice.memory_info()?,
        };
        Ok(memory.map(|memory| memory.available))
    }
}

/// An engine on some device.
pub(super) trait Runner: Send {
    fn config(&self) -> &ModelConfig;
    fn plan(&self) -> &MemoryPlan;
    fn context(&self) -> usize;
    fn begin(&mut self, capacity: usize) -> Result<Sequence, CacheError>;
    fn end(&mut self, sequence: Sequence);
    fn run(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
    fn run_greedy(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Option<u32>, EngineError>;
    fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
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
    fn begin(&mut self, capacity: usize) -> Result<Sequence, CacheError> {
        self.begin(capacity)
    }
    fn end(&mut self, sequence: Sequence) {
        self.end(sequence);
    }
    fn run(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.run(sequence, tokens)
    }
    fn run_greedy(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Option<u32>, EngineError> {
        self.run_greedy(sequence, tokens)
    }
    fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.run_all(sequence, tokens)
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

/// Loads a model with these operations, timed one by one where asked.
fn load_with<O: Ops + 'static>(
    ops: O,
    profile: bool,
    path: &Path,
    gguf: &Gguf,
    config: ModelConfig,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Runner>, InferError> {
    let of_engine = |error| InferError::of_engine(path, error);
    if profile {
        let engine = Engine::load(Profiled::new(ops), config, gguf, options, progress);
        return Ok(Box::new(engine.map_err(of_engine)?));
    }
    let engine = Engine::load(ops, config, gguf, options, progress);
    Ok(Box::new(engine.map_err(of_engine)?))
}

/// Loads a model onto a device.
pub(super) fn load(
    load: &LoadOptions,
    path: &Path,
    gguf: &Gguf,
    config: ModelConfig,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Runner>, InferError> {
    match load.device.resolve()? {
        Usable::Cpu => {
            let ops = ReferenceOps::new(n_threads(load.n_threads)?)
                .map_err(|error| InferError::Engine(error.into()))?;
            load_with(ops, load.profile, path, gguf, config, options, progress)
        }
    }
}

/// The plan that [`load`] would allocate.
pub(super) fn plan(
    device: DeviceChoice,
    threads: Option<usize>,
    path: &Path,
    gguf: &Gguf,
    config: &ModelConfig,
    options: EngineOptions,
) -> Result<MemoryPlan, InferError> {
    match device.resolve()? {
        Usable::Cpu => {
            let n_threads = n_threads(threads)?;
            forward::plan(config, gguf, options, |limits| OpsBytes {
                workspace: ReferenceOps::workspace_bytes_on(n_threads, config, limits),
                staging: 0,
            })
            .map_err(|error| InferError::of_engine(path, error.into()))
        }
    }
}
