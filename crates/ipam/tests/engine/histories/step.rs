//! The steps of a history, and the setting in which they happen.

use ipam::block::BlockKind;
use ipam::call::CallErrorKind;
use ipam::event::LinkState;
use ipam::policy::{Limits, Needs, Placement, Provisioning};
use proptest::prelude::*;

use crate::ec2::{REFUSALS, SUBNET};
use crate::node::{Setup, limits};
use crate::settings::policies;

pub(super) const PODS: usize = 12;

/// Security groups that ENIs may get.
const GROUPS: [&[&str]; 4] = [&["sg-1"], &["sg-2"], &["sg-1", "sg-2"], &["sg-2", "sg-3"]];

/// The VPC's ranges once nothing goes wrong any more.
pub(super) const VPC: &[&str] = &["10.0.0.0/16"];
/// Answers of the metadata service about the VPC's ranges. Some are cut off.
const RANGES: [&[&str]; 5] =
    [VPC, VPC, &["10.0.0.0/16", "100.64.0.0/16"], &["100.64.0.0/16", "10.1.0.0/16"], &[]];

#[derive(Debug, Clone)]
pub(super) enum Step {
    Add {
        pod: usize,
        patience_ms: u64,
    },
    Cancel {
        which: usize,
    },
    Del {
        pod: usize,
    },
    Gc {
        alive: Vec<usize>,
    },
    EndCall {
        which: usize,
        end: End,
    },
    EndSync(LinkState),
    EndSave(SaveEnd),
    Pass {
        ms: u64,
    },
    /// The process dies. The first `n_saves` saves and `n_calls` calls under way still take effect.
    Restart {
        n_saves: usize,
        n_calls: usize,
        record: Fate,
        /// For how long EC2 does not answer the next process. Disk and host do, and pods come meanwhile.
        silent_ms: u64,
        /// Whether the machine boots as well.
        reboot: bool,
    },
    /// The sandbox ends without a DEL.
    Die {
        pod: usize,
    },
    /// The link goes, if its pod has been ended.
    Unlink {
        pod: usize,
    },
    /// The runtime forgets the sandbox; link and namespace stay.
    Forget {
        pod: usize,
    },
    /// The kernel's state and the runtime's list are reported.
    ReportKernel(Runtime),
    /// The user wants something else.
    Policy(Setup),
    /// The engine gets other limits; EC2 keeps its own.
    Limits(Limits),
    /// Somebody changes the security groups of the primary ENI (0) or another one.
    Groups {
        eni: usize,
        groups: &'static [&'static str],
    },
    /// The metadata service shows some of the blocks.
    Hint {
        /// Whether it shows each block in turn; the list repeats.
        shows: Vec<bool>,
    },
    /// The metadata service shows these ranges of the VPC.
    VpcRanges(&'static [&'static str]),
    /// The cluster has an ENIConfig with this subnet, or none.
    EniConfig(Option<&'static str>),
    /// The API server shows that these pods are about to start, whether or not it is true.
    PodsExpected(Vec<usize>),
    /// The API server shows that the node is cordoned, or is not.
    Cordon(bool),
}

/// What the container runtime lists.
#[derive(Debug, Clone, Copy)]
pub(super) enum Runtime {
    /// All sandboxes.
    All,
    /// No sandbox: it is another runtime, or has lost its store.
    Nothing,
    Away,
}

/// Whether the record survives the death of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
}

