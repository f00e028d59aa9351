//! Classifies EC2's errors by code, message and HTTP status into the kinds that `ipam` distinguishes.
//!
//! It knows no call, since a code means the same after every call, and no SDK.

use ipam::call::CallErrorKind;

/// Phrases in messages with the code `InvalidParameterValue`. EC2 has this one code for refusals that need
/// different reactions, and only the message distinguishes them. No other text matters.
///
/// EC2 sends the first since 2024 in place of `InsufficientFreeAddressesInSubnet` (AWS support, quoted in
/// Cilium's pull request 31016). The others are as old as the API. A text that EC2 has changed means
/// `Rejected`.
const INVALID_PARAMETER_VALUE: [(&str, CallErrorKind); 5] = [
    ("sufficient free Ipv4 addresses or prefixes", CallErrorKind::SubnetExhausted),
    ("already has an interface attached at device index", CallErrorKind::DeviceIndexTaken),
    ("is currently in use", CallErrorKind::InUse),
    ("Tag key", CallErrorKind::Lasting),
    ("Tag value", CallErrorKind::Lasting),
];

/// The kind of an error answer.
///
/// `code` and `message` are those of the first error in the answer, or empty.
/// Source of the codes: EC2 API reference, "Error codes for the Amazon EC2 API".
#[must_use]
pub fn classify(status: u16, code: &str, message: &str) -> CallErrorKind {
    match code {
        "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "EC2ThrottledException"
        | "LimitExceededException"
        | "PriorRequestNotComplete"
        | "ProvisionedThroughputExceededException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "ThrottledException"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => CallErrorKind::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "PendingVerification"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException" => CallErrorKind::AccessDenied,
        "InsufficientFreeAddressesInSubnet" => CallErrorKind::SubnetExhausted,
        "InsufficientCidrBlocks" => CallErrorKind::SubnetFragmented,
        "PrivateIpAddressLimitExceeded" | "InvalidInterface.IpAddressLimitExceeded" => {
            CallErrorKind::AddressLimit
        }
        "AttachmentLimitExceeded" => CallErrorKind::EniLimit,
        "InvalidNetworkInterface.InUse" => CallErrorKind::InUse,
        "InvalidParameterValue" => classify_parameter(message),
        _ if is_eni_not_found(code) => CallErrorKind::NotFound,
        _ if is_lasting(code) => CallErrorKind::Lasting,
        _ => classify_status(status),
    }
}

/// EC2 spells these codes irregularly: `InvalidNetworkInterfaceID.NotFound`, `InvalidAttachmentID.NotFound`.
/// A missing ENI may appear soon.
fn is_eni_not_found(code: &str) -> bool {
    code.strip_suffix(".NotFound").is_some_and(|id| {
        id.starts_with("InvalidNetworkInterface") || id.starts_with("InvalidAttachment")
    })
}

/// Whether the call fails until somebody raises a quota, or changes a tag, a security group or a subnet. All
/// quotas have codes that end alike; the throttling codes and the limits of an instance come before.
fn is_lasting(code: &str) -> bool {
    const PLACES: [&str; 5] =
        ["InvalidGroup", "InvalidSecurityGroup", "InvalidSubnet", "InvalidTag", "InvalidVpc"];
    code.ends_with("LimitExceeded")
        || code == "TagPolicyViolation"
        || PLACES.iter().any(|place| code.starts_with(place))
}

fn classify_parameter(message: &str) -> CallErrorKind {
    INVALID_PARAMETER_VALUE
        .into_iter()
        .find(|(phrase, _)| message.contains(phrase))
        .map_or(CallErrorKind::Rejected, |(_, kind)| kind)
}

