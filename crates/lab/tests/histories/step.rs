//! The steps of a history, and their frequencies.

use std::time::Duration;

use ec2_model::Rng;
use ec2_model::request::Action;
use ipam::policy::{Needs, WarmSettings};

use super::setting;

/// Slots for pods per node.
const N_PODS: usize = 10;
/// The most steps of a history.
const MAX_STEPS: usize = 90;
/// The number of this random stream.
const STREAM: u64 = 12;
/// The number of the random stream of changed policies and limits. The other steps of a seed do not depend
/// on it.
const CHANGES_STREAM: u64 = 20;

/// The number of the random stream of changed security groups.
const GROUPS_STREAM: u64 = 21;
/// The number of the random stream of changed ranges of the VPC.
const RANGES_STREAM: u64 = 22;
/// The number of the random stream of changed families and of EC2's faults with IPv6.
const FAMILIES_STREAM: u64 = 24;
/// The number of the random stream of the API server's news.
const NEWS_STREAM: u64 = 25;

/// A step of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HistoryStep {
    /// Milliseconds since the previous step.
    pub(super) wait_ms: u64,
    /// The index of the node. Ignored by steps that concern EC2 only.
    pub(super) node: usize,
    /// The action.
    pub(super) what: StepAction,
}

/// The action of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StepAction {
    /// The runtime starts a pod, unless the slot has one.
    Add {
        /// The slot.
        pod: usize,
        /// How long the plugin waits.
        patience_ms: u64,
        /// How long the request takes to arrive. Another request may overtake it.
        transit_ms: u64,
        /// Whether it repeats the ADD of a sandbox that got no address.
        again: bool,
    },
    /// The plugin that waits for an address is killed.
    Abandon {
        /// The slot.
        pod: usize,
    },
    /// The runtime ends a pod.
    Del {
        /// The slot.
        pod: usize,
        /// How long the request takes to arrive.
        transit_ms: u64,
    },
    /// The runtime sends a GC with all live sandboxes.
    Gc,
    /// A sandbox ends without a DEL.
    Die {
        /// The slot.
        pod: usize,
    },
    /// The daemon dies.
    Kill(Kill),
    /// The next calls fail.
    Fault {
        /// The operation.
        action: Action,
        /// How many.
        next: u64,
        /// The kind of failure.
        fault: CallFault,
    },
    /// EC2's faults end.
    ClearFaults,
    /// Others take addresses of the nodes' subnet.
    Occupy {
        /// How many; all that are free if there are fewer.
        addresses: u32,
    },
    /// Others release those addresses.
    Vacate,
    /// The disk is full for some time.
    FullDisk {
        /// Milliseconds.
        ms: u64,
    },
    /// ENIs have no usable device on the host for some time.
    NoDevice {
        /// Milliseconds.
        ms: u64,
        /// Whether the device exists but cannot be set up.
        failed: bool,
    },
    /// Somebody detaches an ENI by force.
    DetachByHand {
        /// The index among the attached ENIs without the primary.
        which: usize,
    },
    /// Somebody unassigns an address or prefix of an ENI.
    UnassignByHand {
        /// The index among all blocks.
        which: usize,
    },
    /// Somebody changes the security groups of an ENI.
    ChangeGroups {
        /// The index among the attached ENIs; the primary one is the first.
        which: usize,
        /// The index among the choices of groups.
        choice: usize,
    },
    /// The VPC gets a range, or loses one.
    ChangeRanges {
        /// The index among the choices of ranges.
        choice: usize,
    },
    /// The API server shows that pods are about to start, whether or not it is true.
    ExpectPods {
        /// Their numbers.
        pods: Vec<usize>,
    },
    /// The instance is terminated.
    Terminate,
    /// The user wants something else. It holds for later daemons of the node too.
    ChangePolicy(PolicyChange),
    /// The daemon learns other limits. They hold for later daemons of the node too.
    ChangeLimits(LimitsError),
    /// The user wants other families, or other addresses for a pod's start. It holds for later daemons of the node too.
    ChangeFamilies {
        /// What a dual-stack pod needs to start; `None` for IPv4 alone.
        dual: Option<Needs>,
    },
}

/// What a user changes in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyChange {
    /// The targets.
    pub(super) warm: WarmSettings,
    /// How long a released address rests.
    pub(super) cooldown: Duration,
    /// `MAX_ENI`.
    pub(super) max_enis: Option<u16>,
}

