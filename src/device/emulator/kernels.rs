//! The compiled kernels, and running a block of one: the C++ side is `kernels/emulator`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;

use bytemuck::NoUninit;

use crate::device::Grid;
use crate::device::host::HostAllocation;

/// A kernel as the table holds it.
#[repr(C)]
pub(super) struct Kernel {
    name: *const c_char,
    run: *const c_void,
    /// Threads of a block that it is compiled for.
    pub max_threads: u32,
    /// Size of its parameter struct.
    pub params_bytes: u32,
    /// Alignment of its parameter struct.
    pub params_alignment: u32,
}

// SAFETY: the table is constant, and its pointers are to constants.
unsafe impl Sync for Kernel {}

/// A launch, as each of its blocks is run.
#[repr(C)]
pub(super) struct Call<'a> {
    kernel: &'static Kernel,
    params: *const c_void,
    blocks: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    shuffled: u32,
    poisoned: u32,
    seed: u64,
    borrowed: PhantomData<&'a ()>,
}

// SAFETY: `params` points to plain data borrowed for `'a`, which blocks only read.
unsafe impl Sync for Call<'_> {}

unsafe extern "C" {
    #[link_name = "emulator_kernels"]
    static KERNELS: [&'static Kernel; 0];
    #[link_name = "emulator_kernel_count"]
    static KERNEL_COUNT: usize;
    fn emulator_run_block(
        call: *const Call<'_>,
        block: *const [u32; 3],
        error: *mut c_char,
        error_bytes: usize,
    ) -> bool;
    fn emulator_forbid(memory: *const c_void, bytes: usize);
}

/// Tells the address sanitizer, where there is one, that only the first `bytes` bytes of an allocation may be touched.
pub(super) fn forbid_padding(memory: &HostAllocation, bytes: usize) {
    let padding = memory.start().wrapping_add(bytes).cast();
    // SAFETY: what is marked lies within the allocation, and freeing it takes the mark away.
    unsafe { emulator_forbid(padding, memory.bytes_to_end() - bytes) }
}

/// Every kernel.
pub(super) fn all() -> &'static [&'static Kernel] {
    // SAFETY: a constant.
    let count = unsafe { KERNEL_COUNT };
    // SAFETY: the array has `count` constant elements, each the address of a kernel.
    unsafe { std::slice::from_raw_parts((&raw const KERNELS).cast(), count) }
}

/// A string of the tables, which are written from names in ASCII.
fn text(string: *const c_char) -> &'static str {
    // SAFETY: the tables hold string literals.
    unsafe { CStr::from_ptr(string) }.to_str().unwrap_or_default()
}

impl Kernel {
    pub(super) fn name(&self) -> &'static str {
        text(self.name)
    }
}

impl<'a> Call<'a> {
    /// A launch of `kernel`; `None` where the parameters are not of its type. Blocks and threads are within what the
    /// kernel and a GPU can have.
    pub(super) fn new<P: NoUninit>(
        kernel: &'static Kernel,
        grid: Grid,
        params: &'a P,
        shuffle: Option<u64>,
        poison: bool,
    ) -> Option<Self> {
        let fits = size_of::<P>() == kernel.params_bytes as usize
            && align_of::<P>() >= kernel.params_alignment as usize;
        fits.then(|| Self {
            kernel,
            params: std::ptr::from_ref(params).cast(),
            blocks: grid.blocks,
            threads: grid.threads,
            shared_bytes: grid.shared_bytes,
            shuffled: shuffle.is_some().into(),
            poisoned: poison.into(),
            seed: shuffle.unwrap_or_default(),
            borrowed: PhantomData,
        })
    }

    /// Runs one block on this thread; else what went wrong.
    pub(super) fn run(&self, block: [u32; 3]) -> Result<(), String> {
        let mut message = [0 as c_char; 512];
        // SAFETY: the struct is the one that C++ declares, its pointers live as long as `self`, and the message is as
        // long as is said. What the kernel does with addresses in its parameters is up to who launches it, as on a GPU.
        let went_well = unsafe { emulator_run_block(self, &block, message.as_mut_ptr(), message.len()) };
        if went_well {
            return Ok(());
        }
        // SAFETY: `snprintf` ends what it writes with a zero.
        let message = unsafe { CStr::from_ptr(message.as_ptr()) };
        Err(message.to_string_lossy().into_owned())
    }
}

/// A parameter struct: its name, its size, and the name and offset of each field.
#[cfg(test)]
pub(crate) type StructLayout = (&'static str, usize, Vec<(&'static str, usize)>);

/// Every parameter struct, as C++ has it.
#[cfg(test)]
pub(crate) fn layouts() -> Vec<StructLayout> {
    #[repr(C)]
    struct Field {
        name: *const c_char,
        offset: usize,
    }
    #[repr(C)]
    struct Layout {
        name: *const c_char,
        bytes: usize,
        fields: *const Field,
        n_fields: usize,
    }
    // SAFETY: the tables are constant, and their pointers are to constants.
    unsafe impl Sync for Layout {}
    unsafe extern "C" {
        #[link_name = "emulator_layouts"]
        static LAYOUTS: [Layout; 0];
        #[link_name = "emulator_layout_count"]
        static LAYOUT_COUNT: usize;
    }
    // SAFETY: a constant.
    let count = unsafe { LAYOUT_COUNT };
    // SAFETY: the array has `count` constant elements.
    let layouts: &[Layout] = unsafe { std::slice::from_raw_parts((&raw const LAYOUTS).cast(), count) };
    layouts
        .iter()
        .map(|layout| {
            // SAFETY: the table says how many fields it has, all constants.
            let fields = unsafe { std::slice::from_raw_parts(layout.fields, layout.n_fields) };
            (text(layout.name), layout.bytes, fields.iter().map(|f| (text(f.name), f.offset)).collect())
        })
        .collect()
}
