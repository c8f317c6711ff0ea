use super::Outcome::{Delivered, Refused};
use super::*;
use proptest::prelude::*;

fn outbox(records: &[(&str, usize)]) -> Outbox {
    Outbox::new(records.iter().copied(), Limits { request_records: 3, request_bytes: 100, record_bytes: 60 }, 2)
}

#[test]
fn one_record_of_a_key_a_request() {
    let mut outbox = outbox(&[("a", 1), ("a", 1), ("b", 1), ("a", 1)]);
    assert_eq!(outbox.next(), [0, 2]);
    outbox.settle(&[0, 2], &[Refused, Delivered]);
    assert_eq!(outbox.next(), [0], "no later record of the key before the refused one");
    outbox.settle(&[0], &[Delivered]);
    assert_eq!(outbox.next(), [1]);
    outbox.settle(&[1], &[Delivered]);
    outbox.settle(&[3], &[Delivered]);
    assert_eq!((outbox.next(), outbox.unsettled().count()), (vec![], 0));
}

#[test]
fn requests_are_full_to_the_exact_byte_and_record() {
    assert_eq!(outbox(&[("a", 60), ("b", 40), ("c", 1)]).next(), [0, 1]);
    assert_eq!(outbox(&[("a", 60), ("b", 39), ("c", 1), ("d", 1)]).next(), [0, 1, 2]);
    assert_eq!(
        outbox(&[("a", 60), ("b", 41), ("c", 1)]).next(),
        [0],
        "in order: a smaller later one does not jump the queue"
    );
    let limits = Limits { request_records: 500, request_bytes: 10, record_bytes: 60 };
    assert_eq!(Outbox::new([("a", 60), ("b", 1)], limits, 1).next(), [0], "larger than a request by itself: alone");
}

#[test]
fn a_record_is_too_large_from_the_first_byte_beyond_the_limit() {
    let mut outbox = outbox(&[("a", 60), ("a", 61), ("a", 2)]);
    assert_eq!(outbox.too_large(), [1]);
    assert_eq!(outbox.next(), [0]);
    outbox.settle(&[0], &[Delivered]);
    assert_eq!(outbox.next(), [2], "it holds up no later record of its key");
    outbox.settle(&[2], &[Delivered]);
    assert_eq!(outbox.unsettled().collect::<Vec<_>>(), [1]);
    outbox.quarantined(1);
    assert_eq!(outbox.unsettled().count(), 0);
}

#[test]
fn beyond_a_record_given_up_nothing_is_sent() {
    let mut outbox = outbox(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    outbox.settle(&[0, 1, 2], &[Refused, Refused, Delivered]);
    assert_eq!(outbox.next(), [0, 1, 3]);
    outbox.settle(&[0, 1, 3], &[Delivered, Refused, Refused]);
    assert_eq!(outbox.next(), Vec::<usize>::new(), "1 was refused twice; 3 comes again with it");
    assert_eq!(outbox.unsettled().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn records_before_the_one_given_up_still_go() {
    let mut outbox = outbox(&[("a", 1), ("a", 1), ("b", 1)]);
    outbox.settle(&[0, 2], &[Delivered, Refused]);
    outbox.settle(&[2], &[Refused]);
    assert_eq!(outbox.next(), [1]);
}

#[test]
fn beyond_a_record_that_quarantine_refused_nothing_is_sent() {
    let mut outbox = outbox(&[("a", 1), ("b", 61), ("c", 1), ("d", 61), ("e", 1)]);
    assert_eq!(outbox.next(), [0, 2, 4], "while nothing is known of the quarantine it holds up nothing");
    outbox.not_quarantined(3);
    assert_eq!(outbox.next(), [0, 2]);
    outbox.not_quarantined(1);
    outbox.not_quarantined(0);
    assert_eq!(outbox.next(), [0], "only a too large record can be refused by quarantine");
    outbox.settle(&[0], &[Delivered]);
    assert_eq!((outbox.next(), outbox.unsettled().next()), (vec![], Some(1)));
}

#[test]
fn an_answer_for_a_record_that_was_not_sent_changes_nothing() {
    let mut outbox = outbox(&[("a", 1), ("a", 1)]);
    outbox.settle(&[1, 9], &[Delivered, Delivered]);
    outbox.quarantined(0);
    assert_eq!(outbox.unsettled().count(), 2);
}

/// A stream that takes or refuses as `coin` says, and the mapping behind the relay: it comes again from the lowest record
/// that is not settled, until all are.
fn deliver(records: &[(u8, usize)], attempts: u32, mut refuse: impl FnMut() -> bool) -> (Vec<usize>, Vec<usize>) {
    let limits = Limits { request_records: 4, request_bytes: 64, record_bytes: 30 };
    let keys: Vec<String> = records.iter().map(|(key, _)| key.to_string()).collect();
    let (mut stream, mut quarantine, mut from) = (Vec::new(), Vec::new(), 0);
    for _ in 0..1_000 {
        let batch = (from..records.len()).map(|i| (keys[i].as_str(), records[i].1));
        let mut outbox = Outbox::new(batch, limits, attempts);
        for i in outbox.too_large() {
            if refuse() {
                outbox.not_quarantined(i);
            } else {
                quarantine.push(from + i);
                outbox.quarantined(i);
            }
        }
        loop {
            let request = outbox.next();
            if request.is_empty() {
                break;
            }
            assert!(request.len() <= limits.request_records);
            let bytes: usize = request.iter().map(|i| records[from + i].1).sum();
            assert!(bytes <= limits.request_bytes);
            // Within a request nothing is promised about the order: the worst is that it is turned round.
            let outcomes: Vec<Outcome> = request.iter().map(|_| if refuse() { Refused } else { Delivered }).collect();
            for (i, outcome) in request.iter().zip(&outcomes).rev() {
                if *outcome == Delivered {
                    stream.push(from + i);
                }
            }
            outbox.settle(&request, &outcomes);
        }
        match outbox.unsettled().next() {
            Some(lowest) => from += lowest,
            None => return (stream, quarantine),
        }
    }
    panic!("never done");
}

proptest! {
    #[test]
    fn invariant_1_nothing_is_skipped_and_each_item_keeps_its_order(
        records in prop::collection::vec((0u8..4, 1usize..34), 0..30),
        attempts in 1u32..4,
        seed in any::<u64>(),
        percent in 0u8..80,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (stream, quarantine) = deliver(&records, attempts, || random.u8(0..100) < percent);
        for key in 0..4 {
            let of_key: Vec<usize> = (0..records.len()).filter(|i| records[*i].0 == key && records[*i].1 <= 30).collect();
            let mut firsts: Vec<usize> = Vec::new();
            for i in stream.iter().filter(|i| records[**i].0 == key) {
                if !firsts.contains(i) {
                    firsts.push(*i);
                }
            }
            prop_assert_eq!(&firsts, &of_key, "the first deliveries are the records, in their order");
        }
        for i in (0..records.len()).filter(|i| records[*i].1 > 30) {
            prop_assert!(quarantine.contains(&i) && !stream.contains(&i));
        }
    }

    #[test]
    fn without_refusals_each_record_travels_once(records in prop::collection::vec((0u8..9, 1usize..30), 0..40)) {
        let (mut stream, _) = deliver(&records, 1, || false);
        stream.sort_unstable();
        prop_assert_eq!(stream, (0..records.len()).collect::<Vec<_>>());
    }
}
