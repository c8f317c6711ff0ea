use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        at_ms: 1,
        definition: "d".into(),
        token: token.into(),
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
    objects.put(&names::state(900), kept).await.unwrap();
    assert_eq!(store(&objects).read_to_head().await.unwrap(), state);
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
