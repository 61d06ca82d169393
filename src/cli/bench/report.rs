//! Results as Markdown, CSV and JSON, in llama-bench's columns and field names where it has them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::inference::{InferError, LoadOptions, LoadTimes, Model};
use crate::synth::MIXES;
use crate::tokenizer::strftime;

use crate::cli::output::{count, loading, size};
use crate::cli::source::ModelFile;

use super::Outcome;
use super::plot::Point;

/// What all tests share.
pub(super) struct Setting {
    model_filename: String,
    /// Family, size and mix: `phi3 3.82 B Q4_K_M`.
    model_type: String,
    model_bytes: u64,
    n_parameters: u64,
    device: String,
    /// How the processor multiplies; empty where another device does.
    cpu_arithmetic: &'static str,
    gpu: String,
    n_threads: usize,
    chunk: usize,
    kv_type: String,
    /// From opening the file to a model that can run.
    load_time: Duration,
    load_times: LoadTimes,
    /// Bytes a second that the device's memory delivers to an operation that only reads.
    pub bandwidth: f64,
}

impl Setting {
    /// Measures the memory's speed too.
    pub(super) fn new(
        file: &ModelFile,
        options: &LoadOptions,
        n_threads: usize,
        load_time: Duration,
        model: &mut Model,
    ) -> Result<Self, InferError> {
        let n_parameters = model.config.n_parameters();
        let architecture = model.config.architecture.name();
        let device = options.device.resolved_name()?;
        Ok(Self {
            model_filename: file.path.display().to_string(),
            model_type: format!("{architecture} {} {}", count(n_parameters), mix(file)),
            model_bytes: file.gguf.tensors().iter().map(|tensor| tensor.n_bytes).sum(),
            n_parameters,
            cpu_arithmetic: if device == "cpu" { options.cpu_arithmetic.name() } else { "" },
            device,
            gpu: options.device.description()?,
            n_threads,
            chunk: options.chunk,
            kv_type: options.kv_format.name().to_lowercase(),
            load_time,
            load_times: model.load_times,
            bandwidth: model.read_bandwidth()?,
        })
    }

    /// What charts are headed with.
    pub(super) fn title(&self) -> String {
        let device = if self.gpu.is_empty() { cpu_name() } else { self.gpu.clone() };
        let threads =
            if self.device == "cpu" { format!(", {} threads", self.n_threads) } else { String::new() };
        format!("{} on {}{threads}: {device}", self.model_type, self.device)
    }

    /// The outcomes as points of charts.
    pub(super) fn points(&self, outcomes: &[Outcome]) -> Vec<Point> {
        let points = outcomes.iter().map(|outcome| Point {
            name: outcome.test.name(),
            bytes_per_token: outcome.bytes_per_token as f64,
            tokens_per_second: outcome.speed(),
            depth: outcome.test.is_decode().then_some(outcome.test.n_depth as f64),
            n_parallel: outcome.test.n_parallel,
        });
        points.collect()
    }
}

/// The mix of formats that the file names, else the format that most of its bytes have.
fn mix(file: &ModelFile) -> &'static str {
    let file_type = file.gguf.metadata().u32("general.file_type").ok().flatten();
    let row = MIXES.iter().find(|row| Some(row.file_type) == file_type);
    row.map(|row| row.name).unwrap_or_else(|| {
        let mut bytes = std::collections::BTreeMap::new();
        for tensor in file.gguf.tensors() {
            *bytes.entry(tensor.format).or_insert(0) += tensor.n_bytes;
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("", |(format, _)| format.name())
    })
}

/// Mean and standard deviation of a sample.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() })
}

impl Outcome {
    fn nanoseconds(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.as_secs_f64() * 1e9).collect()
    }
    fn tokens_per_second(&self) -> Vec<f64> {
        let n_tokens = self.test.n_tokens() as f64;
        self.samples.iter().map(|sample| n_tokens / sample.as_secs_f64()).collect()
    }
    /// Tokens a second, in the mean.
    fn speed(&self) -> f64 {
        mean_and_deviation(&self.tokens_per_second()).0
    }
    /// What the memory delivered at least, in bytes a second.
    fn rate(&self) -> f64 {
        self.bytes_per_token as f64 * self.speed()
    }
}

const HEAD: &str = "\
| model | size | params | backend | threads | test | t/s | bytes/token | GB/s | ideal t/s | of ideal | peak memory |
| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

