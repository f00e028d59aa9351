//! At equal targets both daemons hold about as many idle addresses, but serve pods differently
//! well. So the incumbent's target is raised until it serves as well, and then its idle addresses
//! are compared.

use ipam::block::BlockKind;
use ipam::policy::{Families, FamilyPolicy, Policy, Targets};
use serde::Serialize;

use crate::cloud::SetupError;
use crate::run::{Setup, Strategy, run};
use crate::score::Score;

/// The values of WARM_IP_TARGET that are tried for the incumbent, ascending.
const WARM_IPS: [u32; 10] = [1, 2, 3, 5, 8, 12, 20, 30, 40, 50];

/// The target with which the incumbent serves as well as ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EqualService {
    /// The smallest tried WARM_IP_TARGET with which the incumbent's p99 wait is no longer than
    /// ours. 50 if none is enough.
    pub warm_ip: u32,
    /// Whether it is enough.
    pub is_enough: bool,
    /// The incumbent's figures with it.
    pub score: Score,
}

impl EqualService {
    /// Finds the target, given our figures on the same setup. `None` unless the setup is in
    /// secondary mode with a target of addresses. It needs four runs at most, by bisection: a
    /// higher target is assumed not to serve worse.
    ///
    /// # Errors
    ///
    /// If EC2 refuses the start of the setup.
    pub(super) fn find(setup: &Setup, ours: &Score) -> Result<Option<Self>, SetupError> {
        if !setup.node_specs.iter().all(|spec| has_ip_target(&spec.policy)) {
            return Ok(None);
        }
        let (mut left, mut found) = (&WARM_IPS[..], None);
        while !left.is_empty() {
            let middle = left.len() / 2;
            let warm_ip = left[middle];
            let score = run(&with_warm_ip(setup, warm_ip), Strategy::Incumbent)?.score;
            let is_enough = score.wait_ms.p99 <= ours.wait_ms.p99;
            left = if is_enough { &left[..middle] } else { &left[middle + 1..] };
            if is_enough || left.is_empty() && found.is_none() {
                found = Some(Self { warm_ip, is_enough, score });
            }
        }
        Ok(found)
    }
}

fn has_ip_target(policy: &Policy) -> bool {
    let FamilyPolicy { kind, targets, .. } = policy.families.policy();
    kind == BlockKind::V4Address && matches!(targets, Targets::Ip { .. })
}

fn with_warm_ip(setup: &Setup, warm_ip: u32) -> Setup {
    let mut setup = setup.clone();
    for spec in &mut setup.node_specs {
        let mut family = spec.policy.families.policy();
        if let Targets::Ip { warm, .. } = &mut family.targets {
            *warm = warm_ip;
        }
        spec.policy.families = Families::single(family);
    }
    setup
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Scenario, Size};

    #[test]
    fn equal_service_finds_smallest_sufficient_target() {
        let cases = Scenario::named("scale-in").unwrap().cases(Size::Small);
        let setup = cases.into_iter().find(|case| case.policy == "warm-ip-5").unwrap().setup;
        let mut ours = run(&setup, Strategy::Tidepool).unwrap().score;
        let found = EqualService::find(&setup, &ours).unwrap().unwrap();
        assert!(found.is_enough && found.score.wait_ms.p99 <= ours.wait_ms.p99);
        let below = WARM_IPS.iter().rev().find(|warm_ip| **warm_ip < found.warm_ip).unwrap();
        let theirs = run(&with_warm_ip(&setup, *below), Strategy::Incumbent).unwrap().score;
        assert!(theirs.wait_ms.p99 > ours.wait_ms.p99);

        // No daemon serves without any wait.
        ours.wait_ms.p99 = 0;
        let found = EqualService::find(&setup, &ours).unwrap().unwrap();
        assert_eq!((found.warm_ip, found.is_enough), (50, false));
        let warm_eni = Scenario::named("scale-in").unwrap().cases(Size::Small).remove(0).setup;
        assert_eq!(EqualService::find(&warm_eni, &ours), Ok(None));
    }
}
