//! An archive whose definition omits attributes: what is kept, what is still found out, who knows about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use recount_schemas::Definition;
use recount_schemas::host::{Deadline, SharedHost};

use super::rebuild::{COLUMNS, Rebuilder};
use super::testing::{NOVEMBER, record};
use crate::archive::memory_stream::MemoryStream;
use crate::archive::{ArchiveReport, Archiver, Limits, Until};
use crate::audit::run::omitted;
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::fsck::{Options, fsck};
use crate::items::read::changes;
use crate::items::{State, Unnamed};
use crate::log::{LogStore, names};
use crate::reconcile::Verdict;
use crate::testing::TestHost;

const TEXT: &str = "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\nsum=['bytes']\n";

fn definition(fold: &str, archive: &str) -> Arc<Definition> {
    Arc::new(Definition::parse(&format!("{TEXT}{fold}\n[archive]\n{archive}\n"), "recount.toml").unwrap())
}

fn with_mail(id: &str, mail: &str) -> String {
    record(id, Some("acme"), NOVEMBER, "7").replace(r#""bytes":"#, &format!(r#""mail":{{"S":"{mail}"}},"bytes":"#))
}

struct World {
    objects: Memory,
    stream: MemoryStream,
    host: Arc<TestHost>,
}

impl World {
    fn new() -> Self {
        let host = Arc::new(TestHost::at(NOVEMBER + 100_000_000_000, 7));
        Self { objects: Memory::new(), stream: MemoryStream::new(host.clone()), host }
    }

    fn put(&self, text: &str) {
        self.stream.put(&self.stream.open_shards()[0], text);
    }

    async fn archive(&self, definition: &Arc<Definition>) -> ArchiveReport {
        let archiver =
            Archiver::new(self.objects.clone(), self.stream.clone(), Arc::clone(definition), self.host.clone());
        archiver.with_limits(Limits::default().unpaced()).run(Until::Tip, Deadline::NONE).await.unwrap()
    }

    async fn log(&self) -> crate::log::State {
        LogStore::new(self.objects.clone(), self.host.clone()).read_to_head().await.unwrap()
    }

    /// The archived images, and whether any object but the kept records holds the text.
    fn holds(&self, text: &str) -> bool {
        let files = self.objects.keys(names::EVENTS);
        files.iter().any(|name| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(self.objects.bytes(name).unwrap()).unwrap();
            reader.build().unwrap().any(|batch| format!("{:?}", batch.unwrap()).contains(text))
        })
    }

    async fn deep(&self, definition: &Arc<Definition>) -> crate::fsck::Report {
        let host: SharedHost = self.host.clone();
        fsck(&self.objects, &host, definition, None, Options { deep: true, month: None }, &|_| {}).await.unwrap()
    }
}

#[tokio::test]
async fn omitted_attributes_are_not_archived_and_conflicts_in_them_are_still_found() {
    for fold in ["", "count='net'", "identity='change'"] {
        let (world, definition) = (World::new(), definition(fold, "omit=['mail','phone']"));
        world.put(&with_mail("a", "a@example.org"));
        world.put(&record("b", Some("acme"), NOVEMBER, "1"));
        assert_eq!(world.archive(&definition).await.rows, 2, "{fold}");
        assert!(!world.holds("example.org") && world.holds("bytes"), "{fold}");
        // The same again, and with another value in just that attribute.
        world.put(&with_mail("a", "a@example.org"));
        world.put(&with_mail("a", "other@example.org"));
        let report = world.archive(&definition).await;
        let expected = if fold.contains("identity") { (1, 0, 1) } else { (1, 1, 0) };
        assert_eq!((report.duplicates, report.conflicts, report.rows), expected, "{fold}");
        assert!(!world.holds("example.org"), "{fold}");
        assert_eq!(world.deep(&definition).await.findings, vec![], "{fold}");

        // A row that lacks something gives no whole record; one that has none of these attributes does.
        let (mut whole, mut lacking) = (0, 0);
        for live in world.log().await.live() {
            let batches: Vec<_> = super::read(&world.objects, &live.file, &COLUMNS).try_collect().await.unwrap();
            for batch in batches {
                let rows = Rebuilder::new(&batch, "f".into()).unwrap();
                for i in 0..rows.len() {
                    match rows.rebuild(i).unwrap().record {
                        Some(_) => whole += 1,
                        None => lacking += 1,
                    }
                }
            }
        }
        assert_eq!((whole, lacking), (1, 1 + report.rows), "{fold}");
    }
}

