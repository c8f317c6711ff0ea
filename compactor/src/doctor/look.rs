//! Looking at a deployment. Only reads, each with the rights of whoever calls.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_sdk_dynamodb::types::{AttributeValue, KeyType, PointInTimeRecoveryStatus, TimeToLiveStatus};
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};
use recount_consumer::handler::{AttemptTimeouts, Clients};
use recount_schemas::causes;

use super::facts::{BucketFacts, Destination, Fact, Facts, Mapping, Placed, Stream, Table, TableStream};
use super::policy::{self, LogPolicy};
use crate::context::Context;
use crate::progress::{Says, Work};
use crate::stack::Stack;

/// What services and their stand-ins say of an operation that they do not have.
const NOT_OFFERED: [&str; 5] =
    ["UnknownOperationException", "UnknownOperation", "NotImplemented", "MethodNotAllowed", "InvalidAction"];
/// Why a function is not looked at.
const NO_STACK: &str = "no stack is named: --stack NAME";

/// Looks at everything of a deployment. `stack`: where its functions are.
pub async fn look(context: &Context, stack: Option<&Stack>, says: &Says<'_>) -> Facts {
    let (settings, definition) = (&context.settings, &context.definition);
    says(Work::Step("looking at the tables"));
    let source = table(context, &definition.table).await;
    let totals = table(context, &settings.totals).await;
    let ledger = readable(context, table(context, &settings.ledger).await, &settings.ledger).await;
    let progress = readable(context, table(context, &settings.progress).await, &settings.progress).await;
    says(Work::Step("looking at capture and stream"));
    let destinations = destinations(context, &definition.table).await;
    let stream = stream(context).await;
    says(Work::Step("looking at the functions"));
    let functions = functions::look(context, stack).await;
    says(Work::Step("looking at the bucket"));
    let bucket = bucket(context).await;
    let (log, partitions) = archive(context).await;
    let in_totals = context.totals.read_definition_hash().await;
    let in_totals = in_totals.map_or_else(|error| Fact::Unseen(causes(&error)), Fact::Is);
    Facts {
        source_name: definition.table.clone(),
        source_key: definition.key.clone(),
        ledger_days: definition.ledger_days,
        definition: definition.hash().to_owned(),
        definitions: vec![
            ("totals table", in_totals),
            ("consumer", functions.consumer_definition),
            ("compactor", functions.compactor_definition),
        ],
        source,
        destinations,
        relay: functions.relay,
        stream,
        consumer: functions.consumer,
        totals,
        ledger,
        progress,
        bucket,
        log,
        partitions,
        clock_ms: clock(context).await,
    }
}

/// An answer as a fact. Some errors are answers, too: `says` tells which.
fn fact<T, O, E>(
    answer: Result<O, SdkError<E>>,
    is: impl FnOnce(O) -> T,
    says: impl FnOnce(&str) -> Option<Fact<T>>,
) -> Fact<T>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(answer) => Fact::Is(is(answer)),
        Err(error) => {
            let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
            match says(code) {
                Some(fact) => fact,
                None if NOT_OFFERED.contains(&code) => Fact::Absent("not offered here".to_owned()),
                None => Fact::Unseen(causes(&error)),
            }
        }
    }
}

async fn table(context: &Context, name: &str) -> Fact<Table> {
    let dynamo = &context.dynamo;
    let described = dynamo.describe_table().table_name(name).send().await;
    let not_there = |code: &str| (code == "ResourceNotFoundException").then_some(Fact::Is(None));
    let described = match fact(described, |answer| answer.table, not_there) {
        Fact::Is(Some(described)) => described,
        Fact::Is(None) => {
            let (recovery, expires_by) = (Fact::Absent(String::new()), Fact::Absent(String::new()));
            return Fact::Is(Table {
                status: format!("there is no table {name}"),
                key: Vec::new(),
                recovery,
                stream: None,
                expires_by,
            });
        }
        Fact::Absent(why) => return Fact::Absent(why),
        Fact::Unseen(why) => return Fact::Unseen(why),
    };
    let kind = |name: &str| {
        let of = described.attribute_definitions().iter().find(|attribute| attribute.attribute_name == name);
        of.map_or_else(String::new, |attribute| attribute.attribute_type.as_str().to_owned())
    };
    let mut elements: Vec<_> = described.key_schema().iter().collect();
    elements.sort_by_key(|element| element.key_type != KeyType::Hash);
    let key = elements.iter().map(|element| (element.attribute_name.clone(), kind(&element.attribute_name))).collect();
    let recovery = fact(
        dynamo.describe_continuous_backups().table_name(name).send().await,
        |answer| {
            let description = answer.continuous_backups_description;
            let recovery = description.and_then(|description| description.point_in_time_recovery_description);
            let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
            status == Some(PointInTimeRecoveryStatus::Enabled)
        },
        |_| None,
    );
    let expires_by = fact(
        dynamo.describe_time_to_live().table_name(name).send().await,
        |answer| {
            let expiry = answer.time_to_live_description?;
            let on = matches!(expiry.time_to_live_status?, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling);
            expiry.attribute_name.filter(|_| on)
        },
        |_| None,
    );
    let status = described.table_status.as_ref().map_or_else(String::new, |status| status.as_str().to_owned());
    let on = described.stream_specification.as_ref().filter(|stream| stream.stream_enabled);
    let stream = on.zip(described.latest_stream_arn.clone()).map(|(on, arn)| TableStream {
        arn,
        view: on.stream_view_type.as_ref().map_or_else(String::new, |view| view.as_str().to_owned()),
    });
    Fact::Is(Table { status, key, recovery, stream, expires_by })
}

