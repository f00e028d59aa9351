//! All points. A name has the place, and what just happened or is about to happen. Tests try every
//! point, and fail if a point is never passed.

/// The points of `ipamd`. Changes of the record have their names in the log, calls those of EC2.
pub const IPAMD: &[&str] = &[
    // A start: the socket exists under a temporary name; then the log is rewritten.
    "socket-bound",
    "snapshot-written",
    "snapshot-kept",
    "snapshot-renamed",
    "snapshot-synced",
    // A change is decided and not yet in the log, as after a power failure before the write.
    "unwritten-assigned",
    "unwritten-released",
    "unwritten-resting",
    "unwritten-rested",
    "unwritten-intended",
    "unwritten-settled",
    "unwritten-booted",
    "unwritten-eni_known",
    "unwritten-eni_forgotten",
    "unwritten-vpc_ranges",
    "unwritten-delegated",
    // The change is in the log and not yet on disk.
    "written-assigned",
    "written-released",
    "written-resting",
    "written-rested",
    "written-intended",
    "written-settled",
    "written-booted",
    "written-eni_known",
    "written-eni_forgotten",
    "written-vpc_ranges",
    "written-delegated",
    // The change is on disk, and its effects are still to come.
    "synced-assigned",
    "synced-released",
    "synced-resting",
    "synced-rested",
    "synced-intended",
    "synced-settled",
    "synced-booted",
    "synced-eni_known",
    "synced-eni_forgotten",
    "synced-vpc_ranges",
    "synced-delegated",
    // Before a call of EC2. `UnassignIpv6Addresses` is missing: a node keeps its one /80, so no test passes it.
    // `SetSecurityGroups` is a ModifyNetworkInterfaceAttribute too.
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
    "calling-SetSecurityGroups",
    // After EC2's answer.
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
    "called-SetSecurityGroups",
    // The kernel's side of an ENI is ready, and the engine does not know it yet.
    "host-synced",
    // The answer is decided and not yet sent.
    "replying-add",
    "replying-del",
    "replying-gc",
    // A DEL that the plugin left on disk: it is read; then it is applied and its file still exists.
    "note-read",
    "note-applied",
];

/// The points of the plugin.
pub const PLUGIN: &[&str] = &[
    // ADD, in its order.
    "add-connected",
    "add-granted",
    "link-made",
    "link-marked",
    "link-furnished",
    "link-routed",
    "link-ruled",
    // Only on the data path `ipvlan`: the child is there, and has neither its name nor its mark.
    "child-made",
    // Only for a pod with host ports: they are open, and their note is missing.
    "ports-opened",
    "add-printing",
    // DEL, in its order.
    "del-begun",
    "del-answered",
    // The note of its host ports is gone, and the ports are still open.
    "ports-unnoted",
    "unlink-unruled",
    "unlink-unrouted",
    "unlink-retired",
    "del-unlinked",
    // DEL without a daemon: its note has a temporary name; then it is on disk.
    "del-drafted",
    "del-noted",
    // GC: the daemon released attachments, and their links still exist.
    "gc-collected",
];
