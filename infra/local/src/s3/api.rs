//! The S3 operations: requests of `s3s` turned into calls of the [`Store`].

use std::sync::Arc;

use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::attributes::{Attributes, Described};
use super::chunked::Trailers;
use super::error::StoreError;
use super::list::{From as ListFrom, MAX_PAGE, Page, Query};
use super::read::{Conditions, body, slice};
use super::receive::{Expected, Received, receive};
use super::store::{Condition, Store};
use crate::io::BlockingWork;

/// The store behind the protocol.
#[derive(Debug, Clone)]
pub struct Api {
    /// The objects.
    pub store: Arc<Store>,
    /// Where file work runs.
    pub work: BlockingWork,
}

impl Api {
    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        let result = self.work.run(move || call(&store)).await;
        Ok(result.map_err(|e| s3_error!(e, InternalError, "the server is stopping"))??)
    }

    async fn receive<T>(&self, req: &mut S3Request<T>, body: Option<StreamingBlob>) -> S3Result<Received> {
        let trailers = req.extensions.remove::<Trailers>();
        let expected = Expected::from_headers(&req.headers, trailers);
        Ok(receive(&self.store, self.work, body, expected).await?)
    }
}

/// The condition of a write. AWS takes only `*` in `If-None-Match` here (S3 User Guide, "Conditional writes").
fn condition(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Matches(etag.into_value())),
        (None, Some(ETagCondition::ETag(_))) => Err(s3_error!(NotImplemented, "a write takes only * in If-None-Match")),
        (Some(_), Some(_)) => Err(s3_error!(NotImplemented, "a write takes If-Match or If-None-Match, not both")),
    }
}

fn etag(attributes: &Attributes) -> Option<ETag> {
    Some(ETag::Strong(attributes.etag.clone()))
}

fn length(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}

fn describe(content_type: Option<String>, content_encoding: Option<String>, metadata: Option<Metadata>) -> Described {
    let metadata = metadata.unwrap_or_default().into_iter().collect();
    Described { content_type, content_encoding: content_encoding.filter(|coding| !coding.is_empty()), metadata }
}

fn metadata(described: &Described) -> Option<Metadata> {
    (!described.metadata.is_empty()).then(|| described.metadata.clone().into_iter().collect())
}

/// What an object without a type has on S3.
fn content_type(described: &Described) -> Option<String> {
    Some(described.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()))
}

fn no_versions(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NotImplemented, "buckets have no versions here")),
    }
}

/// Percent-encodes as `encoding-type=url` asks: everything but unreserved characters and the slash.
fn url_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
        out
    })
}

/// How a listing writes keys: as they are, or percent-encoded on request.
fn encoder(encoding: Option<&EncodingType>) -> impl Fn(String) -> String + use<> {
    let url = encoding.is_some_and(|kind| kind.as_str() == EncodingType::URL);
    move |text: String| if url { url_encode(&text) } else { text }
}

fn page_size(max_keys: Option<i32>) -> S3Result<usize> {
    max_keys.map_or(Ok(MAX_PAGE), |max| {
        usize::try_from(max).map_err(|_| s3_error!(InvalidArgument, "max-keys is negative"))
    })
}

/// The entries of a page as both listings write them.
fn entries(page: Page, text: impl Fn(String) -> String) -> (Vec<Object>, Vec<CommonPrefix>) {
    let object = |(key, object): (String, Attributes)| Object {
        key: Some(text(key)),
        size: length(object.size),
        e_tag: etag(&object),
        last_modified: Some(object.modified.into()),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Default::default()
    };
    let objects = page.objects.into_iter().map(object).collect();
    let prefixes = page.prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(text(prefix)) }).collect();
    (objects, prefixes)
}

/// Conditions on the source of a copy: one that is unmodified answers 412 and not 304 (S3 API, CopyObject).
fn allowed(conditions: &Conditions, object: &Attributes) -> Result<(), StoreError> {
    conditions.check(object).map_err(|e| match e {
        StoreError::NotModified => StoreError::PreconditionFailed("x-amz-copy-source-if-*"),
        other => other,
    })
}

fn copy_source(source: CopySource) -> S3Result<(String, String)> {
    let CopySource::Bucket { bucket, key, version_id } = source else {
        return Err(s3_error!(NotImplemented, "access points do not exist here"));
    };
    no_versions(version_id.as_deref())?;
    Ok((bucket.into(), key.into()))
}