/// A table that must be readable: one that is described and refuses a Query is not seen.
async fn readable(context: &Context, table: Fact<Table>, name: &str) -> Fact<Table> {
    if table.seen().is_none_or(|table| table.key.first().is_none_or(|(name, _)| name != "pk")) {
        return table;
    }
    let nobody = AttributeValue::S("recount#doctor".to_owned());
    let query = context.dynamo.query().table_name(name).key_condition_expression("pk = :pk").limit(1);
    match fact(query.expression_attribute_values(":pk", nobody).send().await, drop, |_| None) {
        Fact::Unseen(why) => Fact::Unseen(format!("{name} cannot be queried: {why}")),
        _ => table,
    }
}

async fn destinations(context: &Context, table: &str) -> Fact<Vec<Destination>> {
    fact(
        context.dynamo.describe_kinesis_streaming_destination().table_name(table).send().await,
        |answer| {
            let told = answer.kinesis_data_stream_destinations.unwrap_or_default().into_iter();
            told.map(|destination| Destination {
                stream: destination.stream_arn.unwrap_or_default(),
                status: destination.destination_status.map_or_else(String::new, |status| status.as_str().to_owned()),
                precision: destination.approximate_creation_date_time_precision.map(|of| of.as_str().to_owned()),
            })
            .collect()
        },
        |code| (code == "ResourceNotFoundException").then(|| Fact::Absent(format!("there is no table {table}"))),
    )
}

async fn stream(context: &Context) -> Fact<Stream> {
    let name = &context.settings.stream;
    let gone = || Stream { arn: String::new(), status: format!("there is no stream {name}"), retention_hours: 0 };
    let described = fact(
        context.kinesis.describe_stream_summary().stream_name(name).send().await,
        |answer| {
            answer.stream_description_summary.map_or_else(gone, |summary| Stream {
                arn: summary.stream_arn,
                status: summary.stream_status.as_str().to_owned(),
                retention_hours: u32::try_from(summary.retention_period_hours).unwrap_or(0),
            })
        },
        |code| (code == "ResourceNotFoundException").then(|| Fact::Is(gone())),
    );
    if described.seen().is_none_or(|stream| stream.arn.is_empty()) {
        return described;
    }
    match fact(context.kinesis.list_shards().stream_name(name).max_results(1).send().await, drop, |_| None) {
        Fact::Unseen(why) => Fact::Unseen(format!("the shards of {name} cannot be listed: {why}")),
        _ => described,
    }
}

