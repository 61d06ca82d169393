//! What scripts rely on: the output of each subcommand, against the golden models.

#![allow(clippy::unwrap_used)]

mod common;

use common::command::{file, golden, ids, json, list, stdout, worker};
use common::golden::{cases, relative_l2};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use worker_orcd::gguf::{Gguf, GgufWriter};

const PHI3: &str = "phi3-mini/phi3-mini-Q4_K_M";

/// Each layer of the promise stands in `golden_logits.rs`; here, that flags lead there.
#[test]
fn greedy_generation_is_the_exact_models() {
    for case in cases() {
        for prompt in &case.prompts {
            let model = case.model.to_str().unwrap();
            let tokens = list(&prompt.tokens);
            let arguments = ["-n", "32", "--temp", "0", "--ignore-eos", "--json", "--device", "cpu"];
            let reply = json(&[&["generate", "-m", model, "--tokens", &tokens], &arguments[..]].concat());
            assert_eq!(ids(&reply["ids"]), prompt.greedy, "{} {}", case.name, prompt.name);
            assert_eq!(ids(&reply["prompt_ids"]), prompt.tokens);
            assert_eq!(reply["stop_reason"], "length");
            assert_eq!(reply["timings"]["prompt_tokens"], prompt.tokens.len());
            assert_eq!(reply["timings"]["decoded_tokens"], 31);
            assert!(reply["timings"]["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn printed_text_is_the_text_of_the_json() {
    let model = golden("tinyllama/tinyllama-Q4_K_M");
    let arguments = ["generate", "-m", &model, "-p", "Hello world", "-n", "20", "--temp", "0"];
    let reply = json(&[&arguments[..], &["--json"]].concat());
    let text = reply["text"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(stdout(&arguments), format!("{text}\n").into_bytes());
    // The same prompt from a file and from stdin.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prompt"), "Hello world").unwrap();
    let path = file(&folder, "prompt");
    let rest = ["-n", "20", "--temp", "0"];
    let from_file = stdout(&[&["generate", "-m", &model, "-f", &path], &rest[..]].concat());
    assert_eq!(from_file, format!("{text}\n").into_bytes());
    for dash in [&[][..], &["-p", "-"], &["-f", "-"]] {
        let arguments = [&["generate", "-m", &model], dash, &rest].concat();
        let piped = worker(&arguments).write_stdin("Hello world").assert().success();
        assert_eq!(piped.get_output().stdout, from_file);
        assert!(piped.get_output().stderr.is_empty(), "a greedy reply needs no seed");
    }
    // A stop text ends it and is left out.
    let stop: String = text.chars().skip(4).take(3).collect();
    let stopped = json(&[&arguments[..], &["--json", "--stop", &stop]].concat());
    assert_eq!(stopped["stop_reason"], "stop_text");
    assert_eq!(stopped["stopped_by"], stop.as_str());
    assert_eq!(stopped["text"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
}

#[test]
fn a_seed_repeats_a_reply() {
    let model = golden(PHI3);
    let arguments = ["generate", "-m", &model, "-p", "Hello", "-n", "24", "--temp", "1.5", "--ignore-eos"];
    let with = |more: &[&str]| json(&[&arguments[..], &["--json"], more].concat());
    let (first, again, other) = (with(&["-s", "7"]), with(&["-s", "7"]), with(&["-s", "8"]));
    assert_eq!(first["ids"], again["ids"]);
    assert_ne!(first["ids"], other["ids"]);
    // Without one, the seed is drawn and said.
    let output = worker(&[&arguments[..], &["--json", "-s", "-1"]].concat()).assert().success();
    let output = output.get_output();
    let drawn: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seed = drawn["seed"].to_string();
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("seed {seed}")));
    assert_eq!(with(&["-s", &seed])["ids"], drawn["ids"]);
}

fn logits(model: &str, tokens: &[u32], more: &[&str]) -> (Vec<usize>, Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "out.safetensors");
    let arguments = ["logits", "-m", model, "--tokens", &list(tokens), "--device", "cpu", "-o", &path];
    assert!(stdout(&[&arguments[..], more].concat()).is_empty());
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("logits").unwrap();
    assert_eq!((tensor.dtype(), file.len()), (Dtype::F32, 1));
    let values = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (tensor.shape().to_vec(), values)
}

#[test]
fn logits_are_the_exact_models_whatever_the_chunk() {
    for case in cases() {
        let model = case.model.to_str().unwrap();
        for prompt in case.prompts.iter().filter(|prompt| prompt.name != "p1") {
            let (shape, whole) = logits(model, &prompt.tokens, &[]);
            assert_eq!(shape, [prompt.tokens.len(), whole.len() / prompt.tokens.len()]);
            let error = relative_l2(&whole[whole.len() - prompt.logits.len()..], &prompt.logits);
            assert!(error <= 2e-5, "{} {}: {error:e}", case.name, prompt.name);
            if prompt.name == "p40" {
                for flags in [["--chunk", "1"], ["--chunk", "7"], ["-b", "40"], ["-t", "1"]] {
                    let (_, got) = logits(model, &prompt.tokens, &flags);
                    let same = got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{}: {flags:?}", case.name);
                }
            }
        }
    }
}

#[test]
fn ids_are_llama_cpps_and_the_way_back_is_the_text() {
    let cases: Value = serde_json::from_str(include_str!("golden/e2e.json")).unwrap();
    let mut n = 0;
    for case in cases["cases"].as_array().unwrap() {
        let name = format!("{0}/{0}-Q4_K_M", case["case"].as_str().unwrap());
        let (model, text) = (golden(&name), case["text"].as_str().unwrap());
        let found = json(&["tokenize", "-m", &model, "-p", text, "--json"]);
        assert_eq!(found, case["ids"], "{name}: {text:?}");
        // Phi-3's special tokens take the white space after them, so that text has no way back.
        if !text.contains("<|") {
            let decoded = stdout(&["tokenize", "-m", &model, "--decode", &list(&ids(&found))]);
            assert_eq!(decoded, text.as_bytes(), "{name}");
        }
        n += 1;
    }
    assert_eq!(n, 41);
}

#[test]
fn a_text_is_tokenized_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff} a\r\n\n\tb<|end|> \u{0} \n";
    std::fs::write(folder.path().join("text"), text).unwrap();
    let path = file(&folder, "text");
    for name in [PHI3, "llama31/llama31-Q4_K_M", "qwen2/qwen2-Q4_K_M"] {
        let model = golden(name);
        let flags = ["--no-special", "--json"];
        let plain = json(&[&["tokenize", "-m", &model, "-f", &path], &flags[..]].concat());
        let decoded = stdout(&["tokenize", "-m", &model, "--decode", &list(&ids(&plain))]);
        assert_eq!(decoded, text.as_bytes(), "{name}");
        let command = worker(&[&["tokenize", "-m", &model], &flags[..]].concat()).write_stdin(text).assert();
        let piped: Value = serde_json::from_slice(&command.success().get_output().stdout).unwrap();
        assert_eq!(piped, plain);
        let bare = json(&["tokenize", "-m", &model, "-f", &path, "--no-special", "--no-bos", "--json"]);
        let has_bos = usize::from(name != "qwen2/qwen2-Q4_K_M");
        assert_eq!(ids(&bare), ids(&plain)[has_bos..]);
    }
    let model = golden(PHI3);
    let special = json(&["tokenize", "-m", &model, "-f", &path, "--json"]);
    assert!(ids(&special).contains(&375));
    let table = String::from_utf8(stdout(&["tokenize", "-m", &model, "-p", "hi<|end|>"])).unwrap();
    assert!(table.lines().last().unwrap().split_whitespace().eq(["375", "<|end|>"]), "{table}");
}

#[test]
fn a_separate_tokenizer_needs_no_model() {
    let model = golden("qwen3/qwen3-Q4_K_M");
    let path = std::path::Path::new(&model).with_file_name("tokenizer.json");
    let json_ids = json(&["tokenize", "-mt", path.to_str().unwrap(), "-p", "Hello world", "--json"]);
    assert_eq!(json_ids, json(&["tokenize", "-m", &model, "-p", "Hello world", "--json"]));
}

#[test]
fn inspect_says_everything_in_json() {
    let model = golden(PHI3);
    let report = json(&["inspect", "-m", &model, "-c", "100", "--kv-type", "f16", "--json"]);
    let file = Gguf::open(&model).unwrap();
    assert_eq!(report["file"]["bytes"], std::fs::metadata(&model).unwrap().len());
    assert_eq!(report["file"]["version"], 3);
    assert_eq!(report["file"]["alignment"], 32);
    let config = &report["config"];
    assert_eq!(config["architecture"], "phi3");
    assert_eq!(
        (&config["hidden_dim"], &config["num_layers"], &config["vocab_size"], &config["rms_norm_eps"]),
        (&256.into(), &2.into(), &384.into(), &1e-5.into()),
    );
    assert_eq!(report["metadata"].as_object().unwrap().len(), file.metadata().len());
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 384);
    assert_eq!(report["metadata"]["tokenizer.ggml.bos_token_id"], 1);
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), file.tensors().len());
    let tensor = file.tensor("blk.1.attn_qkv.weight").unwrap();
    let found = tensors.iter().find(|found| found["name"] == tensor.name.as_str()).unwrap();
    assert_eq!(found["format"], "Q6_K");
    assert_eq!(found["dims"], serde_json::json!([256, 768]));
    assert_eq!(found["bytes"], tensor.n_bytes);
    assert_eq!(found["offset"], tensor.file_offset());
    let memory = &report["memory"];
    let rows = memory["rows"].as_array().unwrap();
    let sum: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
    assert_eq!(memory["total_bytes"], sum);
    assert_eq!(memory["context"], 100);
    assert_eq!(memory["kv_type"], "f16");
    // 2 layers, 4 heads of 64, keys and values of 2 bytes.
    assert_eq!(memory["kv_bytes_per_token"], 2 * 2 * 4 * 64 * 2);
    assert_eq!(memory["largest_context"], 4096);
    assert_eq!(report["config_error"], Value::Null);
    assert_eq!(report["memory_error"], Value::Null);
}

