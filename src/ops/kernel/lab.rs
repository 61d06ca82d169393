//! Products of one Q4_K matrix by the variants of the decode loop in `kernels/lab`, to be compared and timed.

use std::marker::PhantomData;
use std::ops::Range;

use crate::device::{Buffer, Grid, Launch, Region};
use crate::ops::{Layout, Matrix, OpsError, Rows, expect, expect_room};
use crate::quant::Format;

use super::KernelOps;
use super::matmul::{self, Input, Order};
use super::names::STRIP_ROWS;
use super::params::{MatmulDecodeParams, MatmulPart, Planes};
use super::workspace::Workspace;

/// What a variant multiplies weights with: rows in planes, or what is made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// 16-bit fixed point in two planes, as they are.
    Planes,
    /// The upper plane alone: 8 bits.
    UpperPlane,
    /// The codes of planes as halves: 11 bits.
    Halves,
}

/// A kernel, and how it is launched.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Variant {
    /// Its name.
    pub kernel: &'static str,
    /// What it multiplies with.
    pub activations: Activations,
    /// Tokens that it takes together.
    pub tokens: usize,
    /// Blocks that a multiprocessor runs side by side.
    pub blocks: usize,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

const fn variant(kernel: &'static str, activations: Activations, tokens: usize) -> Variant {
    Variant { kernel, activations, tokens, blocks: 2, shared_bytes: 0 }
}

/// The product's kernels, that for more tokens first, and their variants.
pub const VARIANTS: [Variant; 9] = [
    variant("matmul_decode_wide_q4_k", Activations::Planes, 8),
    Variant { blocks: 4, ..variant("matmul_decode_q4_k", Activations::Planes, 4) },
    Variant { blocks: 3, ..variant("lab_dot_int8", Activations::UpperPlane, 1) },
    variant("lab_dot_planes", Activations::Planes, 1),
    variant("lab_mma_half", Activations::Halves, 8),
    variant("lab_mma_shiftless", Activations::Planes, 4),
    variant("lab_mma_two_blocks", Activations::Planes, 4),
    variant("lab_mma_ahead", Activations::Planes, 4),
    // Three tiles for each of eight warps.
    Variant { shared_bytes: 3 * 8 * 2304, ..variant("lab_mma_staged", Activations::Planes, 4) },
];

/// Columns under one scale.
const BLOCK_COLUMNS: usize = 256;
/// The largest code of the planes.
const LARGEST_CODE: f32 = 32512.0;

impl Activations {
    /// A row as these represent it: what they lose is lost here, so that planes of the answer, with their sums of codes, hold
    /// what is multiplied.
    pub fn round(self, row: &[f32]) -> Vec<f32> {
        let code_of = |code: f32| match self {
            Self::Planes => code,
            Self::UpperPlane => 256.0 * (code / 256.0).round_ties_even(),
            Self::Halves => half::f16::from_f32(code).to_f32(),
        };
        let block = |values: &[f32]| {
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = largest.max(f32::MIN_POSITIVE) / LARGEST_CODE;
            values.iter().map(|value| scale * code_of((value / scale).round_ties_even())).collect::<Vec<_>>()
        };
        row.chunks(BLOCK_COLUMNS).flat_map(block).collect()
    }
}

/// Rows as a variant takes them; they stand in the workspace.
#[derive(Debug)]
pub struct Fed<'a, D: Launch> {
    variant: Variant,
    input: Input,
    n_cols: usize,
    /// Where halves are multiplied: `[n_cols / 32, 32 lanes, 8]`.
    halves: Option<Buffer<D, u16>>,
    workspace: PhantomData<&'a mut Workspace<D>>,
}

