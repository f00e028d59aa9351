//! The HTTP client of all requests: how long an answer may be. It must not know what is asked.

use aws_sdk_ec2::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ec2::config::{HttpClient, RuntimeComponents, SharedHttpClient};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// The longest answer of EC2 and of the sources of credentials, in bytes. A page of 1,000 ENIs with 50 addresses
/// each has about 20 MB.
pub(crate) const LONGEST_ANSWER: usize = 32 << 20;
/// The longest answer of the metadata service, in bytes. Its lists have at most some hundred lines.
pub(crate) const LONGEST_METADATA: usize = 64 << 10;

/// An answer is longer than it may be. The rest of it is not read.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer is longer than {longest} bytes")]
pub(crate) struct AnswerTooLong {
    longest: usize,
}

/// Another client whose answers have a longest length.
#[derive(Debug)]
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
