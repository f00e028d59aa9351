//! Which family pods reach through the node, beside that of their VPC addresses.

use ipam::block::{BlockKind, Family};

use crate::registry::{ENABLE_V4_EGRESS, ENABLE_V6_EGRESS};
use crate::{SettingError, Variables};

/// The family that new pods reach so; `None` if they reach their own alone. The setting for the pods' own family is
/// checked and has no effect.
pub(crate) fn to(variables: &Variables, kind: BlockKind) -> Result<Option<Family>, SettingError> {
    let (to_v4, to_v6) =
        (variables.boolean(&ENABLE_V4_EGRESS)?, variables.boolean(&ENABLE_V6_EGRESS)?);
    Ok(match kind.family() {
        Family::V4 => to_v6.then_some(Family::V6),
        Family::V6 => to_v4.then_some(Family::V4),
    })
}
