//! The emulator: what kernels compute on it, what it finds in kernels that are wrong, and what it is as a device.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used)]

use bytemuck::NoUninit;
use half::f16;
use worker_orcd::device::{
    Buffer, Device, DeviceError, EmulatorDevice, EmulatorOptions, Grid, Launch, Region, kernel_names,
    launched_kernels,
};

/// The sanitizers that the kernels were compiled with.
const SANITIZERS: Option<&str> = option_env!("WORKER_ORCD_SANITIZE");

/// `SelftestParams` of `kernels/emulator/selftest.cu`.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct Params {
    input: u64,
    output: u64,
    n: u32,
    unused: u32,
}

fn device(options: EmulatorOptions) -> EmulatorDevice {
    EmulatorDevice::new(options).unwrap()
}

/// One thread, so that the seed alone makes the order.
fn shuffled(seed: u64) -> EmulatorDevice {
    device(EmulatorOptions { shuffle: Some(seed), n_threads: Some(1), ..EmulatorOptions::default() })
}

fn poisoned(poison: bool) -> EmulatorDevice {
    device(EmulatorOptions { poison, ..EmulatorOptions::default() })
}

fn buffer(device: &EmulatorDevice, values: &[u32]) -> Buffer<EmulatorDevice, u32> {
    let mut buffer = Region::allocate(device, 4 * values.len() as u64).unwrap().typed();
    buffer.upload(values, 0).unwrap();
    buffer
}

fn grid(threads: u32) -> Grid {
    Grid { blocks: [1; 3], threads, shared_bytes: 0 }
}

/// What a self-test kernel writes: `n_out` words, zeros before.
fn run(
    device: &EmulatorDevice,
    kernel: &'static str,
    grid: Grid,
    input: &[u32],
    n: u32,
    n_out: usize,
) -> Result<Vec<u32>, DeviceError> {
    let (input, output) = (buffer(device, input), buffer(device, &vec![0; n_out]));
    let params = Params { input: input.address(), output: output.address(), n, unused: 0 };
    device.launch(kernel, grid, &params)?;
    let mut words = vec![0; n_out];
    output.download(0, &mut words)?;
    Ok(words)
}

fn cause(result: Result<Vec<u32>, DeviceError>) -> (String, bool) {
    match result {
        Err(DeviceError::Kernel { cause, fatal, .. }) => (cause, fatal),
        other => panic!("a kernel's failure expected, not {other:?}"),
    }
}

/// Words that are all different.
fn counted(n: u32) -> Vec<u32> {
    (0..n).map(|i| i.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995).collect()
}

// ---- what is right

#[test]
fn atomics_of_many_blocks_lose_nothing() {
    const BLOCKS: u32 = 500;
    let values = counted(32 * BLOCKS);
    let grid = Grid { blocks: [BLOCKS, 1, 1], ..grid(32) };
    let out = run(&EmulatorDevice::default(), "selftest_atomics", grid, &values, 0, 6).unwrap();
    let wide = |at: usize| u64::from(out[at + 1]) << 32 | u64::from(out[at]);
    let sum: u64 = values.iter().copied().map(u64::from).sum();
    let largest = values.iter().copied().map(u64::from).max().unwrap();
    assert_eq!((u64::from(out[0]), wide(2), wide(4)), (sum & 0xffff_ffff, sum << 16, largest << 16));
}

#[test]
fn a_block_reduction_is_right_in_any_order() {
    let values: Vec<u32> = (0..1024u16).map(|i| f32::from(i).to_bits()).collect();
    let expected = [0, 1, 2, 3].map(|block: u16| (0..256).map(|i| f32::from(256 * block + i)).sum::<f32>());
    for device in [poisoned(true), shuffled(1), shuffled(2)] {
        let sums =
            run(&device, "selftest_sum", Grid { blocks: [4, 1, 1], ..grid(256) }, &values, 0, 4).unwrap();
        assert_eq!(sums, expected.map(f32::to_bits));
    }
}

