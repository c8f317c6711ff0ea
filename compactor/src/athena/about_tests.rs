//! Against a deployment of our own making: a bucket with a log, and an Athena that answers what it is told to.

use std::sync::{Arc, Mutex};

use recount_schemas::{Definition, Settings};
use serde_json::{Value, json};

use super::*;
use crate::athena::answer::{Fields, Line};
use crate::athena::cover::OfFile;
use crate::athena::cover::tests::{adds, of_file};
use crate::log::{Digest, names};
use crate::rows::testing::definition;
use crate::testing::TestHost;
use crate::testing_aws::{Asked as Request, sdk};

/// Lines (month, file, rows, sum of bytes).
#[derive(Debug, Default)]
struct Files;

impl Taking for Files {
    const KINDS: &'static [&'static str] = &[];
    const KEYS: bool = false;

    fn take(&mut self, line: &Line, read: &mut Read) -> Result<(), AthenaError> {
        let mut fields = Fields::new(line);
        let (month, file) = (fields.given("month")?, fields.given::<String>("file")?);
        let (rows, sums) = (fields.given("rows")?, fields.sums(1)?);
        read.file(month, &file, OfFile { keys: None, ..of_file(rows, sums) });
        fields.end()
    }
}

/// A deployment, and what it was asked.
pub(crate) struct Deployment {
    pub(crate) context: Context,
    asked: Arc<Mutex<Vec<Request>>>,
    /// How many entries of the log are there.
    shown: Arc<Mutex<u64>>,
    states: Vec<State>,
}

fn row(texts: &[&str]) -> Value {
    let datum = |text: &&str| if *text == "NULL" { json!({}) } else { json!({ "VarCharValue": text }) };
    json!({ "Data": texts.iter().map(datum).collect::<Vec<_>>() })
}

impl Deployment {
    /// With these entries, of which so many are there at first; the rest is put while the first query runs. Each query is answered by
    /// the next of the answers, and the last one again and again.
    pub(crate) fn new(definition: Definition, adds_to: &[&str], at_first: u64, answers: Vec<Vec<Vec<String>>>) -> Self {
        Self::putting(definition, adds_to, at_first, u64::MAX, answers)
    }

    /// The same, where each query has one entry put.
    fn growing(definition: Definition, adds_to: &[&str], at_first: u64, answers: Vec<Vec<Vec<String>>>) -> Self {
        Self::putting(definition, adds_to, at_first, 1, answers)
    }

