//! One port for all services: looks at a request and hands it to the engine it is for.
//!
//! | request | goes to |
//! | --- | --- |
//! | `GET /health` | answered here: 200 as long as requests are taken |
//! | `X-Amz-Target: DynamoDB_20120810.*`, `DynamoDBStreams_20120810.*` | DynamoDB |
//! | `X-Amz-Target: Kinesis_20131202.*` | Kinesis |
//! | any other `X-Amz-Target` | refused: `UnknownOperationException` |
//! | the rest | S3 |
//!
//! The same [`Door::route`] serves the socket and the in-process client ([`crate::inproc`]).

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use recount_schemas::host::SharedHost;
use s3s::Body;
use s3s::crypto::Crc32;
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::io::BlockingWork;
use crate::s3::unsign::unsign;

/// Largest body of a JSON request in bytes: DynamoDB and Kinesis both stay below it.
const MAX_JSON_BYTES: usize = 16 << 20;

/// Connections at a time; more wait to be accepted. A process may usually have 1,024 open files, and the engines need some:
/// clients that hold every connection they can get must not keep them from opening theirs.
const MAX_CONNECTIONS: usize = 512;

/// How long requests under way may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// An engine that speaks JSON over `X-Amz-Target`.
pub trait JsonEngine: Send + Sync {
    /// Answers `operation`: HTTP status and JSON body. May block.
    fn handle(&self, operation: &str, body: &[u8]) -> (u16, Vec<u8>);
}

/// The engines behind the port.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    json: Vec<(&'static str, Arc<dyn JsonEngine>)>,
    s3: S3Service,
    host: SharedHost,
    work: BlockingWork,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.inner.json.iter().map(|(prefix, _)| prefix).collect();
        f.debug_struct("Door").field("json", &services).finish_non_exhaustive()
    }
}

impl Door {
    /// `json`: each engine with the prefix of its targets, without the dot.
    pub fn new(
        json: Vec<(&'static str, Arc<dyn JsonEngine>)>,
        s3: S3Service,
        host: SharedHost,
        work: BlockingWork,
    ) -> Self {
        Door { inner: Arc::new(Inner { json, s3, host, work }) }
    }

    /// Answers one request.
    pub async fn route(&self, request: Request<Body>) -> Response<Body> {
        let id = format!("{:016X}{:016X}", self.inner.host.random_u64(), self.inner.host.random_u64());
        let target = request.headers().get("x-amz-target").map(|target| target.to_str().unwrap_or_default().to_owned());
        let head = request.method() == Method::HEAD;
        let (mut response, header) = if let Some(target) = target {
            (self.json(&target, request).await, "x-amzn-requestid")
        } else if request.method() == Method::GET && request.uri().path() == "/health" {
            (json_response(StatusCode::OK, "application/json", br#"{"status":"ready"}"#.to_vec()), "x-amzn-requestid")
        } else {
            (self.s3(request).await, "x-amz-request-id")
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(HeaderName::from_static(header), id);
        }
        if head {
            *response.body_mut() = Body::empty(); // as a connection would; the headers stay
        }
        response
    }

    async fn json(&self, target: &str, request: Request<Body>) -> Response<Body> {
        let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let refuse = |status, kind: &str, message: &str| {
            let body = serde_json::json!({ "__type": kind, "message": message });
            json_response(status, "application/x-amz-json-1.1", body.to_string().into_bytes())
        };
        let too_long = || {
            let message = format!("the body is larger than {MAX_JSON_BYTES} bytes");
            refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", &message)
        };
        if media.contains("cbor") {
            let message = "local mode speaks JSON only; set AWS_CBOR_DISABLE=true in the client";
            return refuse(StatusCode::BAD_REQUEST, "SerializationException", message);
        }
        let (prefix, operation) = target.split_once('.').unwrap_or((target, ""));
        let found = self.inner.json.iter().find(|(known, _)| *known == prefix);
        let Some((_, engine)) = found else {
            let message = format!("no service of local mode has the target {target}");
            return refuse(StatusCode::BAD_REQUEST, "UnknownOperationException", &message);
        };
        // Said to be too long: refused before it is sent. (`Limited` counts what has arrived.)
        let announced = request.body().size_hint().lower();
        if announced > MAX_JSON_BYTES as u64 {
            return too_long();
        }
        let body = match Limited::new(request.into_body(), MAX_JSON_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) if e.is::<LengthLimitError>() => return too_long(),
            Err(e) => return refuse(StatusCode::BAD_REQUEST, "SerializationException", &e.to_string()),
        };
        let (engine, operation) = (Arc::clone(engine), operation.to_owned());
        match self.inner.work.run(move || engine.handle(&operation, &body)).await {
            Ok((status, body)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let media = if media.is_empty() { "application/x-amz-json-1.0" } else { &media };
                json_response(status, media, body)
            }
            Err(e) => {
                tracing::error!(target, error = %e, "an engine was lost in the middle of a request");
                refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "the engine was lost in the middle")
            }
        }
    }

    async fn s3(&self, request: Request<Body>) -> Response<Body> {
        match self.inner.s3.call(unsign(request)).await {
            Ok(response) => response,
            Err(e) => {
                tracing::error!(error = ?e, "the object store could not answer");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    /// Takes connections until `shutdown` completes; then lets requests under way end, for five seconds at most.
    ///
    /// # Errors
    /// None at present: a connection that fails is logged, and a failing `accept` is tried again.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let (stop, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(self.clone().connection(stream, stopped.clone()))),
                    Err(e) => {
                        // Out of file descriptors, or the peer went away: neither is a reason to stop.
                        tracing::warn!(error = %e, "cannot accept a connection");
                        self.inner.host.sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        let _ = stop.send(()); // no receiver: no connection is open
        let mut grace = self.inner.host.sleep(STOP_GRACE);
        while !connections.is_empty() {
            tokio::select! {
                _ = connections.join_next() => {}
                () = &mut grace => {
                    tracing::warn!(open = connections.len(), "connections closed in the middle of a request");
                    connections.shutdown().await;
                }
            }
        }
        Ok(())
    }

    async fn connection(self, stream: TcpStream, mut stopped: watch::Receiver<()>) {
        let _ = stream.set_nodelay(true); // only latency is at stake
        let answer = service_fn(|request: Request<hyper::body::Incoming>| {
            let door = self.clone();
            async move { Ok::<_, Infallible>(door.route(request.map(Body::from)).await) }
        });
        let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!(error = %e, "a connection ended early");
        }
    }
}

fn json_response(status: StatusCode, media: &str, body: Vec<u8>) -> Response<Body> {
    // SDKs of DynamoDB verify this one where it is given.
    let crc = Crc32::checksum_u32(&body);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(media) = HeaderValue::from_str(media) {
        headers.insert(CONTENT_TYPE, media);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(HeaderName::from_static("x-amz-crc32"), HeaderValue::from(crc));
    *response.body_mut() = Body::from(body);
    response
}
