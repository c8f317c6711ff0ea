//! Asking for a stack's outputs, and for what its functions have in their environment.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_cloudformation::config::ProvideCredentials;
use recount_schemas::causes;

use super::{InUse, Stack, StackError, in_use, read};

/// How long one attempt of a request may take.
const ATTEMPT: Duration = Duration::from_secs(20);

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build()
}

/// Lambda, with a limit on every attempt.
pub fn lambda(sdk: &SdkConfig) -> aws_sdk_lambda::Client {
    let config = aws_sdk_lambda::config::Builder::from(sdk).timeout_config(timeouts());
    aws_sdk_lambda::Client::from_conf(config.build())
}

/// The deployment of this name.
pub async fn stack(sdk: &SdkConfig, name: &str) -> Result<Stack, StackError> {
    let config = aws_sdk_cloudformation::config::Builder::from(sdk).timeout_config(timeouts());
    let client = aws_sdk_cloudformation::Client::from_conf(config.build());
    let answer = match client.describe_stacks().stack_name(name).send().await {
        Ok(answer) => answer,
        Err(error) => {
            // CloudFormation has no code of its own for this: a ValidationError, "Stack with id … does not exist".
            let metadata = error.as_service_error().map(aws_sdk_cloudformation::error::ProvideErrorMetadata::meta);
            let unknown = metadata.is_some_and(|error| {
                error.code() == Some("ValidationError") && error.message().is_some_and(|m| m.contains("does not exist"))
            });
            return Err(match unknown {
                true => missing(sdk, name).await,
                false => failed(name, "the outputs", &causes(&error)),
            });
        }
    };
    let stack = answer.stacks().first();
    let Some(stack) = stack else { return Err(missing(sdk, name).await) };
    let pair = |output: &aws_sdk_cloudformation::types::Output| {
        Some((output.output_key()?.to_owned(), output.output_value()?.to_owned()))
    };
    let outputs: BTreeMap<String, String> = stack.outputs().iter().filter_map(pair).collect();
    read(name, stack.stack_status().map_or("", |status| status.as_str()), &outputs)
}

/// That there is no such stack, and where there is none. A key's ID is no secret; `aws sts get-access-key-info` says its account.
async fn missing(sdk: &SdkConfig, name: &str) -> StackError {
    let region = sdk.region().map_or_else(|| "no region".to_owned(), |region| format!("region {region}"));
    let credentials = match sdk.credentials_provider() {
        Some(provider) => provider.provide_credentials().await.ok(),
        None => None,
    };
    let account = match &credentials {
        Some(credentials) => match credentials.account_id() {
            Some(account) => format!("account {}", account.as_str()),
            None => format!("the account of access key {}", credentials.access_key_id()),
        },
        None => "an account without credentials".to_owned(),
    };
    StackError::Unknown { stack: name.to_owned(), region, account }
}

/// The environment of a function.
pub async fn environment(
    lambda: &aws_sdk_lambda::Client,
    stack: &str,
    function: &str,
) -> Result<BTreeMap<String, String>, StackError> {
    let answer = lambda.get_function_configuration().function_name(function).send().await;
    let answer = answer.map_err(|error| failed(stack, &format!("function {function}"), &causes(&error)))?;
    let variables = answer.environment.and_then(|environment| environment.variables);
    Ok(variables.unwrap_or_default().into_iter().collect())
}

/// The definition in use in a deployment's base: the one that its consumer has.
pub async fn definition(sdk: &SdkConfig, stack: &Stack) -> Result<InUse, StackError> {
    let environment = environment(&lambda(sdk), &stack.name, &stack.consumer).await?;
    let in_use = in_use(&stack.consumer, &environment)?;
    match in_use.set {
        Some(set) => Err(StackError::OfASet { function: stack.consumer.clone(), set }),
        None => Ok(in_use),
    }
}

fn failed(stack: &str, what: &str, why: &str) -> StackError {
    StackError::Failed { stack: stack.to_owned(), what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::tests::outputs;
    use crate::testing_aws::{Asked, sdk};
    use recount_schemas::definition::given;

    const TOML: &str = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n";

    fn aws(asked: &Asked) -> (u16, String) {
        if asked.line.starts_with("GET /2015-03-31/functions/consumer-1/configuration") {
            let toml = format!("{}{}", given::PREFIX, given::base64(TOML));
            let variables = serde_json::json!({ given::VARIABLE: toml });
            return (200, serde_json::json!({ "Environment": { "Variables": variables } }).to_string());
        }
        if !asked.body.contains("StackName=recount") {
            let error = "<Error><Type>Sender</Type><Code>ValidationError</Code><Message>Stack with id x does not exist</Message></Error>";
            return (400, format!("<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"));
        }
        let member = |(key, value): (&String, &String)| {
            format!("<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>")
        };
        let outputs: String = outputs().iter().map(member).collect();
        let stack = format!(
            "<member><StackName>recount</StackName><CreationTime>2026-11-01T00:00:00Z</CreationTime>\
             <StackStatus>CREATE_COMPLETE</StackStatus><Outputs>{outputs}</Outputs></member>"
        );
        let result = format!("<DescribeStacksResult><Stacks>{stack}</Stacks></DescribeStacksResult>");
        (200, format!("<DescribeStacksResponse>{result}</DescribeStacksResponse>"))
    }

    #[tokio::test]
    async fn a_stack_is_found_with_the_definition_of_its_consumer() {
        let sdk = sdk(|asked| aws(&asked));
        let found = stack(&sdk, "recount").await.unwrap();
        assert_eq!((found.settings.totals.as_str(), found.mapping.len()), ("totals-1", 36));
        assert_eq!(definition(&sdk, &found).await.unwrap().definition.table, "scans");
    }

    #[tokio::test]
    async fn an_unknown_stack_is_said_and_is_bad_usage() {
        let error = stack(&sdk(|asked| aws(&asked)), "elsewhere").await.unwrap_err();
        insta::assert_snapshot!(error, @"there is no stack elsewhere in region eu-north-1 of the account of access key a; check --stack (or RECOUNT_STACK), AWS_REGION and AWS_PROFILE; `aws cloudformation list-stacks` names those that are there");
        assert!(error.is_usage());
        let error = stack(
            &sdk(|_| {
                (
                    403,
                    "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
                        .into(),
                )
            }),
            "recount",
        )
        .await
        .unwrap_err();
        assert!(!error.is_usage() && error.to_string().contains("AccessDenied"), "{error}");
    }
}