    fn putting(
        definition: Definition,
        adds_to: &[&str],
        at_first: u64,
        puts: u64,
        answers: Vec<Vec<Vec<String>>>,
    ) -> Self {
        let mut states = vec![State::default()];
        let mut entries = Vec::new();
        for (n, of) in adds_to.iter().enumerate() {
            let mut state = states[n].clone();
            let entry = adds(&state, of, n as u64 + 1, 7);
            let bytes = entry.to_bytes().unwrap();
            state.apply(entry, Digest::of(&bytes)).unwrap();
            entries.push(String::from_utf8(bytes).unwrap());
            states.push(state);
        }
        let (asked, shown) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(Mutex::new(at_first)));
        let (seen, visible) = (Arc::clone(&asked), Arc::clone(&shown));
        let sdk = sdk(move |request| {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            let queries = seen.iter().filter(|asked| asked.operation() == "StartQueryExecution").count();
            match (request.operation(), request.line.split('/').next()) {
                ("StartQueryExecution", _) => (200, json!({ "QueryExecutionId": format!("q{queries}") }).to_string()),
                ("GetQueryExecution", _) => {
                    let mut visible = visible.lock().unwrap();
                    *visible = visible.saturating_add(puts).min(entries.len() as u64);
                    let (status, statistics) = (json!({ "State": "SUCCEEDED" }), json!({ "DataScannedInBytes": 9 }));
                    (200, json!({ "QueryExecution": { "Status": status, "Statistics": statistics } }).to_string())
                }
                ("GetQueryResults", _) => {
                    let answer = answers.get(queries - 1).or(answers.last()).unwrap();
                    let lines = answer.iter().map(|line| row(&line.iter().map(String::as_str).collect::<Vec<_>>()));
                    let rows: Vec<Value> = std::iter::once(row(&["month"])).chain(lines).collect();
                    (200, json!({ "ResultSet": { "Rows": rows } }).to_string())
                }
                (_, Some("PUT ")) => (200, String::new()),
                (_, Some("GET ")) if request.line.contains("list-type=2") => {
                    (200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_owned())
                }
                (_, Some("GET ")) => {
                    let there = entries.iter().take(*visible.lock().unwrap() as usize).zip(0..);
                    let entry = there.into_iter().find(|(_, n)| request.line.contains(&names::entry(*n)));
                    let missing = || (404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>".to_owned());
                    entry.map_or_else(missing, |(entry, _)| (200, entry.clone()))
                }
                _ => (404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>".to_owned()),
            }
        });
        let names = Settings {
            glue_database: Some("lake".to_owned()),
            athena_workgroup: Some("recount".to_owned()),
            ..Settings::default()
        };
        let context = Context::new(&sdk, names, definition, Arc::new(TestHost::default()));
        Self { context, asked, shown, states }
    }

    /// How often this was asked.
    pub(crate) fn times(&self, what: &str) -> usize {
        let of = |asked: &&Request| asked.target.ends_with(what) || asked.line.starts_with(what);
        self.asked.lock().unwrap().iter().filter(of).count()
    }

    async fn ask(&self) -> Result<Asked, AthenaError> {
        let state = self.states[*self.shown.lock().unwrap() as usize].clone();
        Ok(about(&self.context, "SELECT 1", None, &state, Files::default, &|_| {}).await?.1)
    }
}

/// The line of the file that entry `n` added to this month.
fn file(of: &str, n: u64) -> Vec<String> {
    let target = names::target(of.parse().unwrap(), 0, n, 0);
    [of, &format!("s3://recount-archive/{target}"), &(n + 1).to_string(), "0.000000007"].map(str::to_owned).into()
}

#[tokio::test]
async fn an_archive_that_goes_on_does_not_keep_from_an_answer() {
    let entries = ["2026-10", "2026-11", "2026-11", "2026-10"];
    // Each month as before, as after, and in between; not both of one state.
    for (answer, entries_in_all) in [
        (vec![file("2026-10", 0), file("2026-11", 1)], 2),
        (vec![file("2026-10", 0), file("2026-11", 1), file("2026-11", 2)], 3),
        (vec![file("2026-10", 0), file("2026-10", 3), file("2026-11", 1)], 2),
        (vec![file("2026-10", 0), file("2026-10", 3), file("2026-11", 1), file("2026-11", 2)], 4),
    ] {
        let deployment = Deployment::new(definition(), &entries, 2, vec![answer.clone()]);
        let asked = deployment.ask().await.unwrap();
        assert_eq!((asked.entries, asked.files), (entries_in_all, answer.len() as u64));
        assert_eq!((asked.query.as_str(), asked.scanned_bytes, deployment.times("StartQueryExecution")), ("q1", 9, 1));
    }
}

#[tokio::test]
async fn another_answer_is_asked_for_and_none_is_believed_that_fits_no_state() {
    let entries = ["2026-10", "2026-11", "2026-11"];
    let whole = || vec![file("2026-10", 0), file("2026-11", 1), file("2026-11", 2)];
    // The second half of November without the first.
    let torn = vec![file("2026-10", 0), file("2026-11", 2)];
    let deployment = Deployment::new(definition(), &entries, 2, vec![torn.clone(), whole()]);
    assert_eq!(deployment.ask().await.unwrap().query, "q2");
    // A month whose partition is missing, however often it is asked.
    let deployment = Deployment::new(definition(), &entries, 2, vec![whole().split_off(1)]);
    let error = deployment.ask().await.unwrap_err();
    insta::assert_snapshot!(error, @"Athena did not read the archive as the log has it: 2026-10 has 1 files with 1 rows in the log, and 0 files with 0 rows were read; see `recount doctor` and `recount fsck`, then ask again");
    assert!(!error.is_usage());
    assert_eq!(deployment.times("StartQueryExecution"), 2, "once more than it was answered, as the log stood still");
    // What was so before the first question is good to the last: somebody is still finishing the entry behind it.
    let deployment =
        Deployment::new(definition(), &entries, 2, vec![torn.clone(), vec![file("2026-10", 0), file("2026-11", 1)]]);
    let asked = deployment.ask().await.unwrap();
    assert_eq!((asked.query.as_str(), asked.entries), ("q2", 2));
    // But not what was so before that.
    let deployment = Deployment::new(definition(), &entries, 2, vec![torn, vec![file("2026-10", 0)]]);
    assert!(matches!(deployment.ask().await, Err(AthenaError::OtherFiles(_))));
    // While the log goes on, once more.
    let deployment = Deployment::growing(definition(), &entries, 1, vec![vec![file("2026-11", 2)]]);
    assert!(matches!(deployment.ask().await, Err(AthenaError::OtherFiles(_))));
    assert_eq!(deployment.times("StartQueryExecution"), 3);
    // Sums that do not fit.
    let mut without = whole();
    without[2][3] = "NULL".into();
    let deployment = Deployment::new(definition(), &entries, 2, vec![without]);
    let error = deployment.ask().await.unwrap_err().to_string();
    assert!(error.contains("2026-11 comes to other sums of measure_bytes"), "{error}");
}

#[tokio::test]
async fn a_hostile_line_is_an_error_at_once() {
    let wrong = ["2026-11", "s3://b/x", "-1", "0"].map(str::to_owned).to_vec();
    let deployment = Deployment::new(definition(), &[], 0, vec![vec![wrong]]);
    assert!(matches!(deployment.ask().await, Err(AthenaError::Answer(_))));
    assert_eq!(deployment.times("StartQueryExecution"), 1);
}

#[tokio::test]
async fn it_needs_a_workgroup_and_the_base() {
    let mut deployment = Deployment::new(definition(), &[], 0, vec![Vec::new()]);
    deployment.context.settings.athena_workgroup = None;
    insta::assert_snapshot!(deployment.ask().await.unwrap_err(), @"--engine athena needs RECOUNT_ATHENA_WORKGROUP; set it, or name the stack with --stack");
    deployment.context.settings = deployment.context.settings.of_set(&"tokyo".parse().unwrap());
    insta::assert_snapshot!(deployment.ask().await.unwrap_err(), @"--engine athena reads the base's archive, and this is set tokyo; leave --engine out");
}
