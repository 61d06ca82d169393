//! Launching products: rows into planes, planes times weights.

use crate::device::{DeviceError, Grid, Launch};
use crate::ops::{Layout, Matrix, Norm, OpsError, Projection, ProjectionPart, Rows};

use super::names::{DECODE_MIXED, STRIP_ROWS, kernels};
use super::params::{Address, MatmulDecodeParams, MatmulParams, MatmulPart, Planes, QuantizeParams};
use super::workspace::{DECODE_ROWS, Prepared, TILE_TOKENS, Workspace};

/// Threads of every kernel of this file.
const THREADS: u32 = 256;
/// Rows and tokens of a block of the prefill kernels, and its shared memory: that of `params.cuh`.
const PREFILL_ROWS: usize = 256;
const PREFILL_TOKENS: usize = 32;
const PREFILL_SHARED_BYTES: u32 = 99 << 10;
/// Rows, tokens and threads of a block of the kernels with products of warpgroups, and its shared memory in bytes.
const WARPGROUP_ROWS: usize = 128;
const WARPGROUP_TOKENS: usize = 64;
const WARPGROUP_THREADS: u32 = 384;
const WARPGROUP_SHARED_BYTES: u32 = 216 << 10;
/// Blocks of the decode kernels for any format or more tokens that a multiprocessor runs side by side.
const DECODE_BLOCKS: usize = 2;
/// Matrices that a launch of the decode kernels takes.
const DECODE_PARTS: usize = 3;
/// Columns that a block of the kernel that makes planes takes.
const QUANTIZE_COLUMNS: usize = 2048;
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

/// The order of the codes in planes, as `planes.cuh` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By lanes: for the kernels of all GPUs.
    Lanes,
    /// In core matrices: for products of warpgroups.
    Cores,
}

impl Order {
    /// The one that a projection of so many tokens wants.
    pub(super) fn of<D: Launch>(device: &D, projection: &Projection<D>, n_tokens: usize) -> Self {
        let can = |part: &ProjectionPart<D>| {
            let tiles = kernels(part.matrix.shape.format).tiles.as_ref();
            part.matrix.layout == Layout::Tiles && tiles.is_some_and(|tiles| tiles.warpgroup.is_some())
        };
        let all_can = n_tokens > DECODE_ROWS && device.has_warpgroups() && projection.parts.iter().all(can);
        if all_can { Self::Cores } else { Self::Lanes }
    }
    /// The kernel that makes planes of this order.
    fn quantize(self) -> &'static str {
        match self {
            Self::Lanes => "quantize",
            Self::Cores => "quantize_cores",
        }
    }
}

/// What a product reads: rows in planes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub planes: Planes,
    order: Order,
    pub n_tokens: usize,
    /// Of the norm, where there is one.
    eps: f32,
}

/// What else becomes of finished rows: planes for the operation that reads them next, times the weights of a norm (0 for
/// none).
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    norm: Address,
}

impl Next {
    pub(super) fn new<D: Launch>(norm: Option<&Norm<D>>) -> Self {
        Self { norm: norm.map_or(0, |norm| norm.weight.address()) }
    }
}

fn grid(x: usize, y: usize) -> Grid {
    Grid { blocks: [x as u32, y as u32, 1], threads: THREADS, shared_bytes: 0 }
}

/// Rows of `x` in planes, times the weights of a norm where there is one: those that the operation before has left there,
/// which are by lanes, or made now in `order`.
pub(super) fn input<D: Launch>(
    device: &D,
    x: &Rows<D>,
    rows: std::ops::Range<usize>,
    norm: Option<&Norm<D>>,
    order: Order,
    workspace: &mut Workspace<D>,
) -> Result<Input, DeviceError> {
    let n_tokens = rows.len();
    let wanted = Prepared {
        rows: x.values.address() + 4 * (rows.start * x.stride()) as u64,
        n_rows: n_tokens,
        norm: Next::new(norm).norm,
    };
    let eps = norm.map_or(0.0, |norm| norm.eps);
    if workspace.take_prepared(wanted) {
        let planes = workspace.planes(norm.is_some());
        return Ok(Input { planes, order: Order::Lanes, n_tokens, eps });
    }
    let planes = workspace.renew_planes(norm.is_some());
    let params = QuantizeParams {
        x: x.values.address(),
        norm: wanted.norm,
        planes,
        first_row: rows.start as u32,
        n_rows: n_tokens as u32,
        n_columns: x.width as u32,
        stride: x.stride() as u32,
    };
    let grid = grid(x.width.div_ceil(QUANTIZE_COLUMNS), n_tokens.next_multiple_of(TILE_TOKENS));
    device.launch(order.quantize(), grid, &params)?;
    Ok(Input { planes, order, n_tokens, eps })
}

