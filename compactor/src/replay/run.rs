//! A replay, step by step:
//!
//! 1. Look at the target. Take up the checkpoint, or begin: with `confirm` and a hand-over the archive first goes to the tip.
//! 2. Count the rows. That is the plan; without `confirm` it ends here, and nothing was written.
//! 3. Keep the checkpoint, so that the replay is pinned to what it began with.
//! 4. Put the records together, sort them, and send them from behind the checkpoint on.
//! 5. With a hand-over: forward the live stream to its tip. Where that has a gap: archive to the tip, and from 2 with the rows that came
//!    since.
//!
//! Two runs of one replay at the same time harm no total, but an item's changes may then be seen again behind later ones.

use std::path::PathBuf;
use std::time::Duration;

use recount_consumer::millis;
use recount_schemas::SequenceNumber;
use recount_schemas::terminal::plural;
use serde::Serialize;

use super::ReplayError;
use super::checkpoint::{self, Checkpoint, Phase, Store};
use super::live::{Ended, Forwarder};
use super::order::SortKey;
use super::question::Question;
use super::select::{NAMED, Selection, Survey};
use super::send::{Paced, Parcel, Rate};
use crate::archive::Kinesis;
use crate::archive::source::{Source, SourceError};
use crate::bucket::Bucket;
use crate::context::Context;
use crate::log::{State, Stream};
use crate::progress::{Says, Work};
use crate::reconcile::diff::horizon;

/// Most passes over the archive of one hand-over.
const MAX_ROUNDS: u32 = 100;
/// What a stream takes of a record unless it was set to more, in KiB (API reference, "UpdateMaxRecordSize").
const MAX_RECORD_KIB: i32 = 1_024;

/// A replay as asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What.
    pub question: Question,
    /// Records a second.
    pub rate: Option<u64>,
    /// Bytes a second.
    pub bytes_per_second: Option<u64>,
    /// The file of the checkpoint; else it is an object in the bucket.
    pub checkpoint: Option<PathBuf>,
    /// Whether the hand-over goes on beyond the tip.
    pub follow: bool,
    /// Whether anything is sent.
    pub confirm: bool,
}

/// Where a consumer of one's own begins on a shard, when it takes over behind a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The last record that the replay has; where there is none, the shard's beginning.
    pub sequence_number: Option<SequenceNumber>,
    /// Whether that was the end of a closed shard: nothing is left to read there, its children can begin.
    pub closed: bool,
}

/// Where a consumer of one's own begins. A shard that is not here begins at its beginning, behind its parents' ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Positions {
    /// The stream; `None` where there is none.
    pub stream: Option<Stream>,
    /// Its shards.
    pub shards: std::collections::BTreeMap<String, Position>,
}

/// What a replay did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether anything was sent, if there was anything to send.
    pub confirmed: bool,
    /// What was asked.
    #[serde(flatten)]
    pub question: Question,
    /// The file or object of the checkpoint.
    pub checkpoint: String,
    /// Whether this went on with a replay that had been begun.
    pub resumed: bool,
    /// Records that the plan has.
    pub events: u64,
    /// Their bytes, partition keys included.
    pub bytes: u64,
    /// Their groups.
    pub groups: u64,
    /// The earliest creation time among them, µs since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_created_us: Option<i64>,
    /// The latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_created_us: Option<i64>,
    /// Rows that cannot be sent: part of their record was erased, or never kept.
    pub incomplete: u64,
    /// The event IDs of the first of them.
    pub incomplete_ids: Vec<String>,
    /// Records that the target would refuse for their size.
    pub too_large: u64,
    /// The target's open shards.
    pub shards: u64,
    /// How fast it goes.
    pub rate: Rate,
    /// The time that what is left of the archive's part takes at that rate, in seconds.
    pub seconds: u64,
    /// What should be known before it is confirmed.
    pub warnings: Vec<String>,
    /// Rows sent so far, by this run and those before it.
    pub sent: u64,
    /// Records forwarded from the live stream so far.
    pub forwarded: u64,
    /// Whether it is through.
    pub finished: bool,
    /// Where a consumer of one's own takes over.
    pub positions: Positions,
}

/// The stream that is written to.
struct Target {
    shards: u64,
    /// What it takes of a record with its partition key, in bytes.
    most: usize,
    /// When it was created, ms since 1970: with the name, which life of it this is.
    created_ms: i64,
}

