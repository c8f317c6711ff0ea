//! Running a query to its end, and reading its answer.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_athena::Client;
use aws_sdk_athena::types::{
    QueryExecutionContext, QueryExecutionState, ResultReuseByAgeConfiguration, ResultReuseConfiguration,
};
use recount_schemas::causes;
use recount_schemas::host::SharedHost;

use super::answer::{Line, MAX_ROWS};
use super::{AthenaError, Place};
use crate::context::Context;

/// How long one attempt of a request may take.
const ATTEMPT: Duration = Duration::from_secs(20);
/// The first and the longest pause between looks at a query that runs.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// The longest that a query may take: what Athena itself allows (Service Quotas, DML query timeout).
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// What a query came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its ID.
    pub id: String,
    /// The bytes that it scanned.
    pub scanned: u64,
}

/// Asks Athena.
#[derive(Debug)]
pub struct Asker<'a> {
    client: Client,
    place: Place<'a>,
    host: &'a SharedHost,
}

impl<'a> Asker<'a> {
    /// Of a deployment.
    pub fn new(context: &'a Context, place: Place<'a>) -> Self {
        let config = aws_sdk_athena::config::Builder::from(&context.sdk)
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build());
        Self { client: Client::from_conf(config.build()), place, host: &context.host }
    }

    fn failed(&self, why: String) -> AthenaError {
        AthenaError::Failed { workgroup: self.place.workgroup.to_owned(), why }
    }

    /// Runs a query to its end. An earlier answer is not reused: Athena does not look whether its data changed.
    pub async fn ask(&self, sql: &str) -> Result<Done, AthenaError> {
        let by_age = ResultReuseByAgeConfiguration::builder().enabled(false).build();
        // 32 characters: the least that Athena takes. A request that the SDK sends again starts no second query.
        let token = format!("{:016x}{:016x}", self.host.random_u64(), self.host.random_u64());
        let started = self
            .client
            .start_query_execution()
            .query_string(sql)
            .client_request_token(token)
            .query_execution_context(QueryExecutionContext::builder().database(self.place.database).build())
            .work_group(self.place.workgroup)
            .result_reuse_configuration(
                ResultReuseConfiguration::builder().result_reuse_by_age_configuration(by_age).build(),
            )
            .send()
            .await
            .map_err(|error| self.failed(format!("the query was not started: {}", causes(&error))))?;
        let id = started.query_execution_id.ok_or_else(|| self.failed("a query without an ID".to_owned()))?;
        let began = self.host.monotonic();
        let mut pause = PAUSES.0;
        loop {
            let looked = self.client.get_query_execution().query_execution_id(&id).send().await;
            let looked = looked.map_err(|error| self.failed(format!("query {id}: {}", causes(&error))))?;
            let execution = looked.query_execution;
            let status = execution.as_ref().and_then(|execution| execution.status.as_ref());
            let why = || {
                let reason = status.and_then(|status| status.state_change_reason.clone());
                reason.unwrap_or_else(|| "no reason given".to_owned())
            };
            match status.and_then(|status| status.state.as_ref()) {
                Some(QueryExecutionState::Succeeded) => {
                    let statistics = execution.as_ref().and_then(|execution| execution.statistics.as_ref());
                    let scanned = statistics.and_then(|statistics| statistics.data_scanned_in_bytes).unwrap_or(0);
                    return Ok(Done { id, scanned: u64::try_from(scanned).unwrap_or(0) });
                }
                Some(QueryExecutionState::Failed) => return Err(self.failed(format!("query {id} failed: {}", why()))),
                Some(QueryExecutionState::Cancelled) => {
                    let limit = "cancelled; the workgroup's scan limit may be too low";
                    return Err(self.failed(format!("query {id} was {limit}: {}", why())));
                }
                // Queued, running, or running no more and queued again.
                _ => {}
            }
            if self.host.monotonic().saturating_sub(began) > LONGEST {
                // What it still does is paid for.
                let _ = self.client.stop_query_execution().query_execution_id(&id).send().await;
                return Err(self.failed(format!("query {id} took longer than {} minutes", LONGEST.as_secs() / 60)));
            }
            self.host.sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Reads an answer, page by page. The first line of the first page are the columns' names.
    pub async fn read(
        &self,
        id: &str,
        mut take: impl FnMut(&Line) -> Result<(), AthenaError>,
    ) -> Result<(), AthenaError> {
        let (mut next, mut rows, mut first) = (None, 0, true);
        loop {
            let page = self.client.get_query_results().query_execution_id(id).set_next_token(next.take()).send().await;
            let page = page.map_err(|error| self.failed(format!("the answer of query {id}: {}", causes(&error))))?;
            for row in page.result_set.iter().flat_map(|set| set.rows()) {
                let line: Line = row.data().iter().map(|datum| datum.var_char_value.clone()).collect();
                let header = std::mem::take(&mut first) && line.first() == Some(&Some("month".to_owned()));
                if header {
                    continue;
                }
                rows += 1;
                if rows > MAX_ROWS {
                    return Err(AthenaError::Answer(format!("more than {MAX_ROWS} rows")));
                }
                take(&line)?;
            }
            match page.next_token {
                Some(token) if !token.is_empty() => next = Some(token),
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::TestHost;
    use crate::testing_aws::{Asked, refused, sdk};

    fn row(texts: &[&str]) -> Value {
        let data: Vec<Value> = texts.iter().map(|text| json!({ "VarCharValue": text })).collect();
        json!({ "Data": data })
    }

    /// Queued once, running once, then what is given; an answer of two pages.
    fn athena(ends: &'static str) -> (Arc<Mutex<Vec<Asked>>>, aws_config::SdkConfig) {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let sdk = sdk(move |request| {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            let looks = seen.iter().filter(|asked| asked.operation() == "GetQueryExecution").count();
            match request.operation() {
                "StartQueryExecution" => (200, json!({ "QueryExecutionId": "q" }).to_string()),
                "GetQueryExecution" => {
                    let state = ["QUEUED", "RUNNING"].get(looks - 1).copied().unwrap_or(ends);
                    let status = json!({ "State": state, "StateChangeReason": "because" });
                    let statistics = json!({ "DataScannedInBytes": 7 });
                    (200, json!({ "QueryExecution": { "Status": status, "Statistics": statistics } }).to_string())
                }
                "GetQueryResults" if request.json()["NextToken"] == "2" => {
                    (200, json!({ "ResultSet": { "Rows": [row(&["b"])] } }).to_string())
                }
                "GetQueryResults" => {
                    let rows = [row(&["month"]), row(&["a"]), row(&["month"])];
                    (200, json!({ "ResultSet": { "Rows": rows }, "NextToken": "2" }).to_string())
                }
                "StopQueryExecution" => (200, "{}".to_owned()),
                _ => refused("InvalidRequestException"),
            }
        });
        (asked, sdk)
    }

    async fn asks(ends: &'static str) -> (Vec<Asked>, Result<Vec<Line>, AthenaError>) {
        let (asked, sdk) = athena(ends);
        let host: SharedHost = Arc::new(TestHost::default());
        let place = Place { database: "lake", workgroup: "recount" };
        let asker = Asker { client: Client::new(&sdk), place, host: &host };
        let mut lines = Vec::new();
        let told = match asker.ask("SELECT 1").await {
            Ok(done) => {
                asker
                    .read(&done.id, |line| {
                        lines.push(line.clone());
                        Ok(())
                    })
                    .await
            }
            Err(error) => Err(error),
        };
        let asked = asked.lock().unwrap().clone();
        (asked, told.map(|()| lines))
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_and_read_to_its_end() {
        let (asked, lines) = asks("SUCCEEDED").await;
        let text = |text: &str| vec![Some(text.to_owned())];
        // Only the very first line is a header.
        assert_eq!(lines.unwrap(), [text("a"), text("month"), text("b")]);
        let start = asked[0].json();
        assert_eq!(start["ResultReuseConfiguration"]["ResultReuseByAgeConfiguration"]["Enabled"], false);
        assert_eq!(
            (&start["WorkGroup"], &start["QueryExecutionContext"]["Database"]),
            (&json!("recount"), &json!("lake"))
        );
        assert_eq!(start["ClientRequestToken"].as_str().unwrap().len(), 32);
        assert_eq!(asked.iter().filter(|asked| asked.operation() == "GetQueryExecution").count(), 3);
    }

    #[tokio::test]
    async fn a_query_that_fails_or_never_ends_is_an_error() {
        insta::assert_snapshot!(asks("FAILED").await.1.unwrap_err(), @"Athena, workgroup recount: query q failed: because");
        insta::assert_snapshot!(asks("CANCELLED").await.1.unwrap_err(), @"Athena, workgroup recount: query q was cancelled; the workgroup's scan limit may be too low: because");
        let (asked, told) = asks("RUNNING").await;
        insta::assert_snapshot!(told.unwrap_err(), @"Athena, workgroup recount: query q took longer than 30 minutes");
        assert_eq!(asked.last().unwrap().operation(), "StopQueryExecution");
    }
}
