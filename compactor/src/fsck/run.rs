//! The check, step by step.
//!
//! 1. List everything under our prefixes. What is listed here was there before the log is read.
//! 2. Walk the log, every entry of it. Where it cannot be followed, that is all that can be said.
//! 3. Hold the folded logs, all names, and the months' locations against it.
//! 4. Each live file: its object, its bytes, its rows; two at a time. Then the removed files that are still there: what a compaction
//!    was made from, as long as anybody can look.
//! 5. What they come to together: keys that stand twice; what is kept beside the archive.
//! 6. A second look at what may have changed meanwhile: files that the log has removed since, an entry that has been finished since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, quarantine};

use super::file::{self, Standing, Subject};
use super::finding::{Finding, Findings, Kind};
use super::keys::Keys;
use super::tally::Allowed;
use super::{Checked, FsckError, Options, Report, aside, names};
use crate::archive::finish::Catalog;
use crate::bucket::{Listing, Objects};
use crate::history::{History, Origins, Problem, walk, walk::Wanted};
use crate::log::{AddedFile, Entry, LogStore, State, names as log_names};
use crate::progress::{Says, Work};
use crate::reconcile::Verdict;

/// Files that are checked at a time.
const AT_ONCE: usize = 2;
/// Most objects under one prefix.
const MAX_OBJECTS: usize = 4_000_000;
/// How long an entry that is being finished is waited for, and how often it is looked for in that time.
const FINISHING: (u32, Duration) = (4, Duration::from_secs(1));

/// Checks the archive in `objects`, and what its `catalog` shows, where there is one. `says` is told of each file.
pub async fn fsck<O: Objects>(
    objects: &O,
    host: &SharedHost,
    definition: &Arc<Definition>,
    catalog: Option<&dyn Catalog>,
    options: Options,
    says: &Says<'_>,
) -> Result<Report, FsckError> {
    let check = Check { objects, host, definition, catalog, options, says };
    let mut checked = Checked { month: options.month, deep: options.deep, ..Checked::default() };
    let mut findings = Findings::default();
    let stopped = check.all(&mut checked, &mut findings).await?;
    let verdict = match (findings.is_empty(), &stopped) {
        (false, _) => Verdict::Findings,
        (true, Some(_)) => Verdict::Undecided,
        (true, None) => Verdict::Clean,
    };
    let (findings, more) = findings.finish();
    Ok(Report { verdict, checked, findings, more, stopped, repair: Vec::new() })
}

struct Check<'c, O> {
    objects: &'c O,
    host: &'c SharedHost,
    definition: &'c Arc<Definition>,
    catalog: Option<&'c dyn Catalog>,
    options: Options,
    says: &'c Says<'c>,
}

/// What is under our prefixes: names and sizes.
struct Listed {
    events: BTreeMap<String, u64>,
    staged: BTreeMap<String, u64>,
    log: BTreeMap<String, u64>,
    states: BTreeMap<String, u64>,
}

