//! The store by itself: atomicity, listing, what a killed process leaves.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::ops::Bound;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;
use recount_schemas::host::SystemHost;
use s3s::crypto::{Checksum as _, Md5};

use super::attributes::{Described, hex};
use super::error::StoreError;
use super::list::{From as ListFrom, Page, Query};
use super::store::{Condition, Store};

const B: &str = "bucket";

fn open(dir: &Path) -> Store {
    Store::open(dir, SystemHost::shared()).unwrap()
}

fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_bucket(B).unwrap();
    (dir, store)
}

fn md5(bytes: &[u8]) -> String {
    hex(Md5::checksum(bytes).as_ref())
}

fn put_if(store: &Store, key: &str, bytes: &[u8], condition: &Condition) -> Result<String, StoreError> {
    let mut temp = store.temp()?;
    temp.file.write_all(bytes).unwrap();
    store.publish(temp, (B, key), condition, &md5(bytes), &Described::default()).map(|put| put.etag)
}

fn put(store: &Store, key: &str, bytes: &[u8]) -> Result<String, StoreError> {
    put_if(store, key, bytes, &Condition::None)
}

fn get(store: &Store, key: &str) -> Result<(Vec<u8>, String), StoreError> {
    let (mut file, object) = store.open_object(B, key)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Ok((bytes, object.etag))
}

