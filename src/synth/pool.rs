//! Blocks that are quantized once and copied often. Quantizing every weight of a large model would take minutes, so a
//! matrix is put together from a pool; each lap through the pool takes its units in another order.

use std::io;

use rayon::prelude::*;

use super::random::Key;
use crate::quant::{Format, QuantError};

/// Weights in a unit of a pool: whole blocks of every format.
const UNIT_WEIGHTS: usize = 256;
/// Units in a pool, as a power of two; smaller where the tensors are.
const MOST_UNIT_BITS: u32 = 11;
/// Units that one thread copies at a time.
const UNITS_PER_TASK: usize = 1024;

/// Units of blocks of one format.
pub(super) struct Pool {
    units: Vec<u8>,
    unit_bytes: usize,
    unit_bits: u32,
}

impl Pool {
    /// A pool of normal weights of a deviation, for tensors of up to `n_elements`.
    pub(super) fn new(key: Key, format: Format, deviation: f32, n_elements: u64) -> Result<Self, QuantError> {
        let n_units = n_elements.div_ceil(UNIT_WEIGHTS as u64).clamp(1, 1 << MOST_UNIT_BITS);
        let unit_bits = n_units.next_power_of_two().ilog2();
        let unit_bytes = UNIT_WEIGHTS / format.block_elements() * format.block_bytes();
        let mut units = vec![0; unit_bytes << unit_bits];
        units.par_chunks_mut(unit_bytes).enumerate().try_for_each(|(unit, bytes)| {
            let first = (unit * UNIT_WEIGHTS) as u64;
            let weights: [f32; UNIT_WEIGHTS] =
                std::array::from_fn(|i| deviation * key.normal(first + i as u64));
            format.quantize(&weights, bytes)
        })?;
        Ok(Self { units, unit_bytes, unit_bits })
    }

    /// Makes the bytes of a tensor and gives them to `write`, piece by piece, each as large as `buffer` allows.
    pub(super) fn stream(
        &self,
        tensor: Key,
        n_bytes: u64,
        buffer: &mut [u8],
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let whole_units = buffer.len() - buffer.len() % self.unit_bytes;
        let mut offset = 0;
        while offset < n_bytes {
            let piece_bytes = (whole_units as u64).min(n_bytes - offset);
            let piece = &mut buffer[..piece_bytes as usize];
            self.fill(tensor, offset, piece);
            write(piece)?;
            offset += piece_bytes;
        }
        Ok(())
    }

    /// The bytes of a tensor from `offset` on, where a unit begins.
    fn fill(&self, tensor: Key, offset: u64, piece: &mut [u8]) {
        let first_unit = offset / self.unit_bytes as u64;
        piece.par_chunks_mut(self.unit_bytes * UNITS_PER_TASK).enumerate().for_each(|(task, chunk)| {
            let units = first_unit + (task * UNITS_PER_TASK) as u64..;
            for (unit, out) in units.zip(chunk.chunks_mut(self.unit_bytes)) {
                // Only the last unit of a tensor may be cut off.
                let (lap, place) = (unit >> self.unit_bits, unit & ((1 << self.unit_bits) - 1));
                let from = tensor.at(lap).shuffle(place, self.unit_bits) as usize * self.unit_bytes;
                out.copy_from_slice(&self.units[from..from + out.len()]);
            }
        });
    }
}
