//! Writes the seeds: real records, events, entries and files, made by the code that makes them in production.
//!
//! ```sh
//! cargo run --manifest-path tests/fuzz/Cargo.toml --features sdk --example seeds -- tests/fuzz/seeds
//! ```
//!
//! The same bytes at every run, unless the code changed what it writes.

use std::fs;
use std::path::Path;

use recount_compactor::log::{Digest, Entry, Kind, Lost, ShardRange, State, Stream, names};
use recount_compactor::rows::row::{ArchivedRow, Place};
use recount_compactor::rows::{Written, write};
use recount_fuzz::{ARRIVED_US, DEFINITIONS, definitions};
use recount_schemas::Definition;

fn main() -> std::io::Result<()> {
    let to = std::env::args().nth(1).unwrap_or_else(|| "seeds".into());
    let to = Path::new(&to);
    let all = definitions();
    let write_all = |target: &str, seeds: &[Vec<u8>]| -> std::io::Result<()> {
        let folder = to.join(target);
        fs::create_dir_all(&folder)?;
        seeds.iter().enumerate().try_for_each(|(i, seed)| fs::write(folder.join(format!("{i:02}")), seed))
    };
    let records = records();
    write_all("decoder", &records)?;
    write_all(
        "definition",
        &DEFINITIONS.iter().map(|text| text.as_bytes().to_vec()).chain([DOCUMENTED.into()]).collect::<Vec<_>>(),
    )?;
    write_all("lambda_event", &events(&records))?;
    write_all("commit_log", &logs(&all[0], &records))?;
    write_all("parquet", &files(&all, &records))
}

const DOCUMENTED: &str = r#"[source]
table = "scans"
key = ["scan_id"]

[fold]
group_by = "project_id"
occurred_at = "scanned_at"
time_zone = "Asia/Singapore"
count = "inserts"
sum = ["bytes"]
ttl_deletes = "ignore"
identity = "event_id"
lanes = 1
ledger_days = 35

[quota]
default = 10000
groups = { acme = 500000 }
"#;

const CREATED_US: i64 = ARRIVED_US - 100_000_000;

/// The `i`th item, as an image.
fn image(i: usize) -> String {
    let group = ["acme", "globex", "initech", "große"][i % 4];
    let t = CREATED_US / [1_000_000, 1_000, 1][i % 3];
    format!(
        r#"{{"scan_id":{{"S":"s{i}"}},"project_id":{{"S":"{group}"}},"scanned_at":{{"S":"2026-11-2{}T23:59:59.5+08:00"}},"t":{{"N":"{t}"}},"bytes":{{"N":"{}.25"}},"n":{{"N":"-1E+2"}},"tags":{{"SS":["b","a"]}},"deep":{{"M":{{"L":{{"L":[{{"NULL":true}},{{"B":"AAE="}}]}}}}}}}}"#,
        i % 2,
        i * 7
    )
}

