//! A model in memory, with what its file says about ending a text.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::forward::EngineOptions;
use crate::gguf::Gguf;
use crate::memory::{MemoryPlan, PlanError};
use crate::model::ModelConfig;
use crate::ops::Arithmetic;
use crate::ops::profile::Event;
use crate::quant::Format;
use crate::tokenizer::Tokenizer;
use crate::weights::LoadTimes;

use super::runner::{self, Runner, Source};
use super::tensors::DeviceTensors;
use super::{DeviceChoice, InferError};

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: DeviceChoice,
    /// Worker threads of the CPU; `None` takes what the machine has.
    pub n_threads: Option<usize>,
    /// How the CPU computes products with weights; other devices do not look at it.
    pub cpu_arithmetic: Arithmetic,
    /// Tokens of context; `None` takes the model's own, at most [`LoadOptions::DEFAULT_CONTEXT`].
    pub context: Option<usize>,
    /// Element type of the cache: F16 or F32.
    pub kv_format: Format,
    /// Tokens of a prompt that go through the model together.
    pub chunk: usize,
    /// Rows of logits that one pass can answer.
    pub logits_rows: usize,
    /// Most bytes that the model may take on its device.
    pub limit_bytes: Option<u64>,
    /// Whether operations are timed one by one, for [`Model::take_events`]; they then run slower.
    pub profile: bool,
}

impl LoadOptions {
    /// Context where neither caller nor model asks for less.
    pub const DEFAULT_CONTEXT: usize = 4096;
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            n_threads: None,
            cpu_arithmetic: Arithmetic::Single,
            context: None,
            kv_format: Format::F32,
            chunk: EngineOptions::DEFAULT_CHUNK,
            logits_rows: 1,
            limit_bytes: None,
            profile: false,
        }
    }
}

/// A model in a device's memory.
pub struct Model {
    /// Its configuration, as the file says.
    pub config: ModelConfig,
    /// Bytes that it takes on its device: weights, cache, activations. Nothing is allocated later.
    pub total_vram_bytes: u64,
    /// What loading took, stage by stage.
    pub load_times: LoadTimes,
    pub(super) runner: Box<dyn Runner>,
    pub(super) path: PathBuf,
    pub(super) end_of_generation: BTreeSet<u32>,
}

impl Model {
    /// Loads a model; `progress(done, total)` is told of the bytes read.
    ///
    /// # Errors
    /// The file is missing or unsound, the device cannot be used, or the model does not fit: then nothing was
    /// allocated.
    pub fn load(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, InferError> {
        let path = path.as_ref();
        let gguf = Gguf::open(path).map_err(|error| InferError::of_model(path, error))?;
        let mut model = Self::load_from(&gguf, path, options, progress)?;
        model.add_ends_of(&gguf)?;
        Ok(model)
    }

    /// Loads a model from an open file; `path` is for messages. Which tokens end a text is the tokenizer's to say: see
    /// [`TextModel::new`](super::TextModel::new).
    ///
    /// # Errors
    /// As for [`Model::load`].
    pub fn load_from(
        gguf: &Gguf,
        path: &Path,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, InferError> {
        let started = Instant::now();
        let config = ModelConfig::from_gguf(gguf).map_err(|error| InferError::of_model(path, error))?;
        let source = Source { path, gguf, config: &config, options: engine_options(&config, options) };
        let runner = runner::load(options, &source, progress)?;
        Ok(Self {
            config: runner.config().clone(),
            total_vram_bytes: runner.plan().total_bytes,
            load_times: LoadTimes { total: started.elapsed(), ..runner.load_times() },
            runner,
            path: path.to_path_buf(),
            end_of_generation: BTreeSet::new(),
        })
    }

    /// Every byte that loading a file would allocate; touches no device.
    ///
    /// # Errors
    /// As for [`Model::load`], but for the allocation.
    pub fn plan(gguf: &Gguf, path: &Path, options: &LoadOptions) -> Result<MemoryPlan, InferError> {
        let config = ModelConfig::from_gguf(gguf).map_err(|error| InferError::of_model(path, error))?;
        let source = Source { path, gguf, config: &config, options: engine_options(&config, options) };
        runner::plan(options, &source)
    }

    /// The largest context, up to the model's own, with which a file would fit what its device has now and what
    /// `options` allow; `None` where it would not fit at all. Scratch memory is counted as for the model's own context.
    ///
    /// # Errors
    /// As for [`Model::plan`].
    pub fn largest_context(
        gguf: &Gguf,
        path: &Path,
        options: &LoadOptions,
    ) -> Result<Option<usize>, InferError> {
        let config = ModelConfig::from_gguf(gguf).map_err(|error| InferError::of_model(path, error))?;
        let own = config.context_length;
        let plan = Self::plan(gguf, path, &LoadOptions { context: Some(own), ..*options })?;
        let device = options.device.available_bytes()?.unwrap_or(u64::MAX);
        match plan.check_fits(&config, device.min(options.limit_bytes.unwrap_or(u64::MAX))) {
            Ok(()) => Ok(Some(own)),
            Err(PlanError::DoesNotFit { largest_context, .. }) => Ok(largest_context),
            Err(error) => Err(error.into()),
        }
    }

    /// The operations that ran since the last call, where [`LoadOptions::profile`] was set.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.runner.take_events()
    }

    /// Bytes a second that the device's memory delivers to an operation that only reads: the best of a few readings of
    /// all weights.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_bandwidth(&mut self) -> Result<f64, InferError> {
        Ok(self.runner.read_bandwidth()?)
    }

