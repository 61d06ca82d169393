//! What the emulator takes for a switch between the threads of a block, and for a product of a warp on the emulated tensor
//! cores. `cargo bench --features emulator --bench emulator`.
#![allow(missing_docs, clippy::unwrap_used)]

use bytemuck::NoUninit;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use worker_orcd::device::{Buffer, EmulatorDevice, EmulatorOptions, Grid, Launch, Region};

const ROUNDS: u32 = 1000;

/// `SelftestParams` of `kernels/emulator/selftest.cu`.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct Params {
    input: u64,
    output: u64,
    n: u32,
    unused: u32,
}

/// Eight warps on one thread of the system: a kernel, what it is about, and how often a round of a block does it.
fn costs(criterion: &mut Criterion) {
    let options = EmulatorOptions { n_threads: Some(1), ..EmulatorOptions::default() };
    let device = EmulatorDevice::new(options).unwrap();
    let words = |n: u64| -> Buffer<EmulatorDevice, u32> { Region::allocate(&device, 4 * n).unwrap().typed() };
    let (input, output) = (words(8), words(256));
    let params = Params { input: input.address(), output: output.address(), n: ROUNDS, unused: 0 };
    let grid = Grid { blocks: [1; 3], threads: 256, shared_bytes: 0 };
    let mut group = criterion.benchmark_group("emulator");
    for (kernel, what, per_round) in
        [("selftest_many_meetings", "switch", 256), ("selftest_many_products", "product", 8)]
    {
        group.throughput(Throughput::Elements(u64::from(ROUNDS) * per_round));
        group.bench_function(what, |bencher| bencher.iter(|| device.launch(kernel, grid, &params).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
