//! Each kind of damage, planted in an archive in memory that a real run made.

use std::sync::Arc;

use bytes::Bytes;
use recount_schemas::host::{Deadline, Host, SharedHost};
use recount_schemas::{Definition, quarantine};

use super::*;
use crate::archive::memory_stream::MemoryStream;
use crate::archive::{Archiver, Limits, Until};
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::log::{AddedFile, Digest, Entry, LogStore, State, names as log_names};
use crate::rows::testing::{NOVEMBER, definition, record, row};
use crate::testing::TestHost;

const DAY_US: i64 = 86_400_000_000;

/// An archive made by a few runs over records of two months.
struct World {
    objects: Memory,
    stream: MemoryStream,
    host: Arc<TestHost>,
    definition: Arc<Definition>,
}

impl World {
    async fn new() -> Self {
        let host = Arc::new(TestHost::at(NOVEMBER + 40 * DAY_US, 7));
        let stream = MemoryStream::new(host.clone());
        let world = Self { objects: Memory::new(), stream, host, definition: Arc::new(definition()) };
        for round in 0..4i64 {
            let shard = "s0".parse().unwrap();
            for i in 0..6i64 {
                let created_us = NOVEMBER + (i % 2) * 31 * DAY_US + round * 60_000_000 + i;
                let group = ["acme", "globex"][usize::try_from(i % 2).unwrap()];
                world.stream.put(&shard, &record(&format!("e{round}-{i}"), Some(group), created_us, "3"));
            }
            if round == 1 {
                world.stream.put(&shard, "no record");
                // A variant of an event of the first round.
                world.stream.put(&shard, &record("e0-0", Some("acme"), NOVEMBER, "4"));
            }
            world.archive().await;
        }
        world
    }

    async fn archive(&self) {
        let host: SharedHost = self.host.clone();
        let archiver = Archiver::new(self.objects.clone(), self.stream.clone(), Arc::clone(&self.definition), host);
        let limits = Limits { page_records: 3, ..Limits::default().unpaced() };
        assert!(archiver.with_limits(limits).run(Until::Tip, Deadline::NONE).await.unwrap().reached_tip);
    }

    async fn check(&self, options: Options) -> Report {
        let host: SharedHost = self.host.clone();
        fsck(&self.objects, &host, &self.definition, None, options, &|_| {}).await.unwrap()
    }

    /// The findings, as (kind, object), the same deep or not.
    async fn found(&self) -> Vec<(Kind, String)> {
        let of = |report: Report| report.findings.into_iter().map(|f| (f.kind, f.object)).collect::<Vec<_>>();
        let plain = of(self.check(Options::default()).await);
        assert_eq!(of(self.check(Options { deep: true, month: None }).await), plain);
        plain
    }

    async fn state(&self) -> State {
        let host: SharedHost = self.host.clone();
        LogStore::new(self.objects.clone(), host).read_whole().await.unwrap()
    }

    async fn live(&self) -> Vec<AddedFile> {
        self.state().await.live().map(|live| live.file.clone()).collect()
    }

    fn bytes(&self, key: &str) -> Bytes {
        self.objects.bytes(key).unwrap()
    }

    async fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.objects.put(key, bytes.into()).await.unwrap();
    }

    /// Changes the last entry, which nobody vouches for, and the object of its first file.
    async fn forge(&self, change: impl FnOnce(&mut Entry)) {
        let n = self.state().await.next - 1;
        let mut entry = Entry::from_bytes(n, &self.bytes(&log_names::entry(n))).unwrap();
        change(&mut entry);
        self.put(&log_names::entry(n), entry.to_bytes().unwrap()).await;
    }
}

#[tokio::test]
async fn invariant_8_an_undamaged_archive_is_clean() {
    let world = World::new().await;
    for options in [Options::default(), Options { deep: true, month: None }] {
        let report = world.check(options).await;
        assert_eq!((report.verdict, &report.findings), (Verdict::Clean, &vec![]));
        assert_eq!((report.checked.rows, report.checked.quarantined, report.checked.conflicts), (24, 1, 1));
        assert_eq!(report.checked.files, world.live().await.len() as u64);
    }
    let month = Some("2026-12".parse().unwrap());
    let report = world.check(Options { month, deep: false }).await;
    assert_eq!((report.verdict, report.checked.rows), (Verdict::Clean, 12));
    let nothing = World { objects: Memory::new(), ..world };
    assert_eq!(nothing.check(Options::default()).await.verdict, Verdict::Clean);
}

