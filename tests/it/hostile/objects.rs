//! Objects in the bucket that something else put there, and ours changed.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::ByteStream;
use recount_compactor::archive::ArchiveReport;
use recount_compactor::contributions::Scope;
use recount_compactor::explain::explain;
use recount_compactor::recompute::recompute;
use recount_compactor::reconcile::{Verdict, reconcile};
use recount_compactor::repair::{fetch, repair};
use recount_schemas::Cell;

use crate::support::checks::objects;
use crate::support::naive::{self, Scan};
use crate::support::records::{Change, change};
use crate::support::world::{World, definition, monthly, options};

/// An instant in November 2026.
const AT: i64 = 1_795_000_000;
/// A name of the right shape that no entry gives.
const UNNAMED: &str = "events/month=2026-11/000000000000/000000000077-0.parquet";

async fn put(world: &World, key: &str, bytes: impl Into<Vec<u8>>) {
    let put = world.pipeline.clients().s3.put_object().bucket(&world.settings().bucket).key(key);
    put.body(ByteStream::from(bytes.into())).send().await.unwrap();
}

async fn get(world: &World, key: &str) -> Vec<u8> {
    let get = world.pipeline.clients().s3.get_object().bucket(&world.settings().bucket).key(key);
    get.send().await.unwrap().body.collect().await.unwrap().to_vec()
}

async fn delete(world: &World, key: &str) {
    world.pipeline.clients().s3.delete_object().bucket(&world.settings().bucket).key(key).send().await.unwrap();
}

fn insertions(world: &World, round: u32) -> Vec<Change> {
    let now = world.host.now_us();
    let made = (0..6).map(|i| {
        let scan = Scan { project: ["acme", "globex"][i % 2].to_owned(), at: AT, bytes: 5 };
        let id = format!("{round}-{i}");
        change(&id, &id, Some(&scan), None, now)
    });
    made.collect()
}

/// Records new events, counts and archives them.
async fn feed(world: &World, round: u32) -> ArchiveReport {
    world.put_changes(&insertions(world, round)).await;
    world.pipeline.drained().await.unwrap();
    world.pipeline.archive().await.unwrap()
}

fn due(rounds: i64) -> naive::Totals {
    ["acme", "globex"].map(|group| ((group.to_owned(), naive::month(AT)), (3 * rounds, 15 * rounds))).into()
}

fn acme() -> Cell {
    Cell { group: "acme".parse().unwrap(), month: naive::month(AT).parse().unwrap(), lane: 0 }
}

