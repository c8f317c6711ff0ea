//! The way between the processes and AWS: the SDK's HTTP client, in which requests take time, get lost, come late, and
//! are refused.
//!
//! What a process has sent goes on without it: each request is a task of its own, which reaches the engine also when its
//! sender is dead or waits no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use recount_local::inproc::InProcess;
use recount_schemas::host::Host;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::clock::{Clock, Sleep};
use crate::faults::{self, Call, Fault, Service};
use crate::process::{Doom, Machine, Process};
use crate::trace::Trace;

/// What the operator's processes are called.
pub const OPERATOR: &str = "operator";

/// A record that is in the stream.
#[derive(Debug, Clone)]
pub struct Put {
    pub shard: String,
    pub sequence: String,
    pub data: Vec<u8>,
    pub arrived_us: i64,
}

/// A time in which a service, or a part of what it holds, is not to be had.
#[derive(Debug, Clone)]
pub struct Brownout {
    /// µs since the history began.
    pub from: u64,
    pub to: u64,
    pub service: Service,
    /// How many of the requests fail, 0 to 1.
    pub strength: f64,
    /// Only requests that say this: about a hot item, a part of the bucket. Empty: all.
    pub about: String,
}

/// How bad the network is.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Which of a request's faults there are.
    pub faults: BTreeSet<Fault>,
    /// How many of the requests one strikes, 0 to 1.
    pub rate: f64,
    /// The longest time one way, µs, but for few.
    pub latency_us: u64,
    /// The most that one way of the operator's requests takes, µs; 0: as everybody's.
    pub operator_us: u64,
    /// When what is not to be had.
    pub brownouts: Vec<Brownout>,
    /// When nothing can be put beside the archive.
    pub quarantine_down: Vec<(u64, u64)>,
}

/// All of it. One per history.
#[derive(Debug)]
pub struct Network {
    engines: InProcess,
    clock: Arc<Clock>,
    /// AWS's own machine: its clock is right.
    aws: Arc<Machine>,
    weather: Weather,
    calm: AtomicBool,
    state: Mutex<State>,
    pub trace: Trace,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    requests: u64,
    struck: BTreeMap<Fault, u64>,
    puts: Vec<Put>,
    /// What reads have answered, to be answered again: the two last of each.
    answered: BTreeMap<String, Vec<Bytes>>,
}

/// More requests than any history makes: something turns in a circle.
pub const MOST_REQUESTS: u64 = 100_000;
const MINUTE_US: u64 = 60_000_000;
/// One way that takes longer has befallen the request, µs: some who wait for it wait no longer than a few of these.
pub const SLOW_US: u64 = 1_000_000;

/// What is to become of a request.
#[derive(Debug)]
enum Fate {
    Deliver,
    Refuse(HttpResponse),
    /// It has its effect, and this is the answer.
    Belie(HttpResponse),
    Reset,
    LoseAnswer,
    /// It arrives after so long, and there is no answer.
    Late(Duration),
    Partial(u64),
    Stale(Bytes),
    Truncate(f64),
    /// Its sender stands still for so long before it is sent.
    Expire(Duration),
    /// It is answered without the records.
    Empty,
}

