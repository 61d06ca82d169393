//! A model's weights as typed structs over regions of the arena, read from the file by walking the schema.

mod read;

use std::time::Instant;

use thiserror::Error;

use crate::device::{Buffer, Device, DeviceError, Region};
use crate::gguf::{Gguf, GgufError};
use crate::memory::{Arena, ArenaError, region};
use crate::model::{LayerSlot, ModelConfig, ModelError, RopeFactors, Slot, TensorKind, TensorSpec, schema};
use crate::ops::{Matrix, MatrixShape, Norm, Ops, OpsError, Projection, ProjectionPart, RotaryTable};

use read::Reader;
pub use read::{LoadTimes, Stage};

/// Weights that could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The model is unsound.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The file could not be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The plan has no place for a tensor.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A matrix could not be laid out.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

/// One transformer layer.
#[derive(Debug)]
pub struct LayerWeights<D: Device> {
    /// `[hidden]`.
    pub attn_norm: Norm<D>,
    /// `[q | k | v, hidden]`, with biases in some families.
    pub qkv: Projection<D>,
    /// `[head_dim]` each, for q and k, in some families.
    pub qk_norm: Option<(Norm<D>, Norm<D>)>,
    /// `[hidden, q]`.
    pub attn_output: Projection<D>,
    /// `[hidden]`.
    pub ffn_norm: Norm<D>,
    /// `[gate | up, hidden]`.
    pub gate_up: Projection<D>,
    /// `[hidden, ffn]`.
    pub ffn_down: Projection<D>,
}

impl<D: Device> LayerWeights<D> {
    /// Every matrix of the layer.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix<D>> {
        let projections = [&self.qkv, &self.attn_output, &self.gate_up, &self.ffn_down];
        projections.into_iter().flat_map(|projection| projection.parts.iter().map(|part| &part.matrix))
    }
}

/// All of a model's weights.
#[derive(Debug)]
pub struct Weights<D: Device> {
    /// `[vocabulary, hidden]`; `None` where the output projection serves for it.
    token_embedding: Option<Matrix<D>>,
    /// The layers, in order.
    pub layers: Vec<LayerWeights<D>>,
    /// `[hidden]`.
    pub output_norm: Norm<D>,
    /// `[vocabulary, hidden]`.
    pub output: Projection<D>,
    /// The rotary embedding.
    pub rotary: RotaryTable<D>,
    /// What loading them took.
    pub times: LoadTimes,
}

impl<D: Device> Weights<D> {
    /// Reads a model into the arena; `progress(done, total)` is told of the bytes read.
    pub fn load<O: Ops<Device = D>>(
        ops: &O,
        config: &ModelConfig,
        gguf: &Gguf,
        arena: &mut Arena<D>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, LoadError> {
        let started = Instant::now();
        let specs = schema(config);
        let mut total_bytes = 0;
        for spec in &specs {
            total_bytes += spec.find(gguf)?.n_bytes;
        }
        let staging = arena.take(region::STAGING)?;
        let reader = Reader::new(gguf, total_bytes, progress)?;
        // What others have copied so far is not this model's.
        ops.device().take_transfers()?;
        let mut loader = Loader { ops, staging, config, reader, arena, specs };
        let rotary = loader.rotary()?;
        let token_embedding = loader.matrix(Slot::TokenEmbedding)?;
        let layers = (0..config.num_layers).map(|index| loader.layer(index)).collect::<Result<_, _>>()?;
        let output_norm = loader.norm(Slot::OutputNorm)?;
        let single = |matrix| Projection { parts: vec![ProjectionPart { matrix, bias: None }] };
        let (token_embedding, output) = if config.tied_output {
            (None, single(token_embedding))
        } else {
            (Some(token_embedding), single(loader.matrix(Slot::Output)?))
        };
        let read = loader.reader.stage;
        ops.synchronize()?;
        let times = LoadTimes::new(started.elapsed(), read, ops.device().take_transfers()?);
        Ok(Self { token_embedding, layers, output_norm, output, rotary, times })
    }

    /// `[vocabulary, hidden]`, stored once where input and output share it.
    pub fn token_embedding(&self) -> &Matrix<D> {
        self.token_embedding.as_ref().unwrap_or(&self.output.parts[0].matrix)
    }
}

struct Loader<'a, O: Ops> {
    ops: &'a O,
    staging: Region<O::Device>,
    config: &'a ModelConfig,
    reader: Reader<'a>,
    arena: &'a mut Arena<O::Device>,
    specs: Vec<TensorSpec>,
}

