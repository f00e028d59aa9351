//! Messages for another service than AWS's, by the same rules: which proxy, which certificates, how long an answer.

use aws_sdk_ec2::config::http::HttpRequest;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_runtime_api::client::http::{HttpConnector as _, SharedHttpConnector};
use aws_smithy_types::body::SdkBody;
use service_url::{Scheme, ServiceUrl};

use super::{Bounded, ConnectError, LONGEST_METADATA, PROVIDER, Proxies, never};
use crate::trust::Roots;

/// Sends bodies of one type to one URL. Clones share connections.
#[derive(Debug, Clone)]
pub struct Post {
    connector: Bounded<SharedHttpConnector>,
    url: ServiceUrl,
    content_type: &'static str,
    /// Beside the content type.
    headers: Vec<(String, String)>,
}

impl Post {
    /// A client of `url`, for bodies of `content_type`, with these headers. It sends nothing yet.
    ///
    /// # Errors
    /// If the certificates cannot be used, or the proxy.
    pub fn new(
        url: ServiceUrl,
        content_type: &'static str,
        headers: Vec<(String, String)>,
        proxies: &Proxies,
        roots: &Roots,
    ) -> Result<Self, ConnectError> {
        let Proxies { http, https, except } = proxies;
        let (proxy, of): (_, fn(&str) -> _) = match url.scheme() {
            Scheme::Http => (http, |url| ProxyConfig::http(url)),
            Scheme::Https => (https, |url| ProxyConfig::https(url)),
        };
        let is_covered = except.clone().and(never()).covers(url.as_str());
        let proxy = proxy.as_ref().filter(|_| !is_covered).map(|proxy| {
            let refused = |source| ConnectError::Proxy { proxy: proxy.clone(), source };
            of(proxy.with_password()).map_err(refused)
        });
        let mut connector =
            Connector::builder().tls_provider(PROVIDER).tls_context(roots.context()?);
        connector.set_proxy_config(proxy.transpose()?);
        let inner = SharedHttpConnector::new(connector.build());
        Ok(Self {
            connector: Bounded { inner, longest: LONGEST_METADATA },
            url,
            content_type,
            headers,
        })
    }

    /// Sends `body` once and waits for the whole answer. It has no time-out of its own.
    ///
    /// # Errors
    /// Why the service does not have the body: its status unless that is 2xx, or the fault of the connection.
    pub async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let mut request = HttpRequest::new(SdkBody::from(body));
        let wrong = |fault: &dyn std::error::Error| format!("make the request: {fault}");
        request.set_method("POST").map_err(|fault| wrong(&fault))?;
        request.set_uri(self.url.as_str()).map_err(|fault| wrong(&fault))?;
        for (name, value) in &self.headers {
            let inserted = request.headers_mut().try_insert(name.clone(), value.clone());
            inserted.map_err(|fault| wrong(&fault))?;
        }
        request.headers_mut().insert("content-type", self.content_type);
        let answer = self.connector.call(request).await;
        let answer = answer.map_err(|fault| chain(&fault))?;
        let status = answer.status();
        // A connection whose answer is not read cannot serve again.
        let read =
            aws_smithy_types::byte_stream::ByteStream::new(answer.into_body()).collect().await;
        match (status.is_success(), read) {
            (true, Ok(_)) => Ok(()),
            (true, Err(fault)) => Err(chain(&fault)),
            (false, _) => Err(format!("{} answers with status {status}", self.url)),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