#[test]
fn a_token_reads_one_row_of_the_embedding_and_the_output() {
    for (name, is_tied) in [(PHI3, false), ("smollm2/smollm2-Q4_K_M", true)] {
        let file = Gguf::open(golden(name)).unwrap();
        let all: u64 = file.tensors().iter().map(|tensor| tensor.n_bytes).sum();
        let embedding = file.tensor("token_embd.weight").unwrap();
        let row = embedding.n_bytes / embedding.n_rows();
        let expected = if is_tied { all + row } else { all - embedding.n_bytes + row };
        let memory = &json(&["inspect", "-m", &golden(name), "--json"])["memory"];
        assert_eq!(memory["weight_bytes_per_token"], expected, "{name}");
    }
}

#[test]
fn the_largest_context_respects_the_limit() {
    let model = golden(PHI3);
    let inspect = |limit: &str| json(&["inspect", "-m", &model, "--vram-limit", limit, "-t", "2", "--json"]);
    let small = &inspect("1M")["memory"];
    assert_eq!((&small["largest_context"], &small["fits"]), (&Value::Null, &false.into()));
    assert_eq!(
        (&small["limit_bytes"], &inspect("64GiB")["memory"]["fits"]),
        (&(1 << 20).into(), &true.into())
    );
    let most = inspect("12M")["memory"]["largest_context"].as_u64().unwrap();
    assert!(most > 0 && most < 4096, "{most}");
    // That context loads within the limit.
    let context = most.to_string();
    let flags = ["-n", "1", "--temp", "0", "--vram-limit", "12M", "-t", "2", "-c", &context];
    stdout(&[&["generate", "-m", &model, "-p", "a"], &flags[..]].concat());
}