impl Network {
    pub fn new(engines: InProcess, clock: &Arc<Clock>, aws: Arc<Machine>, weather: Weather, seed: u64) -> Arc<Self> {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            requests: 0,
            struck: BTreeMap::new(),
            puts: Vec::new(),
            answered: BTreeMap::new(),
        };
        let (calm, state, trace) = (AtomicBool::new(false), Mutex::new(state), Trace::new(clock));
        Arc::new(Self { engines, clock: Arc::clone(clock), aws, weather, calm, state, trace })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing goes wrong any more.
    pub fn calm_down(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    /// Every record that was ever put into the stream.
    pub fn puts(&self) -> Vec<Put> {
        self.state().puts.clone()
    }

    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// How often each fault struck.
    pub fn struck(&self) -> BTreeMap<Fault, u64> {
        self.state().struck.clone()
    }

    pub fn note_fault(&self, fault: Fault) {
        *self.state().struck.entry(fault).or_default() += 1;
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn fate(&self, call: &Call, body: Option<&str>) -> Fate {
        if self.is_calm() {
            return Fate::Deliver;
        }
        let now = self.clock.now();
        let within = |(from, to): (u64, u64)| (from..to).contains(&now);
        let mut state = self.state();
        let n = state.rng.u64(..);
        let down = |brownout: &Brownout| {
            let there = brownout.service == call.service && call.to_string().contains(&brownout.about);
            there && within((brownout.from, brownout.to))
        };
        let strength = self.weather.brownouts.iter().filter(|b| down(b)).map(|b| b.strength).fold(0.0, f64::max);
        if strength > 0.0 && state.rng.f64() < strength {
            *state.struck.entry(Fault::Brownout).or_default() += 1;
            return Fate::Refuse(faults::throttled(call.service, n));
        }
        let aside = call.service == Service::S3
            && call.operation == "PUT"
            && (call.about.contains("/quarantine/") || call.about.contains("/conflicts/"));
        if aside && self.weather.quarantine_down.iter().any(|window| within(*window)) {
            *state.struck.entry(Fault::QuarantineDown).or_default() += 1;
            return Fate::Refuse(faults::failed(call.service, n));
        }
        // Kinesis does that often (API reference, GetRecords).
        let emptied = self.weather.faults.contains(&Fault::EmptyPage) && Fault::EmptyPage.strikes(call);
        if emptied && state.rng.u8(..) < 50 {
            return Fate::Empty;
        }
        // There are few puts that must not replace anything, and much depends on them.
        let rate = if call.conditional { self.weather.rate * 4.0 } else { self.weather.rate };
        if state.rng.f64() >= rate {
            return Fate::Deliver;
        }
        let possible: Vec<Fault> = self.weather.faults.iter().copied().filter(|fault| fault.strikes(call)).collect();
        let Some(fault) = state.rng.choice(possible) else { return Fate::Deliver };
        let fate = match fault {
            Fault::Throttle => Fate::Refuse(faults::throttled(call.service, n)),
            Fault::ServerError if n % 2 == 0 => Fate::Refuse(faults::failed(call.service, n / 2)),
            Fault::ServerError => Fate::Belie(faults::failed(call.service, n / 2)),
            Fault::ResetBefore => Fate::Reset,
            Fault::LostAnswer => Fate::LoseAnswer,
            // Mostly a little later than its sender waits, sometimes an hour.
            Fault::LateRequest if n % 8 == 0 => Fate::Late(Duration::from_micros(state.rng.u64(0..60 * MINUTE_US))),
            Fault::LateRequest => Fate::Late(Duration::from_micros(state.rng.u64(0..MINUTE_US))),
            Fault::TransactionConflict => Fate::Refuse(faults::transaction_conflict()),
            Fault::Conflict => Fate::Refuse(faults::conflict()),
            Fault::Partial => Fate::Partial(n),
            Fault::Truncated => Fate::Truncate(state.rng.f64()),
            Fault::ErrorInOk if n % 2 == 0 => Fate::Refuse(faults::error_in_ok(n / 2)),
            Fault::ErrorInOk => Fate::Belie(faults::error_in_ok(n / 2)),
            // Counted where the engine says so.
            Fault::ExpiredIterator => {
                return Fate::Expire(Duration::from_micros(5 * MINUTE_US + state.rng.u64(0..3 * MINUTE_US)));
            }
            Fault::StaleRead => {
                let old = body.and_then(|body| state.answered.get(&format!("{}{body}", call.operation)));
                match old.and_then(|old| old.first()).cloned() {
                    Some(answer) => Fate::Stale(answer),
                    None => return Fate::Deliver,
                }
            }
            _ => return Fate::Deliver,
        };
        *state.struck.entry(fault).or_default() += 1;
        fate
    }

    /// One way of a request or an answer.
    fn travel(&self, from: &Process, service: Service) -> Sleep {
        let most = self.weather.latency_us;
        let operator_us = if from.name.starts_with(OPERATOR) { self.weather.operator_us } else { 0 };
        let us = if self.is_calm() {
            1_000
        } else if operator_us > 0 {
            self.state().rng.u64(0..operator_us)
        } else if most == 0 {
            1_000
        } else {
            let mut state = self.state();
            // One in 32 takes up to a hundred times as long.
            if state.rng.u8(..) < 8 { state.rng.u64(0..most * 100) } else { state.rng.u64(0..most) }
        };
        if us > SLOW_US {
            from.strike(service == Service::S3);
        }
        self.clock.sleep(Duration::from_micros(us))
    }

    async fn send(self: Arc<Self>, from: Arc<Process>, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let (call, body) = read(&request);
        let doom = from.sends(call.writes());
        let n = {
            let mut state = self.state();
            state.requests += 1;
            state.requests
        };
        let dies_after = match doom {
            Some(Doom::Before(_)) => {
                self.trace.note(format!("{} dies before {call}", from.name));
                from.kill();
                return pending().await;
            }
            doom => doom.is_some(),
        };
        if n > MOST_REQUESTS {
            return pending().await;
        }
        let canonical = body.as_ref().map(canonical);
        let fate = self.fate(&call, canonical.as_deref());
        if !matches!(fate, Fate::Deliver) {
            from.strike(call.service == Service::S3);
        }
        if let Fate::Expire(stands) = fate {
            self.trace.note(format!("{} stands still for {stands:?} before {call}", from.name));
            from.freeze(stands, n % 2 == 0);
            self.clock.sleep(stands).await;
        }
        let (answer, answered) = oneshot::channel();
        let network = Arc::clone(&self);
        let sender = Arc::clone(&from);
        tokio::spawn(async move {
            let told = network.deliver(&sender, request, &call, body, canonical, fate).await;
            if dies_after {
                network.trace.note(format!("{} dies after {call}", sender.name));
                sender.kill();
                return;
            }
            let Some(told) = told else { return };
            network.travel(&sender, call.service).await;
            let _ = answer.send(told);
        });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => pending().await, // no answer will ever come
        }
    }

    /// Brings a request to its engine. `None`: there is no answer.
    async fn deliver(
        &self,
        from: &Process,
        mut request: HttpRequest,
        call: &Call,
        body: Option<Value>,
        canonical: Option<String>,
        fate: Fate,
    ) -> Option<Result<HttpResponse, ConnectorError>> {
        let note = |what: &str| self.trace.note(format!("{}: {call}: {what}", from.name));
        let reset = |text: &str| Some(Err(ConnectorError::io(text.to_owned().into())));
        let name = fate_name(&fate);
        match &fate {
            Fate::Reset => {
                note(name);
                return reset("the connection was reset");
            }
            Fate::Late(after) => {
                note(name);
                self.clock.sleep(*after).await;
            }
            _ => self.travel(from, call.service).await,
        }
        match fate {
            Fate::Refuse(answer) => {
                note(name);
                return Some(Ok(answer));
            }
            Fate::Stale(answer) => {
                note(name);
                return Some(Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(answer))));
            }
            Fate::Partial(n) => {
                let answer = self.in_part(request, call, body.unwrap_or_default(), n).await;
                note(&format!("{name}: {answer:?}"));
                return Some(answer.map(|answer| json_answer(&answer)));
            }
            _ => {}
        }
        if let Fate::Belie(_) | Fate::Late(_) | Fate::LoseAnswer = &fate {
            note(name);
        }
        let arrived_us = self.aws.now_us();
        // The body is taken out for the engine; what it says is known.
        let taken = std::mem::replace(&mut request, HttpRequest::new(SdkBody::empty()));
        let answer = match self.engines.send(taken).await {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        let status = answer.status().as_u16();
        let answer = collect(answer).await;
        note(&status.to_string());
        let asked = body.as_ref().and_then(|body| body["ShardIterator"].as_str().map(str::to_owned));
        if status == 200 && matches!(call.operation.as_str(), "PutRecords" | "PutRecord") {
            self.note_puts(body.as_ref(), &answer.1, arrived_us);
        }
        if status == 400 && call.operation == "GetRecords" && is_expired(&answer.1) {
            self.note_fault(Fault::ExpiredIterator);
        }
        if status == 200
            && call.service == Service::DynamoDb
            && let Some(canonical) = canonical
            && matches!(call.operation.as_str(), "GetItem" | "Query" | "Scan")
        {
            let mut state = self.state();
            let answered = state.answered.entry(format!("{}{canonical}", call.operation)).or_default();
            answered.push(answer.1.clone());
            if answered.len() > 2 {
                answered.remove(0);
            }
        }
        match fate {
            Fate::Belie(lie) => Some(Ok(lie)),
            Fate::LoseAnswer => reset("the connection was closed before the answer"),
            Fate::Late(_) => None,
            Fate::Truncate(at) => Some(Ok(truncated(answer, at))),
            Fate::Empty => Some(Ok(self.emptied(answer, asked.as_deref()))),
            _ => Some(Ok(whole(answer))),
        }
    }