#[test]
fn lanes_exchange_values() {
    let values = counted(64);
    for (device, n) in [(shuffled(3), 1), (shuffled(4), 5), (poisoned(false), 31)] {
        let out = run(&device, "selftest_shuffles", grid(64), &values, n, 128).unwrap();
        for thread in 0..64 {
            let warp = thread / 32 * 32;
            assert_eq!(out[thread], values[thread ^ n as usize]);
            assert_eq!(out[64 + thread], values[warp + (thread % 32 + n as usize) % 32]);
        }
    }
}

#[test]
fn products_are_those_of_three_loops() {
    let words: Vec<u32> = counted(24 * 8);
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    type Reading = fn(u8) -> i32;
    let product = |k: usize, a_of: Reading, b_of: Reading| -> Vec<i32> {
        let element = |row: usize, column: usize| -> i32 {
            (0..k).map(|i| a_of(bytes[row * 32 + i]) * b_of(bytes[(16 + column) * 32 + i])).sum()
        };
        (0..128).map(|i| element(i / 8, i % 8)).collect()
    };
    let (signed, unsigned): (Reading, Reading) = (|byte| i32::from(byte.cast_signed()), i32::from);
    let kinds = [
        (32, unsigned, signed),
        (32, signed, signed),
        (16, signed, signed),
        (16, unsigned, signed),
        (16, unsigned, unsigned),
    ];
    let twice = product(32, signed, signed).into_iter().map(|sum| 2 * sum).collect();
    let products = kinds.map(|(k, a_of, b_of)| product(k, a_of, b_of));
    let expected = [products.concat(), twice].concat();
    for device in [poisoned(true), shuffled(5)] {
        let out = run(&device, "selftest_products", grid(32), &words, 0, 768).unwrap();
        assert_eq!(bytemuck::cast_slice::<u32, i32>(&out), expected);
    }
}

/// A `Fault` of `kernels/emulator/selftest.cu`, by number.
fn warpgroup(device: &EmulatorDevice, fault: u32) -> Result<Vec<u32>, DeviceError> {
    run(device, "selftest_warpgroup", grid(128), &counted(192 * 8), fault, 2 * 64 * 128)
}

#[test]
fn products_of_warpgroups_are_those_of_three_loops() {
    let words: Vec<u32> = counted(192 * 8);
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let signed = |byte: u8| i32::from(byte.cast_signed());
    let product = |a_of: &dyn Fn(u8) -> i32| -> Vec<i32> {
        let element = |row: usize, column: usize| -> i32 {
            (0..32).map(|i| a_of(bytes[row * 32 + i]) * signed(bytes[(64 + column) * 32 + i])).sum()
        };
        (0..64 * 128).map(|i| element(i / 128, i % 128)).collect()
    };
    let expected = [product(&|byte| i32::from(byte)), product(&|byte| 2 * signed(byte))].concat();
    for device in [poisoned(true), shuffled(6), shuffled(7)] {
        let out = warpgroup(&device, 0).unwrap();
        assert_eq!(bytemuck::cast_slice::<u32, i32>(&out), expected);
    }
    // A wrong descriptor, and what is overwritten before the wait, change results; what is read before it is not there.
    assert_ne!(warpgroup(&poisoned(false), 1).unwrap(), warpgroup(&poisoned(false), 0).unwrap());
    assert_eq!(warpgroup(&poisoned(false), 2).unwrap()[..128], [u32::MAX; 128]);
    assert_ne!(warpgroup(&poisoned(false), 3).unwrap(), warpgroup(&poisoned(false), 0).unwrap());
}

#[test]
fn a_ring_of_bulk_copies_delivers_every_stage() {
    let input = counted(4 * 96);
    for device in [poisoned(true), shuffled(1), shuffled(2), shuffled(3)] {
        assert_eq!(run(&device, "selftest_ring", grid(128), &input, 0, 4 * 96).unwrap(), input);
    }
}