#[tokio::test]
async fn invariant_8_damaged_files_are_named_and_nothing_else_is() {
    for (kind, damage) in [(Kind::Missing, 0), (Kind::Size, 1), (Kind::Digest, 2), (Kind::Unpublished, 3)] {
        let world = World::new().await;
        let file = world.live().await.swap_remove(1);
        let bytes = world.bytes(&file.target);
        match damage {
            0 => world.objects.delete(&file.target).await.unwrap(),
            1 => world.put(&file.target, bytes.slice(1..)).await,
            2 => {
                let mut bytes = bytes.to_vec();
                bytes[20] ^= 1;
                world.put(&file.target, bytes).await;
            }
            _ => {
                world.put(&file.source, bytes).await;
                world.objects.delete(&file.target).await.unwrap();
            }
        }
        assert_eq!(world.found().await, [(kind, file.target)]);
    }
}

#[tokio::test]
async fn two_files_in_each_others_place_are_told_by_what_they_hold() {
    let world = World::new().await;
    let files = world.live().await;
    let one = &files[0];
    let other = files.iter().find(|f| f.bytes == one.bytes && f.target != one.target).unwrap_or(&files[1]).clone();
    let (a, b) = (world.bytes(&one.target), world.bytes(&other.target));
    world.put(&one.target, b).await;
    world.put(&other.target, a).await;
    let report = world.check(Options::default()).await;
    let objects: Vec<&str> = report.findings.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(report.findings.len(), 2);
    assert!(objects.contains(&one.target.as_str()) && objects.contains(&other.target.as_str()));
    for finding in report.findings.iter().filter(|f| f.kind == Kind::Digest) {
        assert!(finding.detail.contains("these are the bytes of events/"), "{}", finding.detail);
    }
}

#[tokio::test]
async fn foreign_names_leftovers_and_orphans_are_told_apart() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for name in [
        "events/x",
        "events/month=2026-11/000000000000/000000000000-7.parquet",
        "events/month=2026-11/000000000000/000000000900-0.parquet",
        "_staging/x",
        "_staging/000000000900-ab/0",
        "_log/x.json",
        "_state/x.json",
        "quarantine/x",
        "conflicts/a/b",
    ] {
        world.put(name, "x").await;
        expected.push((Kind::Foreign, name.to_owned()));
    }
    // An upload whose window is still open.
    let entries = world.state().await.next;
    world.put(&log_names::staged(entries, "ab", 0), "x").await;
    expected.sort();
    assert_eq!(world.found().await, expected);
}

#[tokio::test]
async fn an_orphan_is_deleted_and_an_unpublished_commit_is_finished_when_that_is_confirmed() {
    let world = World::new().await;
    let host: SharedHost = world.host.clone();
    let last = world.state().await.last.unwrap().added[0].clone();
    // Renewals take the log past the window of an upload; the last entry is made to add a file again.
    let orphan = log_names::staged(0, "ab", 0);
    world.renew_until(crate::log::state::WINDOW).await;
    world.stream.put(&"s0".parse().unwrap(), &record("late", Some("acme"), NOVEMBER + 5, "3"));
    world.archive().await;
    let file = world.state().await.last.unwrap().added[0].clone();
    assert_ne!(file, last);
    world.put(&orphan, "x").await;
    world.put(&file.source, world.bytes(&file.target)).await;
    world.objects.delete(&file.target).await.unwrap();

    let damaged = [(Kind::Unpublished, file.target.clone()), (Kind::Orphan, orphan.clone())];
    assert_eq!(world.found().await, damaged);
    let report = world.check(Options::default()).await;
    let steps = mend(&world.objects, &host, None, &report, false).await.unwrap();
    assert_eq!(
        steps,
        [
            Step { action: mend::Action::Publish, object: file.target.clone() },
            Step { action: mend::Action::Delete, object: orphan }
        ]
    );
    assert_eq!(world.found().await, damaged, "nothing was changed");
    assert_eq!(mend(&world.objects, &host, None, &report, true).await.unwrap(), steps);
    assert_eq!(world.found().await, []);
    let clean = world.check(Options::default()).await;
    assert_eq!(
        mend(&world.objects, &host, None, &clean, true).await.unwrap(),
        [],
        "a second time there is nothing to do"
    );
}

