//! The Arrow schemas of what the archive holds.
//!
//! Names are lower-case and stable; no column is of an unsigned type: readers of Hive tables resolve Parquet columns by
//! name, and Athena has no unsigned integers. Times stand twice: as a millisecond `TIMESTAMP` (all that Athena's DDL has)
//! in UTC, and exactly, as microseconds in a `BIGINT`.
//!
//! # The archive's columns
//!
//! `events/month=2026-11/<version>/<commit>-<i>.parquet`, a row per change, sorted by (`group_key`, `event_key`). The types are those
//! of Athena and DuckDB, which agree but for the names in parentheses, DuckDB's.
//!
//! | column | type | null | what it is |
//! | --- | --- | --- | --- |
//! | `event_key` | BINARY (BLOB) | no | 16 bytes: creation time in ms, 48 bits, big-endian; 80 bits of BLAKE3. No two rows have the same |
//! | `event_id` | VARCHAR | no | the record's own `eventID` |
//! | `event_name` | VARCHAR | no | `INSERT`, `MODIFY` or `REMOVE` |
//! | `class` | VARCHAR | no | `insert`, `modify`, `remove`, or `ttl` for a removal by expiry |
//! | `group_key` | VARCHAR | yes | the group, by the new image, of a removal by the old one; null where that gives none |
//! | `occurred_at` | TIMESTAMP | no | the event's time, ms, UTC; the creation time where the item gives none |
//! | `occurred_at_us` | BIGINT | no | the same, µs since 1970 |
//! | `created_at_us` | BIGINT | no | when DynamoDB says that the change was made, µs since 1970 |
//! | `source_table` | VARCHAR | no | the table that changed |
//! | `shard_id` | VARCHAR | no | the Kinesis shard that the record was read from |
//! | `sequence_number` | VARCHAR | no | its sequence number there, decimal, longer than any integer type; to compare two of a shard, compare lengths, then text |
//! | `arrived_at_us` | BIGINT | no | when the record arrived in the stream, µs since 1970 |
//! | `keys` | VARCHAR | yes | the item's key, DynamoDB JSON, as it came |
//! | `new_image` | VARCHAR | yes | the item after the change, DynamoDB JSON, as it came |
//! | `old_image` | VARCHAR | yes | the item before the change, DynamoDB JSON, as it came |
//! | `user_identity` | VARCHAR | yes | who made the change, JSON, as it came; for most nobody in particular |
//! | `envelope` | VARCHAR | no | all else of the record, JSON: with it the record can be put together again |
//! | `content_hash` | BINARY (BLOB) | no | 16 bytes of BLAKE3 over the canonical change, event ID left out |
//! | `measure_<attribute>` | DECIMAL(38, 9) | yes | one for each summed attribute, of the same image as the group |
//! | `month` | VARCHAR | no | the partition, not in the file: the month of the row in the definition's time zone, as `2026-11` |
//!
//! Under `count = "inserts"` a total is `count(*)` and `sum(measure_…)` of the rows of class `insert`. `totals/monthly/totals.parquet` and
//! `totals/yearly/totals.parquet`, as `recount recompute` writes them: `group_key` VARCHAR, `period` VARCHAR (`2026-11`, `2026`),
//! `events` BIGINT, `sum_<attribute>` DECIMAL(38, 9), none null.
//!
//! # Findings
//!
//! `findings/findings.parquet`: what the last `recount reconcile` of all cells found, replaced as one object. A row per event that a finding
//! names, or one for a finding that names none; no row where nothing is wrong.
//!
//! | column | type | null | what it is |
//! | --- | --- | --- | --- |
//! | `finding` | BIGINT | no | the finding's number among these, from 0: rows of one finding have the same |
//! | `kind` | VARCHAR | no | its token, such as `missing` |
//! | `group_key`, `month` | VARCHAR | yes | the cell; null for what concerns no cell |
//! | `lane` | INTEGER | yes | the cell's lane |
//! | `expected`, `actual` | BIGINT | yes | the events that the cell would have if nothing were wrong, and those that it has |
//! | `events` | BIGINT | no | how many events the finding concerns, also where not all are named |
//! | `detail` | VARCHAR | no | what was seen, in words |
//! | `event_key` | BINARY (BLOB) | yes | the event; null where none is named |
//! | `event_id`, `shard_id`, `sequence_number` | VARCHAR | yes | where it stood in the stream; null for a key that the archive does not have |
//! | `file` | VARCHAR | yes | the object that holds it |
//! | `row_group` | INTEGER | yes | the row group in that file, from 0; null where it is no Parquet file |
//! | `row_number` | BIGINT | yes | the row in that file, from 0 |
//! | `log_entry` | BIGINT | no | the last entry of the archive's log that was compared |
//! | `found_at` | TIMESTAMP | no | when the reconcile ended, ms, UTC |
//! | `expected_sum_<attribute>`, `actual_sum_<attribute>` | DECIMAL(38, 9) | yes | the cell's sums, as `expected` and `actual` |

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::amount::{PRECISION, SCALE};
use crate::definition::Definition;

/// The format of archived rows that this code writes, and the newest that it reads; kept in each file's metadata.
pub const FORMAT: u32 = 1;

