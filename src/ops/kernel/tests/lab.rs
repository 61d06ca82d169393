//! The variants of the decode loop (`kernels/lab`): their bits, and their errors.

use std::ops::Range;

use crate::device::{EmulatorDevice, EmulatorOptions};
use crate::ops::{MatrixShape, Ops, PassLimits};
use crate::quant::Format;

use super::super::KernelOps;
use super::super::lab::{Activations, VARIANTS, Variant};
use super::matmul::{bits, exact};
use super::{Random, matrix, relative_l2, rows, weights, workspace};

/// Rows that are no multiple of the blocks that run at a time.
const N_ROWS: usize = 208;

fn named(kernel: &str) -> Variant {
    VARIANTS.into_iter().find(|variant| variant.kernel == kernel).unwrap()
}

/// What the first `n` rows of `x` become by a variant.
fn product(
    options: &EmulatorOptions,
    variant: Variant,
    n_cols: usize,
    bytes: &[u8],
    x: &[f32],
    n: usize,
) -> Vec<f32> {
    let ops = KernelOps::new(EmulatorDevice::new(options.clone()).unwrap());
    let mut workspace = workspace(&ops, n_cols, PassLimits { rows: n, context: 64 });
    let matrix = matrix(&ops, MatrixShape { format: Format::Q4_K, n_rows: N_ROWS, n_cols }, bytes);
    let x = rows(ops.device(), n_cols, &x[..n * n_cols]);
    let mut out = rows(ops.device(), N_ROWS, &vec![f32::NAN; n * N_ROWS]);
    let fed = ops.feed(variant, &x, n, &mut workspace).unwrap();
    ops.product_by(&fed, &matrix, 0..N_ROWS, &mut out).unwrap();
    out.download(0, n).unwrap()
}

/// Numbers that are about normally distributed; with `outliers` column 100 of each 256 is 20 times as large.
fn activations(random: &mut Random, n: usize, outliers: bool) -> Vec<f32> {
    let mut values: Vec<f32> = (0..n).map(|_| (0..12).map(|_| random.uniform()).sum::<f32>() / 2.0).collect();
    if outliers {
        values.iter_mut().skip(100).step_by(256).for_each(|value| *value *= 20.0);
    }
    values
}

fn round(how: Activations, x: &[f32], n_cols: usize) -> Vec<f32> {
    x.chunks(n_cols).flat_map(|row| how.round(row)).collect()
}

/// Fed the same rows, variants on integers give the product's bits and halves come as near as a sum of singles does, for as
/// many tokens as they take, rows of fewer blocks than there are warps, and any order of warps.
#[test]
pub(super) fn variants_keep_what_they_promise() {
    let mut random = Random(41);
    let shuffled = EmulatorOptions { shuffle: Some(5), poison: true, ..EmulatorOptions::default() };
    for n_cols in [256, 768, 3072] {
        let shape = MatrixShape { format: Format::Q4_K, n_rows: N_ROWS, n_cols };
        let (bytes, _) = weights(&mut random, shape);
        let x = activations(&mut random, 8 * n_cols, true);
        for variant in VARIANTS {
            let rounded = round(variant.activations, &x, n_cols);
            let n = variant.tokens;
            let of_product = product(&EmulatorOptions::default(), VARIANTS[0], n_cols, &bytes, &rounded, n);
            for n in [1, n.min(3), n] {
                let found = product(&shuffled, variant, n_cols, &bytes, &rounded, n);
                let expected = &of_product[..n * N_ROWS];
                let name = variant.kernel;
                if variant.activations == Activations::Halves {
                    let wide: Vec<f64> = expected.iter().map(|&value| f64::from(value)).collect();
                    let error = relative_l2(&found, &wide);
                    assert!(error < 3e-7, "{name}, {n_cols} columns, {n} tokens: {error:e}");
                } else {
                    assert!(bits(&found) == bits(expected), "{name}, {n_cols} columns, {n} tokens");
                }
            }
        }
    }
}

/// The errors of each kind of activations, without outliers and with them, are as large as `docs/kernels.md` says, and no
/// smaller: a variant that is better than its kind is not of it.
#[test]
fn errors_are_those_of_the_activations() {
    let mut random = Random(42);
    let n_cols = 3072;
    let shape = MatrixShape { format: Format::Q4_K, n_rows: N_ROWS, n_cols };
    let (bytes, values) = weights(&mut random, shape);
    let [of_product, int8, half] = ["matmul_decode_q4_k", "lab_dot_int8", "lab_mma_half"].map(named);
    for (variant, outliers, least, most) in [
        (of_product, false, 2e-5, 4e-5),
        (of_product, true, 7e-5, 1.5e-4),
        (int8, false, 5e-3, 1e-2),
        (int8, true, 2e-2, 4e-2),
        (half, false, 1e-4, 3e-4),
        (half, true, 1e-4, 3e-4),
    ] {
        let x = activations(&mut Random(43), n_cols, outliers);
        let rounded = round(variant.activations, &x, n_cols);
        let found = product(&EmulatorOptions::default(), variant, n_cols, &bytes, &rounded, 1);
        let (name, error) = (variant.kernel, relative_l2(&found, &exact(&values, &x, n_cols)));
        println!("{name}, outliers {outliers}: {error:.2e}");
        assert!((least..most).contains(&error), "{name}, outliers {outliers}: {error:e}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (ops, n_cols) = (KernelOps::new(EmulatorDevice::default()), 256);
    let mut random = Random(44);
    let mut matrix = |format, n_rows| {
        let shape = MatrixShape { format, n_rows, n_cols };
        matrix(&ops, shape, &weights(&mut random, shape).0)
    };
    let fits = matrix(Format::Q4_K, 32);
    let mut workspace = workspace(&ops, n_cols, PassLimits { rows: 8, context: 64 });
    let x = rows(ops.device(), n_cols, &vec![1.0; 2 * n_cols]);
    assert!(ops.feed(named("lab_dot_int8"), &x, 2, &mut workspace).is_err(), "more tokens than it takes");
    assert!(ops.feed(VARIANTS[0], &x, 3, &mut workspace).is_err(), "more rows than there are");
    let fed = ops.feed(VARIANTS[0], &x, 2, &mut workspace).unwrap();
    let product = |matrix: &_, of: Range<usize>, n: usize| {
        let mut out = rows(ops.device(), of.len(), &vec![0.0; n * of.len().max(1)]);
        ops.product_by(&fed, matrix, of, &mut out)
    };
    assert!(product(&fits, 16..32, 2).is_ok());
    for of in [0..8, 8..24, 32..48] {
        assert!(product(&fits, of.clone(), 2).is_err(), "rows {of:?}");
    }
    assert!(product(&fits, 0..32, 1).is_err(), "less room than tokens");
    assert!(product(&matrix(Format::Q5_K, 32), 0..32, 2).is_err(), "another format");
    assert!(product(&matrix(Format::Q4_K, 24), 0..16, 2).is_err(), "not in tiles");
}
