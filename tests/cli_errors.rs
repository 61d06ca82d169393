//! Exit codes: 0, 1 failure, 2 usage, 3 bad model, 4 no device, 5 does not fit. Each error says what and how to cure it.

#![allow(clippy::unwrap_used)]

mod common;

use common::command::{file, golden, worker};

const PHI3: &str = "phi3-mini/phi3-mini-Q4_K_M";

/// Runs the command, which must fail with `code`, say each of `says` on stderr, and print nothing.
fn fails(args: &[&str], code: i32, says: &[&str]) {
    let output = worker(args).write_stdin("").assert().code(code);
    let output = output.get_output();
    let said = String::from_utf8_lossy(&output.stderr);
    for expected in says {
        assert!(said.contains(expected), "{args:?}: `{expected}` in: {said}");
    }
    assert!(output.stdout.is_empty(), "{args:?}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn bad_models_are_3() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(golden(PHI3)).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        file(&folder, name)
    };
    let garbage = write("garbage.gguf", b"this is no model at all, only text");
    let empty = write("empty.gguf", b"");
    let header_only = write("header.gguf", &bytes[..4096]);
    let shortened = write("short.gguf", &bytes[..bytes.len() - 1000]);
    let missing = file(&folder, "missing.gguf");
    for (path, says) in [
        (&missing, "no such file"),
        (&garbage, "GGUF"),
        (&empty, "needs"),
        (&header_only, "needs"),
        (&shortened, "blk.1.ffn_up.weight"),
    ] {
        fails(&["generate", "-m", path, "-p", "a", "-n", "1"], 3, &[path, says]);
        fails(&["inspect", "-m", path], 3, &[path]);
        fails(&["tokenize", "-m", path, "-p", "a"], 3, &[path]);
        fails(&["bench", "-m", path, "-r", "1"], 3, &[path]);
        fails(&["logits", "-m", path, "--tokens", "1", "-o", &file(&folder, "out")], 3, &[path]);
    }
    fails(&["tokenize", "-mt", &missing, "-p", "a"], 3, &["missing.gguf"]);
    fails(&["tokenize", "-mt", &file(&folder, "missing.json"), "-p", "a"], 3, &["missing.json"]);
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/box.gguf");
    let temp = ["--temp", "0"];
    fails(
        &[&["generate", "-m", &golden(PHI3), "-mt", other, "-p", "a"], &temp[..]].concat(),
        3,
        &["1280 tokens", "384"],
    );
}

