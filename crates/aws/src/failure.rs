//! Failed calls: converts the SDK's errors and invalid answers to `ipam`'s errors.
//!
//! A failure does not know its call; the caller adds the action at the end.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use ipam::call::{CallError, CallErrorKind};

use crate::classify::{classify, classify_status};
use crate::ec2::reply::BadField;
use crate::http::AnswerTooLong;

/// The code of a call that was not sent because there are no credentials.
const NO_CREDENTIALS: &str = "NoCredentials";
/// The code of an answer that is longer than it may be.
const TOO_LONG: &str = "AnswerTooLong";
/// How much an error shows of a text from outside, in characters. An encoded authorization message, which people
/// decode, has up to 3,000.
const SHOWN: usize = 4_000;
/// How much of a code.
const SHOWN_OF_CODE: usize = 100;
/// What a person can do about missing credentials.
const CREDENTIALS_ADVICE: &str = "if that lasts, see that the pod's service account or the instance \
                                  has a role, and that STS, the pod identity agent or the metadata \
                                  service, whichever gives it, can be reached";

/// Why a call has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// EC2 has refused it.
    Refused(CallError),
    /// It failed before EC2 answered, or the answer was incomplete or invalid.
    Unanswered { kind: CallErrorKind, code: &'static str, problem: String },
}

impl Failure {
    /// The error for `action`, which is named as EC2 spells it.
    pub(crate) fn of(self, action: &str) -> CallError {
        match self {
            Self::Refused(error) => error,
            Self::Unanswered { kind, code, problem } => {
                CallError { kind, code: code.to_owned(), message: format!("{action}: {problem}") }
            }
        }
    }

    /// Adds `advice` to EC2's message if EC2 has refused with this kind.
    pub(crate) fn advised(mut self, kind: CallErrorKind, advice: &str) -> Self {
        if let Self::Refused(error) = &mut self
            && error.kind == kind
        {
            error.message.push_str(advice);
        }
        self
    }

    /// More items than there may be.
    pub(crate) fn too_long(problem: String) -> Self {
        Self::Unanswered { kind: CallErrorKind::OutcomeUnknown, code: TOO_LONG, problem }
    }

    /// The problem is one line. The SDK's errors have line breaks.
    fn unanswered(kind: CallErrorKind, code: &'static str, error: &(dyn Error + 'static)) -> Self {
        let causes: Vec<_> = causes(error).map(ToString::to_string).collect();
        let problem = shown(&causes.join(": "), SHOWN);
        let problem = match code {
            NO_CREDENTIALS => format!("no credentials yet: {problem}; {CREDENTIALS_ADVICE}"),
            _ => problem,
        };
        Self::Unanswered { kind, code, problem }
    }
}

/// The call may have had its effect.
impl From<BadField> for Failure {
    fn from(field: BadField) -> Self {
        Self::unanswered(CallErrorKind::OutcomeUnknown, "MalformedAnswer", &field)
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let (kind, code) = match &error {
            SdkError::ServiceError(answer) => {
                return answered(answer.raw().status().as_u16(), answer.err());
            }
            SdkError::ConstructionFailure(_) => (CallErrorKind::Rejected, "RequestNotBuilt"),
            SdkError::TimeoutError(_) => (CallErrorKind::OutcomeUnknown, "TimedOut"),
            SdkError::DispatchFailure(_) => unsent(&error),
            SdkError::ResponseError(_) if is_too_long(&error) => {
                (CallErrorKind::OutcomeUnknown, TOO_LONG)
            }
            // The one variant left means that the connection broke within the answer.
            _ => (CallErrorKind::OutcomeUnknown, "AnswerLost"),
        };
        Self::unanswered(kind, code, &error)
    }
}

/// The error of a call of `action`, in `ipam`'s kinds: for callers with a client of their own.
pub fn call_error<E>(action: &str, error: SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    Failure::from(error).of(action)
}