    /// The answer of GetRecords without its records: its next iterator stands where the one that was asked for stood, and is
    /// as young as the answer. Where there is none to leave out, as it is: at the tip nothing is ahead.
    fn emptied(&self, answer: Collected, asked: Option<&str>) -> HttpResponse {
        let mut page: Value = serde_json::from_slice(&answer.1).unwrap_or_default();
        let now_ms = self.aws.now_us() / 1_000;
        let first = page["Records"][0]["ApproximateArrivalTimestamp"].as_f64();
        let (Some(arrived), Some(next)) = (first, asked.and_then(|asked| issued_now(asked, now_ms))) else {
            return whole(answer);
        };
        page["Records"] = json!([]);
        page["NextShardIterator"] = next.into();
        page["MillisBehindLatest"] = (now_ms - (arrived * 1e3) as i64).max(1).into();
        if let Some(members) = page.as_object_mut() {
            members.remove("ChildShards"); // those come with the shard's end
        }
        self.note_fault(Fault::EmptyPage);
        self.trace.note("the records of that page are left out".to_owned());
        json_answer(&page)
    }

    /// What was put, by request and answer. A record that was not taken has no sequence number in the answer.
    fn note_puts(&self, request: Option<&Value>, answer: &[u8], arrived_us: i64) {
        let (Some(request), Ok(answer)) = (request, serde_json::from_slice::<Value>(answer)) else { return };
        let pairs: Vec<(&Value, &Value)> = match (request["Records"].as_array(), answer["Records"].as_array()) {
            (Some(records), Some(answers)) => records.iter().zip(answers).collect(),
            _ => vec![(request, &answer)],
        };
        let mut state = self.state();
        for (record, answer) in pairs {
            let (Some(shard), Some(sequence)) = (answer["ShardId"].as_str(), answer["SequenceNumber"].as_str()) else {
                continue;
            };
            state.puts.push(Put {
                shard: shard.to_owned(),
                sequence: sequence.to_owned(),
                data: STANDARD.decode(record["Data"].as_str().unwrap_or_default()).unwrap_or_default(),
                arrived_us: arrived_us.div_euclid(1_000) * 1_000,
            });
        }
    }

