//! Making totals anew beside the old ones: for another definition, or since a table was lost.
//!
//! - [`anew`]: records judged anew and sorted. No I/O but the sort's.
//! - [`seed`](mod@seed): the first entry of the set's log: all that the old archive had read, judged anew.
//! - [`load`](mod@load): the set's totals, from that.
//! - [`compare`](mod@compare): both archives held against each other.
//! - [`missed`](mod@missed): what readers would miss behind a switch, since it did not come by the stream.
//! - [`handover`]: what is left to the operator, as commands.
//!
//! The steps, each of which may be done again; the same command goes on where it was broken off:
//!
//! 1. The old archive reads the stream to its tip.
//! 2. The definition is kept with the set, the tables are made and claimed for it.
//! 3. The set's archive is seeded. From now on it reads the stream itself, from where the old one stood at this moment.
//! 4. The totals are loaded; the set's progress says how far the shards were read. The live stream may feed the set from now on.
//! 5. The set is reconciled with its own archive, and repaired until nothing is left to repair.
//!
//! A second consumer feeds the set from then on ([`handover`]). What it is given that is counted already, its ledger knows. Readers go
//! by the set after a [`switch`](crate::sets::switch()); the old home stays as it is, and stays fed: the way back is a switch.

pub mod anew;
pub mod compare;
pub mod handover;
pub mod load;
pub mod missed;
pub mod seed;

use recount_consumer::tables::{self, TableError};
use recount_consumer::totals::TotalsError;
use recount_schemas::terminal::plural;
use recount_schemas::{Home, Month, SetName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::archive::ArchiveError;
use crate::bucket::BucketError;
use crate::context::{Context, ContextError};
use crate::contributions::{ReadError, Scope};
use crate::progress::{Says, Work};
use crate::reconcile::diff::{OutOfRange, horizon};
use crate::reconcile::{ReconcileError, Report as Reconciliation, Verdict, reconcile};
use crate::repair::apply::ApplyError;
use crate::repair::{RepairError, repair};
use crate::sets::home::{self, FORMAT, Loaded};
use crate::sets::{HomeError, SwitchError};

pub use compare::{Comparison, Difference, Level, compare};
pub use load::{LoadReport, load};
pub use missed::{Missed, missed};
pub use seed::{Seeded, seed, seed_of};

/// A rebuild failed. What was done stays; the same command goes on.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// AWS, a definition or an archive.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The set.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The switches.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// An archive's log.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An archive's rows.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A table could not be made.
    #[error("{0}; make it as the base's is (pk a string, sk a {kind}), then run this again", kind = sort(.0))]
    Table(#[from] TableError),
    /// The totals.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// The reconcile at the end.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// The repair at the end.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// A cell's number could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A sum is out of range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The temporary files failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
    /// A set cannot be made from itself.
    #[error("{0} cannot be made from itself; name another home with --set, or another set with --into")]
    Itself(Home),
    /// The old archive did not reach the tip.
    #[error("the archive of {0} did not reach the tip of the stream; run this again")]
    NotAtTip(Home),
    /// The log of the set begins with something else.
    #[error("the log of {0} does not begin with a seed of this definition; choose another name")]
    NotASeed(Home),
    /// Rows no longer hold all of their change.
    #[error(
        "{} without all of the change (erased, or columns left out), {unreadable} of them no record any more: whether what is gone \
         would count under this definition cannot be known; nothing was changed. With --accept-incomplete they count by what is \
         left of them; those that are no record cannot be taken over",
        plural(*rows, "row")
    )]
    Incomplete {
        /// All of them.
        rows: u64,
        /// Those that cannot be put together at all.
        unreadable: u64,
    },
    /// An object of quarantine or conflicts is malformed.
    #[error("{key} is not a quarantined record: {why}; mend or remove it, then run this again")]
    Object {
        /// The object.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// There are too many groups to compare.
    #[error("more than {} groups' months; compare single ones with `recount explain`", compare::MAX_HELD)]
    TooManyGroups,
}

fn sort(error: &TableError) -> &'static str {
    if error.table.contains("ledger") { "binary" } else { "string" }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The set.
    pub into: SetName,
    /// The text of the new definition; `None`: that of the set if it was begun, else the one in use.
    pub text: Option<String>,
    /// The text of the definition in use.
    pub in_use: String,
    /// Do it.
    pub confirm: bool,
    /// Hold the archives against each other.
    pub compare: bool,
    /// Take rows that no longer hold all of their change by what is left of them.
    pub accept_incomplete: bool,
}

/// What would be done, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The home that is rebuilt from.
    pub from: Home,
    /// The set that is made.
    pub into: Home,
    /// The hash of its definition.
    pub definition: String,
    /// In what it differs from the old one.
    pub differences: Vec<String>,
    /// Events in the old archive.
    pub events: u64,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its months.
    pub months: BTreeSet<Month>,
    /// At most so many events are within the ledger's reach, and are counted one by one; the others go in as numbers.
    pub counted_at_most: u64,
    /// The set's tables.
    pub tables: Vec<TablePlan>,
    /// Whether the set's archive has been seeded.
    pub seeded: bool,
    /// Whether its totals have been loaded.
    pub loaded: bool,
}

/// A table of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePlan {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub exists: bool,
}