#[test]
fn inspect_is_readable_and_takes_a_vocabulary_alone() {
    let text = String::from_utf8(stdout(&["inspect", "-m", &golden(PHI3)])).unwrap();
    for expected in
        ["phi3", "384 string: \"<unk>\"", "blk.0.ffn_up.weight", "kv cache per token", "largest context"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");

    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "vocabulary.gguf");
    let mut writer = GgufWriter::new();
    *writer.metadata_mut() = Gguf::open(golden(PHI3)).unwrap().metadata().clone();
    writer.write_file(std::path::Path::new(&path), |_, _, _| unreachable!()).unwrap();
    let report = json(&["inspect", "-m", &path, "--json"]);
    assert_eq!((&report["config"], &report["memory"]), (&Value::Null, &Value::Null));
    assert!(report["config_error"].as_str().unwrap().contains("token_embd.weight"));
    assert!(report["memory_error"].is_string());
    assert_eq!(report["file"]["n_tensors"], 0);
    stdout(&["inspect", "-m", &path]);
    let found = json(&["tokenize", "-m", &path, "-p", "Hello world", "--json"]);
    assert_eq!(ids(&found), [1, 339, 75, 340, 274, 343, 294, 268, 347, 351]);
}

#[test]
fn bench_has_llama_benchs_fields_and_bytes() {
    let model = golden(PHI3);
    let arguments = ["bench", "-m", &model, "-p", "16", "-n", "5", "-pg", "8,4", "-r", "3", "-t", "2", "-o"];
    let runs = json(&[&arguments[..], &["json"]].concat());
    let tests: Vec<&str> = runs.as_array().unwrap().iter().map(|run| run["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp16", "tg5", "pp8+tg4"]);
    let run = &runs[1];
    for field in [
        "build_commit cpu_info gpu_info backends cpu_arithmetic model_filename model_type model_size model_n_params n_batch",
        "n_ubatch n_threads type_k type_v n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts",
        "samples_ns samples_ts n_parallel bytes_per_token gb_per_second read_bandwidth_gb_per_second ideal_ts",
        "share_of_ideal time_to_first_token_ns load_ns load_read_bytes load_read_ns load_copy_bytes load_copy_ns",
        "load_repack_bytes load_repack_ns peak_memory_bytes",
    ]
    .into_iter()
    .flat_map(str::split_whitespace)
    {
        assert!(run.get(field).is_some(), "{field}");
    }
    assert_eq!((&run["n_prompt"], &run["n_gen"], &run["n_threads"]), (&0.into(), &5.into(), &2.into()));
    assert_eq!(run["samples_ns"].as_array().unwrap().len(), 3);
    assert_eq!((&run["backends"], &run["cpu_arithmetic"]), (&"cpu".into(), &"f32".into()));
    let tensors = Gguf::open(&model).unwrap();
    let all: u64 = tensors.tensors().iter().map(|tensor| tensor.n_bytes).sum();
    let embedding = tensors.tensor("token_embd.weight").unwrap().n_bytes;
    // One row of the embedding's 384; the cache of 3 tokens, 4 KiB each, on average.
    assert_eq!(run["bytes_per_token"], all - embedding + embedding / 384 + 3 * 4096);
    assert_eq!(run["model_size"], all);
    let (speed, rate) = (run["avg_ts"].as_f64().unwrap(), run["gb_per_second"].as_f64().unwrap());
    assert!((rate - speed * run["bytes_per_token"].as_f64().unwrap() / 1e9).abs() < 1e-9 * rate);
    // The prompt reads the same weights once; each of its tokens has a row of the embedding and a place in the cache.
    let prompt = (all - embedding) + 16 * embedding / 384 + 16 * 4096;
    assert_eq!(runs[0]["bytes_per_token"], prompt / 16);
    let number = |field: &str| run[field].as_f64().unwrap();
    let ideal = 1e9 * number("read_bandwidth_gb_per_second") / number("bytes_per_token");
    assert!((number("ideal_ts") / ideal - 1.0).abs() < 1e-9);
    assert!((number("share_of_ideal") / (speed / ideal) - 1.0).abs() < 1e-9);
    // All of the file goes through the reading, and on the processor through nothing else.
    assert_eq!((&run["load_read_bytes"], &run["load_copy_bytes"]), (&all.into(), &0.into()));
    assert!(number("load_ns") >= number("load_read_ns") && number("load_read_ns") > 0.0);
    assert!(runs[0]["time_to_first_token_ns"].as_f64().unwrap() > number("load_ns"));
    assert_eq!(run["time_to_first_token_ns"], Value::Null);

    let table = String::from_utf8(stdout(&[&arguments[..], &["md"]].concat())).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let rows = lines.iter().filter(|line| line.starts_with('|')).count();
    assert_eq!(rows, 5);
    assert!(table.contains("| bytes/token | GB/s | ideal t/s | of ideal |") && table.contains("loaded in "));
    assert!(table.contains("First token of pp16 "), "{table}");
    assert!(lines[0].starts_with("| model | size | params | backend | threads | test | t/s |"), "{table}");
    assert!(lines[3].contains("| tg5 |") && lines[3].contains('±'), "{table}");
    let fixed_point = [&arguments[..], &["md", "--cpu-arithmetic", "fixed16"]].concat();
    let table = String::from_utf8(stdout(&fixed_point)).unwrap();
    assert!(table.contains("| cpu fixed16 | 2 | pp16 |"), "{table}");
    let csv = String::from_utf8(stdout(&[&arguments[..], &["csv"]].concat())).unwrap();
    assert_eq!(csv.lines().count(), 4);
    let columns: Vec<usize> = csv.lines().map(|line| line.matches("\",\"").count()).collect();
    assert!(columns.iter().all(|n| *n == columns[0]), "{csv}");
}

