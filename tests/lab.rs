//! The variants of the decode loop (`kernels/lab`) beside each other on a device: that they agree there, and how fast they are.
//! On a GPU: `WORKER_ORCD_TEST_DEVICE=cuda:0 cargo test --release --features lab --test lab -- --nocapture`.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::device::kernel_devices_or_skip;
use worker_orcd::device::{CudaDevice, Launch, Region};
use worker_orcd::inference::DeviceChoice;
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::kernel::lab::{Activations, VARIANTS, Variant};
use worker_orcd::ops::kernel::{KernelOps, Workspace};
use worker_orcd::ops::{Matrix, MatrixShape, Ops, OpsError, PassLimits, Rows, padded_width};
use worker_orcd::quant::Format;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Rows and columns of matrices.
    shapes: &'static [[usize; 2]],
    /// Bytes of weights that a round of launches reads, at least.
    bytes: u64,
    /// Seconds of a measurement, at least.
    seconds: f64,
}

/// Phi-3-mini's attention output, gate or up, and down; Llama 3.1 8B's down and logits. A round reads more than a GPU's caches
/// hold.
const ON_GPU: Extent = Extent {
    shapes: &[[3072, 3072], [8192, 3072], [3072, 8192], [4096, 14336], [128256, 4096]],
    bytes: 512 << 20,
    seconds: 0.05,
};
/// Where time says nothing: each path once.
const ON_HOST: Extent = Extent { shapes: &[[64, 512]], bytes: 64 << 10, seconds: 0.0 };

/// What the stand-in for the driver calls its GPU.
const STAND_IN_NAME: &str = "stand-in";

/// Byte `at` of Q4_K blocks with random codes and scales; d and dmin are about 2^-8.
fn weight_byte(at: u64) -> u8 {
    const BLOCK_BYTES: u64 = 144;
    match at % BLOCK_BYTES {
        1 | 3 => 0x1c,
        _ => (at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 41) as u8,
    }
}

/// Random numbers from -1 to 1, now and then a large one.
fn activations(n: usize) -> Vec<f32> {
    let activation = |index: usize| {
        let hash = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (hash as f32 / (1 << 23) as f32 - 1.0) * if index.is_multiple_of(300) { 20.0 } else { 1.0 }
    };
    (0..n).map(activation).collect()
}

/// A matrix several times over: launch after launch reads another, so that no cache has it.
struct Copies<D: Launch> {
    all: Matrix<D>,
    n_rows: usize,
    n_copies: usize,
}

impl<D: Launch> Copies<D> {
    fn new(ops: &KernelOps<D>, [n_rows, n_cols]: [usize; 2], least_bytes: u64) -> Self {
        let bytes = n_rows as u64 * Format::Q4_K.row_bytes(n_cols as u64).unwrap();
        let n_copies = least_bytes.div_ceil(bytes) as usize;
        let shape = MatrixShape { format: Format::Q4_K, n_rows: n_rows * n_copies, n_cols };
        let into = Region::allocate(ops.device(), bytes * n_copies as u64).unwrap();
        let mut staging = Region::allocate(ops.device(), ops.staging_bytes()).unwrap();
        let all = ops.load_matrix(shape, into, &mut staging, |offset, piece| {
            (offset..).zip(piece).for_each(|(at, byte)| *byte = weight_byte(at));
            Ok::<_, OpsError>(())
        });
        Self { all: all.unwrap(), n_rows, n_copies }
    }
    fn bytes(&self) -> u64 {
        self.all.blocks.region().bytes()
    }
}

fn rows<D: Launch>(ops: &KernelOps<D>, width: usize, values: &[f32]) -> Rows<D> {
    assert_eq!(width, padded_width(width));
    let region = Region::allocate(ops.device(), size_of_val(values) as u64).unwrap();
    let mut rows = Rows { values: region.typed(), width };
    rows.values.upload(values, 0).unwrap();
    rows
}

/// Seconds of a round of launches, recorded where the device can: the best of five measurements.
fn time<D: Launch>(device: &D, seconds: f64, mut round: impl FnMut() -> Result<(), OpsError>) -> f64 {
    let graph = device.record(&mut round).unwrap();
    let mut run = |n_rounds: u32| {
        device.synchronize().unwrap();
        let started = Instant::now();
        for _ in 0..n_rounds {
            match &graph {
                Some(graph) => device.replay(graph).unwrap(),
                None => round().unwrap(),
            }
        }
        device.synchronize().unwrap();
        started.elapsed().as_secs_f64() / f64::from(n_rounds)
    };
    let n_rounds = (seconds / run(1).max(1e-6)).clamp(1.0, 1000.0).ceil() as u32;
    (0..5).map(|_| run(n_rounds)).fold(f64::INFINITY, f64::min)
}

