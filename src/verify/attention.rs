//! Operations over heads and the cache: the rotary embedding and attention.

use half::f16;

use crate::device::{Buffer, Device};
use crate::model::{CATALOG, ModelConfig, RopeConfig, RopeFactors};
use crate::ops::{CacheLayer, HeadShape, Ops, OpsError, PAGE_TOKENS, Pass, PassLimits, Span};
use crate::quant::Format;

use super::operands::{Draw, POISON, Stage};
use super::{Operation, Outcome, timed};

/// An operation over heads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heads {
    pub operation: Operation,
    pub heads: HeadShape,
    pub rope: RopeConfig,
    pub has_norms: bool,
    /// Of the cache.
    pub format: Format,
    pub sequences: &'static [Place],
}

/// Rows of one sequence: the first one's position, and their number.
pub(super) type Place = (usize, usize);

/// One row of each of several sequences: at the beginning, on both sides of a page's end, and further on.
pub(super) const DECODE: &[Place] = &[(0, 1), (63, 1), (64, 1), (700, 1)];
/// The middle of a prompt that ends within a page, and a short one beside it.
pub(super) const PREFILL: &[Place] = &[(50, 37), (0, 5)];
/// The end of a long context.
pub(super) const LONG: &[Place] = &[(4095, 1), (3000, 300)];

impl Heads {
    pub(super) fn n_tokens(&self) -> usize {
        self.sequences.iter().map(|(_, n_rows)| n_rows).sum()
    }

