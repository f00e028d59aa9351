//! What may happen, and how often.

use ec2_model::request::Action;
use lab::chance::Chance;

/// Slots for pods on each node.
const N_PODS: usize = 10;
/// The most steps of a history.
const MOST_STEPS: usize = 90;
/// Tells this stream from the others of the same seed.
const STREAM: u64 = 12;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// So long after the one before.
    pub(super) wait_ms: u64,
    /// Where; no matter for what concerns EC2 as such.
    pub(super) node: usize,
    /// What.
    pub(super) what: What,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
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
        mishap: Mishap,
    },
    /// All that makes calls go wrong is mended.
    Mend,
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
    /// What becomes of the record.
    pub(super) record: Fate,
    /// Whether the machine starts anew as well: no pod lives through that.
    pub(super) reboot: bool,
    /// By how much the machine's clock is ahead of the truth from then on.
    pub(super) clock_ahead_ms: i64,
}

/// What becomes of the record when a daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Kept,
    /// It is empty.
    Lost,
    /// It lacks the last so many changes.
    RolledBack(usize),
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mishap {
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

pub(super) fn steps_of(seed: u64, n_nodes: usize) -> Vec<Step> {
    let mut chance = Chance::new(seed, STREAM);
    let n_steps = 1 + chance.index(MOST_STEPS);
    // Rare in most, since little can be said of what somebody has broken by hand.
    let by_hand = chance.one_in(10);
    (0..n_steps).map(|_| step(&mut chance, n_nodes, by_hand)).collect()
}

fn step(chance: &mut Chance, n_nodes: usize, by_hand: bool) -> Step {
    let wait_ms = match chance.index(10) {
        0..4 => chance.below(30),
        4..7 => chance.below(1_500),
        7..9 => chance.below(20_000),
        _ => chance.below(400_000),
    };
    let node = chance.index(n_nodes);
    let what = match chance.index(100) {
        0..38 => add(chance),
        38..41 => What::Abandon { pod: chance.index(N_PODS) },
        41..62 => What::Del { pod: chance.index(N_PODS), transit_ms: transit(chance) },
        62..65 => What::Gc,
        65..69 => What::Die { pod: chance.index(N_PODS) },
        69..80 => What::Kill(kill(chance)),
        80..90 => fault(chance),
        90..92 => What::Mend,
        92..93 => What::Occupy { addresses: *chance.pick(&[5, 20, 60, 600]) },
        93..94 => What::Vacate,
        94..96 => What::FullDisk { ms: chance.below(4_000) },
        96..98 => What::NoDevice { ms: chance.below(20_000), failed: chance.one_in(2) },
        _ if by_hand && chance.one_in(2) => What::DetachByHand { which: chance.index(4) },
        _ if by_hand => What::UnassignByHand { which: chance.index(30) },
        98 if chance.one_in(6) => What::Terminate,
        _ => add(chance),
    };
    Step { wait_ms, node, what }
}

fn transit(chance: &mut Chance) -> u64 {
    if chance.one_in(8) { chance.below(3_000) } else { chance.below(5) }
}

fn add(chance: &mut Chance) -> What {
    What::Add {
        pod: chance.index(N_PODS),
        patience_ms: if chance.one_in(4) { chance.below(3_000) } else { 67_500 },
        transit_ms: transit(chance),
        again: chance.one_in(3),
    }
}

fn kill(chance: &mut Chance) -> Kill {
    let record = match chance.index(12) {
        0 => Fate::Lost,
        1 => Fate::RolledBack(1 + chance.index(20)),
        _ => Fate::Kept,
    };
    let jump = i64::try_from(chance.below(7_200_000)).unwrap_or_default();
    Kill {
        at_effect: if chance.one_in(4) { 0 } else { chance.index(12) },
        saved: chance.one_in(2),
        sent: chance.one_in(2),
        down_ms: if chance.one_in(4) { chance.below(90_000) } else { chance.below(500) },
        record,
        reboot: chance.one_in(12),
        clock_ahead_ms: *chance.pick(&[0, 0, 0, jump, -jump]),
    }
}

fn fault(chance: &mut Chance) -> What {
    let mishap = match chance.index(4) {
        0 => Mishap::Unanswered,
        1 => Mishap::Late(chance.below(30_000)),
        _ => Mishap::Refused(REFUSALS[chance.index(REFUSALS.len())]),
    };
    let action = *chance.pick(ACTIONS);
    What::Fault { action, next: 1 + chance.below(4), mishap }
}
