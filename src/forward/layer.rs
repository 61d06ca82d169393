//! The transformer layer, written once for every family and every device.

use crate::model::ModelConfig;
use crate::ops::{CacheLayer, HeadShape, Ops, OpsError, RotaryTable, Span};
use crate::weights::LayerWeights;

use super::scratch::Scratch;

/// `x += attention(norm(x))`, then `x += feed_forward(norm(x))`.
pub(super) fn run<O: Ops>(
    ops: &O,
    config: &ModelConfig,
    weights: &LayerWeights<O::Device>,
    rotary: &RotaryTable<O::Device>,
    spans: &[Span<'_>],
    cache: &mut CacheLayer<O::Device>,
    scratch: &mut Scratch<O::Device>,
) -> Result<(), OpsError> {
    let Scratch { x, qkv, attended, hidden, workspace, .. } = scratch;
    let n_rows = spans.iter().map(|span| span.n_rows).sum();
    let heads =
        HeadShape { q_heads: config.num_q_heads, kv_heads: config.num_kv_heads, head_dim: config.head_dim };
    let qk_norm = weights.qk_norm.as_ref().map(|(q, k)| (q, k));

    ops.norm_project(x, 0..n_rows, &weights.attn_norm, &weights.qkv, workspace, qkv)?;
    ops.rotate_and_append(qkv, heads, qk_norm, rotary, spans, cache)?;
    ops.attend(qkv, heads, spans, cache, workspace, attended)?;
    ops.project(attended, n_rows, &weights.attn_output, workspace, x)?;

    ops.norm_gate_up(x, n_rows, &weights.ffn_norm, &weights.gate_up, workspace, hidden)?;
    ops.project(hidden, n_rows, &weights.ffn_down, workspace, x)
}
