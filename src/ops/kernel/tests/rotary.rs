//! The rotary embedding and the append to the cache, against the reference on the host.

use half::f16;

use crate::device::{Device, EmulatorDevice, EmulatorOptions, HostDevice, Region};
use crate::model::{CATALOG, ModelConfig, RopeConfig, RopePairing};
use crate::ops::reference::ReferenceOps;
use crate::ops::{
    CacheLayer, HeadNorms, HeadShape, Norm, Ops, OpsError, PAGE_TOKENS, Pass, PassLimits, RotaryTable, Rows,
    Span, padded_width,
};
use crate::quant::Format;

use super::super::KernelOps;
use super::Random;

const N_PAGES: usize = 5;
/// Not in order, and not all of a sequence's pages are whole.
const PAGES: [[u32; 2]; 2] = [[3, 0], [4, 1]];

struct Case {
    heads: HeadShape,
    rotated_dims: usize,
    pairing: RopePairing,
    attention_factor: f32,
    has_norms: bool,
    format: Format,
}

/// What an implementation made of a case's rows.
struct Outcome {
    q: Vec<f32>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

fn upload<D: Device>(device: &D, values: &[f32]) -> crate::device::Buffer<D, f32> {
    let mut buffer = Region::allocate(device, 4 * values.len() as u64).unwrap().typed();
    buffer.upload(values, 0).unwrap();
    buffer
}

impl Case {
    fn config(&self) -> ModelConfig {
        let base = CATALOG[0].config();
        ModelConfig {
            num_q_heads: self.heads.q_heads,
            num_kv_heads: self.heads.kv_heads,
            head_dim: self.heads.head_dim,
            rope: RopeConfig { rotated_dims: self.rotated_dims, ..base.rope },
            ..base
        }
    }

    /// Eleven rows of two sequences, the second with frequencies of its own.
    fn run<O: Ops>(&self, ops: &O) -> Outcome {
        let mut random = Random(3);
        let HeadShape { head_dim, .. } = self.heads;
        let device = ops.device();
        let n_rows = 11;
        let spans = [
            Span { first_row: 0, n_rows: 4, position: 61, pages: &PAGES[0], rotary_set: 0 },
            Span { first_row: 4, n_rows: 7, position: 100, pages: &PAGES[1], rotary_set: 1 },
        ];
        let pass = Pass { tokens: &vec![0; n_rows], spans: &spans, ..Pass::default() };
        let width = self.heads.q_dim() + 2 * self.heads.kv_dim();
        let stride = padded_width(width);
        let mut qkv = Rows { values: upload(device, &random.floats(n_rows * stride)), width };
        let mut set = || -> Vec<f32> { (0..self.rotated_dims / 2).map(|_| random.uniform().abs()).collect() };
        let rotary = RotaryTable {
            sets: vec![upload(device, &set()), upload(device, &set())],
            rotated_dims: self.rotated_dims,
            pairing: self.pairing,
            attention_factor: self.attention_factor,
        };
        let mut norm = |eps| Norm { weight: upload(device, &random.floats(head_dim)), eps };
        let norms = (norm(1e-6), norm(1e-3));
        let norms: Option<HeadNorms<'_, O::Device>> = self.has_norms.then_some((&norms.0, &norms.1));
        let element_bytes = if self.format == Format::F16 { 2 } else { 4 };
        let side_bytes = N_PAGES * self.heads.kv_dim() * PAGE_TOKENS * element_bytes;
        let side = || Region::allocate(device, side_bytes as u64).unwrap().typed();
        let mut cache = CacheLayer { format: self.format, keys: side(), values: side() };
        let limits = PassLimits { rows: n_rows, context: N_PAGES * PAGE_TOKENS };
        let region = Region::allocate(device, ops.workspace_bytes(&self.config(), limits)).unwrap();
        let mut workspace = ops.workspace(&self.config(), limits, region).unwrap();
        ops.run::<OpsError>(&pass, &rotary, &mut workspace, |workspace| {
            ops.rotate_and_append(&pass, &mut qkv, self.heads, norms, &rotary, workspace, &mut cache)
        })
        .unwrap();
        let bytes = |buffer: &crate::device::Buffer<O::Device, u8>| {
            let mut bytes = vec![0; buffer.len()];
            buffer.download(0, &mut bytes).unwrap();
            bytes
        };
        let all = qkv.download(0, n_rows).unwrap();
        let q = all.chunks_exact(width).flat_map(|row| row[..self.heads.q_dim()].to_vec()).collect();
        Outcome { q, keys: bytes(&cache.keys), values: bytes(&cache.values) }
    }

    fn cached(&self, bytes: &[u8]) -> Vec<f32> {
        match self.format {
            Format::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        }
    }

    fn name(&self) -> String {
        let Self { heads, rotated_dims, pairing, has_norms, format, .. } = self;
        format!("{heads:?}, {rotated_dims} dimensions in {pairing:?}, norms {has_norms}, {format}")
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (q_heads, kv_heads, head_dim, rotated_dims) in
        [(3, 1, 64, 64), (4, 4, 96, 96), (24, 8, 128, 96), (2, 1, 40, 20), (9, 3, 256, 256), (2, 2, 80, 32)]
    {
        for pairing in [RopePairing::Interleaved, RopePairing::Halves] {
            for (has_norms, format) in [(false, Format::F16), (true, Format::F32), (true, Format::F16)] {
                let heads = HeadShape { q_heads, kv_heads, head_dim };
                let attention_factor = if head_dim == 128 { 1.19 } else { 1.0 };
                cases.push(Case { heads, rotated_dims, pairing, attention_factor, has_norms, format });
            }
        }
    }
    cases
}

#[test]
pub(super) fn turned_heads_and_the_cache_are_those_of_the_reference() {
    let reference = ReferenceOps::new(1).unwrap();
    assert_eq!(reference.device().name(), HostDevice.name());
    let kernels = KernelOps::new(EmulatorDevice::default());
    for case in cases() {
        let (expected, got) = (case.run(&reference), case.run(&kernels));
        let name = case.name();
        assert_eq!(got.values, expected.values, "{name}: values");
        // A norm's sum has another order; without norms a sine may be rounded the other way once in a hundred million.
        let largest_step = if case.format == Format::F16 { 1.0 / 1024.0 } else { 1e-6 };
        let close = |got: &[f32], expected: &[f32], step: f32, what: &str| {
            for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                let most = step * expected.abs().max(1e-3) + 1e-6;
                assert!((got - expected).abs() <= most, "{name}: {what} {i} is {got}, expected {expected}");
            }
            let n_equal = got.iter().zip(expected).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
            let least = if case.has_norms { 0.2 } else { 0.999 };
            assert!(n_equal as f64 >= least * got.len() as f64, "{name}: {n_equal} of {} {what}", got.len());
        };
        close(&got.q, &expected.q, 1e-6, "queries");
        close(&case.cached(&got.keys), &case.cached(&expected.keys), largest_step, "keys");
    }
}

#[test]
pub(super) fn bits_do_not_depend_on_the_order_of_threads() {
    for case in cases().into_iter().step_by(5) {
        let run = |options| {
            let outcome = case.run(&KernelOps::new(EmulatorDevice::new(options).unwrap()));
            (outcome.q.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), outcome.keys, outcome.values)
        };
        let expected = run(EmulatorOptions::default());
        for seed in 1..3 {
            let options = EmulatorOptions { shuffle: Some(seed), ..EmulatorOptions::default() };
            assert!(run(options) == expected, "{}, order {seed}", case.name());
        }
    }
}
