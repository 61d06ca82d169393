//! The same seed gives the same bytes: over runs, chunks, threads, neighbours and the way a prompt is fed.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;

use common::device::devices;
use worker_orcd::inference::{
    CancelToken, DeviceChoice, GenerateOptions, LoadOptions, Model, Prompt, StopReason, TextModel,
};
use worker_orcd::sampler::SamplerConfig;

fn boxed() -> PathBuf {
    common::root().join("assets/box.gguf")
}

fn options(device: DeviceChoice, chunk: usize, n_threads: usize) -> LoadOptions {
    LoadOptions { device, n_threads: Some(n_threads), context: Some(256), chunk, ..LoadOptions::default() }
}

fn load_on(device: DeviceChoice, chunk: usize, n_threads: usize) -> TextModel {
    TextModel::load(boxed(), &options(device, chunk, n_threads), &mut |_, _| {}).unwrap()
}

fn load(chunk: usize, n_threads: usize) -> TextModel {
    load_on(DeviceChoice::Cpu, chunk, n_threads)
}

fn warm(seed: u64) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(24),
        sampler: SamplerConfig { temperature: 0.7, seed, ..SamplerConfig::default() },
        ignore_eos: true,
        ..GenerateOptions::default()
    }
}

/// The same for a device; an emulated one takes its time.
fn brief(device: DeviceChoice, seed: u64) -> GenerateOptions {
    let is_slow = device.to_string() == "emulator";
    GenerateOptions { max_tokens: Some(if is_slow { 6 } else { 24 }), ..warm(seed) }
}

const PROMPTS: [&str; 5] = [
    "Once upon a time",
    "The old lighthouse",
    "<|user|>\nWhat colour is the sea?<|end|>\n<|assistant|>\n",
    "A GPU has",
    "One morning the fox",
];

#[test]
fn ten_runs_of_five_prompts_are_identical() {
    for device in devices() {
        let model = load_on(device, 512, 2);
        let run =
            |prompt, seed| model.generate(Prompt::Text(prompt), &brief(device, seed), &mut |_| {}).unwrap();
        let mut seed_matters = false;
        for prompt in PROMPTS {
            let first = run(prompt, 42);
            assert_eq!(Some(first.ids.len()), brief(device, 42).max_tokens);
            for _ in 1..10 {
                let again = run(prompt, 42);
                assert_eq!(again.ids, first.ids, "{device}: {prompt}");
                assert_eq!(again.text, first.text, "{device}: {prompt}");
            }
            seed_matters |= run(prompt, 43).ids != first.ids;
        }
        assert!(seed_matters, "{device}: another seed gave the same text for every prompt");
    }
}

#[test]
fn chunks_threads_and_a_fresh_load_change_nothing() {
    for device in devices() {
        let whole = load_on(device, 512, 1);
        for (chunk, threads) in [(1, 1), (3, 2), (512, 2)] {
            let other = load_on(device, chunk, threads);
            for prompt in PROMPTS {
                let run = |model: &TextModel| {
                    model.generate(Prompt::Text(prompt), &brief(device, 7), &mut |_| {}).unwrap().ids
                };
                assert_eq!(run(&other), run(&whole), "{device}, chunk {chunk}, {threads} threads: {prompt}");
            }
        }
    }
}

#[test]
fn a_reply_can_be_replayed_from_its_middle() {
    let model = load(512, 2);
    let whole = model.generate(Prompt::Text(PROMPTS[0]), &warm(3), &mut |_| {}).unwrap();
    let prompt = [&whole.prompt_ids[..], &whole.ids[..10]].concat();
    let rest = model.generate(Prompt::Tokens(&prompt), &warm(3), &mut |_| {}).unwrap();
    assert_eq!(rest.ids[..14], whole.ids[10..]);
}

#[test]
fn two_threads_generating_at_once_do_not_meet() {
    for device in devices() {
        // One model that both use, and one for each.
        let (shared, own) = (load_on(device, 512, 2), [load_on(device, 512, 2), load_on(device, 512, 1)]);
        let run = |model: &TextModel, prompt| {
            model.generate(Prompt::Text(prompt), &brief(device, 9), &mut |_| {}).unwrap().ids
        };
        let expected = PROMPTS.map(|prompt| run(&shared, prompt));
        std::thread::scope(|scope| {
            for own in &own {
                let (expected, run, shared) = (&expected, &run, &shared);
                scope.spawn(move || {
                    for (prompt, expected) in PROMPTS.iter().zip(expected) {
                        assert_eq!(&run(shared, prompt), expected, "{device}");
                        assert_eq!(&run(own, prompt), expected, "{device}");
                    }
                });
            }
        });
    }
}

#[test]
fn the_stream_is_the_text() {
    let model = load(512, 2);
    let mut streamed = String::new();
    let generation =
        model.generate(Prompt::Text(PROMPTS[1]), &warm(1), &mut |piece| streamed.push_str(piece)).unwrap();
    assert_eq!(streamed, generation.text);
    assert_eq!(generation.stop_reason, StopReason::Length);
}

#[test]
fn a_stop_text_ends_the_generation_and_is_left_out() {
    let model = load(512, 2);
    let whole = model.generate(Prompt::Text(PROMPTS[0]), &warm(5), &mut |_| {}).unwrap();
    let stop = whole.text.split_whitespace().nth(6).unwrap().to_owned();
    let options = GenerateOptions { stop: vec![stop.clone()], ..warm(5) };
    let stopped = model.generate(Prompt::Text(PROMPTS[0]), &options, &mut |_| {}).unwrap();
    assert_eq!(stopped.stop_reason, StopReason::StopText(stop.clone()));
    assert_eq!(stopped.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert!(whole.ids.starts_with(&stopped.ids));
}

#[test]
fn a_cancelled_generation_keeps_what_it_has() {
    let cancel = CancelToken::default();
    let options = GenerateOptions { cancel: cancel.clone(), ..warm(5) };
    let mut model = Model::load(boxed(), &self::options(DeviceChoice::Cpu, 512, 1), &mut |_, _| {}).unwrap();
    let mut seen = 0;
    let tokens = model
        .generate(&[1, 2, 3], &options, &mut |_| {
            seen += 1;
            if seen == 4 {
                cancel.cancel();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(tokens.stop_reason, StopReason::Cancelled);
    assert_eq!(tokens.ids.len(), 4);
}

#[test]
fn a_conversation_gives_the_bytes_that_one_prompt_would() {
    use worker_orcd::tokenizer::ChatMessage;
    let model = load(512, 2);
    let mut talk = model.converse(Some(128)).unwrap();
    let ask = |talk: &mut _, text: &str| {
        model.reply(talk, ChatMessage::new("user", text), &warm(2), &mut |_| {}).unwrap()
    };
    ask(&mut talk, "What colour is the sea?");
    let second = ask(&mut talk, "And the sky?");
    assert!(second.timings.prompt_tokens < second.prompt_ids.len(), "the past stays in the cache");
    let alone = model.generate(Prompt::Tokens(&second.prompt_ids), &warm(2), &mut |_| {}).unwrap();
    assert_eq!(alone.ids, second.ids);
    assert_eq!(talk.messages.len(), 4);

    // What a conversation holds of the cache is free again when it is dropped, and belongs to its model.
    let other = load(512, 1);
    assert!(other.reply(&mut talk, ChatMessage::new("user", "Hello"), &warm(2), &mut |_| {}).is_err());
    assert!(model.converse(Some(256)).is_err());
    drop(talk);
    assert!(model.converse(Some(256)).is_ok());
}
