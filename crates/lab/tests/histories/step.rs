//! StepAction may happen, and how often.

use ec2_model::Rng;
use ec2_model::request::Action;

/// Slots for pods on each node.
const N_PODS: usize = 10;
/// The most steps of a history.
const MOST_STEPS: usize = 90;
/// Tells this stream from the others of the same seed.
const STREAM: u64 = 12;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HistoryStep {
    /// So long after the one before.
    pub(super) wait_ms: u64,
    /// Where; no matter for what concerns EC2 as such.
    pub(super) node: usize,
    /// StepAction.
    pub(super) what: StepAction,
}

/// StepAction happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StepAction {
    /// The runtime starts a pod, if none is in this slot; the request is on its way for so long.
    Add {
        /// The slot.
        pod: usize,
        /// How long the plugin waits.
        patience_ms: u64,
        /// How long the request is on its way: another may overtake it.
        transit_ms: u64,
        /// Whether it is for the sandbox that an earlier request has not got an address for.
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
        /// How long the request is on its way.
        transit_ms: u64,
    },
    /// The runtime lists what lives.
    Gc,
    /// A sandbox ends without a word.
    Die {
        /// The slot.
        pod: usize,
    },
    /// The daemon dies.
    Kill(Kill),
    /// The next so many calls go wrong.
    Fault {
        /// Of this operation.
        action: Action,
        /// How many.
        next: u64,
        /// How.
        fault: CallFault,
    },
    /// All that makes calls go wrong is mended.
    ClearFaults,
    /// Others take addresses of the nodes' subnet.
    Occupy {
        /// How many, or as many as there are.
        addresses: u32,
    },
    /// They give them back.
    Vacate,
    /// The disk takes nothing for so long.
    FullDisk {
        /// Milliseconds.
        ms: u64,
    },
    /// ENIs have no device on the host for so long, or it cannot be set up.
    NoDevice {
        /// Milliseconds.
        ms: u64,
        /// Whether the device is there and useless.
        failed: bool,
    },
    /// Somebody takes an ENI off the instance, by force.
    DetachByHand {
        /// Among those that are attached and not the primary.
        which: usize,
    },
    /// Somebody takes an address or prefix from an ENI.
    UnassignByHand {
        /// Among all.
        which: usize,
    },
    /// The instance is ended.
    Terminate,
}

/// How a daemon dies and another starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kill {
    /// It dies before the effect that is so many from now; 0 is at once.
    pub(super) at_effect: usize,
    /// Whether the save that is under way is durable all the same.
    pub(super) saved: bool,
    /// Whether the requests that are under way reach EC2 all the same.
    pub(super) sent: bool,
    /// How long nobody serves.
    pub(super) down_ms: u64,
    /// StepAction becomes of the record.
    pub(super) record: RecordFate,
    /// Whether the machine starts anew as well: no pod lives through that.
    pub(super) reboot: bool,
    /// By how much the machine's clock is ahead of the truth from then on.
    pub(super) clock_ahead_ms: i64,
}

/// StepAction becomes of the record when a daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordFate {
    /// Nothing.
    Kept,
    /// It is empty.
    Lost,
    /// It lacks the last so many changes.
    RolledBack(usize),
}

/// StepAction happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallFault {
    /// It is refused with this code, and nothing happens.
    Refused(&'static str),
    /// It is done, and no answer comes.
    Unanswered,
    /// It is done, and the answer comes so much later.
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
];

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
    let n_steps = 1 + rng.index(MOST_STEPS);
    // Rare in most, since little can be said of what somebody has broken by hand.
    let by_hand = rng.one_in(10);
    (0..n_steps).map(|_| step(&mut rng, n_nodes, by_hand)).collect()
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
    let fault = match rng.index(4) {
        0 => CallFault::Unanswered,
        1 => CallFault::Late(rng.below(30_000)),
        _ => CallFault::Refused(REFUSALS[rng.index(REFUSALS.len())]),
    };
    let action = *rng.pick(ACTIONS);
    StepAction::Fault { action, next: 1 + rng.below(4), fault }
}