/// A matrix, or one half of a matrix of gate and up.
#[derive(Debug)]
struct Part<'a, D: Launch> {
    matrix: &'a Matrix<D>,
    weights: Address,
    bias: Address,
    n_rows: usize,
}

impl<'a, D: Launch> Part<'a, D> {
    fn whole(part: &'a ProjectionPart<D>) -> Self {
        let ProjectionPart { matrix, bias } = part;
        let bias = bias.as_ref().map_or(0, |bias| bias.address());
        Self { matrix, weights: matrix.blocks.address(), bias, n_rows: matrix.shape.n_rows }
    }

    /// The two halves of a fused `[gate | up]`, or two matrices.
    fn gate_and_up(gate_up: &'a Projection<D>) -> Option<[Self; 2]> {
        match gate_up.parts.as_slice() {
            [both] => {
                let Self { matrix, weights, bias, n_rows: all } = Self::whole(both);
                let n_rows = all / 2;
                let row_bytes = matrix.blocks.region().bytes() / all.max(1) as u64;
                let divides = matrix.layout == Layout::Blocks || n_rows.is_multiple_of(STRIP_ROWS);
                let half = |index: u64| {
                    let weights = weights + index * n_rows as u64 * row_bytes;
                    Self { matrix, weights, bias, n_rows }
                };
                divides.then(|| [half(0), half(1)])
            }
            [gate, up] => Some([Self::whole(gate), Self::whole(up)]),
            _ => None,
        }
    }

    /// Whether a launch can take both, one after the other in each of its blocks.
    fn is_of_a_kind_with(&self, other: &Self) -> bool {
        self.matrix.shape.format == other.matrix.shape.format && self.matrix.layout == other.matrix.layout
    }
}

