//! The generation loop, on token ids.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::forward::EngineError;
use crate::kv_cache::Sequence;
use crate::sampler::{ChoiceKey, SamplerConfig, SamplerError};

use super::runner::Runner;
use super::{InferError, Model};

/// Stops a generation from another thread or from a signal.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the generation to stop before its next token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Takes a request to stop back.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a text is continued.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None` goes on until something else ends the text.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// Which sequence this is, where several share a seed.
    pub sequence: u64,
    /// Texts that end the generation; they are left out of it.
    pub stop: Vec<String>,
    /// Whether end-of-generation tokens are taken as any other.
    pub ignore_eos: bool,
    /// Tokens to reserve for the sequence; `None` reserves what prompt and `max_tokens` need. A long-rope model
    /// chooses its factors by it.
    pub context: Option<usize>,
    /// Stops the generation from outside.
    pub cancel: CancelToken,
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose this end-of-generation token.
    EndOfGeneration(u32),
    /// `max_tokens` were generated.
    Length,
    /// One of the stop texts occurred.
    StopText(String),
    /// The context is full.
    ContextFull,
    /// It was cancelled.
    Cancelled,
}

impl StopReason {
    /// A short name, for JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EndOfGeneration(_) => "end_of_generation",
            Self::Length => "length",
            Self::StopText(_) => "stop_text",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How long the parts of a generation took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Prompt tokens that were run; fewer than the prompt has where a conversation goes on.
    pub prompt_tokens: usize,
    /// Running the prompt.
    pub prompt: Duration,
    /// Tokens that were run one by one.
    pub decoded_tokens: usize,
    /// Running and choosing them.
    pub decode: Duration,
}

/// A generation, in tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The new tokens, without the one that ended the text.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// How long it took.
    pub timings: Timings,
}

/// A sequence and the tokens that its cache holds.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) sequence: Sequence,
    pub(super) cached: Vec<u32>,
}

impl Session {
    /// A sequence with room for `capacity` tokens.
    pub(super) fn begin(runner: &mut dyn Runner, capacity: usize) -> Result<Self, InferError> {
        Ok(Self { sequence: runner.begin(capacity)?, cached: Vec::new() })
    }

    /// Forgets what the cache holds beyond the common beginning with `tokens`, and answers those still to be run. The
    /// last is run again where the cache holds it, for its logits.
    fn keep_common<'a>(&mut self, tokens: &'a [u32]) -> &'a [u32] {
        let common = tokens.iter().zip(&self.cached).take_while(|(a, b)| a == b).count();
        let common = common.min(tokens.len().saturating_sub(1));
        self.sequence.truncate(common);
        self.cached.truncate(common);
        &tokens[common..]
    }

    /// Runs more tokens and answers what `run` makes of them.
    fn with<T>(
        &mut self,
        tokens: &[u32],
        run: impl FnOnce(&mut Sequence, &[u32]) -> Result<T, EngineError>,
    ) -> Result<T, InferError> {
        let answer = run(&mut self.sequence, tokens);
        // A failed pass may have run some chunks; the sequence knows how many tokens it holds.
        let run = self.sequence.len().saturating_sub(self.cached.len()).min(tokens.len());
        self.cached.extend_from_slice(&tokens[..run]);
        Ok(answer?)
    }

    /// Runs more tokens and answers the logits of the last.
    pub(super) fn advance(
        &mut self,
        runner: &mut dyn Runner,
        tokens: &[u32],
    ) -> Result<Vec<f32>, InferError> {
        self.with(tokens, |sequence, tokens| runner.run(sequence, tokens))
    }

    /// Runs more tokens and chooses the one after those of `history`, on the device.
    pub(super) fn choose(
        &mut self,
        runner: &mut dyn Runner,
        tokens: &[u32],
        sampler: &SamplerConfig,
        sequence: u64,
        history: &[u32],
    ) -> Result<u32, InferError> {
        let key = ChoiceKey { sequence, position: history.len() as u64 };
        let choice = sampler.choice(history, key);
        let n_logits = runner.config().vocab_size;
        let token = self.with(tokens, |sequence, tokens| runner.run_and_choose(sequence, tokens, &choice))?;
        Ok(token.ok_or(SamplerError::NoFiniteLogit { n_logits })?)
    }
}

impl Model {
    /// Continues a prompt in a sequence of its own; `on_token` sees each token and may stop the generation, which
    /// then ends as cancelled.
    ///
    /// # Errors
    /// The prompt is empty, does not fit the context or holds an unknown token; or sampling or the device failed.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Tokens, InferError> {
        self.check_tokens(prompt)?;
        let capacity = self.capacity(prompt.len(), options)?;
        let mut session = Session::begin(&mut *self.runner, capacity)?;
        let tokens = self.generate_in(&mut session, prompt, options, on_token);
        self.runner.end(session.sequence);
        tokens
    }

    /// Tokens to reserve: what is asked for, or what prompt and reply need and the context has.
    fn capacity(&self, prompt: usize, options: &GenerateOptions) -> Result<usize, InferError> {
        let max = self.context();
        let asked = options.context.unwrap_or(prompt);
        if asked > max || prompt > asked {
            let max = max.min(asked.max(1));
            return Err(InferError::ContextLengthExceeded { requested: prompt.max(asked), max });
        }
        let needed = prompt.saturating_add(options.max_tokens.unwrap_or(max));
        Ok(options.context.unwrap_or(needed.min(max)))
    }

    pub(super) fn generate_in(
        &mut self,
        session: &mut Session,
        prompt: &[u32],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Tokens, InferError> {
        options.sampler.validate()?;
        self.check_tokens(prompt)?;
        if prompt.len() > session.sequence.capacity() {
            let max = session.sequence.capacity();
            return Err(InferError::ContextLengthExceeded { requested: prompt.len(), max });
        }
        let none = BTreeSet::new();
        let ends = if options.ignore_eos { &none } else { &self.end_of_generation };
        let runner = &mut *self.runner;
        let (mut timings, mut started) = (Timings::default(), Instant::now());
        let mut history = prompt.to_vec();
        let new = session.keep_common(prompt);
        timings.prompt_tokens = new.len();
        if options.max_tokens == Some(0) {
            // Nothing is to be chosen; the cache holds the prompt then, for what may follow.
            session.advance(runner, new)?;
            timings.prompt = started.elapsed();
            return Ok(Tokens { ids: Vec::new(), stop_reason: StopReason::Length, timings });
        }
        let stop_reason = loop {
            let generated = history.len() - prompt.len();
            if options.max_tokens.is_some_and(|most| generated >= most) {
                break StopReason::Length;
            }
            if options.cancel.is_cancelled() {
                break StopReason::Cancelled;
            }
            if generated > 0 && session.sequence.check_room(1).is_err() {
                break StopReason::ContextFull;
            }
            let token = if generated == 0 {
                let token = session.choose(runner, new, &options.sampler, options.sequence, &history)?;
                timings.prompt = started.elapsed();
                started = Instant::now();
                token
            } else {
                timings.decoded_tokens += 1;
                let last = &history[history.len() - 1..];
                session.choose(runner, last, &options.sampler, options.sequence, &history)?
            };
            if ends.contains(&token) {
                break StopReason::EndOfGeneration(token);
            }
            history.push(token);
            if on_token(token).is_break() {
                break StopReason::Cancelled;
            }
        };
        timings.decode = started.elapsed();
        Ok(Tokens { ids: history.split_off(prompt.len()), stop_reason, timings })
    }
}
