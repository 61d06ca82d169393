//! The plan allocated: one allocation, its regions handed out by name, each once.

use std::collections::HashMap;

use thiserror::Error;

use crate::device::{Device, DeviceError, Region};

use super::MemoryPlan;

/// A region that the arena cannot hand out.
#[derive(Debug, Error)]
pub enum ArenaError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The plan has no such region, or it was handed out before.
    #[error("the plan has no region `{name}` left to hand out")]
    NoRegion {
        /// The region asked for.
        name: String,
    },
    /// A region that the plan counts and nothing took.
    #[error("the plan has a region `{name}` that nothing uses")]
    Unused {
        /// The region.
        name: String,
    },
}

/// One allocation, divided as its plan says.
#[derive(Debug)]
pub struct Arena<D: Device> {
    regions: HashMap<String, Region<D>>,
}

impl<D: Device> Arena<D> {
    /// Allocates all of a plan at once.
    pub fn allocate(device: &D, plan: &MemoryPlan) -> Result<Self, ArenaError> {
        let mut rest = Region::allocate(device, plan.total_bytes)?;
        let mut regions = HashMap::new();
        for row in &plan.rows {
            regions.insert(row.name.clone(), rest.split_off(row.bytes)?);
        }
        Ok(Self { regions })
    }
    /// Hands out a region; it can be had once.
    pub fn take(&mut self, name: &str) -> Result<Region<D>, ArenaError> {
        self.regions.remove(name).ok_or_else(|| ArenaError::NoRegion { name: name.to_owned() })
    }
    /// Ends the division: every region must have been handed out, or the plan counted bytes that nothing uses.
    pub fn finish(self) -> Result<(), ArenaError> {
        match self.regions.into_keys().min() {
            Some(name) => Err(ArenaError::Unused { name }),
            None => Ok(()),
        }
    }
}