#[test]
fn senseless_requests_are_2() {
    let model = golden(PHI3);
    let generate = |more: &[&'static str]| {
        [vec!["generate", "-m"], vec![Box::leak(model.clone().into_boxed_str()) as &str], more.to_vec()]
            .concat()
    };
    for (more, says) in [
        (&["-p", "a", "--no-such-flag"][..], "--no-such-flag"),
        (&["-p", ""], "prompt is empty"),
        (&[], "prompt is empty"),
        (&["-p", "a", "--tokens", "1"], "cannot be used with"),
        (&["--tokens", "1,x"], "invalid"),
        (&["--tokens", ""], "invalid"),
        (&["--tokens", "1,384"], "token 384 is not in the vocabulary of 384 tokens"),
        (&["-p", "a", "--temp", "-1"], "temperature is -1"),
        (&["-p", "a", "--temp", "nan"], "temperature"),
        (&["-p", "a", "--top-p", "1.5"], "top_p is 1.5"),
        (&["-p", "a", "--device", "gpu"], "`gpu` is not a device"),
        (&["-p", "a", "-b", "0"], "zero"),
        (&["-p", "a", "--kv-type", "q8_0"], "f16, f32"),
        (&["-p", "a", "--vram-limit", "6X"], "units are"),
        (&["-p", "a", "-n", "-2"], "-2"),
    ] {
        fails(&generate(more), 2, &[says]);
    }
    fails(&[], 2, &["Usage"]);
    fails(&["sing"], 2, &["sing"]);
    fails(&["tokenize", "-m", &model, "--decode", "9999"], 2, &["9999"]);
    fails(&["synth", "--model", "gpt-5", "-o", "x"], 2, &["gpt-5", "phi3-mini-4k"]);
    fails(&["synth", "--model", "phi3-mini-4k", "--format", "q9", "-o", "x"], 2, &["q9", "Q4_K_M"]);
    fails(&["logits", "-m", &model, "--tokens", "1"], 2, &["--output"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("latin1"), b"caf\xE9").unwrap();
    fails(&["tokenize", "-m", &model, "-f", &file(&folder, "latin1")], 2, &["not UTF-8 at byte 3"]);
}

#[test]
fn devices_that_are_not_there_are_4() {
    let model = golden(PHI3);
    let folder = tempfile::tempdir().unwrap();
    let out = file(&folder, "out");
    for command in [
        &["generate", "-p", "a"][..],
        &["chat", "-p", "a", "-st"],
        &["inspect"],
        &["bench"],
        &["logits", "--tokens", "1", "-o", &out],
    ] {
        // The file without a chat template is refused before the device is asked for.
        let model: &[&str] = if command[0] == "chat" { &[] } else { &["-m", &model] };
        fails(&[command, model, &["--device", "cuda:7"]].concat(), 4, &["cuda:7", "or use `cpu`"]);
        #[cfg(not(feature = "emulator"))]
        fails(
            &[command, model, &["--device", "emulator"]].concat(),
            4,
            &["`emulator` feature", "cargo build --features emulator", "or use `cpu`"],
        );
    }
    // What is missing first decides: the build's kernels, the driver, the GPU.
    let output = worker(&["inspect", "-m", &model, "--device", "cuda:7"]).assert().code(4);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    let reasons = [
        ("has no CUDA kernels", "run scripts/install-nvcc"),
        ("the NVIDIA driver is not there", "install the driver"),
        ("none of number 7", "nvidia-smi"),
    ];
    assert!(reasons.iter().any(|(what, cure)| said.contains(what) && said.contains(cure)), "{said}");
}

#[test]
fn what_does_not_fit_is_5() {
    let model = golden(PHI3);
    let folder = tempfile::tempdir().unwrap();
    let out = file(&folder, "out");
    let generate = ["generate", "-m", &model, "-p", "Hello world"];
    fails(&[&generate[..], &["--vram-limit", "100K"]].concat(), 5, &["102400 bytes are available"]);
    let limit = ["-c", "4096", "--vram-limit", "12M", "-t", "2"];
    fails(&[&generate[..], &limit].concat(), 5, &["a context of", "would fit"]);
    fails(&[&generate[..], &["-c", "4"]].concat(), 5, &["10 tokens do not fit the context of 4"]);
    let logits = ["logits", "-m", &model, "--tokens", "1,2,3", "-o", &out];
    fails(&[&logits[..], &["-c", "2"]].concat(), 5, &["3 tokens do not fit the context of 2"]);
    let bench = ["bench", "-m", &model, "-p", "16", "-n", "0"];
    fails(&[&bench[..], &["-c", "8"]].concat(), 5, &["16 tokens"]);
    fails(
        &[&bench[..], &["-d", &u64::MAX.to_string(), "-c", "8"]].concat(),
        5,
        &["do not fit the context of 8"],
    );
    fails(&["bench", "-m", &model, "-p", "0", "-n", "4", "-npl", "2", "-c", "100"], 5, &["128 tokens"]);
    let long = vec!["1"; 4097].join(",");
    fails(&["generate", "-m", &model, "--tokens", &long], 5, &["4097", "4096"]);
}

#[test]
fn other_failures_are_1() {
    let model = golden(PHI3);
    let folder = tempfile::tempdir().unwrap();
    let nowhere = file(&folder, "no/such/folder/out");
    fails(&["logits", "-m", &model, "--tokens", "1", "-o", &nowhere], 1, &["cannot write", &nowhere]);
    fails(&["tokenize", "-m", &model, "-f", &nowhere], 1, &["cannot read", &nowhere]);
    fails(&["synth", "--model", "tiny-phi3-mini-4k", "-o", &nowhere], 1, &["no/such/folder"]);
}

#[test]
fn help_and_version_are_0() {
    for (args, says) in [
        (&["--version"][..], env!("CARGO_PKG_VERSION")),
        (&["--help"], "Exit codes"),
        (&["generate", "--help"], "WORKER_ORCD_MODEL"),
    ] {
        let output = worker(args).assert().success();
        assert!(String::from_utf8_lossy(&output.get_output().stdout).contains(says), "{args:?}");
    }
}
