//! How much a file may ask for.

use super::GgufError;
use super::error::Place;

/// How much a file may ask for. Each is charged before anything is allocated for it, so a lying count costs nothing.
///
/// The defaults are several times what the largest published models need (a vocabulary of 256 thousand tokens with
/// half a million merges takes about 40 MB).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Metadata entries of one file. Default: 65,536.
    pub metadata_keys: u64,
    /// Bytes of one metadata string. Default: 64 MiB.
    pub string_bytes: u64,
    /// Elements of one metadata array. Default: 8,388,608.
    pub array_elements: u64,
    /// Bytes of memory for keys and values of all shards. Default: 512 MiB.
    pub metadata_bytes: u64,
    /// Tensors of all shards. Default: 65,536.
    pub tensors: u64,
    /// Files of a split model. Default: 1,024.
    pub shards: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_keys: 1 << 16,
            string_bytes: 64 << 20,
            array_elements: 1 << 23,
            metadata_bytes: 512 << 20,
            tensors: 1 << 16,
            shards: 1 << 10,
        }
    }
}

/// What is left of the limits that all shards share.
pub(super) struct Budget<'a> {
    pub(super) limits: &'a Limits,
    metadata_bytes: u64,
    tensors: u64,
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, metadata_bytes: 0, tensors: 0 }
    }
    /// Takes bytes for metadata.
    pub(super) fn charge_metadata(&mut self, bytes: u64) -> Result<(), Excess> {
        charge(&mut self.metadata_bytes, bytes, "metadata bytes in memory", self.limits.metadata_bytes)
    }
    /// Takes tensors.
    pub(super) fn charge_tensors(&mut self, count: u64) -> Result<(), Excess> {
        charge(&mut self.tensors, count, "tensor count", self.limits.tensors)
    }
}

/// Adds to what is spent, unless that passes the limit.
fn charge(spent: &mut u64, more: u64, what: &'static str, limit: u64) -> Result<(), Excess> {
    *spent = within(what, spent.saturating_add(more), limit)?;
    Ok(())
}

/// A count, if it is within its limit.
pub(super) fn within(what: &'static str, found: u64, limit: u64) -> Result<u64, Excess> {
    if found > limit { Err(Excess { what, found, limit }) } else { Ok(found) }
}

/// A count beyond its limit, wherever it stood.
pub(super) struct Excess {
    what: &'static str,
    found: u64,
    limit: u64,
}

impl Excess {
    pub(super) fn at(self, place: Place) -> GgufError {
        GgufError::Limit { place, what: self.what, found: self.found, limit: self.limit }
    }
}
