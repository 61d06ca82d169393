//! A loaded model's tensors by the names that the original documentation gave them: where each lies and what it is.

use crate::device::{Buffer, Device};
use crate::model::ModelConfig;
use crate::ops::{Layout, Matrix, Norm, Projection};
use crate::quant::Format;
use crate::weights::Weights;

/// A tensor in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceTensor {
    /// Address of the first byte, as kernels on its device see it. It stays valid while the model lives.
    pub address: u64,
    /// Block format.
    pub format: Format,
    /// Rows; 1 for a vector.
    pub n_rows: usize,
    /// Elements in a row.
    pub n_cols: usize,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether the bytes lie as in the file, or in tiles of 16 rows, of which a range of rows is whole where its ends
    /// are multiples of 16.
    pub layout: Layout,
}

/// One transformer layer's tensors. Parts of a fused tensor are ranges of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerTensors {
    /// `[hidden]`
    pub attn_norm_weight: DeviceTensor,
    /// `[q_heads * head_dim, hidden]`
    pub attn_q_weight: DeviceTensor,
    /// `[kv_heads * head_dim, hidden]`
    pub attn_k_weight: DeviceTensor,
    /// `[kv_heads * head_dim, hidden]`
    pub attn_v_weight: DeviceTensor,
    /// `[hidden, q_heads * head_dim]`
    pub attn_output_weight: DeviceTensor,
    /// `[hidden]`
    pub ffn_norm_weight: DeviceTensor,
    /// `[ffn, hidden]`
    pub ffn_gate_weight: DeviceTensor,
    /// `[ffn, hidden]`
    pub ffn_up_weight: DeviceTensor,
    /// `[hidden, ffn]`
    pub ffn_down_weight: DeviceTensor,
}

/// A model's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTensors {
    /// `[vocabulary, hidden]`
    pub token_embedding: DeviceTensor,
    /// The layers, in order.
    pub layers: Vec<LayerTensors>,
    /// `[hidden]`
    pub output_norm_weight: DeviceTensor,
    /// `[vocabulary, hidden]`; the token embedding where the output is tied.
    pub output_weight: DeviceTensor,
}

impl DeviceTensors {
    pub(super) fn new<D: Device>(config: &ModelConfig, weights: &Weights<D>) -> Self {
        let (q, kv, ffn) = (config.q_dim(), config.kv_dim(), config.ffn_dim);
        let layers = weights.layers.iter().map(|layer| LayerTensors {
            attn_norm_weight: norm(&layer.attn_norm),
            attn_q_weight: rows(&layer.qkv, 0, q),
            attn_k_weight: rows(&layer.qkv, q, kv),
            attn_v_weight: rows(&layer.qkv, q + kv, kv),
            attn_output_weight: rows(&layer.attn_output, 0, config.hidden_dim),
            ffn_norm_weight: norm(&layer.ffn_norm),
            ffn_gate_weight: rows(&layer.gate_up, 0, ffn),
            ffn_up_weight: rows(&layer.gate_up, ffn, ffn),
            ffn_down_weight: rows(&layer.ffn_down, 0, config.hidden_dim),
        });
        Self {
            token_embedding: part(weights.token_embedding(), 0, config.vocab_size),
            layers: layers.collect(),
            output_norm_weight: norm(&weights.output_norm),
            output_weight: rows(&weights.output, 0, config.vocab_size),
        }
    }
}

fn norm<D: Device>(norm: &Norm<D>) -> DeviceTensor {
    vector(&norm.weight)
}

fn vector<D: Device>(buffer: &Buffer<D, f32>) -> DeviceTensor {
    let (address, bytes) = (buffer.address(), buffer.region().bytes());
    DeviceTensor {
        address,
        format: Format::F32,
        n_rows: 1,
        n_cols: buffer.len(),
        bytes,
        layout: Layout::Blocks,
    }
}

/// Rows of a projection, which lie in one of its parts.
fn rows<D: Device>(projection: &Projection<D>, first: usize, n_rows: usize) -> DeviceTensor {
    let mut first = first;
    let parts = projection.parts.iter().map(|part| &part.matrix);
    let mut matrix = &projection.parts[0].matrix;
    for next in parts {
        matrix = next;
        if first < next.shape.n_rows {
            break;
        }
        first -= next.shape.n_rows;
    }
    part(matrix, first, n_rows)
}

fn part<D: Device>(matrix: &Matrix<D>, first: usize, n_rows: usize) -> DeviceTensor {
    let row_bytes = matrix.blocks.region().bytes() / matrix.shape.n_rows.max(1) as u64;
    DeviceTensor {
        address: matrix.blocks.address() + first as u64 * row_bytes,
        format: matrix.shape.format,
        n_rows,
        n_cols: matrix.shape.n_cols,
        bytes: n_rows as u64 * row_bytes,
        layout: matrix.layout,
    }
}