/// By how much a daemon is wrong about the limits. Limits do not fall below one ENI and two addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitsError {
    /// ENIs too many.
    pub(super) enis: i16,
    /// Addresses per ENI too many.
    pub(super) addresses: i16,
    /// Whether it knows that the instance takes prefixes.
    pub(super) prefixes: bool,
}

/// How a daemon dies, and how the next one starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kill {
    /// The daemon dies before this effect, counted from now; 0 means at once.
    pub(super) at_effect: usize,
    /// Whether the save in flight becomes durable.
    pub(super) saved: bool,
    /// Whether the requests in flight reach EC2.
    pub(super) sent: bool,
    /// The time until the next daemon starts.
    pub(super) down_ms: u64,
    /// What happens to the record.
    pub(super) record: RecordFate,
    /// Whether the machine reboots too, which ends all pods.
    pub(super) reboot: bool,
    /// By how much the machine's clock is ahead from then on.
    pub(super) clock_ahead_ms: i64,
}

/// What happens to the record when a daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordFate {
    /// It stays as it is.
    Kept,
    /// It is lost completely.
    Lost,
    /// It loses its last changes, as many as given.
    RolledBack(usize),
}

/// The failure of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallFault {
    /// EC2 refuses it with this code. Nothing changes.
    Refused(&'static str),
    /// EC2 executes it, and no answer arrives.
    Unanswered,
    /// EC2 executes it, and the answer arrives this many milliseconds later.
    Late(u64),
}

const REFUSALS: &[&str] = &[
    "RequestLimitExceeded",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientCidrBlocks",
    "PrivateIpAddressLimitExceeded",
    "AttachmentLimitExceeded",
    "InvalidNetworkInterfaceID.NotFound",
    "InvalidNetworkInterface.InUse",
    "UnauthorizedOperation",
    "InternalError",
    "Unavailable",
    "InvalidParameterCombination",
    "InvalidGroup.NotFound",
];

/// The refusals that name a limit of an ENI or an instance.
pub(super) const LIMIT_CODES: &[&str] =
    &["PrivateIpAddressLimitExceeded", "AttachmentLimitExceeded"];

const ACTIONS: &[Action] = &[
    Action::CreateNetworkInterface,
    Action::AttachNetworkInterface,
    Action::ModifyNetworkInterfaceAttribute,
    Action::AssignPrivateIpAddresses,
    Action::UnassignPrivateIpAddresses,
    Action::DetachNetworkInterface,
    Action::DeleteNetworkInterface,
    Action::DescribeNetworkInterfaces,
    Action::DescribeSubnets,
];

pub(super) fn steps_of(seed: u64, n_nodes: usize) -> Vec<HistoryStep> {
    let mut rng = Rng::with_stream(seed, STREAM);
    let n_steps = 1 + rng.index(MAX_STEPS);
    // Rare in most histories: after changes by hand, few invariants can be checked.
    let by_hand = rng.one_in(10);
    let mut steps: Vec<_> = (0..n_steps).map(|_| step(&mut rng, n_nodes, by_hand)).collect();
    let mut rng = Rng::with_stream(seed, CHANGES_STREAM);
    insert(&mut steps, &mut rng, n_nodes, |rng| {
        if rng.one_in(3) {
            StepAction::ChangeLimits(limits_error(rng))
        } else {
            StepAction::ChangePolicy(policy_change(rng))
        }
    });
    let mut rng = Rng::with_stream(seed, GROUPS_STREAM);
    insert(&mut steps, &mut rng, n_nodes, |rng| StepAction::ChangeGroups {
        which: if rng.one_in(3) { rng.index(4) } else { 0 },
        choice: rng.index(3),
    });
    let mut rng = Rng::with_stream(seed, RANGES_STREAM);
    insert(&mut steps, &mut rng, n_nodes, |rng| StepAction::ChangeRanges { choice: rng.index(3) });
    let mut rng = Rng::with_stream(seed, NEWS_STREAM);
    insert(&mut steps, &mut rng, n_nodes, |rng| StepAction::ExpectPods {
        pods: (0..rng.index(2 * N_PODS)).map(|_| rng.index(3 * N_PODS)).collect(),
    });
    let mut rng = Rng::with_stream(seed, FAMILIES_STREAM);
    insert(&mut steps, &mut rng, n_nodes, |rng| match rng.index(3) {
        0 => StepAction::ChangeFamilies { dual: setting::dual(rng) },
        // For the next calls, or until a step ends all faults.
        _ => StepAction::Fault {
            action: Action::AssignIpv6Addresses,
            next: *rng.pick(&[1, 2, 1_000]),
            fault: call_fault(rng),
        },
    });
    steps
}

