//! Whether the operations of a device compute what the reference computes: each operation by itself, over the shapes of
//! every named model and every format, on random operands.
//!
//! ```
//! use worker_orcd::ops::reference::{InstructionSet, ReferenceOps};
//! use worker_orcd::verify::{Arithmetic, VerifyOptions, verify};
//!
//! let (best, plain) = (ReferenceOps::new(1)?, ReferenceOps::with_instruction_set(1, InstructionSet::Portable)?);
//! let options = VerifyOptions { seed: 1, rows: Some(16), formats: vec![], models: vec!["qwen2.5-0.5b".into()] };
//! verify(&best, &plain, Arithmetic::Single, &options, &mut |check| assert!(check.passed()))?;
//! # Ok::<(), worker_orcd::ops::OpsError>(())
//! ```

mod attention;
mod budget;
mod cases;
mod operands;
mod product;

pub use crate::ops::Arithmetic;
pub use budget::{BUDGETS, Budget, Deviation};

use std::time::Instant;

use crate::ops::reference::ReferenceOps;
use crate::ops::{Ops, OpsError};
use crate::quant::Format;
use crate::synth::Key;

use cases::{Case, cases};
use operands::{Pools, Stage};

/// An operation under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    Embed,
    NormProject,
    Project,
    NormGateUp,
    /// The part of `rotate_and_append` that stays in its rows: q.
    Rotate,
    /// The part of `rotate_and_append` that goes into the cache: k and v.
    Append,
    Attend,
    Choose,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Embed => "embed",
            Self::NormProject => "norm_project",
            Self::Project => "project",
            Self::NormGateUp => "norm_gate_up",
            Self::Rotate => "rotate",
            Self::Append => "append",
            Self::Attend => "attend",
            Self::Choose => "choose",
        })
    }
}

/// What is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Decides all operands.
    pub seed: u64,
    /// Rows to which every matrix is cut, so that slow devices end; `None` takes them whole.
    pub rows: Option<usize>,
    /// Formats of matrices; all where empty.
    pub formats: Vec<Format>,
    /// Named models; all where empty.
    pub models: Vec<String>,
}

/// One operation on one set of operands.
#[derive(Debug, Clone)]
pub struct Check {
    /// The operation.
    pub operation: Operation,
    /// The format of its matrix, or of its cache.
    pub format: Format,
    /// The shape of its operands, for people.
    pub shape: String,
    /// Rows of the pass.
    pub n_tokens: usize,
    /// How far the device is from the reference.
    pub deviation: Deviation,
    /// How far it may be.
    pub budget: &'static Budget,
    /// Seconds that the device took, with the copy of the results.
    pub seconds: f64,
}

impl Check {
    /// Whether the device is within its budget.
    pub fn passed(&self) -> bool {
        self.deviation.is_within(self.budget)
    }
}

/// What an operation answered.
struct Outcome {
    values: Vec<f32>,
    /// Values of a row; the largest deviation is relative to a row's root mean square.
    width: usize,
    seconds: f64,
}

/// How many checks [`verify`] makes.
pub fn n_checks(options: &VerifyOptions) -> usize {
    cases(options).len()
}

/// Runs every case on `subject` and on `reference` and reports each. `subject` must not record passes: the cases have
/// operands of their own, and passes of one shape.
///
/// # Errors
/// What an operation answers; a result that is wrong is reported, not an error.
pub fn verify<O: Ops>(
    subject: &O,
    reference: &ReferenceOps,
    arithmetic: Arithmetic,
    options: &VerifyOptions,
    report: &mut dyn FnMut(&Check),
) -> Result<(), OpsError> {
    let key = Key(options.seed);
    let pools = Pools::new(key.at(0));
    for (index, case) in cases(options).iter().enumerate() {
        let key = key.at(1 + index as u64);
        // The same key, and so the same operands.
        let expected = case.run(&mut Stage::new(reference, key, &pools))?;
        let found = case.run(&mut Stage::new(subject, key, &pools))?;
        let budget = Budget::of(case.operation(), case.format(), arithmetic);
        report(&Check {
            operation: case.operation(),
            format: case.format(),
            shape: case.to_string(),
            n_tokens: case.n_tokens(),
            deviation: Deviation::between(&found.values, &expected.values, expected.width),
            budget,
            seconds: found.seconds,
        });
    }
    Ok(())
}

impl Case {
    fn run<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        match self {
            Self::Product(product) => product.run(stage),
            Self::Heads(heads) => heads.run(stage),
        }
    }
}

/// Runs `work`, which ends in a copy off the device, and measures the time.
fn timed<T>(work: impl FnOnce() -> Result<T, OpsError>) -> Result<(T, f64), OpsError> {
    let start = Instant::now();
    let value = work()?;
    Ok((value, start.elapsed().as_secs_f64()))
}
