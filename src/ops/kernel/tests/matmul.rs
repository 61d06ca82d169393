//! Products over tiles.

use crate::device::EmulatorDevice;
use crate::ops::{Layout, MatrixShape, Norm, Ops, PassLimits};
use crate::quant::Format;

use super::super::KernelOps;
use super::{Random, TILED, matrix, relative_l2, rows, single, weights, workspace};

/// Activations keep 16 bits: the error of a product of random numbers stays far below this.
const MOST_ERROR: f64 = 1e-4;

/// `x · weightsᵀ` in doubles.
fn exact(weights: &[f32], x: &[f32], n_cols: usize) -> Vec<f64> {
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
    ops.project(&x, n, &single(matrix), &mut workspace, &mut out).unwrap();
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