/// Inserts a few more steps. The others keep their times.
fn insert(
    steps: &mut Vec<HistoryStep>,
    rng: &mut Rng,
    n_nodes: usize,
    mut what: impl FnMut(&mut Rng) -> StepAction,
) {
    for _ in 0..*rng.pick(&[0, 0, 1, 2, 4]) {
        let place = rng.index(steps.len() + 1);
        let wait_ms = match steps.get_mut(place) {
            Some(next) => {
                let before = rng.below(next.wait_ms + 1);
                next.wait_ms -= before;
                before
            }
            None => rng.below(20_000),
        };
        let node = rng.index(n_nodes);
        steps.insert(place, HistoryStep { wait_ms, node, what: what(rng) });
    }
}

fn policy_change(rng: &mut Rng) -> PolicyChange {
    PolicyChange {
        warm: setting::warm_settings(rng),
        cooldown: setting::cooldown(rng),
        max_enis: setting::max_enis(rng),
    }
}

fn limits_error(rng: &mut Rng) -> LimitsError {
    LimitsError {
        enis: *rng.pick(&[0, 0, 1, 2, -1]),
        addresses: *rng.pick(&[0, 0, 2, 3, -1]),
        prefixes: !rng.one_in(4),
    }
}

fn step(rng: &mut Rng, n_nodes: usize, by_hand: bool) -> HistoryStep {
    let wait_ms = match rng.index(10) {
        0..4 => rng.below(30),
        4..7 => rng.below(1_500),
        7..9 => rng.below(20_000),
        _ => rng.below(400_000),
    };
    let node = rng.index(n_nodes);
    let what = match rng.index(100) {
        0..38 => add(rng),
        38..41 => StepAction::Abandon { pod: rng.index(N_PODS) },
        41..62 => StepAction::Del { pod: rng.index(N_PODS), transit_ms: transit(rng) },
        62..65 => StepAction::Gc,
        65..69 => StepAction::Die { pod: rng.index(N_PODS) },
        69..80 => StepAction::Kill(kill(rng)),
        80..90 => fault(rng),
        90..92 => StepAction::ClearFaults,
        92..93 => StepAction::Occupy { addresses: *rng.pick(&[5, 20, 60, 600]) },
        93..94 => StepAction::Vacate,
        94..96 => StepAction::FullDisk { ms: rng.below(4_000) },
        96..98 => StepAction::NoDevice { ms: rng.below(20_000), failed: rng.one_in(2) },
        _ if by_hand && rng.one_in(2) => StepAction::DetachByHand { which: rng.index(4) },
        _ if by_hand => StepAction::UnassignByHand { which: rng.index(30) },
        98 if rng.one_in(6) => StepAction::Terminate,
        _ => add(rng),
    };
    HistoryStep { wait_ms, node, what }
}

fn transit(rng: &mut Rng) -> u64 {
    if rng.one_in(8) { rng.below(3_000) } else { rng.below(5) }
}

fn add(rng: &mut Rng) -> StepAction {
    StepAction::Add {
        pod: rng.index(N_PODS),
        patience_ms: if rng.one_in(4) { rng.below(3_000) } else { 67_500 },
        transit_ms: transit(rng),
        again: rng.one_in(3),
    }
}

fn kill(rng: &mut Rng) -> Kill {
    let record = match rng.index(12) {
        0 => RecordFate::Lost,
        1 => RecordFate::RolledBack(1 + rng.index(20)),
        _ => RecordFate::Kept,
    };
    let jump = i64::try_from(rng.below(7_200_000)).unwrap_or_default();
    Kill {
        at_effect: if rng.one_in(4) { 0 } else { rng.index(12) },
        saved: rng.one_in(2),
        sent: rng.one_in(2),
        down_ms: if rng.one_in(4) { rng.below(90_000) } else { rng.below(500) },
        record,
        reboot: rng.one_in(12),
        clock_ahead_ms: *rng.pick(&[0, 0, 0, jump, -jump]),
    }
}

fn fault(rng: &mut Rng) -> StepAction {
    let fault = call_fault(rng);
    let action = *rng.pick(ACTIONS);
    StepAction::Fault { action, next: 1 + rng.below(4), fault }
}

fn call_fault(rng: &mut Rng) -> CallFault {
    match rng.index(4) {
        0 => CallFault::Unanswered,
        1 => CallFault::Late(rng.below(30_000)),
        _ => CallFault::Refused(REFUSALS[rng.index(REFUSALS.len())]),
    }
}
