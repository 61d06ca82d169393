//! The kernels on the host, compiled as C++: a fiber for each of a block's threads, blocks over the system's threads.
//! It is there to prove kernels where there is no GPU, and to show what a GPU hides: races, unwritten memory, barriers
//! that not all threads reach. Kernels get plain addresses, and like on a GPU nothing checks them.
#![allow(unsafe_code)]

mod kernels;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::NoUninit;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::host::{HostAllocation, system_memory};
use super::launch::wants_warpgroups;
use super::{Device, DeviceError, Grid, Launch, MemoryInfo, Region, Transfers};

#[cfg(test)]
pub(crate) use kernels::layouts;
use kernels::{Call, Kernel};

/// Shared memory that a block can have: what an H100 has.
const MAX_SHARED_BYTES: u32 = 227 << 10;
/// What kernels are told of the device's size: so few that a block has to take several parts of a small product.
const MULTIPROCESSORS: usize = 3;
/// Threads of a block.
const MAX_THREADS: u32 = 1024;
/// Blocks in x, y and z.
const MAX_BLOCKS: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// What unwritten memory holds where asked for: not a number as any float, -1 as any integer.
const POISON: u8 = 0xff;
/// How the kernels of the emulator's own tests begin.
const SELFTEST: &str = "selftest_";

static LAUNCHED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// How an emulated device behaves.
#[derive(Debug, Clone, Default)]
pub struct EmulatorOptions {
    /// Bytes of memory; else what the system has.
    pub capacity: Option<u64>,
    /// Runs blocks, and the warps and lanes of a block, in an order drawn from this seed: a race changes results.
    pub shuffle: Option<u64>,
    /// Fills new allocations (which other devices promise to be zero) and shared memory with 0xff: what reads memory
    /// that nothing wrote changes results.
    pub poison: bool,
    /// Threads that run blocks; else all of the system's.
    pub n_threads: Option<usize>,
    /// Refuses one allocation: 0 for the first.
    pub fail_allocation: Option<u64>,
    /// Has the kernels with products of warpgroups used.
    pub warpgroups: bool,
}

impl EmulatorOptions {
    /// Those that the environment asks for: products of warpgroups with `WORKER_ORCD_WGMMA=1`.
    pub fn asked_for() -> Self {
        Self { warpgroups: wants_warpgroups(), ..Self::default() }
    }
}

/// A device that runs the kernels on the host. Clones are the same device.
#[derive(Debug, Clone, Default)]
pub struct EmulatorDevice {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    options: EmulatorOptions,
    /// Where the number of threads is chosen.
    pool: Option<rayon::ThreadPool>,
    memory: Mutex<Memory>,
    copies: AtomicU64,
    launches: AtomicU64,
    transfers: Mutex<Transfers>,
    /// A kernel failed while it ran.
    is_lost: AtomicBool,
}

#[derive(Debug, Default)]
struct Memory {
    used: u64,
    allocations: u64,
}

/// An owned piece of an emulated device's memory.
#[derive(Debug)]
pub struct EmulatorAllocation {
    memory: HostAllocation,
    bytes: u64,
    device: EmulatorDevice,
}

impl Drop for EmulatorAllocation {
    fn drop(&mut self) {
        self.device.memory().used -= self.bytes;
    }
}

/// The name of every kernel there is.
pub fn kernel_names() -> impl Iterator<Item = &'static str> {
    kernels::all().iter().map(|kernel| kernel.name()).filter(|name| !name.starts_with(SELFTEST))
}

/// The names of the kernels that this process has launched on an emulated device.
pub fn launched_kernels() -> Vec<&'static str> {
    LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
}

impl EmulatorDevice {
    /// A device that behaves so.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn new(options: EmulatorOptions) -> Result<Self, DeviceError> {
        let build = |n_threads| rayon::ThreadPoolBuilder::new().num_threads(n_threads).build();
        let pool = options.n_threads.map(build).transpose().map_err(|e| DeviceError::Driver {
            device: "emulator".to_owned(),
            what: "starting threads",
            cause: e.to_string(),
            fatal: false,
        })?;
        Ok(Self { state: Arc::new(State { options, pool, ..State::default() }) })
    }
    /// Copies between host and device so far.
    pub fn copies(&self) -> u64 {
        self.state.copies.load(Ordering::Relaxed)
    }
    /// Kernels launched so far.
    pub fn launches(&self) -> u64 {
        self.state.launches.load(Ordering::Relaxed)
    }
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.state.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What there is, given what is used.
    fn info(&self, memory: &Memory) -> Option<MemoryInfo> {
        match self.state.options.capacity {
            Some(total) => Some(MemoryInfo { available: total.saturating_sub(memory.used), total }),
            None => system_memory(),
        }
    }
    /// The address of a piece of a region.
    fn piece(&self, region: &Region<Self>, offset: u64, bytes: usize) -> Result<*mut u8, DeviceError> {
        region.check(offset, bytes as u64)?;
        self.state.copies.fetch_add(1, Ordering::Relaxed);
        let offset = (region.offset() + offset) as usize;
        // SAFETY: the region lies within its allocation, and the piece within the region.
        Ok(unsafe { region.allocation().memory.start().add(offset) })
    }
    /// Runs every block.
    fn run(&self, call: &Call<'_>, blocks: [u32; 3]) -> Result<(), String> {
        let [x, y, z] = blocks.map(u64::from);
        let run = |number: u64| call.run([number % x, number / x % y, number / x / y].map(|i| i as u32));
        match self.state.options.shuffle {
            None => (0..x * y * z).into_par_iter().try_for_each(run),
            Some(seed) => permuted(x * y * z, seed).into_par_iter().try_for_each(run),
        }
    }
}

