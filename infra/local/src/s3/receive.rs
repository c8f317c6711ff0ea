//! Receiving a body: into a temporary file, with every checksum verified that the request gives.

use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::attributes::hex;
use super::chunked::Trailers;
use super::error::StoreError;
use super::store::{Store, Temp};
use crate::io::BlockingWork;

/// Bytes gathered before they are hashed and written: one trip to the blocking pool.
const WRITE_BYTES: usize = 1 << 20;

/// Largest body of one request in bytes (S3 User Guide, "Uploading objects").
const MAX_PUT_BYTES: u64 = 5 << 30;

/// The names of the checksums that S3 knows, as headers and as trailers.
const CHECKSUMS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
    "x-amz-checksum-crc64nvme",
];

/// What the body must turn out to be.
#[derive(Debug, Default)]
pub struct Expected {
    /// By header: checksum name, base64.
    checksums: Vec<(&'static str, String)>,
    /// Announced to come as a trailer.
    trailing: Vec<&'static str>,
    trailers: Option<Trailers>,
    /// `Content-MD5`, base64.
    md5: Option<String>,
    /// `x-amz-content-sha256`, where it is a hash: hex.
    sha256: Option<String>,
    /// Bytes.
    length: Option<u64>,
}

impl Expected {
    /// Reads what `headers` say of the body; `trailers` is the place where its trailers will be.
    pub fn from_headers(headers: &HeaderMap, trailers: Option<Trailers>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let announced: Vec<String> = headers
            .get_all("x-amz-trailer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|names| names.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        Expected {
            checksums: CHECKSUMS.iter().filter_map(|name| Some((*name, text(name)?))).collect(),
            trailing: CHECKSUMS.into_iter().filter(|name| announced.iter().any(|a| a == name)).collect(),
            trailers,
            md5: text("content-md5"),
            sha256: text("x-amz-content-sha256")
                .filter(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())),
            length: text("content-length").and_then(|length| length.parse().ok()),
        }
    }

    fn hasher(&self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        for name in self.checksums.iter().map(|(name, _)| *name).chain(self.trailing.iter().copied()) {
            match name {
                "x-amz-checksum-crc32" => hasher.crc32 = Some(Crc32::new()),
                "x-amz-checksum-crc32c" => hasher.crc32c = Some(Crc32c::new()),
                "x-amz-checksum-sha1" => hasher.sha1 = Some(Sha1::new()),
                "x-amz-checksum-sha256" => hasher.sha256 = Some(Sha256::new()),
                _ => hasher.crc64nvme = Some(Crc64Nvme::new()),
            }
        }
        if self.sha256.is_some() {
            hasher.sha256 = Some(Sha256::new());
        }
        hasher
    }

    fn verify(&self, found: &Checksum, md5: &[u8], size: u64) -> Result<(), StoreError> {
        if let Some(length) = self.length.filter(|length| *length != size) {
            return Err(StoreError::BrokenBody(format!("it has {size} bytes and not {length}")));
        }
        if self.md5.as_ref().is_some_and(|md5_header| *md5_header != BASE64_STANDARD.encode(md5)) {
            return Err(StoreError::BadDigest("Content-MD5".to_owned()));
        }
        if let (Some(expected), Some(found)) = (&self.sha256, &found.checksum_sha256) {
            let found = BASE64_STANDARD.decode(found).map(|bytes| hex(&bytes)).unwrap_or_default();
            if !expected.eq_ignore_ascii_case(&found) {
                return Err(StoreError::BadDigest("x-amz-content-sha256".to_owned()));
            }
        }
        for (name, expected) in &self.checksums {
            if value(found, name) != Some(expected.as_str()) {
                return Err(StoreError::BadDigest((*name).to_owned()));
            }
        }
        if self.trailing.is_empty() {
            return Ok(());
        }
        let trailers = self.trailers.as_ref().and_then(|place| place.lock().ok()?.take()).unwrap_or_default();
        for name in &self.trailing {
            let expected = trailers.get(*name).and_then(|value| value.to_str().ok());
            if expected.is_none() || value(found, name) != expected {
                return Err(StoreError::BadDigest(format!("{name} (trailer)")));
            }
        }
        Ok(())
    }
}

fn value<'a>(found: &'a Checksum, name: &str) -> Option<&'a str> {
    match name {
        "x-amz-checksum-crc32" => found.checksum_crc32.as_deref(),
        "x-amz-checksum-crc32c" => found.checksum_crc32c.as_deref(),
        "x-amz-checksum-sha1" => found.checksum_sha1.as_deref(),
        "x-amz-checksum-sha256" => found.checksum_sha256.as_deref(),
        _ => found.checksum_crc64nvme.as_deref(),
    }
}

/// A body that arrived whole.
pub struct Received {
    /// The file with it.
    pub temp: Temp,
    /// Hex MD5.
    pub etag: String,
    /// The checksums that were asked for.
    pub checksum: Checksum,
}

struct Sink {
    temp: Temp,
    md5: Md5,
    checksums: ChecksumHasher,
    size: u64,
}

impl Sink {
    fn take(mut self, pieces: Vec<Bytes>) -> Result<Self, StoreError> {
        for piece in pieces {
            self.md5.update(&piece);
            self.checksums.update(&piece);
            self.size += piece.len() as u64;
            if self.size > MAX_PUT_BYTES {
                return Err(StoreError::TooLarge);
            }
            self.temp.file.write_all(&piece).map_err(StoreError::io("write", self.temp.path()))?;
        }
        Ok(self)
    }
}

/// Writes `body` to a temporary file and verifies it. Holds about a mebibyte of it in memory.
///
/// # Errors
/// [`StoreError::BadDigest`], [`StoreError::BrokenBody`], or when it cannot be written.
pub async fn receive(
    store: &Arc<Store>,
    work: BlockingWork,
    body: Option<StreamingBlob>,
    expected: Expected,
) -> Result<Received, StoreError> {
    let lost = |e| StoreError::Io { what: "work on", path: "the body".into(), source: e };
    let (opener, checksums) = (Arc::clone(store), expected.hasher());
    let mut sink = work
        .run(move || opener.temp().map(|temp| Sink { temp, md5: Md5::new(), checksums, size: 0 }))
        .await
        .map_err(lost)??;
    let mut body = body;
    let mut gathered = Vec::new();
    let mut bytes = 0;
    loop {
        let piece = match &mut body {
            Some(body) => body.next().await.transpose().map_err(|e| StoreError::BrokenBody(e.to_string()))?,
            None => None,
        };
        let ended = piece.is_none();
        if let Some(piece) = piece {
            bytes += piece.len();
            gathered.push(piece);
        }
        if ended || bytes >= WRITE_BYTES {
            bytes = 0;
            let pieces = std::mem::take(&mut gathered);
            sink = work.run(move || sink.take(pieces)).await.map_err(lost)??;
        }
        if ended {
            break;
        }
    }
    let Sink { temp, md5, checksums, size } = sink;
    let (md5, checksum) = (md5.finalize(), checksums.finalize());
    expected.verify(&checksum, md5.as_ref(), size)?;
    Ok(Received { temp, etag: hex(md5.as_ref()), checksum })
}