impl<O: Ops> Loader<'_, O> {
    fn spec(&self, slot: Slot) -> Result<TensorSpec, LoadError> {
        let spec = self.specs.iter().find(|spec| spec.slot == slot).cloned();
        // The schema lists every slot that the configuration's features let a caller ask for.
        spec.ok_or_else(|| ArenaError::NoRegion { name: slot.name() }.into())
    }

    fn matrix(&mut self, slot: Slot) -> Result<Matrix<O::Device>, LoadError> {
        let spec = self.spec(slot)?;
        debug_assert_eq!(spec.kind, TensorKind::Matrix);
        let tensor = spec.find(self.reader.gguf())?;
        let region = self.arena.take(&spec.name)?;
        let shape = MatrixShape { format: tensor.format, n_rows: spec.n_rows, n_cols: spec.n_cols };
        let Self { ops, staging, reader, .. } = self;
        ops.load_matrix(shape, region, staging, |offset, piece| reader.read(tensor, offset, piece))
    }

    /// The values of a small tensor, as f32 whatever the file keeps.
    fn values(&mut self, slot: Slot) -> Result<Vec<f32>, LoadError> {
        let spec = self.spec(slot)?;
        let tensor = spec.find(self.reader.gguf())?;
        let row_bytes = tensor.format.row_bytes(spec.n_cols as u64);
        if row_bytes != Some(tensor.n_bytes) {
            let (name, n_cols, format) = (spec.name, spec.n_cols as u64, tensor.format);
            return Err(ModelError::RowLength { name, n_cols, format, block: format.block_elements() }.into());
        }
        let mut bytes = vec![0; tensor.n_bytes as usize];
        self.reader.read(tensor, 0, &mut bytes)?;
        let mut values = vec![0.0; spec.n_cols];
        (tensor.format.row().dequantize)(&bytes, &mut values);
        Ok(values)
    }

    fn place(&mut self, region: &str, values: &[f32]) -> Result<Buffer<O::Device, f32>, LoadError> {
        let mut buffer = self.arena.take(region)?.typed();
        buffer.upload(values, 0)?;
        Ok(buffer)
    }

    fn vector(&mut self, slot: Slot) -> Result<Buffer<O::Device, f32>, LoadError> {
        let values = self.values(slot)?;
        self.place(&slot.name(), &values)
    }

    fn norm(&mut self, slot: Slot) -> Result<Norm<O::Device>, LoadError> {
        Ok(Norm { weight: self.vector(slot)?, eps: self.config.rms_norm_eps })
    }

    /// Matrices side by side; each may have a bias.
    fn projection(&mut self, slots: &[(Slot, Option<Slot>)]) -> Result<Projection<O::Device>, LoadError> {
        let mut parts = Vec::new();
        for &(matrix, bias) in slots {
            let matrix = self.matrix(matrix)?;
            let bias = bias.map(|slot| self.vector(slot)).transpose()?;
            parts.push(ProjectionPart { matrix, bias });
        }
        Ok(Projection { parts })
    }

    fn layer(&mut self, index: usize) -> Result<LayerWeights<O::Device>, LoadError> {
        use LayerSlot::*;
        let config = self.config;
        let slot = |slot| Slot::Layer(index, slot);
        let plain = |name| (slot(name), None);
        let biased = |matrix, bias| (slot(matrix), config.qkv_bias.then_some(slot(bias)));
        let separate = [biased(AttnQ, AttnQBias), biased(AttnK, AttnKBias), biased(AttnV, AttnVBias)];
        Ok(LayerWeights {
            attn_norm: self.norm(slot(AttnNorm))?,
            qkv: if config.fused_qkv {
                self.projection(&[plain(AttnQkv)])?
            } else {
                self.projection(&separate)?
            },
            qk_norm: match config.qk_norm {
                true => Some((self.norm(slot(AttnQNorm))?, self.norm(slot(AttnKNorm))?)),
                false => None,
            },
            attn_output: self.projection(&[plain(AttnOutput)])?,
            ffn_norm: self.norm(slot(FfnNorm))?,
            gate_up: if config.fused_gate_up {
                self.projection(&[plain(FfnUp)])?
            } else {
                self.projection(&[plain(FfnGate), plain(FfnUp)])?
            },
            ffn_down: self.projection(&[plain(FfnDown)])?,
        })
    }

    /// Frequencies in radians a token: `1 / (factor · theta^(2i / rotated_dims))`, in singles, as the models were
    /// trained.
    fn rotary(&mut self) -> Result<RotaryTable<O::Device>, LoadError> {
        let rope = self.config.rope;
        let sets: &[(Option<Slot>, &str)] = match rope.factors {
            RopeFactors::None => &[(None, region::ROTARY)],
            RopeFactors::Single => &[(Some(Slot::RopeFrequencies), region::ROTARY)],
            RopeFactors::ShortLong { .. } => &[
                (Some(Slot::RopeFactorsShort), region::ROTARY),
                (Some(Slot::RopeFactorsLong), region::ROTARY_LONG),
            ],
        };
        let mut buffers = Vec::new();
        for &(slot, region) in sets {
            let factors = match slot {
                Some(slot) => self.factors(slot)?,
                None => vec![1.0; rope.rotated_dims / 2],
            };
            let frequencies: Vec<f32> = factors
                .iter()
                .enumerate()
                .map(|(i, factor)| {
                    let exponent = (2 * i) as f32 / rope.rotated_dims as f32;
                    1.0 / (factor * f64::from(rope.theta).powf(f64::from(exponent)) as f32)
                })
                .collect();
            buffers.push(self.place(region, &frequencies)?);
        }
        Ok(RotaryTable {
            sets: buffers,
            rotated_dims: rope.rotated_dims,
            pairing: rope.pairing,
            attention_factor: rope.attention_factor,
        })
    }

    fn factors(&mut self, slot: Slot) -> Result<Vec<f32>, LoadError> {
        let factors = self.values(slot)?;
        match factors.iter().position(|factor| !(factor.is_finite() && *factor > 0.0)) {
            None => Ok(factors),
            Some(index) => Err(ModelError::TensorValue {
                name: slot.name(),
                index,
                value: factors[index],
                expected: "a finite number above zero",
            }
            .into()),
        }
    }
}