#[tokio::test]
async fn a_changed_entry_is_named_and_a_missing_one_ends_the_check() {
    let world = World::new().await;
    let name = log_names::entry(1);
    let original = world.bytes(&name);
    let mut entry = Entry::from_bytes(1, &original).unwrap();
    entry.at_ms += 1;
    world.put(&name, entry.to_bytes().unwrap()).await;
    assert_eq!(world.found().await, [(Kind::LogChanged, name.clone())]);
    // What it says of its own place is no other entry's fault.
    entry.previous = Some(Digest::of(b"x"));
    world.put(&name, entry.to_bytes().unwrap()).await;
    assert_eq!(world.found().await, [(Kind::LogChanged, name.clone())]);
    // A change that the next entry cannot follow.
    let mut entry = Entry::from_bytes(1, &original).unwrap();
    entry.ranges[0].to = Some("999".parse().unwrap());
    world.put(&name, entry.to_bytes().unwrap()).await;
    let report = world.check(Options::default()).await;
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!((report.findings[0].kind, &report.findings[0].object), (Kind::LogChanged, &name));
    assert!(report.stopped.is_some() && report.checked.files == 0);

    world.put(&name, "{").await;
    assert_eq!(world.found().await, [(Kind::LogInvalid, name.clone())]);
    world.objects.delete(&name).await.unwrap();
    assert_eq!(world.found().await, [(Kind::LogMissing, name.clone())]);
    let host: SharedHost = world.host.clone();
    let report = world.check(Options::default()).await;
    assert_eq!(mend(&world.objects, &host, None, &report, true).await.unwrap(), []);
    world.put(&name, original).await;
    assert_eq!(world.found().await, []);
}

#[tokio::test]
async fn a_log_that_was_cut_off_shows_in_the_files_that_it_named() {
    let world = World::new().await;
    let last = world.state().await.last.unwrap();
    assert!(!last.added.is_empty());
    world.objects.delete(&log_names::entry(last.n)).await.unwrap();
    let report = world.check(Options::default()).await;
    let objects: Vec<&str> = report.findings.iter().map(|f| f.object.as_str()).collect();
    let named: Vec<&str> = last.added.iter().map(|file| file.target.as_str()).collect();
    assert_eq!(objects, named);
    assert!(report.findings.iter().all(|f| f.kind == Kind::Foreign && f.detail.contains("cut off")));
}

#[tokio::test]
async fn records_that_the_log_counted_aside_are_missed() {
    let world = World::new().await;
    for (prefix, kind) in [(quarantine::PREFIX, Kind::Quarantine), (quarantine::CONFLICTS_PREFIX, Kind::Conflict)] {
        let name = world.objects.keys(prefix).swap_remove(0);
        let bytes = world.bytes(&name);
        world.objects.delete(&name).await.unwrap();
        assert_eq!(world.found().await, [(kind, format!("{prefix}s0/"))]);
        // Deep, what such an object holds is looked at as well.
        for bad in [&b"{}"[..], &bytes[..bytes.len() - 2]] {
            world.put(&name, bad.to_vec()).await;
            assert_eq!(world.check(Options::default()).await.verdict, Verdict::Clean);
            let deep = world.check(Options { deep: true, month: None }).await;
            assert_eq!(deep.findings.iter().map(|f| (f.kind, &f.object)).collect::<Vec<_>>(), [(Kind::Aside, &name)]);
        }
        world.put(&name, bytes).await;
    }
    // One that was not archived yet, and the relay's, are in no range.
    for name in ["quarantine/s0/999999", "quarantine/relay-ab-cd/7"] {
        world.put(name, world.bytes(&world.objects.keys("quarantine/s0")[0])).await;
    }
    assert_eq!(world.check(Options::default()).await.verdict, Verdict::Clean);
}

