//! The archive and everything that reads it.
//!
//! The archive:
//!
//! - [`bucket`]: S3, by meaning.
//! - [`log`]: what is in the archive, in which order it came there. The truth that every view follows.
//! - [`mod@commit`]: putting the next entry of the log, whoever else puts one.
//! - [`history`]: the log told entry by entry: what its head alone does not say.
//! - [`rows`]: events as rows of Parquet files, written and read.
//! - [`archive`]: a run that brings what is new in the stream into the archive.
//! - [`compact`]: many small files become few large ones.
//! - [`catalog`]: where readers by location find its months.
//! - [`daily`]: what is done once a day: retention, then compaction.
//! - [`erase`]: rows lose personal data, and count as before.
//! - [`fsck`](mod@fsck): whether the archive is what its log says: log, objects, bytes, rows.
//!
//! What reads it, and holds the live totals against it:
//!
//! - [`contributions`]: archived rows as contributions to cells, in the order of the cells.
//! - [`recompute`]: the archive folded into monthly and yearly totals.
//! - [`reconcile`]: what is wrong with the live totals, event by event.
//! - [`athena`]: the parts of both that an archive beyond one machine puts to Athena.
//! - [`repair`]: putting it right, by a plan.
//! - [`redrive`]: quarantined records through the path again, after a fix.
//! - [`replay`]: archived changes back into a stream, and over to the live one.
//! - [`sets`]: second homes beside the first, and which of them readers go by. [`rebuild`]: making one.
//! - [`explain`]: the events that make a number. [`why`](mod@why): one event's whole life. [`usage`]: the live totals themselves.
//!
//! What holds it against the source table:
//!
//! - [`table`]: the source table as it is, by a Scan or out of an export.
//! - [`items`]: what the archive says of each item, beside it.
//! - [`audit`]: what the archive lacks of it. [`backfill`]: bringing it in.
//!
//! - [`doctor`]: whether a deployment is set up as all this needs it.
//! - [`mod@estimate`]: what a deployment costs.
//! - [`context`]: what all these work with. [`stack`]: a deployment by its name. [`progress`]: what they say while they go on.
//!   [`cli`]: the command line.

pub mod archive;
pub mod athena;
pub mod audit;
pub mod backfill;
pub mod bucket;
pub mod catalog;
pub mod cli;
pub mod commit;
pub mod compact;
pub mod context;
pub mod contributions;
pub mod daily;
pub mod doctor;
pub mod erase;
pub mod estimate;
pub mod explain;
pub mod fsck;
pub mod history;
pub mod items;
pub mod log;
pub mod progress;
pub mod rebuild;
pub mod recompute;
pub mod reconcile;
pub mod redrive;
pub mod repair;
pub mod replay;
pub mod rows;
pub mod sets;
pub mod stack;
pub mod table;
pub mod usage;
pub mod why;

#[cfg(test)]
mod testing;
#[cfg(test)]
#[cfg(feature = "aws")]
mod testing_aws;