#[test]
fn bench_starts_behind_a_depth_and_steps_sequences_together() {
    let model = golden(PHI3);
    let folder = tempfile::tempdir().unwrap();
    let charts = folder.path().join("charts");
    let arguments =
        ["bench", "-m", &model, "-p", "8", "-n", "4", "-d", "0,100", "-npl", "1,3", "-r", "2", "-o"];
    let plot = ["json", "--plot", charts.to_str().unwrap()];
    let runs = json(&[&arguments[..], &plot].concat());
    let runs = runs.as_array().unwrap();
    let tests: Vec<&str> = runs.iter().map(|run| run["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp8", "tg4", "tg4 x3", "pp8 @ d100", "tg4 @ d100", "tg4 x3 @ d100"]);
    let field = |index: usize, name: &str| runs[index][name].as_u64().unwrap();
    assert_eq!((field(5, "n_depth"), field(5, "n_parallel"), field(5, "n_gen")), (100, 3, 4));
    // 4 KiB of keys and values a token.
    assert_eq!(field(4, "bytes_per_token"), field(1, "bytes_per_token") + 100 * 4096);
    // Weights are read once for three tokens, a row of the embedding and the cache for each.
    let gguf = Gguf::open(&model).unwrap();
    let embedding = gguf.tensor("token_embd.weight").unwrap().n_bytes;
    let shared = gguf.tensors().iter().map(|tensor| tensor.n_bytes).sum::<u64>() - embedding;
    assert!((field(1, "bytes_per_token") - field(2, "bytes_per_token")).abs_diff(2 * shared / 3) <= 1);
    // Tokens of all sequences are counted.
    let sample = |name: &str| runs[2][name][0].as_f64().unwrap();
    let n_tokens = sample("samples_ns") * sample("samples_ts") / 1e9;
    assert!((n_tokens / 12.0 - 1.0).abs() < 0.01, "{n_tokens}");
    assert_eq!(runs[3]["time_to_first_token_ns"], Value::Null);
    for (name, n_points) in [("roofline.svg", 6), ("decode-depth.svg", 4)] {
        let chart = std::fs::read_to_string(charts.join(name)).unwrap();
        assert!(chart.starts_with("<svg ") && chart.trim_end().ends_with("</svg>"), "{chart}");
        assert_eq!(chart.matches("<circle ").count(), n_points, "{name}");
    }
}

