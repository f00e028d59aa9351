//! The plugin's own failures, each with its code. docs/errors.md has the same list, with what to do
//! about each; a test compares the two.

use std::error::Error;
use std::time::Duration;

use cni::{CniError, ErrorCode, PluginCode};
use proto::v1::Refused;

/// A failure of the plugin itself; the daemon's refusals are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// ADD: the pod has an interface of that name already.
    InterfaceExists,
    /// ADD: the pod's link could not be made.
    LinkSetup,
    /// DEL, GC: some of a pod's link could not be removed.
    LinkRemoval,
    /// CHECK: the pod's link differs from what the ADD made.
    LinkChanged,
    /// CHECK: the daemon's record and the ADD's result differ.
    RecordDiffers,
    /// The daemon's answer is malformed.
    BadAnswer,
    /// ADD, CHECK: the daemon granted what only a newer plugin can set up.
    UnsupportedGrant,
    /// ADD: another pod has the host port.
    HostPortTaken,
    /// ADD: the data path `ipvlan` cannot do what is asked of it.
    IpvlanUnfit,
}

impl Failure {
    /// The name in messages and documents.
    fn name(self) -> &'static str {
        match self {
            Failure::InterfaceExists => "INTERFACE_EXISTS",
            Failure::LinkSetup => "LINK_SETUP",
            Failure::LinkRemoval => "LINK_REMOVAL",
            Failure::LinkChanged => "LINK_CHANGED",
            Failure::RecordDiffers => "RECORD_DIFFERS",
            Failure::BadAnswer => "BAD_ANSWER",
            Failure::UnsupportedGrant => "UNSUPPORTED_GRANT",
            Failure::HostPortTaken => "HOST_PORT_TAKEN",
            Failure::IpvlanUnfit => "IPVLAN_UNFIT",
        }
    }

    fn code(self) -> PluginCode {
        PluginCode::nth(match self {
            Failure::InterfaceExists => 50,
            Failure::LinkSetup => 51,
            Failure::LinkRemoval => 52,
            Failure::LinkChanged => 53,
            Failure::RecordDiffers => 54,
            Failure::BadAnswer => 55,
            Failure::UnsupportedGrant => 56,
            Failure::HostPortTaken => 57,
            Failure::IpvlanUnfit => 58,
        })
    }

    /// The error for the runtime.
    pub(crate) fn error(self, details: impl Into<String>) -> CniError {
        CniError::new(ErrorCode::Plugin(self.code()), self.name(), details)
    }
}

/// The daemon's refusals, each with what its code is above 100. Code 100 is for a newer daemon's refusal that this
/// list lacks.
const REFUSALS: [(u16, &str); 19] = [
    (1, "STARTING"),
    (2, "ATTACHING"),
    (3, "SUBNET_EXHAUSTED"),
    (4, "SUBNET_FRAGMENTED"),
    (5, "ENI_LIMIT"),
    (6, "ADDRESS_LIMIT"),
    (7, "ALL_COOLING"),
    (8, "THROTTLED"),
    (9, "ACCESS_DENIED"),
    (10, "MAX_PODS"),
    (11, "EC2_FAILING"),
    (12, "LINK_FAILING"),
    (13, "STATE_UNWRITABLE"),
    (14, "EC2_REFUSES"),
    (15, "KERNEL_UNREAD"),
    (19, "ENI_CONFIG"),
    (72, "PROVISIONING_OFF"),
    (70, "POLICY_AGENT_AWAY"),
    (71, "POLICY_AGENT_REFUSES"),
];

fn refusal_code(name: &str) -> PluginCode {
    PluginCode::nth(REFUSALS.iter().find(|(_, refusal)| *refusal == name).map_or(0, |(n, _)| *n))
}

/// Refusals whose cause a person has to remove. They keep their code although the daemon retries.
const LASTING: [&str; 9] = [
    "SUBNET_EXHAUSTED",
    "SUBNET_FRAGMENTED",
    "ENI_LIMIT",
    "ADDRESS_LIMIT",
    "ACCESS_DENIED",
    "MAX_PODS",
    "EC2_REFUSES",
    "ENI_CONFIG",
    "PROVISIONING_OFF",
];

