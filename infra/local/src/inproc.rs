//! The engines as an HTTP client of the AWS SDK: no socket, same code.
//!
//! A request goes through the SDK's whole stack (serialisation, signing, retries) and then straight into
//! [`Door::route`], in the task that made it. With [`crate::io::BlockingWork::Inline`] and a paused clock that is
//! deterministic. Timeouts of connecting and reading do not apply: there is nothing to wait for. To inject faults, wrap
//! this client in another.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request};
use hyper::body::Body as _;
use s3s::Body;

use crate::door::Door;

/// The client; give it to an SDK config as its `http_client`.
#[derive(Debug, Clone)]
pub struct InProcess {
    door: Door,
}

impl InProcess {
    /// A client of these engines.
    pub fn new(door: Door) -> Self {
        InProcess { door }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When the SDK's request or the engine's response is no HTTP message.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
        let response = self.door.route(on_the_wire(request)).await;
        let response = response.map(SdkBody::from_body_1_x);
        HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
    }
}

/// What an HTTP/1.1 connection would add to a request.
fn on_the_wire(request: Request<SdkBody>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(HOST)
        && let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        parts.headers.insert(HOST, host);
    }
    if !parts.headers.contains_key(CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Request::from_parts(parts, Body::http_body_unsync(body))
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move { client.send(request).await })
    }
}

impl HttpClient for InProcess {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
