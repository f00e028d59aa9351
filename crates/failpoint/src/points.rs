//! All points, each named after where it is and what has just happened or is about to. Tests try them
//! one by one: a point that nothing passes is a fault.

/// Where `ipamd` can die. Changes of the record are named as its log has them, calls as EC2 does.
pub const IPAMD: &[&str] = &[
    // A start: the socket is there, but not under its name yet; the log is made anew.
    "socket-bound",
    "snapshot-written",
    "snapshot-kept",
    "snapshot-renamed",
    "snapshot-synced",
    // A change is decided and not in the log: what is left where the power fails before it is on disk.
    "unwritten-assigned",
    "unwritten-released",
    "unwritten-resting",
    "unwritten-rested",
    "unwritten-intended",
    "unwritten-settled",
    "unwritten-booted",
    "unwritten-eni_known",
    "unwritten-eni_forgotten",
    // It is in the log and not yet on disk.
    "written-assigned",
    "written-released",
    "written-resting",
    "written-rested",
    "written-intended",
    "written-settled",
    "written-booted",
    "written-eni_known",
    "written-eni_forgotten",
    // It is on disk, and nothing has followed from it.
    "synced-assigned",
    "synced-released",
    "synced-resting",
    "synced-rested",
    "synced-intended",
    "synced-settled",
    "synced-booted",
    "synced-eni_known",
    "synced-eni_forgotten",
    // EC2 is about to be called.
    "calling-DescribeNetworkInterfaces",
    "calling-DescribeSubnets",
    "calling-CreateNetworkInterface",
    "calling-AttachNetworkInterface",
    "calling-ModifyNetworkInterfaceAttribute",
    "calling-AssignPrivateIpAddresses",
    "calling-AssignIpv6Addresses",
    "calling-UnassignPrivateIpAddresses",
    "calling-DetachNetworkInterface",
    "calling-DeleteNetworkInterface",
    // EC2 has answered.
    "called-DescribeNetworkInterfaces",
    "called-DescribeSubnets",
    "called-CreateNetworkInterface",
    "called-AttachNetworkInterface",
    "called-ModifyNetworkInterfaceAttribute",
    "called-AssignPrivateIpAddresses",
    "called-AssignIpv6Addresses",
    "called-UnassignPrivateIpAddresses",
    "called-DetachNetworkInterface",
    "called-DeleteNetworkInterface",
    // The kernel's side of an ENI is ready, and the engine has not been told.
    "host-synced",
    // The answer is decided and not sent.
    "replying-add",
    "replying-del",
    "replying-gc",
    // A DEL that the plugin has left on disk: read; applied, and still there.
    "note-read",
    "note-applied",
];

/// Where the plugin can die.
pub const PLUGIN: &[&str] = &[
    // ADD, in its order.
    "add-connected",
    "add-granted",
    "link-made",
    "link-marked",
    "link-furnished",
    "link-routed",
    "link-ruled",
    "add-printing",
    // DEL, in its order.
    "del-begun",
    "del-answered",
    "unlink-unruled",
    "unlink-unrouted",
    "del-unlinked",
    // DEL without a daemon: its note is written under another name; it is on disk.
    "del-drafted",
    "del-noted",
    // GC: the daemon has released what the links of which are still there.
    "gc-collected",
];
