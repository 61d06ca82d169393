//! Products over tiles.

use crate::device::{EmulatorDevice, EmulatorOptions};
use crate::ops::{Layout, MatrixShape, Norm, Ops, PassLimits, Projection, ProjectionPart};
use crate::quant::Format;

use super::super::KernelOps;
use super::{Random, TILED, matrix, on_device, relative_l2, rows, single, weights, workspace};

/// Activations keep 16 bits: the error of a product of random numbers stays far below this.
const MOST_ERROR: f64 = 1e-4;

/// `x · weightsᵀ` in doubles.
pub(super) fn exact(weights: &[f32], x: &[f32], n_cols: usize) -> Vec<f64> {
    let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    x.chunks_exact(n_cols).flat_map(|x| weights.chunks_exact(n_cols).map(move |row| dot(row, x))).collect()
}

/// The product of the first `n` rows of `x`, as `project` makes it.
fn product(shape: MatrixShape, bytes: &[u8], x: &[f32], n: usize) -> Vec<f32> {
    let ops = KernelOps::new(EmulatorDevice::default());
    let mut workspace = workspace(&ops, shape.n_cols, PassLimits { rows: n, context: 64 });
    let matrix = matrix(&ops, shape, bytes);
    assert_eq!(matrix.layout, Layout::Tiles);
    let x = rows(ops.device(), shape.n_cols, &x[..n * shape.n_cols]);
    let mut out = rows(ops.device(), shape.n_rows, &vec![0.0; n * shape.n_rows]);
    ops.project(&x, n, &single(matrix), None, &mut workspace, &mut out).unwrap();
    out.download(0, n).unwrap()
}

#[test]
pub(super) fn products_over_tiles_are_right_and_do_not_depend_on_the_batch() {
    let mut random = Random(1);
    for format in TILED {
        for n_cols in [64, 192, 256, 512, 896, 2560] {
            if n_cols % format.block_elements() != 0 {
                continue;
            }
            let shape = MatrixShape { format, n_rows: 144, n_cols };
            let (bytes, values) = weights(&mut random, shape);
            let x = random.floats(41 * n_cols);
            let all = product(shape, &bytes, &x, 41);
            let error = relative_l2(&all, &exact(&values, &x, n_cols));
            println!("{format} {n_cols}: {error:.2e}");
            assert!(error < MOST_ERROR, "{format} {n_cols}: {error:e}");
            for n in [1, 3, 4, 5, 8, 9] {
                let some = product(shape, &bytes, &x, n);
                let same = some.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{format} {n_cols}: {n} tokens");
            }
        }
    }
}

