//! What a function's answer means: partial batch responses.
//!
//! Rules: LDG services-kinesis-batchfailurereporting.
//!
//! | answer | verdict |
//! | --- | --- |
//! | nothing, `null`, `{}`, no or null `batchItemFailures`, `[]` | success |
//! | `itemIdentifier`s that are all sequence numbers of the batch | everything from the lowest one on failed, also what succeeded |
//! | an `itemIdentifier` that is empty, null, missing (a wrong key name) or not of the batch | the whole batch failed |
//! | not JSON, or JSON that is no object | the whole batch failed |
//!
//! AWS does not say what an identifier from outside the batch, or an answer that is no object, means; the whole batch
//! is the reading that loses nothing. A misspelt `batchItemFailures` reads as absent, so as success: on AWS too that is
//! how failures are lost without a trace.

use serde::Deserialize;
use serde_json::Value;

use super::batch::Outcome;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "batchItemFailures")]
    failures: Option<Vec<Value>>,
}

/// What `answer` says about a batch of records with these sequence numbers, in order.
pub fn verdict<'a>(answer: &[u8], batch: impl Iterator<Item = &'a str> + Clone) -> Outcome {
    if answer.iter().all(u8::is_ascii_whitespace) {
        return Outcome::Success;
    }
    let failed = |why: &str| Outcome::Failed { why: why.to_owned() };
    let Ok(value) = serde_json::from_slice::<Value>(answer) else { return failed("the answer is not JSON") };
    if value.is_null() {
        return Outcome::Success;
    }
    if !value.is_object() {
        return failed("the answer is not an object");
    }
    let Ok(answer) = serde_json::from_value::<Answer>(value) else {
        return failed("batchItemFailures is not a list");
    };
    let mut lowest: Option<usize> = None;
    for item in answer.failures.unwrap_or_default() {
        let identifier = match item.get("itemIdentifier").and_then(Value::as_str) {
            Some(identifier) if !identifier.is_empty() => identifier,
            _ => return failed("an itemIdentifier is missing, null or empty"),
        };
        let Some(place) = batch.clone().position(|sequence| sequence == identifier) else {
            return failed("an itemIdentifier is not of this batch");
        };
        lowest = Some(lowest.map_or(place, |lowest| lowest.min(place)));
    }
    lowest.map_or(Outcome::Success, |from| Outcome::Partial { from })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(answer: &str) -> Outcome {
        verdict(answer.as_bytes(), ["10", "20", "30"].into_iter())
    }

    #[track_caller]
    fn whole_batch_failed(answer: &str, because: &str) {
        assert_eq!(read(answer), Outcome::Failed { why: because.to_owned() }, "{answer}");
    }

    #[test]
    fn an_empty_or_null_answer_is_success() {
        for answer in ["", " \n", "null", "{}", r#"{"batchItemFailures":[]}"#, r#"{"batchItemFailures":null}"#] {
            assert_eq!(read(answer), Outcome::Success, "{answer}");
        }
    }

    #[test]
    fn the_lowest_of_several_sequence_numbers_is_where_the_retry_begins() {
        let answer = r#"{"batchItemFailures":[{"itemIdentifier":"30"},{"itemIdentifier":"20"}]}"#;
        assert_eq!(read(answer), Outcome::Partial { from: 1 });
    }

    #[test]
    fn an_empty_identifier_fails_the_whole_batch() {
        whole_batch_failed(
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            "an itemIdentifier is missing, null or empty",
        );
    }

    #[test]
    fn a_null_identifier_fails_the_whole_batch() {
        whole_batch_failed(
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            "an itemIdentifier is missing, null or empty",
        );
    }

    #[test]
    fn a_wrong_key_name_fails_the_whole_batch() {
        whole_batch_failed(
            r#"{"batchItemFailures":[{"itemIdentifer":"20"}]}"#,
            "an itemIdentifier is missing, null or empty",
        );
        whole_batch_failed(r#"{"batchItemFailures":["20"]}"#, "an itemIdentifier is missing, null or empty");
    }

    #[test]
    fn an_identifier_from_outside_the_batch_fails_the_whole_batch() {
        let answer = r#"{"batchItemFailures":[{"itemIdentifier":"20"},{"itemIdentifier":"40"}]}"#;
        whole_batch_failed(answer, "an itemIdentifier is not of this batch");
    }

    #[test]
    fn an_answer_of_another_shape_fails_the_whole_batch() {
        whole_batch_failed("nonsense", "the answer is not JSON");
        for answer in ["\"ok\"", "7", "[]"] {
            whole_batch_failed(answer, "the answer is not an object");
        }
        whole_batch_failed(r#"{"batchItemFailures":7}"#, "batchItemFailures is not a list");
    }

    #[test]
    fn a_misspelt_list_reads_as_success() {
        assert_eq!(read(r#"{"batchItemFailure":[{"itemIdentifier":"20"}]}"#), Outcome::Success);
    }

    proptest! {
        #[test]
        fn hostile_answers_get_a_verdict(answer in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = verdict(&answer, ["10"].into_iter());
        }
    }
}
