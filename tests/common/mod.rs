//! What several test binaries share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod broken;
pub mod command;
pub mod counting;
pub mod device;
pub mod golden;

/// The repository's root: where Cargo says that it is now, as a packed test may run in another folder than it was built in.
pub fn root() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}