#[test]
fn bench_skips_tests_of_no_tokens() {
    let model = golden(PHI3);
    let runs = json(&["bench", "-m", &model, "-p", "0", "-n", "2,3", "-r", "1", "-o", "json"]);
    let tests: Vec<&str> = runs.as_array().unwrap().iter().map(|run| run["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["tg2", "tg3"]);
    assert_eq!(json(&["bench", "-m", &model, "-p", "0", "-n", "0", "-o", "json"]), serde_json::json!([]));
}

#[test]
fn synthetic_models_run_and_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let listed = String::from_utf8(stdout(&["synth", "--list"])).unwrap();
    for name in ["phi3-mini-4k", "tiny-qwen2.5-0.5b", "q4_k_m"] {
        assert!(listed.lines().any(|line| line.trim() == name), "{name} in {listed}");
    }
    for (model, format) in
        [("tiny-phi3-mini-4k", "q4_k_m"), ("tiny-llama31-8b", "Q8_0"), ("tiny-qwen3-4b", "f16")]
    {
        let write = |name: &str, seed: &str| {
            let path = file(&folder, name);
            let flags = ["--model", model, "--format", format, "--seed", seed, "-o", &path];
            assert!(stdout(&[&["synth"], &flags[..]].concat()).is_empty());
            (std::fs::read(&path).unwrap(), path)
        };
        let ((first, path), (again, _), (other, _)) = (write("a", "1"), write("b", "1"), write("c", "2"));
        assert!(first == again && first != other, "{model}");
        let reply = json(&[
            "generate",
            "-m",
            &path,
            "--tokens",
            "5,6,7",
            "-n",
            "4",
            "--temp",
            "0",
            "--ignore-eos",
            "--json",
        ]);
        assert_eq!(ids(&reply["ids"]).len(), 4, "{model}");
        assert_eq!(json(&["inspect", "-m", &path, "--json"])["config"]["name"], model);
    }
}

#[test]
fn without_a_model_there_is_the_one_in_the_box() {
    let arguments = ["generate", "-p", "Once upon a time", "-n", "24", "--temp", "0"];
    let output = worker(&arguments).assert().success();
    let output = output.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "no -m: using the model in the box\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/box.gguf");
    assert_eq!(output.stdout, stdout(&[&arguments[..], &["-m", path]].concat()));
    assert!(output.stdout.iter().filter(|byte| **byte == b' ').count() > 8);
    let from_environment = worker(&arguments).env("WORKER_ORCD_MODEL", path).assert().success();
    assert_eq!(from_environment.get_output().stdout, output.stdout);
    assert!(from_environment.get_output().stderr.is_empty());
}
