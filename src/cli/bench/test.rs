//! The tests of `bench`, in llama-bench's terms, and the bytes that each must read at least.

use crate::cli::args::BenchArgs;
use crate::cli::source::WeightBytes;
use crate::inference::{Model, Passes};

/// One test: tokens that are there already, prompt tokens, then generated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub n_prompt: usize,
    pub n_gen: usize,
    pub n_depth: usize,
    /// Sequences that generate together.
    pub n_parallel: usize,
}

/// The tests asked for, in llama-bench's order. Prompts of several sequences run one after the other, so a prompt alone
/// is one test whatever their number.
pub(super) fn tests(args: &BenchArgs) -> Vec<Test> {
    let mut tests = Vec::new();
    for &n_depth in &args.n_depth {
        let mut add = |n_prompt, n_gen, n_parallel| {
            tests.push(Test { n_prompt, n_gen, n_depth, n_parallel });
        };
        args.n_prompt.iter().for_each(|&n_prompt| add(n_prompt, 0, 1));
        for n_parallel in args.n_parallel.iter().map(|n| n.get()) {
            args.n_gen.iter().for_each(|&n_gen| add(0, n_gen, n_parallel));
            args.prompt_gen.iter().for_each(|&(n_prompt, n_gen)| add(n_prompt, n_gen, n_parallel));
        }
    }
    tests.retain(|test| test.n_prompt > 0 || test.n_gen > 0);
    tests
}

impl Test {
    /// Tokens that one sequence holds at the end; absurd numbers saturate and are refused with the context that they
    /// need.
    fn capacity(&self) -> usize {
        self.n_depth.saturating_add(self.n_prompt).saturating_add(self.n_gen)
    }
    /// The context that the test needs.
    pub(super) fn context(&self) -> usize {
        Model::context_of(self.n_parallel, self.capacity())
    }
    /// Tokens that are timed, those of all sequences.
    pub(super) fn n_tokens(&self) -> usize {
        self.n_parallel * (self.n_prompt + self.n_gen)
    }
    /// Whether it is all generation, of tokens one by one.
    pub(super) fn is_decode(&self) -> bool {
        self.n_prompt == 0
    }
    /// llama-bench's name, `pp512`, `tg128 @ d1024`, `pp512+tg128`; of several sequences, `tg128 x8`.
    pub(super) fn name(&self) -> String {
        let mut name = match (self.n_prompt, self.n_gen) {
            (n, 0) => format!("pp{n}"),
            (0, n) => format!("tg{n}"),
            (prompt, gen_) => format!("pp{prompt}+tg{gen_}"),
        };
        if self.n_parallel > 1 {
            name += &format!(" x{}", self.n_parallel);
        }
        if self.n_depth > 0 {
            name += &format!(" @ d{}", self.n_depth);
        }
        name
    }
    /// What it runs: arbitrary tokens of a vocabulary.
    pub(super) fn passes<'a>(&self, tokens: &'a [u32]) -> Passes<'a> {
        let (past, rest) = tokens.split_at(self.n_depth);
        let (prompt, decoded) = rest.split_at(self.n_prompt);
        Passes { n_sequences: self.n_parallel, past, prompt, decoded }
    }
    /// As many tokens as a sequence takes, from all over the vocabulary; the same ones each time (splitmix64 of their
    /// index).
    pub(super) fn arbitrary_tokens(&self, vocab_size: usize) -> Vec<u32> {
        let mixed = |index: u64| {
            let mut z = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        (0..self.capacity() as u64).map(|index| (mixed(index) % vocab_size as u64) as u32).collect()
    }
}

/// What a pass reads: weights once, whatever its rows, and the keys and values of each sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub weights: WeightBytes,
    /// Keys and values of one token.
    pub kv: u64,
    /// Most rows of a pass.
    pub chunk: usize,
}

impl Traffic {
    /// Bytes that the timed part of a test reads at least: a pass of a prompt's chunk reads all layers and the cache up to
    /// its last token, its last pass the output too; a step reads all weights once and each sequence's cache, the new
    /// token's place included.
    pub(super) fn bytes(&self, test: &Test) -> u64 {
        let WeightBytes { embedding_row, layers, output } = self.weights;
        let (depth, n_prompt, n_gen) = (test.n_depth as u64, test.n_prompt as u64, test.n_gen as u64);
        let ends = (0..n_prompt).step_by(self.chunk).map(|first| n_prompt.min(first + self.chunk as u64));
        let mut prompt: u64 = ends.map(|end| layers + self.kv * (depth + end)).sum();
        if n_prompt > 0 {
            prompt += output;
        }
        // The keys and values of all steps: past, past + 1, and so on.
        let past = depth + n_prompt;
        let cached = self.kv * (n_gen * past + n_gen * (n_gen + 1) / 2);
        let each = prompt + cached + (n_prompt + n_gen) * embedding_row;
        test.n_parallel as u64 * each + n_gen * (layers + output)
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    const TRAFFIC: Traffic =
        Traffic { weights: WeightBytes { embedding_row: 1, layers: 1000, output: 200 }, kv: 10, chunk: 4 };

    fn test(n_prompt: usize, n_gen: usize, n_depth: usize, n_parallel: usize) -> Test {
        Test { n_prompt, n_gen, n_depth, n_parallel }
    }

    #[test]
    fn names_are_llama_benchs() {
        assert_eq!(test(512, 0, 0, 1).name(), "pp512");
        assert_eq!(test(0, 128, 1024, 1).name(), "tg128 @ d1024");
        assert_eq!(test(512, 128, 64, 8).name(), "pp512+tg128 x8 @ d64");
    }

    #[test]
    fn a_step_reads_weights_once_and_each_cache() {
        assert_eq!(TRAFFIC.bytes(&test(0, 1, 0, 1)), 1200 + 1 + 10);
        assert_eq!(TRAFFIC.bytes(&test(0, 2, 100, 1)), 2 * 1201 + 10 * (101 + 102));
        assert_eq!(TRAFFIC.bytes(&test(0, 2, 100, 8)), 2 * 1200 + 8 * (2 + 10 * (101 + 102)));
    }

    #[test]
    fn a_prompt_reads_weights_once_a_chunk() {
        assert_eq!(TRAFFIC.bytes(&test(4, 0, 0, 1)), 1200 + 4 + 10 * 4);
        assert_eq!(TRAFFIC.bytes(&test(6, 0, 5, 1)), 2 * 1000 + 200 + 6 + 10 * (9 + 11));
        let both = TRAFFIC.bytes(&test(4, 0, 0, 1)) + TRAFFIC.bytes(&test(0, 3, 4, 1));
        assert_eq!(TRAFFIC.bytes(&test(4, 3, 0, 1)), both);
    }

    #[test]
    fn several_sequences_have_pages_of_their_own() {
        assert_eq!(test(0, 65, 0, 1).context(), 65);
        assert_eq!(test(0, 65, 0, 3).context(), 3 * 128);
        assert_eq!(test(usize::MAX, 1, 0, 3).context(), usize::MAX);
    }
}
