//! The choice of the largest logit.

use crate::device::{EmulatorDevice, EmulatorOptions};
use crate::ops::{Ops, PassLimits};

use super::super::KernelOps;
use super::{Random, rows, workspace};

/// The first of the largest finite values of a row.
fn first_of_largest(row: &[f32]) -> Option<u32> {
    let largest = row.iter().copied().filter(|x| x.is_finite()).reduce(f32::max)?;
    row.iter().position(|&x| x == largest).map(|i| i as u32)
}

/// Rows with ties, with what is not a number, and with nothing finite.
fn hard_rows(width: usize) -> Vec<f32> {
    let mut random = Random(11);
    let mut all = Vec::new();
    all.extend(random.floats(width));
    // Few different values: many ties.
    all.extend(random.floats(width).iter().map(|x| (x * 3.0).round()));
    all.extend(vec![-7.5; width]);
    all.extend(vec![f32::NAN; width]);
    all.extend((0..width).map(|i| [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][i % 3]));
    let mut last = vec![f32::NEG_INFINITY; width];
    last[width - 1] = f32::MIN;
    all.extend(last);
    all.extend(random.floats(width).iter().map(|&x| if x > 0.0 { f32::INFINITY } else { x }));
    all
}

#[test]
pub(super) fn the_first_of_the_largest_logits_is_chosen() {
    for shuffle in [None, Some(1)] {
        let options = EmulatorOptions { shuffle, poison: true, ..EmulatorOptions::default() };
        let ops = KernelOps::new(EmulatorDevice::new(options).unwrap());
        for width in [1, 31, 1000, 5000, 32064] {
            let values = hard_rows(width);
            let n_rows = values.len() / width;
            let mut workspace = workspace(&ops, 256, PassLimits { rows: n_rows, context: 64 });
            let chosen = ops.largest(&rows(ops.device(), width, &values), n_rows, &mut workspace).unwrap();
            let expected: Vec<_> = values.chunks_exact(width).map(first_of_largest).collect();
            assert_eq!(chosen, expected, "{width} logits");
        }
    }
}
