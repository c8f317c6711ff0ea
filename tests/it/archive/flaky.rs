//! An HTTP client of the SDK through which one thing goes wrong.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use recount_local::door::Door;
use recount_local::inproc::InProcess;
use tokio::sync::watch;

/// What goes wrong. Requests are counted from 1; those that only read the log are not, since they grow with it.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    None,
    /// The process dies when it is about to send this request.
    DieBefore(u64),
    /// The process dies when this request has had its effect, before its answer.
    DieAfter(u64),
    /// This request has its effect, and no answer.
    LoseAnswer(u64),
    /// This request is answered so, and has no effect.
    Answer(u64, u16, &'static str),
    /// The first two puts of log entries are answered so, and have no effect.
    Puts(u16, &'static str),
    /// This request waits until it is let go.
    Hold(u64),
}

#[derive(Debug, Clone)]
pub struct Flaky {
    inner: InProcess,
    fault: Fault,
    requests: Arc<AtomicU64>,
    puts: Arc<AtomicU64>,
    /// Whether the fault has struck.
    struck: watch::Sender<bool>,
    released: watch::Sender<bool>,
}

impl Flaky {
    pub fn new(door: &Door, fault: Fault) -> Self {
        Self {
            inner: InProcess::new(door.clone()),
            fault,
            requests: Arc::default(),
            puts: Arc::default(),
            struck: watch::channel(false).0,
            released: watch::channel(false).0,
        }
    }

    /// Completes when the fault strikes.
    pub async fn struck(&self) {
        self.struck.subscribe().wait_for(|struck| *struck).await.unwrap();
    }

    /// Lets the request go that is held.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        if request.method() == "GET" && request.uri().contains("/_log/") {
            return self.inner.send(request).await;
        }
        let n = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        match self.fault {
            Fault::DieBefore(at) if n >= at => {
                self.struck.send_replace(true);
                pending().await
            }
            Fault::DieAfter(at) if n >= at => {
                if n == at {
                    let _ = self.inner.send(request).await;
                }
                self.struck.send_replace(true);
                pending().await
            }
            Fault::LoseAnswer(at) if n == at => {
                let _ = self.inner.send(request).await;
                Err(ConnectorError::io("the connection was closed".into()))
            }
            Fault::Answer(at, status, code) if n == at => Ok(answer(status, code)),
            Fault::Puts(status, code) if is_log_put(&request) && self.puts.fetch_add(1, Ordering::SeqCst) < 2 => {
                Ok(answer(status, code))
            }
            Fault::Hold(at) if n == at => {
                self.struck.send_replace(true);
                self.released.subscribe().wait_for(|released| *released).await.unwrap();
                self.inner.send(request).await
            }
            _ => self.inner.send(request).await,
        }
    }
}

fn is_log_put(request: &HttpRequest) -> bool {
    request.method() == "PUT" && request.uri().contains("/_log/")
}

fn answer(status: u16, code: &str) -> HttpResponse {
    let body = format!("<Error><Code>{code}</Code><Message>as ordered</Message></Error>");
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))
}

impl HttpConnector for Flaky {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move { client.send(request).await })
    }
}

impl HttpClient for Flaky {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
