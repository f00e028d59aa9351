//! A time limit for the SDK's credential providers. It must not know where credentials come from.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provision;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

/// Less than the time-out of any call to EC2. Otherwise the call would time out with an unknown outcome.
/// STS and the other services answer within a second.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Another provider with a time limit. Some of the SDK's providers have none: if packets to STS are dropped,
/// they wait for ever.
#[derive(Debug)]
pub(crate) struct Bounded(pub(crate) SharedCredentialsProvider);

impl ProvideCredentials for Bounded {
    fn provide_credentials<'a>(&'a self) -> Provision<'a>
    where
        Self: 'a,
    {
        Provision::new(async {
            let provision = tokio::time::timeout(TIMEOUT, self.0.provide_credentials());
            let late = |_late| Err(CredentialsError::provider_timed_out(TIMEOUT));
            provision.await.unwrap_or_else(late)
        })
    }
}