#[test]
pub(super) fn gate_and_up_give_the_same_bits_fused_and_apart() {
    let mut random = Random(2);
    let (n_cols, ffn, n) = (256, 32, 9);
    let ops = KernelOps::new(EmulatorDevice::default());
    let mut workspace = workspace(&ops, n_cols, PassLimits { rows: n, context: 64 });
    let norm = rows(ops.device(), n_cols, &random.floats(n_cols)).values;
    let norm = Norm { weight: norm, eps: 1e-5 };
    let x = rows(ops.device(), n_cols, &random.floats(n * n_cols));
    let shape = |format, n_rows| MatrixShape { format, n_rows, n_cols };
    let (both, _) = weights(&mut random, shape(Format::Q4_K, 2 * ffn));
    let (gate, up) = both.split_at(both.len() / 2);
    let mut run = |projection: &_, n_rows| {
        let mut h = rows(ops.device(), ffn, &vec![f32::NAN; n_rows * ffn]);
        ops.norm_gate_up(&x, n_rows, &norm, projection, &mut workspace, &mut h).unwrap();
        h.download(0, n_rows).unwrap().iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let fused = single(matrix(&ops, shape(Format::Q4_K, 2 * ffn), &both));
    let part = |bytes| matrix(&ops, shape(Format::Q4_K, ffn), bytes);
    let mut apart = single(part(gate));
    apart.parts.extend(single(part(up)).parts);
    // Another format for `up` keeps the two from sharing a kernel; its weights are those of the Q4_K matrix.
    let mut values = vec![0.0; ffn * n_cols];
    Format::Q4_K.dequantize(up, &mut values).unwrap();
    let expected = run(&fused, n);
    assert_eq!(run(&apart, n), expected);
    assert_eq!(run(&fused, 1), expected[..ffn]);
    let mut mixed = single(part(gate));
    let f32_bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    mixed.parts.extend(single(matrix(&ops, shape(Format::F32, ffn), &f32_bytes)).parts);
    let close = run(&mixed, n);
    let as_f64 = |bits: &[u32]| bits.iter().map(|&bits| f64::from(f32::from_bits(bits))).collect::<Vec<_>>();
    let got: Vec<f32> = close.iter().map(|&bits| f32::from_bits(bits)).collect();
    assert!(relative_l2(&got, &as_f64(&expected)) < 1e-5);
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
pub(super) fn matrices_of_several_formats_share_a_launch() {
    let mut random = Random(3);
    let n_cols = 512;
    for formats in [[Format::Q4_K, Format::Q5_K, Format::Q6_K], [Format::Q4_0, Format::Q5_0, Format::Q8_0]] {
        let ops = KernelOps::new(EmulatorDevice::default());
        let mut workspace = workspace(&ops, n_cols, PassLimits { rows: 8, context: 64 });
        let norm = rows(ops.device(), n_cols, &random.floats(n_cols)).values;
        let norm = Norm { weight: norm, eps: 1e-5 };
        let mut part = |format, n_rows| {
            let shape = MatrixShape { format, n_rows, n_cols };
            let (bytes, _) = weights(&mut random, shape);
            let bias = Some(on_device(ops.device(), &random.floats(n_rows)));
            ProjectionPart { matrix: matrix(&ops, shape, &bytes), bias }
        };
        let parts = vec![part(formats[0], 144), part(formats[1], 32), part(formats[2], 48)];
        let x = rows(ops.device(), n_cols, &random.floats(8 * n_cols));
        let mut run = |projection: &Projection<_>, n: usize| {
            let n_rows = projection.n_rows();
            let mut out = rows(ops.device(), n_rows, &vec![f32::NAN; n * n_rows]);
            let before = ops.device().launches();
            ops.norm_project(&x, 0..n, &norm, projection, &mut workspace, &mut out).unwrap();
            assert_eq!(ops.device().launches() - before, 2, "planes and product");
            out.download(0, n).unwrap()
        };
        let together = Projection { parts };
        let width = together.n_rows();
        let expected = [1, 4, 8].map(|n| (n, run(&together, n)));
        let mut first = 0;
        for part in together.parts {
            let MatrixShape { format, n_rows, .. } = part.matrix.shape;
            let alone = Projection { parts: vec![part] };
            for (n, together) in &expected {
                for (row, alone) in run(&alone, *n).chunks_exact(n_rows).enumerate() {
                    let found = &together[row * width + first..][..n_rows];
                    assert_eq!(bits(found), bits(alone), "{format}, row {row} of {n}");
                }
            }
            first += n_rows;
        }
    }
}

/// What an operation leaves in planes for the next is what the next would make of its rows.
#[test]
pub(super) fn rows_left_in_planes_are_those_that_would_be_made() {
    let mut random = Random(4);
    // The last block of columns of x has 64.
    let (hidden, ffn) = (576, 768);
    let shape = |n_rows, n_cols| MatrixShape { format: Format::Q8_0, n_rows, n_cols };
    let shapes = [shape(hidden, ffn), shape(2 * ffn, hidden), shape(hidden, ffn)];
    let bytes = shapes.map(|shape| weights(&mut random, shape).0);
    let (values, before) = (random.floats(8 * ffn), random.floats(8 * hidden));
    let norm_weights = random.floats(hidden);
    let run = |options: EmulatorOptions, n: usize, is_prepared: bool| {
        let ops = KernelOps::new(EmulatorDevice::new(options).unwrap());
        let device = ops.device();
        let mut workspace = workspace(&ops, ffn, PassLimits { rows: n, context: 64 });
        let placed = |index: usize| single(matrix(&ops, shapes[index], &bytes[index]));
        let [first, second, third] = [0, 1, 2].map(placed);
        let norm = Norm { weight: on_device(device, &norm_weights), eps: 1e-5 };
        let a = rows(device, ffn, &values[..n * ffn]);
        let mut x = rows(device, hidden, &before[..n * hidden]);
        let mut h = rows(device, ffn, &vec![f32::NAN; n * ffn]);
        let mut out = rows(device, hidden, &vec![0.0; n * hidden]);
        let launches = device.launches();
        for _ in 0..2 {
            ops.project(&a, n, &first, is_prepared.then_some(&norm), &mut workspace, &mut x).unwrap();
            ops.norm_gate_up(&x, n, &norm, &second, &mut workspace, &mut h).unwrap();
            if is_prepared {
                ops.project(&h, n, &third, None, &mut workspace, &mut out).unwrap();
            } else {
                let h = rows(device, ffn, &h.download(0, n).unwrap());
                ops.project(&h, n, &third, None, &mut workspace, &mut out).unwrap();
            }
        }
        let launches = device.launches() - launches;
        assert_eq!(launches, if is_prepared { 8 } else { 12 }, "products, and planes that nothing left");
        bits(&out.download(0, n).unwrap())
    };
    for n in [1, 5, 8] {
        let expected = run(EmulatorOptions::default(), n, false);
        for shuffle in [None, Some(1), Some(2)] {
            let options = EmulatorOptions { shuffle, poison: true, ..EmulatorOptions::default() };
            assert_eq!(run(options, n, true), expected, "{n} tokens, order {shuffle:?}");
        }
    }
}
