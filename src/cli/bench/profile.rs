//! `bench --profile`: where a pass spends its time, operation by operation, and a trace that browsers draw.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::inference::{Event, Model};

use super::test::Test;
use crate::cli::args::BenchArgs;
use crate::cli::error::CliError;

/// All runs of an operation in one kind of pass.
#[derive(Default)]
struct Sum {
    runs: u64,
    seconds: f64,
    bytes: u64,
}

/// The first prompt and the first number of tokens after it, behind the first depth.
pub(super) fn first(args: &BenchArgs) -> Test {
    let first = |counts: &[usize]| counts.first().copied().unwrap_or(0);
    Test {
        n_prompt: first(&args.n_prompt),
        n_gen: first(&args.n_gen),
        n_depth: first(&args.n_depth),
        n_parallel: args.n_parallel.first().map_or(1, |n| n.get()),
    }
}

/// Runs a test, after a round to warm up, and answers the operations of its passes.
pub(super) fn events(model: &mut Model, test: &Test) -> Result<Vec<Event>, CliError> {
    let tokens = test.arbitrary_tokens(model.config.vocab_size);
    let passes = test.passes(&tokens);
    model.run_passes(&passes, 1)?;
    let past_and_round = model.take_events().len();
    model.run_passes(&passes, 2)?;
    // A second round adds as many events as a round has.
    let mut events = model.take_events();
    let n_round = events.len() - past_and_round;
    Ok(events.split_off(events.len() - n_round))
}

/// A row for each operation of a prompt's passes (more than one row) and of single tokens. `bandwidth` is what the
/// device's memory delivered to a kernel that only reads, in bytes a second, in the same run.
pub(super) fn table(events: &[Event], bandwidth: f64) -> String {
    let mut sums: BTreeMap<(bool, &str), Sum> = BTreeMap::new();
    let mut totals = [0.0; 2];
    for event in events {
        let single = event.rows == 1;
        let sum = sums.entry((single, event.operation)).or_default();
        sum.runs += 1;
        sum.seconds += event.time.as_secs_f64();
        sum.bytes += event.bytes;
        totals[usize::from(single)] += event.time.as_secs_f64();
    }
    let mut text =
        format!("The memory delivers {:.1} GB/s to a kernel that only reads.\n\n", bandwidth / 1e9);
    text += "| pass | operation | runs | µs each | share of time | GB/s | share of the memory's speed |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: |\n";
    for ((single, operation), sum) in sums {
        let speed = sum.bytes as f64 / sum.seconds.max(f64::MIN_POSITIVE);
        text += &format!(
            "| {} | {operation} | {} | {:.1} | {:.1} % | {:.1} | {:.1} % |\n",
            if single { "one row" } else { "prompt" },
            sum.runs,
            1e6 * sum.seconds / sum.runs as f64,
            100.0 * sum.seconds / totals[usize::from(single)].max(f64::MIN_POSITIVE),
            speed / 1e9,
            100.0 * speed / bandwidth,
        );
    }
    text
}

/// The operations in the form of chrome://tracing and Perfetto.
fn trace(events: &[Event]) -> Value {
    let events = events.iter().map(|event| {
        let layer = event.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string());
        json!({
            "name": event.operation,
            "cat": if event.rows == 1 { "one row" } else { "prompt" },
            "ph": "X",
            "ts": event.begin.as_secs_f64() * 1e6,
            "dur": event.time.as_secs_f64() * 1e6,
            "pid": 1,
            "tid": 1,
            "args": {"layer": layer, "rows": event.rows, "bytes": event.bytes},
        })
    });
    json!({"traceEvents": events.collect::<Vec<_>>(), "displayTimeUnit": "ns"})
}

/// Writes the trace to a file.
pub(super) fn write_trace(events: &[Event], path: &Path) -> Result<(), CliError> {
    std::fs::write(path, trace(events).to_string())
        .map_err(|source| CliError::WriteFile { path: path.to_path_buf(), source })
}