pub(super) fn markdown(setting: &Setting, outcomes: &[Outcome]) -> String {
    let mut text = HEAD.to_owned();
    for outcome in outcomes {
        let (speed, deviation) = mean_and_deviation(&outcome.tokens_per_second());
        let cells = [
            setting.model_type.clone(),
            size(setting.model_bytes),
            count(setting.n_parameters),
            format!("{} {}", setting.device, setting.cpu_arithmetic).trim_end().to_owned(),
            setting.n_threads.to_string(),
            outcome.test.name(),
            format!("{speed:.2} ± {deviation:.2}"),
            outcome.bytes_per_token.to_string(),
            format!("{:.2}", outcome.rate() / 1e9),
            format!("{:.2}", setting.bandwidth / outcome.bytes_per_token as f64),
            format!("{:.1} %", 100.0 * outcome.rate() / setting.bandwidth),
            outcome.peak_bytes.map_or_else(|| "-".to_owned(), size),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text += &format!(
        "\nThe memory delivers {:.1} GB/s to an operation that only reads: ideal t/s is that over bytes/token.\n\
         With the opening of the file, {:.2} s; {}.\n",
        setting.bandwidth / 1e9,
        setting.load_time.as_secs_f64(),
        loading(&setting.load_times),
    );
    for outcome in outcomes {
        if let Some(time) = outcome.time_to_first_token {
            let (name, seconds) = (outcome.test.name(), time.as_secs_f64());
            text += &format!("First token of {name} {seconds:.2} s after the file was opened.\n");
        }
    }
    text
}

pub(super) fn json(setting: &Setting, outcomes: &[Outcome]) -> Vec<Map<String, Value>> {
    outcomes.iter().map(|outcome| record(setting, outcome)).collect()
}

/// llama-bench's fields without the samples, quoted, and ours.
pub(super) fn csv(setting: &Setting, outcomes: &[Outcome]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
        cells.join(",") + "\n"
    };
    let mut text = String::new();
    for outcome in outcomes {
        let record = record(setting, outcome);
        let fields: Vec<_> = record.iter().filter(|(_, value)| !value.is_array()).collect();
        if text.is_empty() {
            text += &line(&mut fields.iter().map(|(name, _)| (*name).clone()));
        }
        text += &line(&mut fields.iter().map(|(_, value)| match value {
            Value::Null => String::new(),
            value => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        }));
    }
    text
}

fn record(setting: &Setting, outcome: &Outcome) -> Map<String, Value> {
    let (samples_ns, samples_ts) = (outcome.nanoseconds(), outcome.tokens_per_second());
    let (avg_ns, stddev_ns) = mean_and_deviation(&samples_ns);
    let (avg_ts, stddev_ts) = mean_and_deviation(&samples_ts);
    let LoadTimes { read, copy, repack, .. } = setting.load_times;
    let fields = [
        ("build_commit", json!(env!("CARGO_PKG_VERSION"))),
        ("cpu_info", json!(cpu_name())),
        ("gpu_info", json!(setting.gpu)),
        ("backends", json!(setting.device)),
        ("cpu_arithmetic", json!(setting.cpu_arithmetic)),
        ("model_filename", json!(setting.model_filename)),
        ("model_type", json!(setting.model_type)),
        ("model_size", json!(setting.model_bytes)),
        ("model_n_params", json!(setting.n_parameters)),
        ("n_batch", json!(setting.chunk)),
        ("n_ubatch", json!(setting.chunk)),
        ("n_threads", json!(setting.n_threads)),
        ("type_k", json!(setting.kv_type)),
        ("type_v", json!(setting.kv_type)),
        ("n_prompt", json!(outcome.test.n_prompt)),
        ("n_gen", json!(outcome.test.n_gen)),
        ("n_depth", json!(outcome.test.n_depth)),
        ("test_time", json!(strftime("%Y-%m-%dT%H:%M:%SZ", outcome.unix_seconds).ok())),
        ("avg_ns", json!(avg_ns.round() as u64)),
        ("stddev_ns", json!(stddev_ns.round() as u64)),
        ("avg_ts", json!(avg_ts)),
        ("stddev_ts", json!(stddev_ts)),
        ("samples_ns", samples_ns.iter().map(|ns| ns.round() as u64).collect()),
        ("samples_ts", samples_ts.into()),
        ("test", json!(outcome.test.name())),
        ("n_parallel", json!(outcome.test.n_parallel)),
        ("bytes_per_token", json!(outcome.bytes_per_token)),
        ("gb_per_second", json!(outcome.rate() / 1e9)),
        ("read_bandwidth_gb_per_second", json!(setting.bandwidth / 1e9)),
        ("ideal_ts", json!(setting.bandwidth / outcome.bytes_per_token as f64)),
        ("share_of_ideal", json!(outcome.rate() / setting.bandwidth)),
        ("time_to_first_token_ns", json!(outcome.time_to_first_token.map(nanoseconds))),
        ("load_ns", json!(nanoseconds(setting.load_time))),
        ("load_read_bytes", json!(read.bytes)),
        ("load_read_ns", json!(nanoseconds(read.time))),
        ("load_copy_bytes", json!(copy.bytes)),
        ("load_copy_ns", json!(nanoseconds(copy.time))),
        ("load_repack_bytes", json!(repack.bytes)),
        ("load_repack_ns", json!(nanoseconds(repack.time))),
        ("peak_memory_bytes", json!(outcome.peak_bytes)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Nanoseconds, as llama-bench counts.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The processor's name, empty where the system does not tell.
fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 2.0_f64.sqrt()));
        assert_eq!(mean_and_deviation(&[5.0]), (5.0, 0.0));
    }
}
