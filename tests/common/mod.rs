//! What several test binaries share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod broken;
pub mod command;
pub mod counting;
pub mod device;
pub mod golden;
