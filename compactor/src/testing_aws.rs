//! AWS as a function: what is asked, to an answer, in this process.

use std::fmt;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::Value;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /path?query`.
    pub(crate) line: String,
    /// The operation, of services that say it in a header: `AWSGlue.GetTable`.
    pub(crate) target: String,
    /// The body.
    pub(crate) body: String,
}

impl Asked {
    /// The operation without its service.
    pub(crate) fn operation(&self) -> &str {
        self.target.rsplit('.').next().unwrap_or_default()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

type Answer = Arc<dyn Fn(Asked) -> (u16, String) + Send + Sync>;

#[derive(Clone)]
struct Function(Answer);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl HttpConnector for Function {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri: &str = request.uri();
        let path = uri.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let asked = Asked {
            line: format!("{} /{path}", request.method()),
            target: request.headers().get("x-amz-target").unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned(),
        };
        let (status, body) = (self.0)(asked);
        HttpConnectorFuture::ready(Ok(HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body))))
    }
}

/// The SDK in front of such a function.
pub(crate) fn sdk(answer: impl Fn(Asked) -> (u16, String) + Send + Sync + 'static) -> SdkConfig {
    let function = Function(Arc::new(answer));
    let client = http_client_fn(move |_, _| SharedHttpConnector::new(function.clone()));
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-north-1"))
        .endpoint_url("http://127.0.0.1:1")
        .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys("a", "b", None)))
        .http_client(client)
        .build()
}

/// An error as services say it that speak JSON.
pub(crate) fn refused(code: &str) -> (u16, String) {
    (400, serde_json::json!({ "__type": code, "message": format!("{code}, it said") }).to_string())
}

/// A deployment whose consumer has this definition, and AWS in front of it, which knows nothing else.
pub(crate) fn deployed(toml: &str) -> (SdkConfig, crate::stack::Stack) {
    use recount_schemas::definition::given;

    let value = format!("{}{}", given::PREFIX, given::base64(toml));
    let sdk = sdk(move |asked| {
        let here = asked.line.starts_with("GET /2015-03-31/functions/consumer-1/configuration");
        let environment = serde_json::json!({ "Environment": { "Variables": { given::VARIABLE: value } } });
        if here { (200, environment.to_string()) } else { (404, String::new()) }
    });
    (sdk, crate::stack::read("recount", "CREATE_COMPLETE", &crate::stack::tests::outputs()).unwrap())
}