    /// Every byte that was allocated.
    pub fn memory_plan(&self) -> &MemoryPlan {
        self.runner.plan()
    }
    /// Tokens of context.
    pub fn context(&self) -> usize {
        self.runner.context()
    }
    /// Tokens that end a text.
    pub fn end_of_generation(&self) -> &BTreeSet<u32> {
        &self.end_of_generation
    }
    /// Counts what the file's own tokenizer says as ends of a text; a file without one can still be run on token ids.
    pub(super) fn add_ends_of(&mut self, gguf: &Gguf) -> Result<(), InferError> {
        if gguf.metadata().get("tokenizer.ggml.model").is_some() {
            self.add_ends(Tokenizer::from_metadata(gguf.metadata())?.end_of_generation());
        }
        Ok(())
    }
    /// Counts more tokens as ends of a text.
    pub(super) fn add_ends(&mut self, ids: &BTreeSet<u32>) {
        self.end_of_generation.extend(ids);
    }
    /// Where each tensor lies.
    pub fn weights(&self) -> DeviceTensors {
        self.runner.tensors()
    }
    /// The logits of every token of a sequence of its own: `[tokens, vocabulary]`. `reserved` tokens are reserved for the
    /// sequence, or as many as there are; a long-rope model chooses its factors by it.
    ///
    /// # Errors
    /// The tokens do not fit the context, or one is not in the vocabulary.
    pub fn logits(&mut self, tokens: &[u32], reserved: Option<usize>) -> Result<Vec<f32>, InferError> {
        self.check_tokens(tokens)?;
        let mut sequence = self.runner.begin(reserved.unwrap_or(tokens.len()))?;
        let logits = self.runner.run_all(&mut sequence, tokens);
        self.runner.end(sequence);
        Ok(logits?)
    }
    /// Refuses tokens that are not in the vocabulary, before any of them is run.
    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<(), InferError> {
        let vocabulary = self.config.vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(InferError::UnknownToken { token, vocabulary }),
            None if tokens.is_empty() => Err(InferError::EmptyPrompt),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}, {} bytes, {})", self.config.name, self.total_vram_bytes, self.path.display())
    }
}

/// What the engine is asked for: a context of the caller's choice, or the model's own within reason.
fn engine_options(config: &ModelConfig, options: &LoadOptions) -> EngineOptions {
    let own = config.context_length.min(LoadOptions::DEFAULT_CONTEXT);
    let context = options.context.unwrap_or(own).max(1);
    EngineOptions {
        context,
        kv_format: options.kv_format,
        chunk: options.chunk.clamp(1, context),
        logits_rows: options.logits_rows,
        limit_bytes: options.limit_bytes,
    }
}
