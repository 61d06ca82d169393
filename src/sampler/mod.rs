//! How the next token is to be chosen: the parameters, and the random number of each choice. What they mean is defined by
//! [`Choice`], which the device makes.
//!
//! The random number is keyed by (seed, sequence, position), so a reply can be replayed from any position and does not
//! depend on what else runs.

mod philox;

use thiserror::Error;

use crate::ops::{Choice, Penalties, Recent, reference};

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 does nothing.
    pub repeat_penalty: f32,
    /// Taken from a recent token's logit for each time it occurs.
    pub frequency_penalty: f32,
    /// Taken from a recent token's logit once.
    pub presence_penalty: f32,
    /// How many last tokens are recent.
    pub penalty_window: usize,
    /// Key of the random numbers.
    pub seed: u64,
}

impl Default for SamplerConfig {
    /// Greedy: temperature 0, nothing filtered, no penalty, seed 0.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
            seed: 0,
        }
    }
}

/// A choice that cannot be made.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum SamplerError {
    /// A parameter out of its range.
    #[error("{field} is {value}, expected {expected}")]
    BadParameter {
        /// The field of [`SamplerConfig`].
        field: &'static str,
        /// What it is.
        value: f32,
        /// What would have been right.
        expected: &'static str,
    },
    /// No logit is a finite number.
    #[error("none of {n_logits} logits is a finite number; the model's weights or its file are damaged")]
    NoFiniteLogit {
        /// How many there are.
        n_logits: usize,
    },
}

/// Which choice is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceKey {
    /// The sequence; 0 where there is one.
    pub sequence: u64,
    /// The position that the chosen token will have.
    pub position: u64,
}