/// A last entry with one file, made anew from these rows; everything that the log says is consistent.
async fn forged(rows: Vec<crate::rows::ArchivedRow>, change: impl FnOnce(&mut AddedFile)) -> (World, String) {
    let world = World::new().await;
    let file = world.state().await.last.unwrap().added[0].clone();
    let month = file.month;
    let count = rows.len() as u64;
    let written = crate::rows::write(&world.definition, month, rows).unwrap().unwrap();
    world.put(&file.target, written.bytes.clone()).await;
    let mut added = written.added(file.source.clone(), file.target.clone());
    change(&mut added);
    let target = added.target.clone();
    world
        .forge(|entry| {
            let before: u64 = entry.added[0].rows;
            entry.added[0] = added;
            let range = &mut entry.ranges[0];
            range.rows = range.rows - before + count;
            range.records = range.rows + range.duplicates + range.conflicts + range.quarantined;
        })
        .await;
    (world, target)
}

/// Rows that the last round's November file has, as it has them.
async fn last_rows() -> Vec<crate::rows::ArchivedRow> {
    let world = World::new().await;
    let last = world.state().await.last.unwrap();
    let range = &last.ranges[0];
    let sequence: u64 = range.to.as_ref().unwrap().as_str().parse().unwrap();
    (0..3u64)
        .map(|i| {
            let mut row = row(&format!("f{i}"), Some("acme"), NOVEMBER + 7_000_000 + i as i64, "3");
            row.place.shard = range.shard.clone();
            row.place.sequence = (sequence - i).to_string().parse().unwrap();
            row
        })
        .collect()
}

#[tokio::test]
async fn a_consistent_forgery_of_rows_is_clean_so_the_next_test_can_fail() {
    let (world, _) = forged(last_rows().await, |_| {}).await;
    assert_eq!(world.found().await, []);
}

#[tokio::test]
async fn invariant_8_what_the_log_says_of_rows_is_held_against_the_rows() {
    type Change = fn(&mut AddedFile);
    let changes: [(Kind, Change); 5] = [
        (Kind::KeyRange, |file| file.first_key = recount_schemas::EventKey::MIN),
        (Kind::KeyRange, |file| file.last_key = recount_schemas::EventKey::MAX),
        (Kind::GroupRange, |file| file.last_group = Some("zz".into())),
        (Kind::GroupRange, |file| file.first_group = None),
        (Kind::Fingerprint, |file| file.fingerprint.hash ^= 1),
    ];
    for (kind, change) in changes {
        let (world, target) = forged(last_rows().await, change).await;
        assert_eq!(world.found().await, [(kind, target)]);
    }
    let (world, target) = forged(last_rows().await, |file| {
        let sum = file.fingerprint.sums.values_mut().next().unwrap();
        *sum = sum.checked_add(*sum).unwrap();
    })
    .await;
    assert_eq!(world.found().await, [(Kind::Fingerprint, target)]);
    let (world, target) = forged(last_rows().await, |file| {
        file.sha256 = Digest::of(b"x");
        file.bytes = 1;
    })
    .await;
    world.put(&target, "x").await;
    assert_eq!(world.found().await, [(Kind::Unreadable, target)]);
}

#[tokio::test]
async fn invariant_8_rows_that_stand_where_nobody_read_are_named() {
    let mut rows = last_rows().await;
    rows[1].place.sequence = "1".parse().unwrap();
    let (world, target) = forged(rows, |_| {}).await;
    assert_eq!(world.found().await, [(Kind::Position, target)]);
    let mut rows = last_rows().await;
    rows[1].place.shard = "s7".parse().unwrap();
    let (world, target) = forged(rows, |_| {}).await;
    assert_eq!(world.found().await, [(Kind::Position, target)]);
}

#[tokio::test]
async fn invariant_6_a_row_that_stands_in_another_file_too_is_named() {
    let mut rows = last_rows().await;
    let twin = row("e0-0", Some("acme"), NOVEMBER, "3");
    rows[0] = crate::rows::ArchivedRow { place: rows[0].place.clone(), ..twin };
    let (world, target) = forged(rows, |_| {}).await;
    let report = world.check(Options::default()).await;
    assert_eq!(world.found().await, [(Kind::Repeated, target)]);
    assert!(report.findings[0].detail.contains("000000000000-0.parquet"), "{report:?}");
}

