//! The activations of a pass, by name, each over its own region.

use crate::device::Device;
use crate::memory::{Arena, ArenaError, region};
use crate::model::ModelConfig;
use crate::ops::Rows;

/// What flows between operations.
#[derive(Debug)]
pub(super) struct Scratch<D: Device> {
    /// The residual stream: `[rows, hidden]`.
    pub x: Rows<D>,
    /// `[rows, q | k | v]`.
    pub qkv: Rows<D>,
    /// What attention answers: `[rows, q]`.
    pub attended: Rows<D>,
    /// The feed-forward layer's middle: `[rows, ffn]`.
    pub hidden: Rows<D>,
    /// `[logits rows, vocabulary]`.
    pub logits: Rows<D>,
}

impl<D: Device> Scratch<D> {
    pub(super) fn new(config: &ModelConfig, arena: &mut Arena<D>) -> Result<Self, ArenaError> {
        let mut rows = |name, width| Ok::<_, ArenaError>(Rows { values: arena.take(name)?.typed(), width });
        Ok(Self {
            x: rows(region::X, config.hidden_dim)?,
            qkv: rows(region::QKV, config.qkv_dim())?,
            attended: rows(region::ATTENDED, config.q_dim())?,
            hidden: rows(region::HIDDEN, config.ffn_dim)?,
            logits: rows(region::LOGITS, config.vocab_size)?,
        })
    }
}