impl<D: Launch> KernelOps<D> {
    /// The first `n_tokens` rows of `x` as a variant takes them.
    ///
    /// # Errors
    /// More rows than the variant takes, a width that is no multiple of 256, or the device failed.
    pub fn feed<'a>(
        &self,
        variant: Variant,
        x: &Rows<D>,
        n_tokens: usize,
        workspace: &'a mut Workspace<D>,
    ) -> Result<Fed<'a, D>, OpsError> {
        expect("feed", "tokens", n_tokens, n_tokens.min(variant.tokens).max(1))?;
        expect("feed", "width", x.width, x.width.next_multiple_of(BLOCK_COLUMNS))?;
        expect_room("feed", x, n_tokens)?;
        workspace.forget_prepared();
        let input = matmul::input(&self.device, x, 0..n_tokens, None, Order::Lanes, workspace)?;
        let halves = match variant.activations {
            Activations::Halves => Some(self.halves_of(input, x.width)?),
            _ => None,
        };
        Ok(Fed { variant, input, n_cols: x.width, halves, workspace: PhantomData })
    }

    /// The codes of rows in planes as halves.
    fn halves_of(&self, input: Input, n_cols: usize) -> Result<Buffer<D, u16>, OpsError> {
        const MMA_COLUMNS: usize = 8;
        let bytes = MMA_COLUMNS * n_cols * size_of::<u16>();
        let halves: Buffer<D, u16> = Region::allocate(&self.device, bytes as u64)?.typed();
        let params = MatmulDecodeParams {
            planes: input.planes,
            next: Planes { codes: halves.address(), ..Planes::default() },
            n_columns: n_cols as u32,
            n_tokens: input.n_tokens as u32,
            ..MatmulDecodeParams::default()
        };
        let blocks = [(n_cols / BLOCK_COLUMNS) as u32, 1, 1];
        self.device.launch("lab_halves", Grid { blocks, threads: 256, shared_bytes: 0 }, &params)?;
        Ok(halves)
    }

    /// `out[token][row] = weights[row] · x[token]` for rows `rows` of a matrix, by the variant that was fed x.
    ///
    /// # Errors
    /// The matrix is not of Q4_K in tiles or not of x's width, `rows` are no whole strips of 16 of it, or the device failed.
    pub fn product_by(
        &self,
        fed: &Fed<'_, D>,
        matrix: &Matrix<D>,
        rows: Range<usize>,
        out: &mut Rows<D>,
    ) -> Result<(), OpsError> {
        let (Range { start, end }, Variant { kernel, blocks, shared_bytes, .. }) = (rows, fed.variant);
        let format = Format::Q4_K.row().ggml_id;
        let are_strips = start.is_multiple_of(STRIP_ROWS) && end.is_multiple_of(STRIP_ROWS);
        if !(are_strips && start < end && end <= matrix.shape.n_rows) {
            let (found, expected) = (end, matrix.shape.n_rows);
            return Err(OpsError::Shape { operation: "product_by", operand: "last row", found, expected });
        }
        expect("product_by", "format", matrix.shape.format.row().ggml_id as usize, format as usize)?;
        expect("product_by", "layout", matrix.layout as usize, Layout::Tiles as usize)?;
        expect("product_by", "inputs", matrix.shape.n_cols, fed.n_cols)?;
        expect("product_by", "outputs", out.width, end - start)?;
        expect_room("product_by", out, fed.input.n_tokens)?;
        let n_rows = (end - start) as u32;
        let row_bytes = matrix.blocks.region().bytes() / matrix.shape.n_rows.max(1) as u64;
        let weights = matrix.blocks.address() + start as u64 * row_bytes;
        let mut params = MatmulDecodeParams {
            planes: fed.input.planes,
            out: out.values.address(),
            n_rows,
            n_columns: matrix.shape.n_cols as u32,
            n_tokens: fed.input.n_tokens as u32,
            stride: out.stride() as u32,
            ..MatmulDecodeParams::default()
        };
        params.parts[0] = MatmulPart { weights, end_row: n_rows, format, ..MatmulPart::default() };
        if let Some(halves) = &fed.halves {
            params.planes.codes = halves.address();
        }
        let n_strips = n_rows as usize / STRIP_ROWS;
        let turns = n_strips.div_ceil(blocks * self.device.multiprocessors()).max(1);
        let grid = Grid { blocks: [n_strips.div_ceil(turns) as u32, 1, 1], threads: 256, shared_bytes };
        Ok(self.device.launch(kernel, grid, &params)?)
    }
}
