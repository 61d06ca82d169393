//! The command line: every flag, named as users of llama.cpp type it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::inference::{Arithmetic, DeviceChoice, LoadOptions};
use crate::quant::Format;
use crate::sampler::SamplerConfig;

use super::values::{OrNone, bytes, format, named, pair};

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 failure, 2 usage, 3 the model or tokenizer is missing or unsound, 4 no such device,
5 it does not fit the memory or the context, 130 interrupted.
Generated text and JSON go to stdout, all else to stderr.";

/// Loads GGUF language models and generates text with them.
#[derive(Debug, Parser)]
#[command(name = "worker-orcd", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Continue a text
    Generate(GenerateArgs),
    /// Talk with a model, turn by turn
    Chat(ChatArgs),
    /// Turn text into token ids, or back
    Tokenize(TokenizeArgs),
    /// Show what a file holds and what it needs
    Inspect(InspectArgs),
    /// Write the logits of every token of a prompt
    Logits(LogitsArgs),
    /// Write a synthetic model of random weights
    Synth(SynthArgs),
    /// Measure prompt processing and generation
    Bench(BenchArgs),
    /// Hold every operation of a device to the reference, on random operands
    Verify(VerifyArgs),
}

/// Which files.
#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// GGUF file, or any shard of a split one [default: the model in the box]
    #[arg(short, long, env = "WORKER_ORCD_MODEL", value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Another tokenizer than the file's: a tokenizer.json, a folder that holds one, or a GGUF file; also -mt
    #[arg(long, env = "WORKER_ORCD_TOKENIZER", value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
}

/// How a model is loaded.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Where the model runs: auto, cpu, cuda:N, or emulator (a build with that feature)
    #[arg(long, env = "WORKER_ORCD_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Worker threads of the CPU [default: as many as the machine has]
    #[arg(short, long, env = "WORKER_ORCD_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// How the CPU multiplies: f32, or activations in 16-bit fixed point with integer products, which is faster
    #[arg(long, env = "WORKER_ORCD_CPU_ARITHMETIC", value_enum, default_value = "f32", value_name = "NAME")]
    pub cpu_arithmetic: CpuArithmetic,
    /// Tokens of context; 0 takes the model's own [default: what is needed]
    #[arg(short, long, env = "WORKER_ORCD_CTX_SIZE", value_name = "N")]
    pub ctx_size: Option<usize>,
    /// Tokens of a prompt that go through the model together; results do not depend on it
    #[arg(short, long, visible_alias = "chunk", default_value = "512", value_name = "N")]
    pub batch_size: NonZeroUsize,
    /// Element type of the cache of keys and values
    #[arg(long, env = "WORKER_ORCD_KV_TYPE", value_enum, default_value = "f32")]
    pub kv_type: KvType,
    /// Most bytes that the model may take on its device, such as 6G
    #[arg(long, env = "WORKER_ORCD_VRAM_LIMIT", value_parser = bytes, value_name = "BYTES")]
    pub vram_limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CpuArithmetic {
    F32,
    Fixed16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KvType {
    F16,
    F32,
}

impl LoadArgs {
    /// The options for loading, with room for `context` tokens.
    pub(super) fn options(&self, context: Option<usize>) -> LoadOptions {
        LoadOptions {
            device: self.device,
            n_threads: self.threads.map(NonZeroUsize::get),
            cpu_arithmetic: match self.cpu_arithmetic {
                CpuArithmetic::F32 => Arithmetic::Single,
                CpuArithmetic::Fixed16 => Arithmetic::FixedPoint,
            },
            context,
            kv_format: match self.kv_type {
                KvType::F16 => Format::F16,
                KvType::F32 => Format::F32,
            },
            chunk: self.batch_size.get(),
            logits_rows: 1,
            limit_bytes: self.vram_limit,
            profile: false,
        }
    }
    /// The context asked for by `-c`, of a model whose own is `own`.
    pub(super) fn context(&self, own: usize) -> Option<usize> {
        self.ctx_size.map(|asked| if asked == 0 { own } else { asked })
    }
}

/// What is to be continued.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct PromptArgs {
    /// The prompt; - reads it from stdin
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File that holds the prompt, taken byte for byte; - is stdin
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The prompt as token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub tokens: Option<Vec<u32>>,
}

/// How tokens are chosen; the defaults are llama.cpp's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, visible_alias = "temperature", default_value_t = 0.8, value_name = "T")]
    #[arg(allow_negative_numbers = true)]
    temp: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, default_value_t = 40, value_name = "K")]
    top_k: usize,
    /// Keep the most likely tokens that together have this probability; 1 keeps all
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one; 0 keeps all
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    min_p: f32,
    /// Divides the logits of recent tokens; 1 does nothing
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    repeat_penalty: f32,
    /// Taken from a recent token's logit for each time it occurs
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Taken from a recent token's logit once
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: f32,
    /// How many last tokens are recent; -1 for all
    #[arg(long, default_value = "64", value_name = "N", allow_negative_numbers = true)]
    repeat_last_n: OrNone<usize>,
    /// Key of the random numbers; -1 draws one and prints it on stderr
    #[arg(short, long, default_value = "-1", value_name = "N", allow_negative_numbers = true)]
    seed: OrNone<u64>,
}

