//! Launching rotary embedding and attention.

use crate::device::{DeviceError, Grid, Launch};
use crate::model::RopePairing;
use crate::ops::{CacheLayer, HeadNorms, HeadShape, PAGE_TOKENS, RotaryTable, Rows};
use crate::quant::Format;

use super::params::{AnglesParams, AttendParams, CacheView, HeadCounts, RotateParams};
use super::workspace::{ATTEND_TILE_ROWS, DECODE_ROWS, Prepared, SPLIT_PAGES, Workspace};

/// Threads of the kernels of this file.
const THREADS: u32 = 256;

/// Heads of a row that a block of the rotary kernels takes.
const ROTATE_HEADS: usize = 8;
/// Query heads of one key head that a block of the decode kernels takes.
const ATTEND_HEADS: usize = 8;

fn grid(blocks: [usize; 3], shared_bytes: usize) -> Grid {
    Grid { blocks: blocks.map(|count| count as u32), threads: THREADS, shared_bytes: shared_bytes as u32 }
}

fn view<D: Launch>(cache: &CacheLayer<D>) -> CacheView {
    CacheView { keys: cache.keys.address(), values: cache.values.address() }
}

fn counts(heads: HeadShape, rotated_dims: usize) -> HeadCounts {
    HeadCounts {
        q_heads: heads.q_heads as u32,
        kv_heads: heads.kv_heads as u32,
        head_dim: heads.head_dim as u32,
        rotated_dims: rotated_dims as u32,
    }
}

/// Sines and cosines for the rows of a pass.
pub(super) fn angles<D: Launch>(
    device: &D,
    n_rows: usize,
    rotary: &RotaryTable<D>,
    workspace: &Workspace<D>,
) -> Result<(), DeviceError> {
    let set = |index: usize| rotary.sets.get(index).or(rotary.sets.first()).map_or(0, |set| set.address());
    let params = AnglesParams {
        tables: workspace.tables(),
        frequencies: [set(0), set(1)],
        n_rows: n_rows as u32,
        rotated_dims: rotary.rotated_dims as u32,
        attention_factor: rotary.attention_factor,
        unused: 0,
    };
    device.launch("angles", grid([n_rows, 1, 1], 0), &params)
}

/// Norms and turns q and k, and appends k and v to the cache.
#[expect(clippy::too_many_arguments, reason = "each is an operand")]
pub(super) fn rotate<D: Launch>(
    device: &D,
    n_rows: usize,
    qkv: &mut Rows<D>,
    heads: HeadShape,
    qk_norm: Option<HeadNorms<'_, D>>,
    rotary: &RotaryTable<D>,
    workspace: &Workspace<D>,
    cache: &mut CacheLayer<D>,
) -> Result<(), DeviceError> {
    let params = RotateParams {
        tables: workspace.tables(),
        qkv: qkv.values.address(),
        q_norm: qk_norm.map_or(0, |(q, _)| q.weight.address()),
        k_norm: qk_norm.map_or(0, |(_, k)| k.weight.address()),
        cache: view(cache),
        heads: counts(heads, rotary.rotated_dims),
        n_rows: n_rows as u32,
        stride: qkv.stride() as u32,
        interleaved: u32::from(rotary.pairing == RopePairing::Interleaved),
        q_eps: qk_norm.map_or(0.0, |(q, _)| q.eps),
        k_eps: qk_norm.map_or(0.0, |(_, k)| k.eps),
        unused: 0,
    };
    let kernel = if cache.format == Format::F16 { "rotate_f16" } else { "rotate_f32" };
    let blocks = (heads.q_heads + 2 * heads.kv_heads).div_ceil(ROTATE_HEADS);
    device.launch(kernel, grid([n_rows, blocks, 1], 0), &params)
}

/// The kernels for a format of the cache and a head size: each is compiled for sizes up to a bound.
struct Kernels {
    decode: &'static str,
    prefill: &'static str,
    /// Dimensions that they are compiled for.
    width: usize,
}

