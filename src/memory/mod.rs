//! Memory, known before it is touched: the plan is arithmetic, the arena is the plan allocated.

mod arena;
mod plan;

pub use arena::{Arena, ArenaError};
pub(crate) use plan::region;
pub use plan::{MemoryPlan, PlanError, PlanOptions, PlanRow, Purpose};
