//! The CUDA device over a stand-in for the driver (`kernels/emulator/driver.cpp`), which runs the emulated kernels, as late as
//! a driver may: what the device asks of the driver, in which order, and what becomes of its refusals. A build without
//! compiled kernels has nothing to ask for, and skips.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use assert_cmd::Command;
use common::command::{file, golden, worker};
use worker_orcd::device::CudaDevice;

/// The stand-in's folder.
const STAND_IN: &str = env!("WORKER_ORCD_STAND_IN_DRIVER");

/// Whether there is a stand-in and kernels that a driver would be given.
fn can_run() -> bool {
    let is_there = std::path::Path::new(STAND_IN).join("libcuda.so").is_file();
    let can = is_there && CudaDevice::kernel_names().next().is_some();
    if !can {
        println!("skipped: this build has no compiled CUDA kernels, or no stand-in for the driver");
    }
    can
}

/// The command where the driver is the stand-in.
fn on_stand_in(args: &[&str]) -> Command {
    let mut command = worker(args);
    command.env("LD_LIBRARY_PATH", STAND_IN).env_remove("CUDA_VISIBLE_DEVICES");
    command
}

/// What the stand-in says that it was asked for.
fn log(path: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).unwrap();
    let counts = text.lines().map(|line| line.split_once(' ').unwrap());
    counts.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

#[test]
fn logits_are_the_emulators() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for model in ["phi3-mini/phi3-mini-Q4_K_M", "qwen3/qwen3-Q4_K_M"] {
        let run = |device: &str| {
            let out = file(&folder, device);
            let model = golden(model);
            let args =
                ["logits", "-m", &model, "--tokens", "3,1,4,1,5,9,2,6,5,3,5", "--device", device, "-o", &out];
            on_stand_in(&args).assert().success();
            std::fs::read(out).unwrap()
        };
        assert!(run("cuda:0") == run("emulator"), "{model}");
    }
}

/// The kernels with products of warpgroups run where they were asked for and are, and change no bit.
#[test]
fn products_of_warpgroups_run_where_they_can() {
    if !can_run() {
        return;
    }
    let (folder, model) = (tempfile::tempdir().unwrap(), golden("phi3-mini/phi3-mini-Q4_K_M"));
    let run = |device: &str, asked: &str, capability: &str| {
        let (out, log_file) = (file(&folder, "logits"), file(&folder, "log"));
        let args =
            ["logits", "-m", &model, "--tokens", "3,1,4,1,5,9,2,6,5,3,5", "--device", device, "-o", &out];
        let mut command = on_stand_in(&args);
        command.env("WORKER_ORCD_WGMMA", asked).env("WORKER_ORCD_STAND_IN_CAPABILITY", capability);
        command.env("WORKER_ORCD_STAND_IN_LOG", &log_file).assert().success();
        let launches = if device == "emulator" { 0 } else { log(&log_file)["of_sm90a"] };
        (std::fs::read(out).unwrap(), launches > 0)
    };
    let (expected, _) = run("emulator", "0", "90");
    assert!(run("emulator", "1", "90").0 == expected);
    for (asked, capability, runs) in [("1", "90", true), ("0", "90", false), ("1", "86", false)] {
        let (logits, has_run) = run("cuda:0", asked, capability);
        assert!(logits == expected, "asked {asked}, capability {capability}");
        assert_eq!(has_run, runs, "asked {asked}, capability {capability}");
    }
}

#[test]
fn recorded_overlapping_or_waited_for_the_text_is_the_same() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let generate = |device: &str, variables: &[(&str, &str)]| {
        let (model, log_file) = (golden("qwen2/qwen2-Q4_K_M"), file(&folder, "log"));
        let args = ["generate", "-m", &model, "-p", "one two", "-n", "6", "-s", "7", "--temp", "0.8"];
        let mut command = on_stand_in(&[&args[..], &["--ignore-eos", "--device", device]].concat());
        command.env("WORKER_ORCD_STAND_IN_LOG", &log_file).envs(variables.iter().copied());
        let text = command.assert().success().get_output().stdout.clone();
        (text, if device == "emulator" { BTreeMap::new() } else { log(&log_file) })
    };
    let (expected, _) = generate("emulator", &[]);
    let (text, asked) = generate("cuda:0", &[]);
    assert_eq!(text, expected);
    assert_eq!(asked["overlapped"], asked["launches"], "{asked:?}");
    assert!(asked["recorded"] >= 1 && asked["replayed"] >= 5, "{asked:?}");
    assert_eq!(asked["allocations"], 0, "memory that was not freed");

    let (text, asked) = generate("cuda:0", &[("WORKER_ORCD_OVERLAP", "0")]);
    assert_eq!((text, asked["overlapped"]), (expected.clone(), 0));
    // An earlier GPU's kernels do not wait for their inputs.
    let (text, asked) = generate("cuda:0", &[("WORKER_ORCD_STAND_IN_CAPABILITY", "86")]);
    assert_eq!((text, asked["overlapped"]), (expected.clone(), 0));
    let (text, _) = generate("cuda:0", &[("WORKER_ORCD_STAND_IN_RELEASE", "12040")]);
    assert_eq!(text, expected, "an older driver, which has fewer functions");
    let (text, asked) = generate("cuda:0", &[("WORKER_ORCD_SYNC", "1")]);
    assert_eq!((text, asked["recorded"]), (expected, 0));
}

#[test]
fn refusals_of_the_driver_are_errors_with_their_codes() {
    if !can_run() {
        return;
    }
    let model = golden("qwen2/qwen2-Q4_K_M");
    let args = ["generate", "-m", &model, "-p", "one", "-n", "1", "--device", "cuda:0"];
    for (variable, value, code, words) in [
        ("GPUS", "0", 4, "none of number 0"),
        ("CAPABILITY", "75", 4, "compute capability 7.5"),
        ("MEMORY", "1000000", 5, "1000000"),
    ] {
        let mut command = on_stand_in(&args);
        command.env(format!("WORKER_ORCD_STAND_IN_{variable}"), value);
        let output = command.assert().code(code).get_output().clone();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{variable}={value}: {said}");
    }
}