/// What is omitted can be changed at any time: each row says what it lacks, and the log is the same definition's.
#[tokio::test]
async fn rows_of_before_and_after_the_omission_stand_side_by_side() {
    let world = World::new();
    let (before, during, after) = (definition("", ""), definition("", "omit=['mail']"), definition("", ""));
    world.put(&with_mail("a", "a@example.org"));
    world.archive(&before).await;
    world.put(&with_mail("b", "b@example.org"));
    world.archive(&during).await;
    world.put(&with_mail("c", "c@example.org"));
    world.archive(&after).await;
    assert_eq!(["a@", "b@", "c@"].map(|mail| world.holds(mail)), [true, false, true]);
    for definition in [&during, &after] {
        assert_eq!(world.deep(definition).await.verdict, Verdict::Clean);
        let log = world.log().await;
        let files: Vec<_> = log.live().map(|live| live.file.clone()).collect();
        let (mut states, mut unnamed) = (BTreeMap::new(), Unnamed::default());
        let take = |change: crate::items::Change| {
            states.insert(change.item.clone(), change.state);
            Ok(())
        };
        changes(&world.objects, definition, &files, &omitted(definition), &mut unnamed, take).await.unwrap();
        // With what is compared, the archive has all of it; of what it lacks it says nothing.
        let known: Vec<bool> = states.values().map(|state| matches!(state, State::Image(_))).collect();
        assert_eq!(known, [true, !definition.archive.omit.is_empty(), true]);
        assert!(!states.values().any(|state| *state == State::Absent));
    }
}

/// Only what a row says that it lacks may be missing from it.
#[tokio::test]
async fn fsck_finds_a_row_that_lacks_more_than_it_says() {
    use super::row::Place;
    use super::{ArchivedRow, write};
    let definition = definition("", "omit=['mail']");
    let text = with_mail("a", "a@example.org").replace(r#""bytes":"#, r#""other":{"S":"x"},"bytes":"#);
    let judged = definition.judge(text.as_bytes(), NOVEMBER).unwrap();
    let place = Place { shard: "s0".parse().unwrap(), sequence: "1".parse().unwrap(), arrived_us: NOVEMBER };
    let row = ArchivedRow::new(&definition, &judged, judged.change.content_hash().0, &text, place);
    let image = row.new_image.clone().unwrap();
    let spoilt = ArchivedRow { new_image: Some(image.replace(r#""S":"x""#, r#""S":"y""#)), ..row.clone() };
    for (row, clean) in [(row, true), (spoilt, false)] {
        let world = World::new();
        world.put(&text);
        world.archive(&definition).await;
        // The same file with this row, and the entry that says so.
        let n = world.log().await.next - 1;
        let name = names::entry(n);
        let mut entry = crate::log::Entry::from_bytes(n, &world.objects.bytes(&name).unwrap()).unwrap();
        let file = entry.added[0].clone();
        let place = Place { sequence: entry.ranges[0].to.clone().unwrap(), ..row.place.clone() };
        let written = write(&definition, row.month, vec![ArchivedRow { place, ..row }]).unwrap().unwrap();
        entry.added[0] = written.added(file.source.clone(), file.target.clone());
        world.objects.put(&file.target, written.bytes.clone()).await.unwrap();
        world.objects.put(&name, entry.to_bytes().unwrap().into()).await.unwrap();
        let report = world.deep(&definition).await;
        assert_eq!(report.findings.is_empty(), clean, "{:?}", report.findings);
        assert!(clean || report.findings[0].detail.contains("content_hash"), "{:?}", report.findings);
    }
}