/// What a rebuild did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether it was done.
    pub confirmed: bool,
    /// What would be done.
    pub plan: Plan,
    /// What seeding came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded: Option<Seeded>,
    /// What loading came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<LoadReport>,
    /// How many cells a repair put right behind it.
    pub repaired: u64,
    /// The set held against its own archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled: Option<Reconciliation>,
    /// The archives held against each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What is left to do, as commands.
    pub next: Vec<String>,
}

impl Report {
    /// Whether the set is in order, as far as was looked.
    pub fn verdict(&self) -> Verdict {
        let reconciled = self.reconciled.as_ref().map_or(Verdict::Clean, |report| report.verdict);
        let differ = self.comparison.as_ref().is_some_and(|comparison| comparison.differ > 0);
        if reconciled == Verdict::Clean && differ { Verdict::Findings } else { reconciled }
    }
}

/// Shows what making the set would be and, with `confirm`, makes it.
pub async fn rebuild(source: &Context, request: &Request, says: &Says<'_>) -> Result<Report, RebuildError> {
    let into = Home::Set(request.into.clone());
    if source.home() == into {
        return Err(RebuildError::Itself(into));
    }
    let objects = source.root().below(&request.into.prefix());
    let kept = home::definition(&objects, &request.into).await?;
    if request.compare && !request.confirm && kept.is_none() {
        return Err(HomeError::NoSuchSet(request.into.clone()).into());
    }
    let text = request.text.as_ref().or((kept.is_none()).then_some(&request.in_use));
    let definition = match (text, kept) {
        (Some(text), Some(kept)) => {
            let given = recount_schemas::Definition::parse(text, home::DEFINITION).map_err(HomeError::from)?;
            home::same(&request.into, &kept, &given)?;
            kept
        }
        (Some(text), None) => recount_schemas::Definition::parse(text, home::DEFINITION).map_err(HomeError::from)?,
        (None, Some(kept)) => kept,
        // One of them is always there.
        (None, None) => return Err(HomeError::NoSuchSet(request.into.clone()).into()),
    };
    let target = source.beside(&into, definition);
    let plan = plan(source, &target, &request.into).await?;
    let mut report = Report {
        confirmed: request.confirm,
        next: Vec::new(),
        seeded: None,
        loaded: None,
        repaired: 0,
        reconciled: None,
        comparison: None,
        plan,
    };
    if request.confirm {
        if let Some(text) = text {
            home::keep_definition(&objects, &request.into, text).await?;
        }
        make(source, &target, request, &mut report, says).await?;
    } else if report.plan.loaded && request.compare {
        report.reconciled = Some(reconcile(&target, &Scope::all(), says).await?.report);
    }
    if request.compare && seed_of(&target).await?.is_some() {
        report.comparison = Some(compare(source, &target, says).await?);
    }
    report.next = handover::next(&target, &report).await?;
    Ok(report)
}

async fn plan(source: &Context, target: &Context, name: &SetName) -> Result<Plan, RebuildError> {
    let state = source.log().await?;
    let reach = horizon(target.host.now_ms(), target.definition.ledger_days);
    let live = || state.live().map(|live| &live.file);
    let mut tables = Vec::new();
    for shape in tables::shapes(&target.settings) {
        let exists = tables::exists(&target.dynamo, &shape.name).await?;
        tables.push(TablePlan { name: shape.name, exists });
    }
    Ok(Plan {
        from: source.home(),
        into: target.home(),
        definition: target.definition.hash().to_owned(),
        differences: compare::differences(&source.definition, &target.definition),
        events: live().map(|file| file.rows).sum(),
        files: live().count() as u64,
        bytes: live().map(|file| file.bytes).sum(),
        months: live().map(|file| file.month).collect(),
        counted_at_most: live().filter(|file| file.last_key >= reach).map(|file| file.rows).sum(),
        tables,
        seeded: seed_of(target).await?.is_some(),
        loaded: home::loaded(&target.bucket, name).await?.is_some(),
    })
}

async fn make(
    source: &Context,
    target: &Context,
    request: &Request,
    report: &mut Report,
    says: &Says<'_>,
) -> Result<(), RebuildError> {
    if !report.plan.seeded {
        says(Work::Step("archiving to the tip of the stream"));
        if !source.archive().await?.reached_tip {
            return Err(RebuildError::NotAtTip(source.home()));
        }
    }
    says(Work::Step("making the tables"));
    tables::ensure(&target.dynamo, &target.settings, &target.host).await?;
    target.totals.claim_definition().await?;
    report.seeded = Some(seed(source, target, request.accept_incomplete, says).await?);
    let Some((entry, digest)) = seed_of(target).await? else { return Err(RebuildError::NotASeed(target.home())) };
    let loaded = home::loaded(&target.bucket, &request.into).await?;
    report.loaded = Some(match loaded.filter(|loaded| loaded.seed == digest) {
        Some(_) => LoadReport { before: true, ..LoadReport::default() },
        None => {
            let loaded = load(target, &entry, digest, says).await?;
            let done = Loaded { format: FORMAT, seed: digest, at_ms: target.host.now_ms() };
            home::keep_loaded(&target.bucket, &request.into, &done).await?;
            loaded
        }
    });
    // Mostly there is nothing left for it: a load that was broken off for long, or that ran beside the live stream.
    let repaired = repair(target, &Scope::all(), true, says).await?;
    report.repaired = repaired.applied.iter().filter(|cell| cell.number.is_done()).count() as u64;
    report.reconciled = repaired.reconciled;
    Ok(())
}
