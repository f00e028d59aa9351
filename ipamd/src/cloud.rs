//! Who answers the engine's calls: EC2, or the metadata service in its place. With the latter there is no client of EC2, so
//! nothing can ask it.

use std::time::Duration;

use aws::{Ec2, Imds};
use ipam::call::{CallError, CallErrorKind, CallOutput, Ec2Call};

/// The service answers within milliseconds; fifteen ENIs take a hundred and fifty small requests in a row.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who answers.
#[derive(Debug, Clone)]
pub(crate) enum Cloud {
    /// EC2.
    Ec2(Ec2),
    /// The metadata service: `ENABLE_IMDS_ONLY_MODE`.
    Metadata(Imds),
}

impl Cloud {
    /// Carries out a call.
    ///
    /// # Errors
    /// EC2's refusal, or why there is no answer.
    pub(crate) async fn execute(&self, call: &Ec2Call) -> Result<CallOutput, CallError> {
        match self {
            Cloud::Ec2(ec2) => ec2.execute(call).await,
            Cloud::Metadata(imds) => {
                let answer = tokio::time::timeout(TIMEOUT, imds.describe(call)).await;
                answer.unwrap_or_else(|_late| Err(late()))
            }
        }
    }
}

fn late() -> CallError {
    CallError {
        kind: CallErrorKind::OutcomeUnknown,
        code: "MetadataAway".to_owned(),
        message: format!("the metadata service has not answered within {TIMEOUT:?}"),
    }
}
