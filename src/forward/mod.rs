//! The forward pass: from tokens to logits, over any implementation of the operations.

mod layer;
mod scratch;

use std::ops::Range;

use thiserror::Error;

use crate::device::{Device, DeviceError};
use crate::gguf::Gguf;
use crate::kv_cache::{CacheError, KvCache, Sequence};
use crate::memory::{Arena, ArenaError, MemoryPlan, PlanError, PlanOptions, region};
use crate::model::ModelConfig;
use crate::ops::{Choice, Ops, OpsError, Pass, PassLimits, Span, expect};
use crate::quant::Format;
use crate::weights::{LayerWeights, LoadError, Weights};

use scratch::Scratch;

/// What can go wrong between a file and its logits.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The plan cannot be made or met.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The weights could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The arena does not hold what the plan says.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A sequence does not fit.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// An operation failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A pass without tokens.
    #[error("there are no tokens to run")]
    NoTokens,
    /// A step of more sequences than a pass has rows.
    #[error("a step of {found} sequences, a pass has {most} rows; make the engine with a larger chunk")]
    TooManySequences {
        /// Sequences of the pass.
        found: usize,
        /// What the plan has rows for.
        most: usize,
    },
}

/// How an engine is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens of context that all sequences share.
    pub context: usize,
    /// Element type of the cache: F16 or F32.
    pub kv_format: Format,
    /// Tokens of a prompt that go through the model together.
    pub chunk: usize,
    /// Rows of logits that one pass can answer: 1 for generation, `chunk` to see every row's.
    pub logits_rows: usize,
    /// Most bytes that the engine may allocate.
    pub limit_bytes: Option<u64>,
}

impl EngineOptions {
    /// Tokens of a prompt that go through the model together where nothing else is asked for.
    pub const DEFAULT_CHUNK: usize = 512;

    /// Options for one sequence of up to `context` tokens, with an f32 cache.
    pub fn new(context: usize) -> Self {
        Self {
            context,
            kv_format: Format::F32,
            chunk: Self::DEFAULT_CHUNK.min(context.max(1)),
            logits_rows: 1,
            limit_bytes: None,
        }
    }
}

/// A loaded model: weights, cache and scratch memory on one device.
#[derive(Debug)]
pub struct Engine<O: Ops> {
    ops: O,
    config: ModelConfig,
    weights: Weights<O::Device>,
    cache: KvCache<O::Device>,
    scratch: Scratch<O::Device>,
    workspace: O::Workspace,
    plan: MemoryPlan,
}

/// What operations ask of a plan, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpsBytes {
    /// See [`Ops::workspace_bytes`].
    pub workspace: u64,
    /// See [`Ops::staging_bytes`].
    pub staging: u64,
}

/// What is made of the last rows of a pass.
#[derive(Debug, Clone, Copy, Default)]
struct Ending<'a> {
    /// How many get logits.
    n_logits: usize,
    /// How a token is chosen from each of them; empty where none is.
    choices: &'a [Choice],
}

fn limits(options: &EngineOptions) -> PassLimits {
    PassLimits { rows: options.chunk.max(1), context: options.context }
}

/// Makes the plan that [`Engine::load`] would allocate, touching no device; `ops_bytes` says what its operations need.
pub fn plan(
    config: &ModelConfig,
    gguf: &Gguf,
    options: EngineOptions,
    ops_bytes: impl FnOnce(PassLimits) -> OpsBytes,
) -> Result<MemoryPlan, PlanError> {
    let limits = limits(&options);
    let rows = limits.rows;
    let bytes = ops_bytes(limits);
    let options = PlanOptions {
        context: options.context,
        kv_format: options.kv_format,
        rows,
        logits_rows: options.logits_rows.clamp(1, rows),
        workspace_bytes: bytes.workspace,
        staging_bytes: bytes.staging,
    };
    MemoryPlan::from_gguf(config, gguf, options)
}