async fn bucket(context: &Context) -> BucketFacts {
    let Clients { s3, .. } = Clients::within(&context.sdk, AttemptTimeouts::ARCHIVE);
    let name = &context.settings.bucket;
    let lists = fact(s3.list_objects_v2().bucket(name).max_keys(1).send().await, drop, |_| None);
    let versioned = fact(
        s3.get_bucket_versioning().bucket(name).send().await,
        |answer| answer.status == Some(aws_sdk_s3::types::BucketVersioningStatus::Enabled),
        |_| None,
    );
    let private = fact(
        s3.get_public_access_block().bucket(name).send().await,
        |answer| {
            answer.public_access_block_configuration.is_some_and(|block| {
                let (acls, policies) = (block.block_public_acls, block.block_public_policy);
                let all = [acls, block.ignore_public_acls, policies, block.restrict_public_buckets];
                all.iter().all(|on| *on == Some(true))
            })
        },
        |code| (code == "NoSuchPublicAccessBlockConfiguration").then_some(Fact::Is(false)),
    );
    let expires = fact(
        s3.get_bucket_lifecycle_configuration().bucket(name).send().await,
        |answer| answer.rules.unwrap_or_default().iter().filter_map(expiring).collect(),
        |code| (code == "NoSuchLifecycleConfiguration").then(|| Fact::Is(Vec::new())),
    );
    let policy = fact(
        s3.get_bucket_policy().bucket(name).send().await,
        |answer| policy::read(answer.policy().unwrap_or_default(), name),
        |code| (code == "NoSuchBucketPolicy").then(|| Fact::Is(Some(LogPolicy::default()))),
    );
    let policy = match policy {
        Fact::Is(Some(policy)) => Fact::Is(policy),
        Fact::Is(None) => Fact::Unseen("the bucket's policy is not understood".to_owned()),
        Fact::Absent(why) => Fact::Absent(why),
        Fact::Unseen(why) => Fact::Unseen(why),
    };
    BucketFacts { lists, versioned, private, expires, policy }
}

/// The prefix of a rule by which present objects expire.
fn expiring(rule: &LifecycleRule) -> Option<String> {
    let expiration = rule.expiration.as_ref()?;
    let by_age = expiration.days.is_some() || expiration.date.is_some();
    let filter = rule.filter.as_ref();
    let of_filter = filter.and_then(|filter| filter.prefix.clone().or_else(|| filter.and.as_ref()?.prefix.clone()));
    #[allow(deprecated)] // old rules have their prefix here
    let prefix = of_filter.or_else(|| rule.prefix.clone()).unwrap_or_default();
    (rule.status == ExpirationStatus::Enabled && by_age).then_some(prefix)
}

/// The log's length, and what the catalog shows of each month.
async fn archive(context: &Context) -> (Fact<u64>, Fact<Vec<Placed>>) {
    let state = match context.log().await {
        Ok(state) => state,
        Err(error) => {
            let why = causes(&error);
            return (Fact::Unseen(why.clone()), Fact::Unseen(why));
        }
    };
    let log = Fact::Is(state.next);
    let Some(catalog) = &context.catalog else {
        let why = match context.settings.glue_database {
            Some(_) => "only the base's archive has partitions",
            None => "RECOUNT_GLUE_DATABASE is not set",
        };
        return (log, Fact::Absent(why.to_owned()));
    };
    let mut placed = Vec::new();
    for month in state.files.keys() {
        match catalog.shown(*month).await {
            Ok(shown) => placed.push(Placed { month: *month, version: state.version(*month), shown }),
            Err(why) => return (log, Fact::Unseen(why)),
        }
    }
    (log, Fact::Is(placed))
}

/// Takes the time out of an answer's headers.
#[derive(Debug, Clone, Default)]
struct DateHeader(Arc<Mutex<Option<String>>>);

impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "DateHeader"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

async fn clock(context: &Context) -> Fact<i64> {
    let header = DateHeader::default();
    let ask = context.dynamo.describe_table().table_name(&context.settings.totals);
    // Also a refusal has a date.
    let _ = ask.customize().interceptor(header.clone()).send().await;
    let now_ms = context.host.now_ms();
    let date = header.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(date) = date else { return Fact::Absent("DynamoDB's answer bears no date".to_owned()) };
    let time = DateTime::from_str(&date, DateTimeFormat::HttpDate).ok().and_then(|time| time.to_millis().ok());
    time.map_or_else(|| Fact::Unseen(format!("DynamoDB's date is {date:?}")), |ms| Fact::Is(now_ms - ms))
}

/// What the functions and their mappings are like.
struct Functions {
    consumer: Fact<Mapping>,
    relay: Fact<Option<Mapping>>,
    consumer_definition: Fact<Option<String>>,
    compactor_definition: Fact<Option<String>>,
}

impl Functions {
    fn absent(why: &str) -> Self {
        Self {
            consumer: Fact::Absent(why.to_owned()),
            relay: Fact::Absent(why.to_owned()),
            consumer_definition: Fact::Absent(why.to_owned()),
            compactor_definition: Fact::Absent(why.to_owned()),
        }
    }
}

#[cfg(not(feature = "aws"))]
mod functions {
    use super::*;

