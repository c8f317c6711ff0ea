//! A bucket over `aws-sdk-s3`, or the part of one below a prefix.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use recount_schemas::host::SharedHost;

use super::error::{BucketError, failed, status_and_code};
use super::{Copied, Listed, Meta, Objects, Put, Tag};

/// How often a conditional put is tried when S3 answers 409 ConditionalRequestConflict: another request on the same name
/// was under way, and nothing was written (S3 User Guide, "conditional writes").
const CONFLICT_TRIES: u32 = 8;
/// The longest pause before such a try.
const CONFLICT_PAUSE: Duration = Duration::from_millis(400);

/// One bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    client: Client,
    name: Arc<str>,
    /// What stands in front of every name; nobody outside this file sees it.
    prefix: Arc<str>,
    host: SharedHost,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.name, self.prefix)
    }
}

impl Bucket {
    /// The bucket called `name`. The client does the retries of throttling and of broken connections.
    pub fn new(client: Client, name: impl Into<Arc<str>>, host: SharedHost) -> Self {
        Self { client, name: name.into(), prefix: Arc::from(""), host }
    }

    /// The part of the bucket below `prefix`: every name that is given to it, or that it gives, is without that.
    pub fn below(&self, prefix: &str) -> Self {
        Self { prefix: Arc::from(prefix), ..self.clone() }
    }

    /// Where an object is, for people and for other programs.
    pub fn uri(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.name, self.prefix)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another bucket, by the same client.
    pub fn beside(&self, name: impl Into<Arc<str>>) -> Self {
        Self::new(self.client.clone(), name, self.host.clone())
    }

    /// All names that begin with `prefix`, in order, page by page.
    pub fn list<'a>(&'a self, prefix: &'a str) -> Listing<'a, Self> {
        Listing::new(self, prefix)
    }

    fn owned(&self, key: &str) -> (String, String) {
        (self.name.to_string(), self.full(key))
    }

    fn failed<E>(
        &self,
        action: &'static str,
        key: &str,
        error: aws_sdk_s3::error::SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
    ) -> BucketError
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        failed(action, &self.name, &self.full(key), error)
    }

    /// Puts an object on a condition. One that conflicts with another request under way is sent again.
    async fn put_on(
        &self,
        key: &str,
        bytes: Bytes,
        condition: impl Fn(PutObjectFluentBuilder) -> PutObjectFluentBuilder,
    ) -> Result<Put, BucketError> {
        let mut tries = 0;
        loop {
            let body = ByteStream::from(bytes.clone());
            let put = self.client.put_object().bucket(&*self.name).key(self.full(key)).body(body);
            let Err(error) = condition(put).send().await else { return Ok(Put::Created) };
            tries += 1;
            match status_and_code(&error) {
                (Some(412), _) | (_, Some("PreconditionFailed")) => return Ok(Put::Exists),
                (Some(409), _) if tries < CONFLICT_TRIES => {
                    self.host.sleep(self.host.jitter(CONFLICT_PAUSE.min(Duration::from_millis(25 << tries)))).await;
                }
                _ => return Err(self.failed("writing", key, error)),
            }
        }
    }

    /// Reads a body to its end, unless it has more than `most` bytes.
    async fn collect(&self, key: &str, mut body: ByteStream, hint: u64, most: u64) -> Result<Bytes, BucketError> {
        let too_large = || {
            let (bucket, key) = self.owned(key);
            BucketError::TooLarge { bucket, key, most }
        };
        if hint > most {
            return Err(too_large());
        }
        let mut all = BytesMut::with_capacity(usize::try_from(hint).unwrap_or(0));
        loop {
            let chunk = body.try_next().await.map_err(|error| {
                let (bucket, key) = self.owned(key);
                BucketError::Unsure { action: "reading", bucket, key, why: error.to_string() }
            })?;
            match chunk {
                Some(chunk) if (all.len() + chunk.len()) as u64 > most => return Err(too_large()),
                Some(chunk) => all.extend_from_slice(&chunk),
                None => return Ok(all.freeze()),
            }
        }
    }
}

impl Objects for Bucket {
    async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>, BucketError> {
        Ok(self.get_tagged(key, most).await?.map(|(bytes, _)| bytes))
    }