macro_rules! kernels {
    ($format:literal, $width:literal) => {
        Kernels {
            decode: concat!("attend_decode_", $format, "_d", $width),
            prefill: concat!("attend_prefill_", $format, "_d", $width),
            width: $width,
        }
    };
}

/// The kernels for heads of up to [`MOST_HEAD_DIM`] dimensions.
fn kernels(format: Format, head_dim: usize) -> Kernels {
    match (format, head_dim) {
        (Format::F16, 0..=64) => kernels!("f16", 64),
        (Format::F16, 65..=96) => kernels!("f16", 96),
        (Format::F16, 97..=128) => kernels!("f16", 128),
        (Format::F16, _) => kernels!("f16", 256),
        (_, 0..=64) => kernels!("f32", 64),
        (_, 65..=96) => kernels!("f32", 96),
        (_, 97..=128) => kernels!("f32", 128),
        (_, _) => kernels!("f32", 256),
    }
}

/// Bytes of a number in fixed point.
const DIGITS: usize = 3;

/// Rows of a tile that a block of the prefill kernels takes together.
fn prefill_rows(width: usize) -> usize {
    if width <= 128 { ATTEND_TILE_ROWS } else { ATTEND_TILE_ROWS / 2 }
}

/// A page's keys or values, weights and weighted sums of rows, and units: `TileLayout::BYTES` of `attend_prefill.cu`.
fn prefill_shared_bytes(width: usize) -> usize {
    let (row_floats, units) = (PAGE_TOKENS + width, PAGE_TOKENS * (1 + width.div_ceil(64)));
    DIGITS * PAGE_TOKENS * width + 4 * (prefill_rows(width) * row_floats + units)
}

/// Queries, scores and partial results of up to 8 heads: `DecodeShared` of `attend_decode.cu`.
fn decode_shared_bytes(n_heads: usize, head_dim: usize, width: usize) -> usize {
    let (scores, merge_floats) = (ATTEND_HEADS * PAGE_TOKENS, 2 + 2);
    let page_floats = scores + n_heads * (head_dim + merge_floats);
    4 * (ATTEND_HEADS * width + 32 + SPLIT_PAGES * page_floats)
}

/// The largest head that the kernels take.
pub(super) const MOST_HEAD_DIM: usize = 256;

/// Causal attention of a pass's rows.
pub(super) fn attend<D: Launch>(
    device: &D,
    n_rows: usize,
    qkv: &Rows<D>,
    heads: HeadShape,
    cache: &CacheLayer<D>,
    workspace: &mut Workspace<D>,
    out: &mut Rows<D>,
) -> Result<(), DeviceError> {
    let (tiles, n_tiles) = workspace.tiles();
    let (partials, n_splits) = workspace.partials(heads, n_rows);
    let params = AttendParams {
        tables: workspace.tables(),
        qkv: qkv.values.address(),
        cache: view(cache),
        out: out.values.address(),
        partials,
        next: workspace.next_planes(false),
        arrivals: workspace.arrivals(),
        tiles,
        heads: counts(heads, workspace.rotated_dims()),
        n_rows: n_rows as u32,
        n_tiles,
        n_splits,
        stride: qkv.stride() as u32,
        out_stride: out.stride() as u32,
        scale: 1.0 / (heads.head_dim as f32).sqrt(),
    };
    let kernels = kernels(cache.format, heads.head_dim);
    if n_rows > DECODE_ROWS {
        workspace.forget_prepared();
        let blocks = [n_tiles as usize, heads.q_heads, ATTEND_TILE_ROWS / prefill_rows(kernels.width)];
        device.launch(kernels.prefill, grid(blocks, prefill_shared_bytes(kernels.width)), &params)
    } else {
        let group = heads.q_heads / heads.kv_heads;
        let blocks = [heads.kv_heads * group.div_ceil(ATTEND_HEADS), n_splits as usize, n_rows];
        let shared_bytes = decode_shared_bytes(group.min(ATTEND_HEADS), heads.head_dim, kernels.width);
        device.launch(kernels.decode, grid(blocks, shared_bytes), &params)?;
        workspace.set_prepared(Prepared { rows: params.out, n_rows, norm: 0 });
        Ok(())
    }
}