fn keys(page: &Page) -> Vec<&str> {
    page.objects.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn one_of_sixteen_racing_writers_wins() {
    let (dir, store) = fresh();
    let other = open(dir.path()); // as another process would have it
    for round in 0..30 {
        let key = format!("_log/{round:012}.json");
        let barrier = Barrier::new(16);
        let winners: Vec<u32> = thread::scope(|scope| {
            let race = |n: u32| {
                let (store, key, barrier) = (if n.is_multiple_of(2) { &store } else { &other }, &key, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    match put_if(store, key, format!("writer {n}").as_bytes(), &Condition::Absent) {
                        Ok(_) => Some(n),
                        Err(StoreError::PreconditionFailed(_)) => None,
                        Err(e) => panic!("{e}"),
                    }
                })
            };
            let racers: Vec<_> = (0..16).map(race).collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(get(&store, &key).unwrap().0, format!("writer {}", winners[0]).as_bytes());
    }
    assert_eq!(std::fs::read_dir(dir.path().join("s3-work/temp")).unwrap().count(), 0);
}

#[test]
fn compare_and_swap_loses_no_update() {
    let (dir, store) = fresh();
    let other = open(dir.path());
    put(&store, "counter", b"0").unwrap();
    thread::scope(|scope| {
        for n in 0..4u32 {
            let store = if n.is_multiple_of(2) { &store } else { &other };
            scope.spawn(move || {
                let mut done = 0;
                while done < 10 {
                    let (bytes, etag) = get(store, "counter").unwrap();
                    let next = String::from_utf8(bytes).unwrap().parse::<u32>().unwrap() + 1;
                    match put_if(store, "counter", next.to_string().as_bytes(), &Condition::Matches(etag)) {
                        Ok(_) => done += 1,
                        Err(StoreError::PreconditionFailed(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    assert_eq!(get(&store, "counter").unwrap().0, b"40");
}

#[test]
fn reads_during_overwrites_are_whole() {
    let (_dir, store) = fresh();
    let body = |n: u8| vec![n; 1_000 + 997 * usize::from(n)];
    put(&store, "k", &body(0)).unwrap();
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (bytes, etag) = get(&store, "k").unwrap();
                    assert_eq!(bytes, body(bytes[0]));
                    assert_eq!(etag, md5(&bytes));
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut n = 0u8;
        while reads.load(Ordering::Relaxed) < 500 || n < 200 {
            n = (n + 1) % 250;
            put(&store, "k", &body(n)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_open_reader_keeps_what_it_opened() {
    let (_dir, store) = fresh();
    put(&store, "a/k", b"old").unwrap();
    let (mut file, _) = store.open_object(B, "a/k").unwrap();
    put(&store, "a/k", b"newer").unwrap();
    store.delete(B, "a/k", None).unwrap();
    let mut bytes = String::new();
    file.read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "old");
}

#[test]
fn write_conditions() {
    let (_dir, store) = fresh();
    let verdict = |condition: Condition, key: &str| match put_if(&store, key, b"x", &condition) {
        Ok(_) => 200,
        Err(StoreError::PreconditionFailed(_)) => 412,
        Err(StoreError::NoSuchKey(_)) => 404,
        Err(e) => panic!("{e}"),
    };
    assert_eq!(verdict(Condition::Matches("0".into()), "k"), 404);
    assert_eq!(verdict(Condition::Present, "k"), 404);
    assert_eq!(verdict(Condition::Absent, "k"), 200);
    assert_eq!(verdict(Condition::Absent, "k"), 412);
    assert_eq!(verdict(Condition::Matches("0".into()), "k"), 412);
    assert_eq!(verdict(Condition::Matches(md5(b"x")), "k"), 200);
    assert_eq!(verdict(Condition::Present, "k"), 200);
    assert_eq!(verdict(Condition::None, "k"), 200);
    let wrong = Condition::Matches("0".into());
    assert!(matches!(store.delete(B, "k", Some(&wrong)), Err(StoreError::PreconditionFailed(_))));
    store.delete(B, "k", Some(&Condition::Matches(md5(b"x")))).unwrap();
    assert!(matches!(store.delete(B, "k", Some(&Condition::Present)), Err(StoreError::NoSuchKey(_))));
    store.delete(B, "k", None).unwrap();
    assert_eq!(verdict(Condition::Absent, "k"), 200, "deleted: may be created again");
}

#[test]
fn a_key_that_cannot_be_a_file_says_so() {
    let (_dir, store) = fresh();
    put(&store, "a/b", b"1").unwrap();
    put(&store, "f", b"1").unwrap();
    for (key, condition) in [
        ("a", Condition::None),
        ("a", Condition::Absent),
        ("f/g", Condition::None),
        ("f/g/h", Condition::Absent),
        ("a/b/c", Condition::None),
    ] {
        let refused = put_if(&store, key, b"2", &condition);
        assert!(matches!(refused, Err(StoreError::InTheWay(_))), "{key} {condition:?}: {refused:?}");
    }
    assert!(matches!(get(&store, "a"), Err(StoreError::NoSuchKey(_))));
    assert!(matches!(get(&store, "f/g"), Err(StoreError::NoSuchKey(_))));
    store.delete(B, "a", None).unwrap();
    store.delete(B, "f/g", None).unwrap();
    assert_eq!(get(&store, "a/b").unwrap().0, b"1");
    // Directories that a delete emptied are in nobody's way.
    put(&store, "x/y/z", b"1").unwrap();
    store.delete(B, "x/y/z", None).unwrap();
    put(&store, "x", b"2").unwrap();
    for bad in ["../escape", "a/../../escape", "/etc/passwd", "a//b", "a\0"] {
        assert!(matches!(put(&store, bad, b"!"), Err(StoreError::InvalidKey { .. })), "{bad:?}");
        assert!(matches!(get(&store, bad), Err(StoreError::InvalidKey { .. })), "{bad:?}");
        assert!(matches!(store.delete(B, bad, None), Err(StoreError::InvalidKey { .. })), "{bad:?}");
    }
    assert!(matches!(store.head("../bucket", "f"), Err(StoreError::InvalidBucket(_))));
}

#[test]
fn a_killed_writer_leaves_no_object_and_its_file_is_swept() {
    let (dir, store) = fresh();
    put(&store, "kept", b"1").unwrap();
    let mut temp = store.temp().unwrap();
    temp.file.write_all(b"half").unwrap();
    std::mem::forget(temp); // killed here
    std::fs::create_dir_all(dir.path().join("s3/bucket/made/before/the/kill")).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(std::fs::read_dir(dir.path().join("s3-work/temp")).unwrap().count(), 0);
    let page = store.list(B, &Query { max: 10, ..Query::default() }).unwrap();
    assert_eq!(keys(&page), ["kept"]);
    put(&store, "made/before", b"an empty directory is no object").unwrap();
    store.delete(B, "made/before", None).unwrap();
    store.delete(B, "kept", None).unwrap();
    store.delete_bucket(B).unwrap();
}

#[test]
fn writers_and_deleters_of_one_directory_do_not_trip() {
    let (_dir, store) = fresh();
    thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..50 {
                    let key = format!("d/e/{n}-{round}");
                    put(store, &key, b"x").unwrap();
                    store.delete(B, &key, None).unwrap();
                }
            });
        }
    });
    assert!(store.list(B, &Query { max: 10, ..Query::default() }).unwrap().objects.is_empty());
}

#[test]
fn files_changed_by_hand_are_noticed() {
    let (dir, store) = fresh();
    put(&store, "k", b"by put").unwrap();
    let path = dir.path().join("s3/bucket/k");
    assert_eq!(std::fs::read(&path).unwrap(), b"by put", "an object is a plain file");
    std::fs::write(&path, b"by hand!").unwrap();
    assert_eq!(get(&store, "k").unwrap(), (b"by hand!".to_vec(), md5(b"by hand!")));
    std::fs::write(dir.path().join("s3/bucket/new"), b"copied in").unwrap();
    assert_eq!(store.head(B, "new").unwrap().etag, md5(b"copied in"));
    assert_eq!(store.head(B, "new").unwrap().etag, md5(b"copied in"), "from the cache");
}

#[test]
fn a_copy_is_a_file_of_its_own() {
    let (_dir, store) = fresh();
    let copy = |from: &str, to: &str, condition| store.copy((B, from), (B, to), &condition, None, |_| Ok(()));
    assert!(matches!(copy("k", "l", Condition::None), Err(StoreError::NoSuchKey(key)) if key == "k"));
    put(&store, "k", b"one").unwrap();
    assert_eq!(copy("k", "d/l", Condition::Absent).unwrap().etag, md5(b"one"));
    put(&store, "k", b"two").unwrap();
    assert_eq!(get(&store, "d/l").unwrap().0, b"one");
    assert!(matches!(copy("k", "d/l", Condition::Absent), Err(StoreError::PreconditionFailed(_))));
    copy("k", "d/l", Condition::None).unwrap();
    assert_eq!(get(&store, "d/l").unwrap().0, b"two");
}

#[test]
fn parts_are_joined_in_order() {
    let (dir, store) = fresh();
    let described = Described { content_type: Some("text/plain".to_owned()), ..Described::default() };
    let id = store.create_upload(B, "big", described).unwrap();
    let part = |number: i32, bytes: &[u8]| {
        let mut temp = store.temp().unwrap();
        temp.file.write_all(bytes).unwrap();
        store.put_part((B, "big", &id), number, temp, &md5(bytes))
    };
    let (large, small) = (vec![7u8; 5 << 20], b"end".to_vec());
    part(2, &small).unwrap();
    part(1, b"replaced").unwrap();
    part(1, &large).unwrap();
    assert!(matches!(part(0, b""), Err(StoreError::InvalidArgument(_))));
    assert!(matches!(part(10_001, b""), Err(StoreError::InvalidArgument(_))));
    let store = open(dir.path()); // an upload survives a restart
    assert_eq!(
        store.parts(B, "big", &id).unwrap().iter().map(|(n, p)| (*n, p.size)).collect::<Vec<_>>(),
        [(1, 5 << 20), (2, 3)]
    );
    let complete = |parts: &[(i32, Option<String>)]| {
        store.complete_upload((B, "big", &id), parts, &Condition::Absent).map(|done| done.etag)
    };
    assert!(matches!(complete(&[]), Err(StoreError::InvalidArgument(_))));
    assert!(matches!(complete(&[(2, None), (1, None)]), Err(StoreError::InvalidPartOrder)));
    assert!(matches!(complete(&[(1, None), (3, None)]), Err(StoreError::InvalidPart(3))));
    assert!(matches!(complete(&[(1, Some("0".into())), (2, None)]), Err(StoreError::InvalidPart(1))));
    assert!(store.list(B, &Query { max: 9, ..Query::default() }).unwrap().objects.is_empty(), "not visible before");
    let whole = [large.clone(), small.clone()].concat();
    assert_eq!(complete(&[(1, Some(md5(&large))), (2, Some(md5(&small)))]).unwrap(), md5(&whole));
    assert_eq!(get(&store, "big").unwrap().0, whole);
    assert_eq!(store.head(B, "big").unwrap().described.content_type.as_deref(), Some("text/plain"));
    assert!(matches!(store.abort_upload(B, "big", &id), Err(StoreError::NoSuchUpload(_))));
    assert!(matches!(store.parts(B, "big", "../../x"), Err(StoreError::NoSuchUpload(_))));

    let id = store.create_upload(B, "small", Described::default()).unwrap();
    for number in [1, 2] {
        let temp = store.temp().unwrap();
        store.put_part((B, "small", &id), number, temp, &md5(b"")).unwrap();
    }
    let refused = store.complete_upload((B, "small", &id), &[(1, None), (2, None)], &Condition::None);
    assert!(matches!(refused, Err(StoreError::PartTooSmall(1))), "{refused:?}");
    store.abort_upload(B, "small", &id).unwrap();
}

/// The law of a listing, on a sorted map: keys after the start with the prefix, rolled up at the delimiter.
fn model(keys: &BTreeMap<String, u64>, query: &Query, after: &str) -> Vec<String> {
    let mut listed: Vec<String> = Vec::new();
    for key in keys.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).map(|(key, _)| key) {
        let Some(rest) = key.strip_prefix(query.prefix.as_str()) else { continue };
        let entry = match rest.find(query.delimiter.as_str()) {
            Some(at) if !query.delimiter.is_empty() => &key[..query.prefix.len() + at + query.delimiter.len()],
            _ => key,
        };
        if listed.last().is_none_or(|last| last != entry) {
            listed.push(entry.to_owned());
        }
    }
    listed
}

fn some_key() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab.0é-]{1,2}", 1..4).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_listing_is_that_of_a_sorted_map(
        wanted in proptest::collection::vec(some_key(), 0..25),
        prefix in "|[ab.]|[ab]/|[ab.0]{1,2}/[ab.]?|a/b/|/|\\.\\./",
        delimiter in "||/|/|b|\\./",
        after in prop_oneof![Just(String::new()), some_key(), some_key().prop_map(|key| key + "/")],
        max in 1usize..6,
    ) {
        let (_dir, store) = fresh();
        let mut present = BTreeMap::new();
        for key in wanted {
            match put(&store, &key, key.as_bytes()) {
                Ok(_) => drop(present.insert(key.clone(), key.len() as u64)),
                Err(StoreError::InTheWay(_) | StoreError::InvalidKey { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        let from = if after.is_empty() { ListFrom::Start } else { ListFrom::After(after.clone()) };
        let mut query = Query { prefix, delimiter, from, max };
        let mut listed = Vec::new();
        loop {
            let page = store.list(B, &query).unwrap();
            prop_assert!(page.objects.len() + page.prefixes.len() <= max);
            for (key, object) in &page.objects {
                prop_assert_eq!(object.size, present[key]);
                prop_assert_eq!(&object.etag, &md5(key.as_bytes()));
            }
            let mut entries: Vec<String> = page.objects.into_iter().map(|(key, _)| key).collect();
            entries.extend(page.prefixes);
            entries.sort();
            listed.extend(entries);
            match page.next {
                Some(next) => query.from = ListFrom::parse(&next.token()).unwrap(),
                None => break,
            }
        }
        prop_assert_eq!(listed, model(&present, &query, &after));
    }
}

#[test]
fn an_empty_page_and_a_foreign_token() {
    let (_dir, store) = fresh();
    put(&store, "k", b"").unwrap();
    assert_eq!(store.list(B, &Query::default()).unwrap(), Page::default(), "max-keys 0");
    for token in ["", "!", "eA", "zzzz"] {
        assert!(ListFrom::parse(token).is_err(), "{token}");
    }
    assert!(matches!(store.list("nowhere", &Query::default()), Err(StoreError::NoSuchBucket(_))));
}