impl<O: Ops> Engine<O> {
    /// Plans, checks that it fits, allocates once and loads. Nothing is allocated on the device afterwards.
    pub fn load(
        ops: O,
        config: ModelConfig,
        gguf: &Gguf,
        options: EngineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let plan = plan(&config, gguf, options, |limits| OpsBytes {
            workspace: ops.workspace_bytes(&config, limits),
            staging: ops.staging_bytes(),
        })?;
        let device = ops.device().clone();
        let free = device.memory_info()?.map_or(u64::MAX, |info| info.available);
        plan.check_fits(&config, free.min(options.limit_bytes.unwrap_or(u64::MAX)))?;
        let mut arena = Arena::allocate(&device, &plan)?;
        let weights = Weights::load(&ops, &config, gguf, &mut arena, progress)?;
        let cache = KvCache::new(&config, options.context, options.kv_format, &mut arena)?;
        let scratch = Scratch::new(&config, &mut arena)?;
        let workspace = ops.workspace(&config, limits(&options), arena.take(region::WORKSPACE)?)?;
        arena.finish()?;
        Ok(Self { ops, config, weights, cache, scratch, workspace, plan })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
    /// The operations in use.
    pub fn ops(&self) -> &O {
        &self.ops
    }
    /// The weights.
    pub fn weights(&self) -> &Weights<O::Device> {
        &self.weights
    }
    /// What was allocated.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }
    /// Tokens of context that all sequences share.
    pub fn context(&self) -> usize {
        self.cache.context()
    }
    /// Begins a sequence of up to `capacity` tokens.
    pub fn begin(&mut self, capacity: usize) -> Result<Sequence, CacheError> {
        self.cache.reserve(capacity)
    }
    /// Ends a sequence and frees its place.
    pub fn end(&mut self, sequence: Sequence) {
        self.cache.release(sequence);
    }

    /// Runs tokens of one sequence and answers the logits of the last: `[vocabulary]`.
    pub fn run(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.run_to_last(sequence, tokens, &[])?;
        Ok(self.scratch.logits.download(0, 1)?)
    }

    /// Runs tokens of one sequence and chooses the next one; `None` where no logit is finite. The logits stay on the
    /// device.
    pub fn run_and_choose(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        choice: &Choice,
    ) -> Result<Option<u32>, EngineError> {
        self.run_to_last(sequence, tokens, std::slice::from_ref(choice))?;
        Ok(self.ops.chosen(1, &self.workspace)?.first().copied().flatten())
    }

    /// Runs tokens of one sequence and leaves the logits of the last in the first row of `scratch.logits`.
    fn run_to_last(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        choices: &[Choice],
    ) -> Result<(), EngineError> {
        let n_chunks = tokens.len().div_ceil(self.plan.options.rows);
        let of_last = Ending { n_logits: 1, choices };
        let ending = |chunk, _| if chunk + 1 == n_chunks { of_last } else { Ending::default() };
        self.run_chunks(sequence, tokens, ending, |_, _| Ok(()))
    }

    /// Runs tokens of one sequence and answers the logits of each: `[tokens, vocabulary]`.
    pub fn run_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let most = self.plan.options.logits_rows;
        let mut logits = Vec::with_capacity(tokens.len() * self.config.vocab_size);
        let ending = |_, n_rows| Ending { n_logits: logits_in_pass(n_rows, most), choices: &[] };
        self.run_chunks(sequence, tokens, ending, |engine, n_rows| {
            logits.extend(engine.all_logits(n_rows)?);
            Ok(())
        })?;
        Ok(logits)
    }

    /// Runs one token of each of several sequences and answers their logits, each `[vocabulary]`. The output weights are
    /// read once where the plan has rows of logits for all, else once for each so many.
    pub fn step(&mut self, batch: &mut [(&mut Sequence, u32)]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check_step(batch)?;
        let n_logits = logits_in_pass(batch.len(), self.plan.options.logits_rows);
        self.step_pass(batch, Ending { n_logits, choices: &[] })?;
        let logits = self.all_logits(batch.len())?;
        Ok(logits.chunks_exact(self.config.vocab_size).map(<[f32]>::to_vec).collect())
    }

    /// Runs one token of each of several sequences and chooses the next of each, by the choice of the same place; `None`
    /// where no logit is finite. The logits stay on the device. One pass takes as many sequences as the plan has rows
    /// of logits.
    pub fn step_and_choose(
        &mut self,
        batch: &mut [(&mut Sequence, u32)],
        choices: &[Choice],
    ) -> Result<Vec<Option<u32>>, EngineError> {
        self.check_step(batch)?;
        expect("choose", "choices", choices.len(), batch.len())?;
        let most = self.plan.options.logits_rows;
        let mut chosen = Vec::with_capacity(batch.len());
        for (batch, choices) in batch.chunks_mut(most).zip(choices.chunks(most)) {
            self.step_pass(batch, Ending { n_logits: batch.len(), choices })?;
            chosen.extend(self.ops.chosen(choices.len(), &self.workspace)?);
        }
        Ok(chosen)
    }

    /// Refuses a step before any of its sequences is touched.
    fn check_step(&self, batch: &[(&mut Sequence, u32)]) -> Result<(), EngineError> {
        let most = self.plan.options.rows;
        if batch.is_empty() {
            return Err(EngineError::NoTokens);
        }
        if batch.len() > most {
            return Err(EngineError::TooManySequences { found: batch.len(), most });
        }
        for (sequence, token) in batch {
            sequence.check_room(1)?;
            self.check_tokens(&[*token])?;
        }
        Ok(())
    }

    fn step_pass(
        &mut self,
        batch: &mut [(&mut Sequence, u32)],
        ending: Ending<'_>,
    ) -> Result<(), EngineError> {
        let tokens: Vec<u32> = batch.iter().map(|(_, token)| *token).collect();
        let spans: Vec<Span<'_>> =
            batch.iter().enumerate().map(|(row, (sequence, _))| sequence.span(row, 1)).collect();
        self.pass(&tokens, &spans, ending)?;
        for (sequence, _) in batch.iter_mut() {
            sequence.advance(1);
        }
        Ok(())
    }

