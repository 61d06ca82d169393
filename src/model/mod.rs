//! What a model is, as data: one configuration for all families, one table row per family, one schema of tensors.
//!
//! No other module knows a tensor's name, and none below the loader knows a family.

mod catalog;
mod config;
mod error;
mod family;
mod schema;

pub use catalog::{CATALOG, CatalogRow};
pub use config::{ModelConfig, RopeConfig, RopeFactors, RopePairing};
pub use error::ModelError;
pub use family::{Architecture, FAMILIES, FamilyRow};
pub use schema::{LayerSlot, Slot, TensorKind, TensorSpec, schema};
