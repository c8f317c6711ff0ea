//! What can be done where AWS refuses, or nobody answers, in ways that every command may meet. The one place that knows where
//! names, region and credentials came from.
//!
//! | what the error says | cure |
//! | --- | --- |
//! | no answer | the address that was asked, and what names it |
//! | no region, no credentials | what gives one |
//! | no such bucket, table, stream | the variable or the stack that names it |
//!
//! The errors are texts by now, the SDK's own and AWS's codes in them ([`causes`](recount_schemas::causes())); a text that reads differently one day
//! loses its cure, and nothing else.

use recount_schemas::Settings;

/// Where a command has its names from, and whom it asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The base's names.
    pub names: Settings,
    /// The stack that they come from.
    pub stack: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The address that takes the place of AWS's own, and the variable that names it; a service's own stands before that of all.
    pub endpoints: Vec<(String, String)>,
}

/// The variables by which addresses are given: that of all services is the last one (AWS SDKs Reference Guide, service-specific endpoints).
const ENDPOINTS: [&str; 4] =
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL"];

impl Asked {
    /// The addresses by these variables; else the one of the profile.
    pub fn endpoints(lookup: impl Fn(&str) -> Option<String>, of_sdk: Option<&str>) -> Vec<(String, String)> {
        let mut all: Vec<_> = ENDPOINTS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), lookup(name).filter(|value| !value.is_empty())?)))
            .collect();
        if let (true, Some(address)) = (all.is_empty(), of_sdk) {
            all.push(("the profile".to_owned(), address.to_owned()));
        }
        all
    }

    /// What to do about an error, where that can be told.
    pub fn cure(&self, error: &str) -> Option<String> {
        let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
        if says(&["region must be set", "Missing Region", "missing signing region"]) {
            return Some(NO_REGION.to_owned());
        }
        if says(&["no credentials found in chain", "loading credentials", "no providers in chain provided credentials"])
        {
            return Some(NO_CREDENTIALS.to_owned());
        }
        if says(&["dispatch failure: io error", "dispatch failure: timeout", "(Connect)"]) {
            return Some(self.no_answer());
        }
        // An object or a shard that is not there is no bucket or stream that is misnamed.
        let is_named = says(&["NoSuchBucket"])
            || (says(&["ResourceNotFoundException", "not there"]) && !says(&["s3://", "shardId-"]));
        match is_named {
            true => self.named(error),
            false => None,
        }
    }

    fn no_answer(&self) -> String {
        let all: Vec<String> = self.endpoints.iter().map(|(by, address)| format!("{address} ({by})")).collect();
        match (all.as_slice(), &self.region) {
            ([], region) => format!(
                "asked was AWS in {}: is there a network, and is the region right? For local mode set AWS_ENDPOINT_URL",
                region.as_deref().unwrap_or("no region")
            ),
            (all, _) => format!("asked was {}: is that right, and does it run there?", all.join(", ")),
        }
    }

    /// What names a thing that is not there.
    fn named(&self, error: &str) -> Option<String> {
        let is_in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let words: Vec<&str> = error.split(|c| !is_in_a_name(c)).collect();
        let local = Settings::default();
        let names = [
            ("RECOUNT_TOTALS_TABLE", &self.names.totals, &local.totals),
            ("RECOUNT_LEDGER_TABLE", &self.names.ledger, &local.ledger),
            ("RECOUNT_PROGRESS_TABLE", &self.names.progress, &local.progress),
            ("RECOUNT_STREAM", &self.names.stream, &local.stream),
            ("RECOUNT_BUCKET", &self.names.bucket, &local.bucket),
        ];
        let region = self.region.as_deref().unwrap_or("no region");
        let (variable, name, local) = names.into_iter().find(|(_, name, _)| words.contains(&name.as_str()))?;
        Some(match &self.stack {
            Some(stack) => {
                format!("the outputs of stack {stack} name {name}; is it deployed, and was nothing of it deleted?")
            }
            None if name == local => {
                format!(
                    "{variable} is not set or says local mode's {name}; name what is there in {region}, or the deployment by --stack"
                )
            }
            None => format!("{variable} says {name}; name what is there in {region}, or the deployment by --stack"),
        })
    }
}

const NO_REGION: &str = "set AWS_REGION, or a region in the profile of AWS_PROFILE; for local mode us-east-1";
const NO_CREDENTIALS: &str =
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for local mode any will do";

#[cfg(test)]
mod tests {
    use aws_config::meta::credentials::CredentialsProviderChain;
    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
    use recount_consumer::handler::{AttemptTimeouts, Clients};
    use recount_consumer::totals::Totals;

    use super::*;
    use crate::bucket::{Bucket, Listing};
    use crate::testing::TestHost;

