//! The HTTP client of all requests: by which proxy a request goes, and how long an answer may be. It must not know what is asked.

mod post;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_ec2::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ec2::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::proxy::{ProxyConfig, ProxyError};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use service_url::{NoProxy, ProxyUrl, ServiceUrl};

use crate::trust::Roots;

pub use self::post::Post;

/// The longest answer of EC2 and of the sources of credentials, in bytes. A page of 1,000 ENIs with 50 addresses
/// each has about 20 MB.
pub(crate) const LONGEST_ANSWER: usize = 32 << 20;
/// The longest answer of the metadata service, in bytes. Its lists have at most some hundred lines.
pub(crate) const LONGEST_METADATA: usize = 64 << 10;

/// Whom no proxy is asked for: this machine; the metadata service; and the services on the node that give pods their
/// credentials. Their addresses are the node's own affair, and a proxy that got such a request would get credentials.
/// Source: AWS, "Instance Metadata Service" and "EKS Pod Identity".
const NEVER: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,fd00:ec2::/32";
/// Variables of the SDK with other URLs of these services.
const LOCAL_SERVICES: [&str; 2] =
    ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

const PROVIDER: Provider = Provider::Rustls(CryptoMode::Ring);

/// By which proxy requests go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Of requests to `http://…`.
    pub http: Option<ProxyUrl>,
    /// Of requests to `https://…`, by `CONNECT`.
    pub https: Option<ProxyUrl>,
    /// The requests that go by none.
    pub except: NoProxy,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be read, or is too long.
    #[error("read the certificates in {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It has a certificate that is malformed, or no certificate.
    #[error("{} is no list of PEM certificates: {problem}", .file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The SDK does not take the URL of a proxy.
    #[error("use the proxy {proxy}")]
    Proxy {
        /// The proxy.
        proxy: ProxyUrl,
        /// Why not.
        source: ProxyError,
    },
}

/// An answer is longer than it may be. The rest of it is not read.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer is longer than {longest} bytes")]
pub(crate) struct AnswerTooLong {
    longest: usize,
}

/// Another client whose answers have a longest length.
#[derive(Debug, Clone)]
struct Bounded<C> {
    inner: C,
    longest: usize,
}

/// `client` with answers of at most `longest` bytes.
pub(crate) fn bounded(client: SharedHttpClient, longest: usize) -> SharedHttpClient {
    SharedHttpClient::new(Bounded { inner: client, longest })
}

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Bounded { inner, longest: self.longest })
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, longest) = (self.inner.call(request), self.longest);
        HttpConnectorFuture::new(async move {
            let mut answer: HttpResponse = answer.await?;
            let body = answer.take_body();
            *answer.body_mut() = SdkBody::from_body_1_x(
                Limited::new(body, longest).map_err(move |fault| named(fault, longest)),
            );
            Ok(answer)
        })
    }
}

fn named(fault: BoxError, longest: usize) -> BoxError {
    match fault.downcast_ref::<LengthLimitError>() {
        Some(_) => Box::new(AnswerTooLong { longest }),
        None => fault,
    }
}

/// A client of EC2 and of whoever gives credentials.
///
/// # Errors
/// If the certificates cannot be used, or a proxy.
pub(crate) fn client(proxies: &Proxies, roots: &Roots) -> Result<SharedHttpClient, ConnectError> {
    let tls = roots.context()?;
    // If the SDK panics at a certificate, it does so here and not in a request.
    drop(Connector::builder().tls_provider(PROVIDER).tls_context(tls.clone()).build());
    let Proxies { http, https, except } = proxies;
    let through = |proxy: &Option<ProxyUrl>, of: fn(&str) -> Result<ProxyConfig, ProxyError>| {
        let config = proxy.as_ref().map(|proxy| {
            let refused = |source| ConnectError::Proxy { proxy: proxy.clone(), source };
            of(proxy.with_password()).map_err(refused)
        });
        Ok::<_, ConnectError>(config.transpose()?.map(|config| by_proxy(tls.clone(), Some(config))))
    };
    let by_url = ByUrl {
        direct: by_proxy(tls.clone(), None),
        http: through(http, |url| ProxyConfig::http(url))?,
        https: through(https, |url| ProxyConfig::https(url))?,
        except: Arc::new(except.clone().and(never())),
    };
    Ok(bounded(SharedHttpClient::new(by_url), LONGEST_ANSWER))
}

fn by_proxy(tls: TlsContext, proxy: Option<ProxyConfig>) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().tls_provider(PROVIDER).tls_context(tls.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_proxy_config(proxy.clone());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

/// [`NEVER`], and what the environment names in place of those services.
fn never() -> NoProxy {
    let set = LOCAL_SERVICES.iter().filter_map(|name| std::env::var(name).ok());
    let urls = set.filter_map(|url| ServiceUrl::parse(&url).ok());
    urls.fold(NoProxy::parse(NEVER), |never, url| never.and(NoProxy::parse(url.host())))
}

/// A client without a proxy, and others, since `http://…` and `https://…` may each have a proxy of its own.
#[derive(Debug)]
struct ByUrl<C> {
    direct: C,
    http: Option<C>,
    https: Option<C>,
    except: Arc<NoProxy>,
}

impl HttpClient for ByUrl<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let of = |client: &SharedHttpClient| client.http_connector(settings, components);
        SharedHttpConnector::new(ByUrl {
            direct: of(&self.direct),
            http: self.http.as_ref().map(of),
            https: self.https.as_ref().map(of),
            except: self.except.clone(),
        })
    }
}

impl HttpConnector for ByUrl<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let url = request.uri();
        let proxy = if url.starts_with("https:") { &self.https } else { &self.http };
        let proxy = proxy.as_ref().filter(|_| !self.except.covers(url));
        proxy.unwrap_or(&self.direct).call(request)
    }
}