#[test]
fn halves_are_those_of_the_half_crate() {
    // Every half's neighbourhood: the half itself, the ties around it and what is next to a tie.
    let near = |half: u16| {
        let bits = f16::from_bits(half).to_f32().to_bits();
        let offsets = [0, 0xfff, 0x1000, 0x1001];
        offsets.map(|offset| bits.wrapping_add(offset))
    };
    for part in 0..4 {
        let input: Vec<u32> = (0..=u16::MAX).map(|half| near(half)[part]).collect();
        let out = run(&poisoned(false), "selftest_halves", grid(1024), &input, 1 << 16, 2 << 16).unwrap();
        for half in 0..=u16::MAX {
            let (wide, narrow) = (f32::from_bits(out[usize::from(half)]), out[(1 << 16) + usize::from(half)]);
            let expected = f16::from_bits(half).to_f32();
            assert!(wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan(), "{half:#x}");
            let value = f32::from_bits(input[usize::from(half)]);
            let expected = f16::from_f32(value);
            let is_nan = expected.is_nan() && narrow & 0x7fff > 0x7c00;
            assert!(is_nan || narrow == u32::from(expected.to_bits()), "{value:e} became {narrow:#x}");
        }
    }
}

#[test]
fn subnormal_halves_are_rounded_to_even() {
    let values: Vec<f32> = (0..1 << 14).map(|i| (i as f32 - 8192.0) * (0.125 / 16_777_216.0)).collect();
    let input: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
    let out = run(&poisoned(false), "selftest_halves", grid(1024), &input, 1 << 14, 2 << 14).unwrap();
    for (value, half) in values.iter().zip(&out[1 << 14..]) {
        assert_eq!(*half, u32::from(f16::from_f32(*value).to_bits()), "{value:e}");
    }
}

#[test]
fn copies_are_there_once_waited_for() {
    let input = counted(512);
    let out = |kernel| run(&poisoned(false), kernel, grid(64), &input, 0, 512).unwrap();
    assert_eq!(out("selftest_copies"), input);
    let first_group = out("selftest_copies_of_one_group");
    assert_eq!(first_group[..256], input[..256]);
    assert_eq!(first_group[256..], [0; 256]);
    assert_eq!(out("selftest_copies_without_wait"), [0; 512]);
}

// ---- what is wrong

#[test]
fn a_race_within_a_block_changes_results() {
    for kernel in ["selftest_race", "selftest_race_of_copies"] {
        let [first, again, other] =
            [1, 1, 2].map(|seed| run(&shuffled(seed), kernel, grid(64), &counted(64), 0, 64).unwrap());
        assert_ne!(first, other, "{kernel}");
        assert_eq!(first, again, "a seed repeats its order");
    }
}

#[test]
fn a_race_between_blocks_changes_results() {
    let winner = |seed| {
        let many = Grid { blocks: [100, 1, 1], ..grid(32) };
        run(&shuffled(seed), "selftest_race_of_blocks", many, &[0], 0, 1).unwrap()[0]
    };
    let winners: Vec<u32> = (0..4).map(winner).collect();
    assert!(winners.iter().any(|&block| block != winners[0]), "{winners:?}");
}

#[test]
fn unwritten_memory_changes_results() {
    let dynamic = Grid { shared_bytes: 64, ..grid(64) };
    for (kernel, grid) in [("selftest_unwritten", grid(64)), ("selftest_unwritten_dynamic", dynamic)] {
        let outs = [false, true].map(|poison| run(&poisoned(poison), kernel, grid, &[0], 0, 64).unwrap());
        assert_ne!(outs[0], outs[1], "{kernel}");
    }
    for (poison, expected) in [(false, 0.0), (true, f32::NAN)] {
        let mut value = [1.0f32];
        Region::allocate(&poisoned(poison), 4).unwrap().typed().download(0, &mut value).unwrap();
        assert_eq!(value[0].is_nan(), f32::is_nan(expected));
    }
}

#[test]
fn what_some_threads_miss_is_an_error() {
    for (kernel, threads, expected) in [
        ("selftest_barrier_of_some", 64, "__syncthreads reached by 40 of 64 threads, 24 have returned"),
        (
            "selftest_shuffle_of_some",
            32,
            "a shuffle reached by 10 of the 32 lanes of warp 0; 22 of 32 threads wait",
        ),
        ("selftest_meetings", 32, "other lanes of its warp to"),
        ("selftest_copy_unaligned", 32, "no multiples of 16"),
    ] {
        let n = if threads == 64 { 40 } else { 10 };
        for device in [shuffled(9), poisoned(false)] {
            let (cause, fatal) = cause(run(&device, kernel, grid(threads), &[0; 4], n, 64));
            assert!(cause.contains(expected) && cause.starts_with("block (0, 0, 0), thread "), "{cause}");
            assert!(fatal);
        }
    }
}