    /// Does a part of what is asked, drawn by `n`.
    async fn in_part(
        &self,
        mut request: HttpRequest,
        call: &Call,
        body: Value,
        n: u64,
    ) -> Result<Value, ConnectorError> {
        let mut rng = fastrand::Rng::with_seed(n);
        let mut sent = body.clone();
        let puts = call.operation == "PutRecords";
        let table = body["RequestItems"].as_object().and_then(|items| items.keys().next().cloned()).unwrap_or_default();
        let entries = if puts { &mut sent["Records"] } else { &mut sent["RequestItems"][table.as_str()] };
        let entries = entries.as_array_mut().map(std::mem::take).unwrap_or_default();
        let done: Vec<bool> = entries.iter().map(|_| rng.bool()).collect();
        let kept: Vec<Value> = entries.iter().zip(&done).filter(|(_, done)| **done).map(|(e, _)| e.clone()).collect();
        let left: Vec<Value> = entries.iter().zip(&done).filter(|(_, done)| !**done).map(|(e, _)| e.clone()).collect();
        if puts {
            sent["Records"] = Value::Array(kept.clone());
        } else {
            sent["RequestItems"][table.as_str()] = Value::Array(kept.clone());
        }
        let mut answer = json!({});
        if !kept.is_empty() {
            let bytes = serde_json::to_vec(&sent).map_err(|e| ConnectorError::user(e.into()))?;
            request.headers_mut().insert("content-length", bytes.len().to_string());
            *request.body_mut() = SdkBody::from(bytes);
            let arrived_us = self.aws.now_us();
            let (status, bytes) = collect(self.engines.send(request).await?).await;
            answer = serde_json::from_slice(&bytes).unwrap_or_default();
            if status.status().as_u16() == 200 && puts {
                self.note_puts(Some(&sent), &bytes, arrived_us);
            }
        }
        if !puts {
            answer["UnprocessedItems"] = if left.is_empty() { json!({}) } else { json!({ table: left }) };
            return Ok(answer);
        }
        let mut taken = answer["Records"].as_array().cloned().unwrap_or_default().into_iter();
        let throttled = json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"});
        let records: Vec<Value> = done
            .iter()
            .map(|done| if *done { taken.next().unwrap_or_else(|| throttled.clone()) } else { throttled.clone() })
            .collect();
        let failed = records.iter().filter(|record| record["ErrorCode"].is_string()).count();
        Ok(json!({ "FailedRecordCount": failed, "Records": records }))
    }
}