impl<O: Objects> Check<'_, O> {
    /// All steps. Returns why the files were not looked at, if so.
    async fn all(&self, checked: &mut Checked, findings: &mut Findings) -> Result<Option<String>, FsckError> {
        (self.says)(Work::Step("listing the bucket"));
        let listed = Listed {
            staged: self.list(log_names::STAGING).await?,
            events: self.list(log_names::EVENTS).await?,
            states: self.list(log_names::STATE).await?,
            log: self.list(log_names::LOG).await?,
        };
        checked.objects = (listed.events.len() + listed.staged.len()) as u64;

        (self.says)(Work::Step("reading every entry of the log"));
        let state_numbers: Vec<u64> = listed.states.keys().filter_map(|name| log_names::state_number(name)).collect();
        let wanted = Wanted {
            last_listed: listed.log.keys().filter_map(|name| log_names::entry_number(name)).max(),
            folded: &state_numbers,
            removed: &|target| listed.events.contains_key(target),
        };
        let walked = walk(self.objects, self.host, &wanted).await?;
        let history = walked.history;
        checked.entries = history.state.next;
        findings.extend(walked.problems.iter().map(problem));
        findings.extend(listed.log.keys().chain(listed.states.keys()).filter_map(|name| names::numbered(name)));
        findings.extend(history.state.lost.iter().map(lost));
        if !walked.whole {
            return Ok(Some(format!(
                "the log can be followed to entry {} only; what is live cannot be said, so no file was looked at",
                history.state.next
            )));
        }
        checked.states = state_numbers.len() as u64;
        findings.extend(self.states(&walked.folded, &state_numbers).await?);
        self.definition(&history.state)?;

        (self.says)(Work::Step("holding the names of all objects against the log"));
        let now_ms = self.host.now_ms();
        let events = listed.events.keys().filter_map(|name| names::event(name, &history, now_ms));
        let staged = listed.staged.keys().filter_map(|name| names::staged(name, history.state.next));
        for finding in events.chain(staged) {
            // What a run has tidied away meanwhile is no finding.
            if self.objects.head(&finding.object).await?.is_some() {
                findings.add(finding);
            }
        }
        findings.extend(self.locations(&history.state).await?);
        self.files(&history, &listed, checked, findings).await?;
        self.aside(&history, checked, findings).await?;
        // A month that was misspelt would pass for clean.
        let unknown = self.options.month.filter(|month| !history.state.files.contains_key(month));
        Ok(unknown.map(|month| {
            format!("the log has no file of {month}, so none was looked at; recount usage lists the months")
        }))
    }

    async fn list(&self, prefix: &'static str) -> Result<BTreeMap<String, u64>, FsckError> {
        let (mut all, mut listing) = (BTreeMap::new(), Listing::new(self.objects, prefix));
        while let Some(page) = listing.next_page().await? {
            all.extend(page.into_iter().map(|listed| (listed.key, listed.meta.bytes)));
            if all.len() > MAX_OBJECTS {
                return Err(FsckError::TooMany { prefix, most: MAX_OBJECTS });
            }
        }
        Ok(all)
    }

    /// Each folded log must be the one that the entry behind it vouches for, and what the entries come to.
    async fn states(&self, folded: &[(u64, State)], numbers: &[u64]) -> Result<Vec<Finding>, FsckError> {
        let store = LogStore::new(self.objects.clone(), self.host.clone());
        let mut findings = Vec::new();
        for n in numbers {
            let name = log_names::state(*n);
            let Some((_, ours)) = folded.iter().find(|(of, _)| of == n) else {
                findings.push(Finding::new(Kind::State, name, "the log does not reach so far"));
                continue;
            };
            // The newest one waits for the entry that vouches for it; one in an older format is never read again.
            let Some(next) = store.bytes_of(n.saturating_add(1)).await? else { continue };
            let vouched = Entry::from_bytes(n.saturating_add(1), &next).is_ok_and(|entry| entry.folded.is_some());
            if !vouched || store.is_outdated(*n).await? {
                continue;
            }
            match store.kept_at(*n, &next).await? {
                Some(kept) if kept == *ours => {}
                Some(_) => findings.push(Finding::new(Kind::State, name, "it is not what the entries come to")),
                // Older ones are deleted as new ones come.
                None if self.objects.head(&name).await?.is_none() => {}
                None => findings.push(Finding::new(Kind::State, name, "it is not the one that the log vouches for")),
            }
        }
        Ok(findings)
    }

    fn definition(&self, state: &State) -> Result<(), FsckError> {
        let ours = self.definition.hash();
        match state.live().find(|live| live.definition != ours) {
            Some(live) => Err(FsckError::OtherDefinition {
                file: live.file.target.clone(),
                found: live.definition.clone(),
                ours: ours.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Each month with live files is shown at its version. One that was moved on meanwhile is looked at again.
    async fn locations(&self, state: &State) -> Result<Vec<Finding>, FsckError> {
        let Some(catalog) = self.catalog else { return Ok(Vec::new()) };
        (self.says)(Work::Step("holding the months' locations against the log"));
        let (tries, pause) = FINISHING;
        let store = LogStore::new(self.objects.clone(), self.host.clone());
        let mut state = state.clone();
        for attempt in 1.. {
            let mut wrong = Vec::new();
            for month in state.files.keys() {
                let shown = catalog.shown(*month).await.map_err(FsckError::Catalog)?;
                wrong.extend(names::location(*month, state.version(*month), shown.map(|shown| shown.version)));
            }
            if wrong.is_empty() || attempt >= tries {
                return Ok(wrong);
            }
            self.host.sleep(pause).await;
            store.catch_up(&mut state).await?;
        }
        Ok(Vec::new())
    }

    async fn files(
        &self,
        history: &History,
        listed: &Listed,
        checked: &mut Checked,
        findings: &mut Findings,
    ) -> Result<(), FsckError> {
        let of_month = |file: &AddedFile| self.options.month.is_none_or(|month| month == file.month);
        let live: Vec<&AddedFile> = history.state.live().map(|live| &live.file).filter(|file| of_month(file)).collect();
        let known = Arc::new(live.iter().map(|file| (file.sha256, file.target.clone())).collect::<HashMap<_, _>>());
        let anywhere = history.positions_up_to(history.state.next);
        let keys = Arc::new(Keys::default());
        let subject = |file: &AddedFile, allowed: Allowed, number: Option<u32>| Subject {
            objects: self.objects.clone(),
            listed: listed.events.get(&file.target).copied(),
            file: file.clone(),
            definition: Arc::clone(self.definition),
            allowed,
            deep: self.options.deep,
            keys: number.map(|number| (Arc::clone(&keys), number)),
            known: Arc::clone(&known),
        };
        let allowed = |target: &str| {
            let none = Origins::default();
            let origins = history.origins.get(target).map_or(&none, |origins| origins);
            let read = history.positions_of(&origins.read);
            Allowed { read, anywhere: (!origins.brought.is_empty()).then(|| anywhere.clone()) }
        };

        (self.says)(Work::Step(if self.options.deep { "making each row anew" } else { "checking the files" }));
        (self.says)(Work::Of(live.iter().map(|file| file.rows).sum(), "rows"));
        let mut second_look = Vec::new();
        let subjects =
            (0u32..).zip(&live).map(|(n, file)| tokio::spawn(check(subject(file, allowed(&file.target), Some(n)), n)));
        let mut results = futures::stream::iter(subjects).buffer_unordered(AT_ONCE);
        while let Some(ended) = results.next().await {
            let (n, done) =
                ended.map_err(|error| FsckError::BrokenOff { file: "a file".into(), why: error.to_string() })?;
            let (done, Some(file)) = (done?, usize::try_from(n).ok().and_then(|n| live.get(n))) else { continue };
            checked.files += 1;
            (self.says)(Work::Done(file.rows));
            checked.rows += done.rows;
            checked.bytes += done.bytes;
            findings.extend(done.findings);
            if done.standing != Standing::Published {
                second_look.push(((*file).clone(), done.standing));
            }
        }
        drop(results);

        // What a compaction was made from, as far as it is still there.
        let removed: Vec<_> = history.removed.values().filter(|removed| of_month(&removed.live.file)).collect();
        (self.says)(Work::Step("proving again what was compacted"));
        (self.says)(Work::Of(removed.len() as u64, "files"));
        for removed in removed {
            checked.removed += 1;
            (self.says)(Work::Done(1));
            let read = Allowed { read: anywhere.clone(), anywhere: Some(anywhere.clone()) };
            let done = subject(&removed.live.file, read, None).check().await?;
            checked.bytes += done.bytes;
            findings.extend(done.findings.into_iter().map(|finding| {
                let kind = finding.kind.as_str();
                let detail = format!("{kind}: {}; log entry {} removed it", finding.detail, removed.by);
                Finding::new(Kind::Compaction, finding.object, detail)
            }));
        }

        (self.says)(Work::Step("looking for event keys that stand twice"));
        let keys = Arc::into_inner(keys).ok_or_else(|| std::io::Error::other("the keys are still being written"))?;
        for twice in keys.twice()? {
            let twice = twice?;
            let name = |n: u32| usize::try_from(n).ok().and_then(|n| live.get(n)).map_or("?", |file| &file.target);
            let detail = match twice.one == twice.other {
                true => format!("event {} stands in it twice", twice.key),
                false => format!("event {} stands in it, and in {}", twice.key, name(twice.one)),
            };
            findings.add(Finding::new(Kind::Repeated, name(twice.other), detail));
        }
        self.second_look(&history.state, second_look, findings).await
    }

    /// Files that were not at their target: the log may have gone on, or an entry may have been finished since.
    async fn second_look(
        &self,
        state: &State,
        files: Vec<(AddedFile, Standing)>,
        findings: &mut Findings,
    ) -> Result<(), FsckError> {
        if files.is_empty() {
            return Ok(());
        }
        let (tries, pause) = FINISHING;
        let store = LogStore::new(self.objects.clone(), self.host.clone());
        let (mut state, mut left) = (state.clone(), files);
        for attempt in 0..tries {
            store.catch_up(&mut state).await?;
            let mut still = Vec::new();
            for (file, standing) in left {
                let removed = state.find(&file.target).is_none();
                let there = !removed && self.objects.head(&file.target).await?.is_some();
                match standing {
                    _ if removed => {}
                    Standing::Gone if there => {
                        let detail = "it was not there, or changed while it was read, and is there now; check again";
                        findings.add(Finding::new(Kind::Missing, &file.target, detail));
                    }
                    _ if there => {}
                    _ => still.push((file, standing)),
                }
            }
            left = still;
            if left.iter().all(|(_, standing)| *standing == Standing::Gone) {
                break;
            }
            if attempt + 1 < tries {
                self.host.sleep(pause).await;
            }
        }
        findings.extend(left.iter().map(|(file, standing)| match standing {
            Standing::Unpublished => {
                Finding::new(Kind::Unpublished, &file.target, format!("it is at {} only", file.source))
            }
            _ => Finding::new(Kind::Missing, &file.target, format!("neither it nor {} is there", file.source)),
        }));
        Ok(())
    }

    async fn aside(&self, history: &History, checked: &mut Checked, findings: &mut Findings) -> Result<(), FsckError> {
        (self.says)(Work::Step("holding quarantine and conflicts against the log"));
        let (quarantined, foreign) = aside::places(self.objects, quarantine::PREFIX).await?;
        findings.extend(foreign);
        let (conflicts, foreign) = aside::places(self.objects, quarantine::CONFLICTS_PREFIX).await?;
        findings.extend(foreign);
        (checked.quarantined, checked.conflicts) = (quarantined.len() as u64, conflicts.len() as u64);
        findings.extend(aside::short(history, &quarantined, &conflicts));
        if self.options.deep {
            findings.extend(aside::read_all(self.objects, &quarantined, quarantine::object_key).await?);
            findings.extend(aside::read_all(self.objects, &conflicts, quarantine::conflict_key).await?);
        }
        Ok(())
    }
}

async fn check<O: Objects>(subject: Subject<O>, n: u32) -> (u32, Result<file::Checked, FsckError>) {
    (n, subject.check().await)
}

fn problem(problem: &Problem) -> Finding {
    match problem {
        Problem::Changed { n, broken } => {
            let after = match broken {
                Some(why) => format!("; behind it the log cannot be followed: {why}"),
                None => String::new(),
            };
            let detail = format!("entry {} was put after another one{after}", n + 1);
            Finding::new(Kind::LogChanged, log_names::entry(*n), detail)
        }
        Problem::Missing { n } => {
            Finding::new(Kind::LogMissing, log_names::entry(*n), "it is not there, and later ones are")
        }
        Problem::Invalid { n, why } => Finding::new(Kind::LogInvalid, log_names::entry(*n), why),
    }
}

fn lost(hole: &crate::log::state::Hole) -> Finding {
    let number = |n: &Option<recount_schemas::SequenceNumber>, or: &str| match n {
        Some(n) => n.to_string(),
        None => or.to_owned(),
    };
    let detail = format!(
        "stream {} may have dropped records of shard {} behind {} and before {}",
        hole.stream.arn,
        hole.shard,
        number(&hole.lost.after, "its beginning"),
        number(&hole.lost.before, "its end")
    );
    Finding::new(Kind::Lost, log_names::entry(hole.n), detail)
}