    async fn get_tagged(&self, key: &str, most: u64) -> Result<Option<(Bytes, Tag)>, BucketError> {
        match self.client.get_object().bucket(&*self.name).key(self.full(key)).send().await {
            Ok(answer) => {
                let hint = answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                // S3 always says it. An empty one matches nothing.
                let tag = Tag(answer.e_tag.unwrap_or_default());
                self.collect(key, answer.body, hint, most).await.map(|bytes| Some((bytes, tag)))
            }
            Err(error) => match self.failed("reading", key, error) {
                error if error.is_missing() => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else { return Ok(Bytes::new()) };
        let header = format!("bytes={}-{last}", range.start);
        let wanted = range.end - range.start;
        let short = || {
            let (bucket, key) = self.owned(key);
            BucketError::Short { bucket, key, range: range.clone() }
        };
        let answer = self.client.get_object().bucket(&*self.name).key(self.full(key)).range(header).send().await;
        let answer = answer.map_err(|error| match status_and_code(&error) {
            (Some(416), _) => short(),
            _ => self.failed("reading", key, error),
        })?;
        let hint = answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let bytes = self.collect(key, answer.body, hint, wanted).await?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(short()) }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError> {
        let put = self.client.put_object().bucket(&*self.name).key(self.full(key)).body(ByteStream::from(bytes));
        put.send().await.map(drop).map_err(|error| self.failed("writing", key, error))
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, BucketError> {
        self.put_on(key, bytes, |put| put.if_none_match("*")).await
    }

    async fn put_if_tagged(&self, key: &str, bytes: Bytes, tag: &Tag) -> Result<Put, BucketError> {
        // Of an object that was deleted meanwhile S3 says 404 (API reference, PutObject).
        match self.put_on(key, bytes, |put| put.if_match(&tag.0)).await {
            Err(error) if error.is_missing() => Ok(Put::Exists),
            done => done,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Meta>, BucketError> {
        match self.client.head_object().bucket(&*self.name).key(self.full(key)).send().await {
            Ok(answer) => Ok(Some(Meta {
                bytes: answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                modified_ms: answer.last_modified.as_ref().map_or(0, millis),
            })),
            // A HEAD has no body, so no code: 404 also stands for a missing bucket, which the first write then names.
            Err(error) if status_and_code(&error).0 == Some(404) => Ok(None),
            Err(error) => Err(self.failed("looking at", key, error)),
        }
    }

    async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, BucketError> {
        let list = self.client.list_objects_v2().bucket(&*self.name).prefix(self.full(prefix));
        let list = list.set_start_after(after.map(|after| self.full(after)));
        let page = list.send().await.map_err(|error| self.failed("listing", prefix, error))?;
        let listed = page.contents.unwrap_or_default().into_iter().filter_map(|object| {
            Some(Listed {
                key: object.key?.strip_prefix(&*self.prefix)?.to_owned(),
                meta: Meta {
                    bytes: object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                    modified_ms: object.last_modified.as_ref().map_or(0, millis),
                },
            })
        });
        Ok(listed.collect())
    }

    async fn copy(&self, from: &str, to: &str) -> Result<Copied, BucketError> {
        let source = encoded(&format!("{}/{}", self.name, self.full(from)));
        match self.client.copy_object().bucket(&*self.name).copy_source(source).key(self.full(to)).send().await {
            Ok(_) => Ok(Copied::Done),
            Err(error) => match self.failed("copying to", to, error) {
                error if error.is_missing() => Ok(Copied::NoSource),
                error => Err(error),
            },
        }
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        let delete = self.client.delete_object().bucket(&*self.name).key(self.full(key));
        delete.send().await.map(drop).map_err(|error| self.failed("deleting", key, error))
    }
}

/// A listing in progress: each page is asked for by the last name of the one before, so it holds no state at S3.
#[derive(Debug)]
pub struct Listing<'a, O> {
    objects: &'a O,
    prefix: &'a str,
    after: Option<String>,
    ended: bool,
}

impl<'a, O: Objects> Listing<'a, O> {
    /// A listing of the names that begin with `prefix`.
    pub fn new(objects: &'a O, prefix: &'a str) -> Self {
        Self { objects, prefix, after: None, ended: false }
    }

    /// The next page, at most 1,000 names; `None` at the end.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, BucketError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.objects.list_page(self.prefix, self.after.as_deref()).await?;
        match page.last() {
            Some(last) => {
                self.after = Some(last.key.clone());
                Ok(Some(page))
            }
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }
}

fn millis(time: &aws_sdk_s3::primitives::DateTime) -> i64 {
    time.to_millis().unwrap_or(0)
}

/// Percent-encodes the source of a copy, which S3 takes URL-encoded (API reference, CopyObject).
fn encoded(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 16);
    for byte in source.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            _ => {
                let _ = fmt::Write::write_fmt(&mut out, format_args!("%{byte:02X}")); // writing to a String cannot fail
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_copy_is_url_encoded() {
        assert_eq!(encoded("b/events/month=2026-11/0 é"), "b/events/month%3D2026-11/0%20%C3%A9");
    }

    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn what_s3_says_to_a_put_on_a_condition() {
        use crate::testing::TestHost;
        use std::sync::Mutex;

        for (answers, expected) in [
            (vec![200], Ok(Put::Created)),
            (vec![409, 409, 200], Ok(Put::Created)),
            (vec![412], Ok(Put::Exists)),
            (vec![404], Ok(Put::Exists)),
            (vec![403], Err(())),
        ] {
            let left = Mutex::new(answers.clone().into_iter());
            let sdk = crate::testing_aws::sdk(move |_| {
                let status = left.lock().unwrap().next().unwrap();
                let code = match status {
                    404 => "NoSuchKey",
                    409 => "ConditionalRequestConflict",
                    412 => "PreconditionFailed",
                    _ => "AccessDenied",
                };
                let error = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
                (status, if status == 200 { String::new() } else { error })
            });
            let config = aws_sdk_s3::config::Builder::from(&sdk).force_path_style(true).build();
            let bucket = Bucket::new(Client::from_conf(config), "b", Arc::new(TestHost::default()));
            let put = bucket.put_if_tagged("k", Bytes::from_static(b"x"), &Tag("\"e\"".to_owned())).await;
            assert_eq!(put.map_err(drop), expected, "{answers:?}");
        }
    }
}