fn fate_name(fate: &Fate) -> &'static str {
    match fate {
        Fate::Deliver => "delivered",
        Fate::Refuse(_) => "refused",
        Fate::Belie(_) => "done, and said to have failed",
        Fate::Reset => "reset before it arrived",
        Fate::LoseAnswer => "done, and its answer lost",
        Fate::Late(_) => "late, without an answer",
        Fate::Partial(_) => "done in part",
        Fate::Stale(_) => "answered with what was true before",
        Fate::Truncate(_) => "cut short",
        Fate::Expire(_) => "sent late",
        Fate::Empty => "answered without records",
    }
}

fn is_expired(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["__type"].as_str().is_some_and(|kind| kind.ends_with("ExpiredIteratorException"))
}

/// An iterator of the engine, issued anew at the same place. Its last part is when it was issued.
fn issued_now(iterator: &str, now_ms: i64) -> Option<String> {
    let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(iterator).ok()?).ok()?;
    let (place, _) = plain.rsplit_once(':')?;
    Some(URL_SAFE_NO_PAD.encode(format!("{place}:{now_ms}")))
}

type Collected = (HttpResponse, Bytes);

async fn collect(mut answer: HttpResponse) -> Collected {
    let body = answer.take_body();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    (answer, bytes)
}

fn whole((mut answer, bytes): Collected) -> HttpResponse {
    *answer.body_mut() = SdkBody::from(bytes);
    answer
}

/// The bytes up to a point, and then an end of the connection.
fn truncated((mut answer, bytes): Collected, at: f64) -> HttpResponse {
    let cut = bytes.slice(..(bytes.len() as f64 * at) as usize);
    let frames = [Ok(Frame::data(cut)), Err(std::io::Error::other("the connection was closed"))];
    *answer.body_mut() = SdkBody::from_body_1_x(StreamBody::new(stream::iter(frames)));
    answer
}

fn json_answer(value: &Value) -> HttpResponse {
    HttpResponse::new(200.try_into().unwrap(), SdkBody::from(value.to_string()))
}

/// JSON with its members in order: maps come out of the SDK in any.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, String> = members.iter().map(|(name, v)| (name, canonical(v))).collect();
            let members: Vec<String> =
                sorted.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// What a request is about, and its body if it is JSON.
fn read(request: &HttpRequest) -> (Call, Option<Value>) {
    let Some(target) = request.headers().get("x-amz-target") else { return (read_s3(request), None) };
    let (service, operation) = target.split_once('.').unwrap_or((target, ""));
    let service = if service.starts_with("Kinesis") { Service::Kinesis } else { Service::DynamoDb };
    let body: Value = request.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let mut about: Vec<String> = ["TableName", "ShardId", "ShardToSplit", "ShardIteratorType"]
        .iter()
        .filter_map(|name| body[*name].as_str().map(str::to_owned))
        .collect();
    for part in ["pk", "sk", "scan_id"] {
        for key in ["Key", "Item"] {
            let key = &body[key][part];
            about.extend(key["S"].as_str().or_else(|| key["B"].as_str()).map(str::to_owned));
        }
    }
    if let Some(records) = body["Records"].as_array() {
        about.push(format!("{} records", records.len()));
    }
    let consistent = body["ConsistentRead"].as_bool() == Some(true);
    (
        Call {
            service,
            operation: operation.to_owned(),
            about: about.join(" "),
            consistent,
            conditional: false,
            copies: false,
        },
        Some(body),
    )
}

fn read_s3(request: &HttpRequest) -> Call {
    let uri = request.uri();
    let path = uri.split_once("//").map_or(uri, |(_, rest)| rest);
    let path = path.split_once('/').map_or(path, |(_, path)| path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = path.split_once('/').map_or("", |(_, key)| key);
    let query: Vec<&str> =
        query.split('&').filter(|p| p.starts_with("prefix=") || p.starts_with("start-after=")).collect();
    let conditional = request.headers().get("if-none-match").is_some();
    let copied = request.headers().get("x-amz-copy-source").map(|from| format!(" from {from}")).unwrap_or_default();
    let range = request.headers().get("range").map(|range| format!(" {range}")).unwrap_or_default();
    Call {
        service: Service::S3,
        operation: request.method().to_owned(),
        about: format!("/{path}{}{copied}{range}", query.join("&")),
        consistent: true,
        conditional,
        copies: !copied.is_empty(),
    }
}

/// The client of one process.
#[derive(Debug, Clone)]
pub struct Client {
    pub network: Arc<Network>,
    pub process: Arc<Process>,
}

impl HttpConnector for Client {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(Arc::clone(&self.network).send(Arc::clone(&self.process), request))
    }
}

impl HttpClient for Client {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
