//! Random operands, made on the host and placed on a device.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;

use crate::device::{Buffer, Region};
use crate::model::{ModelConfig, RopeConfig, RopeFactors};
use crate::ops::{Matrix, MatrixShape, Norm, Ops, OpsError, PassLimits, RotaryTable, Rows, padded_width};
use crate::quant::Format;
use crate::synth::Key;

/// What outputs hold before they are written: no number, and no bits that arithmetic makes.
pub(super) const POISON: f32 = f32::from_bits(0x7FC0_DEAD);

/// Weights in the pool of a format.
const POOL_WEIGHTS: usize = 1 << 15;
/// Weights that are taken from a pool together: whole blocks of every format.
const UNIT_WEIGHTS: usize = 256;
/// The root mean square of a block's weights lies between these.
const WEIGHT_SCALES: std::ops::Range<f32> = 1.0 / 256.0..1.0 / 16.0;
/// One activation in so many stands out, by so much.
const OUTLIERS: (u64, f32) = (97, 8.0);

/// Random numbers, one after the other.
#[derive(Debug)]
pub(super) struct Draw {
    key: Key,
    drawn: u64,
}

impl Draw {
    pub(super) fn new(key: Key) -> Self {
        Self { key, drawn: 0 }
    }
    fn word(&mut self) -> u64 {
        self.drawn += 1;
        self.key.at(self.drawn).0
    }
    /// 53 bits.
    pub(super) fn random_bits(&mut self) -> u64 {
        self.word() >> 11
    }
    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.word() % n.max(1) as u64) as usize
    }
    /// A number of mean 0 and deviation 1.
    pub(super) fn normal(&mut self) -> f32 {
        self.drawn += 1;
        self.key.normal(self.drawn)
    }
    /// An activation: normal, but for outliers.
    pub(super) fn activation(&mut self) -> f32 {
        let (one_in, factor) = OUTLIERS;
        let value = self.normal();
        if self.word().is_multiple_of(one_in) { factor * value } else { value }
    }
    /// The numbers below `n` in some order.
    pub(super) fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// Blocks of each format, made when first asked for.
#[derive(Debug)]
pub(super) struct Pools {
    key: Key,
    pools: Mutex<HashMap<Format, Vec<u8>>>,
}

impl Pools {
    pub(super) fn new(key: Key) -> Self {
        Self { key, pools: Mutex::default() }
    }

    /// The bytes of a matrix, put together from units of the format's pool.
    fn matrix(&self, shape: MatrixShape, draw: &mut Draw) -> Vec<u8> {
        let format = shape.format;
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(format).or_insert_with(|| blocks(format, self.key.at(format as u64)));
        let block_bytes = format.block_bytes();
        let unit_bytes = UNIT_WEIGHTS / format.block_elements() * block_bytes;
        let places = (pool.len() - unit_bytes) / block_bytes + 1;
        let mut bytes = vec![0; shape.n_rows * shape.n_cols / format.block_elements() * block_bytes];
        for unit in bytes.chunks_mut(unit_bytes) {
            let from = draw.below(places) * block_bytes;
            unit.copy_from_slice(&pool[from..from + unit.len()]);
        }
        bytes
    }
}

/// Blocks of random bits, kept where their weights are finite and of a sensible size: so every code and every scale
/// occurs, whatever the format.
fn blocks(format: Format, key: Key) -> Vec<u8> {
    let mut draw = Draw::new(key);
    let (block_bytes, block_elements) = (format.block_bytes(), format.block_elements());
    let mut pool = Vec::new();
    let mut weights = vec![0.0; block_elements];
    while pool.len() < POOL_WEIGHTS / block_elements * block_bytes {
        let words = (0..block_bytes.div_ceil(8)).flat_map(|_| draw.word().to_le_bytes());
        let block: Vec<u8> = words.take(block_bytes).collect();
        (format.row().dequantize)(&block, &mut weights);
        let squares: f32 = weights.iter().map(|weight| weight * weight).sum();
        if WEIGHT_SCALES.contains(&(squares / block_elements as f32).sqrt()) {
            pool.extend(block);
        }
    }
    pool
}

