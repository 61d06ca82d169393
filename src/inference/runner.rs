//! The one dynamic boundary: a loaded engine, whatever its device.

use std::path::Path;
use std::str::FromStr;

use crate::forward::{self, Engine, EngineError, EngineOptions};
use crate::gguf::Gguf;
use crate::kv_cache::{CacheError, Sequence};
use crate::memory::MemoryPlan;
use crate::model::ModelConfig;
use crate::ops::Ops;
use crate::ops::reference::ReferenceOps;

use super::InferError;
use super::tensors::DeviceTensors;

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
        let ordinal = name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (name, ordinal) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some("")) => Ok(Self::Cuda(0)),
            (_, Some(number)) if number.parse::<usize>().is_ok() => {
                Ok(Self::Cuda(number.parse().unwrap_or_default()))
            }
            _ => Err(InferError::UnknownDevice { name: name.to_owned() }),
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
}

/// An engine on some device.
pub(super) trait Runner: Send {
    fn config(&self) -> &ModelConfig;
    fn plan(&self) -> &MemoryPlan;
    fn context(&self) -> usize;
    fn begin(&mut self, capacity: usize) -> Result<Sequence, CacheError>;
    fn end(&mut self, sequence: Sequence);
    fn run(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
    fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
    fn tensors(&self) -> DeviceTensors;
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
    fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.run_all(sequence, tokens)
    }
    fn tensors(&self) -> DeviceTensors {
        DeviceTensors::new(self.config(), self.weights())
    }
}

/// The reference operations on as many threads as asked for, or as the machine has.
fn reference_ops(n_threads: Option<usize>) -> Result<ReferenceOps, InferError> {
    let n_threads = n_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    ReferenceOps::new(n_threads).map_err(|error| InferError::Engine(error.into()))
}

/// Loads a model onto a device.
pub(super) fn load(
    device: DeviceChoice,
    n_threads: Option<usize>,
    path: &Path,
    gguf: &Gguf,
    config: ModelConfig,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Runner>, InferError> {
    match device.resolve()? {
        Usable::Cpu => {
            let engine = Engine::load(reference_ops(n_threads)?, config, gguf, options, progress);
            Ok(Box::new(engine.map_err(|error| InferError::of_engine(path, error))?))
        }
    }
}

/// The plan that [`load`] would allocate.
pub(super) fn plan(
    device: DeviceChoice,
    n_threads: Option<usize>,
    path: &Path,
    gguf: &Gguf,
    config: &ModelConfig,
    options: EngineOptions,
) -> Result<MemoryPlan, InferError> {
    match device.resolve()? {
        Usable::Cpu => forward::plan(&reference_ops(n_threads)?, config, gguf, options)
            .map_err(|error| InferError::of_engine(path, error.into())),
    }
}
