//! The source table, by the AWS SDK.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, DeleteRequest, PutRequest, ReturnValuesOnConditionCheckFailure, WriteRequest,
};
use recount_schemas::host::SharedHost;

use crate::drive::Target;
use crate::items::{KEY, Scan};

/// The most operations in one BatchWriteItem (API reference).
pub const MOST: usize = 25;
/// How often a batch is sent until DynamoDB has taken all of it.
const ATTEMPTS: u32 = 10;
/// A batch of which nothing could be written for want of throughput is refused as a whole: the first where the table's own is
/// used up, the second for any other throttling (API reference, "BatchWriteItem"), the third for the account's (Developer
/// Guide, "Programming.Errors").
const THROTTLED: [&str; 3] = ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB refused an item or did not answer.
    #[error("could not put an item into table {table}")]
    Put {
        /// The table.
        table: String,
        /// What DynamoDB or the way to it said.
        #[source]
        source: Box<SdkError<PutItemError>>,
    },
    /// DynamoDB refused a batch or did not answer.
    #[error("could not write a batch to table {table}")]
    Batch {
        /// The table.
        table: String,
        /// What DynamoDB or the way to it said.
        #[source]
        source: Box<SdkError<BatchWriteItemError>>,
    },
    /// DynamoDB kept leaving some of a batch unprocessed.
    #[error("table {table} left {left} of a batch unprocessed {ATTEMPTS} times; it is throttled: lower the rate")]
    Unprocessed {
        /// The table.
        table: String,
        /// How many operations were left.
        left: usize,
    },
    /// A request could not be built.
    #[error("could not build a request")]
    Build(#[from] BuildError),
}

/// One write without a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The item is there, as given.
    Put(Scan),
    /// The item of this key is not there.
    Delete(String),
}

/// A table of scans.
#[derive(Debug, Clone)]
pub struct Table {
    dynamo: Client,
    name: String,
    host: SharedHost,
}

impl Table {
    /// The table called `name`.
    pub fn new(dynamo: Client, name: impl Into<String>, host: SharedHost) -> Self {
        Self { dynamo, name: name.into(), host }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inserts an item; `false` where another of that key is there already, which stays as it is.
    ///
    /// An item that is there and equal to ours counts as inserted: when an answer is lost the SDK asks again, and finds what
    /// its first attempt wrote. An equal item of an earlier run looks the same.
    pub async fn insert(&self, scan: &Scan) -> Result<bool, TableError> {
        let put = self.dynamo.put_item().table_name(&self.name).set_item(Some(scan.item()));
        let put = put
            .condition_expression(format!("attribute_not_exists({KEY})"))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match put.send().await {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => Ok(refusal.item() == Some(&scan.item())),
            _ => Err(TableError::Put { table: self.name.clone(), source: Box::new(error) }),
        }
    }

    /// Carries out at most [`MOST`] writes on different items. What DynamoDB leaves unprocessed, or all of a batch that it
    /// throttles as a whole or does not answer in time, is sent again, with exponential back-off and full jitter: a write without a
    /// condition may be done twice.
    pub async fn write(&self, batch: &[Write]) -> Result<(), TableError> {
        let mut requests = batch.iter().map(request).collect::<Result<Vec<_>, _>>()?;
        let mut unanswered = None;
        for attempt in 0..ATTEMPTS {
            if requests.is_empty() {
                return Ok(());
            }
            if attempt > 0 {
                let most = FIRST_PAUSE.saturating_mul(1 << (attempt - 1)).min(LONGEST_PAUSE);
                self.host.sleep(self.host.jitter(most)).await;
            }
            match self.dynamo.batch_write_item().request_items(&self.name, requests.clone()).send().await {
                Ok(answer) => {
                    unanswered = None;
                    requests = answer.unprocessed_items.unwrap_or_default().into_values().flatten().collect();
                }
                Err(error) if error.code().is_some_and(|code| THROTTLED.contains(&code)) => {
                    let error = recount_schemas::causes(&error);
                    tracing::info!(error, table = self.name, operations = requests.len(), "throttled a batch");
                }
                Err(error) if may_pass(&error) => {
                    let causes = recount_schemas::causes(&error);
                    tracing::info!(
                        error = causes,
                        table = self.name,
                        operations = requests.len(),
                        "no answer to a batch"
                    );
                    unanswered = Some(error);
                }
                Err(error) => {
                    return Err(TableError::Batch { table: self.name.clone(), source: Box::new(error) });
                }
            }
        }
        match (requests.len(), unanswered) {
            (0, _) => Ok(()),
            (_, Some(error)) => Err(TableError::Batch { table: self.name.clone(), source: Box::new(error) }),
            (left, None) => Err(TableError::Unprocessed { table: self.name.clone(), left }),
        }
    }
}

/// Whether there was no answer in time, or none that says anything of the request. A connection that cannot be made is not among them:
/// the endpoint is wrong.
fn may_pass<E>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_timeout(),
        SdkError::ServiceError(answer) => answer.raw().status().is_server_error(),
        _ => false,
    }
}