/// A device's operations, and the numbers that its operands are made of.
pub(super) struct Stage<'a, O> {
    pub ops: &'a O,
    pub draw: Draw,
    pools: &'a Pools,
}

impl<'a, O: Ops> Stage<'a, O> {
    pub(super) fn new(ops: &'a O, key: Key, pools: &'a Pools) -> Self {
        Self { ops, draw: Draw::new(key), pools }
    }

    /// Values placed on the device.
    pub(super) fn place<T: Pod>(&self, values: &[T]) -> Result<Buffer<O::Device, T>, OpsError> {
        let region = Region::allocate(self.ops.device(), size_of_val(values) as u64)?;
        let mut buffer = region.typed();
        buffer.upload(values, 0)?;
        Ok(buffer)
    }

    /// A matrix of random blocks, laid out as the operations want it.
    pub(super) fn matrix(&mut self, shape: MatrixShape) -> Result<Matrix<O::Device>, OpsError> {
        let bytes = self.pools.matrix(shape, &mut self.draw);
        let region = Region::allocate(self.ops.device(), bytes.len() as u64)?;
        let mut staging = Region::allocate(self.ops.device(), self.ops.staging_bytes())?;
        self.ops.load_matrix::<OpsError>(shape, region, &mut staging, |offset, piece| {
            let offset = offset as usize;
            piece.copy_from_slice(&bytes[offset..offset + piece.len()]);
            Ok(())
        })
    }

    /// Rows whose values `value` answers by column; their padding is zero.
    pub(super) fn rows(
        &mut self,
        n_rows: usize,
        width: usize,
        mut value: impl FnMut(&mut Draw, usize) -> f32,
    ) -> Result<Rows<O::Device>, OpsError> {
        let mut values = vec![0.0; n_rows * padded_width(width)];
        for row in values.chunks_exact_mut(padded_width(width)) {
            for (column, into) in row[..width].iter_mut().enumerate() {
                *into = value(&mut self.draw, column);
            }
        }
        Ok(Rows { values: self.place(&values)?, width })
    }

    /// Rows of activations.
    pub(super) fn activations(&mut self, n_rows: usize, width: usize) -> Result<Rows<O::Device>, OpsError> {
        self.rows(n_rows, width, |draw, _| draw.activation())
    }

    /// Rows that are to be written.
    pub(super) fn poisoned(&mut self, n_rows: usize, width: usize) -> Result<Rows<O::Device>, OpsError> {
        self.rows(n_rows, width, |_, _| POISON)
    }

    /// A norm with weights around 1.
    pub(super) fn norm(&mut self, width: usize) -> Result<Norm<O::Device>, OpsError> {
        let weight: Vec<f32> = (0..width).map(|_| 1.0 + 0.125 * self.draw.normal()).collect();
        Ok(Norm { weight: self.place(&weight)?, eps: 1e-5 })
    }

    /// A rotary table; a long-rope model's second set turns more slowly.
    pub(super) fn rotary(&self, rope: &RopeConfig) -> Result<RotaryTable<O::Device>, OpsError> {
        let half = rope.rotated_dims / 2;
        let frequencies = |slower: f32| -> Vec<f32> {
            let frequency = |i: usize| rope.theta.powf(-((2 * i) as f32) / rope.rotated_dims as f32);
            (0..half).map(|i| frequency(i) / (1.0 + slower * i as f32 / half as f32)).collect()
        };
        let mut sets = vec![self.place(&frequencies(0.0))?];
        if matches!(rope.factors, RopeFactors::ShortLong { .. }) {
            sets.push(self.place(&frequencies(31.0))?);
        }
        Ok(RotaryTable {
            sets,
            rotated_dims: rope.rotated_dims,
            pairing: rope.pairing,
            attention_factor: rope.attention_factor,
        })
    }

    /// The operations' scratch memory for passes of a model.
    pub(super) fn workspace(
        &self,
        config: &ModelConfig,
        limits: PassLimits,
    ) -> Result<O::Workspace, OpsError> {
        let bytes = self.ops.workspace_bytes(config, limits);
        self.ops.workspace(config, limits, Region::allocate(self.ops.device(), bytes)?)
    }
}
