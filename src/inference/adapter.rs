//! The adapter: a model driven by token ids, one sequence at a time, with every field of a request checked.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};

use crate::sampler::SamplerConfig;

use super::generate::Session;
use super::{GenerateOptions, InferError, Model};

/// A request to an adapter. Fields that state what is so are checked against what is so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterForwardConfig {
    /// Whether tokens of a prompt are run; must be true for `prefill` and `generate`.
    pub is_prefill: bool,
    /// Sequences; must be 1.
    pub batch_size: usize,
    /// Tokens of the prompt; must be the number given.
    pub seq_len: usize,
    /// Tokens in the cache: 0 begins a new sequence, else it must be the number there is.
    pub cache_len: usize,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Key of the random numbers.
    pub seed: u64,
}

/// Drives a model of any family.
#[derive(Debug)]
pub struct LlamaInferenceAdapter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    model: Model,
    session: Option<Session>,
    sampler: SamplerConfig,
}

impl LlamaInferenceAdapter {
    /// An adapter for a loaded model.
    pub fn new(model: Model) -> Self {
        Self { state: Mutex::new(State { model, session: None, sampler: SamplerConfig::default() }) }
    }
    /// [`LlamaInferenceAdapter::new`], by the name that programs for Phi-3 use.
    pub fn new_phi3(model: Model) -> Self {
        Self::new(model)
    }
    /// [`LlamaInferenceAdapter::new`], by the name that programs for Llama use.
    pub fn new_llama(model: Model) -> Self {
        Self::new(model)
    }
    /// [`LlamaInferenceAdapter::new`], by the name that programs for Qwen2 use.
    pub fn new_qwen2(model: Model) -> Self {
        Self::new(model)
    }
    /// [`LlamaInferenceAdapter::new`], by the name that programs for Qwen3 use.
    pub fn new_qwen3(model: Model) -> Self {
        Self::new(model)
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, InferError> {
        self.state.lock().map_err(|_| InferError::Poisoned)
    }

    /// Bytes that the model takes on its device; the same for its whole life.
    ///
    /// # Errors
    /// A thread panicked while it used the model.
    pub fn get_vram_usage(&self) -> Result<u64, InferError> {
        Ok(self.state()?.model.total_vram_bytes)
    }

    /// Tokens in the cache.
    ///
    /// # Errors
    /// A thread panicked while it used the model.
    pub fn cache_len(&self) -> Result<usize, InferError> {
        Ok(self.state()?.cache_len())
    }

    /// Runs a prompt, or the next part of one, and answers the token that the model would say next.
    ///
    /// # Errors
    /// A field of `config` is not so, a token is unknown, or the prompt does not fit the context.
    pub fn prefill(&self, input_ids: &[u32], config: &AdapterForwardConfig) -> Result<u32, InferError> {
        let mut state = self.state()?;
        state.check(input_ids, config)?;
        if config.cache_len == 0 {
            state.begin()?;
        }
        state.sampler = sampler(config);
        state.advance(input_ids)
    }

    /// Runs one token after those in the cache and answers the token that the model would say next, chosen as the last
    /// prefill asked.
    ///
    /// # Errors
    /// The token is unknown, or the context is full.
    pub fn decode_token(&self, token: u32) -> Result<u32, InferError> {
        let mut state = self.state()?;
        state.model.check_tokens(&[token])?;
        if state.session.is_none() {
            state.begin()?;
        }
        state.advance(&[token])
    }

    /// Continues a prompt by up to `max_tokens` tokens, in a sequence of its own that reserves just these (a long-rope model
    /// chooses its factors by it; `prefill` reserves the whole context, since it cannot know what follows). It ends early at an end-of-generation
    /// token, which is not among those answered, and when the context is full.
    ///
    /// # Errors
    /// A field of `config` is not so, a token is unknown, or the prompt does not fit the context.
    pub fn generate(
        &self,
        input_ids: &[u32],
        max_tokens: usize,
        config: &AdapterForwardConfig,
    ) -> Result<Vec<u32>, InferError> {
        let mut state = self.state()?;
        state.check(input_ids, config)?;
        if config.cache_len != 0 {
            let actual = "generate begins a new sequence".to_owned();
            return Err(mismatch("cache_len", config.cache_len, actual));
        }
        state.end();
        let options = GenerateOptions {
            max_tokens: Some(max_tokens),
            sampler: sampler(config),
            ..GenerateOptions::default()
        };
        let tokens = state.model.generate(input_ids, &options, &mut |_| ControlFlow::Continue(()))?;
        Ok(tokens.ids)
    }
}

fn sampler(config: &AdapterForwardConfig) -> SamplerConfig {
    SamplerConfig { temperature: config.temperature, seed: config.seed, ..SamplerConfig::default() }
}

fn mismatch(field: &'static str, given: impl ToString, actual: String) -> InferError {
    InferError::StateMismatch { field, given: given.to_string(), actual }
}

impl State {
    fn cache_len(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.sequence.len())
    }

    /// Holds the request's fields to the state.
    fn check(&self, input_ids: &[u32], config: &AdapterForwardConfig) -> Result<(), InferError> {
        self.model.check_tokens(input_ids)?;
        let max = self.model.context();
        let requested = config.cache_len.saturating_add(input_ids.len());
        if requested > max {
            return Err(InferError::ContextLengthExceeded { requested, max });
        }
        if !config.is_prefill {
            let actual = "tokens of a prompt are run (decode_token runs generated ones)".to_owned();
            return Err(mismatch("is_prefill", false, actual));
        }
        if config.batch_size != 1 {
            return Err(mismatch("batch_size", config.batch_size, "an adapter runs 1 sequence".to_owned()));
        }
        if config.seq_len != input_ids.len() {
            return Err(mismatch(
                "seq_len",
                config.seq_len,
                format!("{} tokens were given", input_ids.len()),
            ));
        }
        let cached = self.cache_len();
        if config.cache_len != 0 && config.cache_len != cached {
            return Err(mismatch("cache_len", config.cache_len, format!("the cache holds {cached} tokens")));
        }
        Ok(sampler(config).validate()?)
    }

    /// Begins a new sequence over the whole context.
    fn begin(&mut self) -> Result<(), InferError> {
        self.end();
        let context = self.model.context();
        self.session = Some(Session::begin(&mut *self.model.runner, context)?);
        Ok(())
    }

    /// Frees the sequence's place.
    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            self.model.runner.end(session.sequence);
        }
    }

    /// Runs tokens and chooses the next.
    fn advance(&mut self, tokens: &[u32]) -> Result<u32, InferError> {
        let Some(session) = &mut self.session else { return Err(InferError::EmptyPrompt) };
        let history = [&session.cached[..], tokens].concat();
        session.choose(&mut *self.model.runner, tokens, &self.sampler, 0, &history)
    }
}
