//! How the next token is chosen from a row of logits: the definition that every device meets.

/// The range of a [`Choice::random`] number.
const RANDOM_BITS: u32 = 53;

/// How a token is chosen from a row of logits. Every device chooses the same token from the same logits, since all that
/// decides is integers and IEEE singles in one order:
///
/// 1. *Penalties.* The finite logit of each recent token becomes `l / repeat` where it is positive, else `l · repeat`,
///    less `count · frequency + presence`; both steps stay within the finite singles.
/// 2. *Order.* Logits that are not finite are out. The others stand in descending order, equal ones (both zeros are equal)
///    in the order of their tokens; the first is `L`. Without any there is no choice. Temperature 0, or a top-k of 1,
///    takes the first.
/// 3. *Weights.* `w(x) = ⌊2³² e^x⌋` with the kernels' own exponential (`kernels/include/numeric.cuh`), and 0 below
///    x = -23. A row of tokens of 32 bits has a sum of weights below 2⁶⁴.
/// 4. *Top-k* keeps the first k.
/// 5. *Top-p* keeps the first whose weights `w(l - L)` reach `⌊p · sum of those that are left⌋`, at least one; p is
///    rounded down to a multiple of 2⁻⁶⁴.
/// 6. *Min-p* keeps those with `w(l - L) ≥ ⌊2³² min_p⌋`.
/// 7. *The draw.* What is left has weights `w((l - L) / temperature)`. The random number times their sum, over 2⁵³, is a
///    unit; the choice is the token in which it falls when the weights are laid out in the order of the vocabulary.
///
/// The filters and their order are llama.cpp's.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely; 0 keeps all.
    pub min_p: f32,
    /// What is done to recent tokens.
    pub penalties: Penalties,
    /// The tokens to which it is done.
    pub recent: Recent,
    /// A number below 2⁵³.
    pub random: u64,
}

/// How likely recent tokens are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides positive and multiplies negative logits; 1 does nothing.
    pub repeat: f32,
    /// Taken from a logit for each time that its token occurs.
    pub frequency: f32,
    /// Taken from a logit once.
    pub presence: f32,
}

/// Recent tokens, each once, with how often it occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recent(Vec<(u32, u32)>);

impl Default for Choice {
    /// The most likely token.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            penalties: Penalties { repeat: 1.0, frequency: 0.0, presence: 0.0 },
            recent: Recent::default(),
            random: 0,
        }
    }
}

impl Penalties {
    /// Whether nothing is done.
    pub fn are_neutral(&self) -> bool {
        self.repeat == 1.0 && self.frequency == 0.0 && self.presence == 0.0
    }
}

impl Recent {
    /// Counts the tokens of a text.
    pub fn of(tokens: &[u32]) -> Self {
        let mut counts = std::collections::BTreeMap::new();
        for &token in tokens {
            *counts.entry(token).or_insert(0_u32) += 1;
        }
        Self(counts.into_iter().collect())
    }
    /// Tokens with their counts, in the order of the vocabulary.
    pub fn counts(&self) -> &[(u32, u32)] {
        &self.0
    }
}

impl Choice {
    /// Whether the first in order is taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature.is_nan() || self.temperature <= 0.0 || self.top_k == 1
    }
    /// Top-p as a fraction of 2⁶⁴; `None` keeps all.
    pub(super) fn top_p_fraction(&self) -> Option<u64> {
        // At least 1, which keeps one token; the conversion saturates.
        (self.top_p < 1.0).then_some(((f64::from(self.top_p) * (1_u128 << 64) as f64) as u64).max(1))
    }
    /// What the weight of a token must reach before temperature.
    pub(super) fn min_weight(&self) -> u64 {
        (f64::from(self.min_p) * WEIGHT_OF_LARGEST as f64) as u64
    }
    /// The random number as a fraction of 2⁶⁴.
    pub(super) fn random_fraction(&self) -> u64 {
        self.random << (u64::BITS - RANDOM_BITS)
    }
}

/// The weight of the most likely token.
pub(super) const WEIGHT_OF_LARGEST: u64 = 1 << 32;
