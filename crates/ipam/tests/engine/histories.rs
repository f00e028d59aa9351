//! Random histories against a model of what pods, the log and EC2 have seen. After every step:
//!
//! * an address belongs to one pod, and is on an attached ENI as long as it does;
//! * a new grant is on an ENI whose host side was ready, and on record before it is answered;
//! * a call that changes something is on record before it is made, and none gives back an address
//!   that a pod has or that rests;
//! * an address whose link the kernel has shown without a word of it on record is neither granted
//!   nor given back;
//! * the link of a pod that runs is never to go, whatever the container runtime lists;
//! * each request is answered once, Adds by their deadline;
//! * what is on record of the ENIs is true;
//! * as long as EC2 is silent after a start, nothing is asked of it but what is here;
//! * nobody waits without a reason while nothing is under way.
//!
//! In the end all comes to rest, nothing has leaked, and the same history has the same effects.

mod check;
mod step;
mod world;

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::LinkState;
use ipam::policy::{Limits, WarmSettings};
use proptest::prelude::*;

use self::step::{End, SaveEnd, Setting, Step, settings, steps};
use self::world::World;
use crate::node::{Setup, limits, policy};

fn run(setting: &Setting, steps: &[Step]) -> World {
    let mut world = World::new(setting);
    for step in steps {
        world.take(step);
    }
    world.heal();
    world.check_rest();
    if world.has_changed && !world.is_misled {
        world.check_newest_settings_hold();
    }
    world
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
fn a_history_that_once_failed() {
    let believed = limits("t3.small");
    let policy = Setup {
        max_pods: 2,
        cooldown: Duration::from_secs(5),
        shrink_delay: Duration::ZERO,
        min_eni_age: Duration::ZERO,
        ..policy(BlockKind::V4Address, WarmSettings { warm_eni: 0, ..WarmSettings::default() })
    };
    let limits = (believed, Limits { enis: 1, ..believed });
    let setting = Setting { policy, limits, n_addresses: 3, n_prefixes: 0 };
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