#[tokio::test]
async fn deep_a_row_that_its_own_record_does_not_give_is_named() {
    let changes: [fn(&mut crate::rows::ArchivedRow); 5] = [
        |row| row.class = "modify",
        |row| row.occurred_us += 1,
        |row| row.created_us += 1,
        |row| row.event_id.push('x'),
        |row| row.new_image = Some(row.new_image.take().unwrap().replace("\"3\"", "\"4\"")),
    ];
    for change in changes {
        let mut rows = last_rows().await;
        change(&mut rows[2]);
        let (world, target) = forged(rows, |_| {}).await;
        assert_eq!(world.check(Options::default()).await.verdict, Verdict::Clean);
        let deep = world.check(Options { deep: true, month: None }).await;
        assert_eq!(deep.findings.iter().map(|f| (f.kind, &f.object)).collect::<Vec<_>>(), [(Kind::Row, &target)]);
    }
}

#[tokio::test]
async fn another_definition_is_refused_and_says_of_which_file() {
    let world = World::new().await;
    let host: SharedHost = world.host.clone();
    let other = Arc::new(crate::rows::testing::definition_of("other"));
    let refused = fsck(&world.objects, &host, &other, None, Options::default(), &|_| {}).await;
    assert!(matches!(refused, Err(FsckError::OtherDefinition { .. })));
}

impl World {
    /// Lets hours pass, with a run in each, until the log has so many entries.
    async fn renew_until(&self, entries: u64) {
        while self.state().await.next < entries {
            self.host.pass(std::time::Duration::from_secs(3_700));
            self.archive().await;
        }
    }

    /// Gives a month a new version whose files are copies of the old ones, which stay. Returns the old names.
    async fn compact(&self, month: recount_schemas::Month) -> Vec<String> {
        let state = self.state().await;
        let n = state.next;
        let files: Vec<AddedFile> = state.live().map(|l| l.file.clone()).filter(|f| f.month == month).collect();
        let mut added = Vec::new();
        for (i, file) in files.iter().enumerate() {
            let target = log_names::target(month, n, n, i);
            self.put(&target, self.bytes(&file.target)).await;
            added.push(AddedFile { source: file.target.clone(), target, ..file.clone() });
        }
        let removed: Vec<String> = files.into_iter().map(|file| file.target).collect();
        let entry = Entry {
            n,
            kind: crate::log::Kind::Compaction,
            previous: state.head,
            at_ms: self.host.now_ms(),
            base: n,
            folded: None,
            stream: None,
            retention_hours: None,
            ranges: vec![],
            added,
            removed: removed.clone(),
            versions: [(month, n)].into(),
            ..state.last.unwrap()
        };
        self.put(&log_names::entry(n), entry.to_bytes().unwrap()).await;
        removed
    }
}

#[tokio::test]
async fn invariant_7_a_compaction_is_proven_again_as_long_as_its_inputs_are_there_and_they_are_not_forgotten() {
    let world = World::new().await;
    let removed = world.compact("2026-11".parse().unwrap()).await;
    let report = world.check(Options { deep: true, month: None }).await;
    assert_eq!((&report.findings, report.checked.removed, report.checked.rows), (&vec![], removed.len() as u64, 24));
    let original = world.bytes(&removed[0]);
    let mut bytes = original.to_vec();
    bytes[9] ^= 1;
    world.put(&removed[0], bytes).await;
    assert_eq!(world.found().await, [(Kind::Compaction, removed[0].clone())]);
    world.put(&removed[0], original).await;
    world.host.pass(names::FORGOTTEN);
    assert_eq!(world.found().await, []);
    world.host.pass(std::time::Duration::from_secs(1));
    let leftover: Vec<_> = removed.iter().map(|name| (Kind::Leftover, name.clone())).collect();
    assert_eq!(world.found().await, leftover);
    for name in &removed {
        world.objects.delete(name).await.unwrap();
    }
    assert_eq!(world.found().await, []);
    // Rows of the new version stand where the entries read them that brought the old one.
    let live = world.live().await;
    world.objects.delete(&live[0].target).await.unwrap();
    assert_eq!(world.found().await, [(Kind::Missing, live[0].target.clone())]);
}

