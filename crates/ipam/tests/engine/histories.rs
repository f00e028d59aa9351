//! Random histories against a model of the pods, the log and EC2. After every step:
//!
//! * An address belongs to one pod, and is on an attached ENI as long as it does.
//! * A pod has at most one address of a family. It has one of each family of the node unless it may start with one.
//! * A new grant is on an ENI that was ready on the host. It is on record before the answer leaves.
//! * A mutating call is on record before it is made. None gives back an address that a pod has or that rests.
//! * An address is neither granted nor given back if the kernel has shown a link for it without a record.
//! * The link of a running pod is never removed, whatever the container runtime lists.
//! * Each request is answered once, Adds before their deadline.
//! * The ENIs on record match EC2.
//! * While EC2 is silent after a start, the engine makes no mutating call.
//! * Each range that the VPC had in the last ten minutes keeps its addresses, and no range that nobody has shown.
//! * A pod waits only while something is under way or the view gives a reason.
//!
//! In the end the node comes to rest, nothing has leaked, our ENIs have the primary ENI's security groups, and the
//! same history has the same effects.
//!
//! The histories of `lab` are the other harness; neither can replace the other. This one ends calls, saves and
//! syncs in any order, gives EC2 limits that no instance type has, makes the container runtime forget sandboxes,
//! and keeps EC2 silent after a start. `lab` has several nodes, real throttling and lag, changes by others,
//! clock jumps and records that are rolled back.

mod check;
mod ranges;
mod step;
mod world;

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::LinkState;
use ipam::policy::{Limits, WarmSettings};
use proptest::prelude::*;

use self::step::{End, SaveEnd, Setting, Step, settings, steps};
use self::world::HistoryModel;
use crate::node::{Setup, limits, policy};

fn run(setting: &Setting, steps: &[Step]) -> HistoryModel {
    let mut model = HistoryModel::new(setting);
    for step in steps {
        model.take(step);
    }
    model.heal();
    model.check_rest();
    model.check_groups_follow();
    if model.has_changed && !model.has_learnt {
        model.check_newest_settings_hold();
    }
    model
}

proptest! {
    #[test]
    fn any_history_is_sound(setting in settings(), steps in steps()) {
        let first = run(&setting, &steps);
        let second = run(&setting, &steps);
        prop_assert_eq!(first.node.log, second.node.log);
        prop_assert_eq!(first.node.ec2.calls, second.node.ec2.calls);
        prop_assert_eq!(first.live, second.live);
    }
}

#[test]
fn history_that_once_failed_is_sound() {
    let believed = limits("t3.small");
    let policy = Setup {
        max_pods: 2,
        cooldown: Duration::from_secs(5),
        shrink_delay: Duration::ZERO,
        min_eni_age: Duration::ZERO,
        ..policy(BlockKind::V4Address, WarmSettings { warm_eni: 0, ..WarmSettings::default() })
    };
    let limits = (believed, Limits { enis: 1, ..believed });
    let setting = Setting { policy, limits, n_addresses: 3, n_prefixes: 0, n_ipv6: 0 };
    let add = |pod, patience_ms| Step::Add { pod, patience_ms };
    let end_call = |which| Step::EndCall { which, end: End::Done };
    let save = || Step::EndSave(SaveEnd::Durable(1));
    run(
        &setting,
        &[
            end_call(1),
            save(),
            end_call(0),
            end_call(0),
            add(0, 0),
            Step::EndSync(LinkState::Ready),
            add(0, 501),
            add(3, 501),
            save(),
            save(),
            add(1, 501),
            Step::Gc { alive: vec![] },
            save(),
            save(),
            add(2, 501),
        ],
    );
}
