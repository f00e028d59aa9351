//! Which failed calls are a matter for the people who run the cluster.

use crate::call::{CallError, CallErrorKind, Ec2Call};
use crate::event::RefusalCode;

/// A failure that passes only if somebody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub code: RefusalCode,
    /// The action that has failed, as EC2 and IAM write it.
    pub action: &'static str,
    /// What has failed and what to do, for people.
    pub note: String,
}

/// The trouble that a failed call shows: a permission that is missing, or a subnet that is full. `None` if the failure
/// may pass by itself, or if a pod that waits is told.
#[must_use]
pub fn trouble(call: &Ec2Call, error: &CallError) -> Option<Trouble> {
    let (code, advice) = match error.kind {
        CallErrorKind::AccessDenied => {
            (RefusalCode::AccessDenied, "allow it in the role of the daemon")
        }
        CallErrorKind::SubnetExhausted => {
            (RefusalCode::SubnetExhausted, "free addresses, or add a subnet for pods")
        }
        CallErrorKind::SubnetFragmented => (
            RefusalCode::SubnetFragmented,
            "reserve a range for prefixes, or add a subnet for pods",
        ),
        CallErrorKind::Throttled
        | CallErrorKind::AddressLimit
        | CallErrorKind::EniLimit
        | CallErrorKind::DeviceIndexTaken
        | CallErrorKind::NotFound
        | CallErrorKind::InUse
        | CallErrorKind::NoCredentials
        | CallErrorKind::Lasting
        | CallErrorKind::OutcomeUnknown
        | CallErrorKind::Rejected => return None,
    };
    let (action, CallError { code: of_ec2, message, .. }) = (call.action().as_str(), error);
    let note = format!("{call}: {of_ec2}: {message}; {advice} (ec2:{action})");
    Some(Trouble { code, action, note })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockKind;

    #[test]
    fn denied_action_and_full_subnet_are_named() {
        let assign = Ec2Call::Assign {
            eni: "eni-1".try_into().unwrap(),
            blocks: BlockKind::V4Address.times(2),
        };
        let check = |call: &Ec2Call, kind, expect: Option<(RefusalCode, &str)>| {
            let (code, message) = ("Code".to_owned(), "why".to_owned());
            let found = trouble(call, &CallError { kind, code, message });
            let found = found.map(|trouble| (trouble.code, trouble.note));
            assert_eq!(found, expect.map(|(code, note)| (code, note.to_owned())), "{kind:?}");
        };
        let denied =
            "DescribeSubnets: Code: why; allow it in the role of the daemon (ec2:DescribeSubnets)";
        let expect = Some((RefusalCode::AccessDenied, denied));
        check(&Ec2Call::DescribeSubnets, CallErrorKind::AccessDenied, expect);
        let full = format!(
            "{assign}: Code: why; free addresses, or add a subnet for pods (ec2:AssignPrivateIpAddresses)"
        );
        check(&assign, CallErrorKind::SubnetExhausted, Some((RefusalCode::SubnetExhausted, &full)));
        check(&assign, CallErrorKind::Throttled, None);
        check(&assign, CallErrorKind::NoCredentials, None);
    }
}
