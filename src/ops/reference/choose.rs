//! Choosing a token on the host, as [`Choice`] defines it.

use crate::ops::choice::{Choice, WEIGHT_OF_LARGEST};

/// Below this a weight is 0.
const LEAST_EXPONENT: f32 = -23.0;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
}

/// Chooses a token from a row of logits, of which recent tokens' are changed; `None` where none is a finite number.
pub fn choose(logits: &mut [f32], choice: &Choice) -> Option<u32> {
    penalize(logits, choice);
    let first = first_of_largest(logits)?;
    if choice.is_greedy() {
        return Some(first);
    }
    let largest = logits[first as usize];
    let finite = logits.iter().zip(0_u32..).filter(|(logit, _)| logit.is_finite());
    let mut candidates: Vec<Candidate> = finite.map(|(&logit, token)| Candidate { token, logit }).collect();
    keep_top_k(&mut candidates, choice.top_k as usize);
    if let Some(fraction) = choice.top_p_fraction() {
        keep_top_p(&mut candidates, fraction, largest);
    }
    let least = choice.min_weight();
    if least > 0 {
        candidates.retain(|candidate| weight(candidate.logit - largest) >= least);
    }
    draw(candidates, largest, choice)
}

fn penalize(logits: &mut [f32], choice: &Choice) {
    let penalties = choice.penalties;
    let within = |value: f32| value.clamp(f32::MIN, f32::MAX);
    for &(token, count) in choice.recent.counts() {
        let Some(logit) = logits.get_mut(token as usize).filter(|logit| logit.is_finite()) else { continue };
        let scaled = within(if *logit > 0.0 { *logit / penalties.repeat } else { *logit * penalties.repeat });
        *logit = within(scaled - (count as f32 * penalties.frequency + penalties.presence));
    }
}

/// The first of the largest finite numbers; `None` where there is none.
fn first_of_largest(row: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (&value, index) in row.iter().zip(0_u32..) {
        if value.is_finite() && best.is_none_or(|(_, largest)| value > largest) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

/// Descending logits, equal ones in the order of their tokens; finite logits have an order.
fn by_likelihood(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(std::cmp::Ordering::Equal).then(a.token.cmp(&b.token))
}

fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, by_likelihood);
        candidates.truncate(k);
    }
}

/// Keeps the first whose weights reach a fraction, of 2^64, of all.
fn keep_top_p(candidates: &mut Vec<Candidate>, fraction: u64, largest: f32) {
    candidates.sort_unstable_by(by_likelihood);
    let weights: Vec<u64> = candidates.iter().map(|candidate| weight(candidate.logit - largest)).collect();
    let wanted = upper_word(fraction, weights.iter().sum()).max(1);
    let mut sum = 0;
    let enough = weights.iter().position(|weight| {
        sum += weight;
        sum >= wanted
    });
    candidates.truncate(enough.map_or(candidates.len(), |at| at + 1));
}

/// The token in which the random unit falls.
fn draw(mut candidates: Vec<Candidate>, largest: f32, choice: &Choice) -> Option<u32> {
    candidates.sort_unstable_by_key(|candidate| candidate.token);
    let weight_of = |candidate: &Candidate| weight((candidate.logit - largest) / choice.temperature);
    let weights: Vec<u64> = candidates.iter().map(weight_of).collect();
    let mut left = upper_word(choice.random_fraction(), weights.iter().sum());
    let chosen = weights.iter().position(|&weight| {
        let is_here = left < weight;
        left = left.saturating_sub(weight);
        is_here
    });
    chosen.map(|at| candidates[at].token)
}

fn upper_word(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> u64::BITS) as u64
}

/// `⌊2³² e^x⌋` for x ≤ 0.
fn weight(x: f32) -> u64 {
    if x < LEAST_EXPONENT { 0 } else { (exponential(x) * WEIGHT_OF_LARGEST as f32) as u64 }
}

/// `e^x` for `x ≤ 0` to the bits of `exponential` in `kernels/include/numeric.cuh`, where it is explained.
pub(crate) fn exponential(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-0.693_145_75, x);
    let r = n.mul_add(-1.428_606_8e-6, r);
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, coefficient);
    }
    let p = (p * r).mul_add(r, r) + 1.0;
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}
