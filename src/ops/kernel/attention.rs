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

/// The prefill kernel for a head size, and its shared memory in bytes: each is compiled for sizes up to a bound.
fn prefill_kernel(format: Format, head_dim: usize) -> Option<(&'static str, usize)> {
    let (width, half, single) = match head_dim {
        0..=64 => (64, "attend_prefill_f16_d64", "attend_prefill_f32_d64"),
        65..=96 => (96, "attend_prefill_f16_d96", "attend_prefill_f32_d96"),
        97..=128 => (128, "attend_prefill_f16_d128", "attend_prefill_f32_d128"),
        129..=MOST_HEAD_DIM => (256, "attend_prefill_f16_d256", "attend_prefill_f32_d256"),
        _ => return None,
    };
    Some(match format {
        Format::F16 => (half, prefill_shared_bytes(width, 2)),
        _ => (single, prefill_shared_bytes(width, 4)),
    })
}

/// Queries and scores of a tile, and two stages of keys or values: `TileLayout::BYTES` of `attend_prefill.cu`.
fn prefill_shared_bytes(width: usize, element_bytes: usize) -> usize {
    let row_bytes = width * element_bytes;
    let positions = match row_bytes {
        0..=256 => PAGE_TOKENS,
        257..=512 => PAGE_TOKENS / 2,
        _ => PAGE_TOKENS / 4,
    };
    let padding = match element_bytes {
        4 => 16,
        _ if row_bytes.is_multiple_of(128) => 64,
        _ => 0,
    };
    4 * ATTEND_TILE_ROWS * (width + PAGE_TOKENS) + 2 * positions * (row_bytes + padding)
}

/// The decode kernels' shared memory in bytes: `DecodeShared` of `attend_decode.cu`.
fn decode_shared_bytes(n_heads: usize, head_dim: usize) -> usize {
    let (page_floats, merge_floats) = (head_dim + PAGE_TOKENS + 2, 2 * SPLIT_PAGES);
    4 * n_heads * (head_dim + SPLIT_PAGES * page_floats + merge_floats)
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
    match prefill_kernel(cache.format, heads.head_dim) {
        Some((kernel, shared_bytes)) if n_rows > DECODE_ROWS => {
            workspace.forget_prepared();
            device.launch(kernel, grid([n_tiles as usize, heads.q_heads, 1], shared_bytes), &params)
        }
        _ => {
            let kernel = if cache.format == Format::F16 { "attend_decode_f16" } else { "attend_decode_f32" };
            let group = heads.q_heads / heads.kv_heads;
            let blocks = [heads.kv_heads * group.div_ceil(ATTEND_HEADS), n_splits as usize, n_rows];
            let shared_bytes = decode_shared_bytes(group.min(ATTEND_HEADS), heads.head_dim);
            device.launch(kernel, grid(blocks, shared_bytes), &params)?;
            workspace.set_prepared(Prepared { rows: params.out, n_rows, norm: 0 });
            Ok(())
        }
    }
}
