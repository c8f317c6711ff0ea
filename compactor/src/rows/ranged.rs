//! Parquet's view of an object: bytes by range, near ranges in one request, a small object in one request altogether.
//!
//! Nothing goes to the Parquet library before its [`claims`] have been held against their bounds: the footer first, then
//! the pages of every range.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};

use super::claims;
use crate::bucket::{BucketError, Objects};
use crate::log::{AddedFile, Digest};

/// An object of at most so many bytes is read in one request.
const WHOLE: u64 = 1 << 20;
/// Ranges with at most so many bytes between them are read in one request: what a round trip costs in transfer.
const GAP: u64 = 256 << 10;
/// The most bytes of a request for several ranges.
const REQUEST: u64 = 16 << 20;
/// Requests at a time for one read.
const AT_ONCE: usize = 4;
/// How many bytes of the end are read first: most footers and page indexes are within.
const FOOTER: usize = 64 << 10;

/// An object that Parquet reads by ranges. It may stand under two names, its target and, until it is published, its
/// source: they have the same bytes, and a read may begin under the one and end under the other.
#[derive(Debug)]
pub struct Ranged<O> {
    objects: O,
    names: [String; 2],
    found: AtomicUsize,
    size: u64,
    sha256: Digest,
    whole: Option<Bytes>,
    /// The end of the object as far as it has been read, where it has not been read whole.
    tail: Option<(u64, Bytes)>,
    /// Whether the footer has been read: what is asked for then are pages.
    opened: bool,
}

/// An object that was read whole is not the one that the log names.
#[derive(Debug, thiserror::Error)]
#[error("is another object than the log says: its SHA-256 differs")]
pub struct Altered;

impl<O: Objects> Ranged<O> {
    /// A file of the log. Nothing is read yet.
    pub fn new(objects: O, file: &AddedFile) -> Self {
        let names = [file.target.clone(), file.source.clone()];
        let (size, sha256) = (file.bytes, file.sha256);
        Self { objects, names, found: AtomicUsize::new(0), size, sha256, whole: None, tail: None, opened: false }
    }

    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.size {
            return Err(ParquetError::EOF(format!("bytes {range:?} of an object of {}", self.size)));
        }
        // Published meanwhile: the source is deleted only when the target is there. So: found, other, found again.
        let found = self.found.load(Ordering::Relaxed);
        let mut missing = None;
        for at in [found, 1 - found, found] {
            let Some(name) = self.names.get(at) else { break };
            match self.objects.get_range(name, range.clone()).await {
                Ok(bytes) => {
                    self.found.store(at, Ordering::Relaxed);
                    return Ok(bytes);
                }
                Err(error) if error.is_missing() => missing = missing.or(Some(error)),
                Err(error) => return Err(ParquetError::External(Box::new(error))),
            }
        }
        Err(missing
            .map_or_else(|| ParquetError::EOF("no name".into()), |error| ParquetError::External(Box::new(error))))
    }

    /// The bytes of each range, near ones in one request.
    async fn parts(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let requests = coalesced(ranges);
        let fetched: Vec<(u64, Bytes)> = futures::stream::iter(requests)
            .map(|request| async move { Ok::<_, ParquetError>((request.start, self.fetch(request).await?)) })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let within = |range: &Range<u64>| {
            let at = fetched.partition_point(|(start, _)| *start <= range.start);
            let (start, bytes) = at
                .checked_sub(1)
                .and_then(|at| fetched.get(at))
                .ok_or_else(|| ParquetError::EOF(format!("bytes {range:?} were not fetched")))?;
            part(bytes, *start, range)
        };
        ranges.iter().map(within).collect()
    }

    /// Whether the object has the log's number of bytes. Of a small one its SHA-256 tells more, when it is read.
    pub async fn has_its_size(&self) -> std::result::Result<bool, BucketError> {
        if self.size <= WHOLE {
            return Ok(true);
        }
        for name in &self.names {
            if let Some(meta) = self.objects.head(name).await? {
                return Ok(meta.bytes == self.size);
            }
        }
        Ok(true) // that it is missing is told by the read
    }

    /// Bytes that are no part of the table, at most `most` of them.
    pub async fn beside(&mut self, range: Range<u64>, most: usize) -> Result<Bytes> {
        let length = range.end.checked_sub(range.start).filter(|length| *length <= most as u64);
        if length.is_none() {
            return Err(ParquetError::General(format!("bytes {range:?} are more than {most}")));
        }
        match self.whole().await? {
            Some(whole) => part(&whole, 0, &range),
            None => self.fetch(range).await,
        }
    }

    async fn whole(&mut self) -> Result<Option<Bytes>> {
        if self.size <= WHOLE && self.whole.is_none() {
            let whole = self.fetch(0..self.size).await?;
            if Digest::of(&whole) != self.sha256 {
                return Err(ParquetError::External(Box::new(Altered)));
            }
            self.whole = Some(whole);
        }
        Ok(self.whole.clone())
    }
}

