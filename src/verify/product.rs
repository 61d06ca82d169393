//! Operations over a matrix: embedding and products.

use crate::model::{CATALOG, ModelConfig};
use crate::ops::{
    Choice, MatrixShape, Ops, OpsError, PAGE_TOKENS, Pass, PassLimits, Penalties, Projection, ProjectionPart,
    Recent, RotaryTable, Span,
};

use super::operands::Stage;
use super::{Operation, Outcome, timed};

/// Rows of the tiles in which devices lay matrices out; projections are cut in two at a multiple of it.
const STRIP_ROWS: usize = 16;

/// An operation over a matrix, or over two of its kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Product {
    pub operation: Operation,
    /// For gate and up, each of them.
    pub shape: MatrixShape,
    /// Whether gate and up are one matrix.
    pub is_fused: bool,
    pub n_tokens: usize,
}

impl Product {
    pub(super) fn run<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        match self.operation {
            Operation::Embed => self.embed(stage),
            Operation::Project => self.project(stage),
            Operation::NormGateUp => self.norm_gate_up(stage),
            Operation::Choose => self.choose(stage),
            _ => self.norm_project(stage),
        }
    }

    /// A model with these widths.
    fn config(&self) -> ModelConfig {
        let MatrixShape { n_rows, n_cols, .. } = self.shape;
        if self.operation == Operation::Choose {
            return ModelConfig { vocab_size: n_cols, ..CATALOG[0].config() };
        }
        ModelConfig { hidden_dim: n_cols, ffn_dim: n_rows.max(n_cols), ..CATALOG[0].config() }
    }

    fn shape(&self, n_rows: usize) -> MatrixShape {
        MatrixShape { n_rows, ..self.shape }
    }

    fn embed<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        let table = stage.matrix(self.shape)?;
        let mut x = stage.poisoned(self.n_tokens, self.shape.n_cols)?;
        let mut frame = self.frame(stage)?;
        self.outcome(self.shape.n_cols, || {
            frame.run(stage.ops, |pass, workspace| stage.ops.embed(pass, &table, workspace, &mut x))?;
            Ok(x.download(0, self.n_tokens)?)
        })
    }

    /// In two parts, of which the second has a bias.
    fn norm_project<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        let MatrixShape { n_rows, n_cols, .. } = self.shape;
        let first = (n_rows * 3 / 4).next_multiple_of(STRIP_ROWS).min(n_rows);
        let mut parts = vec![ProjectionPart { matrix: stage.matrix(self.shape(first))?, bias: None }];
        if n_rows > first {
            let bias: Vec<f32> = (first..n_rows).map(|_| stage.draw.normal()).collect();
            let bias = Some(stage.place(&bias)?);
            parts.push(ProjectionPart { matrix: stage.matrix(self.shape(n_rows - first))?, bias });
        }
        let (projection, norm) = (Projection { parts }, stage.norm(n_cols)?);
        let x = stage.activations(self.n_tokens, n_cols)?;
        let mut out = stage.poisoned(self.n_tokens, n_rows)?;
        let mut frame = self.frame(stage)?;
        self.outcome(n_rows, || {
            frame.run(stage.ops, |_, workspace| {
                stage.ops.norm_project(&x, 0..self.n_tokens, &norm, &projection, workspace, &mut out)
            })?;
            Ok(out.download(0, self.n_tokens)?)
        })
    }

    fn project<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        let MatrixShape { n_rows, n_cols, .. } = self.shape;
        let matrix = stage.matrix(self.shape)?;
        let projection = Projection { parts: vec![ProjectionPart { matrix, bias: None }] };
        let a = stage.activations(self.n_tokens, n_cols)?;
        let mut x = stage.activations(self.n_tokens, n_rows)?;
        let mut frame = self.frame(stage)?;
        self.outcome(n_rows, || {
            frame.run(stage.ops, |_, workspace| {
                stage.ops.project(&a, self.n_tokens, &projection, None, workspace, &mut x)
            })?;
            Ok(x.download(0, self.n_tokens)?)
        })
    }

    fn norm_gate_up<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        let MatrixShape { n_rows, n_cols, .. } = self.shape;
        let shapes = if self.is_fused { vec![2 * n_rows] } else { vec![n_rows; 2] };
        let mut parts = Vec::new();
        for n_rows in shapes {
            parts.push(ProjectionPart { matrix: stage.matrix(self.shape(n_rows))?, bias: None });
        }
        let (gate_up, norm) = (Projection { parts }, stage.norm(n_cols)?);
        let x = stage.activations(self.n_tokens, n_cols)?;
        let mut h = stage.poisoned(self.n_tokens, n_rows)?;
        let mut frame = self.frame(stage)?;
        self.outcome(n_rows, || {
            frame.run(stage.ops, |_, workspace| {
                stage.ops.norm_gate_up(&x, self.n_tokens, &norm, &gate_up, workspace, &mut h)
            })?;
            Ok(h.download(0, self.n_tokens)?)
        })
    }

    /// From rows of logits with ties and with numbers that may not win; the last row has none that may.
    fn choose<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Outcome, OpsError> {
        let width = self.shape.n_cols;
        let (n_values, mut index) = (width * self.n_tokens, 0);
        let mut logits = stage.rows(self.n_tokens, width, |draw, _| {
            index += 1;
            let is_hopeless = self.n_tokens > 1 && index > n_values - width;
            match draw.below(width) {
                _ if is_hopeless => f32::NAN,
                0..3 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][draw.below(3)],
                // Few different numbers, so that equal ones occur often.
                _ => (4.0 * draw.normal()).round() / 4.0,
            }
        })?;
        let mut frame = self.frame(stage)?;
        frame.choices = (0..self.n_tokens).map(|row| choice(row, width, stage)).collect();
        self.outcome(1, || {
            frame.run(stage.ops, |pass, workspace| stage.ops.choose(pass, &mut logits, workspace))?;
            let chosen = stage.ops.chosen(self.n_tokens, &frame.workspace)?;
            Ok(chosen.into_iter().map(|token| token.map_or(-1.0, |token| token as f32)).collect())
        })
    }

    fn outcome(
        &self,
        width: usize,
        work: impl FnOnce() -> Result<Vec<f32>, OpsError>,
    ) -> Result<Outcome, OpsError> {
        let (values, seconds) = timed(work)?;
        Ok(Outcome { values, width, seconds })
    }

    fn frame<O: Ops>(&self, stage: &mut Stage<'_, O>) -> Result<Frame<O>, OpsError> {
        let config = self.config();
        let n_pages = self.n_tokens.div_ceil(PAGE_TOKENS);
        let limits = PassLimits { rows: self.n_tokens, context: n_pages * PAGE_TOKENS };
        let last = self.shape.n_rows - 1;
        let mut tokens: Vec<u32> = (1..self.n_tokens).map(|_| stage.draw.below(last) as u32).collect();
        tokens.push(last as u32);
        Ok(Frame {
            tokens,
            pages: (0..n_pages as u32).collect(),
            choices: Vec::new(),
            rotary: stage.rotary(&config.rope)?,
            workspace: stage.workspace(&config, limits)?,
        })
    }
}

