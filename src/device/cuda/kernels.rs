//! The compiled kernels that the build script embeds.

/// A file of `kernels/`, compiled for several GPUs.
pub(super) struct Module {
    pub name: &'static str,
    /// What the driver loads: a fatbin.
    pub image: &'static [u8],
    pub kernels: &'static [&'static str],
    /// Those that the image for sm_90a alone holds.
    pub kernels_of_sm90a: &'static [&'static str],
}

/// Bytes as the driver wants them: at the alignment of the structs in them.
#[allow(dead_code, reason = "a build without kernels aligns none")]
#[repr(C, align(16))]
struct Aligned<Bytes: ?Sized>(Bytes);

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