/// The kind by the status alone. Below 300 the call succeeded, but its answer could not be read.
pub(crate) fn classify_status(status: u16) -> CallErrorKind {
    match status {
        429 => CallErrorKind::Throttled,
        300..500 => CallErrorKind::Rejected,
        _ => CallErrorKind::OutcomeUnknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CallErrorKind::*;

    /// Status, code and message as EC2 sends them, and the kind.
    const ANSWERS: &[(u16, &str, &str, CallErrorKind)] = &[
        (503, "RequestLimitExceeded", "Request limit exceeded.", Throttled),
        (503, "EC2ThrottledException", "", Throttled),
        (400, "Throttling", "Rate exceeded", Throttled),
        (429, "", "", Throttled),
        (
            403,
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
            AccessDenied,
        ),
        (
            401,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
            AccessDenied,
        ),
        (400, "RequestExpired", "Request has expired.", AccessDenied),
        (
            400,
            "InsufficientFreeAddressesInSubnet",
            "The specified subnet does not have enough free addresses to satisfy the request.",
            SubnetExhausted,
        ),
        (
            400,
            "InvalidParameterValue",
            "There aren't sufficient free Ipv4 addresses or prefixes",
            SubnetExhausted,
        ),
        (
            400,
            "InsufficientCidrBlocks",
            "The specified subnet does not have enough free cidr blocks to satisfy the request.",
            SubnetFragmented,
        ),
        (
            400,
            "InsufficientCidrBlocks",
            "There are not enough free cidr blocks in the specified subnet to satisfy the request.",
            SubnetFragmented,
        ),
        (
            400,
            "PrivateIpAddressLimitExceeded",
            "Number of private addresses will exceed limit.",
            AddressLimit,
        ),
        (
            400,
            "InvalidInterface.IpAddressLimitExceeded",
            "Address count 7 on interface-087 exceeds the limit for t3.medium",
            AddressLimit,
        ),
        (
            400,
            "AttachmentLimitExceeded",
            "Interface count 4 exceeds the limit for t3.medium",
            EniLimit,
        ),
        (
            400,
            "InvalidParameterValue",
            "Instance 'i-1' already has an interface attached at device index '1'.",
            DeviceIndexTaken,
        ),
        (
            400,
            "InvalidNetworkInterfaceID.NotFound",
            "The networkInterface ID 'eni-1' does not exist",
            NotFound,
        ),
        (
            400,
            "InvalidAttachmentID.NotFound",
            "The attachment ID 'eni-attach-1' does not exist",
            NotFound,
        ),
        (400, "InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", Lasting),
        (400, "InvalidGroup.NotFound", "The security group 'sg-1' does not exist", Lasting),
        (400, "InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist", Rejected),
        (400, "InvalidNetworkInterface.InUse", "Interface: [eni-1] in use.", InUse),
        (400, "InvalidParameterValue", "Network interface 'eni-1' is currently in use.", InUse),
        (400, "InvalidParameterValue", "invalid value for parameter address: X", Rejected),
        (
            400,
            "InvalidParameterValue",
            "Some of the specified addresses are not assigned to interface eni-1",
            Rejected,
        ),
        (400, "NetworkInterfaceLimitExceeded", "", Lasting),
        (400, "SecurityGroupsPerInterfaceLimitExceeded", "", Lasting),
        (400, "TagLimitExceeded", "", Lasting),
        (400, "TagPolicyViolation", "The tag policy does not allow the specified value", Lasting),
        (400, "InvalidSecurityGroupID.NotFound", "", Lasting),
        (400, "InvalidGroupId.Malformed", "", Lasting),
        (
            400,
            "InvalidParameterValue",
            "Tag keys starting with 'aws:' are reserved for internal use",
            Lasting,
        ),
        (400, "IdempotentParameterMismatch", "", Rejected),
        (400, "IncorrectState", "Instance 'i-1' is not 'running'.", Rejected),
        (
            400,
            "OperationNotPermitted",
            "The network interface at device index 0 and networkCard index 0 cannot be detached.",
            Rejected,
        ),
        (412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", Rejected),
        (400, "ACodeOfTomorrow", "is currently in use", Rejected),
        (500, "InternalError", "An internal error has occurred", OutcomeUnknown),
        (
            503,
            "Unavailable",
            "The server is overloaded and can't handle the request.",
            OutcomeUnknown,
        ),
        (500, "ACodeOfTomorrow", "", OutcomeUnknown),
        (502, "", "", OutcomeUnknown),
        (407, "", "", Rejected),
        (200, "", "", OutcomeUnknown),
    ];

    #[test]
    fn documented_error_has_its_kind() {
        for &(status, code, message, kind) in ANSWERS {
            assert_eq!(classify(status, code, message), kind, "{status} {code} {message}");
        }
    }
}