/// Every filter, alone and with others; greedy in every eighth row.
fn choice<O: Ops>(row: usize, width: usize, stage: &mut Stage<'_, O>) -> Choice {
    let has = |bit: usize| (row + 1) & bit != 0;
    let recent = [stage.draw.below(width) as u32, stage.draw.below(width) as u32, 0, 0];
    Choice {
        temperature: if (row + 1).is_multiple_of(8) { 0.0 } else { 0.8 },
        top_k: if has(1) { 40 } else { 0 },
        top_p: if has(2) { 0.9 } else { 1.0 },
        min_p: if has(4) { 0.05 } else { 0.0 },
        penalties: Penalties { repeat: 1.1, frequency: 0.25, presence: 0.5 },
        recent: Recent::of(&recent),
        random: stage.draw.random_bits(),
    }
}

/// What surrounds an operation: a pass of one sequence from its beginning.
struct Frame<O: Ops> {
    tokens: Vec<u32>,
    pages: Vec<u32>,
    choices: Vec<Choice>,
    rotary: RotaryTable<O::Device>,
    workspace: O::Workspace,
}

impl<O: Ops> Frame<O> {
    fn run(
        &mut self,
        ops: &O,
        mut operation: impl FnMut(&Pass<'_>, &mut O::Workspace) -> Result<(), OpsError>,
    ) -> Result<(), OpsError> {
        let Self { tokens, pages, choices, rotary, workspace } = self;
        let span = Span { first_row: 0, n_rows: tokens.len(), position: 0, pages, rotary_set: 0 };
        let pass = Pass { tokens, spans: &[span], n_logits: choices.len(), choices };
        ops.run(&pass, rotary, workspace, |workspace| operation(&pass, workspace))
    }
}