/// Multiplies rows with matrices in one launch of a decode kernel: side by side along the columns of `out`, or gate and up
/// for [`Epilogue::Swiglu`]. `false` where the kernels do not take so many rows or such matrices.
fn decode<D: Launch>(
    device: &D,
    input: Input,
    parts: &[Part<'_, D>],
    epilogue: Epilogue,
    next: Option<Next>,
    workspace: &mut Workspace<D>,
    out: &mut Rows<D>,
) -> Result<bool, DeviceError> {
    let [first, ..] = parts else { return Ok(false) };
    let in_tiles = parts.iter().all(|part| part.matrix.layout == Layout::Tiles);
    if input.n_tokens > DECODE_ROWS || parts.len() > DECODE_PARTS || !in_tiles {
        return Ok(false);
    }
    let mut params = MatmulDecodeParams {
        planes: input.planes,
        out: out.values.address(),
        n_columns: first.matrix.shape.n_cols as u32,
        n_tokens: input.n_tokens as u32,
        stride: out.stride() as u32,
        epilogue: epilogue as u32,
        eps: input.eps,
        ..MatmulDecodeParams::default()
    };
    for (of_kernel, part) in params.parts.iter_mut().zip(parts) {
        let first_row = if epilogue == Epilogue::Swiglu { 0 } else { params.n_rows };
        let end_row = first_row + part.n_rows as u32;
        let format = part.matrix.shape.format.row().ggml_id;
        *of_kernel =
            MatmulPart { weights: part.weights, bias: part.bias, first_row, end_row, format, unused: 0 };
        params.n_rows = end_row;
    }
    if let Some(next) = next {
        params.next = workspace.next_planes(next.norm != 0);
        (params.next_norm, params.arrivals) = (next.norm, workspace.arrivals());
    }
    let (kernel, blocks) = match &kernels(first.matrix.shape.format).tiles {
        Some(tiles) if parts.iter().all(|part| part.is_of_a_kind_with(first)) => match input.n_tokens {
            0..=TILE_TOKENS => (tiles.decode, tiles.decode_blocks),
            _ => (tiles.decode_wide, DECODE_BLOCKS),
        },
        _ => (DECODE_MIXED, DECODE_BLOCKS),
    };
    // As many blocks as run at a time, each with as many strips as the others.
    let n_strips = params.n_rows as usize / STRIP_ROWS;
    let turns = n_strips.div_ceil(blocks * device.multiprocessors());
    device.launch(kernel, grid(n_strips.div_ceil(turns.max(1)), 1), &params)?;
    match next {
        Some(Next { norm }) => {
            workspace.set_prepared(Prepared { rows: params.out, n_rows: input.n_tokens, norm });
        }
        None => workspace.forget_prepared(),
    }
    Ok(true)
}

/// Multiplies rows with a matrix, or with two of its kind for [`Epilogue::Swiglu`], into columns `first_column..` of `out`.
fn multiply<D: Launch>(
    device: &D,
    input: Input,
    parts: [&Part<'_, D>; 2],
    epilogue: Epilogue,
    out: &mut Rows<D>,
    first_column: usize,
) -> Result<(), DeviceError> {
    let Part { matrix, bias, n_rows, .. } = *parts[0];
    let n_tokens = input.n_tokens;
    let params = MatmulParams {
        weights: parts.map(|part| part.weights),
        planes: input.planes,
        bias,
        out: out.values.address() + 4 * first_column as u64,
        n_rows: n_rows as u32,
        n_columns: matrix.shape.n_cols as u32,
        n_tokens: n_tokens as u32,
        stride: out.stride() as u32,
        epilogue: epilogue as u32,
        eps: input.eps,
    };
    let kernels = kernels(matrix.shape.format);
    let tiles = kernels.tiles.as_ref().filter(|_| matrix.layout == Layout::Tiles);
    let warpgroup = tiles.and_then(|tiles| tiles.warpgroup).filter(|_| input.order == Order::Cores);
    let (kernel, grid) = match (warpgroup, tiles) {
        (Some(kernel), _) => {
            let blocks = grid(n_rows.div_ceil(WARPGROUP_ROWS), n_tokens.div_ceil(WARPGROUP_TOKENS));
            let (threads, shared_bytes) = (WARPGROUP_THREADS, WARPGROUP_SHARED_BYTES);
            (kernel, Grid { threads, shared_bytes, ..blocks })
        }
        (None, Some(tiles)) => {
            let blocks = grid(n_rows.div_ceil(PREFILL_ROWS), n_tokens.div_ceil(PREFILL_TOKENS));
            (tiles.prefill, Grid { shared_bytes: PREFILL_SHARED_BYTES, ..blocks })
        }
        (None, None) => {
            (kernels.matmul, grid(n_rows.div_ceil(BLOCKS_ROWS), n_tokens.div_ceil(BLOCKS_TOKENS)))
        }
    };
    device.launch(kernel, grid, &params)
}

/// `out[..] = projection · input`, part after part along the columns of `out`.
pub(super) fn project<D: Launch>(
    device: &D,
    input: Input,
    projection: &Projection<D>,
    epilogue: Epilogue,
    next: Option<Next>,
    workspace: &mut Workspace<D>,
    out: &mut Rows<D>,
) -> Result<(), DeviceError> {
    let parts: Vec<_> = projection.parts.iter().map(Part::whole).collect();
    if decode(device, input, &parts, epilogue, next, workspace, out)? {
        return Ok(());
    }
    let mut first = 0;
    for part in &parts {
        multiply(device, input, [part, part], epilogue, out, first)?;
        first += part.n_rows;
    }
    workspace.forget_prepared();
    Ok(())
}

/// `h = silu(gate) · up`: in one kernel, or in two where gate and up are not of a kind.
pub(super) fn gate_up<D: Launch>(
    device: &D,
    input: Input,
    gate_up: &Projection<D>,
    next: Option<Next>,
    workspace: &mut Workspace<D>,
    h: &mut Rows<D>,
) -> Result<(), OpsError> {
    let Some(parts) = Part::gate_and_up(gate_up) else {
        let (found, expected) = (gate_up.n_rows(), h.width.next_multiple_of(STRIP_ROWS) * 2);
        return Err(OpsError::Shape { operation: "norm_gate_up", operand: "fused rows", found, expected });
    };
    if decode(device, input, &parts, Epilogue::Swiglu, next, workspace, h)? {
        return Ok(());
    }
    let [gate, up] = &parts;
    if gate.is_of_a_kind_with(up) {
        multiply(device, input, [gate, up], Epilogue::Swiglu, h, 0)?;
    } else {
        multiply(device, input, [gate, gate], Epilogue::Store, h, 0)?;
        multiply(device, input, [up, up], Epilogue::Gate, h, 0)?;
    }
    workspace.forget_prepared();
    Ok(())
}