    fn asked() -> Asked {
        let endpoints =
            Asked::endpoints(|name| (name == "AWS_ENDPOINT_URL").then(|| "http://127.0.0.1:1".to_owned()), None);
        Asked { region: Some("eu-west-1".to_owned()), endpoints, ..Asked::default() }
    }

    /// What the bucket and the totals say of it, by the real SDK: at a port where nobody listens.
    async fn errors(region: bool, credentials: bool) -> [String; 2] {
        let mut sdk =
            SdkConfig::builder().behavior_version(BehaviorVersion::latest()).endpoint_url("http://127.0.0.1:1");
        sdk.set_retry_config(Some(aws_config::retry::RetryConfig::disabled()));
        sdk.set_region(region.then(|| Region::from_static("us-east-1")));
        let any = || SharedCredentialsProvider::new(Credentials::for_tests());
        // As the default chain where nothing gives any.
        let none = || SharedCredentialsProvider::new(CredentialsProviderChain::first_try("Environment", NoneGiven));
        sdk.set_credentials_provider(Some(if credentials { any() } else { none() }));
        let sdk = sdk.build();
        let Clients { dynamo, s3, .. } = Clients::within(&sdk, AttemptTimeouts::ARCHIVE);
        let host: recount_schemas::host::SharedHost = std::sync::Arc::new(TestHost::at(0, 1));
        let bucket = Bucket::new(s3, "b", host.clone());
        let by_s3 = Listing::new(&bucket, "x").next_page().await.unwrap_err().to_string();
        let definition = std::sync::Arc::new(crate::rows::testing::definition());
        let totals = Totals::new(dynamo, &Settings::default(), definition, host);
        [by_s3, totals.read_definition_hash().await.unwrap_err().to_string()]
    }

    #[derive(Debug)]
    struct NoneGiven;

    impl ProvideCredentials for NoneGiven {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("environment variable not set")))
        }
    }

    #[tokio::test]
    async fn the_usual_three_by_the_real_sdk() {
        for error in errors(true, true).await {
            assert_eq!(
                asked().cure(&error).as_deref(),
                Some("asked was http://127.0.0.1:1 (AWS_ENDPOINT_URL): is that right, and does it run there?"),
                "{error}"
            );
        }
        for error in errors(false, true).await {
            assert_eq!(asked().cure(&error).as_deref(), Some(NO_REGION), "{error}");
        }
        for error in errors(true, false).await {
            assert_eq!(asked().cure(&error).as_deref(), Some(NO_CREDENTIALS), "{error}");
        }
    }

    #[test]
    fn whom_it_asks() {
        let none = Asked { endpoints: Vec::new(), ..asked() };
        insta::assert_snapshot!(none.cure("dispatch failure: io error: dns error").unwrap(), @"asked was AWS in eu-west-1: is there a network, and is the region right? For local mode set AWS_ENDPOINT_URL");
        let of = |name: &str| matches!(name, "AWS_ENDPOINT_URL_S3" | "AWS_ENDPOINT_URL").then(|| name.to_lowercase());
        assert_eq!(Asked::endpoints(of, None).len(), 2);
        assert_eq!(Asked::endpoints(|_| Some(String::new()), Some("x")), [("the profile".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn what_is_not_there_is_named_by_a_variable_or_a_stack() {
        let names = Settings { bucket: "nope".to_owned(), ..Settings::default() };
        let asked = Asked { names, ..asked() };
        insta::assert_snapshot!(asked.cure("listing s3://nope/_switch/ was refused: NoSuchBucket: gone").unwrap(), @"RECOUNT_BUCKET says nope; name what is there in eu-west-1, or the deployment by --stack");
        insta::assert_snapshot!(asked.cure("reading recount-totals failed: ResourceNotFoundException (status 400)").unwrap(), @"RECOUNT_TOTALS_TABLE is not set or says local mode's recount-totals; name what is there in eu-west-1, or the deployment by --stack");
        insta::assert_snapshot!(asked.cure("DescribeStreamSummary of stream recount-changes: not there").unwrap(), @"RECOUNT_STREAM is not set or says local mode's recount-changes; name what is there in eu-west-1, or the deployment by --stack");
        let of_stack = Asked { stack: Some("prod".to_owned()), ..asked.clone() };
        insta::assert_snapshot!(of_stack.cure("listing s3://nope/x was refused: NoSuchBucket: gone").unwrap(), @"the outputs of stack prod name nope; is it deployed, and was nothing of it deleted?");
        // Of another name, such as that of the source table or of a replay's target, nothing is known here.
        assert_eq!(asked.cure("reading table scans: ResourceNotFoundException"), None);
        assert_eq!(asked.cure("s3://nope/x was refused: AccessDenied"), None);
    }
}