/// ADD: the daemon has no address. Code 11 if it expects one and no person need do anything.
pub(crate) fn refused(refused: &Refused) -> CniError {
    let wait = (refused.retry_after_ms > 0).then(|| Duration::from_millis(refused.retry_after_ms));
    let code = match wait {
        Some(_) if !LASTING.contains(&refused.code.as_str()) => ErrorCode::TryAgainLater,
        _ => ErrorCode::Plugin(refusal_code(&refused.code)),
    };
    let details = match wait {
        Some(wait) => format!("try again in {wait:?}"),
        None => "ipamd expects no address".to_owned(),
    };
    CniError::new(code, format!("{}: {}", refused.code, refused.message), details)
}

/// ADD, CHECK: nobody enforces the network policies of the pod.
pub(crate) fn unpoliced(refused: &Refused) -> CniError {
    let code = ErrorCode::Plugin(refusal_code(&refused.code));
    CniError::new(code, format!("{}: {}", refused.code, refused.message), "")
}

/// STATUS: an ADD would be refused. Code 51 if the network of pods is broken, else 50.
pub(crate) fn not_ready(refused: &Refused) -> CniError {
    let code = match refused.code.as_str() {
        "LINK_FAILING" => ErrorCode::LimitedConnectivity,
        _ => ErrorCode::NotAvailable,
    };
    CniError::new(code, format!("{}: {}", refused.code, refused.message), "")
}

/// An error with all its causes in one line, outermost first.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text += &format!(": {source}");
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, retry_after_ms: u64) -> Refused {
        let message = "subnet-1 has 0 of 251 addresses free".to_owned();
        Refused { code: code.to_owned(), message, retry_after_ms }
    }

    #[test]
    fn refusal_with_retry_after_is_code_11() {
        let error = refused(&refusal("ATTACHING", 1500));
        assert_eq!(error.code, ErrorCode::TryAgainLater);
        assert_eq!(error.msg, "ATTACHING: subnet-1 has 0 of 251 addresses free");
        assert_eq!(error.details, "try again in 1.5s");
    }

    #[test]
    fn lasting_refusal_with_retry_after_keeps_its_code() {
        let error = refused(&refusal("SUBNET_EXHAUSTED", 2000));
        assert_eq!(error.code.number(), 103);
        assert_eq!(error.details, "try again in 2s");
        assert!(LASTING.iter().all(|name| REFUSALS.iter().any(|(_, refusal)| refusal == name)));
    }

    #[test]
    fn refusal_without_retry_after_has_its_own_code() {
        for (name, number) in [("STARTING", 101), ("SUBNET_EXHAUSTED", 103), ("NEW", 100)] {
            let error = refused(&refusal(name, 0));
            assert_eq!(error.code.number(), number);
            assert!(error.msg.contains(name) && error.msg.contains("subnet-1"), "{error}");
        }
    }

    #[test]
    fn agents_refusals_have_their_codes() {
        for (name, number) in [("POLICY_AGENT_AWAY", 170), ("POLICY_AGENT_REFUSES", 171)] {
            let error = unpoliced(&refusal(name, 0));
            assert_eq!(error.code.number(), number);
            assert!(error.msg.starts_with(name), "{error}");
        }
    }

    #[test]
    fn not_ready_for_link_failing_is_code_51() {
        assert_eq!(not_ready(&refusal("LINK_FAILING", 0)).code, ErrorCode::LimitedConnectivity);
        assert_eq!(not_ready(&refusal("SUBNET_EXHAUSTED", 9)).code, ErrorCode::NotAvailable);
    }

    /// The rows of the document's tables: code and name.
    fn documented() -> Vec<(u32, String)> {
        let text = include_str!("../../docs/errors.md");
        let row = |line: &str| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let code = cells.next()?.parse().ok()?;
            Some((code, cells.next()?.trim_matches('`').to_owned()))
        };
        text.lines().filter_map(row).filter(|(code, _)| *code >= PluginCode::FIRST).collect()
    }

    const FAILURES: [Failure; 9] = [
        Failure::InterfaceExists,
        Failure::LinkSetup,
        Failure::LinkRemoval,
        Failure::LinkChanged,
        Failure::RecordDiffers,
        Failure::BadAnswer,
        Failure::UnsupportedGrant,
        Failure::HostPortTaken,
        Failure::IpvlanUnfit,
    ];

    #[test]
    fn errors_document_lists_exactly_these_codes() {
        let number = |code| ErrorCode::Plugin(code).number();
        let mut ours = vec![(100, "any other".to_owned())];
        ours.extend(REFUSALS.map(|(_, name)| (number(refusal_code(name)), name.to_owned())));
        ours.extend(FAILURES.map(|f| (number(f.code()), f.name().to_owned())));
        assert_eq!(documented(), ours);
    }
}