/// An answer with an error status, or a success that could not be read.
fn answered<E: ProvideErrorMetadata + Error + 'static>(status: u16, error: &E) -> Failure {
    let Some(code) = error.code() else {
        return Failure::unanswered(classify_status(status), "UnreadableAnswer", error);
    };
    let message = error.message().unwrap_or_default();
    Failure::Refused(CallError {
        kind: classify(status, code, message),
        code: shown(code, SHOWN_OF_CODE),
        message: shown(message, SHOWN),
    })
}

/// A failure to send.
///
/// 1. Missing credentials: nothing was sent. The SDK also reports missing credentials if the metadata
///    service refuses connections, so they may come later.
/// 2. A refused connection: the outcome is unknown. This attempt had no effect, but an earlier attempt of the
///    same call may have had one. The SDK does not show that it never connected. A needless describe costs
///    little, and a forgotten ENI leaks.
fn unsent(error: &(dyn Error + 'static)) -> (CallErrorKind, &'static str) {
    match causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
        Some(CredentialsError::InvalidConfiguration(_)) => {
            (CallErrorKind::AccessDenied, NO_CREDENTIALS)
        }
        Some(_) => (CallErrorKind::NoCredentials, NO_CREDENTIALS),
        None => (CallErrorKind::OutcomeUnknown, "ConnectionFailed"),
    }
}

fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<AnswerTooLong>())
}

/// One line of `text`, without control characters, `most` characters of it at most.
fn shown(text: &str, most: usize) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let mut line = lines.join(" ").replace(char::is_control, " ");
    if let Some((end, _)) = line.char_indices().nth(most) {
        let n_more = line[end..].chars().count();
        line.truncate(end);
        line.push_str(&format!("… ({n_more} characters more)"));
    }
    line
}

/// The error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::error::ConnectorError;
    use aws_sdk_ec2::operation::delete_network_interface::DeleteNetworkInterfaceError;

    use super::*;

    type DeleteError = SdkError<DeleteNetworkInterfaceError, HttpResponse>;

    #[test]
    fn unsent_call_is_classified_by_its_cause() {
        use CallErrorKind::{AccessDenied, NoCredentials, OutcomeUnknown, Rejected};
        let check = |error: DeleteError, kind, text: &str| {
            let failure = Failure::from(error).of("DeleteNetworkInterface");
            assert_eq!((failure.kind, &*failure.to_string()), (kind, text));
        };
        let unsent = |cause: CredentialsError| {
            DeleteError::dispatch_failure(ConnectorError::other(cause.into(), None))
        };
        let lacking = |text| {
            let start =
                "NoCredentials: DeleteNetworkInterface: no credentials yet: dispatch failure";
            format!("{start}: other: {text}; {CREDENTIALS_ADVICE}")
        };
        check(
            unsent(CredentialsError::not_loaded("nowhere:\n  not here")),
            NoCredentials,
            &lacking("the credential provider was not enabled: nowhere: not here"),
        );
        check(
            unsent(CredentialsError::provider_error("STS is down")),
            NoCredentials,
            &lacking("an error occurred while loading credentials: STS is down"),
        );
        check(
            unsent(CredentialsError::invalid_configuration("a file that makes no sense")),
            AccessDenied,
            &lacking(
                "the credentials provider was not properly configured: a file that makes no sense",
            ),
        );
        check(
            DeleteError::dispatch_failure(ConnectorError::io("reset".into())),
            OutcomeUnknown,
            "ConnectionFailed: DeleteNetworkInterface: dispatch failure: io error: reset",
        );
        check(
            DeleteError::timeout_error("10 s"),
            OutcomeUnknown,
            "TimedOut: DeleteNetworkInterface: request has timed out: 10 s",
        );
        check(
            DeleteError::construction_failure("no id"),
            Rejected,
            "RequestNotBuilt: DeleteNetworkInterface: failed to construct request: no id",
        );
    }
}