impl SamplingArgs {
    /// Whether choices are random and no seed was given.
    pub(super) fn needs_seed(&self) -> bool {
        self.temp != 0.0 && self.seed.0.is_none()
    }
    /// The sampler, with `drawn` for the seed where none is given.
    pub(super) fn config(&self, drawn: u64) -> SamplerConfig {
        SamplerConfig {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            penalty_window: self.repeat_last_n.0.unwrap_or(usize::MAX),
            seed: self.seed.0.unwrap_or(drawn),
        }
    }
}

/// How a text is continued.
#[derive(Debug, Args)]
pub(super) struct ReplyArgs {
    /// Most tokens to generate; -1 goes on until the model ends the text or the context is full
    #[arg(short = 'n', long, visible_alias = "n-predict", default_value = "-1", value_name = "N")]
    #[arg(allow_negative_numbers = true)]
    pub predict: OrNone<usize>,
    /// Text that ends the generation; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Take end-of-generation tokens as any other
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Say on stderr what loading and each reply took
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub reply: ReplyArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The first message; without it, messages are lines of stdin
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// What the model is told before the conversation; also -sys
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system_prompt: Option<String>,
    /// End after one reply; also -st
    #[arg(long)]
    pub single_turn: bool,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub reply: ReplyArgs,
}

#[derive(Debug, Args)]
pub(super) struct TokenizeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The text; - reads it from stdin
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["file", "decode"])]
    pub prompt: Option<String>,
    /// File that holds the text, taken byte for byte; - is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "decode")]
    pub file: Option<PathBuf>,
    /// Turn these ids, separated by commas, into text
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub decode: Option<Vec<u32>>,
    /// Take the names of special tokens as plain text; with --decode, leave special tokens out
    #[arg(long)]
    pub no_special: bool,
    /// Add no token that begins or ends a text
    #[arg(long)]
    pub no_bos: bool,
    /// Print the ids as a JSON array, or the decoded text as a JSON string
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print everything as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogitsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Safetensors file to write: `logits`, f32 [tokens, vocabulary]
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct SynthArgs {
    /// The model's name, such as phi3-mini-4k or tiny-phi3-mini-4k
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    pub model: Option<String>,
    /// The mix of formats, such as q4_k_m
    #[arg(long, default_value = "q4_k_m", value_name = "MIX")]
    pub format: String,
    /// Decides all random numbers
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// File to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "list")]
    pub output: Option<PathBuf>,
    /// List the models and mixes there are
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Lengths of the prompts to process, separated by commas; 0 skips the test
    #[arg(short = 'p', long, default_value = "512", value_delimiter = ',', value_name = "N")]
    pub n_prompt: Vec<usize>,
    /// Numbers of tokens to generate, separated by commas; 0 skips the test
    #[arg(short, long, default_value = "128", value_delimiter = ',', value_name = "N")]
    pub n_gen: Vec<usize>,
    /// A prompt and tokens after it as one test; also -pg
    #[arg(long, value_parser = pair, value_name = "PROMPT,GEN")]
    pub prompt_gen: Vec<(usize, usize)>,
    /// Tokens that the cache holds before each test, separated by commas; they are not timed
    #[arg(short = 'd', long, default_value = "0", value_delimiter = ',', value_name = "N")]
    pub n_depth: Vec<usize>,
    /// Numbers of sequences that generate together, separated by commas; also -npl, as llama-batched-bench has it
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "N")]
    pub n_parallel: Vec<NonZeroUsize>,
    /// Repetitions of each test, after one to warm up
    #[arg(short, long, default_value = "5", value_name = "N")]
    pub repetitions: NonZeroUsize,
    /// How the results are printed
    #[arg(short, long, value_enum, default_value = "md")]
    pub output: BenchOutput,
    /// Folder for two charts: the memory's roof over each test, and decode by depth
    #[arg(long, value_name = "FOLDER")]
    pub plot: Option<PathBuf>,
    /// Time every operation of the first prompt and the first generation apart, against the memory's speed
    #[arg(long)]
    pub profile: bool,
    /// The same, and write the operations for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchOutput {
    Md,
    Csv,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The device to verify: auto, cpu, cuda:N, or emulator (a build with that feature)
    #[arg(long, env = "WORKER_ORCD_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Worker threads of the CPU, which computes what is expected [default: as many as the machine has]
    #[arg(short, long, env = "WORKER_ORCD_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Decides all operands; -1 draws one and prints it on stderr
    #[arg(short, long, default_value = "-1", value_name = "N", allow_negative_numbers = true)]
    pub seed: OrNone<u64>,
    /// Take every row of every matrix and long contexts: minutes on a GPU, hours elsewhere
    #[arg(long)]
    pub full: bool,
    /// Formats of matrices to verify, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = format, value_name = "NAME")]
    pub format: Vec<Format>,
    /// Named models whose shapes are verified, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = named, value_name = "NAME")]
    pub model: Vec<String>,
    /// Print everything as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
