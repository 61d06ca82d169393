//! Keys and values of past tokens, in pages: allocated once, reserved by sequences.

use thiserror::Error;

use crate::device::Device;
use crate::memory::{Arena, ArenaError, region};
use crate::model::{ModelConfig, RopeFactors};
use crate::ops::{CacheLayer, PAGE_TOKENS, Span};
use crate::quant::Format;

/// A sequence that the cache cannot hold.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum CacheError {
    /// The sequence would grow past what it reserved.
    #[error("the sequence needs {requested} tokens, it has room for {max}; use a larger context")]
    ContextLengthExceeded {
        /// Tokens of the sequence if it grew.
        requested: usize,
        /// Tokens that it has room for.
        max: usize,
    },
    /// Other sequences hold the pages.
    #[error(
        "a sequence of {requested} tokens needs {needed_pages} pages of the cache, {free_pages} are free; end another sequence or load the model with a larger context"
    )]
    NoPages {
        /// Tokens asked for.
        requested: usize,
        /// Pages of that.
        needed_pages: usize,
        /// Pages that no sequence holds.
        free_pages: usize,
    },
}

/// A sequence of tokens and its place in the cache.
#[derive(Debug)]
pub struct Sequence {
    pages: Vec<u32>,
    len: usize,
    capacity: usize,
    rotary_set: usize,
}

impl Sequence {
    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// Room for `n` more tokens, or an error that says how much there is.
    pub fn check_room(&self, n: usize) -> Result<(), CacheError> {
        let requested = self.len.saturating_add(n);
        if requested <= self.capacity {
            return Ok(());
        }
        Err(CacheError::ContextLengthExceeded { requested, max: self.capacity })
    }
    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
    /// The next `n_rows` tokens as rows of a pass.
    pub(crate) fn span(&self, first_row: usize, n_rows: usize) -> Span<'_> {
        Span { first_row, n_rows, position: self.len, pages: &self.pages, rotary_set: self.rotary_set }
    }
    /// Counts tokens that a pass has put into the cache.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}

/// The cache of all layers.
#[derive(Debug)]
pub struct KvCache<D: Device> {
    /// One pair of buffers a layer.
    pub layers: Vec<CacheLayer<D>>,
    free: Vec<u32>,
    context: usize,
    factors: RopeFactors,
}

impl<D: Device> KvCache<D> {
    /// Takes the cache's regions from the arena.
    pub fn new(
        config: &ModelConfig,
        context: usize,
        format: Format,
        arena: &mut Arena<D>,
    ) -> Result<Self, ArenaError> {
        let mut layers = Vec::new();
        for layer in 0..config.num_layers {
            let keys = arena.take(&region::keys(layer))?.typed();
            let values = arena.take(&region::values(layer))?.typed();
            layers.push(CacheLayer { format, keys, values });
        }
        let n_pages = context.div_ceil(PAGE_TOKENS) as u32;
        Ok(Self { layers, free: (0..n_pages).rev().collect(), context, factors: config.rope.factors })
    }

    /// Tokens that all sequences share.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Reserves room for a sequence of up to `capacity` tokens. Whether a long-rope model uses its short or its long
    /// factors is decided here, once for the sequence's life, so that cached keys stay valid.
    pub fn reserve(&mut self, capacity: usize) -> Result<Sequence, CacheError> {
        if capacity > self.context {
            return Err(CacheError::ContextLengthExceeded { requested: capacity, max: self.context });
        }
        let needed_pages = capacity.div_ceil(PAGE_TOKENS);
        let free_pages = self.free.len();
        let Some(keep) = free_pages.checked_sub(needed_pages) else {
            return Err(CacheError::NoPages { requested: capacity, needed_pages, free_pages });
        };
        let mut pages = self.free.split_off(keep);
        pages.reverse();
        let rotary_set = match self.factors {
            RopeFactors::ShortLong { original_context } if capacity > original_context => 1,
            _ => 0,
        };
        Ok(Sequence { pages, len: 0, capacity, rotary_set })
    }

    /// Gives a sequence's pages back.
    pub fn release(&mut self, sequence: Sequence) {
        self.free.extend(sequence.pages.into_iter().rev());
    }
}