/// Columns of an archived event. The measures' columns, `measure_<attribute>`, come behind them.
pub mod column {
    /// The event key, 16 bytes; rows are sorted by group, then by this.
    pub const EVENT_KEY: &str = "event_key";
    /// The record's event ID.
    pub const EVENT_ID: &str = "event_id";
    /// INSERT, MODIFY or REMOVE.
    pub const EVENT_NAME: &str = "event_name";
    /// insert, modify, remove or ttl.
    pub const CLASS: &str = "class";
    /// The group; null where the row's image does not give one.
    pub const GROUP_KEY: &str = "group_key";
    /// The event's time, milliseconds, UTC.
    pub const OCCURRED_AT: &str = "occurred_at";
    /// The event's time, microseconds since 1970.
    pub const OCCURRED_AT_US: &str = "occurred_at_us";
    /// The change's creation time, microseconds since 1970.
    pub const CREATED_AT_US: &str = "created_at_us";
    /// The source table.
    pub const SOURCE_TABLE: &str = "source_table";
    /// The shard that the record was read from.
    pub const SHARD_ID: &str = "shard_id";
    /// The record's sequence number.
    pub const SEQUENCE_NUMBER: &str = "sequence_number";
    /// The record's arrival in the stream, microseconds since 1970.
    pub const ARRIVED_AT_US: &str = "arrived_at_us";
    /// The item's key, JSON text as it came.
    pub const KEYS: &str = "keys";
    /// The item after the change, JSON text as it came.
    pub const NEW_IMAGE: &str = "new_image";
    /// The item before the change, JSON text as it came.
    pub const OLD_IMAGE: &str = "old_image";
    /// Who made the change, JSON text as it came; null for most.
    pub const USER_IDENTITY: &str = "user_identity";
    /// All else of the record, JSON text.
    pub const ENVELOPE: &str = "envelope";
    /// 16 bytes of BLAKE3 over the canonical change.
    pub const CONTENT_HASH: &str = "content_hash";
}

/// The schema of archived events under a definition. The month is the partition, not a column.
pub fn events_schema(definition: &Definition) -> SchemaRef {
    use column::*;
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new(EVENT_KEY, DataType::Binary, false),
        text(EVENT_ID, false),
        text(EVENT_NAME, false),
        text(CLASS, false),
        Field::new(GROUP_KEY, dictionary, true),
        Field::new(OCCURRED_AT, DataType::Timestamp(TimeUnit::Millisecond, None), false),
        number(OCCURRED_AT_US),
        number(CREATED_AT_US),
        text(SOURCE_TABLE, false),
        text(SHARD_ID, false),
        text(SEQUENCE_NUMBER, false),
        number(ARRIVED_AT_US),
        text(KEYS, true),
        text(NEW_IMAGE, true),
        text(OLD_IMAGE, true),
        text(USER_IDENTITY, true),
        text(ENVELOPE, false),
        Field::new(CONTENT_HASH, DataType::Binary, false),
    ];
    fields.extend(definition.measures.iter().map(|measure| amount(&measure.column, true)));
    Arc::new(Schema::new(fields))
}

/// The schema of recounted totals: `totals/monthly/totals.parquet` has `period` as `2026-11`, `totals/yearly/totals.parquet` as `2026`.
pub fn totals_schema(definition: &Definition) -> SchemaRef {
    let mut fields = vec![
        Field::new(column::GROUP_KEY, DataType::Utf8, false),
        Field::new("period", DataType::Utf8, false),
        Field::new("events", DataType::Int64, false),
    ];
    fields.extend(
        definition
            .measures
            .iter()
            .map(|measure| amount(&measure.total.to_ascii_lowercase().replace(['-', '.'], "_"), false)),
    );
    Arc::new(Schema::new(fields))
}

/// The schema of `findings/findings.parquet`.
pub fn findings_schema(definition: &Definition) -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str, nullable| Field::new(name, DataType::Int64, nullable);
    let mut fields = vec![
        number("finding", false),
        text("kind", false),
        text(column::GROUP_KEY, true),
        text("month", true),
        Field::new("lane", DataType::Int32, true),
        number("expected", true),
        number("actual", true),
        number("events", false),
        text("detail", false),
        Field::new(column::EVENT_KEY, DataType::Binary, true),
        text(column::EVENT_ID, true),
        text(column::SHARD_ID, true),
        text(column::SEQUENCE_NUMBER, true),
        text("file", true),
        Field::new("row_group", DataType::Int32, true),
        number("row_number", true),
        number("log_entry", false),
        Field::new("found_at", DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ];
    for side in ["expected", "actual"] {
        let name = |total: &str| format!("{side}_{}", total.to_ascii_lowercase().replace(['-', '.'], "_"));
        fields.extend(definition.measures.iter().map(|measure| amount(&name(&measure.total), true)));
    }
    Arc::new(Schema::new(fields))
}

fn amount(name: &str, nullable: bool) -> Field {
    // PRECISION and SCALE are 38 and 9: the scale fits an i8.
    Field::new(name, DataType::Decimal128(PRECISION, SCALE as i8), nullable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_lower_case_and_signed() {
        let definition = Definition::parse(
            "[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['Bytes-In','x']",
            "recount.toml",
        )
        .unwrap();
        for schema in [events_schema(&definition), totals_schema(&definition), findings_schema(&definition)] {
            for field in schema.fields() {
                assert_eq!(field.name(), &field.name().to_lowercase());
                assert!(!field.data_type().is_unsigned_integer(), "{field}");
            }
        }
        assert!(events_schema(&definition).field_with_name("measure_bytes_in").is_ok());
        assert!(totals_schema(&definition).field_with_name("sum_bytes_in").is_ok());
    }
}
