//! The transformer layer, written once for every family and every device.

use crate::model::ModelConfig;
use crate::ops::{CacheLayer, HeadShape, Norm, Ops, OpsError, Pass, RotaryTable};
use crate::weights::LayerWeights;

use super::scratch::Scratch;

/// `x += attention(norm(x))`, then `x += feed_forward(norm(x))`. `next_norm` is the norm that reads x after the layer.
#[expect(clippy::too_many_arguments, reason = "what a layer is made of")]
pub(super) fn run<O: Ops>(
    ops: &O,
    config: &ModelConfig,
    weights: &LayerWeights<O::Device>,
    next_norm: &Norm<O::Device>,
    rotary: &RotaryTable<O::Device>,
    pass: &Pass<'_>,
    cache: &mut CacheLayer<O::Device>,
    scratch: &mut Scratch<O::Device>,
    workspace: &mut O::Workspace,
) -> Result<(), OpsError> {
    let Scratch { x, qkv, attended, hidden, .. } = scratch;
    let n_rows = pass.n_rows();
    let heads =
        HeadShape { q_heads: config.num_q_heads, kv_heads: config.num_kv_heads, head_dim: config.head_dim };
    let qk_norm = weights.qk_norm.as_ref().map(|(q, k)| (q, k));

    ops.norm_project(x, 0..n_rows, &weights.attn_norm, &weights.qkv, workspace, qkv)?;
    ops.rotate_and_append(pass, qkv, heads, qk_norm, rotary, workspace, cache)?;
    ops.attend(pass, qkv, heads, cache, workspace, attended)?;
    ops.project(attended, n_rows, &weights.attn_output, Some(&weights.ffn_norm), workspace, x)?;

    ops.norm_gate_up(x, n_rows, &weights.ffn_norm, &weights.gate_up, workspace, hidden)?;
    ops.project(hidden, n_rows, &weights.ffn_down, Some(next_norm), workspace, x)
}
