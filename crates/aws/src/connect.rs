//! Makes clients of EC2: who calls, by which way, and how long an attempt may take. It must not know what is asked.

use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, FrameworkMetadata, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{Credentials, SharedHttpClient};
use service_url::ServiceUrl;

use crate::credentials::Bounded;
use crate::http::{ConnectError, Proxies, client};
use crate::trust::Roots;

/// A TCP and TLS handshake inside a region takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Whose credentials are used.
#[derive(Debug, Clone)]
pub enum Identity {
    /// These.
    Fixed(Credentials),
    /// Those that the SDK's default chain finds: environment, profile, web identity, pod identity, instance role.
    Default,
    /// Those of a profile of the AWS configuration files.
    Profile(String),
    /// Those of a role, by its ARN, which the default chain's may assume.
    Role(String),
}

/// Where EC2 is and who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose credentials are used.
    pub identity: Identity,
    /// For example `eu-central-1`. Without it the SDK looks in environment, profile and metadata service.
    pub region: Option<String>,
    /// Where EC2 listens if not at the region's own address.
    pub endpoint: Option<ServiceUrl>,
    /// By which proxy requests to EC2 and STS go.
    pub proxies: Proxies,
    /// By which certificates EC2, STS and proxies are trusted.
    pub roots: Roots,
    /// How long one attempt of a call may take, until the last byte of the answer.
    pub http_timeout: Duration,
}

/// Makes a client, and says for which Region; `None` if no place names one. It calls EC2 not at all, and STS only when
/// credentials are needed.
///
/// # Errors
/// If the certificates or a proxy cannot be used.
pub async fn connect(
    caller: &Caller,
    retry: RetryConfig,
) -> Result<(Client, Option<String>), ConnectError> {
    let http = client(&caller.proxies, &caller.roots)?;
    let shared = load_config(caller, http.clone()).await;
    let mut config = aws_sdk_ec2::config::Builder::from(&shared).retry_config(retry);
    let provider = match &caller.identity {
        Identity::Role(arn) => {
            let role = AssumeRoleProvider::builder(arn).session_name("tidepool").configure(&shared);
            Some(SharedCredentialsProvider::new(role.build().await))
        }
        // Not the default chain with this profile: that prefers keys in the environment, and passes over a profile that
        // does not exist. Then another account would be read.
        Identity::Profile(name) => {
            let config = ProviderConfig::default().with_http_client(http);
            let config = config.with_region(shared.region().cloned());
            let profile = ProfileFileCredentialsProvider::builder().profile_name(name);
            Some(SharedCredentialsProvider::new(profile.configure(&config).build()))
        }
        Identity::Fixed(_) | Identity::Default => shared.credentials_provider(),
    };
    if let Some(provider) = provider {
        config = config.credentials_provider(Bounded(provider));
    }
    if let Some(endpoint) = &caller.endpoint {
        config = config.endpoint_url(endpoint.as_str());
    }
    let region = shared.region().map(|region| region.as_ref().to_owned());
    Ok((Client::from_conf(config.build()), region))
}

async fn load_config(caller: &Caller, http: SharedHttpClient) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(caller.http_timeout)
        .build();
    let product = FrameworkMetadata::new("tidepool", Some(env!("CARGO_PKG_VERSION")))
        .expect("name and version hold only letters, digits, dots and dashes");
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .framework_metadata(product);
    if let Some(region) = &caller.region {
        loader = loader.region(Region::new(region.clone()));
    }
    match &caller.identity {
        Identity::Fixed(credentials) => loader = loader.credentials_provider(credentials.clone()),
        Identity::Profile(name) => loader = loader.profile_name(name),
        Identity::Default | Identity::Role(_) => {}
    }
    loader.load().await
}
