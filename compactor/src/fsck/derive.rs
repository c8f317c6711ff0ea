//! A row made anew from its own record: the record is put together again from the row, judged by the definition, and what comes of
//! it must be what the columns say. So whoever reads only columns reads what the events say. A row that says which attributes its
//! images were archived without must lack nothing else.

use recount_schemas::change::envelope;
use recount_schemas::change::omit::Omitted;
use recount_schemas::definition::Identity;
use recount_schemas::{Definition, EventKey, Month};

use super::columns::{Columns, amount, number, text};
use crate::rows::ArchivedRow;
use crate::rows::row::{ERASED, Place};

/// Makes rows anew.
#[derive(Debug, Default)]
pub struct Deriver {
    measures: Vec<Option<i128>>,
}

impl Deriver {
    /// Holds row `i` against its record. What it adds to the fingerprint of all that totals depend on, or what differs.
    pub fn derive(
        &mut self,
        columns: &Columns,
        i: usize,
        key: EventKey,
        content: [u8; 16],
        month: Month,
        definition: &Definition,
    ) -> Result<Option<u128>, String> {
        let Some(deep) = &columns.deep else { return Ok(None) };
        if content == ERASED {
            return Ok(None); // its record was taken away; the log proved that it counts as before
        }
        let (Some(id), Some(envelope), Some(arrived_us)) =
            (text(&deep.ids, i), text(&deep.envelopes, i), number(&deep.arrived, i))
        else {
            return Err("it has no event ID, no envelope or no arrival".to_owned());
        };
        let (keys, new_image, old_image) =
            (text(&deep.item_keys, i), text(&deep.new_images, i), text(&deep.old_images, i));
        let omitted = Omitted::read(envelope);
        let record = envelope::restore(envelope, id, keys, new_image, old_image)
            .map_err(|error| format!("its record cannot be put together: {error}"))?;
        let judged = definition
            .judge(record.as_bytes(), arrived_us)
            .map_err(|reason| format!("its record cannot be judged: {reason}"))?;
        let place = |shard: Option<&str>, sequence: Option<&str>| {
            Some(Place { shard: shard?.parse().ok()?, sequence: sequence?.parse().ok()?, arrived_us })
        };
        let place = place(text(&columns.shards, i), text(&columns.sequences, i));
        let place = place.ok_or("its position is none")?;
        let found = judged.change.content_hash();
        let lacks = omitted.is_some_and(|omitted| found.0 != content && omitted.kept(found));
        let mut row = ArchivedRow::new(definition, &judged, content, &record, place);
        if lacks && definition.identity == Identity::Change {
            // Its key is of the change as it came, which only the content hash knows any more.
            row.key = EventKey::new(judged.change.created_ms(), &content).unwrap_or(row.key);
        }
        self.measures.clear();
        self.measures.extend(columns.measures.iter().map(|measure| amount(measure, i)));
        let measures = (0..columns.measures.len()).map(|m| row.measures.get(m).map(|amount| amount.billionths()));
        let checks = [
            ("event_key", row.key == key),
            ("month", row.month == month),
            ("group_key", row.group.as_ref().map(|group| group.as_str()) == columns.group(i)),
            ("event_name", Some(row.event_name.as_str()) == text(&deep.names, i)),
            ("class", Some(row.class) == text(&deep.classes, i)),
            ("occurred_at_us", Some(row.occurred_us) == number(&deep.occurred, i)),
            ("created_at_us", Some(row.created_us) == number(&deep.created, i)),
            ("source_table", Some(row.table.as_str()) == text(&deep.tables, i)),
            ("user_identity", row.user_identity.as_deref() == text(&deep.identities, i)),
            ("content_hash", lacks || found.0 == content),
            ("its measures", measures.eq(self.measures.iter().copied())),
        ];
        let differing: Vec<&str> = checks.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        match differing.is_empty() {
            true => Ok(Some(row.counted(&self.measures).hash())),
            false => Err(format!("its record gives another {}", differing.join(", "))),
        }
    }
}