/// Records in both forms, of every kind.
fn records() -> Vec<Vec<u8>> {
    let kinesis = |i: usize, name: &str, images: &str, precision: &str, created: i64, identity: &str| {
        format!(
            r#"{{"awsRegion":"us-east-1","eventID":"f89436e0-627d-4d37-9879-{i:012}","eventName":"{name}","userIdentity":{identity},"recordFormat":"application/json","tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":{created},"Keys":{{"scan_id":{{"S":"s{i}"}}}},{images}"SizeBytes":26{precision}}},"eventSource":"aws:dynamodb"}}"#
        )
    };
    let micro = r#","ApproximateCreationDateTimePrecision":"MICROSECOND""#;
    let milli = r#","ApproximateCreationDateTimePrecision":"MILLISECOND""#;
    let ttl = r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
    let new = |i| format!(r#""NewImage":{},"#, image(i));
    let old = |i| format!(r#""OldImage":{},"#, image(i));
    let both = |i, j| new(i) + &old(j);
    let streams = |i: usize, name: &str, images: &str| {
        format!(
            r#"{{"eventID":"7de3041dd709b024af6f29e4fa1{i:05}","eventName":"{name}","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-west-2","dynamodb":{{"ApproximateCreationDateTime":{}.0,"Keys":{{"scan_id":{{"S":"s{i}"}}}},{images}"SequenceNumber":"44215845000000000174504390{i:02}","SizeBytes":26,"StreamViewType":"NEW_AND_OLD_IMAGES"}},"userIdentity":{ttl},"eventSourceARN":"arn:aws:dynamodb:us-west-2:111122223333:table/scans/stream/2026-05-11T21:21:33.291"}}"#,
            CREATED_US / 1_000_000
        )
    };
    [
        kinesis(0, "INSERT", &new(0), micro, CREATED_US, "null"),
        kinesis(1, "INSERT", &new(1), milli, CREATED_US / 1_000, "null"),
        kinesis(2, "MODIFY", &both(2, 3), micro, CREATED_US, "null"),
        kinesis(3, "MODIFY", &both(3, 7), "", CREATED_US / 1_000, r#"{"type":"x"}"#),
        kinesis(4, "REMOVE", &old(4), micro, CREATED_US, ttl),
        kinesis(5, "REMOVE", &old(5), "", CREATED_US, "null"),
        streams(6, "INSERT", &new(6)),
        streams(7, "REMOVE", &old(7)),
        kinesis(8, "INSERT", &new(8).replace("project_id", r"project\u005fid"), micro, CREATED_US + 1, "null"),
        kinesis(9, "INSERT", "", micro, CREATED_US, "null").replace("scans", "another"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Standard base64, as Lambda writes a record's data.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = char::from(DIGITS[(n >> (18 - 6 * place)) as usize & 63]);
            out.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

/// Events of both functions.
fn events(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let of_consumer = |records: &[&[u8]]| {
        let items: Vec<String> = records.iter().enumerate().map(|(i, record)| {
            format!(
                r#"{{"kinesis":{{"kinesisSchemaVersion":"1.0","partitionKey":"p{i}","sequenceNumber":"4965456789012345678901234567890123456789012345678901{i:04}","data":"{}","approximateArrivalTimestamp":{}.125}},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-00000000000{}:4965","eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::1:role/r","awsRegion":"us-east-1","eventSourceARN":"arn:aws:kinesis:us-east-1:123456789012:stream/changes"}}"#,
                base64(record), ARRIVED_US / 1_000_000, i % 2
            )
        }).collect();
        format!(r#"{{"Records":[{}]}}"#, items.join(",")).into_bytes()
    };
    let of_relay = |records: &[Vec<u8>]| [b"{\"Records\":[".to_vec(), records.join(&b','), b"]}".to_vec()].concat();
    let short = br#"{"eventID":"e","eventName":"REMOVE","tableName":"t","dynamodb":{"ApproximateCreationDateTime":1795305500000}}"#;
    vec![
        of_consumer(&[&records[0], &records[2], &records[0]]),
        of_consumer(&[&records[4], b"not a change", &records[5]]),
        of_consumer(&[short, &[0xff, 0xfe], b""]),
        of_relay(&records[6..8]),
        br#"{"Records":[]}"#.to_vec(),
    ]
}

fn rows(definition: &Definition, records: &[Vec<u8>], copies: usize) -> Vec<ArchivedRow> {
    let mut rows = Vec::new();
    for copy in 0..copies {
        for (i, record) in records.iter().enumerate() {
            let text = String::from_utf8(record.clone()).expect("text");
            let text = text.replace("-9879-", &format!("-{copy:04}-")).replace("f29e4fa1", &format!("f29e{copy:04}"));
            let Ok(judged) = definition.judge(text.as_bytes(), ARRIVED_US) else { continue };
            let place = Place {
                shard: "shardId-000000000000".parse().expect("a shard"),
                sequence: format!("4965456789{:08}", copy * 100 + i).parse().expect("a number"),
                arrived_us: ARRIVED_US,
            };
            rows.push(ArchivedRow::new(definition, &judged, judged.change.content_hash().0, &text, place));
        }
    }
    rows
}

fn written(definition: &Definition, records: &[Vec<u8>], copies: usize) -> Written {
    let month = "2026-11".parse().expect("a month");
    let written = write(definition, month, rows(definition, records, copies)).expect("rows make a file");
    written.expect("there are rows")
}

/// Logs: a line is an entry; `~` has the target give it its place.
fn logs(definition: &Definition, records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let file = written(definition, records, 1);
    let stream = Stream { arn: "arn:aws:kinesis:us-east-1:0:stream/s".into(), created_ms: 1 };
    let range = |shard: &str, from: Option<&str>, to: Option<&str>, records: u64| ShardRange {
        shard: shard.parse().expect("a shard"),
        parents: vec![],
        from: from.map(|n| n.parse().expect("a number")),
        to: to.map(|n| n.parse().expect("a number")),
        closed: false,
        caught_up_ms: Some(5),
        records,
        rows: records,
        duplicates: 0,
        conflicts: 0,
        quarantined: 0,
        lost: None,
    };
    let count = file.fingerprint.rows;
    let base = |n: u64, kind: Kind| Entry {
        format: 1,
        n,
        kind,
        previous: None,
        folded: None,
        at_ms: 5,
        definition: definition.hash().into(),
        token: "0af1".into(),
        origin: None,
        seed: None,
        base: n,
        stream: Some(stream.clone()),
        retention_hours: Some(24),
        ranges: vec![],
        added: vec![],
        removed: vec![],
        versions: Default::default(),
    };
    let added =
        |n: u64, version: u64| file.added(names::staged(n, "0af1", 0), names::target(file.month, version, n, 0));
    let first =
        Entry { ranges: vec![range("s0", None, Some("9"), count)], added: vec![added(0, 0)], ..base(0, Kind::Archive) };
    let closing = Entry {
        ranges: vec![
            ShardRange {
                closed: true,
                lost: Some(Lost {
                    after: Some("9".parse().expect("a number")),
                    before: None,
                    since_ms: None,
                    found_ms: 7,
                }),
                ..range("s0", Some("9"), Some("9"), 0)
            },
            ShardRange {
                parents: vec!["s0".parse().expect("a shard")],
                records: count + 3,
                duplicates: 1,
                conflicts: 1,
                quarantined: 1,
                ..range("s1", None, Some("10"), count)
            },
        ],
        added: vec![added(1, 0)],
        ..base(1, Kind::Archive)
    };
    let renewal = Entry { ranges: vec![range("s1", Some("10"), Some("10"), 0)], ..base(2, Kind::Renewal) };
    let mut both = file.added(names::staged(3, "0af1", 0), names::target(file.month, 3, 3, 0));
    both.fingerprint.add(&file.fingerprint).expect("the sums fit");
    both.rows *= 2;
    let compaction = Entry {
        stream: None,
        retention_hours: None,
        added: vec![both],
        removed: vec![names::target(file.month, 0, 0, 0), names::target(file.month, 0, 1, 0)],
        versions: [(file.month, 3)].into(),
        ..base(3, Kind::Compaction)
    };
    let mut state = State::default();
    let mut lines = Vec::new();
    for mut entry in [first, closing, renewal, compaction] {
        entry.previous = state.head;
        let bytes = entry.to_bytes().expect("an entry has JSON");
        state.apply(entry, Digest::of(&bytes)).expect("it follows");
        lines.push(bytes);
    }
    let log = |mark: &[u8], lines: &[Vec<u8>]| {
        lines.iter().map(|line| [mark, line].concat()).collect::<Vec<_>>().join(&b'\n')
    };
    let folded = serde_json::to_vec(&state).expect("a state has JSON");
    vec![log(b"", &lines), log(b"~", &lines), log(b"~", &lines[..1]), folded]
}

/// Files as they are written, and the same rows without compression, so that what the fuzzer changes reaches the decoders.
fn files(all: &[Definition], records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for (definition, records) in [(&all[0], records), (&all[1], &records[..3])] {
        let bytes = written(definition, records, 1).bytes;
        files.push(plain(&bytes, 1));
        files.push(bytes.to_vec());
    }
    files.push(plain(&written(&all[0], &records[..1], 40).bytes, 4));
    files
}

/// The file again: uncompressed, `pages` pages a column, with dictionaries, and page indexes.
fn plain(bytes: &bytes::Bytes, pages: usize) -> Vec<u8> {
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::WriterProperties;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("our own file");
    let count = reader.metadata().file_metadata().num_rows() as usize;
    let said = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let said = said.into_iter().filter(|pair| pair.key.starts_with("recount.")).collect();
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(said))
        .set_max_row_group_row_count(Some(count.div_ceil(2)))
        .set_data_page_row_count_limit(count.div_ceil(2 * pages))
        .set_write_batch_size(1)
        .build();
    let schema = reader.schema().clone();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("a writer");
    for batch in reader.build().expect("a reader") {
        writer.write(&batch.expect("our own rows")).expect("they are written");
    }
    writer.into_inner().expect("a file")
}
