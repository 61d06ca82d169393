//! Launching products: rows into planes, planes times weights.

use crate::device::{DeviceError, Grid, Launch};
use crate::ops::{Layout, Matrix, Norm, OpsError, Projection, Rows};

use super::names::{STRIP_ROWS, kernels};
use super::params::{MatmulParams, QuantizeParams};
use super::workspace::{DECODE_ROWS, TILE_TOKENS, Workspace};

/// Threads of every kernel of this file.
const THREADS: u32 = 256;
/// Rows and tokens of a block of the prefill kernels.
const PREFILL_ROWS: usize = 128;
const PREFILL_TOKENS: usize = 32;
/// Rows and tokens of a block of the kernels over the file's order.
const BLOCKS_ROWS: usize = 8;
const BLOCKS_TOKENS: usize = 4;

/// What becomes of a product; the numbers are those of `params.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Epilogue {
    /// `out = product + bias`
    Store = 0,
    /// `out += product`
    Add = 1,
    /// `out = silu(first product) · second product`
    Swiglu = 2,
    /// `out = silu(out) · product`
    Gate = 3,
}

/// Where a product goes: columns `first..` of rows of floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub address: u64,
    pub stride: usize,
    pub epilogue: Epilogue,
}

impl Target {
    pub(super) fn new<D: Launch>(rows: &mut Rows<D>, first_column: usize, epilogue: Epilogue) -> Self {
        Self { address: rows.values.address() + 4 * first_column as u64, stride: rows.stride(), epilogue }
    }
}

fn grid(x: usize, y: usize) -> Grid {
    Grid { blocks: [x as u32, y as u32, 1], threads: THREADS, shared_bytes: 0 }
}

/// Turns rows of `x` into the workspace's planes, normalised where there is a norm.
pub(super) fn quantize<D: Launch>(
    device: &D,
    x: &Rows<D>,
    rows: std::ops::Range<usize>,
    norm: Option<&Norm<D>>,
    workspace: &Workspace<D>,
) -> Result<(), DeviceError> {
    let params = QuantizeParams {
        x: x.values.address(),
        norm: norm.map_or(0, |norm| norm.weight.address()),
        planes: workspace.planes(),
        first_row: rows.start as u32,
        n_rows: rows.len() as u32,
        n_columns: x.width as u32,
        stride: x.stride() as u32,
        eps: norm.map_or(0.0, |norm| norm.eps),
        unused: 0,
    };
    device.launch("quantize", grid(rows.len().next_multiple_of(TILE_TOKENS), 1), &params)
}

/// One half of a matrix of gate and up, or a whole matrix: its first byte and its rows.
#[derive(Debug, Clone, Copy)]
struct Part {
    address: u64,
    n_rows: usize,
}

/// The two halves of a fused `[gate | up]`, or two matrices of one format and layout.
fn gate_and_up<D: Launch>(gate_up: &Projection<D>) -> Option<[Part; 2]> {
    let whole = |matrix: &Matrix<D>| Part { address: matrix.blocks.address(), n_rows: matrix.shape.n_rows };
    match gate_up.parts.as_slice() {
        [both] => {
            let matrix = &both.matrix;
            let n_rows = matrix.shape.n_rows / 2;
            let row_bytes = matrix.blocks.region().bytes() / matrix.shape.n_rows.max(1) as u64;
            let divides = matrix.layout == Layout::Blocks || n_rows.is_multiple_of(STRIP_ROWS);
            let first = Part { address: matrix.blocks.address(), n_rows };
            divides.then(|| [first, Part { address: first.address + n_rows as u64 * row_bytes, n_rows }])
        }
        [gate, up] => {
            let same = gate.matrix.shape == up.matrix.shape && gate.matrix.layout == up.matrix.layout;
            same.then(|| [whole(&gate.matrix), whole(&up.matrix)])
        }
        _ => None,
    }
}

/// Multiplies the planes with a matrix, or with two of its kind for [`Epilogue::Swiglu`].
fn multiply<D: Launch>(
    device: &D,
    matrix: &Matrix<D>,
    parts: [Part; 2],
    bias: u64,
    n_tokens: usize,
    workspace: &Workspace<D>,
    target: Target,
) -> Result<(), DeviceError> {
    let n_rows = parts[0].n_rows;
    let params = MatmulParams {
        weights: parts.map(|part| part.address),
        planes: workspace.planes(),
        bias,
        out: target.address,
        n_rows: n_rows as u32,
        n_columns: matrix.shape.n_cols as u32,
        n_tokens: n_tokens as u32,
        stride: target.stride as u32,
        epilogue: target.epilogue as u32,
        unused: 0,
    };
    let kernels = kernels(matrix.shape.format);
    let (kernel, grid) = match (&kernels.tiles, matrix.layout) {
        (Some(tiles), Layout::Tiles) if n_tokens <= DECODE_ROWS => {
            (tiles.decode, grid(n_rows / STRIP_ROWS, n_tokens.div_ceil(DECODE_ROWS)))
        }
        (Some(tiles), Layout::Tiles) => {
            (tiles.prefill, grid(n_rows.div_ceil(PREFILL_ROWS), n_tokens.div_ceil(PREFILL_TOKENS)))
        }
        _ => (kernels.matmul, grid(n_rows.div_ceil(BLOCKS_ROWS), n_tokens.div_ceil(BLOCKS_TOKENS))),
    };
    device.launch(kernel, grid, &params)
}

/// `out[..][first..] = projection · planes`, part after part along the columns of `out`.
pub(super) fn project<D: Launch>(
    device: &D,
    projection: &Projection<D>,
    n_tokens: usize,
    epilogue: Epilogue,
    workspace: &Workspace<D>,
    out: &mut Rows<D>,
) -> Result<(), DeviceError> {
    let mut first = 0;
    for part in &projection.parts {
        let matrix = &part.matrix;
        let whole = Part { address: matrix.blocks.address(), n_rows: matrix.shape.n_rows };
        let bias = part.bias.as_ref().map_or(0, |bias| bias.address());
        let target = Target::new(out, first, epilogue);
        multiply(device, matrix, [whole, whole], bias, n_tokens, workspace, target)?;
        first += matrix.shape.n_rows;
    }
    Ok(())
}

/// `h = silu(gate) · up`: in one kernel where gate and up are of a kind, else in two.
pub(super) fn gate_up<D: Launch>(
    device: &D,
    gate_up: &Projection<D>,
    n_tokens: usize,
    workspace: &Workspace<D>,
    h: &mut Rows<D>,
) -> Result<(), OpsError> {
    if let Some(parts) = gate_and_up(gate_up) {
        let target = Target::new(h, 0, Epilogue::Swiglu);
        multiply(device, &gate_up.parts[0].matrix, parts, 0, n_tokens, workspace, target)?;
        return Ok(());
    }
    let [gate, up] = gate_up.parts.as_slice() else {
        let (found, expected) = (gate_up.n_rows(), h.width.next_multiple_of(STRIP_ROWS) * 2);
        return Err(OpsError::Shape { operation: "norm_gate_up", operand: "fused rows", found, expected });
    };
    for (part, epilogue) in [(gate, Epilogue::Store), (up, Epilogue::Gate)] {
        let whole = Part { address: part.matrix.blocks.address(), n_rows: part.matrix.shape.n_rows };
        let target = Target::new(h, 0, epilogue);
        multiply(device, &part.matrix, [whole, whole], 0, n_tokens, workspace, target)?;
    }
    Ok(())
}
