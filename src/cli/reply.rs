//! One reply of a model, printed as it comes or as JSON; what `generate` and `chat` share.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use serde_json::{Value, json};

use crate::inference::{GenerateOptions, Generation, InferError, Model, StopReason, Timings};

use super::args::ReplyArgs;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{self, note, print, print_json};

/// Makes replies.
pub(super) struct Replier {
    pub options: GenerateOptions,
    interrupt: Interrupt,
    is_json: bool,
    is_verbose: bool,
}

impl Replier {
    /// Checks the parameters, draws a seed where one is needed, and takes Ctrl-C over.
    pub(super) fn new(args: &ReplyArgs) -> Result<Self, CliError> {
        let needs_seed = args.sampling.needs_seed();
        let sampler = args.sampling.config(if needs_seed { random_seed() } else { 0 });
        sampler.validate().map_err(InferError::from)?;
        if needs_seed {
            note(format_args!("seed {0} (-s {0} repeats this)", sampler.seed));
        }
        let interrupt = Interrupt::install();
        let options = GenerateOptions {
            max_tokens: args.predict.0,
            sampler,
            stop: args.stop.clone(),
            ignore_eos: args.ignore_eos,
            cancel: interrupt.cancel.clone(),
            ..GenerateOptions::default()
        };
        Ok(Self { options, interrupt, is_json: args.json, is_verbose: args.verbose })
    }

    /// Says what loading took, where asked for.
    pub(super) fn note_loading(&self, model: &Model) {
        if self.is_verbose {
            note(output::loading(&model.load_times));
        }
    }

    /// Prints one reply; an error where it was interrupted, after printing what there is.
    pub(super) fn run(
        &self,
        generate: impl FnOnce(&GenerateOptions, &mut dyn FnMut(&str)) -> Result<Generation, InferError>,
    ) -> Result<(), CliError> {
        let mut failure = None;
        let mut on_text = |text: &str| {
            if !self.is_json && failure.is_none() {
                failure = print(text).err();
            }
            if failure.is_some() {
                self.options.cancel.cancel();
            }
        };
        let (generation, was_interrupted) = self.interrupt.during(|| generate(&self.options, &mut on_text));
        if let Some(failure) = failure {
            return Err(failure);
        }
        let generation = generation?;
        if self.is_json {
            print_json(&record(&generation, self.options.sampler.seed))?;
        } else {
            print("\n")?;
        }
        if self.is_verbose {
            note(spent(&generation.timings));
        }
        if was_interrupted { Err(CliError::Interrupted) } else { Ok(()) }
    }
}

/// A seed that is short enough to type again.
pub(super) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// What a reply took, for people.
fn spent(timings: &Timings) -> String {
    let part = |what: &str, n: usize, time: Duration| {
        let rate = n as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE);
        format!("{what} of {n} tokens in {:.2} s, {rate:.2} tokens/s", time.as_secs_f64())
    };
    let prompt = part("prompt", timings.prompt_tokens, timings.prompt);
    format!("{prompt}; {}", part("decode", timings.decoded_tokens, timings.decode))
}

/// A generation as JSON.
fn record(generation: &Generation, seed: u64) -> Value {
    let Generation { prompt_ids, ids, text, stop_reason, timings } = generation;
    let stopped_by = match stop_reason {
        StopReason::EndOfGeneration(token) => json!(token),
        StopReason::StopText(text) => json!(text),
        _ => Value::Null,
    };
    json!({
        "prompt_ids": prompt_ids,
        "ids": ids,
        "text": text,
        "stop_reason": stop_reason.name(),
        "stopped_by": stopped_by,
        "seed": seed,
        "timings": times(timings),
    })
}

fn times(timings: &Timings) -> Value {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let per_second = |n: usize, time: Duration| match n {
        0 => Value::Null,
        _ => json!(n as f64 / time.as_secs_f64()),
    };
    json!({
        "prompt_tokens": timings.prompt_tokens,
        "prompt_ms": milliseconds(timings.prompt),
        "prompt_tokens_per_second": per_second(timings.prompt_tokens, timings.prompt),
        "decoded_tokens": timings.decoded_tokens,
        "decode_ms": milliseconds(timings.decode),
        "decode_tokens_per_second": per_second(timings.decoded_tokens, timings.decode),
    })
}
