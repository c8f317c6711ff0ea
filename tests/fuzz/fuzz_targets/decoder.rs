//! The bytes of one stream record. Laws: whatever is judged can be put together again from its row in the archive and is
//! then judged the same; and it keeps the bounds on which the totals tables rest.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use recount_fuzz::{ARRIVED_US, definitions};
use recount_schemas::change::envelope::{restore, strip};
use recount_schemas::definition::Definition;
use recount_schemas::fold::MAX_GROUP;
use recount_schemas::{Amount, Change};

static ALL: LazyLock<Vec<Definition>> = LazyLock::new(definitions);

fuzz_target!(|data: &[u8]| {
    let Ok(change) = Change::decode(data) else {
        assert!(ALL.iter().all(|definition| definition.judge(data, ARRIVED_US).is_err()));
        return;
    };
    let text = std::str::from_utf8(data).expect("a decoded record is text");
    let envelope = strip(text).expect("a decoded record has an envelope");
    let again = restore(&envelope, &change.event_id, change.keys, change.new_image, change.old_image)
        .expect("an envelope takes its columns back");
    let restored = Change::decode(again.as_bytes()).expect("a restored record decodes");
    assert_eq!(restored, change, "{again}");
    assert_eq!(restored.content_hash(), change.content_hash());

    for definition in ALL.iter() {
        let judged = definition.judge(data, ARRIVED_US);
        match (&judged, definition.judge(again.as_bytes(), ARRIVED_US)) {
            (Ok(judged), Ok(again)) => assert_eq!(*judged, again),
            (Err(reason), Err(again)) => assert_eq!(*reason, again),
            (judged, again) => panic!("{judged:?} is {again:?} when it comes back from the archive"),
        }
        let Ok(judged) = judged else { continue };
        let adds = judged.effect.contributions();
        assert!(adds.len() <= 2);
        for (cell, delta) in adds {
            assert!((1..=MAX_GROUP).contains(&cell.group.as_str().len()) && cell.lane < definition.lanes);
            assert_eq!(delta.sums.len(), definition.measures.len());
            assert_eq!(delta.negated().negated(), *delta);
            for sum in &delta.sums {
                assert_eq!(Amount::parse_sum(&sum.to_string()), Ok(*sum));
            }
        }
        assert_eq!(judged.key.created_ms(), judged.change.created_ms());
        assert!(judged.measures.is_empty() || judged.measures.len() == definition.measures.len());
    }
});