    /// Bytes a second that the device's memory delivers to an operation that only reads: the best of a few readings of
    /// the layers' matrices.
    pub fn read_bandwidth(&mut self) -> Result<f64, EngineError> {
        const READINGS: usize = 5;
        let Self { ops, weights, workspace, .. } = self;
        let mut best = 0.0_f64;
        for _ in 0..READINGS {
            ops.synchronize()?;
            let (started, mut bytes) = (std::time::Instant::now(), 0);
            for matrix in weights.layers.iter().flat_map(LayerWeights::matrices) {
                ops.read_all(matrix.blocks.region(), workspace)?;
                bytes += matrix.blocks.region().bytes();
            }
            ops.synchronize()?;
            best = best.max(bytes as f64 / started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE));
        }
        Ok(best)
    }

    /// Runs tokens chunk by chunk: each with the ending that its number and rows have, and with what comes after it.
    fn run_chunks<'a>(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        ending: impl Fn(usize, usize) -> Ending<'a>,
        mut after: impl FnMut(&mut Self, usize) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        sequence.check_room(tokens.len())?;
        for (index, chunk) in tokens.chunks(self.plan.options.rows).enumerate() {
            let n_rows = chunk.len();
            self.pass(chunk, &[sequence.span(0, n_rows)], ending(index, n_rows))?;
            sequence.advance(n_rows);
            after(self, n_rows)?;
        }
        if tokens.is_empty() { Err(EngineError::NoTokens) } else { Ok(()) }
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), OpsError> {
        let vocabulary = self.config.vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(OpsError::UnknownToken { token, vocabulary }),
            None => Ok(()),
        }
    }

    /// From tokens to the residual stream after the last layer, and to the logits and choices of the last rows.
    fn pass(&mut self, tokens: &[u32], spans: &[Span<'_>], ending: Ending<'_>) -> Result<(), EngineError> {
        self.check_tokens(tokens)?;
        let pass = Pass { tokens, spans, n_logits: ending.n_logits, choices: ending.choices };
        let Self { ops, config, weights, cache, scratch, workspace, .. } = self;
        ops.run(&pass, &weights.rotary, workspace, |workspace| {
            ops.embed(&pass, weights.token_embedding(), workspace, &mut scratch.x)?;
            let norms = weights.layers.iter().map(|layer| &layer.attn_norm).skip(1);
            let next_norms = norms.chain([&weights.output_norm]);
            let layers = weights.layers.iter().zip(&mut cache.layers).zip(next_norms);
            for (index, ((layer, cache), next_norm)) in layers.enumerate() {
                ops.enter_layer(Some(index));
                layer::run(ops, config, layer, next_norm, &weights.rotary, &pass, cache, scratch, workspace)?;
            }
            ops.enter_layer(None);
            if pass.n_logits > 0 {
                project_onto_vocabulary(ops, weights, pass.logits_rows(), scratch, workspace)?;
            }
            if pass.choices.is_empty() { Ok(()) } else { ops.choose(&pass, &mut scratch.logits, workspace) }
        })?;
        Ok(())
    }

    /// The logits of all rows of the last pass, which made them itself where [`logits_in_pass`] says so:
    /// `[rows, vocabulary]`.
    fn all_logits(&mut self, n_rows: usize) -> Result<Vec<f32>, EngineError> {
        let most = self.plan.options.logits_rows;
        let Self { ops, weights, scratch, workspace, .. } = self;
        if logits_in_pass(n_rows, most) > 0 {
            return Ok(scratch.logits.download(0, n_rows)?);
        }
        let mut logits = Vec::with_capacity(n_rows * scratch.logits.width);
        for first in (0..n_rows).step_by(most) {
            let rows = first..n_rows.min(first + most);
            project_onto_vocabulary(ops, weights, rows.clone(), scratch, workspace)?;
            logits.extend(scratch.logits.download(0, rows.len())?);
        }
        Ok(logits)
    }
}

/// Rows of logits that a pass of `n_rows` rows makes where all are wanted: all if there is room for them, else none.
fn logits_in_pass(n_rows: usize, most: usize) -> usize {
    if n_rows <= most { n_rows } else { 0 }
}

/// Logits of some rows of the residual stream, in the first rows of `scratch.logits`.
fn project_onto_vocabulary<O: Ops>(
    ops: &O,
    weights: &Weights<O::Device>,
    rows: Range<usize>,
    scratch: &mut Scratch<O::Device>,
    workspace: &mut O::Workspace,
) -> Result<(), OpsError> {
    let Scratch { x, logits, .. } = scratch;
    ops.norm_project(x, rows, &weights.output_norm, &weights.output, workspace, logits)
}
