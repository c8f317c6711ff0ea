//! The bytes of an archived file, as a reader of the archive meets them: rows of all columns, contributions to cells, and the
//! look-up of keys through statistics and page index. Laws: an error or rows, nothing else; what the log says of the file
//! (its size, its rows) is taken from the file here, so that its contents are reached. libFuzzer's limits say the rest: no
//! single allocation above, and no memory in all above what `tests/long/fuzz` gives.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::StreamExt;
use libfuzzer_sys::fuzz_target;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use recount_compactor::contributions::columns::{Needs, Rows};
use recount_compactor::log::{AddedFile, Digest, Fingerprint};
use recount_compactor::rows::{claims, lookup, read};
use recount_fuzz::bucket::Fixed;
use recount_fuzz::{definitions, panics};
use recount_schemas::archive::events_schema;
use recount_schemas::{Definition, EventKey};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));
static ALL: LazyLock<Vec<Definition>> = LazyLock::new(definitions);

const TARGET: &str = "events/month=2026-11/000000000000/000000000000-0.parquet";

/// The number of rows that the footer gives, if it can be read at all.
fn rows(data: &[u8]) -> Option<u64> {
    let end = data.len().checked_sub(8)?;
    let tail = FooterTail::try_from(data.get(end..)?).ok()?;
    let footer = data.get(end.checked_sub(tail.metadata_length())?..end)?;
    claims::footer(footer).ok()?;
    let metadata = std::panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(footer)).ok()?.ok()?;
    u64::try_from(metadata.file_metadata().num_rows()).ok()
}

fn file(data: &[u8], rows: u64) -> AddedFile {
    AddedFile {
        source: "_staging/000000000000-0/0".into(),
        target: TARGET.into(),
        month: "2026-11".parse().expect("a month"),
        rows,
        bytes: data.len() as u64,
        sha256: Digest::of(data), // else no reader would go on
        first_key: EventKey::MIN,
        last_key: EventKey::MAX,
        first_group: None,
        last_group: None,
        fingerprint: Fingerprint::default(),
    }
}

fuzz_target!(|data: &[u8]| {
    panics::allow_in_parquet();
    let file = file(data, rows(data).unwrap_or(1));
    let bucket = Fixed(Arc::new(BTreeMap::from([(TARGET.to_owned(), Bytes::copy_from_slice(data))])));
    RUNTIME.block_on(async {
        for definition in ALL.iter().take(2) {
            let all = events_schema(definition);
            let all: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
            let needs = Needs { origin: true, content: true, times: true }.columns(definition);
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            for columns in [&all, &needs] {
                let mut batches = std::pin::pin!(read(&bucket, &file, columns));
                let mut seen = 0u64;
                while let Some(Ok(batch)) = batches.next().await {
                    seen += batch.num_rows() as u64;
                    assert!(batch.num_rows() <= 8_192 && seen <= file.rows);
                    let Ok(rows) = Rows::new(&batch, Arc::from(TARGET), file.month, definition) else { continue };
                    for i in 0..rows.len() {
                        let _ = (rows.key(i), rows.group(i), rows.content(i), rows.origin(i));
                        let _ = (rows.occurred_us(i), rows.created_us(i), rows.contributions(i, definition));
                    }
                }
            }
        }
        let key = |n: u128| EventKey::from_bytes(((1_795_305_500_000u128 << 80) + n).to_be_bytes());
        for keys in [BTreeSet::from([key(1), key(1 << 79)]), BTreeSet::from([EventKey::MIN, EventKey::MAX])] {
            if let Ok(found) = lookup(&bucket, &file, &keys).await {
                assert!(found.iter().all(|row| keys.contains(&row.key)));
            }
        }
    });
});
