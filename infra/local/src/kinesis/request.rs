//! Reading request bodies: JSON in, typed members out, each fault with the exception AWS names for it.

use serde::Deserialize;

use super::error::Error;

/// A body that holds nothing but members of `T`; unknown members are passed over, as AWS does.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    // An SDK may leave the body of an operation without members empty.
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    if body.first().is_some_and(|byte| matches!(byte, 0xA0..=0xBF | 0xD9)) {
        return Err(Error::serialization("the body is CBOR; only application/x-amz-json-1.1 is served here"));
    }
    serde_json::from_slice(body).map_err(|cause| Error::serialization(format!("the body was not understood: {cause}")))
}

/// A member that must be there.
pub(super) fn required<T>(value: Option<T>, member: &str) -> Result<T, Error> {
    value.ok_or_else(|| {
        Error::validation(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

/// A number inside its declared limits, or the default where it is absent.
pub(super) fn within(value: Option<i64>, least: i64, most: i64, default: i64, member: &str) -> Result<usize, Error> {
    let value = value.unwrap_or(default);
    if !(least..=most).contains(&value) {
        return Err(Error::validation(format!(
            "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: \
             Member must be between {least} and {most}"
        )));
    }
    Ok(usize::try_from(value).unwrap_or(0))
}

/// `StreamName`, `StreamARN`, or both if they mean the same stream.
pub(super) fn stream_name(name: Option<String>, arn: Option<String>) -> Result<String, Error> {
    let from_arn = match arn {
        Some(arn) => Some(name_in_arn(&arn)?.to_owned()),
        None => None,
    };
    match (name, from_arn) {
        (Some(name), Some(other)) if name != other => {
            Err(Error::argument(format!("StreamName {name} and StreamARN of {other} do not match.")))
        }
        (Some(name), _) => valid_name(name),
        (None, Some(name)) => valid_name(name),
        (None, None) => Err(Error::argument("Either StreamARN or StreamName must be specified.")),
    }
}

fn name_in_arn(arn: &str) -> Result<&str, Error> {
    let prefix = super::stream_arn("");
    arn.strip_prefix(&prefix).ok_or_else(|| {
        Error::argument(format!("{arn:.200} is not the ARN of a stream here: it would begin with {prefix}"))
    })
}

/// 1–128 of `[a-zA-Z0-9_.-]` (BC:kinesis.StreamName).
pub(super) fn valid_name(name: String) -> Result<String, Error> {
    let good = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good {
        return Ok(name);
    }
    Err(Error::validation(format!(
        "1 validation error detected: Value '{name:.200}' at 'streamName' failed to satisfy constraint: \
         Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ and have length between 1 and 128"
    )))
}

/// A hash key: 0 to 2^128 − 1 in decimal, without leading zeros (BC:kinesis.HashKey).
pub(super) fn hash_key(text: &str, member: &str) -> Result<u128, Error> {
    let shape = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty());
    if !shape {
        return Err(Error::validation(format!(
            "1 validation error detected: Value '{text:.200}' at '{member}' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: 0|([1-9]\\d{{0,38}})"
        )));
    }
    text.parse().map_err(|_| {
        Error::argument(format!(
            "Invalid {member}: it must be in the range [0, 2^128-1]. Specified value was {text:.200}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_by_name_or_arn() {
        let arn = Some("arn:aws:kinesis:us-east-1:000000000000:stream/a.b".to_owned());
        assert_eq!(stream_name(None, arn.clone()).unwrap(), "a.b");
        assert_eq!(stream_name(Some("a.b".into()), arn.clone()).unwrap(), "a.b");
        assert_eq!(stream_name(Some("c".into()), arn).unwrap_err().code, "InvalidArgumentException");
        assert_eq!(stream_name(None, None).unwrap_err().code, "InvalidArgumentException");
        assert_eq!(stream_name(None, Some("arn:x".into())).unwrap_err().code, "InvalidArgumentException");
        assert_eq!(stream_name(Some("é".into()), None).unwrap_err().code, "ValidationException");
    }

    #[test]
    fn a_hash_key_is_a_128_bit_number() {
        assert_eq!(hash_key("0", "k").unwrap(), 0);
        assert_eq!(hash_key(&u128::MAX.to_string(), "k").unwrap(), u128::MAX);
        assert_eq!(
            hash_key("340282366920938463463374607431768211456", "k").unwrap_err().code,
            "InvalidArgumentException"
        );
        for text in ["", "-1", "01", "+1", "x"] {
            assert_eq!(hash_key(text, "k").unwrap_err().code, "ValidationException", "{text}");
        }
    }

    #[test]
    fn cbor_is_refused_by_name() {
        let refused = parse::<serde_json::Value>(&[0xA1, 0x61, 0x61, 0x01]).unwrap_err();
        assert_eq!(refused.code, "SerializationException");
        assert!(refused.message.contains("CBOR"), "{refused}");
    }
}
