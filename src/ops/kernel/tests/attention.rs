//! Attention against doubles, and its bits against themselves: decode and prefill, other tiles, other batches, other
//! orders of threads.

use half::f16;

use crate::device::{EmulatorDevice, EmulatorOptions, Region};
use crate::model::{CATALOG, ModelConfig, RopePairing};
use crate::ops::{CacheLayer, HeadShape, Ops, OpsError, PAGE_TOKENS, Pass, PassLimits, RotaryTable, Span};
use crate::quant::Format;

use super::super::{KernelOps, Workspace, workspace::DECODE_ROWS};
use super::{Random, relative_l2, rows};

/// Scores and weighted values within 2^-22 of the largest products, over up to 1500 positions.
const MOST_ERROR: f64 = 1e-5;

const POISONED: EmulatorOptions = EmulatorOptions {
    capacity: None,
    shuffle: None,
    poison: true,
    n_threads: None,
    fail_allocation: None,
    warpgroups: false,
};

/// A sequence's cache in a layer of its own, as values that the cache's format holds exactly, and queries of its last rows.
struct Sequence {
    heads: HeadShape,
    format: Format,
    /// Before the rows.
    position: usize,
    pages: Vec<u32>,
    /// `[positions][kv_heads][head_dim]`.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[rows][q | k | v]`.
    qkv: Vec<f32>,
}

/// Pages of the layer: sequences stand in any of them.
const N_PAGES: u32 = 32;

impl Sequence {
    fn new(seed: u64, heads: HeadShape, format: Format, position: usize, n_rows: usize) -> Self {
        let mut random = Random(seed);
        let n_positions = position + n_rows;
        let mut pages: Vec<u32> = (0..N_PAGES).collect();
        for i in (1..pages.len()).rev() {
            pages.swap(i, (random.bits() % (i as u64 + 1)) as usize);
        }
        pages.truncate(n_positions.div_ceil(PAGE_TOKENS));
        let mut held = |spread: f32| -> Vec<f32> {
            let values = random.floats(n_positions * heads.kv_dim());
            let hold = |value: f32| if format == Format::F16 { f16::from_f32(value).to_f32() } else { value };
            values.into_iter().map(|value| hold(value * spread)).collect()
        };
        // Keys spread so far that some positions count much more than others.
        let (keys, values) = (held(3.0), held(1.0));
        let qkv = random.floats(n_rows * (heads.q_dim() + 2 * heads.kv_dim()));
        Self { heads, format, position, pages, keys, values, qkv }
    }

    /// A layer of the cache with what was written, and nothing written elsewhere.
    fn cache(&self, device: &EmulatorDevice) -> CacheLayer<EmulatorDevice> {
        let side = |values: &[f32]| {
            let HeadShape { kv_heads, head_dim, .. } = self.heads;
            let element_bytes = if self.format == Format::F16 { 2 } else { 4 };
            let page_bytes = kv_heads * PAGE_TOKENS * head_dim * element_bytes;
            let mut region = Region::allocate(device, u64::from(N_PAGES) * page_bytes as u64).unwrap();
            for (number, head) in values.chunks_exact(head_dim).enumerate() {
                let (position, kv_head) = (number / kv_heads, number % kv_heads);
                let bytes: Vec<u8> = match self.format {
                    Format::F16 => head.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
                    _ => head.iter().flat_map(|x| x.to_le_bytes()).collect(),
                };
                let page = self.pages[position / PAGE_TOKENS] as usize * kv_heads + kv_head;
                let at = (page * PAGE_TOKENS + position % PAGE_TOKENS) * head_dim * element_bytes;
                region.upload(&bytes, at as u64).unwrap();
            }
            region.typed()
        };
        CacheLayer { format: self.format, keys: side(&self.keys), values: side(&self.values) }
    }

