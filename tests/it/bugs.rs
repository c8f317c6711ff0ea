//! Deliberate bugs are for tests that ask for them, and for nobody else.

use recount_schemas::bugs::{self, Bug};

/// Features of one build are united, so if any crate switched the bugs on, they would be on here.
#[test]
fn no_bug_is_built_in_unless_a_test_asks_for_it() {
    assert_eq!(bugs::ENABLED, cfg!(feature = "bugs"));
    assert!(!Bug::ALL.iter().any(|bug| bugs::on(*bug)));
}
