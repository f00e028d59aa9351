//! Why the engine calls EC2. Every call carries its reason, for the log.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::call::GroupList;
use crate::id::SecurityGroupId;

/// Why a call is made. Displayed as the clause after the call: "31 free, 16 wanted, for 300 s".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A describe: nothing is known yet.
    Start,
    /// A describe: the last one is long ago.
    Audit,
    /// A describe: the last one has failed.
    Again,
    /// A describe: EC2 may lag behind a recent change.
    Confirm,
    /// A describe: a call has an unknown outcome, or a refusal contradicts what is known.
    Unclear,
    /// A describe: the metadata service shows other addresses than EC2.
    Hint,
    /// A describe: the device of an ENI has gone.
    DeviceGone,
    /// A describe: an ENI is to be created or changed by it, and the last one is minutes old.
    Outdated,
    /// A describe: the policy has changed.
    Policy,
    /// A describe: pods lack addresses, and nothing may be changed. Somebody else may have brought more.
    LookForMore,
    /// A search for ENIs that ended nodes have left behind.
    LeakSearch,
    /// The pool is too small.
    Short {
        /// Free addresses, those under way included.
        free: u64,
        /// Free addresses that the targets want.
        wanted: u64,
        /// Pods that wait.
        waiting: u64,
        /// Pods that are bound to the node and ask soon.
        expected: u64,
    },
    /// The pool is too large.
    Surplus {
        /// Free addresses.
        free: u64,
        /// Free addresses that the targets want.
        wanted: u64,
        /// For how long the surplus has lasted.
        lasted: Duration,
    },
    /// An ENI is new: it must be attached, or die with its instance.
    NewEni,
    /// No device has come for an attached ENI.
    NoDevice,
    /// An ENI could not be attached.
    AttachRefused,
    /// An unattached ENI is not needed.
    Unneeded,
    /// EC2 shows an ENI on its way off the instance.
    Detaching,
    /// An ended node of the cluster has left an ENI behind.
    Leaked,
    /// An ENI of ours has other security groups than the primary ENI.
    OtherGroups {
        /// The groups that EC2 describes on it.
        has: BTreeSet<SecurityGroupId>,
    },
    /// An earlier run began the call.
    LeftOpen,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Reason::Short { free, wanted, waiting, expected } => {
                write!(f, "{free} free, {wanted} wanted, {waiting} pods wait")?;
                return match expected {
                    0 => Ok(()),
                    n => write!(f, ", {n} more are about to start"),
                };
            }
            Reason::Surplus { free, wanted, lasted } => {
                let seconds = lasted.as_secs();
                return write!(f, "{free} free, {wanted} wanted, for {seconds} s");
            }
            Reason::OtherGroups { has } => {
                return write!(f, "it has {}, and the primary ENI has others", GroupList(has));
            }
            Reason::Start => "nothing is known yet",
            Reason::Audit => "the last describe is long ago",
            Reason::Again => "the last describe has failed",
            Reason::Confirm => "EC2 may lag behind a recent change",
            Reason::Unclear => "a call's answer leaves the state unclear",
            Reason::Hint => "the metadata service shows other addresses",
            Reason::DeviceGone => "the device of an ENI has gone",
            Reason::Outdated => {
                "a call goes by the primary ENI, and the last describe is minutes old"
            }
            Reason::Policy => "the policy has changed",
            Reason::LookForMore => "pods lack addresses, which only somebody else may bring",
            Reason::LeakSearch => "ended nodes may have left ENIs behind",
            Reason::NewEni => "the ENI is new",
            Reason::NoDevice => "no device has come for it",
            Reason::AttachRefused => "it cannot be attached",
            Reason::Unneeded => "it is unattached and not needed",
            Reason::Detaching => "EC2 shows it on its way off the instance",
            Reason::Leaked => "an ended node has left it behind",
            Reason::LeftOpen => "an earlier run began the call",
        };
        f.write_str(text)
    }
}