impl<O: Objects> Ranged<O> {
    /// Holds a range against its bound, before it is read.
    fn check(&self, range: &Range<u64>) -> Result<()> {
        let most = if self.opened { claims::MAX_CHUNK } else { claims::MAX_FOOTER };
        match range.end.checked_sub(range.start) {
            Some(bytes) if bytes <= most => Ok(()),
            _ => Err(ParquetError::General(format!("bytes {range:?} are more than the {most} that one read may take"))),
        }
    }

    /// Reads the end of the object, and holds the footer against its bounds.
    async fn read_footer(&mut self) -> Result<()> {
        let size = self.size;
        let short = || ParquetError::EOF(format!("an object of {size} bytes has no footer"));
        let mut start = self.size.saturating_sub(FOOTER as u64);
        let mut end = match self.whole().await? {
            Some(whole) => whole.slice(start as usize..), // it has at most WHOLE bytes
            None => self.fetch(start..self.size).await?,
        };
        let magic = end.len().checked_sub(FOOTER_SIZE).and_then(|at| end.get(at..)).ok_or_else(short)?;
        let length = FooterTail::try_from(magic)?.metadata_length() as u64;
        let footer_end = self.size - FOOTER_SIZE as u64; // that much was just read
        let footer = footer_end.checked_sub(length).ok_or_else(short)?..footer_end;
        self.check(&footer)?;
        if footer.start < start {
            start = footer.start;
            end = match &self.whole {
                Some(whole) => part(whole, 0, &(start..self.size))?,
                None => self.fetch(start..self.size).await?,
            };
        }
        claims::footer(&part(&end, start, &footer)?)?;
        self.tail = Some((start, end));
        Ok(())
    }
}

impl<O: Objects> AsyncFileReader for Ranged<O> {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            self.check(&range)?;
            let bytes = match (self.whole().await?, &self.tail) {
                (Some(whole), _) => part(&whole, 0, &range)?,
                (None, Some((start, tail))) if *start <= range.start => part(tail, *start, &range)?,
                _ => self.fetch(range).await?,
            };
            if self.opened {
                claims::pages(&bytes)?;
            }
            Ok(bytes)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            ranges.iter().try_for_each(|range| self.check(range))?;
            let parts = match self.whole().await? {
                Some(whole) => ranges.iter().map(|range| part(&whole, 0, range)).collect::<Result<Vec<_>>>()?,
                None => self.parts(&ranges).await?,
            };
            if self.opened {
                parts.iter().try_for_each(|part| claims::pages(part))?;
            }
            Ok(parts)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            self.opened = false;
            self.read_footer().await?;
            let size = self.size;
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER));
            let metadata = reader.load_and_finish(&mut *self, size).await?;
            (self.tail, self.opened) = (None, true);
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

/// The bytes `range` of an object, out of `bytes`, which begin at `start`.
fn part(bytes: &Bytes, start: u64, range: &Range<u64>) -> Result<Bytes> {
    let place = |at: u64| at.checked_sub(start).and_then(|at| usize::try_from(at).ok());
    match (place(range.start), place(range.end)) {
        (Some(from), Some(to)) if from <= to && to <= bytes.len() => Ok(bytes.slice(from..to)),
        _ => Err(ParquetError::EOF(format!("bytes {range:?} are outside of what was read"))),
    }
}

/// The requests that cover `ranges`: sorted, apart from each other, none longer than [`REQUEST`] unless a single range is.
fn coalesced(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut requests: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match requests.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            Some(last) if range.start - last.end <= GAP && range.end.saturating_sub(last.start) <= REQUEST => {
                last.end = range.end;
            }
            _ => requests.push(range),
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_cover_every_range_and_do_not_overlap(
            ranges in prop::collection::vec((0u64..50_000_000, 0u64..3_000_000), 0..40),
        ) {
            let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
            let requests = coalesced(&ranges);
            for range in &ranges {
                prop_assert!(requests.iter().any(|r| r.start <= range.start && range.end <= r.end));
            }
            for pair in requests.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
        }
    }
}
