//! The protocol holds in every state of small models and in random histories of larger ones; without any one of its rules
//! it does not.

use proptest::prelude::*;

use super::model::{Model, Rule, Size, Violation};
use crate::tuning::Tuning;

fn tuning(named_keys: usize) -> Tuning {
    Tuning {
        named_keys,
        seal_at: 1,
        keep_ms: 1,
        keep_keys: 1,
        hard_limit: 4,
        write_keys: 3,
        exact_refusals: 2,
        refusals: u32::MAX,
        ledger_ms: 10,
        ..Tuning::new(1)
    }
}

/// All keys of a batch can be named, as with up to 96.
fn named() -> Size {
    Size { keys: 3, writers: 2, batches: 2, faults: 0, copies: 0, time: false, tuning: tuning(3) }
}

/// Only one key can be named: batches of two and three take the exact path.
fn exact() -> Size {
    Size { tuning: tuning(1), ..named() }
}

fn holds_in_every_state(sizes: impl IntoIterator<Item = Size>) {
    for size in sizes {
        let (states, all) = Model::new(size.clone(), None).explore(4_000_000).unwrap();
        println!("{states} states: {size:?}");
        assert!(states > 500 && all, "{states} {all} {size:?}");
    }
}

#[test]
fn invariants_2_and_3_hold_in_every_state_of_a_small_model() {
    let two = |size: Size| Size { keys: 2, ..size };
    holds_in_every_state([
        named(),
        Size { batches: 3, ..two(exact()) },
        Size { faults: 1, ..two(named()) },
        Size { copies: 1, ..two(exact()) },
        Size { time: true, ..two(named()) },
    ]);
}

#[test]
#[ignore = "takes minutes: cargo test -p recount-consumer -- --ignored"]
fn invariants_2_and_3_hold_in_every_state_of_a_larger_model() {
    holds_in_every_state([
        exact(),
        Size { faults: 1, ..named() },
        Size { copies: 1, ..named() },
        Size { copies: 1, ..exact() },
        Size { keys: 2, faults: 1, copies: 1, time: true, ..exact() },
        Size { time: true, ..named() },
    ]);
}

fn large(named_keys: usize, time: bool) -> Size {
    Size { keys: 5, writers: 3, batches: 4, faults: 3, copies: 3, time, tuning: tuning(named_keys) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_4_redelivery_changes_no_total(seed: u64, named in 1usize..=5, time: bool) {
        let held = Model::new(large(named, time), None).walk(seed, 120);
        prop_assert_eq!(held, Ok(()));
    }
}

/// How the protocol breaks without `rule`, or as it stands: in the states nearest to the start, else in some random history.
fn broken_without(rule: Option<Rule>) -> Option<Violation> {
    let small = [
        named(),
        exact(),
        Size { keys: 2, copies: 1, ..named() },
        Size { keys: 2, time: true, ..named() },
        Size { writers: 3, ..named() },
    ];
    let near = [1_000, 6_000, 36_000]
        .into_iter()
        .find_map(|most| small.iter().find_map(|size| Model::new(size.clone(), rule).explore(most).err()));
    let mut sizes = [large(5, false), large(1, false), large(5, true)].into_iter().cycle();
    near.or_else(|| (0..300).zip(&mut sizes).find_map(|(seed, size)| Model::new(size, rule).walk(seed, 80).err()))
}

macro_rules! needed {
    ($($name:ident: $rule:ident,)*) => {$(
        #[test]
        fn $name() {
            let violation = broken_without(Some(Rule::$rule));
            assert!(violation.as_ref().is_some_and(|violation| violation.contains("invariant")), "{violation:?}");
        }
    )*};
}

needed! {
    invariant_2_needs_the_fast_update_to_name_its_keys: FastNamesKeys,
    invariant_2_needs_the_fast_update_to_ask_for_sealed: FastAsksSealed,
    invariant_2_needs_sealed_to_be_compared_with_the_least_key: FastAsksLeast,
    invariant_2_needs_the_late_update_to_name_its_keys: LateNamesKeys,
    invariant_2_needs_the_late_update_to_ask_for_the_epoch: LateAsksEpoch,
    invariant_2_needs_the_exact_update_to_ask_for_the_epoch: ExactAsksEpoch,
    invariant_2_needs_the_exact_update_to_ask_for_the_size: ExactAsksSize,
    invariants_2_and_3_need_the_flip_to_ask_for_the_epoch: FlipAsksEpoch,
    invariant_2_needs_sealed_to_be_the_greatest_ever: SealedIsGreatestEver,
    invariant_3_needs_the_page_before_the_flip: PageBeforeFlip,
    invariant_3_needs_a_page_name_unique_to_its_contents: PageNameIsUnique,
    invariant_2_needs_a_consistent_search: SearchIsConsistent,
    invariant_2_needs_the_search_to_go_to_the_end: SearchGoesToTheEnd,
    invariant_2_needs_the_epoch_before_the_search: EpochBeforeSearch,
    invariant_2_needs_pages_to_outlive_attempts: PagesOutliveAttempts,
    invariant_2_needs_what_is_too_old_not_to_be_counted: TooOldIsNotCounted,
}

/// The deliberate bugs that stand in the code which the model runs; the others are in what it stands for.
#[cfg(feature = "bugs")]
#[test]
fn invariants_2_and_3_show_the_deliberate_bugs() {
    use recount_schemas::bugs::{Bug, within};
    for bug in [
        Bug::SearchIsNotRepeated,
        Bug::SearchFromTheGreatest,
        Bug::SealedGoesBack,
        Bug::SealedIsNotRaised,
        Bug::PageMissesAKey,
        Bug::TooOldIsCounted,
    ] {
        let violation = within(bug, || broken_without(None));
        assert!(violation.as_ref().is_some_and(|violation| violation.contains("invariant")), "{bug}: {violation:?}");
    }
}
