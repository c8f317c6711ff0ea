use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use super::super::state::tests::{range, stream};
use super::*;
use crate::bucket::memory::{Fault, Memory};
use crate::testing::TestHost;

fn store(objects: &Memory) -> LogStore<Memory> {
    LogStore::new(objects.clone(), Arc::new(TestHost::default()))
}

fn renewal(state: &State, token: &str) -> Bytes {
    let entry = Entry {
        format: FORMAT,
        n: state.next,
        kind: Kind::Renewal,
        previous: state.head,
        folded: folded(state).map(|text| Digest::of(text.get().as_bytes())),
        at_ms: 1,
        definition: "d".into(),
        token: token.into(),
        origin: None,
        seed: None,
        base: state.next,
        stream: Some(stream()),
        retention_hours: None,
        ranges: vec![range("s0", None, None)],
        added: vec![],
        removed: vec![],
        versions: Default::default(),
    };
    Bytes::from(entry.to_bytes().unwrap())
}

async fn fill(objects: &Memory, count: u64) -> State {
    let (log, mut state) = (store(objects), State::default());
    while state.next < count {
        let bytes = renewal(&state, "ab");
        assert_eq!(log.put(state.next, &bytes, || true).await, Ok(Committed::Ours));
        assert_eq!(log.catch_up(&mut state).await, Ok(vec![Kind::Renewal]));
        log.keep(&state).await;
    }
    state
}

/// The log folded up to entry `n`, as it was kept.
async fn state_at(objects: &Memory, n: u64) -> State {
    let mut state = State::default();
    while state.next <= n {
        let bytes = objects.bytes(&names::entry(state.next)).unwrap();
        let entry = Entry::from_bytes(state.next, &bytes).unwrap();
        state.apply(entry, Digest::of(&bytes)).unwrap();
    }
    state
}

#[tokio::test]
async fn a_folded_log_spares_its_reader_the_entries_before() {
    let objects = Memory::new();
    let state = fill(&objects, 230).await;
    for n in 0..200 {
        objects.delete(&names::entry(n)).await.unwrap();
    }
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
    // Who reads all of it misses them.
    let error = store(&objects).read_whole().await.unwrap_err();
    assert!(matches!(&error, StoreError::Log(LogError::Broken { n: 0, .. })), "{error}");
}

#[tokio::test]
async fn a_folded_log_is_used_only_once_the_log_vouches_for_it() {
    let objects = Memory::new();
    // Entry 200 is the head: the next one would say what its folded log is.
    let state = fill(&objects, 201).await;
    for n in 0..100 {
        objects.delete(&names::entry(n)).await.unwrap();
    }
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state, "by the one at 100");
    objects.delete(&names::state(100)).await.unwrap();
    let error = store(&objects).read_to_head().await.unwrap_err();
    assert!(matches!(&error, StoreError::Log(LogError::Broken { n: 0, .. })), "{error}");
}

#[tokio::test]
async fn an_entry_that_was_changed_is_noticed_by_who_reads_the_whole_log() {
    let objects = Memory::new();
    let state = fill(&objects, 230).await;
    let text = String::from_utf8(objects.bytes(&names::entry(7)).unwrap().to_vec()).unwrap();
    objects.put(&names::entry(7), Bytes::from(text.replace("\"at_ms\":1", "\"at_ms\":2"))).await.unwrap();
    let error = store(&objects).read_whole().await.unwrap_err();
    assert!(matches!(&error, StoreError::Log(LogError::Broken { n: 8, .. })), "{error}");
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state, "what it said stands in the folded log");
}

#[tokio::test]
async fn the_log_is_read_to_its_head_with_or_without_the_kept_states() {
    let objects = Memory::new();
    let state = fill(&objects, 230).await;
    assert_eq!(objects.keys(names::STATE).len(), 2);
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);

    // A kept state of another entry, a damaged one, one of a log that was never written: none is used.
    let (right, wrong) = (names::state(100), names::state(200));
    let kept = objects.bytes(&right).unwrap();
    for damage in [kept.clone(), Bytes::from_static(b"{}"), kept.slice(..kept.len() - 9)] {
        objects.put(&wrong, damage).await.unwrap();
        assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
    }
    let forged = String::from_utf8(kept.to_vec()).unwrap().replace("\"next\":101", "\"next\":100");
    objects.put(&right, Bytes::from(forged)).await.unwrap();
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
    // One that agrees with itself and with its entry in everything, and says what the log never said.
    let mut lie = state_at(&objects, 100).await;
    lie.lost.clear();
    lie.streams.clear();
    let text = serde_json::value::to_raw_value(&lie).unwrap();
    let digest = Digest::of(text.get().as_bytes());
    let forged = Kept { format: FORMAT, entry: lie.head.unwrap(), digest, state: text };
    objects.put(&right, Bytes::from(serde_json::to_vec(&forged).unwrap())).await.unwrap();
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
    objects.put(&names::state(900), kept).await.unwrap();
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
}

