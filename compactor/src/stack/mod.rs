//! A deployment by the name of its stack: `recount --stack NAME`.
//!
//! - Here: what a stack's outputs say. Pure.
//! - [`find`]: asking CloudFormation for them, and Lambda for the definition; a build without the feature `aws` cannot.

#[cfg(feature = "aws")]
pub mod find;
#[cfg(not(feature = "aws"))]
#[path = "unable.rs"]
pub mod find;

use std::collections::BTreeMap;

use recount_schemas::Settings;
use recount_schemas::definition::given::{self, GivenError};
use recount_schemas::{Definition, SetName};

/// The variable that names a stack.
pub const VARIABLE: &str = "RECOUNT_STACK";

/// How changes reach the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// Kinesis Data Streams for DynamoDB.
    Kinesis,
    /// DynamoDB Streams and the relay.
    Relay,
}

/// A deployment, as the outputs of its stack say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// How changes reach its stream.
    pub capture: Capture,
    /// The table whose changes are counted.
    pub source: String,
    /// The names of the base's things.
    pub settings: Settings,
    /// The consumer's function.
    pub consumer: String,
    /// The compactor's function.
    pub compactor: String,
    /// The relay's function.
    pub relay: Option<String>,
    /// The consumer's event source mapping.
    pub mapping: String,
}

/// A stack could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// There is none.
    #[error(
        "there is no stack {stack} in {region} of {account}; check --stack (or {VARIABLE}), AWS_REGION and AWS_PROFILE; `aws cloudformation \
         list-stacks` names those that are there"
    )]
    Unknown {
        /// Its name.
        stack: String,
        /// The region that was asked.
        region: String,
        /// Whose: the account, or the credentials that stand for it.
        account: String,
    },
    /// It is not one of ours, or not made yet.
    #[error(
        "stack {stack} ({status}) has no outputs {}; it is not a stack of infra/aws/template.yaml, or its deployment has not ended",
        missing.join(", ")
    )]
    Missing {
        /// Its name.
        stack: String,
        /// Its state.
        status: String,
        /// What is not there.
        missing: Vec<&'static str>,
    },
    /// An output says something unknown.
    #[error("output Capture of stack {stack} is {found:?}; it can be kinesis or relay")]
    Capture {
        /// Its name.
        stack: String,
        /// What it says.
        found: String,
    },
    /// A request failed.
    #[error("{what} of stack {stack} could not be read: {why}")]
    Failed {
        /// Its name.
        stack: String,
        /// What was asked for.
        what: String,
        /// What happened.
        why: String,
    },
    /// The consumer's environment holds no definition.
    #[error("the environment of function {0} holds no {var}; give the definition with --definition", var = given::VARIABLE)]
    NoDefinition(String),
    /// The definition that the consumer has cannot be taken.
    #[error("the definition of function {function}: {source}")]
    Definition {
        /// The function.
        function: String,
        /// What is wrong.
        source: GivenError,
    },
    /// The consumer's definition is a set's.
    #[error(
        "function {function} works on set {set}, so it does not have the base's definition; give that with --definition, \
         and to switch to the base, --unchecked"
    )]
    OfASet {
        /// The function.
        function: String,
        /// Its set.
        set: SetName,
    },
    /// This program cannot ask.
    #[error("--stack {0}: this program was built without the feature `aws`")]
    Unable(String),
}

impl StackError {
    /// Whether the command line is wrong, not the deployment.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }
}

/// What a stack's outputs say. An optional part is one that is not an empty text.
pub fn read(name: &str, status: &str, outputs: &BTreeMap<String, String>) -> Result<Stack, StackError> {
    let mut missing = Vec::new();
    let there = |key: &str| outputs.get(key).filter(|value| !value.is_empty()).cloned();
    let mut needed = |key: &'static str| {
        there(key).unwrap_or_else(|| {
            missing.push(key);
            String::new()
        })
    };
    let capture = needed("Capture");
    let source = needed("SourceTableName");
    let settings = Settings {
        stream: needed("StreamName"),
        totals: needed("TotalsTableName"),
        ledger: needed("LedgerTableName"),
        progress: needed("ProgressTableName"),
        bucket: needed("BucketName"),
        glue_database: there("GlueDatabaseName"),
        athena_workgroup: there("AthenaWorkgroupName"),
        ..Settings::default()
    };
    let (consumer, compactor) = (needed("ConsumerFunctionName"), needed("CompactorFunctionName"));
    let mapping = needed("ConsumerMappingId");
    if !missing.is_empty() {
        return Err(StackError::Missing { stack: name.to_owned(), status: status.to_owned(), missing });
    }
    let capture = match capture.as_str() {
        "kinesis" => Capture::Kinesis,
        "relay" => Capture::Relay,
        other => return Err(StackError::Capture { stack: name.to_owned(), found: other.to_owned() }),
    };
    let relay = there("RelayFunctionName");
    Ok(Stack { name: name.to_owned(), capture, source, settings, consumer, compactor, relay, mapping })
}

