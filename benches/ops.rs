//! The matrix product of each format in each arithmetic: one token (decode, bound by the bytes of the weights) and 512
//! (prefill, bound by arithmetic). `cargo bench --bench ops`; `WORKER_ORCD_THREADS` sets the threads.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use worker_orcd::device::{HostDevice, Region};
use worker_orcd::model::ModelConfig;
use worker_orcd::ops::reference::ReferenceOps;
use worker_orcd::ops::{
    Arithmetic, Layout, Matrix, MatrixShape, Ops, PassLimits, Projection, ProjectionPart, Rows, padded_width,
};
use worker_orcd::quant::Format;

/// Rows and columns of Phi-3-mini's attention output.
const WIDTH: usize = 3072;
const PREFILL: usize = 512;
const FORMATS: [Format; 6] =
    [Format::Q4_K, Format::Q5_K, Format::Q6_K, Format::Q8_0, Format::Q4_0, Format::F16];

fn projection(format: Format) -> Projection<HostDevice> {
    let row_bytes = format.row_bytes(WIDTH as u64).unwrap();
    let mut region = Region::allocate(&HostDevice, row_bytes * WIDTH as u64).unwrap();
    // Any bytes are blocks; a small scale everywhere keeps them finite.
    region.as_mut_slice().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 31 % 23) as u8);
    let matrix = Matrix {
        shape: MatrixShape { format, n_rows: WIDTH, n_cols: WIDTH },
        layout: Layout::Blocks,
        blocks: region.typed(),
    };
    Projection { parts: vec![ProjectionPart { matrix, bias: None }] }
}

fn rows(n_rows: usize) -> Rows<HostDevice> {
    let bytes = (n_rows * padded_width(WIDTH) * 4) as u64;
    let mut rows = Rows { values: Region::allocate(&HostDevice, bytes).unwrap().typed(), width: WIDTH };
    rows.values
        .as_mut_slice()
        .iter_mut()
        .enumerate()
        .for_each(|(i, x): (usize, &mut f32)| *x = (i % 7) as f32);
    rows
}

fn project(c: &mut Criterion) {
    for arithmetic in [Arithmetic::Single, Arithmetic::FixedPoint] {
        project_in(c, arithmetic);
    }
}

fn project_in(c: &mut Criterion, arithmetic: Arithmetic) {
    let threads = std::env::var("WORKER_ORCD_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let ops = ReferenceOps::new(threads).unwrap().with_arithmetic(arithmetic);
    let limits = PassLimits { rows: PREFILL, context: 64 };
    let config = ModelConfig::phi3_mini_4k();
    let region = Region::allocate(&HostDevice, ops.workspace_bytes(&config, limits)).unwrap();
    let mut workspace = ops.workspace(&config, limits, region).unwrap();
    let (a, mut x) = (rows(PREFILL), rows(PREFILL));
    for (phase, n_rows) in [("decode", 1), ("prefill", PREFILL)] {
        let mut group = c.benchmark_group(format!("project/{phase}/{}", arithmetic.name()));
        group.sample_size(10);
        for format in FORMATS {
            let projection = projection(format);
            group.throughput(match n_rows {
                1 => Throughput::Bytes(projection.parts[0].matrix.blocks.region().bytes()),
                _ => Throughput::Elements((2 * WIDTH * WIDTH * n_rows) as u64),
            });
            group.bench_function(BenchmarkId::from_parameter(format), |b| {
                b.iter(|| ops.project(&a, n_rows, &projection, None, &mut workspace, &mut x).unwrap());
            });
        }
    }
}

criterion_group!(benches, project);
criterion_main!(benches);