impl SamplerConfig {
    /// Refuses parameters that make no sense.
    pub fn validate(&self) -> Result<(), SamplerError> {
        let rules: [(&'static str, f32, bool, &'static str); 6] = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "more than 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            ("repeat_penalty", self.repeat_penalty, self.repeat_penalty > 0.0, "more than 0"),
            ("frequency_penalty", self.frequency_penalty, true, "a finite number"),
            ("presence_penalty", self.presence_penalty, true, "a finite number"),
        ];
        match rules.into_iter().find(|(_, value, holds, _)| !(value.is_finite() && *holds)) {
            Some((field, value, _, expected)) => Err(SamplerError::BadParameter { field, value, expected }),
            None => Ok(()),
        }
    }

    /// The choice of the token after those of `history`.
    pub fn choice(&self, history: &[u32], key: ChoiceKey) -> Choice {
        let penalties = Penalties {
            repeat: self.repeat_penalty,
            frequency: self.frequency_penalty,
            presence: self.presence_penalty,
        };
        let window = if penalties.are_neutral() { 0 } else { self.penalty_window };
        Choice {
            temperature: self.temperature,
            // No vocabulary has more tokens.
            top_k: u32::try_from(self.top_k).unwrap_or(u32::MAX),
            top_p: self.top_p,
            min_p: self.min_p,
            penalties,
            recent: Recent::of(&history[history.len().saturating_sub(window)..]),
            random: philox::random_bits(self.seed, key.sequence, key.position),
        }
    }

    /// Makes a choice from logits on the host, which are changed: the token that a device chooses from the same ones.
    ///
    /// # Errors
    /// [`SamplerError::NoFiniteLogit`].
    pub fn choose(&self, logits: &mut [f32], history: &[u32], key: ChoiceKey) -> Result<u32, SamplerError> {
        let n_logits = logits.len();
        reference::choose(logits, &self.choice(history, key)).ok_or(SamplerError::NoFiniteLogit { n_logits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ChoiceKey = ChoiceKey { sequence: 0, position: 7 };

    fn chosen(config: SamplerConfig, logits: &[f32], history: &[u32]) -> std::collections::BTreeSet<u32> {
        (0..400)
            .map(|position| {
                let key = ChoiceKey { position, ..KEY };
                config.choose(&mut logits.to_vec(), history, key).unwrap()
            })
            .collect()
    }

    fn hot() -> SamplerConfig {
        SamplerConfig { temperature: 1.0, ..SamplerConfig::default() }
    }

    #[test]
    fn zero_temperature_takes_the_first_of_the_largest() {
        let mut logits = [0.0, 3.0, f32::NAN, 3.0, f32::INFINITY];
        assert_eq!(SamplerConfig::default().choose(&mut logits, &[], KEY), Ok(1));
    }

    #[test]
    fn logits_without_a_number_are_an_error() {
        for config in [SamplerConfig::default(), hot()] {
            let error = config.choose(&mut [f32::NAN, f32::NEG_INFINITY], &[], KEY).unwrap_err();
            assert_eq!(error, SamplerError::NoFiniteLogit { n_logits: 2 });
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [2.0, 1.0, 0.0, -1.0, -9.0];
        let all = chosen(hot(), &logits, &[]);
        assert!(all.is_superset(&[0, 1, 2, 3].into()), "{all:?}");
        assert_eq!(chosen(SamplerConfig { top_k: 2, ..hot() }, &logits, &[]), [0, 1].into());
        // Probabilities are 0.64, 0.24, 0.09, 0.03.
        assert_eq!(chosen(SamplerConfig { top_p: 0.6, ..hot() }, &logits, &[]), [0].into());
        assert_eq!(chosen(SamplerConfig { top_p: 0.7, ..hot() }, &logits, &[]), [0, 1].into());
        assert_eq!(chosen(SamplerConfig { min_p: 0.3, ..hot() }, &logits, &[]), [0, 1].into());
        assert_eq!(chosen(SamplerConfig { min_p: 1.0, ..hot() }, &logits, &[]), [0].into());
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        let logits = [1.0_f32, 0.0, 0.5];
        let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let mut counts = [0_u32; 3];
        for position in 0..20_000 {
            let token = hot().choose(&mut logits.to_vec(), &[], ChoiceKey { sequence: 3, position }).unwrap();
            counts[token as usize] += 1;
        }
        for (count, logit) in counts.iter().zip(logits) {
            let (got, expected) = (*count as f32 / 20_000.0, logit.exp() / total);
            assert!((got - expected).abs() < 0.015, "{got} against {expected}");
        }
    }

    #[test]
    fn penalties_push_recent_tokens_down() {
        let greedy = SamplerConfig::default();
        let choose = |config: SamplerConfig, history: &[u32]| {
            config.choose(&mut [2.0, 1.5, -0.5], history, KEY).unwrap()
        };
        assert_eq!(choose(greedy, &[0, 0]), 0);
        assert_eq!(choose(SamplerConfig { repeat_penalty: 1.5, ..greedy }, &[0]), 1);
        assert_eq!(choose(SamplerConfig { presence_penalty: 0.6, ..greedy }, &[0, 0]), 1);
        assert_eq!(choose(SamplerConfig { frequency_penalty: 0.3, ..greedy }, &[0]), 0);
        assert_eq!(choose(SamplerConfig { frequency_penalty: 0.3, ..greedy }, &[0, 0]), 1);
        let forgetful = SamplerConfig { presence_penalty: 9.0, penalty_window: 1, ..greedy };
        assert_eq!(choose(forgetful, &[0, 2]), 0);
    }

    #[test]
    fn a_choice_depends_on_its_key_alone() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.1).collect();
        let choose = |seed, sequence, position| {
            let config = SamplerConfig { seed, ..hot() };
            config.choose(&mut logits.clone(), &[], ChoiceKey { sequence, position }).unwrap()
        };
        let row: Vec<u32> = (0..40).map(|position| choose(1, 0, position)).collect();
        let again: Vec<u32> = (0..40).rev().map(|position| choose(1, 0, position)).rev().collect();
        assert_eq!(row, again);
        assert_ne!(row, (0..40).map(|position| choose(2, 0, position)).collect::<Vec<_>>());
        assert_ne!(row, (0..40).map(|position| choose(1, 1, position)).collect::<Vec<_>>());
    }

    #[test]
    fn senseless_parameters_are_refused() {
        for config in [
            SamplerConfig { temperature: -1.0, ..hot() },
            SamplerConfig { temperature: f32::NAN, ..hot() },
            SamplerConfig { top_p: 0.0, ..hot() },
            SamplerConfig { min_p: 1.5, ..hot() },
            SamplerConfig { repeat_penalty: 0.0, ..hot() },
            SamplerConfig { presence_penalty: f32::INFINITY, ..hot() },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
        assert!(hot().validate().is_ok());
    }
}