    /// Rows `from..` as spans of these lengths.
    fn spans(&self, from: usize, lengths: &[usize]) -> Vec<Span<'_>> {
        let mut first_row = 0;
        let span = |&n_rows: &usize| {
            let position = self.position + from + first_row;
            let span = Span { first_row, n_rows, position, pages: &self.pages, rotary_set: 0 };
            first_row += n_rows;
            span
        };
        lengths.iter().map(span).collect()
    }

    fn row_width(&self) -> usize {
        self.heads.q_dim() + 2 * self.heads.kv_dim()
    }

    /// How far a score may be off: each factor is rounded by 2^-22 of the largest beside it.
    fn most_score_error(&self) -> f64 {
        let largest = |values: &[f32]| values.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x).abs()));
        let head_dim = self.heads.head_dim as f64;
        2.0 * largest(&self.keys) * largest(&self.qkv) * head_dim / head_dim.sqrt() / f64::from(1 << 22)
    }

    /// What a row must give, in doubles.
    fn exact(&self, row: usize) -> Vec<f64> {
        let HeadShape { q_heads, kv_heads, head_dim } = self.heads;
        let query = &self.qkv[row * self.row_width()..][..self.heads.q_dim()];
        let mut out = vec![0.0; q_heads * head_dim];
        for (head, (q, out)) in query.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
            let at = |position: usize| (position * kv_heads + head / (q_heads / kv_heads)) * head_dim;
            let positions = 0..self.position + row + 1;
            let score = |position| -> f64 {
                let key = &self.keys[at(position)..][..head_dim];
                q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                    / (head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = positions.map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (position, weight) in weights.iter().enumerate() {
                for (out, value) in out.iter_mut().zip(&self.values[at(position)..]) {
                    *out += weight / sum * f64::from(*value);
                }
            }
        }
        out
    }
}

/// A table that turns nothing that attention looks at.
fn rotary(device: &EmulatorDevice) -> RotaryTable<EmulatorDevice> {
    let mut frequencies = Region::allocate(device, 4).unwrap().typed();
    frequencies.upload(&[1.0_f32], 0).unwrap();
    RotaryTable {
        sets: vec![frequencies],
        rotated_dims: 2,
        pairing: RopePairing::Halves,
        attention_factor: 1.0,
    }
}

fn workspace(
    ops: &KernelOps<EmulatorDevice>,
    heads: HeadShape,
    limits: PassLimits,
) -> Workspace<EmulatorDevice> {
    let HeadShape { q_heads, kv_heads, head_dim } = heads;
    let config =
        ModelConfig { num_q_heads: q_heads, num_kv_heads: kv_heads, head_dim, ..CATALOG[0].config() };
    let region = Region::allocate(ops.device(), ops.workspace_bytes(&config, limits)).unwrap();
    ops.workspace(&config, limits, region).unwrap()
}

