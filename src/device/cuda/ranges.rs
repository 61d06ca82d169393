//! Named ranges in the time line of NVIDIA's profilers.
#![allow(unsafe_code)]

/// A range that lasts until it is dropped; nothing where the library of the ranges is not there.
#[derive(Debug)]
pub(crate) struct TimeRange {
    _range: Option<cudarc::nvtx::Range>,
}

impl TimeRange {
    /// Begins a range on this thread.
    pub(crate) fn begin(name: &str) -> Self {
        use std::sync::OnceLock;
        static PRESENT: OnceLock<bool> = OnceLock::new();
        // SAFETY: loads the library and asks nothing of it; its initialisers may run, as they would when it is used.
        let present = *PRESENT.get_or_init(|| unsafe { cudarc::nvtx::sys::is_culib_present() });
        Self { _range: present.then(|| cudarc::nvtx::scoped_range(name.replace('\0', " "))) }
    }
}