#[test]
fn what_a_warpgroup_or_a_barrier_cannot_do_is_an_error() {
    for (kernel, fault, expected) in [
        ("selftest_warpgroup", 4, "multiplies without begin_products()"),
        ("selftest_warpgroup", 5, "which are no shared memory"),
        ("selftest_warpgroup", 6, "swizzled order"),
        ("selftest_warpgroup", 7, "a wait for products reached by 127 of the 128 threads of warpgroup 0"),
        ("selftest_warpgroup", 8, "returns while products are under way"),
        ("selftest_ring", 1, "threads wait at barriers in shared memory for a phase that does not end"),
        ("selftest_ring", 2, "threads wait at barriers in shared memory for a phase that does not end"),
        ("selftest_ring", 3, "threads wait at barriers in shared memory for a phase that does not end"),
        ("selftest_ring", 4, "something is no multiple of 16"),
        ("selftest_ring", 5, "for which none is missing"),
    ] {
        let (cause, fatal) =
            cause(run(&poisoned(false), kernel, grid(128), &counted(192 * 8), fault, 2 * 64 * 128));
        assert!(cause.contains(expected) && fatal, "{kernel} {fault}: {cause}");
    }
}

#[test]
fn a_device_whose_kernel_failed_runs_no_other() {
    let device = EmulatorDevice::default();
    assert!(run(&device, "selftest_barrier_of_some", grid(64), &[0], 1, 64).is_err());
    let (cause, fatal) = cause(run(&device, "selftest_race", grid(32), &[0; 32], 0, 32));
    assert!(cause.contains("failed before it") && fatal, "{cause}");
    // Another device runs on the same threads, with stacks that were abandoned.
    run(&EmulatorDevice::default(), "selftest_shuffles", grid(64), &counted(64), 1, 128).unwrap();
}

/// Runs itself again in processes that the address sanitizer ends.
#[test]
fn a_read_past_memory_is_found() {
    const NAME: &str = "a_read_past_memory_is_found";
    let past_shared = |n| {
        let grid = Grid { shared_bytes: 100, ..grid(32) };
        run(&poisoned(true), "selftest_read_shared", grid, &[0], n, 32).unwrap()
    };
    let past_global = |n| run(&poisoned(true), "selftest_read_global", grid(32), &[7; 3], n, 32).unwrap();
    match std::env::var(NAME).as_deref() {
        Ok("selftest_read_shared") => return drop(past_shared(100)),
        Ok(_) => return drop(past_global(3)),
        Err(_) => assert_eq!((past_shared(99)[0], past_global(2)[0]), (0xff, 7)),
    }
    if !SANITIZERS.is_some_and(|sanitizers| sanitizers.contains("address")) {
        eprintln!("skipped: the kernels were compiled without the address sanitizer (scripts/sanitize)");
        return;
    }
    let itself = std::env::current_exe().unwrap();
    for kernel in ["selftest_read_shared", "selftest_read_global"] {
        let mut command = std::process::Command::new(&itself);
        let output = command.args(["--exact", NAME, "--nocapture"]).env(NAME, kernel).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(text.contains("ERROR: AddressSanitizer") && text.contains(kernel), "{text}");
    }
}

// ---- the device

