//! What an organisation's address space holds, and what is wrong with it: decided from one value, the inventory.
//!
//! It must not know where an inventory comes from, or how an audit is printed.

pub mod audit;
pub mod cost;
pub mod design;
mod holder;
pub mod inventory;
pub mod map;
mod network_usage;
mod node;
pub mod overlap;
mod pool;
mod span;
mod subnet;

pub use holder::Holder;
pub use network_usage::{NetworkUsage, Quotas};
pub use node::{Node, Pods, nodes};
pub use overlap::{Cure, Overlap, Relation, Side};
pub use pool::PoolUse;
pub use subnet::SubnetUse;

/// `part` of `whole` in percent, rounded down; 0 of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or_default()
}
