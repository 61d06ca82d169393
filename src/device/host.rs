//! The host's own memory as a device.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use bytemuck::Pod;

use super::{Buffer, Device, DeviceError, MemoryInfo, REGION_ALIGNMENT, Region, STAGING_BYTES};

/// Host memory, reserved at once and committed by the system page by page as it is touched.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDevice;

/// An owned piece of host memory.
#[derive(Debug)]
pub struct HostAllocation {
    /// What the allocator gave, to be given back.
    block: NonNull<u8>,
    layout: Layout,
    /// The first byte of `block` that is aligned to [`REGION_ALIGNMENT`].
    start: NonNull<u8>,
}

// SAFETY: the block is plain memory owned by this value alone; which thread reads or frees it does not matter.
unsafe impl Send for HostAllocation {}
// SAFETY: all access goes through `Region`, whose `&`/`&mut` follow Rust's aliasing rules.
unsafe impl Sync for HostAllocation {}

impl HostAllocation {
    /// Zeroed bytes, aligned to [`REGION_ALIGNMENT`]; `None` where the system has none left.
    pub(super) fn zeroed(bytes: u64) -> Option<Self> {
        // The allocator zeroes lazily only at its own alignment; the rest is found inside a slightly larger block.
        let padded = usize::try_from(bytes.checked_add(REGION_ALIGNMENT)?).ok()?;
        let layout = Layout::from_size_align(padded, 16).ok()?;
        // SAFETY: the layout's size is at least REGION_ALIGNMENT, so it is not zero.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = block.as_ptr().align_offset(REGION_ALIGNMENT as usize);
        // SAFETY: `skip` is less than REGION_ALIGNMENT, and the block is that much longer than `bytes`.
        let start = unsafe { block.add(skip) };
        Some(Self { block, layout, start })
    }
    /// The first of the bytes that were asked for.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
    /// How many bytes there are from `start` on, padding included.
    #[cfg(feature = "emulator")]
    pub(super) fn bytes_to_end(&self) -> usize {
        self.layout.size() - (self.start.as_ptr() as usize - self.block.as_ptr() as usize)
    }
}

impl Drop for HostAllocation {
    fn drop(&mut self) {
        // SAFETY: `block` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.block.as_ptr(), self.layout) }
    }
}

impl Device for HostDevice {
    type Allocation = HostAllocation;

    fn name(&self) -> String {
        "cpu".to_owned()
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>, DeviceError> {
        Ok(system_memory())
    }

    fn allocate(&self, bytes: u64) -> Result<HostAllocation, DeviceError> {
        let available = system_memory().map_or(u64::MAX, |info| info.available);
        let refused = || DeviceError::OutOfMemory { device: self.name(), requested: bytes, available };
        if bytes > available {
            return Err(refused());
        }
        HostAllocation::zeroed(bytes).ok_or_else(refused)
    }

    fn address(&self, allocation: &HostAllocation) -> u64 {
        allocation.start() as u64
    }

    fn upload(&self, bytes: &[u8], into: &mut Region<Self>, offset: u64) -> Result<(), DeviceError> {
        let offset = offset as usize;
        into.as_mut_slice()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn fill<E: From<DeviceError>>(
        &self,
        into: &mut Region<Self>,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (i, piece) in into.as_mut_slice().chunks_mut(STAGING_BYTES as usize).enumerate() {
            read(i as u64 * STAGING_BYTES, piece)?;
        }
        Ok(())
    }

    fn download(&self, from: &Region<Self>, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let offset = offset as usize;
        into.copy_from_slice(&from.as_slice()[offset..offset + into.len()]);
        Ok(())
    }
}

impl Region<HostDevice> {
    fn first_byte(&self) -> *mut u8 {
        // SAFETY: offset and length lie within the allocation: `split_off` only divides it.
        unsafe { self.allocation().start().add(self.offset() as usize) }
    }
    /// The region's bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are initialised (zeroed), and regions are disjoint, so `&self` excludes writers of them.
        unsafe { std::slice::from_raw_parts(self.first_byte(), self.bytes() as usize) }
    }
    /// The region's bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes this the only access to these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.first_byte(), self.bytes() as usize) }
    }
}

impl<T: Pod> Buffer<HostDevice, T> {
    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.region().as_slice()[..self.len() * size_of::<T>()])
    }
    /// The elements.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let bytes = self.len() * size_of::<T>();
        bytemuck::cast_slice_mut(&mut self.region_mut().as_mut_slice()[..bytes])
    }
}

/// What `/proc/meminfo` says; `None` on systems without it.
pub(super) fn system_memory() -> Option<MemoryInfo> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(MemoryInfo { available: field("MemAvailable:")?, total: field("MemTotal:")? })
}
