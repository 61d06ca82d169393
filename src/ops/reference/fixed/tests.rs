//! Products in fixed point against exact sums, and to the bit between instruction sets, threads and numbers of tokens.

#![allow(clippy::unwrap_used)]

use crate::ops::MatrixShape;
use crate::ops::reference::matmul::{Target, scratch_floats};
use crate::ops::reference::simd::InstructionSet;
use crate::ops::reference::threads::{Queue, SharedColumns, Workers};
use crate::quant::Format;

use super::{Activations, Product, floats, takes, work};

const FORMATS: [Format; 6] =
    [Format::Q4_0, Format::Q5_0, Format::Q8_0, Format::Q4_K, Format::Q5_K, Format::Q6_K];

/// One block, units that are whole and not, blocks of activations that are whole and not.
fn widths(format: Format) -> &'static [usize] {
    if format.block_elements() == 256 { &[256, 512, 768, 2304] } else { &[32, 224, 512, 896, 1056] }
}

struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }
    fn float(&mut self) -> f32 {
        (i32::from(self.byte()) * 256 + i32::from(self.byte()) - 32768) as f32 / 8192.0
    }
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

#[derive(Clone)]
struct Case {
    shape: MatrixShape,
    blocks: Vec<u8>,
    bias: Vec<f32>,
    x: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, format: Format, (n_rows, n_cols): (usize, usize), n_tokens: usize) -> Self {
        let mut blocks = vec![0; n_rows * format.row_bytes(n_cols as u64).unwrap() as usize];
        format.quantize(&random.floats(n_rows * n_cols), &mut blocks).unwrap();
        let (bias, x) = (random.floats(n_rows), random.floats(n_tokens * n_cols));
        Self { shape: MatrixShape { format, n_rows, n_cols }, blocks, bias, x }
    }
    /// The product of tokens `first..first + n`, added to ones: `[n, rows]`.
    fn run(&self, set: InstructionSet, n_threads: usize, first: usize, n: usize) -> Vec<f32> {
        let MatrixShape { n_rows, n_cols, .. } = self.shape;
        let workers = Workers::new(n_threads).unwrap();
        let x = &self.x[first * n_cols..(first + n) * n_cols];
        let mut memory = vec![f32::NAN; floats(n, n_cols)];
        let mut scratch = vec![f32::NAN; n_threads * scratch_floats(n_cols)];
        let mut out = vec![1.0; n * n_rows];
        let target =
            Target { out: SharedColumns::new(&mut out, n_rows), bias: Some(&self.bias), accumulate: true };
        let x = Activations::new(&workers, set, (x, n, n_cols), &mut memory);
        let product = Product { x, shape: self.shape, blocks: &self.blocks };
        let rows = Queue::new(n_rows, n_threads);
        workers.each(&mut scratch, |scratch| work(set, product, &rows, scratch, target));
        out
    }
    /// What `run` approaches, of dequantised weights and these activations, in f64.
    fn exact(&self, x: &[f64]) -> Vec<f64> {
        let MatrixShape { format, n_rows, n_cols } = self.shape;
        let mut weights = vec![0.0; n_rows * n_cols];
        format.dequantize(&self.blocks, &mut weights).unwrap();
        let row_of = |x: &[f64], weights: &[f32]| -> f64 {
            weights.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum()
        };
        let tokens = x.chunks_exact(n_cols);
        let rows = |x| weights.chunks_exact(n_cols).map(move |weights| row_of(x, weights));
        tokens.flat_map(|x| rows(x).zip(&self.bias).map(|(sum, bias)| sum + f64::from(*bias) + 1.0)).collect()
    }
}

/// Activations as they are rounded: `scale · code`, by the definition of `kernels/include/quantize.cuh`.
fn rounded(x: &[f32], n_cols: usize) -> Vec<f64> {
    let blocks = x.chunks_exact(n_cols).flat_map(|row| row.chunks(256));
    let of_block = |block: &[f32]| -> Vec<f64> {
        let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let (inverse, scale) = (32512.0 / largest, f64::from(largest / 32512.0));
        block.iter().map(|x| scale * f64::from((x * inverse).round_ties_even())).collect()
    };
    blocks.flat_map(of_block).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    // A NaN's sign and payload are nobody's business.
    values.iter().map(|value| if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }).collect()
}