#[tokio::test]
async fn a_folded_log_is_held_against_the_entries_and_what_they_vouch_for() {
    let world = World::new().await;
    world.renew_until(102).await;
    let name = log_names::state(100);
    let report = world.check(Options::default()).await;
    assert_eq!((report.findings, report.checked.states), (vec![], 1));
    let original = world.bytes(&name);
    let text = String::from_utf8(original.to_vec()).unwrap();
    for bad in [text.replace("\"next\":101", "\"next\":100"), "{}".to_owned(), String::new()] {
        world.put(&name, bad).await;
        assert_eq!(world.found().await, [(Kind::State, name.clone())]);
    }
    // One in an older format is never read.
    world.put(&name, r#"{"format":1}"#).await;
    assert_eq!(world.found().await, []);
    world.put(&name, original.clone()).await;
    let beyond = log_names::state(900);
    world.put(&beyond, original).await;
    assert_eq!(world.found().await, [(Kind::State, beyond)]);
}

#[tokio::test]
async fn what_the_stream_dropped_is_a_finding_for_ever() {
    let world = World::new().await;
    world.host.pass(std::time::Duration::from_secs(72 * 3_600));
    world.stream.put(&"s0".parse().unwrap(), &record("after", Some("acme"), NOVEMBER + 5, "3"));
    world.archive().await;
    let n = world.state().await.lost[0].n;
    assert_eq!(world.found().await, [(Kind::Lost, log_names::entry(n))]);
    world.renew_until(n + 3).await;
    assert_eq!(world.found().await, [(Kind::Lost, log_names::entry(n))]);
}

#[tokio::test]
async fn a_commit_that_comes_while_files_are_checked_is_no_finding() {
    let world = World::new().await;
    // The listing is old by the time that the files are looked at: a compaction has removed them, and they are deleted.
    let file = world.live().await.swap_remove(0);
    let subject = file::Subject {
        objects: world.objects.clone(),
        listed: Some(file.bytes),
        file: file.clone(),
        definition: Arc::clone(&world.definition),
        allowed: tally::Allowed::default(),
        deep: false,
        keys: None,
        known: Arc::default(),
    };
    world.objects.delete(&file.target).await.unwrap();
    let checked = subject.check().await.unwrap();
    assert_eq!((checked.standing, checked.findings), (file::Standing::Gone, vec![]));
}

/// A catalog that shows what it is told to, and places nothing.
#[derive(Debug)]
struct Shows(std::collections::BTreeMap<recount_schemas::Month, u64>);

impl crate::archive::finish::Catalog for Shows {
    fn name(&self) -> String {
        "Shows".to_owned()
    }

    fn place<'c>(
        &'c self,
        _: &'c State,
        _: &'c std::collections::BTreeSet<recount_schemas::Month>,
    ) -> futures::future::BoxFuture<'c, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn shown(
        &self,
        month: recount_schemas::Month,
    ) -> futures::future::BoxFuture<'_, Result<Option<crate::archive::finish::Shown>, String>> {
        let shown = self.0.get(&month).map(|version| crate::archive::finish::Shown::first(*version, 0));
        Box::pin(std::future::ready(Ok(shown)))
    }
}

#[tokio::test]
async fn a_month_that_its_catalog_does_not_show_as_the_log_has_it_is_named() {
    let world = World::new().await;
    let (november, december) = ("2026-11".parse().unwrap(), "2026-12".parse().unwrap());
    world.compact(november).await;
    let version = world.state().await.version(november);
    let host: SharedHost = world.host.clone();
    for (shown, wrong) in [
        (vec![(november, version), (december, 0)], vec![]),
        (vec![(november, 0), (december, 0)], vec!["events/month=2026-11/"]),
        (vec![(november, version)], vec!["events/month=2026-12/"]),
    ] {
        let catalog = Shows(shown.into_iter().collect());
        let options = Options::default();
        let report = fsck(&world.objects, &host, &world.definition, Some(&catalog), options, &|_| {}).await.unwrap();
        let objects: Vec<_> = report.findings.iter().map(|f| (f.kind, f.object.as_str())).collect();
        assert_eq!(objects, wrong.into_iter().map(|object| (Kind::Location, object)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_month_of_which_the_log_knows_nothing_is_not_clean() {
    let world = World::new().await;
    let of = |month: &str| Options { month: month.parse().ok(), deep: false };
    let report = world.check(of("2026-11")).await;
    assert_eq!((report.verdict, report.stopped), (Verdict::Clean, None));
    let report = world.check(of("2020-11")).await;
    assert_eq!((report.verdict, report.checked.files), (Verdict::Undecided, 0));
    insta::assert_snapshot!(report.stopped.unwrap(), @"the log has no file of 2020-11, so none was looked at; recount usage lists the months");
}