fn request(write: &Write) -> Result<WriteRequest, BuildError> {
    Ok(match write {
        Write::Put(scan) => {
            let put = PutRequest::builder().set_item(Some(scan.item())).build()?;
            WriteRequest::builder().put_request(put).build()
        }
        Write::Delete(scan_id) => {
            let key = HashMap::from([(KEY.to_owned(), AttributeValue::S(scan_id.clone()))]);
            let delete = DeleteRequest::builder().set_key(Some(key)).build()?;
            WriteRequest::builder().delete_request(delete).build()
        }
    })
}

impl Target for Table {
    type Op = Write;
    type Error = TableError;

    fn most(&self) -> usize {
        MOST
    }

    fn item<'a>(&self, op: &'a Write) -> &'a str {
        match op {
            Write::Put(scan) => &scan.scan_id,
            Write::Delete(scan_id) => scan_id,
        }
    }

    /// BatchWriteItem refuses two operations on one item.
    fn distinct(&self) -> bool {
        true
    }

    async fn send(&self, batch: Vec<Write>) -> Result<(), TableError> {
        self.write(&batch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::{StillHost, serve};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn scan(id: &str) -> Scan {
        Scan {
            scan_id: id.into(),
            project_id: "acme".into(),
            file_name: "f".into(),
            bytes: 1,
            sha256: String::from("0"),
            verdict: "clean".into(),
            scanned_us: 0,
        }
    }

    fn operations(body: &[u8]) -> Vec<Value> {
        let body: Value = serde_json::from_slice(body).unwrap();
        body["RequestItems"]["scans"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn what_is_left_unprocessed_is_sent_again_until_it_is_done() {
        let (config, seen) = serve(|request| {
            let mut left = operations(&request.body);
            left.remove(0);
            let left = if left.is_empty() { json!({}) } else { json!({"scans": left}) };
            (200, json!({"UnprocessedItems": left}).to_string())
        })
        .await;
        let host = Arc::new(StillHost::default());
        let table = Table::new(Client::new(&config), "scans", host.clone());
        table.write(&[Write::Put(scan("a")), Write::Delete("b".into()), Write::Put(scan("c"))]).await.unwrap();
        let sent: Vec<usize> = seen.lock().unwrap().iter().map(|request| operations(&request.body).len()).collect();
        assert_eq!((sent, host.slept().len()), (vec![3, 2, 1], 2));
    }

    #[tokio::test]
    async fn a_table_that_never_takes_a_batch_is_an_error() {
        let (config, seen) = serve(|request| {
            let left = json!({"UnprocessedItems": {"scans": operations(&request.body)}});
            (200, left.to_string())
        })
        .await;
        let table = Table::new(Client::new(&config), "scans", Arc::new(StillHost::default()));
        let error = table.write(&[Write::Put(scan("a"))]).await.unwrap_err();
        assert!(matches!(error, TableError::Unprocessed { left: 1, .. }), "{error}");
        assert_eq!(seen.lock().unwrap().len(), 10);
    }

    #[tokio::test]
    async fn a_batch_throttled_as_a_whole_is_sent_again() {
        for code in ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"] {
            let answers = Mutex::new(0);
            let refusal = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}"}}"#);
            let (config, seen) = serve(move |_| {
                let mut answers = answers.lock().unwrap();
                *answers += 1;
                if *answers < 4 { (400, refusal.clone()) } else { (200, "{}".to_owned()) }
            })
            .await;
            let host = Arc::new(StillHost::default());
            let table = Table::new(Client::new(&config), "scans", host.clone());
            table.write(&[Write::Put(scan("a")), Write::Delete("b".into())]).await.unwrap();
            let sent: Vec<usize> = seen.lock().unwrap().iter().map(|request| operations(&request.body).len()).collect();
            assert_eq!((sent, host.slept().len()), (vec![2, 2, 2, 2], 3), "{code}");
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_always_throttled_is_an_error_and_one_that_is_wrong_is_one_at_once() {
        for (code, expected, requests) in [
            ("ThrottlingException", "table scans left 1 of a batch unprocessed 10 times", 10),
            ("ResourceNotFoundException", "could not write a batch to table scans", 1),
        ] {
            let (config, seen) = serve(move |_| (400, format!(r#"{{"__type":"{code}"}}"#))).await;
            let table = Table::new(Client::new(&config), "scans", Arc::new(StillHost::default()));
            let error = table.write(&[Write::Put(scan("a"))]).await.unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert_eq!(seen.lock().unwrap().len(), requests, "{code}");
        }
    }

    #[tokio::test]
    async fn a_batch_without_an_answer_is_sent_again_and_in_the_end_is_that_error() {
        assert!(may_pass::<BatchWriteItemError>(&SdkError::timeout_error("five seconds")));
        assert!(!may_pass::<BatchWriteItemError>(&SdkError::construction_failure("no endpoint")));
        for (fails, expected) in [(3, 4), (u32::MAX, 10)] {
            let answers = Mutex::new(0);
            let (config, seen) = serve(move |_| {
                let mut answers = answers.lock().unwrap();
                *answers += 1;
                let failure = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError"}"#;
                if *answers <= fails { (500, failure.to_owned()) } else { (200, "{}".to_owned()) }
            })
            .await;
            let table = Table::new(Client::new(&config), "scans", Arc::new(StillHost::default()));
            let done = table.write(&[Write::Put(scan("a"))]).await;
            assert_eq!(done.is_ok(), expected < 10, "{done:?}");
            assert!(!matches!(done, Err(TableError::Unprocessed { .. })), "{done:?}");
            assert_eq!(seen.lock().unwrap().len(), expected);
        }
    }

    #[tokio::test]
    async fn an_item_that_is_there_as_given_is_inserted() {
        // The answer to the first attempt was lost, and the SDK's second finds the item of the first.
        let refused = |there: Value| {
            let code = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
            (400, json!({"__type": code, "Item": there}).to_string())
        };
        let other = Scan { bytes: 2, ..scan("a") };
        for (there, inserted) in [(scan("a").image(), true), (other.image(), false), (json!({}), false)] {
            let answer = refused(there);
            let (config, seen) = serve(move |_| answer.clone()).await;
            let table = Table::new(Client::new(&config), "scans", Arc::new(StillHost::default()));
            assert_eq!(table.insert(&scan("a")).await.unwrap(), inserted);
            let body: Value = serde_json::from_slice(&seen.lock().unwrap()[0].body).unwrap();
            assert_eq!(body["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
        }
    }

    #[tokio::test]
    async fn an_item_that_is_there_stays_as_it_is() {
        let answers = Mutex::new(vec![
            (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}"#.to_owned()),
            (200, "{}".to_owned()),
        ]);
        let (config, seen) = serve(move |_| answers.lock().unwrap().pop().unwrap()).await;
        let table = Table::new(Client::new(&config), "scans", Arc::new(StillHost::default()));
        assert!(table.insert(&scan("a")).await.unwrap());
        assert!(!table.insert(&scan("a")).await.unwrap());
        let seen = seen.lock().unwrap();
        assert!(String::from_utf8_lossy(&seen[0].body).contains("attribute_not_exists(scan_id)"));
    }
}
