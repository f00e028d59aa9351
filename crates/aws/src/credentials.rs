//! Where credentials come from is the SDK's matter; how long that may take is ours.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provision;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

/// Less than any call to EC2 may take, or the call would seem to have timed out with an unknown
/// outcome. STS and its like answer within a second.
const PATIENCE: Duration = Duration::from_secs(8);

/// Credentials of another provider, within a bound. Some of the SDK's have none: where packets to
/// STS are dropped, they wait for ever.
#[derive(Debug)]
pub(crate) struct Bounded(pub(crate) SharedCredentialsProvider);

impl ProvideCredentials for Bounded {
    fn provide_credentials<'a>(&'a self) -> Provision<'a>
    where
        Self: 'a,
    {
        Provision::new(async {
            let provision = tokio::time::timeout(PATIENCE, self.0.provide_credentials());
            let late = |_late| Err(CredentialsError::provider_timed_out(PATIENCE));
            provision.await.unwrap_or_else(late)
        })
    }
}