/// How a call ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Done,
    /// A describe shows the state at the time of its call.
    Early,
    Refused(CallErrorKind),
    /// The answer is lost.
    Lost {
        after_effect: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum SaveEnd {
    /// This many saves, the oldest, become durable together.
    Durable(usize),
    /// The save is reported as failed, but may be in the file.
    Failed { in_file: bool },
}

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) policy: Setup,
    /// The limits that the engine believes in, and those that EC2 enforces.
    pub(super) limits: (Limits, Limits),
    pub(super) n_addresses: u16,
    pub(super) n_prefixes: u16,
    pub(super) n_ipv6: u16,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop::sample::select(REFUSALS.to_vec());
    let end = prop_oneof![
        8 => Just(End::Done),
        1 => Just(End::Early),
        2 => kind.prop_map(End::Refused),
        1 => any::<bool>().prop_map(|after_effect| End::Lost { after_effect }),
    ];
    let link = prop_oneof![
        6 => Just(LinkState::Ready),
        1 => Just(LinkState::Absent),
        1 => Just(LinkState::Failed("no such device".to_owned())),
    ];
    let save = prop_oneof![
        8 => (1..4_usize).prop_map(SaveEnd::Durable),
        1 => any::<bool>().prop_map(|in_file| SaveEnd::Failed { in_file }),
    ];
    let runtime = prop_oneof![
        4 => Just(Runtime::All),
        1 => Just(Runtime::Nothing),
        1 => Just(Runtime::Away),
    ];
    let step = prop_oneof![
        6 => (0..PODS, 0..20_000_u64).prop_map(|(pod, patience_ms)| Step::Add { pod, patience_ms }),
        1 => (0..8_usize).prop_map(|which| Step::Cancel { which }),
        4 => (0..PODS).prop_map(|pod| Step::Del { pod }),
        1 => prop::collection::vec(0..PODS, 0..PODS).prop_map(|alive| Step::Gc { alive }),
        9 => (0..4_usize, end).prop_map(|(which, end)| Step::EndCall { which, end }),
        4 => link.prop_map(Step::EndSync),
        12 => save.prop_map(Step::EndSave),
        4 => prop_oneof![1..1_000_u64, 1_000..40_000_u64, 40_000..400_000_u64]
            .prop_map(|ms| Step::Pass { ms }),
        1 => (
            (0..3_usize, 0..3_usize),
            prop::sample::select(vec![Fate::Kept, Fate::Lost]),
            0..2_000_u64,
            prop::bool::weighted(0.1),
        )
            .prop_map(|((n_saves, n_calls), record, silent_ms, reboot)| {
                Step::Restart { n_saves, n_calls, record, silent_ms, reboot }
            }),
        1 => (0..PODS).prop_map(|pod| Step::Die { pod }),
        4 => (0..PODS).prop_map(|pod| Step::Unlink { pod }),
        1 => (0..PODS).prop_map(|pod| Step::Forget { pod }),
        6 => runtime.prop_map(Step::ReportKernel),
        3 => prop::collection::vec(any::<bool>(), 1..4).prop_map(|shows| Step::Hint { shows }),
        3 => prop::sample::select(RANGES.to_vec()).prop_map(Step::VpcRanges),
        2 => prop::sample::select(vec![None, Some("subnet-none"), Some(SUBNET), Some(SUBNET)])
            .prop_map(Step::EniConfig),
        3 => prop::collection::vec(0..2 * PODS, 0..PODS).prop_map(Step::PodsExpected),
        1 => any::<bool>().prop_map(Step::Cordon),
        2 => (prop_oneof![2 => Just(0), 1 => 1..4_usize], prop::sample::select(GROUPS.to_vec()))
            .prop_map(|(eni, groups)| Step::Groups { eni, groups }),
        1 => delegating_policies().prop_map(Step::Policy),
        1 => (1..4_u16, 2..5_u16).prop_map(|(enis, addresses_per_eni)| {
            Step::Limits(Limits { enis, addresses_per_eni, ..limits("t3.small") })
        }),
    ];
    prop::collection::vec(step, 1..120)
}

pub(super) fn settings() -> impl Strategy<Value = Setting> {
    // Half of the nodes have both families, some of them in a subnet without a free IPv6 prefix.
    let dual = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Needs::Each)),
        1 => Just(Some(Needs::Any)),
    ];
    // Custom networking is not for nodes with IPv6.
    let placements =
        prop_oneof![3 => Just(Placement::LikePrimary), 1 => Just(Placement::ByEniConfig)];
    let policies =
        (delegating_policies(), dual, placements).prop_map(|(setup, dual, placement)| {
            let placement = if dual.is_some() { Placement::LikePrimary } else { placement };
            Setup { dual, placement, ..setup }
        });
    let limits =
        (any::<bool>(), 1..4_u16, 2..5_u16).prop_map(|(prefixes, enis, addresses_per_eni)| {
            let believed = Limits { prefixes, ..limits("t3.small") };
            (believed, Limits { enis, addresses_per_eni, ..believed })
        });
    let free = (0..16_u16, 0..6_u16, prop_oneof![1 => Just(0), 4 => Just(9_u16)]);
    (policies, limits, free).prop_map(|(policy, limits, (n_addresses, n_prefixes, n_ipv6))| {
        Setting { policy, limits, n_addresses, n_prefixes, n_ipv6 }
    })
}

/// Policies. Some want prefixes for other containers, and some want them back. Some change nothing at EC2.
fn delegating_policies() -> impl Strategy<Value = Setup> {
    let provisioning = prop_oneof![
        4 => Just(Provisioning::WhileSchedulable),
        2 => Just(Provisioning::Always),
        1 => Just(Provisioning::Off),
    ];
    let delegated = prop::sample::select(vec![None, None, None, Some(0), Some(1), Some(2)]);
    let policies = policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]);
    (policies, delegated, provisioning).prop_map(|(policy, delegated_prefixes, provisioning)| {
        Setup { delegated_prefixes, provisioning, ..policy }
    })
}