/// `|found - expected| / |expected|`.
fn relative_l2(found: &[f32], expected: &[f64]) -> f64 {
    let squares: f64 = expected.iter().map(|value| value.powi(2)).sum();
    let errors = found.iter().zip(expected).map(|(found, expected)| (f64::from(*found) - expected).powi(2));
    (errors.sum::<f64>() / squares).sqrt()
}

#[test]
fn the_formats_are_those_with_codes() {
    for row in &crate::quant::FORMATS {
        assert_eq!(takes(row.format), FORMATS.contains(&row.format), "{}", row.name);
    }
}

#[test]
fn a_product_is_exact_but_for_its_activations() {
    let mut random = Random(1);
    for format in FORMATS {
        for &width in widths(format) {
            for n_tokens in [1, 5, 40] {
                let case = Case::new(&mut random, format, (50, width), n_tokens);
                let found = case.run(InstructionSet::available()[0], 1, 0, n_tokens);
                // Sums of singles, each within 2^-24 of its terms.
                let error = relative_l2(&found, &case.exact(&rounded(&case.x, width)));
                assert!(error < 1e-6, "{format} {width} {n_tokens}: {error:e} off the rounded activations");
                // Half a step of 65024 to the largest value, here 4, of a root mean square of 2.3.
                let x: Vec<f64> = case.x.iter().map(|x| f64::from(*x)).collect();
                let error = relative_l2(&found, &case.exact(&x));
                assert!(error < 2.0 / 65024.0, "{format} {width} {n_tokens}: {error:e}");
            }
        }
    }
}

#[test]
fn bits_are_the_same_on_every_instruction_set_and_number_of_threads() {
    let mut random = Random(2);
    for format in FORMATS {
        for &width in widths(format) {
            for (n_rows, n_tokens) in [(1, 1), (7, 3), (55, 4), (1, 5), (55, 16), (13, 33), (100, 50)] {
                let case = Case::new(&mut random, format, (n_rows, width), n_tokens);
                let expected = bits(&case.run(InstructionSet::Portable, 1, 0, n_tokens));
                for set in InstructionSet::available() {
                    for n_threads in [1, 3] {
                        let found = bits(&case.run(set, n_threads, 0, n_tokens));
                        let name = set.name();
                        assert!(found == expected, "{format} {n_rows}x{width}, {n_tokens} on {name}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_has_the_same_bits_alone_and_among_others() {
    let mut random = Random(3);
    for format in FORMATS {
        for &width in widths(format) {
            let case = Case::new(&mut random, format, (20, width), 37);
            let set = InstructionSet::available()[0];
            let all = case.run(set, 2, 0, 37);
            for (first, n) in [(0, 1), (36, 1), (3, 4), (9, 5), (16, 21)] {
                let found = case.run(set, 1, first, n);
                assert!(bits(&found) == bits(&all[first * 20..(first + n) * 20]), "{format} {width} {first}");
            }
        }
    }
}

#[test]
fn what_is_no_number_spoils_its_own_token_alone() {
    let mut random = Random(4);
    for format in FORMATS {
        for n_tokens in [3, 20] {
            let sound = Case::new(&mut random, format, (9, 512), n_tokens);
            let mut spoilt = sound.clone();
            (spoilt.x[7], spoilt.x[512 + 300]) = (f32::NAN, f32::NEG_INFINITY);
            for set in InstructionSet::available() {
                let (found, expected) = (spoilt.run(set, 1, 0, n_tokens), sound.run(set, 1, 0, n_tokens));
                assert!(found[..2 * 9].iter().all(|value| value.is_nan()), "{format} on {}", set.name());
                assert!(bits(&found[2 * 9..]) == bits(&expected[2 * 9..]), "{format} on {}", set.name());
            }
        }
    }
}

#[test]
fn tiny_blocks_count_as_zero() {
    let mut case = Case::new(&mut Random(5), Format::Q4_K, (3, 256), 1);
    case.x.fill(1e-31);
    case.bias.fill(0.25);
    assert_eq!(case.run(InstructionSet::available()[0], 1, 0, 1), [1.25; 3]);
}

#[test]
fn any_bytes_are_blocks() {
    let mut random = Random(6);
    for format in FORMATS {
        for n_tokens in [1, 18] {
            let mut case = Case::new(&mut random, format, (40, 768), n_tokens);
            case.blocks.fill_with(|| random.byte());
            let expected = bits(&case.run(InstructionSet::Portable, 1, 0, n_tokens));
            for set in InstructionSet::available() {
                assert!(bits(&case.run(set, 2, 0, n_tokens)) == expected, "{format} on {}", set.name());
            }
        }
    }
}
