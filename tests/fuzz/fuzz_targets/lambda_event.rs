//! The event of a function. The consumer's laws: a batch that is judged has a verdict or a cell for each of its records, in
//! whatever way its cells come out; a shard's progress lies below its lowest failure; what is quarantined is kept whole. The
//! relay's: each record keeps its text.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use recount_consumer::batch::{Batch, CellWork};
use recount_consumer::totals::Applied;
use recount_fuzz::definitions;
use recount_producer::relay::event::Envelope;
use recount_schemas::definition::Definition;
use recount_schemas::quarantine::Quarantined;

static ALL: LazyLock<Vec<Definition>> = LazyLock::new(definitions);

/// What becomes of a cell: everything that can, decided by the place of the key.
fn outcome(work: &CellWork, salt: usize) -> Option<Applied> {
    let mut applied = Applied::default();
    for (i, entry) in work.entries.iter().enumerate() {
        match (i + salt) % 4 {
            0 => applied.applied.push(entry.key),
            1 => applied.duplicates.push(entry.key),
            2 => applied.too_old.push(entry.key),
            _ => {}
        }
    }
    (salt % 5 != 4).then_some(applied)
}

fuzz_target!(|data: &[u8]| {
    for definition in ALL.iter().take(3) {
        let Ok((mut batch, work)) = Batch::judge(data, definition) else { break };
        for (i, cell) in work.cells.iter().enumerate() {
            batch.settle_cell(cell, outcome(cell, i + data.len()).as_ref());
        }
        for (index, quarantined) in &work.quarantine {
            let text = serde_json::to_vec(quarantined).expect("a quarantined record has JSON");
            let back: Quarantined = serde_json::from_slice(&text).expect("and is read back");
            assert_eq!(back, *quarantined);
            if index % 3 == 2 {
                batch.quarantine_failed(*index);
            }
        }
        let failed = batch.verdicts().filter(|(_, verdict)| verdict.is_none()).count();
        let reaches = batch.reaches();
        assert_eq!(failed > 0, reaches.values().any(|reach| reach.lowest_failed.is_some()));
        for ((stream, shard), reach) in reaches {
            for (position, verdict) in batch.verdicts().filter(|(p, _)| p.stream == stream && p.shard == *shard) {
                if reach.done.as_ref().is_some_and(|done| position.sequence <= *done) {
                    assert!(verdict.is_some(), "{position:?} is below the progress and failed");
                }
            }
        }
    }
    if let Ok(envelope) = Envelope::decode(data) {
        for record in envelope.records().unwrap_or_default() {
            assert!(data.as_ptr_range().contains(&record.text.as_ptr()), "a record is a part of its event");
            assert!(!record.partition_key.is_empty() && record.partition_key.chars().count() <= 256);
        }
    }
});