    pub(super) async fn look(_: &Context, stack: Option<&Stack>) -> Functions {
        Functions::absent(if stack.is_some() { "this program was built without the feature `aws`" } else { NO_STACK })
    }
}

#[cfg(feature = "aws")]
mod functions {
    use aws_sdk_lambda::operation::get_event_source_mapping::GetEventSourceMappingOutput;
    use aws_sdk_lambda::types::FunctionResponseType;
    use recount_schemas::Home;

    use super::*;
    use crate::stack::{InUse, StackError, find, in_use};

    pub(super) async fn look(context: &Context, stack: Option<&Stack>) -> Functions {
        let Some(stack) = stack else { return Functions::absent(NO_STACK) };
        let lambda = find::lambda(&context.sdk);
        Functions {
            consumer: mapping(&lambda, &stack.mapping).await,
            relay: relay(&lambda, stack).await,
            consumer_definition: definition(&lambda, context, stack, &stack.consumer).await,
            compactor_definition: definition(&lambda, context, stack, &stack.compactor).await,
        }
    }

    async fn relay(lambda: &aws_sdk_lambda::Client, stack: &Stack) -> Fact<Option<Mapping>> {
        let Some(function) = &stack.relay else { return Fact::Is(None) };
        let listed = lambda.list_event_source_mappings().function_name(function).send().await;
        // One that is off may stand beside the one that is on.
        let chosen = fact(
            listed,
            |answer| {
                let mut all = answer.event_source_mappings.unwrap_or_default();
                all.sort_by_key(|mapping| !mapping.state.as_deref().is_some_and(|state| state.starts_with("Enabl")));
                all.into_iter().find_map(|mapping| mapping.uuid)
            },
            |_| None,
        );
        match chosen {
            Fact::Is(Some(id)) => match mapping(lambda, &id).await {
                Fact::Is(mapping) => Fact::Is(Some(mapping)),
                Fact::Absent(why) => Fact::Absent(why),
                Fact::Unseen(why) => Fact::Unseen(why),
            },
            Fact::Is(None) => Fact::Is(None),
            Fact::Absent(why) => Fact::Absent(why),
            Fact::Unseen(why) => Fact::Unseen(why),
        }
    }

    async fn definition(
        lambda: &aws_sdk_lambda::Client,
        context: &Context,
        stack: &Stack,
        function: &str,
    ) -> Fact<Option<String>> {
        let environment = find::environment(lambda, &stack.name, function).await;
        match environment.and_then(|environment| in_use(function, &environment)) {
            Ok(in_use) => of_home(context, function, in_use),
            Err(error @ StackError::NoDefinition(_)) => Fact::Absent(causes(&error)),
            Err(error) => Fact::Unseen(causes(&error)),
        }
    }

    /// A function that works on another home has another home's definition, and is right to.
    pub(super) fn of_home(context: &Context, function: &str, in_use: InUse) -> Fact<Option<String>> {
        let (ours, theirs) = (context.home(), Home::from(in_use.set));
        match ours == theirs {
            true => Fact::Is(Some(in_use.definition.hash().to_owned())),
            false => Fact::Absent(format!("{function} works on {theirs}, and this is {ours}")),
        }
    }

    async fn mapping(lambda: &aws_sdk_lambda::Client, id: &str) -> Fact<Mapping> {
        fact(lambda.get_event_source_mapping().uuid(id).send().await, told, |_| None)
    }

    fn told(answer: GetEventSourceMappingOutput) -> Mapping {
        let on_failure = answer.destination_config.as_ref().and_then(|config| config.on_failure.as_ref());
        Mapping {
            state: answer.state.clone().unwrap_or_default(),
            source: answer.event_source_arn.clone().unwrap_or_default(),
            window_seconds: answer.maximum_batching_window_in_seconds,
            reports_failures: answer.function_response_types().contains(&FunctionResponseType::ReportBatchItemFailures),
            bisects: answer.bisect_batch_on_function_error.unwrap_or(false),
            retries: answer.maximum_retry_attempts,
            record_age_seconds: answer.maximum_record_age_in_seconds,
            parallelization: answer.parallelization_factor,
            starts_at: answer.starting_position.as_ref().map_or_else(String::new, |at| at.as_str().to_owned()),
            on_failure: on_failure.and_then(|on| on.destination.clone()),
            filters: answer.filter_criteria.as_ref().map_or(0, |criteria| criteria.filters().len()),
            tumbling_seconds: answer.tumbling_window_in_seconds,
        }
    }
}
