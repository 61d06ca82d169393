//! The plans of the named models: what is planned is what is allocated, and what `docs/memory.md` says.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::counting::{CountingDevice, hollow};
use worker_orcd::device::{allocated_bytes, allocations_made};
use worker_orcd::forward::{self, Engine, EngineOptions, OpsBytes};
use worker_orcd::memory::{MemoryPlan, Purpose};
use worker_orcd::model::{CATALOG, ModelConfig};
use worker_orcd::ops::PassLimits;
use worker_orcd::ops::kernel::KernelOps;
use worker_orcd::quant::Format;
use worker_orcd::synth::Mix;

/// What the kernels ask for, on any device.
fn ops_bytes(config: &ModelConfig, limits: PassLimits) -> OpsBytes {
    type Kernels = KernelOps<CountingDevice>;
    OpsBytes { workspace: Kernels::workspace_bytes_of(config, limits), staging: Kernels::STAGING_BYTES }
}

/// A short context, the usual one, and the model's own.
fn contexts(config: &ModelConfig) -> [usize; 3] {
    [512, 4096.min(config.context_length / 2), config.context_length]
}

fn options(context: usize) -> EngineOptions {
    EngineOptions { kv_format: Format::F16, ..EngineOptions::new(context) }
}

#[test]
fn every_named_model_allocates_its_plan_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    for row in &CATALOG {
        let config = row.config();
        let gguf = hollow(&config, Mix::Q4_K_M, &folder.path().join("model.gguf"));
        for context in contexts(&config) {
            let options = options(context);
            let plan = forward::plan(&config, &gguf, options, |limits| ops_bytes(&config, limits)).unwrap();
            let (bytes, count) = (allocated_bytes(), allocations_made());
            // Loading takes every region of the plan, each once; a region left over or taken twice is an error.
            let ops = KernelOps::new(CountingDevice);
            let engine = Engine::load(ops, config.clone(), &gguf, options, &mut |_, _| {}).unwrap();
            assert_eq!(allocated_bytes() - bytes, plan.total_bytes, "{} at {context}", row.name);
            assert_eq!(allocations_made() - count, 1);
            assert_eq!(engine.plan().rows, plan.rows);
            let sum: u64 = plan.summary().iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(sum, plan.total_bytes);
            drop(engine);
            assert_eq!(allocated_bytes(), bytes);
        }
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.3}", bytes as f64 / f64::from(1 << 30))
}

/// The table of plans, a line for each model and context.
fn table() -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut text =
        "| model | context | weights | cache | KiB a token | all else | total, GiB | total, bytes |\n"
            .to_owned();
    text += "|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in &CATALOG {
        let config = row.config();
        let gguf = hollow(&config, Mix::Q4_K_M, &folder.path().join("model.gguf"));
        for context in contexts(&config) {
            let bytes = |limits| ops_bytes(&config, limits);
            let plan = forward::plan(&config, &gguf, options(context), bytes).unwrap();
            let of = |is: fn(&Purpose) -> bool| -> u64 {
                plan.summary().iter().filter(|(purpose, _)| is(purpose)).map(|(_, bytes)| bytes).sum()
            };
            let weights = of(|purpose| matches!(purpose, Purpose::Weights(_)));
            let cache = of(|purpose| *purpose == Purpose::KvCache);
            text += &format!(
                "| {} | {context} | {} | {} | {} | {} | {} | {} |\n",
                row.name,
                gib(weights),
                gib(cache),
                MemoryPlan::kv_bytes_per_token(&config, Format::F16) / 1024,
                gib(plan.total_bytes - weights - cache),
                gib(plan.total_bytes),
                plan.total_bytes
            );
        }
    }
    text
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/memory.md")
}

/// The page before, within and after the generated table.
fn split(page: &str) -> (&str, &str, &str) {
    let (begin, end) = ("<!-- plans -->\n", "<!-- end of plans -->");
    let first = page.find(begin).unwrap() + begin.len();
    let last = page.find(end).unwrap();
    (&page[..first], &page[first..last], &page[last..])
}

/// With `WORKER_ORCD_WRITE_DOCS` set, writes the table instead.
#[test]
fn the_page_says_what_the_plans_say() {
    let text = std::fs::read_to_string(page()).unwrap();
    let (before, found, after) = split(&text);
    let expected = table();
    if std::env::var_os("WORKER_ORCD_WRITE_DOCS").is_some() {
        std::fs::write(page(), format!("{before}{expected}{after}")).unwrap();
        println!("wrote {}", page().display());
        return;
    }
    assert_eq!(found, expected, "run this test with WORKER_ORCD_WRITE_DOCS=1 to write the table again");
}

#[test]
fn the_arithmetic_of_the_page_is_the_codes() {
    let text = std::fs::read_to_string(page()).unwrap();
    let phi3 = ModelConfig::phi3_mini_4k();
    let token = MemoryPlan::kv_bytes_per_token(&phi3, Format::F16);
    assert_eq!(token, 2 * 32 * 32 * 96 * 2);
    assert!(text.contains(&format!("{} KiB", token / 1024)));
    assert!(text.contains(&format!("{token} bytes")));
    // The slip of the original notes: keys and values of one layer, counted as if they were one number a byte.
    assert!(text.contains("24 KB") && text.contains("98 MB"));
}