/// What a variant makes of the first `n` rows of `x` and the first copy, and the bytes of weights a second.
fn product<D: Launch>(
    ops: &KernelOps<D>,
    weights: &Copies<D>,
    (variant, how, n): (Variant, Activations, usize),
    x: &[f32],
    seconds: f64,
    workspace: &mut Workspace<D>,
) -> (Vec<f32>, f64) {
    let (n_rows, n_cols) = (weights.n_rows, weights.all.shape.n_cols);
    let x: Vec<f32> = x.chunks_exact(n_cols).take(n).flat_map(|row| how.round(row)).collect();
    let x = rows(ops, n_cols, &x);
    let mut out = rows(ops, n_rows, &vec![f32::NAN; n * n_rows]);
    let fed = ops.feed(variant, &x, n, workspace).unwrap();
    let seconds = time(ops.device(), seconds, || {
        let mut copies = (0..weights.n_copies).rev();
        copies.try_for_each(|copy| {
            ops.product_by(&fed, &weights.all, copy * n_rows..(copy + 1) * n_rows, &mut out)
        })
    });
    (out.download(0, n).unwrap(), weights.bytes() as f64 / seconds)
}

/// Every variant on every shape, for one token and for as many as it takes: one line each. Fed the same, integers give the
/// product's bits, halves nearly its values.
fn compare<D: Launch>(ops: &KernelOps<D>, extent: Extent) {
    println!(
        "on {}: rows, columns, tokens, kernel, GB/s of weights, share of what reading alone gets",
        ops.device().name()
    );
    let mut disagreements = Vec::new();
    for &shape in extent.shapes {
        let (weights, [n_rows, n_cols]) = (Copies::new(ops, shape, extent.bytes), shape);
        let config = ModelConfig { hidden_dim: n_cols, ffn_dim: n_cols, ..ModelConfig::phi3_mini_4k() };
        let limits = PassLimits { rows: 8, context: 64 };
        let region = Region::allocate(ops.device(), ops.workspace_bytes(&config, limits)).unwrap();
        let mut workspace = ops.workspace(&config, limits, region).unwrap();
        let reading =
            time(ops.device(), extent.seconds, || ops.read_all(weights.all.blocks.region(), &mut workspace));
        let reading = weights.bytes() as f64 / reading;
        let x = activations(8 * n_cols);
        for variant in VARIANTS {
            let mut tokens = vec![1, variant.tokens];
            tokens.dedup();
            for n in tokens {
                let mut run = |by: Variant, seconds| {
                    let what = (by, variant.activations, n);
                    product(ops, &weights, what, &x, seconds, &mut workspace)
                };
                let (expected, _) = run(VARIANTS[0], 0.0);
                let (found, speed) = run(variant, extent.seconds);
                let (kernel, gigabytes, share) = (variant.kernel, speed / 1e9, speed / reading);
                println!("{n_rows:6} {n_cols:5} {n} {kernel:20} {gigabytes:7.1} {share:5.3}");
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                let agrees = match variant.activations {
                    Activations::Halves => relative_l2(&found, &expected) < 1e-6,
                    _ => bits(&found) == bits(&expected),
                };
                if !agrees {
                    let error = relative_l2(&found, &expected);
                    disagreements.push(format!("{kernel}, {n_rows} x {n_cols}, {n} tokens: {error:e}"));
                }
            }
        }
    }
    assert!(disagreements.is_empty(), "not the product's results: {disagreements:#?}");
}

fn relative_l2(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let both = found.iter().zip(expected);
    let difference = squares(&mut both.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (difference / squares(&mut expected.iter().map(|&value| f64::from(value)))).sqrt()
}

#[test]
fn variants_agree_and_are_timed() {
    for device in kernel_devices_or_skip("lab") {
        match device {
            DeviceChoice::Cuda(ordinal) => {
                let device = CudaDevice::new(ordinal).unwrap();
                let is_gpu = device.facts().name != STAND_IN_NAME;
                compare(&KernelOps::new(device), if is_gpu { ON_GPU } else { ON_HOST });
            }
            #[cfg(feature = "emulator")]
            DeviceChoice::Emulator => {
                compare(&KernelOps::new(worker_orcd::device::EmulatorDevice::default()), ON_HOST);
            }
            _ => {}
        }
    }
}

/// The way of a GPU, where the driver is the stand-in (see `tests/driver.rs`).
#[cfg(feature = "emulator")]
#[test]
fn the_way_of_a_gpu_runs_on_the_stand_in() {
    const STAND_IN: &str = env!("WORKER_ORCD_STAND_IN_DRIVER");
    if STAND_IN.is_empty() || CudaDevice::kernel_names().next().is_none() {
        println!("skipped: this build has no compiled CUDA kernels, or no stand-in for the driver");
        return;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "variants_agree_and_are_timed", "--nocapture"]);
    command.env("LD_LIBRARY_PATH", STAND_IN).env_remove("CUDA_VISIBLE_DEVICES");
    let output = command.env("WORKER_ORCD_TEST_DEVICE", "cuda:0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let on_gpu = said.split("on cuda:0").nth(1).unwrap();
    for variant in VARIANTS {
        assert!(on_gpu.contains(variant.kernel), "{said}");
    }
}
