//! Conversations, and what Ctrl-C and a closed pipe do.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::command::{file, golden, ids, json, list, stdout, worker};
use serde_json::Value;
use worker_orcd::gguf::{Gguf, GgufWriter, MetadataValue, TensorInfo};

fn lines(output: &[u8]) -> Vec<Value> {
    output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(from_json).collect()
}

fn from_json(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap()
}

const GREEDY: [&str; 4] = ["--temp", "0", "-n", "24"];

#[test]
fn a_single_turn_replies_and_ends() {
    let arguments = [&["chat", "-st", "-p", "Hello"], &GREEDY[..]].concat();
    let printed = String::from_utf8(stdout(&arguments)).unwrap();
    let reply = json(&[&arguments[..], &["--json"]].concat());
    assert_eq!(printed, format!("{}\n", reply["text"].as_str().unwrap()));
    assert!(reply["text"].as_str().unwrap().len() > 1, "{reply}");
    // The message from stdin is the same message; what comes after it is not read.
    let piped = worker(&[&["chat", "-st"], &GREEDY[..]].concat()).write_stdin("\nHello\nand more\n").assert();
    assert_eq!(piped.success().get_output().stdout, printed.as_bytes());
}

#[test]
fn what_was_said_is_remembered_until_it_is_cleared() {
    let arguments = [&["chat", "--json"], &GREEDY[..]].concat();
    let talk = |text: &'static str| {
        lines(&worker(&arguments).write_stdin(text).assert().success().get_output().stdout)
    };
    let two = talk("Hello\nTell me more\n");
    assert_eq!(two.len(), 2);
    let (first, second) = (ids(&two[0]["prompt_ids"]), ids(&two[1]["prompt_ids"]));
    let said = [first.clone(), ids(&two[0]["ids"])].concat();
    assert_eq!(second[..said.len()], said, "the second prompt begins with the first turn");
    assert!(second.len() > said.len());
    let run = two[1]["timings"]["prompt_tokens"].as_u64().unwrap();
    assert!(run < second.len() as u64 - first.len() as u64 + 1, "only what is new was run: {run}");

    let cleared = talk("Hello\n/clear\nHello\n/exit\nHello\n");
    assert_eq!(cleared.len(), 2);
    assert_eq!(cleared[0]["prompt_ids"], cleared[1]["prompt_ids"]);
    assert_eq!(cleared[0]["ids"], cleared[1]["ids"]);
}

/// The model in the box with a template that takes every role.
fn with_plain_template(path: &str) {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/box.gguf")).unwrap();
    let model = Gguf::from_bytes(bytes).unwrap();
    let mut writer = GgufWriter::from_gguf(&model).unwrap();
    let template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]";
    writer.set("tokenizer.chat_template", MetadataValue::String(template.to_owned()));
    let write = |_: usize, tensor: &TensorInfo, out: &mut dyn Write| {
        out.write_all(model.data(model.tensor(&tensor.name).unwrap()))
    };
    writer.write_file(Path::new(path), write).unwrap();
}

#[test]
fn a_system_prompt_comes_first_and_stays_when_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "plain.gguf");
    with_plain_template(&path);
    let arguments = [&["chat", "-m", &path, "-sys", "You are a rabbit.", "--json"], &GREEDY[..]].concat();
    let output = worker(&arguments).write_stdin("Hi\n/clear\nHi\n").assert().success();
    for reply in lines(&output.get_output().stdout) {
        let prompt = list(&ids(&reply["prompt_ids"]));
        let text = String::from_utf8(stdout(&["tokenize", "-m", &path, "--decode", &prompt])).unwrap();
        assert_eq!(text, "[system] You are a rabbit.\n[user] Hi\n[assistant]");
    }
}

#[test]
fn a_file_without_a_template_is_refused_with_the_cure() {
    let output = worker(&["chat", "-m", &golden("qwen2/qwen2-Q4_K_M"), "-p", "Hi", "-st"]).assert().code(3);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("tokenizer.chat_template") && said.contains("generate"), "{said}");
}

/// A reply that takes long enough to be interrupted.
fn long_reply(more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker-orcd"));
    let model = golden("phi4/phi4-Q4_K_M");
    command.args(["generate", "-m", &model, "-p", "Hello", "-n", "-1", "-c", "8192", "--temp", "0"]);
    command.args(["--ignore-eos"]).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_reply_and_prints_what_there_is() {
    use std::io::Read;
    let mut child = long_reply(&[]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(rest.last(), Some(&b'\n'), "the reply ends with its line");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    use std::io::Read;
    let mut child = long_reply(&[]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
