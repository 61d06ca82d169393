//! Times candle's quantised models on the processor, with llama-bench's tests and fields.
//!
//! `candle-bench FILE PROMPTS GENERATIONS REPETITIONS`, lists separated by commas; `RAYON_NUM_THREADS` is the number of threads.
//! Tokens are arbitrary, nothing is sampled, each test runs once to warm up, as in worker-orcd's `bench`.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_phi3, quantized_qwen2};
use serde_json::{Value, json};

/// The families that candle and worker-orcd both read.
enum Model {
    Llama(quantized_llama::ModelWeights),
    Phi3(quantized_phi3::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
}

impl Model {
    /// The model of a file, and how many tokens its vocabulary has.
    fn load(path: &str) -> Result<(Self, usize), Box<dyn Error>> {
        let mut file = BufReader::new(File::open(path)?);
        let content = Content::read(&mut file)?;
        let architecture = content.metadata.get("general.architecture").ok_or("no general.architecture")?;
        let architecture = architecture.to_string()?.clone();
        let embedding = content.tensor_infos.get("token_embd.weight").ok_or("no token_embd.weight")?;
        let n_vocabulary = embedding.shape.dims().first().copied().ok_or("an embedding without rows")?;
        let device = Device::Cpu;
        let model = match architecture.as_str() {
            "llama" => {
                Self::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut file, &device)?)
            }
            "phi3" => {
                Self::Phi3(quantized_phi3::ModelWeights::from_gguf(false, content, &mut file, &device)?)
            }
            "qwen2" => {
                Self::Qwen2(quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &device)?)
            }
            other => return Err(format!("architecture `{other}` is not compared").into()),
        };
        Ok((model, n_vocabulary))
    }

    /// Runs tokens that follow `position` others. Position 0 begins a new sequence.
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Tensor, candle_core::Error> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        match self {
            Self::Llama(model) => model.forward(&tokens, position),
            Self::Phi3(model) => model.forward(&tokens, position),
            Self::Qwen2(model) => model.forward(&tokens, position),
        }
    }

    /// A prompt, then tokens one by one; answers the seconds until the last logits are there.
    fn run(&mut self, n_prompt: usize, n_gen: usize, n_vocabulary: usize) -> Result<f64, Box<dyn Error>> {
        let token = |index: usize| ((index * 7919 + 11) % n_vocabulary) as u32;
        let tokens: Vec<u32> = (0..n_prompt + n_gen).map(token).collect();
        let (prompt, decoded) = tokens.split_at(n_prompt);
        let started = Instant::now();
        if !prompt.is_empty() {
            self.forward(prompt, 0)?.flatten_all()?.to_vec1::<f32>()?;
        }
        for (index, token) in decoded.iter().enumerate() {
            self.forward(&[*token], n_prompt + index)?.flatten_all()?.to_vec1::<f32>()?;
        }
        Ok(started.elapsed().as_secs_f64())
    }
}

fn numbers(text: &str) -> Result<Vec<usize>, Box<dyn Error>> {
    Ok(text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?.into_iter().filter(|n| *n > 0).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, prompts, generations, repetitions] = &arguments[..] else {
        return Err("usage: candle-bench FILE PROMPTS GENERATIONS REPETITIONS".into());
    };
    let (mut model, n_vocabulary) = Model::load(path)?;
    let prompts = numbers(prompts)?.into_iter().map(|n_prompt| (n_prompt, 0));
    let generations = numbers(generations)?.into_iter().map(|n_gen| (0, n_gen));
    let mut records: Vec<Value> = Vec::new();
    for (n_prompt, n_gen) in prompts.chain(generations) {
        model.run(n_prompt, n_gen, n_vocabulary)?;
        let mut samples = Vec::new();
        for _ in 0..repetitions.parse::<usize>()? {
            samples.push((n_prompt + n_gen) as f64 / model.run(n_prompt, n_gen, n_vocabulary)?);
        }
        records.push(json!({
            "model_filename": path, "n_prompt": n_prompt, "n_gen": n_gen, "n_depth": 0, "samples_ts": samples,
        }));
    }
    println!("{}", serde_json::to_string_pretty(&records)?);
    Ok(())
}