#[tokio::test]
async fn only_the_newest_folded_logs_are_kept() {
    let objects = Memory::new();
    let ahead = names::state(900);
    objects.put(&ahead, Bytes::from_static(b"{}")).await.unwrap();
    fill(&objects, 601).await;
    // One that another run kept meanwhile stays; of those up to ours the three that are ever tried.
    assert_eq!(objects.keys(names::STATE), [400, 500, 600, 900].map(names::state));
}

#[tokio::test]
async fn a_hole_in_the_log_is_not_its_end() {
    for (count, missing) in [(5, 0), (5, 3), (30, 10)] {
        let objects = Memory::new();
        fill(&objects, count).await;
        objects.delete(&names::entry(missing)).await.unwrap();
        let error = store(&objects).read_to_head().await.unwrap_err();
        assert!(matches!(&error, StoreError::Log(LogError::Broken { n, .. }) if *n == missing), "{error}");
    }
    // What is no entry says nothing; without the last entry the log is a shorter one.
    let objects = Memory::new();
    let state = fill(&objects, 5).await;
    objects.put("_log/notes", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
}

#[tokio::test]
async fn entries_put_while_the_log_is_read_are_no_hole() {
    let full = Memory::new();
    let state = fill(&full, 2).await;
    // Both entries come between any two steps of the reading.
    for after in 0..12 {
        let objects = Memory::new();
        let log = store(&objects);
        let mut read = std::pin::pin!(log.read_to_head());
        let mut steps = 0;
        let found = loop {
            if steps == after {
                *objects.objects.lock().unwrap() = full.objects.lock().unwrap().clone();
            }
            steps += 1;
            if let Poll::Ready(found) = futures::poll!(&mut read) {
                break found.unwrap();
            }
        };
        assert!(found == State::default() || found == state, "after {after} steps: {found:?}");
    }
}

#[tokio::test]
async fn an_entry_that_was_changed_breaks_the_log() {
    let objects = Memory::new();
    fill(&objects, 5).await;
    let text = String::from_utf8(objects.bytes(&names::entry(2)).unwrap().to_vec()).unwrap();
    objects.put(&names::entry(2), Bytes::from(text.replace("\"at_ms\":1", "\"at_ms\":2"))).await.unwrap();
    let error = store(&objects).read_to_head().await.unwrap_err();
    assert!(matches!(error, StoreError::Log(LogError::Broken { n: 3, .. })), "{error}");
}

#[tokio::test]
async fn whose_entry_has_the_number_is_known_whatever_was_lost() {
    for first in [Fault::None, Fault::AnswerLost, Fault::RequestLost] {
        let objects = Memory::new();
        let count = AtomicUsize::new(0);
        let faulty = objects.with_faults(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
            0 => first,
            _ => Fault::None,
        });
        let bytes = renewal(&State::default(), "ab");
        assert_eq!(store(&faulty).put(0, &bytes, || true).await, Ok(Committed::Ours), "{first:?}");
        // Somebody else's: the same token is not enough, only the same bytes are.
        let mut other = bytes.to_vec();
        other.extend_from_slice(b" ");
        assert_eq!(store(&objects).put(0, &other.into(), || true).await, Ok(Committed::Theirs));
    }
}

#[tokio::test]
async fn a_put_without_a_known_outcome_stays_undecided() {
    let objects = Memory::new();
    let lost = objects.with_faults(|_, _| Fault::RequestLost);
    let bytes = renewal(&State::default(), "ab");
    assert!(matches!(store(&lost).put(0, &bytes, || true).await, Err(StoreError::Undecided { n: 0, .. })));
    assert_eq!(store(&objects).put(0, &bytes, || false).await, Err(StoreError::TimeIsUp));
    assert_eq!(objects.keys(names::LOG), Vec::<String>::new());
}
