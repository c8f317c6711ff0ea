//! One file of the log: where it is, whether its bytes are those that the log says, and whether its rows are.
//!
//! A file whose bytes are other ones is told as that; what such bytes would say as rows is nothing about the file. Each object is
//! fetched once. Memory: an object of up to 32 MiB, one row group of the columns that are read, one batch.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use recount_schemas::Definition;

use super::columns::{Columns, names};
use super::finding::{Finding, Kind};
use super::keys::Keys;
use super::spool::{Spool, fetch};
use super::tally::{Allowed, Tally};
use super::{FsckError, spool::SpoolError};
use crate::bucket::{BucketError, Objects};
use crate::log::{AddedFile, Digest};
use crate::rows::summary::{Summarizer, Summary};
use crate::rows::{self, RowsError};

/// What a file is checked with.
#[derive(Debug, Clone)]
pub struct Subject<O> {
    /// The bucket.
    pub objects: O,
    /// The file.
    pub file: AddedFile,
    /// The bytes that a listing gave its target.
    pub listed: Option<u64>,
    /// What its rows were made under.
    pub definition: Arc<Definition>,
    /// Where its rows may stand in the stream.
    pub allowed: Allowed,
    /// Whether each row is made anew.
    pub deep: bool,
    /// Where its event keys go, and its number there.
    pub keys: Option<(Arc<Keys>, u32)>,
    /// The live files by their digests: what an object holds that was put in another's place.
    pub known: Arc<HashMap<Digest, String>>,
}

/// Where a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// At its target.
    Published,
    /// At its source only.
    Unpublished,
    /// At neither.
    Gone,
}

/// What came of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Where it was.
    pub standing: Standing,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// Its rows that were read.
    pub rows: u64,
    /// Its bytes that were read.
    pub bytes: u64,
}

impl<O: Objects> Subject<O> {
    /// Checks it.
    pub async fn check(&self) -> Result<Checked, FsckError> {
        let mut checked = Checked { standing: Standing::Gone, findings: Vec::new(), rows: 0, bytes: 0 };
        let Some((name, bytes)) = self.locate().await? else { return Ok(checked) };
        checked.standing = if name == self.file.target { Standing::Published } else { Standing::Unpublished };
        if bytes != self.file.bytes {
            let detail = format!("{bytes} bytes, the log says {}", self.file.bytes);
            checked.findings.push(Finding::new(Kind::Size, name, detail));
            return Ok(checked);
        }
        let (spool, digest) = match fetch(&self.objects, name, bytes).await {
            Ok(fetched) => fetched,
            Err(SpoolError::Bucket(error @ (BucketError::Missing { .. } | BucketError::Short { .. }))) => {
                // Deleted or replaced since it was found: what the log says of it now is for the caller to find out.
                tracing::debug!(%error, "the object changed under the check");
                checked.standing = Standing::Gone;
                return Ok(checked);
            }
            Err(error) => return Err(error.into()),
        };
        checked.bytes = bytes;
        if digest != self.file.sha256 {
            let holds = match self.known.get(&digest) {
                Some(other) => format!("; these are the bytes of {other}"),
                None => String::new(),
            };
            let detail = format!("its SHA-256 is {digest}, the log says {}{holds}", self.file.sha256);
            checked.findings.push(Finding::new(Kind::Digest, name, detail));
            return Ok(checked);
        }
        let (findings, rows) = self.rows(&spool).await?;
        (checked.findings, checked.rows) = (findings, rows);
        Ok(checked)
    }

    /// Its name and its size; `None` if it is nowhere.
    async fn locate(&self) -> Result<Option<(&str, u64)>, FsckError> {
        let (target, source) = (self.file.target.as_str(), self.file.source.as_str());
        if let Some(bytes) = self.listed {
            return Ok(Some((target, bytes)));
        }
        // Published meanwhile: the source is deleted only when the target is there.
        for name in [target, source, target] {
            if let Some(meta) = self.objects.head(name).await? {
                return Ok(Some((name, meta.bytes)));
            }
        }
        Ok(None)
    }

    /// Its rows against the log.
    async fn rows(&self, spool: &Spool) -> Result<(Vec<Finding>, u64), FsckError> {
        let object = self.file.target.as_str();
        let unreadable = |why: String| (vec![Finding::new(Kind::Unreadable, object, why)], 0);
        let columns = names(&self.definition, self.deep);
        let mut batches = std::pin::pin!(rows::read(spool, &self.file, &columns));
        let mut tally = Tally::new(&self.definition, self.file.month, &self.allowed, self.deep);
        let mut summarizer = self.deep.then(|| Summarizer::new(&self.definition, self.file.month));
        let (mut keys, mut rows) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error @ RowsError::Newer { .. }) => return Err(error.into()),
                Err(RowsError::Rows { rows, said, .. }) => {
                    let detail = format!("{rows} rows, the log says {said}");
                    return Ok((vec![Finding::new(Kind::Rows, object, detail)], 0));
                }
                Err(RowsError::Damaged { why, .. }) => return Ok(unreadable(format!("it {why}"))),
                Err(error) => return Ok(unreadable(error.to_string())),
            };
            let columns = match Columns::new(&batch, &self.definition, self.deep) {
                Ok(columns) => columns,
                Err(name) => return Ok(unreadable(format!("its column {name} is of another type"))),
            };
            tally.pass(&columns, &mut keys);
            if let Some(summarizer) = &mut summarizer {
                summarizer.batch(&batch);
            }
            rows += columns.rows as u64;
            if let Some((all, number)) = &self.keys {
                all.add(*number, &keys)?;
            }
            // Other tasks of this thread get their turn.
            tokio::task::yield_now().await;
        }
        let mut findings = tally.finish(&self.file);
        if findings.is_empty()
            && let Some(summarizer) = summarizer
            && !self.has_the_summary_of(spool, summarizer).await?
        {
            findings.push(Finding::new(
                Kind::Summary,
                object,
                "its summary is not what its rows come to, cell by cell",
            ));
        }
        Ok((findings, rows))
    }

    /// Whether the file's summary is the one that its rows give. A file may have none: then its rows are read.
    async fn has_the_summary_of(&self, spool: &Spool, rows: Summarizer<'_>) -> Result<bool, FsckError> {
        let measures = self.definition.measures.len();
        let Some(kept) = rows::reader::summary(spool, &self.file, measures).await? else { return Ok(true) };
        let made = rows.finish().and_then(|bytes| Summary::read(bytes.into(), measures));
        Ok(made.is_some_and(|made| made.reached == kept.reached && made.eq(kept)))
    }
}
