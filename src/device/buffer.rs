//! Owned, disjoint ranges of device memory.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;

use super::{Device, DeviceError, REGION_ALIGNMENT};

static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Bytes of device memory that this process holds now, on all devices.
pub fn allocated_bytes() -> u64 {
    LIVE_BYTES.load(Ordering::SeqCst)
}

/// How many allocations of device memory this process has made.
pub fn allocations_made() -> u64 {
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// An allocation that is counted while it lives.
struct Counted<D: Device> {
    allocation: D::Allocation,
    bytes: u64,
}

impl<D: Device> Drop for Counted<D> {
    fn drop(&mut self) {
        LIVE_BYTES.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// An owned range of one allocation. It can be split but never copied, so no two regions overlap.
pub struct Region<D: Device> {
    device: D,
    allocation: Arc<Counted<D>>,
    offset: u64,
    bytes: u64,
}

impl<D: Device> Region<D> {
    /// A whole new allocation of `bytes` bytes, zeroed.
    pub fn allocate(device: &D, bytes: u64) -> Result<Self, DeviceError> {
        let allocation = device.allocate(bytes)?;
        LIVE_BYTES.fetch_add(bytes, Ordering::SeqCst);
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        let allocation = Arc::new(Counted { allocation, bytes });
        Ok(Self { device: device.clone(), allocation, offset: 0, bytes })
    }
    /// Takes the first `bytes` bytes (rounded up to [`REGION_ALIGNMENT`]) off this region; the rest stays.
    pub fn split_off(&mut self, bytes: u64) -> Result<Self, DeviceError> {
        let step = bytes.checked_next_multiple_of(REGION_ALIGNMENT).filter(|&step| step <= self.bytes);
        let Some(step) = step else {
            return Err(DeviceError::RegionExhausted { requested: bytes, available: self.bytes });
        };
        let first = Self {
            device: self.device.clone(),
            allocation: Arc::clone(&self.allocation),
            offset: self.offset,
            bytes,
        };
        self.offset += step;
        self.bytes -= step;
        Ok(first)
    }
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Address of the first byte, as kernels see it.
    pub fn address(&self) -> u64 {
        self.device.address(&self.allocation.allocation) + self.offset
    }
    /// The device that the memory belongs to.
    pub fn device(&self) -> &D {
        &self.device
    }
    pub(super) fn allocation(&self) -> &D::Allocation {
        &self.allocation.allocation
    }
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
    /// Copies bytes into the region, from byte `offset` on.
    pub fn upload(&mut self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.check(offset, bytes.len() as u64)?;
        let device = self.device.clone();
        device.upload(bytes, self, offset)
    }
    /// Copies bytes out of the region, from byte `offset` on.
    pub fn download(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.check(offset, into.len() as u64)?;
        self.device.download(self, offset, into)
    }
    pub(super) fn check(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(DeviceError::CopyOutOfRange { offset, bytes, region: self.bytes }),
        }
    }
    /// The region read as elements; bytes past the last whole element are left unused.
    pub fn typed<T: Pod>(self) -> Buffer<D, T> {
        Buffer { region: self, element: PhantomData }
    }
}

impl<D: Device> std::fmt::Debug for Region<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} bytes at {:#x} on {})", self.bytes, self.address(), self.device.name())
    }
}

/// A region read as elements of type `T`.
pub struct Buffer<D: Device, T: Pod> {
    region: Region<D>,
    element: PhantomData<T>,
}

impl<D: Device, T: Pod> Buffer<D, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.region.bytes() as usize / size_of::<T>()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Address of the first element, as kernels see it.
    pub fn address(&self) -> u64 {
        self.region.address()
    }
    /// The bytes behind the elements.
    pub fn region(&self) -> &Region<D> {
        &self.region
    }
    /// The bytes behind the elements.
    pub fn region_mut(&mut self) -> &mut Region<D> {
        &mut self.region
    }
    /// Copies elements into the buffer, from element `offset` on.
    pub fn upload(&mut self, elements: &[T], offset: usize) -> Result<(), DeviceError> {
        self.region.upload(bytemuck::cast_slice(elements), (offset * size_of::<T>()) as u64)
    }
    /// Copies elements out of the buffer, from element `offset` on.
    pub fn download(&self, offset: usize, into: &mut [T]) -> Result<(), DeviceError> {
        self.region.download((offset * size_of::<T>()) as u64, bytemuck::cast_slice_mut(into))
    }
}

impl<D: Device, T: Pod> std::fmt::Debug for Buffer<D, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer of {} elements in {:?}", self.len(), self.region)
    }
}