#[async_trait]
impl S3 for Api {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        let location = Some(format!("/{bucket}"));
        self.with(move |store| store.create_bucket(&bucket)).await?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.with(move |store| store.head_bucket(&req.input.bucket)).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.with(move |store| store.head_bucket(&req.input.bucket)).await?;
        Ok(S3Response::new(GetBucketLocationOutput::default())) // us-east-1 is written as nothing
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.with(move |store| store.delete_bucket(&req.input.bucket)).await?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.with(Store::buckets).await?;
        let bucket = |(name, made): (String, std::time::SystemTime)| Bucket {
            name: Some(name),
            creation_date: Some(made.into()),
            ..Default::default()
        };
        let buckets = Some(buckets.into_iter().map(bucket).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..Default::default() }))
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let body = req.input.body.take();
        let condition = condition(req.input.if_match.take(), req.input.if_none_match.take())?;
        let Received { temp, etag: md5, checksum } = self.receive(&mut req, body).await?;
        let input = req.input;
        let described = describe(input.content_type, input.content_encoding, input.metadata);
        let put = self
            .with(move |store| store.publish(temp, (&input.bucket, &input.key), &condition, &md5, &described))
            .await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: etag(&put),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        no_versions(input.version_id.as_deref())?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let (range, bucket, key) = (input.range, input.bucket, input.key);
        let (file, object) = self
            .with(move |store| {
                let (file, object) = store.open_object(&bucket, &key)?;
                conditions.check(&object).map(|()| (file, object))
            })
            .await?;
        let (start, bytes) = slice(range.as_ref(), object.size)?;
        let content_range = range.map(|_| format!("bytes {start}-{}/{}", start + bytes - 1, object.size));
        let status = content_range.as_ref().map(|_| http::StatusCode::PARTIAL_CONTENT);
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(body(file, start, bytes, self.work).await?),
            content_length: length(bytes),
            content_range,
            content_type: content_type(&object.described),
            content_encoding: object.described.content_encoding.clone(),
            e_tag: etag(&object),
            last_modified: Some(object.modified.into()),
            metadata: metadata(&object.described),
            ..Default::default()
        };
        let mut response = S3Response::new(output);
        response.status = status;
        Ok(response)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        no_versions(input.version_id.as_deref())?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let object = self
            .with(move |store| {
                let object = store.head(&input.bucket, &input.key)?;
                conditions.check(&object).map(|()| object)
            })
            .await?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: length(object.size),
            content_type: content_type(&object.described),
            content_encoding: object.described.content_encoding.clone(),
            e_tag: etag(&object),
            last_modified: Some(object.modified.into()),
            metadata: metadata(&object.described),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let max = page_size(input.max_keys)?;
        let from = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => ListFrom::parse(token)?,
            (None, Some(after)) if !after.is_empty() => ListFrom::After(after.clone()),
            _ => ListFrom::Start,
        };
        let (prefix, delimiter) =
            (input.prefix.clone().unwrap_or_default(), input.delimiter.clone().unwrap_or_default());
        let query = Query { prefix, delimiter, from, max };
        let bucket = input.bucket.clone();
        let page = self.with(move |store| store.list(&bucket, &query)).await?;

        let text = encoder(input.encoding_type.as_ref());
        let count = page.objects.len() + page.prefixes.len();
        let next = page.next.as_ref().map(ListFrom::token);
        let (contents, prefixes) = entries(page, &text);
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            key_count: i32::try_from(count).ok(),
            max_keys: i32::try_from(max.min(MAX_PAGE)).ok(),
            name: Some(input.bucket),
            prefix: input.prefix.map(&text),
            delimiter: input.delimiter.map(&text),
            start_after: input.start_after.map(&text),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let max = page_size(input.max_keys)?;
        let delimiter = input.delimiter.clone().unwrap_or_default();
        // A marker that ends in the delimiter is the common prefix at which the last page ended.
        let from = match input.marker.clone().filter(|marker| !marker.is_empty()) {
            None => ListFrom::Start,
            Some(prefix) if !delimiter.is_empty() && prefix.ends_with(&delimiter) => ListFrom::Past(prefix),
            Some(key) => ListFrom::After(key),
        };
        let query = Query { prefix: input.prefix.clone().unwrap_or_default(), delimiter, from, max };
        let bucket = input.bucket.clone();
        let page = self.with(move |store| store.list(&bucket, &query)).await?;
        let text = encoder(input.encoding_type.as_ref());
        let next_marker = page.next.as_ref().map(|next| match next {
            ListFrom::Start => String::new(),
            ListFrom::After(marker) | ListFrom::Past(marker) => text(marker.clone()),
        });
        let (contents, prefixes) = entries(page, &text);
        Ok(S3Response::new(ListObjectsOutput {
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            is_truncated: Some(next_marker.is_some()),
            next_marker,
            marker: input.marker.map(&text),
            max_keys: i32::try_from(max.min(MAX_PAGE)).ok(),
            name: Some(input.bucket),
            prefix: input.prefix.map(&text),
            delimiter: input.delimiter.map(&text),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let headers = req.headers;
        let (bucket, key) = copy_source(input.copy_source)?;
        // The protocol layer does not know these two headers of CopyObject yet.
        let target = |name| match headers.get(name) {
            None => Ok(None),
            Some(value) => ETagCondition::parse_http_header(value.as_bytes())
                .map(Some)
                .map_err(|_| s3_error!(InvalidArgument, "{name} is malformed")),
        };
        let condition = condition(target("if-match")?, target("if-none-match")?)?;
        let source = Conditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let replace = input.metadata_directive.is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let described = replace.then(|| describe(input.content_type, input.content_encoding, input.metadata));
        let (target_bucket, target_key) = (input.bucket, input.key);
        let copied = self
            .with(move |store| {
                let allowed = |object: &Attributes| allowed(&source, object);
                store.copy((&bucket, &key), (&target_bucket, &target_key), &condition, described, allowed)
            })
            .await?;
        let result = CopyObjectResult {
            e_tag: etag(&copied),
            last_modified: Some(copied.modified.into()),
            ..Default::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        no_versions(input.version_id.as_deref())?;
        let condition = condition(input.if_match, None)?;
        self.with(move |store| store.delete(&input.bucket, &input.key, Some(&condition))).await?;
        Ok(S3Response::with_status(DeleteObjectOutput::default(), http::StatusCode::NO_CONTENT))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        let objects = input.delete.objects;
        if objects.len() > MAX_PAGE {
            return Err(s3_error!(MalformedXML, "a request deletes at most 1000 keys"));
        }
        let bucket = input.bucket;
        let results = self
            .with(move |store| {
                store.head_bucket(&bucket)?;
                let delete = |object: ObjectIdentifier| {
                    let result = store.delete(&bucket, &object.key, None);
                    (object.key, result)
                };
                Ok(objects.into_iter().map(delete).collect::<Vec<_>>())
            })
            .await?;
        let quiet = input.delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (key, result) in results {
            match result {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..Default::default() }),
                Err(e) => {
                    let message = Some(e.to_string());
                    let code = Some(s3s::S3Error::from(e).code().as_str().to_owned());
                    errors.push(Error { key: Some(key), code, message, ..Default::default() });
                }
            }
        }
        let output = DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..Default::default() };
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let described = describe(input.content_type, input.content_encoding, input.metadata);
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let upload_id = self.with(move |store| store.create_upload(&bucket, &key, described)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let body = req.input.body.take();
        let Received { temp, etag: md5, checksum } = self.receive(&mut req, body).await?;
        let input = req.input;
        let e_tag = Some(ETag::Strong(md5.clone()));
        self.with(move |store| {
            store.put_part((&input.bucket, &input.key, &input.upload_id), input.part_number, temp, &md5)
        })
        .await?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            ..Default::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = req.input;
        let (bucket, key) = copy_source(input.copy_source)?;
        let range = input
            .copy_source_range
            .map(|range| Range::parse(&range).map_err(|_| s3_error!(InvalidArgument, "the range is malformed")))
            .transpose()?;
        let source = Conditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let md5 = self
            .with(move |store| {
                let (mut file, object) = store.open_object(&bucket, &key)?;
                allowed(&source, &object)?;
                let (start, bytes) = slice(range.as_ref(), object.size)?;
                let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
                store.copy_part(upload, input.part_number, (&mut file, start, bytes))
            })
            .await?;
        let result = CopyPartResult { e_tag: Some(ETag::Strong(md5)), ..Default::default() };
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() }))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let marker = input.part_number_marker.unwrap_or(0);
        let most = input.max_parts.map_or(MAX_PAGE, |max| usize::try_from(max).unwrap_or(0).min(MAX_PAGE));
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let mut parts = self.with(move |store| store.parts(&bucket, &key, &id)).await?;
        parts.retain(|(number, _)| *number > marker);
        let truncated = parts.len() > most;
        parts.truncate(most);
        let next = truncated.then(|| parts.last().map(|(number, _)| *number)).flatten();
        let part = |(number, attributes): (i32, Attributes)| Part {
            part_number: Some(number),
            size: length(attributes.size),
            e_tag: etag(&attributes),
            last_modified: Some(attributes.modified.into()),
            ..Default::default()
        };
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            parts: Some(parts.into_iter().map(part).collect()),
            is_truncated: Some(truncated),
            next_part_number_marker: next,
            max_parts: i32::try_from(most).ok(),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let condition = condition(input.if_match, input.if_none_match)?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let parts = named
            .into_iter()
            .map(|part| {
                let number = part.part_number.ok_or_else(|| s3_error!(MalformedXML, "a part has no number"))?;
                Ok((number, part.e_tag.map(ETag::into_value)))
            })
            .collect::<S3Result<Vec<_>>>()?;
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
        let done = self.with(move |store| store.complete_upload((&bucket, &key, &id), &parts, &condition)).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: etag(&done),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        self.with(move |store| store.abort_upload(&input.bucket, &input.key, &input.upload_id)).await?;
        let output = AbortMultipartUploadOutput::default();
        Ok(S3Response::with_status(output, http::StatusCode::NO_CONTENT))
    }
}