    pub(super) fn run<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        let pages = self.pages(&mut stage.draw);
        let n_pages: usize = pages.iter().map(Vec::len).sum();
        let mut first_row = 0;
        let mut spans = Vec::new();
        for (index, (&(position, n_rows), pages)) in self.sequences.iter().zip(&pages).enumerate() {
            let rotary_set = index % self.n_rotary_sets();
            spans.push(Span { first_row, n_rows, position, pages, rotary_set });
            first_row += n_rows;
        }
        let tokens = vec![0; first_row];
        let pass = Pass { tokens: &tokens, spans: &spans, ..Pass::default() };
        let limits = PassLimits { rows: first_row, context: n_pages * PAGE_TOKENS };
        let workspace = stage.workspace(&self.config(), limits)?;
        match self.operation {
            Operation::Attend => self.attend(stage, &pass, workspace, n_pages),
            _ => self.rotate_and_append(stage, &pass, workspace, n_pages),
        }
    }

    /// A model with these heads.
    fn config(&self) -> ModelConfig {
        ModelConfig {
            num_q_heads: self.heads.q_heads,
            num_kv_heads: self.heads.kv_heads,
            head_dim: self.heads.head_dim,
            rope: self.rope,
            ..CATALOG[0].config()
        }
    }

    fn n_rotary_sets(&self) -> usize {
        if matches!(self.rope.factors, RopeFactors::ShortLong { .. }) { 2 } else { 1 }
    }

    /// The pages of each sequence, scattered over the cache.
    fn pages(&self, draw: &mut Draw) -> Vec<Vec<u32>> {
        let needed = |(position, n_rows): &Place| (position + n_rows).div_ceil(PAGE_TOKENS);
        let mut all = draw.permutation(self.sequences.iter().map(needed).sum()).into_iter();
        self.sequences.iter().map(|place| all.by_ref().take(needed(place)).collect()).collect()
    }

    fn rotate_and_append<O: Ops>(
        &self,
        stage: &mut Stage<'_, O>,
        pass: &Pass<'_>,
        mut workspace: O::Workspace,
        n_pages: usize,
    ) -> Result<Outcome, OpsError> {
        let (heads, ops, n_rows) = (self.heads, stage.ops, pass.n_rows());
        let norms = match self.has_norms {
            true => Some((stage.norm(heads.head_dim)?, stage.norm(heads.head_dim)?)),
            false => None,
        };
        let width = heads.q_dim() + 2 * heads.kv_dim();
        let mut qkv = stage.activations(n_rows, width)?;
        let n_elements = n_pages * PAGE_TOKENS * heads.kv_dim();
        let mut cache = self.cache(stage, &vec![POISON; n_elements], &vec![POISON; n_elements])?;
        let rotary = stage.rotary(&self.rope)?;
        let (rows, seconds) = timed(|| {
            ops.run(pass, &rotary, &mut workspace, |workspace| {
                let norms = norms.as_ref().map(|(q, k)| (q, k));
                ops.rotate_and_append(pass, &mut qkv, heads, norms, &rotary, workspace, &mut cache)
            })?;
            Ok::<_, OpsError>(qkv.download(0, n_rows)?)
        })?;
        let values = match self.operation {
            Operation::Rotate => rows.chunks(width).flat_map(|row| &row[..heads.q_dim()]).copied().collect(),
            _ => [self.numbers(&cache.keys)?, self.numbers(&cache.values)?].concat(),
        };
        Ok(Outcome { values, width: heads.head_dim, seconds })
    }

    fn attend<O: Ops>(
        &self,
        stage: &mut Stage<'_, O>,
        pass: &Pass<'_>,
        mut workspace: O::Workspace,
        n_pages: usize,
    ) -> Result<Outcome, OpsError> {
        let (heads, ops, n_rows) = (self.heads, stage.ops, pass.n_rows());
        let (keys, values) =
            (self.past(&mut stage.draw, pass, n_pages), self.past(&mut stage.draw, pass, n_pages));
        let cache = self.cache(stage, &keys, &values)?;
        // Scores of deviation 2: some positions stand out, none stands alone. Only q is to be read.
        let qkv = stage.rows(n_rows, heads.q_dim() + 2 * heads.kv_dim(), |draw, column| {
            if column < heads.q_dim() { 2.0 * draw.normal() } else { POISON }
        })?;
        let mut out = stage.poisoned(n_rows, heads.q_dim())?;
        let rotary = stage.rotary(&self.rope)?;
        let (values, seconds) = timed(|| {
            ops.run(pass, &rotary, &mut workspace, |workspace| {
                ops.attend(pass, &qkv, heads, &cache, workspace, &mut out)
            })?;
            Ok::<_, OpsError>(out.download(0, n_rows)?)
        })?;
        Ok(Outcome { values, width: heads.q_dim(), seconds })
    }

    /// Keys or values of the sequences' tokens; what no token has written is poisoned.
    fn past(&self, draw: &mut Draw, pass: &Pass<'_>, n_pages: usize) -> Vec<f32> {
        let HeadShape { kv_heads, head_dim, .. } = self.heads;
        let mut values = vec![POISON; n_pages * PAGE_TOKENS * kv_heads * head_dim];
        for span in pass.spans {
            for position in 0..span.position + span.n_rows {
                let page = span.pages[position / PAGE_TOKENS] as usize;
                for head in 0..kv_heads {
                    let at = ((page * kv_heads + head) * PAGE_TOKENS + position % PAGE_TOKENS) * head_dim;
                    values[at..at + head_dim].fill_with(|| draw.normal());
                }
            }
        }
        values
    }

    fn cache<O: Ops>(
        &self,
        stage: &Stage<'_, O>,
        keys: &[f32],
        values: &[f32],
    ) -> Result<CacheLayer<O::Device>, OpsError> {
        let bytes = |numbers: &[f32]| -> Vec<u8> {
            match self.format {
                Format::F16 => {
                    numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect()
                }
                _ => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            }
        };
        let (keys, values) = (stage.place(&bytes(keys))?, stage.place(&bytes(values))?);
        Ok(CacheLayer { format: self.format, keys, values })
    }

    /// The numbers in a part of the cache.
    fn numbers<D: Device>(&self, part: &Buffer<D, u8>) -> Result<Vec<f32>, OpsError> {
        let mut bytes = vec![0; part.len()];
        part.download(0, &mut bytes)?;
        let mut numbers = vec![0.0; bytes.len() / self.format.block_bytes()];
        (self.format.row().dequantize)(&bytes, &mut numbers);
        Ok(numbers)
    }
}