/// What a function's environment says of the definition.
#[derive(Debug, Clone)]
pub struct InUse {
    /// The definition.
    pub definition: Definition,
    /// Its text.
    pub text: String,
    /// The set that the function works on, if it is not the base.
    pub set: Option<SetName>,
}

/// The definition that a function has in its environment.
pub fn in_use(function: &str, environment: &BTreeMap<String, String>) -> Result<InUse, StackError> {
    let lookup = |name: &str| environment.get(name).filter(|value| !value.trim().is_empty()).cloned();
    let wrong = |source| StackError::Definition { function: function.to_owned(), source };
    let value = lookup(given::VARIABLE).ok_or_else(|| StackError::NoDefinition(function.to_owned()))?;
    let text = given::text(&value).map_err(wrong)?;
    let definition = Definition::parse(&text, given::VARIABLE).map_err(|error| wrong(error.into()))?;
    Ok(InUse { definition, text, set: lookup(Settings::SET).and_then(|set| set.parse().ok()) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn outputs() -> BTreeMap<String, String> {
        [
            ("Capture", "kinesis"),
            ("SourceTableName", "scans"),
            ("StreamName", "changes-1"),
            ("TotalsTableName", "totals-1"),
            ("LedgerTableName", "ledger-1"),
            ("ProgressTableName", "progress-1"),
            ("BucketName", "archive-1"),
            ("GlueDatabaseName", "lake"),
            ("AthenaWorkgroupName", "recount"),
            ("ConsumerFunctionName", "consumer-1"),
            ("CompactorFunctionName", "compactor-1"),
            ("ConsumerMappingId", "11111111-2222-3333-4444-555555555555"),
            ("DashboardUrl", "https://example.invalid"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn outputs_name_everything() {
        let stack = read("recount", "CREATE_COMPLETE", &outputs()).unwrap();
        assert_eq!((stack.capture, stack.relay), (Capture::Kinesis, None));
        assert_eq!(
            (stack.settings.bucket.as_str(), stack.settings.glue_database.as_deref()),
            ("archive-1", Some("lake"))
        );
        assert_eq!((stack.settings.ledger.as_str(), stack.consumer.as_str()), ("ledger-1", "consumer-1"));
    }

    #[test]
    fn what_is_missing_is_said_all_at_once() {
        let mut some = outputs();
        some.remove("BucketName");
        some.insert("StreamName".to_owned(), String::new());
        let error = read("recount", "CREATE_IN_PROGRESS", &some).unwrap_err();
        insta::assert_snapshot!(error, @"stack recount (CREATE_IN_PROGRESS) has no outputs StreamName, BucketName; it is not a stack of infra/aws/template.yaml, or its deployment has not ended");
        let mut other = outputs();
        other.insert("Capture".to_owned(), "both".to_owned());
        insta::assert_snapshot!(read("recount", "", &other).unwrap_err(), @r#"output Capture of stack recount is "both"; it can be kinesis or relay"#);
        // Without Athena a deployment is one all the same.
        some = outputs();
        some.retain(|key, _| !key.starts_with("Glue") && !key.starts_with("Athena"));
        assert_eq!(read("recount", "", &some).unwrap().settings.glue_database, None);
    }

    #[test]
    fn the_definition_comes_out_of_the_environment() {
        let toml = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n";
        let of = |pairs: &[(&str, String)]| {
            let environment = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            in_use("consumer-1", &environment)
        };
        let coded = format!("{}{}", given::PREFIX, given::base64(toml));
        assert_eq!(of(&[(given::VARIABLE, coded.clone())]).unwrap().definition.table, "scans");
        let set = of(&[(given::VARIABLE, coded), (Settings::SET, "tokyo".to_owned())]).unwrap().set;
        assert_eq!(set.map(|set| set.to_string()).as_deref(), Some("tokyo"));
        insta::assert_snapshot!(of(&[]).unwrap_err(), @"the environment of function consumer-1 holds no RECOUNT_DEFINITION_TOML; give the definition with --definition");
        insta::assert_snapshot!(of(&[(given::VARIABLE, "x".to_owned())]).unwrap_err(), @"the definition of function consumer-1: RECOUNT_DEFINITION_TOML:1: key with no value, expected `=`");
    }
}
