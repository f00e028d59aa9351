//! The kernel's own rules: what comes back, and what an administrator may have changed.

use std::time::Duration;

use datapath::Applied;
use datapath::disturbances::{Disturbance, disturbances};
use futures::StreamExt as _;

use crate::host::{attach_primary, picture, synced};
use crate::lab::on_node;

#[test]
fn kernels_own_rules_come_back() {
    let check = |damages: &[&str]| {
        on_node(|node| {
            attach_primary(node);
            synced(node, &picture());
            let rules = || [node.ip("-d rule"), node.ip("-d -6 rule")];
            let before = rules();
            for damage in damages {
                node.ip(damage);
            }
            assert_ne!(rules(), before, "{damages:?}");
            assert_eq!(synced(node, &picture()).kernel_rules.unwrap(), Applied::Updated);
            assert_eq!(rules(), before, "{damages:?}");
            assert_eq!(synced(node, &picture()).kernel_rules.unwrap(), Applied::Unchanged);
        });
    };
    check(&["rule flush"]);
    check(&["-6 rule flush"]);
    check(&["rule flush", "-6 rule flush"]);
    check(&["rule del priority 0"]);
    check(&["-6 rule del priority 0"]);
    check(&["rule flush", "rule del priority 0"]);
}

#[test]
fn kernels_rules_at_other_priorities_stay() {
    let check = |changes: &[&str], expect: Applied| {
        on_node(|node| {
            attach_primary(node);
            synced(node, &picture());
            for change in changes {
                node.ip(change);
            }
            let before = node.dump();
            assert_eq!(synced(node, &picture()).kernel_rules.unwrap(), expect, "{changes:?}");
            assert_eq!(node.dump() == before, expect == Applied::Unchanged, "{changes:?}");
        });
    };
    check(&["rule add priority 20 lookup local", "rule del priority 0"], Applied::Unchanged);
    check(&["rule add priority 40000 lookup main", "rule del priority 32766"], Applied::Unchanged);
    check(&["rule del priority 32767"], Applied::Unchanged);
    // These lead only some packets to the main table.
    for part in
        ["fwmark 1", "to 10.0.0.0/8", "iif lo", "suppress_prefixlength 0", "not fwmark 1", "tos 8"]
    {
        let add = format!("rule add {part} priority 9 lookup main");
        check(&[&add, "rule del priority 32766"], Applied::Updated);
    }
}

#[test]
fn loss_of_a_kernels_rule_is_reported() {
    on_node(|node| {
        node.block_on(async {
            let mut disturbances = disturbances().unwrap();
            for damage in ["rule del priority 32766", "-6 rule del priority 32766"] {
                node.ip(damage);
                let next = tokio::time::timeout(Duration::from_secs(60), disturbances.next());
                assert_eq!(next.await, Ok(Some(Disturbance::KernelRuleLost)), "{damage}");
            }
        });
    });
}
