//! What operations work on: weights, activations, a layer of the cache, and which rows belong to which sequence.

use crate::device::{Buffer, Device, DeviceError};
use crate::model::RopePairing;
use crate::quant::Format;

use super::Choice;

/// Tokens in a page of the cache.
pub const PAGE_TOKENS: usize = 64;

/// Activation rows are padded with zeros to a multiple of this many floats.
const ROW_PADDING: usize = 16;

/// The width of an activation row in memory.
pub fn padded_width(width: usize) -> usize {
    width.next_multiple_of(ROW_PADDING)
}

/// What a weight matrix is, wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixShape {
    /// Block format.
    pub format: Format,
    /// Outputs.
    pub n_rows: usize,
    /// Inputs; a whole number of blocks.
    pub n_cols: usize,
}

/// In which order a matrix's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in the file: row after row of blocks.
    Blocks,
    /// As the tensor cores take them: tiles of 16 rows (`kernels/include/tiles.cuh`).
    Tiles,
}

/// A weight matrix on a device.
#[derive(Debug)]
pub struct Matrix<D: Device> {
    /// What it is.
    pub shape: MatrixShape,
    /// How it lies.
    pub layout: Layout,
    /// `n_rows` rows of blocks, in the order of `layout`.
    pub blocks: Buffer<D, u8>,
}

/// A matrix and what is added to its results.
#[derive(Debug)]
pub struct ProjectionPart<D: Device> {
    /// The matrix.
    pub matrix: Matrix<D>,
    /// `[n_rows]`.
    pub bias: Option<Buffer<D, f32>>,
}

/// Matrices over the same input, whose outputs stand side by side.
#[derive(Debug)]
pub struct Projection<D: Device> {
    /// The matrices, in the order of their outputs.
    pub parts: Vec<ProjectionPart<D>>,
}

impl<D: Device> Projection<D> {
    /// Outputs of all parts.
    pub fn n_rows(&self) -> usize {
        self.parts.iter().map(|part| part.matrix.shape.n_rows).sum()
    }
    /// Inputs.
    pub fn n_cols(&self) -> usize {
        self.parts.first().map_or(0, |part| part.matrix.shape.n_cols)
    }
}

/// RMSNorm: `x / sqrt(mean(x²) + eps) · weight`.
#[derive(Debug)]
pub struct Norm<D: Device> {
    /// `[width]`.
    pub weight: Buffer<D, f32>,
    /// Added to the mean square.
    pub eps: f32,
}

/// The norms of each head of q, and of k.
pub type HeadNorms<'a, D> = (&'a Norm<D>, &'a Norm<D>);

/// Activations: rows of f32, each padded with zeros to [`padded_width`].
#[derive(Debug)]
pub struct Rows<D: Device> {
    /// `[capacity, padded_width(width)]`.
    pub values: Buffer<D, f32>,
    /// Elements of a row that count.
    pub width: usize,
}

impl<D: Device> Rows<D> {
    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        padded_width(self.width)
    }
    /// Rows that fit.
    pub fn capacity(&self) -> usize {
        self.values.len() / self.stride()
    }
    /// Copies `n_rows` rows from row `first` on, without their padding, to the host: `[n_rows, width]`.
    pub fn download(&self, first: usize, n_rows: usize) -> Result<Vec<f32>, DeviceError> {
        let mut values = vec![0.0; n_rows * self.width];
        for (row, values) in values.chunks_exact_mut(self.width.max(1)).enumerate() {
            self.values.download((first + row) * self.stride(), values)?;
        }
        Ok(values)
    }
}

/// How many heads of what size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub q_heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimensions of each.
    pub head_dim: usize,
}

impl HeadShape {
    /// Width of q.
    pub fn q_dim(&self) -> usize {
        self.q_heads * self.head_dim
    }
    /// Width of k, and of v.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The rotary embedding's frequencies.
#[derive(Debug)]
pub struct RotaryTable<D: Device> {
    /// One set of `[rotated_dims / 2]` frequencies in radians a token, or a short and a long set.
    pub sets: Vec<Buffer<D, f32>>,
    /// How many first dimensions of a head are turned.
    pub rotated_dims: usize,
    /// Which dimensions are turned together.
    pub pairing: RopePairing,
    /// Multiplies sine and cosine.
    pub attention_factor: f32,
}

/// One layer of the cache: `[pages, kv_heads, PAGE_TOKENS, head_dim]` each.
#[derive(Debug)]
pub struct CacheLayer<D: Device> {
    /// F32 or F16.
    pub format: Format,
    /// Keys, turned.
    pub keys: Buffer<D, u8>,
    /// Values.
    pub values: Buffer<D, u8>,
}

/// Rows of a pass that belong to one sequence and stand at consecutive positions.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The first of the rows.
    pub first_row: usize,
    /// How many.
    pub n_rows: usize,
    /// The first row's position in its sequence.
    pub position: usize,
    /// The sequence's pages, in order; they cover `position + n_rows` tokens.
    pub pages: &'a [u32],
    /// Which set of [`RotaryTable::sets`] the sequence uses.
    pub rotary_set: usize,
}

/// One pass through the layers: which tokens, as rows of which sequences, and what is made of the last rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass<'a> {
    /// One token a row.
    pub tokens: &'a [u32],
    /// The rows' sequences; together they cover all rows, in order.
    pub spans: &'a [Span<'a>],
    /// How many last rows get logits.
    pub n_logits: usize,
    /// How a token is chosen from each of them; empty where none is.
    pub choices: &'a [Choice],
}

impl Pass<'_> {
    /// Rows of the pass.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }
    /// The rows that get logits.
    pub fn logits_rows(&self) -> std::ops::Range<usize> {
        self.n_rows().saturating_sub(self.n_logits)..self.n_rows()
    }
    /// The longest sequence after the pass, in tokens.
    pub fn longest(&self) -> usize {
        self.spans.iter().map(|span| span.position + span.n_rows).max().unwrap_or(0)
    }
}