/// Attention of these spans, whose rows' q stand in `qkv`, over a layer: `[rows, q_dim]`.
fn attend(
    device: &EmulatorDevice,
    heads: HeadShape,
    cache: &CacheLayer<EmulatorDevice>,
    spans: &[Span<'_>],
    qkv: &[f32],
) -> Vec<f32> {
    let n_rows = spans.iter().map(|span| span.n_rows).sum();
    let tokens = vec![0; n_rows];
    let pass = Pass { tokens: &tokens, spans, ..Pass::default() };
    let ops = KernelOps::new(device.clone());
    // Room for the pages of every span.
    let context = spans.iter().map(|span| span.pages.len() * PAGE_TOKENS).sum();
    let mut workspace = workspace(&ops, heads, PassLimits { rows: n_rows, context });
    let width = heads.q_dim() + 2 * heads.kv_dim();
    let qkv = rows(device, width, &qkv[..n_rows * width]);
    let mut out = rows(device, heads.q_dim(), &vec![f32::NAN; n_rows * heads.q_dim()]);
    ops.run::<OpsError>(&pass, &rotary(device), &mut workspace, |workspace| {
        ops.attend(&pass, &qkv, heads, cache, workspace, &mut out)
    })
    .unwrap();
    out.download(0, n_rows).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The bits of a sequence's rows, which prefill gives together and decode eight at a time; all NaNs are one.
fn bits_of_both_phases(name: &str, sequence: &Sequence, n_rows: usize) -> Vec<u32> {
    assert!(n_rows > DECODE_ROWS, "{name}: not a case for prefill");
    let device = EmulatorDevice::new(POISONED).unwrap();
    let cache = sequence.cache(&device);
    let run = |from: usize, n: usize| {
        let qkv = &sequence.qkv[from * sequence.row_width()..];
        let out = attend(&device, sequence.heads, &cache, &sequence.spans(from, &[n]), qkv);
        bits(&out.into_iter().map(|x| if x.is_nan() { f32::NAN } else { x }).collect::<Vec<_>>())
    };
    let (together, q_dim) = (run(0, n_rows), sequence.heads.q_dim());
    for first in (0..n_rows).step_by(DECODE_ROWS) {
        let n = DECODE_ROWS.min(n_rows - first);
        assert_eq!(
            run(first, n),
            together[first * q_dim..][..n * q_dim],
            "{name}: decode of rows from {first} on"
        );
    }
    together
}

/// Holds both phases to the same bits, and some rows to doubles.
fn check_sequence(name: &str, sequence: &Sequence, n_rows: usize, most_error: f64) {
    let together = bits_of_both_phases(name, sequence, n_rows);
    let q_dim = sequence.heads.q_dim();
    for row in [0, n_rows / 2, n_rows - 1] {
        let found: Vec<f32> =
            together[row * q_dim..][..q_dim].iter().map(|&bits| f32::from_bits(bits)).collect();
        let error = relative_l2(&found, &sequence.exact(row));
        println!("{name}: row {row} is off by {error:.1e}");
        assert!(error < most_error, "{name}: row {row} is off by {error:e}");
    }
}

fn check(q_heads: usize, kv_heads: usize, head_dim: usize, format: Format, position: usize, n_rows: usize) {
    let heads = HeadShape { q_heads, kv_heads, head_dim };
    let name =
        format!("{q_heads}:{kv_heads} heads of {head_dim}, {format}, {n_rows} rows from {position} on");
    let sequence = Sequence::new((head_dim + position + q_heads) as u64, heads, format, position, n_rows);
    check_sequence(&name, &sequence, n_rows, MOST_ERROR);
}

#[test]
pub(super) fn heads_of_every_size_are_right_in_both_phases() {
    for format in [Format::F16, Format::F32] {
        for head_dim in [8, 40, 64, 80, 96, 128, 256] {
            check(2, 1, head_dim, format, 110, 21);
        }
    }
}

#[test]
pub(super) fn groups_of_every_size_are_right_in_both_phases() {
    for (q_heads, kv_heads) in [(2, 2), (3, 1), (4, 2), (7, 1), (8, 1), (14, 2), (9, 1)] {
        check(q_heads, kv_heads, 64, Format::F16, 60, 10);
    }
}

#[test]
pub(super) fn sequences_of_any_length_are_right_in_both_phases() {
    // From the beginning, across a page's end, across a split's end, and in a third split.
    for (position, n_rows) in [(0, 33), (63, 9), (64, 9), (447, 67), (500, 20), (1480, 12)] {
        check(2, 1, 64, Format::F16, position, n_rows);
    }
    check(1, 1, 96, Format::F32, 1015, 18);
}

#[test]
pub(super) fn keys_and_values_of_any_size_are_right_in_both_phases() {
    type Change = fn(&mut Sequence);
    const HALF_MOST: f32 = 65504.0;
    let cases: [(&str, Change); 7] = [
        ("one large value", |s| s.values[64 * 70..64 * 71].fill(HALF_MOST)),
        ("values of both signs at the end of the range", |s| {
            s.values.iter_mut().for_each(|v| *v = HALF_MOST.copysign(*v));
        }),
        ("one large key", |s| s.keys[64 * 70..64 * 71].iter_mut().for_each(|k| *k *= 16.0)),
        ("a dimension that is large in all keys", |s| s.keys.iter_mut().step_by(64).for_each(|k| *k = 512.0)),
        ("equal keys and values", |s| {
            s.keys.fill(1.5);
            s.values.fill(-0.75);
        }),
        ("subnormal halves", |s| {
            let smallest = f16::from_bits(1).to_f32();
            s.keys.iter_mut().for_each(|k| *k = (*k * 100.0).round() * smallest);
            s.values.iter_mut().for_each(|v| *v = (*v * 100.0).round() * smallest);
        }),
        ("large queries", |s| s.qkv.iter_mut().for_each(|q| *q *= 1024.0)),
    ];
    for format in [Format::F16, Format::F32] {
        for (name, change) in cases {
            let heads = HeadShape { q_heads: 2, kv_heads: 1, head_dim: 64 };
            let mut sequence = Sequence::new(11, heads, format, 110, 21);
            change(&mut sequence);
            let most_error = MOST_ERROR + sequence.most_score_error();
            check_sequence(&format!("{name}, {format}"), &sequence, 21, most_error);
        }
    }
}

#[test]
pub(super) fn zeros_give_zeros() {
    let heads = HeadShape { q_heads: 2, kv_heads: 1, head_dim: 64 };
    let mut sequence = Sequence::new(12, heads, Format::F16, 110, 21);
    sequence.keys.fill(0.0);
    sequence.values.fill(0.0);
    assert!(bits_of_both_phases("zeros", &sequence, 21).iter().all(|&bits| bits == 0));
}

/// What is no finite number spoils the rows that see it, and no other: not those before it in its page.
#[test]
pub(super) fn what_is_not_finite_stays_with_the_rows_that_see_it() {
    const SPOILED: u32 = f32::NAN.to_bits();
    let heads = HeadShape { q_heads: 2, kv_heads: 1, head_dim: 128 };
    let (position, n_rows, at) = (110, 21, 121);
    for format in [Format::F16, Format::F32] {
        let run = |change: &dyn Fn(&mut Sequence)| {
            let mut sequence = Sequence::new(13, heads, format, position, n_rows);
            change(&mut sequence);
            bits_of_both_phases("not finite", &sequence, n_rows)
        };
        let clean = run(&|_| ());
        assert!(!clean.contains(&SPOILED));
        let expected = |is_spoiled: &dyn Fn(usize, usize) -> bool| -> Vec<u32> {
            let column = |i: usize| (i / heads.q_dim(), i % heads.q_dim());
            let bits = clean.iter().enumerate();
            bits.map(|(i, &bits)| if is_spoiled(column(i).0, column(i).1) { SPOILED } else { bits }).collect()
        };
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let keys = run(&|s| s.keys[128 * at + 5] = bad);
            assert_eq!(keys, expected(&|row, _| position + row >= at), "{format}: {bad} in a key");
            // A value's 64 dimensions share a unit.
            let values = run(&|s| s.values[128 * at + 70] = bad);
            let is_spoiled = |row, column| position + row >= at && column % 128 >= 64;
            assert_eq!(values, expected(&is_spoiled), "{format}: {bad} in a value");
            let width = heads.q_dim() + 2 * heads.kv_dim();
            let query = run(&|s| s.qkv[4 * width + 128 + 3] = bad);
            assert_eq!(
                query,
                expected(&|row, column| row == 4 && column >= 128),
                "{format}: {bad} in a query"
            );
        }
    }
}

#[test]
pub(super) fn bits_do_not_depend_on_tiles_nor_on_neighbours() {
    let heads = HeadShape { q_heads: 2, kv_heads: 1, head_dim: 64 };
    let sequence = Sequence::new(5, heads, Format::F16, 430, 100);
    let device = EmulatorDevice::new(POISONED).unwrap();
    let cache = sequence.cache(&device);
    let expected = bits(&attend(&device, heads, &cache, &sequence.spans(0, &[100]), &sequence.qkv));
    for lengths in [&[1, 99][..], &[11, 89], &[64, 36], &[3, 3, 3, 91], &[1; 100]] {
        let cut = attend(&device, heads, &cache, &sequence.spans(0, lengths), &sequence.qkv);
        assert_eq!(bits(&cut), expected, "tiles of {lengths:?}");
    }
    // Alone a row's grid covers the splits that it has; beside a longer sequence it covers more.
    let (q_dim, width) = (heads.q_dim(), sequence.row_width());
    let alone = attend(&device, heads, &cache, &sequence.spans(0, &[1]), &sequence.qkv);
    assert_eq!(bits(&alone), expected[..q_dim]);
    let long = Sequence::new(6, heads, Format::F16, 1790, 1);
    let mut spans = sequence.spans(0, &[1]);
    spans.extend(long.spans(0, &[1]).into_iter().map(|span| Span { first_row: 1, ..span }));
    let qkv = [&sequence.qkv[..width], &long.qkv].concat();
    let beside = attend(&device, heads, &cache, &spans, &qkv);
    assert_eq!(bits(&beside[..q_dim]), expected[..q_dim]);
}

#[test]
pub(super) fn bits_do_not_depend_on_the_order_of_threads_nor_on_unwritten_memory() {
    let heads = HeadShape { q_heads: 3, kv_heads: 1, head_dim: 80 };
    for format in [Format::F16, Format::F32] {
        let sequence = Sequence::new(7, heads, format, 505, 40);
        let run = |options: EmulatorOptions| {
            let device = EmulatorDevice::new(options).unwrap();
            let cache = sequence.cache(&device);
            let pass =
                |n: usize| bits(&attend(&device, heads, &cache, &sequence.spans(0, &[n]), &sequence.qkv));
            (pass(40), pass(8))
        };
        let expected = run(EmulatorOptions::default());
        for seed in 1..4 {
            let shuffle = Some(seed);
            assert_eq!(run(EmulatorOptions { shuffle, ..POISONED }), expected, "{format}, order {seed}");
        }
    }
}