/// The numbers below `count` in an order drawn from `seed`.
fn permuted(count: u64, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut numbers: Vec<u64> = (0..count).collect();
    for i in (1..numbers.len()).rev() {
        // Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(i, (state >> 33) as usize % (i + 1));
    }
    numbers
}

/// What of the geometry is more than a GPU or the kernel has.
fn refusal(kernel: &Kernel, grid: Grid) -> Option<String> {
    let Grid { blocks, threads, shared_bytes } = grid;
    if blocks.iter().zip(MAX_BLOCKS).any(|(&n, most)| n == 0 || n > most) {
        return Some(format!("a grid of {blocks:?} blocks; 1 to {MAX_BLOCKS:?} are possible"));
    }
    if threads == 0 || !threads.is_multiple_of(32) || threads > kernel.max_threads.min(MAX_THREADS) {
        let most = kernel.max_threads;
        return Some(format!("blocks of {threads} threads; multiples of 32 up to {most} are possible"));
    }
    (shared_bytes > MAX_SHARED_BYTES)
        .then(|| format!("{shared_bytes} bytes of shared memory; up to {MAX_SHARED_BYTES} are possible"))
}

impl Device for EmulatorDevice {
    type Allocation = EmulatorAllocation;

    fn name(&self) -> String {
        "emulator".to_owned()
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>, DeviceError> {
        Ok(self.info(&self.memory()))
    }

    fn allocate(&self, bytes: u64) -> Result<EmulatorAllocation, DeviceError> {
        let mut memory = self.memory();
        let available = self.info(&memory).map_or(u64::MAX, |info| info.available);
        let refused = || DeviceError::OutOfMemory { device: self.name(), requested: bytes, available };
        let number = memory.allocations;
        memory.allocations += 1;
        if bytes > available || self.state.options.fail_allocation == Some(number) {
            return Err(refused());
        }
        let block = HostAllocation::zeroed(bytes).ok_or_else(refused)?;
        if self.state.options.poison {
            // SAFETY: the block is `bytes` long, and nobody else knows it yet.
            unsafe { block.start().write_bytes(POISON, bytes as usize) }
        }
        kernels::forbid_padding(&block, bytes as usize);
        memory.used += bytes;
        Ok(EmulatorAllocation { memory: block, bytes, device: self.clone() })
    }

    fn address(&self, allocation: &EmulatorAllocation) -> u64 {
        allocation.memory.start() as u64
    }

    fn upload(&self, bytes: &[u8], into: &mut Region<Self>, offset: u64) -> Result<(), DeviceError> {
        let to = self.piece(into, offset, bytes.len())?;
        // SAFETY: `piece` checked the length; the region is borrowed for writing, and launches have ended.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        Ok(())
    }

    fn download(&self, from: &Region<Self>, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let from = self.piece(from, offset, into.len())?;
        // SAFETY: `piece` checked the length; the bytes are initialised, and launches have ended.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
        Ok(())
    }

    fn count(&self, transfers: Transfers) {
        *self.state.transfers.lock().unwrap_or_else(PoisonError::into_inner) += transfers;
    }

    fn take_transfers(&self) -> Result<Transfers, DeviceError> {
        let mut transfers = self.state.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *transfers))
    }
}

impl Launch for EmulatorDevice {
    type Graph = Infallible;

    fn multiprocessors(&self) -> usize {
        MULTIPROCESSORS
    }

    fn has_warpgroups(&self) -> bool {
        self.state.options.warpgroups
    }

    fn launch<P: NoUninit>(&self, kernel: &'static str, grid: Grid, params: &P) -> Result<(), DeviceError> {
        let failed = |cause, fatal| Err(DeviceError::Kernel { device: self.name(), kernel, cause, fatal });
        if self.state.is_lost.load(Ordering::Relaxed) {
            return failed("a kernel failed before it".to_owned(), true);
        }
        let Some(found) = kernels::all().iter().find(|found| found.name() == kernel) else {
            return failed("there is no such kernel".to_owned(), false);
        };
        let options = &self.state.options;
        let Some(call) = Call::new(found, grid, params, options.shuffle, options.poison) else {
            let expected = found.params_bytes;
            return failed(format!("parameters of {} bytes, {expected} expected", size_of::<P>()), false);
        };
        if let Some(cause) = refusal(found, grid) {
            return failed(cause, false);
        }
        self.state.launches.fetch_add(1, Ordering::Relaxed);
        LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(kernel);
        let run = || self.run(&call, grid.blocks);
        let result = self.state.pool.as_ref().map_or_else(run, |pool| pool.install(run));
        result.or_else(|cause| {
            self.state.is_lost.store(true, Ordering::Relaxed);
            failed(cause, true)
        })
    }

    fn record<E: From<DeviceError>>(
        &self,
        _record: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Infallible>, E> {
        Ok(None)
    }

    fn replay(&self, graph: &Infallible) -> Result<(), DeviceError> {
        match *graph {}
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
