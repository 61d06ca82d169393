//! The emulator: what kernels compute on it, and what it finds in kernels that are wrong.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used)]

use bytemuck::NoUninit;
use worker_orcd::device::{Buffer, EmulatorDevice, Grid, Launch, Region};

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct Params {
    input: u64,
    output: u64,
    n: u32,
    unused: u32,
}

fn buffer(device: &EmulatorDevice, values: &[u32]) -> Buffer<EmulatorDevice, u32> {
    let mut buffer = Region::allocate(device, 4 * values.len() as u64).unwrap().typed();
    buffer.upload(values, 0).unwrap();
    buffer
}

#[test]
fn a_block_reduction_is_right() {
    let device = EmulatorDevice::default();
    let values: Vec<u32> = (0..1024u16).map(|i| f32::from(i).to_bits()).collect();
    let (input, output) = (buffer(&device, &values), buffer(&device, &[0; 4]));
    let params = Params { input: input.address(), output: output.address(), n: 1024, unused: 0 };
    device
        .launch("selftest_sum", Grid { blocks: [4, 1, 1], threads: 256, shared_bytes: 0 }, &params)
        .unwrap();
    let mut sums = [0; 4];
    output.download(0, &mut sums).unwrap();
    let expected = [0, 1, 2, 3].map(|block: u16| (0..256).map(|i| f32::from(256 * block + i)).sum::<f32>());
    assert_eq!(sums.map(f32::from_bits), expected);
}
