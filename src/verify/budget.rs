//! How far from the reference an operation may be: one table, with the reason of each row.

use crate::ops::Arithmetic;
use crate::quant::Format;

use super::Operation;

/// One row of [`BUDGETS`].
#[derive(Debug, PartialEq)]
pub struct Budget {
    /// The operation.
    pub operation: Operation,
    /// The format of its matrix or cache; `None` for every other.
    pub format: Option<Format>,
    /// How the device computes; `None` where it does not matter.
    pub arithmetic: Option<Arithmetic>,
    /// Most `|found - expected| / |expected|` over all results.
    pub relative_l2: f64,
    /// Most `|found - expected|` of one result, relative to the root mean square of its row.
    pub largest: f64,
    /// Why this much.
    pub reason: &'static str,
}

const fn row(
    operation: Operation,
    format: Option<Format>,
    arithmetic: Option<Arithmetic>,
    most: [f64; 2],
    reason: &'static str,
) -> Budget {
    let [relative_l2, largest] = most;
    Budget { operation, format, arithmetic, relative_l2, largest, reason }
}

use Arithmetic::{FixedPoint, Single};
use Operation::{Append, Attend, Choose, Embed, NormGateUp, NormProject, Project, Rotate};

/// The budgets; the first row that fits an operation holds.
pub static BUDGETS: [Budget; 13] = [
    row(
        Embed,
        None,
        None,
        [0.0, 0.0],
        "a weight has one value: every product and sum of it is rounded in one order",
    ),
    row(Choose, None, None, [0.0, 0.0], "a choice, not a number"),
    row(NormProject, None, Some(Single), [2e-6, 2e-5], "two orders of a sum of singles, each about 1e-7"),
    row(Project, None, Some(Single), [2e-6, 2e-5], "two orders of a sum of singles, each about 1e-7"),
    row(
        NormGateUp,
        None,
        Some(Single),
        [4e-6, 1e-4],
        "two such products multiplied; SwiGLU's own rows have long tails",
    ),
    row(
        NormProject,
        None,
        Some(FixedPoint),
        [2e-4, 3e-3],
        "the largest of 256 activations is at most 16 times their root mean square, so 16 bits cost at most 16 / (65534 √3) = 1.4e-4",
    ),
    row(Project, None, Some(FixedPoint), [2e-4, 3e-3], "as for norm_project"),
    row(
        NormGateUp,
        None,
        Some(FixedPoint),
        [5e-4, 1e-2],
        "two such products multiplied, and SwiGLU has a slope of up to 1.1; its rows have long tails",
    ),
    row(
        Append,
        Some(Format::F16),
        None,
        [1e-4, 5e-3],
        "singles that differ in the last bit may round to neighbouring halves, 2^-11 of a value that may be 5 times the root mean square",
    ),
    row(Rotate, None, None, [1e-6, 1e-5], "a norm and two products in singles"),
    row(Append, None, None, [1e-6, 1e-5], "as for rotate; values are copied"),
    row(
        Attend,
        Some(Format::F16),
        None,
        [1e-5, 1e-4],
        "keys and values are the same halves for both; scores of up to 20 with an error of 1e-6 each, under an exponential",
    ),
    row(
        Attend,
        None,
        None,
        [1e-5, 1e-4],
        "scores of up to 20 with an error of 1e-6 each, under an exponential",
    ),
];

impl Budget {
    /// The row for an operation. Every operation has one: a row of [`BUDGETS`] without a format for each arithmetic.
    pub(super) fn of(operation: Operation, format: Format, arithmetic: Arithmetic) -> &'static Budget {
        let fits = |row: &&Budget| {
            row.operation == operation
                && row.format.is_none_or(|of| of == format)
                && row.arithmetic.is_none_or(|of| of == arithmetic)
        };
        BUDGETS.iter().find(fits).unwrap_or(&BUDGETS[0])
    }
}

/// How far results are from those expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// `|found - expected| / |expected|`; infinite where a result is missing or no number.
    pub relative_l2: f64,
    /// The largest `|found - expected|`, relative to the root mean square of its row.
    pub largest: f64,
}

impl Deviation {
    const INFINITE: Self = Self { relative_l2: f64::INFINITY, largest: f64::INFINITY };

    /// Compares rows of `width` values. Where nothing was to be written, both hold no number.
    pub(super) fn between(found: &[f32], expected: &[f32], width: usize) -> Self {
        if found.len() != expected.len() || found.is_empty() {
            return Self::INFINITE;
        }
        let (mut squares, mut error_squares, mut largest) = (0.0, 0.0, 0.0_f64);
        for (found, expected) in found.chunks(width).zip(expected.chunks(width)) {
            let (mut row_squares, mut row_largest, mut n) = (0.0, 0.0_f64, 0.0);
            for (found, expected) in found.iter().zip(expected) {
                if expected.is_nan() && found.is_nan() {
                    continue;
                }
                let (expected, error) = (f64::from(*expected), f64::from(*found) - f64::from(*expected));
                if !error.is_finite() {
                    return Self::INFINITE;
                }
                row_squares += expected * expected;
                error_squares += error * error;
                row_largest = row_largest.max(error.abs());
                n += 1.0;
            }
            squares += row_squares;
            if row_largest > 0.0 {
                largest = largest.max(row_largest / f64::sqrt(row_squares / n));
            }
        }
        let relative_l2 = if error_squares == 0.0 { 0.0 } else { f64::sqrt(error_squares / squares) };
        Self { relative_l2, largest }
    }

    /// Whether a budget allows this.
    pub fn is_within(&self, budget: &Budget) -> bool {
        self.relative_l2 <= budget.relative_l2 && self.largest <= budget.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_found() {
        let between = |found: &[f32], expected: &[f32]| Deviation::between(found, expected, 2);
        let same = between(&[1.0, f32::NAN], &[1.0, f32::NAN]);
        assert_eq!(same, Deviation { relative_l2: 0.0, largest: 0.0 });
        let one = between(&[3.0, 4.0, 1.0, 1.5], &[3.0, 4.0, 1.0, 1.0]);
        assert!((one.relative_l2 - 0.5 / f64::sqrt(27.0)).abs() < 1e-12);
        assert!((one.largest - 0.5).abs() < 1e-12);
        for (found, expected) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, 1.0)] {
            assert_eq!(between(&[found], &[expected]), Deviation::INFINITE);
        }
        assert_eq!(between(&[1.0], &[1.0, 2.0]), Deviation::INFINITE);
        assert!(!between(&[1.0], &[0.0]).is_within(Budget::of(Attend, Format::F32, Single)));
    }

    #[test]
    fn every_operation_has_a_row_for_each_arithmetic() {
        for operation in [Embed, NormProject, Project, NormGateUp, Rotate, Append, Attend, Choose] {
            for arithmetic in [Single, FixedPoint] {
                for format in [Format::F32, Format::Q4_K] {
                    assert_eq!(Budget::of(operation, format, arithmetic).operation, operation);
                }
            }
        }
    }
}
