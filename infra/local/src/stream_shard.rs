//! Shard IDs of DynamoDB streams, as AWS shapes them.
//!
//! The embedded engine gives each stream one shard, named after the table: shorter or longer than the 28 to 65
//! characters that SDKs insist on (boto3 refuses the request before sending it), and the same again when a table is
//! made anew. So clients see `shardId-<20 digits>-<8 hex digits>`, made from the stream's ARN, whose label is the time
//! at which the stream began.

use s3s::crypto::Crc32;

/// The one shard of a stream, as clients see it.
pub fn public(stream_arn: &str) -> String {
    let label = stream_arn.rsplit('/').next().unwrap_or_default();
    let digits: String = label.chars().filter(char::is_ascii_digit).take(20).collect();
    format!("shardId-{digits:0>20}-{:08x}", Crc32::checksum_u32(stream_arn.as_bytes()))
}

/// The engine's name for the shard that a client names; none when the stream has no such shard.
pub fn engine(stream_arn: &str, shard: &str) -> Option<String> {
    // arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>
    let table = stream_arn.split('/').nth(1)?;
    (shard == public(stream_arn)).then(|| dynoxide::streams::shard_id(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_length_of_aws_and_lead_back() {
        let long = "t".repeat(255);
        for table in ["scans", long.as_str()] {
            let arn = format!("arn:aws:dynamodb:dynoxide:000000000000:table/{table}/stream/1795352451.573924064");
            let id = public(&arn);
            assert!(id.starts_with("shardId-01795352451573924064-") && id.len() == 37, "{id}");
            assert_eq!(engine(&arn, &id), Some(format!("shardId-00000001-{table}")));
            assert_eq!(engine(&arn, "shardId-00000001-scans"), None);
            let again = arn.replace("573924064", "573924065");
            assert_ne!(public(&again), id, "a stream made anew has another shard");
        }
    }
}
