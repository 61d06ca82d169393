//! The kernels, on the emulator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attention;
mod blocks;
mod choose;
mod formats;
mod lab;
mod matmul;
mod planes;
mod rotary;
mod warpgroup;

use bytemuck::{NoUninit, Pod};

use crate::device::{Buffer, EmulatorDevice, Grid, Launch, Region, kernel_names, launched_kernels};
use crate::model::{CATALOG, ModelConfig};
use crate::ops::{
    Matrix, MatrixShape, Ops, OpsError, PassLimits, Projection, ProjectionPart, Rows, padded_width,
};
use crate::quant::Format;

use super::{KernelOps, Workspace};

/// A splitmix64 generator.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }
    /// From -1 to 1.
    pub(super) fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    pub(super) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform()).collect()
    }
}

/// Elements on the device.
pub(super) fn on_device<T: Pod>(device: &EmulatorDevice, elements: &[T]) -> Buffer<EmulatorDevice, T> {
    let mut buffer = Region::allocate(device, size_of_val(elements) as u64).unwrap().typed();
    buffer.upload(elements, 0).unwrap();
    buffer
}

/// Starts a kernel without dynamic shared memory.
pub(super) fn launch<P: NoUninit>(
    device: &EmulatorDevice,
    kernel: &'static str,
    blocks: [usize; 2],
    threads: u32,
    params: &P,
) {
    let blocks = [blocks[0] as u32, blocks[1] as u32, 1];
    device.launch(kernel, Grid { blocks, threads, shared_bytes: 0 }, params).unwrap();
}

/// Operations, with scratch memory for `limits` of a model whose layers are at most `width` wide.
pub(super) fn workspace(
    ops: &KernelOps<EmulatorDevice>,
    width: usize,
    limits: PassLimits,
) -> Workspace<EmulatorDevice> {
    let config = ModelConfig { hidden_dim: width, ffn_dim: width, ..CATALOG[0].config() };
    let region = Region::allocate(ops.device(), ops.workspace_bytes(&config, limits)).unwrap();
    ops.workspace(&config, limits, region).unwrap()
}

/// A matrix of file bytes on the device.
pub(super) fn matrix(
    ops: &KernelOps<EmulatorDevice>,
    shape: MatrixShape,
    bytes: &[u8],
) -> Matrix<EmulatorDevice> {
    let device = ops.device();
    let into = Region::allocate(device, bytes.len() as u64).unwrap();
    let mut staging = Region::allocate(device, ops.staging_bytes()).unwrap();
    ops.load_matrix(shape, into, &mut staging, |offset, piece| {
        piece.copy_from_slice(&bytes[offset as usize..][..piece.len()]);
        Ok::<_, OpsError>(())
    })
    .unwrap()
}

/// A projection of one matrix.
pub(super) fn single(matrix: Matrix<EmulatorDevice>) -> Projection<EmulatorDevice> {
    Projection { parts: vec![ProjectionPart { matrix, bias: None }] }
}

/// Rows of floats on the device; what pads them is not a number.
pub(super) fn rows(device: &EmulatorDevice, width: usize, values: &[f32]) -> Rows<EmulatorDevice> {
    let stride = padded_width(width);
    let n_rows = values.len() / width;
    let mut padded = vec![f32::NAN; n_rows * stride];
    for (row, padded) in values.chunks_exact(width).zip(padded.chunks_exact_mut(stride)) {
        padded[..width].copy_from_slice(row);
    }
    let mut buffer = Region::allocate(device, 4 * padded.len() as u64).unwrap().typed();
    buffer.upload(&padded, 0).unwrap();
    Rows { values: buffer, width }
}

/// Random weights in a format that the crate writes, and what they stand for.
pub(super) fn weights(random: &mut Random, shape: MatrixShape) -> (Vec<u8>, Vec<f32>) {
    let values = random.floats(shape.n_rows * shape.n_cols);
    let row_bytes = shape.format.row_bytes(shape.n_cols as u64).unwrap();
    let mut bytes = vec![0; shape.n_rows * row_bytes as usize];
    shape.format.quantize(&values, &mut bytes).unwrap();
    let mut exact = vec![0.0; values.len()];
    shape.format.dequantize(&bytes, &mut exact).unwrap();
    (bytes, exact)
}

/// `|got - expected| / |expected|`.
pub(super) fn relative_l2(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let difference: f64 = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (difference / expected.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// Formats that lie in tiles.
pub(super) const TILED: [Format; 6] =
    [Format::Q4_0, Format::Q5_0, Format::Q8_0, Format::Q4_K, Format::Q5_K, Format::Q6_K];

/// A kernel whose work leaves nothing behind.
fn memory_is_read() {
    let ops = KernelOps::new(EmulatorDevice::default());
    let mut workspace = workspace(&ops, 256, PassLimits { rows: 1, context: 64 });
    let region = Region::allocate(ops.device(), 100_000).unwrap();
    ops.read_all(&region, &mut workspace).unwrap();
}

/// The list of kernels is made from the sources when they are compiled; those that ran are counted by the emulator.
#[test]
fn every_kernel_is_run_by_a_test() {
    memory_is_read();
    attention::heads_of_every_size_are_right_in_both_phases();
    choose::kernels_choose_what_the_reference_chooses();
    blocks::products_are_those_of_weights_and_activations();
    formats::every_format_embeds_what_it_dequantizes_to();
    formats::tiles_embed_what_their_format_dequantizes_to();
    formats::repacked_weights_lie_as_described_and_come_back();
    lab::variants_keep_what_they_promise();
    matmul::matrices_of_several_formats_share_a_launch();
    matmul::products_over_tiles_are_right_and_do_not_depend_on_the_batch();
    rotary::turned_heads_and_the_cache_are_those_of_the_reference();
    warpgroup::products_have_the_bits_of_the_kernels_of_all_gpus();
    let launched = launched_kernels();
    let missing: Vec<_> = kernel_names().filter(|name| !launched.contains(name)).collect();
    assert!(missing.is_empty(), "run by no test: {missing:?}");
    assert!(kernel_names().count() > 60, "the list of kernels is not whole");
}