/// Shows what a replay would do and, with `confirm`, does it.
pub async fn replay(context: &Context, ask: &Ask, says: &Says<'_>) -> Result<Report, ReplayError> {
    let question = &ask.question;
    let live = question.into == context.settings.stream;
    if live && question.hand_over {
        return Err(ReplayError::IntoItself(question.into.clone()));
    }
    let target = target(context, &question.into).await?;
    let rate = Rate::new(ask.rate, ask.bytes_per_second, target.shards);
    let source = Kinesis::new(context.kinesis.clone(), context.settings.stream.as_str());
    let store = Store::new(ask.checkpoint.clone(), context.bucket.clone(), question)?;

    let kept = store.read(question).await?;
    if let Some(kept) = &kept {
        same_life(kept, &target, &store)?;
    }
    let resumed = kept.is_some();
    let mut state = context.log().await?;
    let mut checkpoint = match kept {
        // One of the first format did not say the stream's life: from here on it is this one.
        Some(kept) => Checkpoint { format: checkpoint::FORMAT, into_created_ms: Some(target.created_ms), ..kept },
        None => {
            if ask.confirm && question.hand_over {
                state = to_the_tip(context, says).await?;
            }
            Checkpoint::begin(question.clone(), target.created_ms, &state, stream(&source).await?)
        }
    };
    let mut paced = Paced::new(context.kinesis.clone(), &question.into, target.most, rate, &context.host);
    let mut all: Option<Survey> = None;
    loop {
        if matches!(checkpoint.phase, Phase::Archive { .. }) {
            let survey = archived(context, ask, &state, &target, &store, &mut checkpoint, &mut paced, says).await?;
            all.get_or_insert(survey);
        }
        if !ask.confirm || !matches!(checkpoint.phase, Phase::Live) {
            break;
        }
        let (definition, host, limits) = (&*context.definition, &context.host, context.limits);
        let forwarder = Forwarder { source: &source, definition, host, limits, store: &store, follow: ask.follow };
        if forwarder.forward(&mut checkpoint, &mut paced, says).await? == Ended::AtTheTip {
            break;
        }
        if checkpoint.rounds >= MAX_ROUNDS {
            let why = format!("after {MAX_ROUNDS} passes over the archive it has still gone on; take a higher --rate");
            return Err(ReplayError::NoHandOver(why));
        }
        state = to_the_tip(context, says).await?;
        checkpoint.again(&state, stream(&source).await?);
        store.keep(&checkpoint).await?;
    }
    let survey = all.unwrap_or_default();
    Ok(report(ask, &store, resumed, &survey, &target, rate, &checkpoint, warnings(context, live, &survey, &state)))
}

