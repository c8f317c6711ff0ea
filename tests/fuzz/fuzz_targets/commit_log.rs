//! Entries of the archive's log, one a line; a line that begins with `~` is first given its place in the log, since no
//! fuzzer finds a SHA-256. Laws: what is applied is read back as it was, ranges tile, a version is whole, and an entry that
//! is refused changes nothing. The same bytes also stand in a bucket as the log and as the folded log that is kept beside it.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use recount_compactor::log::{Digest, Entry, LogStore, State, names};
use recount_fuzz::bucket::Fixed;
use recount_schemas::host::SystemHost;
use recount_schemas::{SequenceNumber, ShardId};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

/// Entries of one input, at most: the fuzzer gains nothing by longer logs.
const MOST: usize = 64;

type Ends = BTreeMap<(recount_compactor::log::Stream, ShardId), (Option<SequenceNumber>, bool)>;

/// The shards' ends, once more and on their own: each range begins where the last one ended, and none follows a closed one.
fn tiles(ends: &mut Ends, entry: &Entry) {
    let Some(stream) = &entry.stream else { return };
    for range in &entry.ranges {
        let end = ends.entry((stream.clone(), range.shard.clone())).or_default();
        assert_eq!(range.from, end.0);
        assert!(!end.1 && range.to >= range.from);
        *end = (range.to.clone(), range.closed);
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut state, mut ends) = (State::default(), Ends::new());
    let mut objects = BTreeMap::new();
    for line in data.split(|byte| *byte == b'\n').take(MOST) {
        let placed = line.strip_prefix(b"~");
        let n = state.next;
        let Ok(mut entry) = Entry::from_bytes(n, placed.unwrap_or(line)) else { continue };
        if placed.is_some() {
            (entry.n, entry.previous) = (n, state.head);
        }
        let bytes = entry.to_bytes().expect("what was read is no larger than an entry may be");
        assert_eq!(Entry::from_bytes(n, &bytes).as_ref(), Ok(&entry), "the same bytes for the same entry");
        let before = state.clone();
        match state.apply(entry.clone(), Digest::of(&bytes)) {
            Ok(()) => {
                tiles(&mut ends, &entry);
                assert_eq!(state.next, n + 1);
                objects.insert(names::entry(n), Bytes::from(bytes));
            }
            Err(_) => assert_eq!(state, before, "an entry that is refused changes nothing"),
        }
    }
    for (month, files) in &state.files {
        for (target, live) in files {
            let name = names::parse_target(target).expect("a live file has a target's name");
            assert!(name.month == *month && live.file.target == *target && live.file.month == *month);
            assert_eq!(name.version, state.version(*month));
        }
    }
    let text = serde_json::to_string(&state).expect("a state has JSON");
    assert_eq!(serde_json::from_str::<State>(&text).expect("and is read back"), state);

    // The log out of a bucket: as applied; with the input as its next entry; with the input as the folded log.
    let store = |objects: BTreeMap<String, Bytes>| LogStore::new(Fixed(Arc::new(objects)), SystemHost::shared());
    let read = RUNTIME.block_on(store(objects.clone()).read_to_head()).expect("what was applied can be read");
    assert_eq!(read, state);
    let hostile = Bytes::copy_from_slice(data);
    if state.next > 0 {
        let digest = Digest::of(&objects[&names::entry(state.next - 1)]);
        let kept = |inner: &str| {
            format!(r#"{{"format":1,"entry":"{digest}","digest":"{}","state":{inner}}}"#, Digest::of(inner.as_bytes()))
        };
        for folded in [hostile.clone(), Bytes::from(kept(&String::from_utf8_lossy(data))), Bytes::from(kept(&text))] {
            let mut objects = objects.clone();
            objects.insert(names::state(state.next - 1), folded);
            let read = RUNTIME.block_on(store(objects).read_to_head());
            assert!(read.is_err() || read == Ok(state.clone()) || state.next == 0, "{read:?}");
        }
    }
    objects.insert(names::entry(state.next), hostile);
    let _ = RUNTIME.block_on(store(objects).read_to_head());
});
