//! Passes without a choice of tokens: what measurements time.

use std::time::Instant;

use crate::kv_cache::Sequence;
use crate::ops::PAGE_TOKENS;

use super::runner::Runner;
use super::{InferError, Model, Timings};

/// What is run in a round, by each of several sequences with the same tokens.
#[derive(Debug, Clone, Copy)]
pub struct Passes<'a> {
    /// Sequences that step together; their prompts run one after the other.
    pub n_sequences: usize,
    /// Tokens that the cache holds before a round begins. They are run once and not timed.
    pub past: &'a [u32],
    /// Tokens that run together.
    pub prompt: &'a [u32],
    /// Tokens that run one by one, those of all sequences together.
    pub decoded: &'a [u32],
}

impl Passes<'_> {
    /// Tokens that one sequence holds at the end.
    fn capacity(&self) -> usize {
        self.past.len() + self.prompt.len() + self.decoded.len()
    }

    /// One round, from caches that hold the past alone.
    fn round(&self, runner: &mut dyn Runner, sequences: &mut [Sequence]) -> Result<Timings, InferError> {
        let tokens = |n: usize| n * sequences.len();
        let mut timings = Timings {
            prompt_tokens: tokens(self.prompt.len()),
            decoded_tokens: tokens(self.decoded.len()),
            ..Timings::default()
        };
        let started = Instant::now();
        if !self.prompt.is_empty() {
            for sequence in sequences.iter_mut() {
                runner.run(sequence, self.prompt)?;
            }
        }
        timings.prompt = started.elapsed();
        let started = Instant::now();
        for token in self.decoded {
            match sequences {
                [sequence] => drop(runner.run(sequence, &[*token])?),
                _ => {
                    let mut batch: Vec<_> = sequences.iter_mut().map(|sequence| (sequence, *token)).collect();
                    runner.step(&mut batch)?;
                }
            }
        }
        timings.decode = started.elapsed();
        Ok(timings)
    }
}

impl Model {
    /// Tokens of context that `n_sequences` sequences of `tokens` tokens each take; saturates.
    pub fn context_of(n_sequences: usize, tokens: usize) -> usize {
        match n_sequences {
            0 | 1 => tokens,
            // Each has pages of its own.
            _ => tokens.div_ceil(PAGE_TOKENS).saturating_mul(PAGE_TOKENS).saturating_mul(n_sequences),
        }
    }

    /// Runs `n_rounds` rounds of `passes` in sequences of their own, choosing no token, and answers the time of each. A
    /// pass is timed until its logits are on the host.
    ///
    /// # Errors
    /// The tokens do not fit the context, or one is not in the vocabulary; there are more sequences than a pass has rows;
    /// or the device failed.
    pub fn run_passes(&mut self, passes: &Passes<'_>, n_rounds: usize) -> Result<Vec<Timings>, InferError> {
        for tokens in [passes.past, passes.prompt, passes.decoded].into_iter().filter(|all| !all.is_empty()) {
            self.check_tokens(tokens)?;
        }
        let runner = &mut *self.runner;
        let mut sequences = Vec::new();
        let mut run = || {
            for _ in 0..passes.n_sequences {
                sequences.push(runner.begin(passes.capacity())?);
            }
            if !passes.past.is_empty() {
                for sequence in &mut sequences {
                    runner.run(sequence, passes.past)?;
                }
            }
            let mut rounds = Vec::new();
            for _ in 0..n_rounds {
                sequences.iter_mut().for_each(|sequence| sequence.truncate(passes.past.len()));
                rounds.push(passes.round(runner, &mut sequences)?);
            }
            Ok(rounds)
        };
        let rounds = run();
        sequences.into_iter().for_each(|sequence| self.runner.end(sequence));
        rounds
    }
}
