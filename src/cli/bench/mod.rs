//! `bench`: llama-bench's tests, with the bytes that the memory delivers for each token.
//!
//! `pp` runs a prompt, `tg` runs tokens one by one from an empty context, `pp+tg` one after the other. Tokens are
//! arbitrary; tokenizing and sampling are not timed. Each test runs once to warm up.

mod profile;
mod report;

use std::time::Duration;

use crate::inference::{LoadOptions, Model};
use crate::memory::MemoryPlan;

use super::args::{BenchArgs, BenchOutput};
use super::error::CliError;
use super::output::{note, print, print_pretty_json};
use super::source::ModelFile;

use report::{Setting, csv, json, markdown};

/// One test: prompt tokens, then generated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
}

/// What a test took.
struct Outcome {
    test: Test,
    /// When it was run, in seconds since 1970.
    unix_seconds: u64,
    samples: Vec<Duration>,
    /// Weights and cached keys and values that one generated token reads, where only such are timed.
    bytes_per_token: Option<u64>,
    /// The most memory that the process has had so far; `None` where the system does not tell.
    peak_bytes: Option<u64>,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let tests = tests(args);
    let file = ModelFile::open(&args.model)?;
    let config = file.config()?;
    let weight_bytes = file.weight_bytes_per_token(&config)?;
    let needed = tests.iter().map(Test::n_tokens).max().unwrap_or(0);
    let needed = needed.max(args.n_prompt.first().unwrap_or(&0) + args.n_gen.first().unwrap_or(&0));
    let options = args.load.options(args.load.context(config.context_length).or(Some(needed)));
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let n_threads = options.n_threads.unwrap_or_else(all);
    let profile = args.profile || args.trace.is_some();
    let options = LoadOptions { n_threads: Some(n_threads), profile, ..options };
    let mut model = file.load(&options)?;
    if profile {
        return profiled(args, &mut model);
    }
    let kv_bytes = MemoryPlan::kv_bytes_per_token(&config, options.kv_format);
    let mut outcomes = Vec::new();
    for test in tests {
        note(format_args!("{}, {} repetitions", test.name(), args.repetitions));
        // The n-th token reads the keys and values of n tokens.
        let kv = kv_bytes * (test.n_gen as u64 + 1) / 2;
        let bytes_per_token = (test.n_prompt == 0).then_some(weight_bytes + kv);
        outcomes.push(test.run(&mut model, args.repetitions.get(), bytes_per_token)?);
    }
    let setting = Setting::new(&file, &config, &options, n_threads)?;
    match args.output {
        BenchOutput::Md => print(markdown(&setting, &outcomes)),
        BenchOutput::Csv => print(csv(&setting, &outcomes)),
        BenchOutput::Json => print_pretty_json(&json(&setting, &outcomes)),
    }
}

/// One round of the first prompt and the first number of tokens, operation by operation.
fn profiled(args: &BenchArgs, model: &mut Model) -> Result<(), CliError> {
    let first = |counts: &[usize]| counts.first().copied().unwrap_or(0);
    let bandwidth = model.read_bandwidth()?;
    let events = profile::events(model, first(&args.n_prompt), first(&args.n_gen))?;
    if let Some(path) = &args.trace {
        profile::write_trace(&events, path)?;
    }
    print(profile::table(&events, bandwidth))
}

fn tests(args: &BenchArgs) -> Vec<Test> {
    let prompts = args.n_prompt.iter().map(|&n_prompt| Test { n_prompt, n_gen: 0 });
    let gens = args.n_gen.iter().map(|&n_gen| Test { n_prompt: 0, n_gen });
    let both = args.prompt_gen.iter().map(|&(n_prompt, n_gen)| Test { n_prompt, n_gen });
    prompts.chain(gens).chain(both).filter(|test| test.n_tokens() > 0).collect()
}

impl Test {
    /// Tokens in all; absurd numbers saturate and are refused with the context that they need.
    fn n_tokens(&self) -> usize {
        self.n_prompt.saturating_add(self.n_gen)
    }

    /// llama-bench's name: `pp512`, `tg128`, `pp512+tg128`.
    fn name(&self) -> String {
        match (self.n_prompt, self.n_gen) {
            (n, 0) => format!("pp{n}"),
            (0, n) => format!("tg{n}"),
            (prompt, gen_) => format!("pp{prompt}+tg{gen_}"),
        }
    }

    fn run(self, model: &mut Model, n: usize, bytes_per_token: Option<u64>) -> Result<Outcome, CliError> {
        let tokens = arbitrary_tokens(self.n_tokens(), model.config.vocab_size);
        let (prompt, decoded) = tokens.split_at(self.n_prompt);
        model.run_passes(prompt, decoded)?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut samples = Vec::new();
        for _ in 0..n {
            let timings = model.run_passes(prompt, decoded)?;
            samples.push(timings.prompt + timings.decode);
        }
        Ok(Outcome {
            test: self,
            unix_seconds: since.map_or(0, |since| since.as_secs()),
            samples,
            bytes_per_token,
            peak_bytes: peak_bytes(),
        })
    }
}

/// Tokens from all over the vocabulary, the same ones each time (splitmix64 of their index).
fn arbitrary_tokens(n: usize, vocab_size: usize) -> Vec<u32> {
    let mixed = |index: u64| {
        let mut z = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..n as u64).map(|index| (mixed(index) % vocab_size as u64) as u32).collect()
}

/// The process's high-water mark of resident memory: `VmHWM` of Linux.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
