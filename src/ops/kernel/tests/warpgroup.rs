//! Products of warpgroups: the bits of the kernels of all GPUs.

use crate::device::{EmulatorDevice, EmulatorOptions};
use crate::ops::{MatrixShape, Norm, Ops, PassLimits, Projection, ProjectionPart};
use crate::quant::Format;

use super::super::KernelOps;
use super::{Random, matrix, on_device, rows, single, weights, workspace};

const FORMATS: [Format; 3] = [Format::Q4_K, Format::Q5_K, Format::Q6_K];

fn warpgroups() -> EmulatorOptions {
    EmulatorOptions { warpgroups: true, ..EmulatorOptions::default() }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A matrix, what it multiplies, and what stands in the output before.
struct Product {
    shape: MatrixShape,
    weights: Vec<u8>,
    x: Vec<f32>,
    before: Vec<f32>,
    n_tokens: usize,
}

impl Product {
    fn random(random: &mut Random, shape: MatrixShape, n_tokens: usize) -> Self {
        Self {
            shape,
            weights: weights(random, shape).0,
            x: random.floats(n_tokens * shape.n_cols),
            before: random.floats(n_tokens * shape.n_rows),
            n_tokens,
        }
    }
    /// Bits of the sum of the product and what was there before.
    fn added(&self, options: EmulatorOptions) -> Vec<u32> {
        let Self { shape, n_tokens, .. } = *self;
        let ops = KernelOps::new(EmulatorDevice::new(options).unwrap());
        let mut workspace = workspace(&ops, shape.n_cols, PassLimits { rows: n_tokens, context: 64 });
        let projection = single(matrix(&ops, shape, &self.weights));
        let x = rows(ops.device(), shape.n_cols, &self.x);
        let mut out = rows(ops.device(), shape.n_rows, &self.before);
        ops.project(&x, n_tokens, &projection, None, &mut workspace, &mut out).unwrap();
        bits(&out.download(0, n_tokens).unwrap())
    }
}

#[test]
pub(super) fn products_have_the_bits_of_the_kernels_of_all_gpus() {
    let mut random = Random(31);
    for format in FORMATS {
        // Rows, columns in blocks, tokens: each beside what a block takes, and more than a round of classes and stages.
        for (n_rows, n_blocks, n_tokens) in
            [(16, 1, 9), (144, 8, 64), (128, 9, 65), (272, 2, 130), (64, 17, 33), (48, 3, 200)]
        {
            let shape = MatrixShape { format, n_rows, n_cols: 256 * n_blocks };
            let product = Product::random(&mut random, shape, n_tokens);
            let expected = product.added(EmulatorOptions::default());
            assert!(
                product.added(warpgroups()) == expected,
                "{format} {n_rows} × {n_blocks}, {n_tokens} tokens"
            );
        }
    }
}

/// A matrix whose blocks all have codes and scales of these bytes, and 1 as the half that multiplies the scales.
fn filled(shape: MatrixShape, codes: u8, scales: u8) -> Vec<u8> {
    let block_bytes = shape.format.row_bytes(256).unwrap() as usize;
    let mut block = vec![codes; block_bytes];
    let one = [0x00, 0x3c];
    if shape.format == Format::Q6_K {
        block[192..208].fill(scales);
        block[208..].copy_from_slice(&one);
    } else {
        block[..4].copy_from_slice(&[one, one].concat());
        block[4..16].fill(scales);
    }
    block.repeat(shape.n_rows * shape.n_cols / 256)
}

/// Codes, scales and activations at their ends: nothing overflows.
#[test]
fn the_largest_numbers_are_multiplied_exactly() {
    // The first of a block is the scale's largest; the others are digits of 127 and 0, 127 and -128, -126 and -128, 0 and 127.
    let ends = [1.0, 32384.0 / 32512.0, -32384.0 / 32512.0, 127.0 / 32512.0];
    for format in FORMATS {
        let shape = MatrixShape { format, n_rows: 32, n_cols: 512 };
        for (codes, scales) in [(0xff, 0xff), (0xff, 0x7f), (0x00, 0x80), (0x00, 0x7f), (0xa5, 0x81)] {
            for sign in [1.0_f32, -1.0] {
                let end =
                    |row: usize, column: usize| if column.is_multiple_of(256) { 1.0 } else { ends[row % 4] };
                let x = (0..12 * shape.n_cols).map(|i| sign * end(i / shape.n_cols, i % shape.n_cols));
                let product = Product {
                    shape,
                    weights: filled(shape, codes, scales),
                    x: x.collect(),
                    before: vec![0.0; 12 * shape.n_rows],
                    n_tokens: 12,
                };
                let (found, expected) =
                    (product.added(warpgroups()), product.added(EmulatorOptions::default()));
                assert!(found == expected, "{format}, codes {codes:#x}, scales {scales:#x}");
                assert!(expected.iter().any(|&value| value != 0), "nothing was multiplied");
            }
        }
    }
}

/// A missing wait or barrier would show as another result in another order, memory that nothing wrote when poisoned.
#[test]
fn orders_and_poison_change_no_bit() {
    let mut random = Random(32);
    for format in FORMATS {
        let shape = MatrixShape { format, n_rows: 144, n_cols: 256 * 9 };
        let product = Product::random(&mut random, shape, 70);
        let expected = product.added(warpgroups());
        for (shuffle, poison) in [(Some(1), false), (None, true), (Some(2), true), (Some(3), true)] {
            let found = product.added(EmulatorOptions { shuffle, poison, ..warpgroups() });
            assert!(found == expected, "{format}: order {shuffle:?}, poison {poison}");
        }
    }
}

/// With a norm, and a bias or gate and up; q, k and v of several formats.
#[test]
fn norms_biases_and_gates_change_no_bit() {
    let mut random = Random(33);
    let (n_cols, n) = (512, 37);
    let norm_weights = random.floats(n_cols);
    let x = random.floats(n * n_cols);
    let shape = |format, n_rows| MatrixShape { format, n_rows, n_cols };
    let parts: Vec<_> = [(Format::Q4_K, 144), (Format::Q5_K, 16), (Format::Q6_K, 48)]
        .map(|(format, n_rows)| {
            let shape = shape(format, n_rows);
            (shape, weights(&mut random, shape).0, random.floats(n_rows))
        })
        .into();
    let fused = weights(&mut random, shape(Format::Q4_K, 2 * 48)).0;
    let apart =
        [Format::Q4_K, Format::Q6_K].map(|format| (format, weights(&mut random, shape(format, 48)).0));
    let run = |options: EmulatorOptions| {
        let ops = KernelOps::new(EmulatorDevice::new(options).unwrap());
        let device = ops.device();
        let mut workspace = workspace(&ops, n_cols, PassLimits { rows: n, context: 64 });
        let norm = Norm { weight: on_device(device, &norm_weights), eps: 1e-5 };
        let x = rows(device, n_cols, &x);
        let part = |(shape, bytes, bias): &(MatrixShape, Vec<u8>, Vec<f32>)| {
            let bias = Some(on_device(device, bias));
            ProjectionPart { matrix: matrix(&ops, *shape, bytes), bias }
        };
        let qkv = Projection { parts: parts.iter().map(part).collect() };
        let mut out = rows(device, qkv.n_rows(), &vec![f32::NAN; n * qkv.n_rows()]);
        ops.norm_project(&x, 0..n, &norm, &qkv, &mut workspace, &mut out).unwrap();
        let mut found = bits(&out.download(0, n).unwrap());
        let placed = |(format, bytes): &(Format, Vec<u8>)| matrix(&ops, shape(*format, 48), bytes);
        let mut mixed = single(placed(&apart[0]));
        mixed.parts.extend(single(placed(&apart[1])).parts);
        for gate_up in [single(matrix(&ops, shape(Format::Q4_K, 2 * 48), &fused)), mixed] {
            let mut h = rows(device, 48, &vec![f32::NAN; n * 48]);
            ops.norm_gate_up(&x, n, &norm, &gate_up, &mut workspace, &mut h).unwrap();
            found.extend(bits(&h.download(0, n).unwrap()));
        }
        found
    };
    assert!(run(warpgroups()) == run(EmulatorOptions::default()));
}