/// One pass over the archive: counts its rows, and with `confirm` sends what is left of them.
#[allow(clippy::too_many_arguments)] // the parts of one run, each used once
async fn archived(
    context: &Context,
    ask: &Ask,
    state: &State,
    target: &Target,
    store: &Store<Bucket>,
    checkpoint: &mut Checkpoint,
    paced: &mut Paced<'_>,
    says: &Says<'_>,
) -> Result<Survey, ReplayError> {
    says(Work::Step("counting the archived changes"));
    let round = checkpoint.round.clone();
    let selection = Selection { question: &ask.question, round: &round };
    let files = selection.files(state);
    let oldest = horizon(context.host.now_ms(), context.definition.ledger_days);
    let survey = selection.survey(&context.bucket, &files, target.most, oldest, says).await?;
    let Phase::Archive { last, rows, sent } = &mut checkpoint.phase else { return Ok(survey) };
    if last.is_some() && *rows != survey.rows {
        // A redrive or a backfill brings rows behind what was sent, an erasure takes some away.
        let why = format!(
            "the archive has {} of this kind now, it had {rows} when the replay began; delete it to begin anew",
            plural(survey.rows, "change")
        );
        return Err(ReplayError::Checkpoint { name: store.name(), why });
    }
    *rows = survey.rows;
    if !ask.confirm {
        return Ok(survey);
    }
    if survey.too_large > 0 {
        return Err(ReplayError::TooLarge {
            count: survey.too_large,
            stream: ask.question.into.clone(),
            most: target.most,
            first: survey.too_large_id.clone().unwrap_or_default(),
        });
    }
    let (behind, of, mut through) = (last.clone(), *rows, *sent);
    store.keep(checkpoint).await?;

    if of > 0 {
        says(Work::Step("sorting the archived changes"));
        let mut window = paced.window();
        let mut at = String::new();
        let mut records = selection.sorted(&context.bucket, &files, &survey, says).await?.peekable();
        // What the checkpoint says was sent is what stands before its place, or somebody changed it.
        let mut before = 0;
        while records.next_if(|record| is_behind(record, behind.as_deref())).is_some() {
            before += 1;
        }
        if before != through {
            let why = format!(
                "it says that {through} records were sent, {before} stand before its place; delete it to begin anew"
            );
            return Err(ReplayError::Checkpoint { name: store.name(), why });
        }
        says(Work::Step("sending"));
        says(Work::Of(of, "records"));
        says(Work::Done(through));
        for record in records {
            let (key, parcel) = record?;
            if window.is_full_for(&parcel) {
                paced.send(&window).await?;
                note(checkpoint, &window_end(&at, &mut through, window.len()), of);
                store.keep(checkpoint).await?;
                says(Work::Done(window.len() as u64));
                window = paced.window();
            }
            window.push(parcel);
            at = hex(&key);
        }
        paced.send(&window).await?;
        note(checkpoint, &window_end(&at, &mut through, window.len()), of);
    }
    // Made anew while this went on, it has only a part of it.
    same_life(checkpoint, &self::target(context, &ask.question.into).await?, store)?;
    checkpoint.incomplete = checkpoint.incomplete.saturating_add(survey.incomplete);
    checkpoint.incomplete_ids.extend(survey.incomplete_ids.iter().cloned());
    checkpoint.incomplete_ids.truncate(NAMED);
    checkpoint.phase = if ask.question.hand_over { Phase::Live } else { Phase::Done };
    store.keep(checkpoint).await?;
    Ok(survey)
}

/// Whether the record stands at or before the last place that was acknowledged.
fn is_behind(record: &Result<(SortKey, Parcel), ReplayError>, last: Option<&str>) -> bool {
    matches!((record, last), (Ok((key, _)), Some(last)) if hex(key).as_str() <= last)
}

/// What was acknowledged: the last place, how many rows of the pass, and how many in this window.
struct Acknowledged {
    last: String,
    sent: u64,
    now: u64,
}

fn window_end(last: &str, through: &mut u64, records: usize) -> Acknowledged {
    let now = records as u64;
    *through += now;
    Acknowledged { last: last.to_owned(), sent: *through, now }
}

