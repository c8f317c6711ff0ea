//! For tests: an HTTP endpoint on the loopback interface that answers as a closure says, and clients of the SDK that use it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use recount_schemas::host::{Host, Sleep};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub head: String,
    pub body: Vec<u8>,
}

/// An answer: status and body. [`NEVER`] is none: the request hangs.
pub type Answer = (u16, String);

/// The status of an answer that does not come.
pub const NEVER: u16 = 0;

/// Starts an endpoint; every request is kept and answered by `answer`. Ends with the test's runtime.
pub async fn serve(
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (SdkConfig, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (seen.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, kept.clone(), answer.clone()));
        }
    });
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(url)
        .build();
    (config, seen)
}

async fn connection(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    answer: Arc<impl Fn(&Request) -> Answer>,
) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if stream.read_buf(&mut bytes).await.ok()? == 0 => return None,
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let line = String::from_utf8_lossy(&bytes[..end]).lines().next()?.to_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if head.contains("expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let rest = bytes.split_off(end + length);
        let request = Request { line, head, body: bytes.split_off(end) };
        bytes = rest;
        let (status, body) = answer(&request);
        seen.lock().unwrap().push(request);
        if status == NEVER {
            std::future::pending::<()>().await;
        }
        let head = format!("HTTP/1.1 {status} Answer\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
    }
}

/// A host whose sleeps are over at once and whose clock moves only by them.
#[derive(Debug, Default)]
pub struct StillHost {
    endless: Option<Duration>,
    slept: Mutex<Vec<Duration>>,
    drawn: Mutex<u64>,
}

impl StillHost {
    /// As the default, but a sleep of `endless` or more never ends: whatever else it was to be shorter than is done first.
    pub fn patient(endless: Duration) -> Self {
        Self { endless: Some(endless), ..Self::default() }
    }

    pub fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

impl Host for StillHost {
    fn now_us(&self) -> i64 {
        1_760_000_000_000_000
    }

    fn monotonic(&self) -> Duration {
        self.slept.lock().unwrap().iter().sum()
    }

    fn random_u64(&self) -> u64 {
        let mut drawn = self.drawn.lock().unwrap();
        *drawn = drawn.wrapping_add(0x9E37_79B9_7F4A_7C15);
        *drawn
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        if self.endless.is_some_and(|endless| duration >= endless) {
            return Box::pin(std::future::pending());
        }
        self.slept.lock().unwrap().push(duration);
        Box::pin(std::future::ready(()))
    }
}
