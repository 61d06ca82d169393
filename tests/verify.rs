//! Verification finds nothing wrong with sound operations, and every fault of broken ones.
#![allow(clippy::unwrap_used)]

mod common;

use common::broken::{Broken, Fault};
use common::command::{json, worker};
use worker_orcd::ops::Ops;
use worker_orcd::ops::reference::{InstructionSet, ReferenceOps};
use worker_orcd::quant::Format;
use worker_orcd::verify::{Arithmetic, Check, Operation, VerifyOptions, verify};

fn reference() -> ReferenceOps {
    ReferenceOps::new(1).unwrap()
}

/// Small models with and without biases, head norms, fused and long-rope tensors.
fn options(formats: &[Format]) -> VerifyOptions {
    VerifyOptions {
        seed: 20,
        rows: Some(32),
        formats: formats.to_vec(),
        models: ["qwen2.5-0.5b", "qwen3-0.6b", "phi4-mini"].map(str::to_owned).to_vec(),
    }
}

fn checks<O: Ops>(ops: &O, arithmetic: Arithmetic, options: &VerifyOptions) -> Vec<Check> {
    let mut checks = Vec::new();
    verify(ops, &reference(), arithmetic, options, &mut |check| checks.push(check.clone())).unwrap();
    checks
}

#[test]
fn the_reference_is_itself() {
    let checks = checks(&reference(), Arithmetic::Single, &options(&[]));
    assert!(checks.len() > 300, "{}", checks.len());
    for check in checks {
        assert_eq!((check.deviation.relative_l2, check.deviation.largest), (0.0, 0.0), "{check:?}");
    }
}

#[test]
fn instruction_sets_are_within_the_budget() {
    for set in InstructionSet::available() {
        let ops = ReferenceOps::with_instruction_set(1, set).unwrap();
        for check in checks(&ops, Arithmetic::Single, &options(&[Format::Q4_K, Format::F16, Format::IQ4_NL]))
        {
            assert!(check.passed(), "{}: {check:?}", set.name());
        }
    }
}

#[test]
fn fixed_point_is_within_the_budget_in_every_format() {
    let ops = reference().with_arithmetic(Arithmetic::FixedPoint);
    for check in checks(&ops, Arithmetic::FixedPoint, &options(&[])) {
        assert!(check.passed(), "{check:?}");
    }
}

/// Every check of the operations that a fault touches must fail, and no other.
fn expect_fault<O: Ops>(ops: O, arithmetic: Arithmetic, fault: Fault, touched: &[Operation]) {
    let broken = Broken { ops, fault };
    for check in checks(&broken, arithmetic, &options(&[Format::Q8_0])) {
        assert_eq!(!check.passed(), touched.contains(&check.operation), "{fault:?}: {check:?}");
    }
}

#[test]
fn every_fault_is_found() {
    use Operation::{Append, Attend, Choose, Embed, NormGateUp, NormProject, Project, Rotate};
    let faults: [(Fault, &[Operation]); 9] = [
        (Fault::None, &[]),
        (Fault::Embed, &[Embed]),
        (Fault::NormProject, &[NormProject]),
        (Fault::NormGateUp, &[NormGateUp]),
        (Fault::Attend, &[Attend]),
        (Fault::Project, &[Project]),
        (Fault::Rotate, &[Rotate]),
        (Fault::Append, &[Append]),
        (Fault::Choose, &[Choose]),
    ];
    for (fault, touched) in faults {
        for arithmetic in [Arithmetic::Single, Arithmetic::FixedPoint] {
            expect_fault(reference(), arithmetic, fault, touched);
        }
    }
}

#[test]
fn a_corrupt_weight_is_found() {
    for arithmetic in [Arithmetic::Single, Arithmetic::FixedPoint] {
        let broken = Broken { ops: reference(), fault: Fault::Weight };
        let mut failed = Vec::new();
        for check in checks(&broken, arithmetic, &options(&[Format::Q8_0])) {
            // An embedding shows the weight only where its row is asked for.
            if !check.passed() && !failed.contains(&check.operation) {
                failed.push(check.operation);
            }
        }
        for operation in [Operation::NormProject, Operation::Project, Operation::NormGateUp] {
            assert!(failed.contains(&operation), "{arithmetic:?}: {operation}");
        }
    }
}

#[cfg(feature = "emulator")]
mod emulator {
    use super::*;
    use worker_orcd::device::{EmulatorDevice, EmulatorOptions};
    use worker_orcd::ops::kernel::KernelOps;

    /// Operations on an emulated device that hides no race and no unwritten memory.
    fn ops() -> KernelOps<EmulatorDevice> {
        let options = EmulatorOptions { shuffle: Some(7), poison: true, ..EmulatorOptions::default() };
        KernelOps::new(EmulatorDevice::new(options).unwrap())
    }

    #[test]
    fn kernels_are_within_their_budgets() {
        let mut worst = std::collections::BTreeMap::<String, (f64, f64)>::new();
        let mut failed = Vec::new();
        for check in checks(&ops(), Arithmetic::FixedPoint, &options(&[])) {
            let worst = worst.entry(format!("{} {}", check.operation, check.format)).or_default();
            worst.0 = worst.0.max(check.deviation.relative_l2);
            worst.1 = worst.1.max(check.deviation.largest);
            if !check.passed() {
                failed.push(check);
            }
        }
        println!("{worst:#?}");
        assert!(failed.is_empty(), "{failed:#?}");
    }

    #[test]
    fn faults_of_kernels_are_found() {
        expect_fault(ops(), Arithmetic::FixedPoint, Fault::None, &[]);
        expect_fault(ops(), Arithmetic::FixedPoint, Fault::NormProject, &[Operation::NormProject]);
        expect_fault(ops(), Arithmetic::FixedPoint, Fault::Append, &[Operation::Append]);
    }
}

#[test]
fn the_command_reports_every_check() {
    let arguments =
        ["verify", "--device", "cpu", "-t", "2", "--model", "qwen3-0.6b", "--format", "q4_k,f16", "-s", "3"];
    let report = json(&[&arguments[..], &["--json"]].concat());
    assert_eq!((&report["seed"], &report["rows"], &report["failures"]), (&3.into(), &64.into(), &0.into()));
    let checks = report["checks"].as_array().unwrap();
    for operation in
        ["embed", "norm_project", "project", "norm_gate_up", "rotate", "append", "attend", "choose"]
    {
        let mut of = checks.iter().filter(|check| check["operation"] == operation);
        assert!(of.all(|check| check["passed"] == true && check["reason"].is_string()), "{operation}");
        assert!(checks.iter().any(|check| check["operation"] == operation));
    }
    let output = worker(&arguments).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), checks.len() + 1);
    assert!(text.lines().skip(1).all(|line| line.ends_with(" ok")), "{text}");
    worker(&["verify", "--format", "q9"]).assert().code(2);
    worker(&["verify", "--model", "gpt-5"]).assert().code(2);
    worker(&["verify", "--device", "cuda:99"]).assert().code(4);
}