fn note(checkpoint: &mut Checkpoint, done: &Acknowledged, rows: u64) {
    checkpoint.sent += done.now;
    checkpoint.phase = Phase::Archive { last: Some(done.last.clone()), rows, sent: done.sent };
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

async fn to_the_tip(context: &Context, says: &Says<'_>) -> Result<State, ReplayError> {
    context.check_definition().await?;
    says(Work::Step("archiving to the tip of the live stream"));
    context.archive().await?;
    Ok(context.log().await?)
}

/// The life of the live stream, if there is one.
async fn stream(source: &Kinesis) -> Result<Option<Stream>, ReplayError> {
    match source.describe().await {
        Ok(summary) => Ok(Some(summary.stream)),
        Err(SourceError::NotThere(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The stream that the replay went into is still the one of that name.
fn same_life(checkpoint: &Checkpoint, target: &Target, store: &Store<Bucket>) -> Result<(), ReplayError> {
    if checkpoint.into_created_ms.is_none_or(|created_ms| created_ms == target.created_ms) {
        return Ok(());
    }
    let why = format!(
        "stream {} was deleted and made anew since: what was sent went into the one before. Delete the checkpoint to send it into this one",
        checkpoint.question.into
    );
    Err(ReplayError::Checkpoint { name: store.name(), why })
}

async fn target(context: &Context, name: &str) -> Result<Target, ReplayError> {
    let bad = |why: String| ReplayError::Target { stream: name.to_owned(), why };
    let answer = context.kinesis.describe_stream_summary().stream_name(name).send().await;
    let answer = answer.map_err(|error| match error.as_service_error() {
        Some(error) if error.is_resource_not_found_exception() => bad("it is not there; make it first".to_owned()),
        _ => bad(recount_schemas::causes(&error)),
    })?;
    let summary = answer.stream_description_summary().ok_or_else(|| bad("an empty description".to_owned()))?;
    let status = summary.stream_status().as_str();
    if !matches!(status, "ACTIVE" | "UPDATING") {
        return Err(bad(format!("it is {status}, not ACTIVE; wait until it is")));
    }
    let created_ms = millis::of_time(summary.stream_creation_timestamp());
    let created_ms = created_ms.ok_or_else(|| bad("it does not say when it was created".to_owned()))?;
    let kib = summary.max_record_size_in_kib().filter(|kib| *kib > 0).unwrap_or(MAX_RECORD_KIB);
    Ok(Target {
        shards: u64::try_from(summary.open_shard_count()).unwrap_or(0),
        most: usize::try_from(kib).unwrap_or(0).saturating_mul(1_024),
        created_ms,
    })
}

fn warnings(context: &Context, live: bool, survey: &Survey, state: &State) -> Vec<String> {
    let mut warnings = Vec::new();
    if live {
        warnings.push(format!(
            "{} is the live stream of this definition: its consumer finds these events counted and the archive finds them \
             archived, so no total changes; both have the work",
            context.settings.stream
        ));
        if survey.old > 0 {
            warnings.push(format!(
                "{} older than the ledger reaches back ({}): the consumer cannot look such up and puts each on the too-old list, one write \
                 and one item that stays; they are in the number, so this is no finding",
                plural(survey.old, "change"),
                plural(context.definition.ledger_days.into(), "day")
            ));
        }
    }
    if survey.incomplete > 0 {
        warnings.push(format!(
            "{} not sent: part of the record was erased, or the archive was told not to keep it",
            plural(survey.incomplete, "change")
        ));
    }
    if survey.too_large > 0 {
        warnings.push(format!(
            "{} larger than the target takes; raise its limit (aws kinesis update-max-record-size) before confirming",
            plural(survey.too_large, "record")
        ));
    }
    if !state.lost.is_empty() {
        warnings.push(format!(
            "the archive has {}, see recount reconcile: what the stream dropped there is not in the replay",
            plural(state.lost.len() as u64, "hole")
        ));
    }
    warnings
}

#[allow(clippy::too_many_arguments)] // the parts of one report
fn report(
    ask: &Ask,
    store: &Store<Bucket>,
    resumed: bool,
    survey: &Survey,
    target: &Target,
    rate: Rate,
    checkpoint: &Checkpoint,
    warnings: Vec<String>,
) -> Report {
    let (done, finished) = match &checkpoint.phase {
        Phase::Archive { sent, .. } => (*sent, false),
        // A hand-over never ends: it is through when it has come to the tip.
        Phase::Live => (survey.rows, ask.confirm),
        Phase::Done => (survey.rows, true),
    };
    // Those of a pass that is through stand in the checkpoint: whoever runs it again is told of them again.
    let pending: (u64, &[String]) = match &checkpoint.phase {
        Phase::Archive { .. } => (survey.incomplete, &survey.incomplete_ids),
        Phase::Live | Phase::Done => (0, &[]),
    };
    let left = survey.rows.saturating_sub(done);
    let bytes = (u128::from(survey.bytes) * u128::from(left)).checked_div(u128::from(survey.rows)).unwrap_or(0);
    let time: Duration = rate.time(left, u64::try_from(bytes).unwrap_or(u64::MAX));
    let shards = checkpoint
        .ends
        .iter()
        .map(|(shard, end)| (shard.to_string(), Position { sequence_number: end.to.clone(), closed: end.closed }));
    Report {
        confirmed: ask.confirm,
        question: ask.question.clone(),
        checkpoint: store.name(),
        resumed,
        events: survey.rows,
        bytes: survey.bytes,
        groups: survey.groups,
        first_created_us: survey.created_us.map(|(first, _)| first),
        last_created_us: survey.created_us.map(|(_, last)| last),
        incomplete: checkpoint.incomplete.saturating_add(pending.0),
        incomplete_ids: checkpoint.incomplete_ids.iter().chain(pending.1).take(NAMED).cloned().collect(),
        too_large: survey.too_large,
        shards: target.shards,
        rate,
        seconds: time.as_secs_f64().ceil() as u64,
        warnings,
        sent: checkpoint.sent,
        forwarded: checkpoint.forwarded,
        finished,
        positions: Positions { stream: checkpoint.stream.clone(), shards: shards.collect() },
    }
}
