//! `bench`: llama-bench's tests, with the bytes that the memory delivers for each token.
//!
//! `pp` runs a prompt, `tg` runs tokens one by one, `pp+tg` one after the other; `@ d` starts behind so many tokens,
//! `x` is how many sequences step together. Tokens are arbitrary; tokenizing and sampling are not timed. Each test runs
//! once to warm up.

mod plot;
mod profile;
mod report;
mod svg;
mod test;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::inference::{InferError, LoadOptions, Model};
use crate::memory::MemoryPlan;

use super::args::{BenchArgs, BenchOutput};
use super::error::CliError;
use super::output::{note, print, print_pretty_json};
use super::source::ModelFile;

use report::{Setting, csv, json, markdown};
use test::{Test, Traffic, tests};

/// What a test took.
struct Outcome {
    test: Test,
    /// When it was run, in seconds since 1970.
    unix_seconds: u64,
    samples: Vec<Duration>,
    /// What a token reads at least, in the mean of those that are timed.
    bytes_per_token: u64,
    /// From opening the file to the logits of the prompt, run for the first time; where the test is a prompt in an empty
    /// context.
    time_to_first_token: Option<Duration>,
    /// The most memory that the process has had so far; `None` where the system does not tell.
    peak_bytes: Option<u64>,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let profile = args.profile || args.trace.is_some();
    let tests = if profile { vec![profile::first(args)] } else { tests(args) };
    let file = ModelFile::open(&args.model)?;
    let config = file.config()?;
    let needed = tests.iter().map(Test::context).max().unwrap_or(0);
    let context = args.load.context(config.context_length).unwrap_or(needed);
    if needed > context {
        return Err(InferError::ContextLengthExceeded { requested: needed, max: context }.into());
    }
    let options = args.load.options(Some(context));
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let n_threads = options.n_threads.unwrap_or_else(all);
    // The logits of a step are then one product.
    let logits_rows = tests.iter().map(|test| test.n_parallel).max().unwrap_or(1);
    let options = LoadOptions { n_threads: Some(n_threads), profile, logits_rows, ..options };
    let mut model = file.load(&options)?;
    let load_time = started.elapsed();
    if profile && let [test] = &tests[..] {
        return profiled(args, test, &mut model);
    }
    if tests.is_empty() {
        note("every test is of 0 tokens");
    }
    let setting = Setting::new(&file, &options, n_threads, load_time, &mut model)?;
    let kv = MemoryPlan::kv_bytes_per_token(&config, options.kv_format);
    let traffic = Traffic { weights: file.weight_bytes(&config)?, kv, chunk: options.chunk };
    let mut outcomes = Vec::new();
    for test in tests {
        note(format_args!("{}, {} repetitions", test.name(), args.repetitions));
        let bytes = traffic.bytes(&test);
        outcomes.push(test.run(&mut model, args.repetitions.get(), bytes, load_time)?);
    }
    if let Some(folder) = &args.plot {
        write_plots(folder, &setting, &outcomes)?;
    }
    match args.output {
        BenchOutput::Md => print(markdown(&setting, &outcomes)),
        BenchOutput::Csv => print(csv(&setting, &outcomes)),
        BenchOutput::Json => print_pretty_json(&json(&setting, &outcomes)),
    }
}

/// One round of the first prompt and the first number of tokens, operation by operation.
fn profiled(args: &BenchArgs, test: &Test, model: &mut Model) -> Result<(), CliError> {
    let bandwidth = model.read_bandwidth()?;
    let events = profile::events(model, test)?;
    if let Some(path) = &args.trace {
        profile::write_trace(&events, path)?;
    }
    print(profile::table(&events, bandwidth))
}

impl Test {
    fn run(self, model: &mut Model, n: usize, bytes: u64, load_time: Duration) -> Result<Outcome, CliError> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let tokens = self.arbitrary_tokens(model.config.vocab_size);
        let rounds = model.run_passes(&self.passes(&tokens), 1 + n)?;
        let is_first = self.n_prompt > 0 && self.n_depth == 0 && self.n_parallel == 1;
        let first = rounds.first().filter(|_| is_first).map(|round| load_time + round.prompt);
        Ok(Outcome {
            test: self,
            unix_seconds: since.map_or(0, |since| since.as_secs()),
            samples: rounds.iter().skip(1).map(|round| round.prompt + round.decode).collect(),
            bytes_per_token: bytes / self.n_tokens() as u64,
            time_to_first_token: first,
            peak_bytes: peak_bytes(),
        })
    }
}

/// Writes the charts that the outcomes have points for.
fn write_plots(folder: &Path, setting: &Setting, outcomes: &[Outcome]) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CliError::WriteFile { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let points = setting.points(outcomes);
    let title = setting.title();
    let charts = [
        ("roofline.svg", plot::roofline(&title, &points, setting.bandwidth)),
        ("decode-depth.svg", plot::decode_by_depth(&title, &points, setting.bandwidth)),
    ];
    for (name, chart) in charts {
        let path = folder.join(name);
        match chart {
            Some(chart) => std::fs::write(&path, chart).map_err(failed(&path))?,
            None => note(format_args!("{name} has no points; not written")),
        }
    }
    Ok(())
}

/// The process's high-water mark of resident memory: `VmHWM` of Linux.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
