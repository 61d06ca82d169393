//! Choosing a token on the host, as [`Choice`] defines it.

use crate::ops::choice::{Choice, WEIGHT_OF_LARGEST};

use super::simd::{InstructionSet, Kernel, Simd};

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
        let mut weights = weights(&candidates, largest, 1.0).into_iter();
        candidates.retain(|_| weights.next() >= Some(least));
    }
    draw(&candidates, largest, choice)
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
        let last = *candidates.clone().select_nth_unstable_by(k - 1, by_likelihood).1;
        keep_to(candidates, &last);
    }
}

/// Keeps the first whose weights reach a fraction, of 2^64, of all.
fn keep_top_p(candidates: &mut Vec<Candidate>, fraction: u64, largest: f32) {
    let weights = weights(candidates, largest, 1.0);
    let mut wanted = upper_word(fraction, weights.iter().sum()).max(1);
    let mut ranked: Vec<(Candidate, u64)> = candidates.iter().copied().zip(weights).collect();
    // The last that is kept is in this half or in that one; only its half is looked at again.
    let mut among = &mut ranked[..];
    while among.len() > 1 {
        let half = among.len() / 2;
        among.select_nth_unstable_by(half, |a, b| by_likelihood(&a.0, &b.0));
        let (likelier, others) = among.split_at_mut(half);
        let sum = likelier.iter().map(|(_, weight)| weight).sum();
        among = if sum >= wanted { likelier } else { others };
        wanted -= if sum >= wanted { 0 } else { sum };
    }
    if let [(last, _)] = among {
        keep_to(candidates, last);
    }
}

/// Keeps those that do not come after one, in the order in which they stand.
fn keep_to(candidates: &mut Vec<Candidate>, last: &Candidate) {
    candidates.retain(|candidate| by_likelihood(candidate, last).is_le());
}

/// The token in which the random unit falls; candidates stand in the order of the vocabulary.
fn draw(candidates: &[Candidate], largest: f32, choice: &Choice) -> Option<u32> {
    let weights = weights(candidates, largest, choice.temperature);
    let mut left = upper_word(choice.random_fraction(), weights.iter().sum());
    let chosen = weights.iter().position(|&weight| {
        let is_here = left < weight;
        left = left.saturating_sub(weight);
        is_here
    });
    chosen.map(|at| candidates[at].token)
}

/// The weight of each: `w((l - L) / temperature)`.
fn weights(candidates: &[Candidate], largest: f32, temperature: f32) -> Vec<u64> {
    // Plain Rust, compiled where products can be fused by an instruction instead of a call.
    struct Weigh<'a>(&'a [Candidate], f32, f32);
    impl Kernel for Weigh<'_> {
        type Output = Vec<u64>;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> Vec<u64> {
            let Self(candidates, largest, temperature) = self;
            let mut weights = vec![0; candidates.len()];
            for (into, candidate) in weights.iter_mut().zip(candidates) {
                *into = weight((candidate.logit - largest) / temperature);
            }
            weights
        }
    }
    InstructionSet::available()[0].run(Weigh(candidates, largest, temperature))
}

fn upper_word(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> u64::BITS) as u64
}

/// `⌊2³² e^x⌋` for x ≤ 0.
#[inline(always)]
fn weight(x: f32) -> u64 {
    if x < LEAST_EXPONENT { 0 } else { (exponential(x) * WEIGHT_OF_LARGEST as f32) as u64 }
}

/// `e^x` for `x ≤ 0` to the bits of `exponential` in `kernels/include/numeric.cuh`, where it is explained.
#[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The token by the definition of [`Choice`]: everything sorted, nothing selected.
    fn by_sorting(logits: &[f32], choice: &Choice) -> Option<u32> {
        let mut order: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
        order.retain(|(logit, _)| logit.is_finite());
        order.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal).then(a.1.cmp(&b.1)));
        let largest = order.first()?.0;
        if choice.top_k > 0 {
            order.truncate(choice.top_k as usize);
        }
        if let Some(fraction) = choice.top_p_fraction() {
            let wanted = upper_word(fraction, order.iter().map(|(logit, _)| weight(logit - largest)).sum());
            let mut sum = 0;
            let kept = order.iter().take_while(|(logit, _)| {
                let is_wanted = sum < wanted.max(1);
                sum += weight(logit - largest);
                is_wanted
            });
            order.truncate(kept.count());
        }
        order.retain(|(logit, _)| weight(logit - largest) >= choice.min_weight());
        order.sort_by_key(|(_, token)| *token);
        let weights = order.iter().map(|(logit, _)| weight((logit - largest) / choice.temperature));
        let unit = upper_word(choice.random_fraction(), weights.clone().sum());
        let mut sum = 0;
        let ends = weights.map(|weight| {
            sum += weight;
            sum
        });
        ends.zip(&order).find(|(end, _)| unit < *end).map(|(_, (_, token))| *token)
    }

    #[test]
    fn selecting_chooses_what_sorting_does() {
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 11
        };
        for n in [1, 2, 3, 50, 700] {
            // Of so many different logits: all equal, many ties, nearly none; some are no numbers.
            for kinds in [1, 4, 1 << 20] {
                for (top_k, top_p, min_p) in [
                    (0, 1.0, 0.0),
                    (0, 0.9, 0.0),
                    (0, 1e-9, 0.0),
                    (0, 0.999_999, 0.1),
                    (40, 0.5, 0.01),
                    (9, 1.0, 0.0),
                ] {
                    let mut row: Vec<f32> =
                        (0..n).map(|_| (random() % kinds) as f32 / kinds as f32 * 24.0 - 9.0).collect();
                    row[n / 2] = if n == 50 { f32::NAN } else { row[n / 2] };
                    let choice = Choice {
                        temperature: 0.7,
                        top_k,
                        top_p,
                        min_p,
                        random: random(),
                        ..Choice::default()
                    };
                    let expected = by_sorting(&row, &choice);
                    assert!(expected.is_some(), "{n} {kinds} {choice:?}");
                    assert_eq!(choose(&mut row, &choice), expected, "{n} {kinds} {choice:?}");
                }
            }
        }
    }
}