/// Every reader of the archive; what each says, or why it does not.
async fn readers(world: &World) -> Vec<(&'static str, Result<String, String>)> {
    let context = world.pipeline.context();
    let recomputed = async {
        let state = context.whole_log().await.map_err(|error| error.to_string())?;
        let report = recompute(&context.bucket, &context.definition, &state, &|_| {}).await;
        report.map(|report| format!("{:?}", monthly(&report.totals))).map_err(|error| error.to_string())
    };
    let explained = async {
        let mut ids = Vec::new();
        let each = |event: recount_compactor::explain::Event| {
            ids.push((event.event_id, event.counted));
            Ok(())
        };
        let done = explain(context, &acme().group, acme().month, each).await;
        done.map(|_| format!("{ids:?}")).map_err(|error| error.to_string())
    };
    let reconciled = async {
        let report = reconcile(context, &Scope::all(), &|_| {}).await.map_err(|error| error.to_string())?.report;
        Ok(format!("{:?} {:?}", report.verdict, report.findings))
    };
    let repaired = async {
        let report = repair(context, &Scope::all(), false, &|_| {}).await.map_err(|error| error.to_string())?;
        Ok(format!("{:?}", report.plans))
    };
    vec![
        ("recompute", recomputed.await),
        ("explain", explained.await),
        ("reconcile", reconciled.await),
        ("repair", repaired.await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_objects_are_neither_counted_nor_deleted() {
    let world = World::start(&definition(""), options()).await;
    feed(&world, 0).await;
    let said = readers(&world).await;
    let ours: BTreeMap<_, _> = objects(&world, "events/").await.into_iter().collect();
    let (target, parquet) = ours.first_key_value().unwrap();
    let hash = "0123456789abcdef".repeat(4);
    let foreign: BTreeMap<String, Vec<u8>> = [
        "_log/notes.txt",
        "_log/1.json",
        "_log/000000000001.json.bak",
        "_log/x/000000000001.json",
        "_state/notes",
        "_state/000000000900.json",
        "_staging/notes",
        "_staging/000000000000-zz/0",
        "_staging/000000000000-ab/x/0",
        "events/notes.txt",
        "events/month=2026-11/x.parquet",
        "events/month=2026-13/000000000000/000000000001-0.parquet",
        "events/month=..%2f/000000000000/000000000001-0.parquet",
        UNNAMED,
        "quarantine/notes.txt",
        "quarantine/shardId-000000000000/x",
        "conflicts/notes.txt",
        "conflicts/shardId-000000000000/..x",
        "plans/notes.txt",
        "plans/0.report.json",
        "totals/notes",
        "elsewhere/\u{202e}\u{1b}[2J",
    ]
    .into_iter()
    .map(|key| (key.to_owned(), parquet.clone()))
    .chain([
        (format!("plans/{hash}.json"), b"{\"format\":1}".to_vec()),
        ("_state/huge".to_owned(), vec![b'x'; 20 << 20]),
    ])
    .collect();
    for (key, bytes) in &foreign {
        put(&world, key, bytes.clone()).await;
    }
    assert_eq!(readers(&world).await, said, "as before, beside {target}");
    for round in 1..4 {
        feed(&world, round).await;
    }
    assert_eq!(world.totals().await, due(4));
    let after = readers(&world).await;
    assert!(after.iter().all(|(_, said)| said.is_ok()), "{after:?}");
    assert_eq!(after[0].1, Ok(format!("{:?}", due(4))));
    assert_eq!(world.reconcile().await.verdict, Verdict::Clean);
    for (key, bytes) in &foreign {
        assert!(get(&world, key).await == *bytes, "{key} was changed");
    }
    // By its name it is a plan, and it is none.
    let context = world.pipeline.context();
    let refused = fetch(context, &hash).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("plans/{hash}.json")), "{refused}");
    // A record of a conflict by its name is read: it must be one.
    put(&world, "conflicts/shardId-000000000000/7", "no record").await;
    let refused = reconcile(context, &Scope::all(), &|_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("conflicts/shardId-000000000000/7"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_changed_or_is_not_ours_stops_whoever_reads_it() {
    let world = World::start(&definition(""), options()).await;
    for round in 0..3 {
        feed(&world, round).await;
    }
    let good = readers(&world).await;
    let log: BTreeMap<_, _> = objects(&world, "_log/").await.into_iter().collect();
    let last = log.len() - 1;
    assert!(last >= 2, "{last}");
    let name = |n: usize| format!("_log/{n:012}.json");
    let text = |n: usize| String::from_utf8(log[&name(n)].clone()).unwrap();
    let (first, head) = (text(0), text(last));
    let of = |text: &str, from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        changed
    };
    let target = |text: &str| text.split("\"target\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let cases: Vec<(&str, usize, String)> = vec![
        ("a byte of an old one", 0, of(&first, "\"at_ms\":1", "\"at_ms\":2")),
        ("white space in an old one", 0, format!("{first} ")),
        ("a newer format", last, of(&head, "\"format\":2", "\"format\":3")),
        ("no JSON", last, "\u{1b}[2J".to_owned()),
        ("nothing", last, String::new()),
        ("a target elsewhere", last, of(&head, &target(&head), "_log/000000000000.json")),
        ("a target above", last, of(&head, &target(&head), "events/../../../etc/passwd")),
        ("a source elsewhere", last, of(&head, "\"source\":\"_staging/", "\"source\":\"plans/")),
        ("negative rows", last, of(&head, "\"rows\":", "\"rows\":-")),
        ("more rows than fit", last, of(&head, "\"rows\":", "\"rows\":99999999999999999999")),
        ("records unaccounted for", last, of(&head, "\"records\":", "\"records\":1")),
        ("another stream's range", last, of(&head, "\"created_ms\":", "\"created_ms\":1")),
        ("a shard that leaves its folder", last, of(&head, "\"shard\":\"", "\"shard\":\"../")),
        ("a month that is none", last, of(&head, "\"month\":\"2026-11\"", "\"month\":\"2026-99\"")),
        ("another number", last, of(&head, &format!("\"n\":{last}"), "\"n\":0")),
        ("a member that we do not know", last, of(&head, "{\"format\":2", "{\"more\":1,\"format\":2")),
        ("larger than an entry may be", last, format!("{head}{}", " ".repeat(17 << 20))),
        ("an entry ahead of the head", last + 3, first.clone()),
    ];
    for (what, n, bytes) in cases {
        put(&world, &name(n), bytes).await;
        for (command, said) in readers(&world).await {
            let said = said.expect_err(&format!("{what}: {command}"));
            assert!(said.contains("log entry") || said.contains("_log/"), "{what}: {command}: {said}");
        }
        assert!(world.pipeline.archive().await.is_err(), "{what}: nothing is written on");
        match log.get(&name(n)) {
            Some(bytes) => put(&world, &name(n), bytes.clone()).await,
            None => delete(&world, &name(n)).await,
        }
    }
    assert_eq!(readers(&world).await, good, "put right, it is as before");
    assert_eq!(feed(&world, 3).await.commits, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_events_that_was_changed_is_refused_by_every_reader() {
    let world = World::start(&definition(""), options()).await;
    feed(&world, 0).await;
    feed(&world, 1).await;
    let good = readers(&world).await;
    let files: BTreeMap<_, _> = objects(&world, "events/").await.into_iter().collect();
    let ((first, ours), (_, other)) = (files.first_key_value().unwrap(), files.last_key_value().unwrap());
    assert_ne!(ours, other);
    let mut flipped = ours.clone();
    flipped[ours.len() / 2] ^= 1;
    let short = ours[..ours.len() - 1].to_vec();
    for (what, bytes) in [("another file of ours", other.clone()), ("one bit", flipped), ("shorter", short)] {
        put(&world, first, bytes).await;
        for (command, said) in readers(&world).await {
            let said = said.expect_err(&format!("{what}: {command}"));
            assert!(said.contains(first.as_str()), "{what}: {command}: {said}");
        }
        put(&world, first, ours.clone()).await;
    }
    assert_eq!(readers(&world).await, good);
}