#[test]
fn launches_that_a_gpu_refuses_are_refused() {
    let device = EmulatorDevice::default();
    let most = grid(32);
    for (grid, expected) in [
        (Grid { blocks: [0, 1, 1], ..most }, "a grid of [0, 1, 1]"),
        (Grid { blocks: [1 << 31, 1, 1], ..most }, "a grid of"),
        (Grid { blocks: [1, 65536, 1], ..most }, "a grid of"),
        (Grid { blocks: [1, 1, 65536], ..most }, "a grid of"),
        (grid(0), "blocks of 0 threads"),
        (grid(48), "blocks of 48 threads"),
        (grid(64), "multiples of 32 up to 32"),
        (Grid { shared_bytes: (227 << 10) + 1, ..most }, "232449 bytes of shared memory; up to 232448"),
    ] {
        let (cause, fatal) = cause(run(&device, "selftest_read_shared", grid, &[0], 0, 32));
        assert!(cause.contains(expected) && !fatal, "{cause}");
    }
    let (unknown, _) = cause(run(&device, "selftest_of_nothing", most, &[0], 0, 1));
    assert!(unknown.contains("no such kernel"), "{unknown}");
    let Err(DeviceError::Kernel { cause, .. }) = device.launch("selftest_read_shared", most, &[0u64; 4])
    else {
        panic!("32 bytes were taken for 24")
    };
    assert_eq!(cause, "parameters of 32 bytes, 24 expected");
    assert_eq!(device.launches(), 0);
    run(&device, "selftest_read_shared", Grid { shared_bytes: 227 << 10, ..most }, &[0], 0, 32).unwrap();
    assert_eq!((device.launches(), device.copies()), (1, 21));
}

#[test]
fn what_fills_and_streams_take_is_counted() {
    let device = EmulatorDevice::default();
    let mut region = Region::allocate(&device, 3000).unwrap();
    let read = |offset: u64, piece: &mut [u8]| {
        piece.fill(offset as u8);
        Ok::<_, DeviceError>(())
    };
    device.fill(&mut region, read).unwrap();
    let filled = device.take_transfers().unwrap();
    assert_eq!((filled.copied_bytes, filled.worked_bytes), (3000, 0));
    assert!(!filled.copy.is_zero() && filled.work.is_zero());

    let mut pieces = Vec::new();
    let arrived = |address: u64, offset: u64, length: u64| {
        pieces.push((address, offset, length));
        Ok(())
    };
    device.stream(&mut region, 7000, 1500, read, arrived).unwrap();
    let (low, high) = (region.address(), region.address() + 1500);
    let expected =
        [(low, 0, 1500), (high, 1500, 1500), (low, 3000, 1500), (high, 4500, 1500), (low, 6000, 1000)];
    assert_eq!(pieces, expected);
    let streamed = device.take_transfers().unwrap();
    assert_eq!((streamed.copied_bytes, streamed.worked_bytes), (7000, 7000));
    assert_eq!(device.take_transfers().unwrap().copied_bytes, 0, "they were taken");
}

#[test]
fn memory_ends_where_it_is_said_to() {
    let device = device(EmulatorOptions { capacity: Some(1000), ..EmulatorOptions::default() });
    let first = Region::allocate(&device, 600).unwrap();
    let info = device.memory_info().unwrap().unwrap();
    assert_eq!((info.available, info.total), (400, 1000));
    let Err(DeviceError::OutOfMemory { requested: 401, available: 400, .. }) = Region::allocate(&device, 401)
    else {
        panic!("401 of 400 bytes were given")
    };
    drop(first);
    Region::allocate(&device, 1000).unwrap();
    let unlimited = EmulatorDevice::default();
    assert!(Region::allocate(&unlimited, u64::MAX).is_err());
}

#[test]
fn one_allocation_fails_where_asked() {
    let device = device(EmulatorOptions { fail_allocation: Some(1), ..EmulatorOptions::default() });
    let outcomes = [8, 8, 8].map(|bytes| Region::allocate(&device, bytes).is_ok());
    assert_eq!(outcomes, [true, false, true]);
}

#[test]
fn copies_stay_inside_their_region() {
    let device = EmulatorDevice::default();
    let mut region = Region::allocate(&device, 16).unwrap();
    assert!(device.upload(&[0; 8], &mut region, 9).is_err());
    assert!(device.download(&region, 17, &mut []).is_err());
}

#[test]
fn kernels_are_listed_and_counted() {
    assert!(kernel_names().all(|name| !name.starts_with("selftest_")));
    run(&EmulatorDevice::default(), "selftest_race", grid(32), &[0; 32], 0, 32).unwrap();
    assert!(launched_kernels().contains(&"selftest_race"));
}
