//! Reading `recount.toml`: unknown keys are errors, and every error points at its line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{Archive, Count, Definition, EpochUnit, Identity, Measure, OccurredAt, Quota, Zone};

/// The most measures that a definition can sum: each is an operand of every update of a cell.
pub const MAX_MEASURES: usize = 8;
/// The most attributes that the archive can omit.
pub const MAX_OMITTED: usize = 64;
/// The longest name of one, in bytes.
pub const MAX_OMITTED_NAME: usize = 255;
/// The most months that images can be retained, if not for ever.
pub const MAX_RETAINED_MONTHS: u16 = 1_200;
/// The largest definition that is read, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// What is wrong with a definition, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct DefinitionError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: Source,
    fold: Spanned<Fold>,
    #[serde(default)]
    quota: QuotaTable,
    #[serde(default)]
    archive: ArchiveTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    table: Spanned<String>,
    key: Spanned<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fold {
    group_by: Spanned<String>,
    occurred_at: Option<Spanned<Occurred>>,
    time_zone: Option<Spanned<String>>,
    count: Option<CountName>,
    sum: Option<Spanned<Vec<String>>>,
    ttl_deletes: Option<Spanned<TtlName>>,
    identity: Option<Identity>,
    lanes: Option<Spanned<u16>>,
    ledger_days: Option<Spanned<u16>>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "occurred_at is an attribute's name, or { attribute = \"...\", unit = \"s\" | \"ms\" | \"us\" }"
)]
enum Occurred {
    Text(String),
    Epoch(EpochTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochTable {
    attribute: String,
    unit: EpochUnit,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CountName {
    Inserts,
    Net,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TtlName {
    Ignore,
    Subtract,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaTable {
    default: Option<u64>,
    #[serde(default)]
    groups: BTreeMap<String, u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveTable {
    omit: Option<Spanned<Vec<Spanned<String>>>>,
    retain_months: Option<Spanned<u16>>,
}

type Wrong = (Range<usize>, String);

impl Definition {
    /// Reads a definition; `file` is the name that errors bear.
    pub fn parse(text: &str, file: &str) -> Result<Self, DefinitionError> {
        let error = |(span, message): Wrong| DefinitionError {
            file: file.to_owned(),
            line: text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1),
            message,
        };
        if text.len() > MAX_FILE {
            return Err(error((0..0, format!("the file has more than {MAX_FILE} bytes"))));
        }
        let parsed: File = toml::from_str(text)
            .map_err(|e| error((e.span().unwrap_or(0..0), e.message().trim_end().replace('\n', " "))))?;
        check(parsed).map_err(error)
    }
}

fn check(file: File) -> Result<Definition, Wrong> {
    let table = attribute("the table", &file.source.table)?;
    let span = file.source.key.span();
    let key = file.source.key.into_inner();
    if !(1..=2).contains(&key.len()) || key.iter().any(String::is_empty) {
        return Err((span, "key names the partition key and, if the table has one, the sort key".to_owned()));
    }
    if key.first() == key.get(1) {
        return Err((span, "key names one attribute twice; partition key and sort key are two".to_owned()));
    }
    let fold_span = file.fold.span();
    let fold = file.fold.into_inner();
    let group_by = attribute("group_by", &fold.group_by)?;
    let occurred_at = match fold.occurred_at.map(|o| (o.span(), o.into_inner())) {
        None => OccurredAt::CreationTime,
        Some((span, Occurred::Text(name) | Occurred::Epoch(EpochTable { attribute: name, .. }))) if name.is_empty() => {
            return Err((span, "occurred_at names an attribute; leave it out to use the creation time".to_owned()));
        }
        Some((_, Occurred::Text(attribute))) => OccurredAt::Rfc3339 { attribute },
        Some((_, Occurred::Epoch(table))) => OccurredAt::Epoch { attribute: table.attribute, unit: table.unit },
    };
    let zone = match fold.time_zone {
        None => Zone::named("UTC"),
        Some(name) => Some(Zone::named(name.get_ref()).ok_or_else(|| {
            let message =
                format!("no time zone is called {:?}; use an IANA name, as \"Asia/Singapore\"", name.get_ref());
            (name.span(), message)
        })?),
    };
    let zone = zone.ok_or_else(|| (fold_span.clone(), "the time zone database has no UTC".to_owned()))?;
    let subtract = fold.ttl_deletes.as_ref().is_some_and(|t| *t.get_ref() == TtlName::Subtract);
    let count = match (fold.count, &fold.ttl_deletes) {
        (Some(CountName::Net), _) => Count::Net { ttl_subtracts: subtract },
        (_, Some(ttl)) if subtract => {
            let message =
                "ttl_deletes = \"subtract\" goes with count = \"net\": inserts alone never subtract".to_owned();
            return Err((ttl.span(), message));
        }
        _ => Count::Inserts,
    };
    let measures = fold.sum.map_or(Ok(Vec::new()), |sum| measures(sum.span(), sum.into_inner()))?;
    let lanes = fold.lanes.map_or(Ok(1), |lanes| match *lanes.get_ref() {
        n if n.is_power_of_two() && n <= 256 => Ok(n),
        n => Err((lanes.span(), format!("lanes is a power of two from 1 to 256, not {n}"))),
    })?;
    let ledger_days = fold.ledger_days.map_or(Ok(35), |days| match *days.get_ref() {
        n @ 3..=3650 => Ok(n),
        n => Err((days.span(), format!("ledger_days is 3 to 3650 and more than the stream's retention + 2, not {n}"))),
    })?;
    let quota = Quota { default: file.quota.default, groups: file.quota.groups };
    let retain_months = match file.archive.retain_months {
        Some(months) if !(1..=MAX_RETAINED_MONTHS).contains(months.get_ref()) => {
            let message = format!("retain_months is 1 to {MAX_RETAINED_MONTHS}, not {}", months.get_ref());
            return Err((months.span(), message));
        }
        months => months.map(Spanned::into_inner),
    };
    let definition = Definition {
        table,
        key,
        group_by,
        occurred_at,
        zone,
        count,
        measures,
        identity: fold.identity.unwrap_or(Identity::EventId),
        lanes,
        ledger_days,
        quota,
        archive: Archive { omit: Vec::new(), retain_months },
        hash: String::new(),
    };
    let omit = file.archive.omit.map_or(Ok(Vec::new()), |omit| omitted(omit.span(), omit.into_inner(), &definition))?;
    Ok(Definition { archive: Archive { omit, retain_months }, ..definition }.seal())
}

fn omitted(span: Range<usize>, names: Vec<Spanned<String>>, definition: &Definition) -> Result<Vec<String>, Wrong> {
    if names.len() > MAX_OMITTED {
        return Err((span, format!("omit names at most {MAX_OMITTED} attributes")));
    }
    let mut omitted = BTreeSet::new();
    for name in names {
        let (span, name) = (name.span(), name.into_inner());
        if !(1..=MAX_OMITTED_NAME).contains(&name.len()) {
            return Err((span, format!("omit: an attribute's name has 1 to {MAX_OMITTED_NAME} bytes")));
        }
        let is = |other: &String| *other == name;
        let needed = if definition.key.iter().any(is) {
            Some("it is the table's key")
        } else if is(&definition.group_by) {
            Some("it is group_by")
        } else if definition.occurred_at.attribute() == Some(&name) {
            Some("it is occurred_at")
        } else if definition.measures.iter().any(|measure| is(&measure.attribute)) {
            Some("it is summed")
        } else {
            None
        };
        if let Some(why) = needed {
            return Err((span, format!("omit: {name:?} cannot be left out of the archive: {why}")));
        }
        if !omitted.insert(name.clone()) {
            return Err((span, format!("omit names {name:?} twice")));
        }
    }
    Ok(omitted.into_iter().collect())
}

fn attribute(what: &str, name: &Spanned<String>) -> Result<String, Wrong> {
    match name.get_ref() {
        text if text.is_empty() => Err((name.span(), format!("{what} has no name"))),
        text => Ok(text.clone()),
    }
}

fn measures(span: Range<usize>, attributes: Vec<String>) -> Result<Vec<Measure>, Wrong> {
    if attributes.len() > MAX_MEASURES {
        return Err((span, format!("sum names at most {MAX_MEASURES} attributes")));
    }
    let mut columns = BTreeSet::new();
    let mut measures = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if attribute.is_empty() || attribute.len() > 64 || !attribute.chars().all(plain) {
            let message = format!("sum: {attribute:?} cannot be a column (1 to 64 of letters, digits, '_', '-', '.')");
            return Err((span, message));
        }
        let lower = attribute.to_ascii_lowercase().replace(['-', '.'], "_");
        if !columns.insert(lower.clone()) {
            return Err((span, format!("sum: two attributes would share the column measure_{lower}")));
        }
        measures.push(Measure { column: format!("measure_{lower}"), total: format!("sum_{attribute}"), attribute });
    }
    Ok(measures)
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    const SCANS: &str = r#"[source]
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

    fn error(text: &str) -> String {
        Definition::parse(text, "recount.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_documented_file() {
        let definition = Definition::parse(SCANS, "recount.toml").unwrap();
        assert_eq!(definition.occurred_at, OccurredAt::Rfc3339 { attribute: "scanned_at".into() });
        assert_eq!(definition.zone.name(), "Asia/Singapore");
        assert_eq!(definition.measures[0].column, "measure_bytes");
        assert_eq!((definition.quota.of("acme"), definition.quota.of("other")), (Some(500_000), Some(10_000)));
    }

    #[test]
    fn what_may_be_left_out() {
        let definition =
            Definition::parse("[source]\ntable='t'\nkey=['a','b']\n[fold]\ngroup_by='g'", "recount.toml").unwrap();
        assert_eq!(definition.occurred_at, OccurredAt::CreationTime);
        assert_eq!((definition.zone.name(), definition.count), ("UTC", Count::Inserts));
        assert_eq!((definition.lanes, definition.ledger_days, definition.identity), (1, 35, Identity::EventId));
        assert_eq!(definition.quota.of("any"), None);
    }

    #[test]
    fn errors_point_at_their_line() {
        let cases = [
            ("time_zone = \"Asia/Singapore\"", "time_zone = \"Asia/Singapur\""),
            ("lanes = 1", "lanes = 3"),
            ("ttl_deletes = \"ignore\"", "ttl_deletes = \"subtract\""),
            ("count = \"inserts\"", "count = \"all\""),
            ("sum = [\"bytes\"]", "sum = [\"a-b\", \"A_b\"]"),
            ("ledger_days = 35", "ledger_day = 35"),
            ("occurred_at = \"scanned_at\"", "occurred_at = { attribute = \"t\", unit = \"h\" }"),
            ("key = [\"scan_id\"]", "key = []"),
            ("[quota]", "[quota"),
        ];
        let errors: Vec<String> = cases.iter().map(|(from, to)| error(&SCANS.replace(from, to))).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        recount.toml:8: no time zone is called "Asia/Singapur"; use an IANA name, as "Asia/Singapore"
        recount.toml:13: lanes is a power of two from 1 to 256, not 3
        recount.toml:11: ttl_deletes = "subtract" goes with count = "net": inserts alone never subtract
        recount.toml:9: unknown variant `all`, expected `inserts` or `net`
        recount.toml:10: sum: two attributes would share the column measure_a_b
        recount.toml:14: unknown field `ledger_day`, expected one of `group_by`, `occurred_at`, `time_zone`, `count`, `sum`, `ttl_deletes`, `identity`, `lanes`, `ledger_days`
        recount.toml:7: occurred_at is an attribute's name, or { attribute = "...", unit = "s" | "ms" | "us" }
        recount.toml:3: key names the partition key and, if the table has one, the sort key
        recount.toml:16: unclosed table, expected `]`
        "#);
    }

    #[test]
    fn names_are_there_and_bounded() {
        let long = |n: usize| format!("sum = [\"{}\"]", "x".repeat(n));
        let many = |n: u8| format!("sum = [{}]", (0..n).map(|i| format!("\"m{i}\",")).collect::<String>());
        for to in [long(64), many(8)] {
            assert!(Definition::parse(&SCANS.replace("sum = [\"bytes\"]", &to), "x").is_ok(), "{to}");
        }
        let cases = [
            ("table = \"scans\"", "table = \"\"".to_owned()),
            ("key = [\"scan_id\"]", "key = [\"scan_id\", \"\"]".to_owned()),
            ("key = [\"scan_id\"]", "key = [\"scan_id\", \"scan_id\"]".to_owned()),
            ("\"project_id\"", "\"\"".to_owned()),
            ("\"scanned_at\"", "\"\"".to_owned()),
            ("\"scanned_at\"", "{ attribute = \"\", unit = \"s\" }".to_owned()),
            ("[\"bytes\"]", "[\"\"]".to_owned()),
            ("[\"bytes\"]", "[\"a b\"]".to_owned()),
            ("sum = [\"bytes\"]", long(65)),
            ("sum = [\"bytes\"]", many(9)),
        ];
        let errors: Vec<String> = cases.iter().map(|(from, to)| error(&SCANS.replace(from, to))).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        recount.toml:2: the table has no name
        recount.toml:3: key names the partition key and, if the table has one, the sort key
        recount.toml:3: key names one attribute twice; partition key and sort key are two
        recount.toml:6: group_by has no name
        recount.toml:7: occurred_at names an attribute; leave it out to use the creation time
        recount.toml:7: occurred_at names an attribute; leave it out to use the creation time
        recount.toml:10: sum: "" cannot be a column (1 to 64 of letters, digits, '_', '-', '.')
        recount.toml:10: sum: "a b" cannot be a column (1 to 64 of letters, digits, '_', '-', '.')
        recount.toml:10: sum: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" cannot be a column (1 to 64 of letters, digits, '_', '-', '.')
        recount.toml:10: sum names at most 8 attributes
        "#);
    }

    #[test]
    fn what_the_archive_keeps() {
        let parse = |archive: &str| Definition::parse(&format!("{SCANS}[archive]\n{archive}\n"), "recount.toml");
        let archive = |text: &str| parse(text).unwrap().archive;
        assert_eq!(archive(""), Archive::default());
        let kept = archive("omit = [\"phone\", \"mail\"]\nretain_months = 1");
        assert_eq!(kept, Archive { omit: vec!["mail".into(), "phone".into()], retain_months: Some(1) });
        let many = |n: usize| format!("omit = [{}]", (0..n).map(|i| format!("\"a{i}\",")).collect::<String>());
        let long = |n: usize| format!("omit = [\"{}\"]", "x".repeat(n));
        for most in [many(64), long(255), "retain_months = 1200".to_owned()] {
            assert!(parse(&most).is_ok(), "{most}");
        }
        let wrong = [
            "omit = [\n\"mail\",\n\"scan_id\"]".to_owned(),
            "omit = [\"project_id\"]".to_owned(),
            "omit = [\"scanned_at\"]".to_owned(),
            "omit = [\"bytes\"]".to_owned(),
            "omit = [\"mail\", \"mail\"]".to_owned(),
            "omit = [\"\"]".to_owned(),
            long(256),
            many(65),
            "omit = \"mail\"".to_owned(),
            "retain_months = 0".to_owned(),
            "retain_months = 1201".to_owned(),
            "retain_months = -1".to_owned(),
            "retain = 1".to_owned(),
        ];
        let errors: Vec<String> = wrong.iter().map(|text| parse(text).unwrap_err().to_string()).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        recount.toml:22: omit: "scan_id" cannot be left out of the archive: it is the table's key
        recount.toml:20: omit: "project_id" cannot be left out of the archive: it is group_by
        recount.toml:20: omit: "scanned_at" cannot be left out of the archive: it is occurred_at
        recount.toml:20: omit: "bytes" cannot be left out of the archive: it is summed
        recount.toml:20: omit names "mail" twice
        recount.toml:20: omit: an attribute's name has 1 to 255 bytes
        recount.toml:20: omit: an attribute's name has 1 to 255 bytes
        recount.toml:20: omit names at most 64 attributes
        recount.toml:20: invalid type: string "mail", expected a sequence
        recount.toml:20: retain_months is 1 to 1200, not 0
        recount.toml:20: retain_months is 1 to 1200, not 1201
        recount.toml:20: invalid value: integer `-1`, expected u16
        recount.toml:20: unknown field `retain`, expected `omit` or `retain_months`
        "#);
    }

    #[test]
    fn a_file_is_bounded() {
        let padded = |length: usize| format!("{SCANS}{}", " ".repeat(length - SCANS.len()));
        assert!(Definition::parse(&padded(MAX_FILE), "x").is_ok());
        assert_eq!(error(&padded(MAX_FILE + 1)), "recount.toml:1: the file has more than 1048576 bytes");
    }

    #[test]
    fn hashes_never_change() {
        let hash = |text: &str| Definition::parse(text, "x").unwrap().hash()[..16].to_owned();
        let net = SCANS.replace("\"inserts\"", "\"net\"");
        let hashes = [
            hash(SCANS),
            hash(&SCANS.replace("\"scanned_at\"", "{ attribute = \"t\", unit = \"s\" }")),
            hash(&SCANS.replace("occurred_at = \"scanned_at\"", "")),
            hash(&net),
            hash(&net.replace("\"ignore\"", "\"subtract\"")),
            hash(&SCANS.replace("\"event_id\"", "\"change\"")),
        ];
        insta::assert_snapshot!(
            hashes.join(" "),
            @"1a1b4a9bd671d285 6da342bb6d75f0c5 d2de507e213d5cc1 dfd2c55620452b21 fd00a712a8995b43 d1320749f46c202d"
        );
    }

    #[test]
    fn the_hash_covers_all_but_quotas_archive_and_layout() {
        let hash = |text: &str| Definition::parse(text, "x").unwrap().hash().to_owned();
        let base = hash(SCANS);
        assert_eq!(base, hash(&format!("{SCANS}[archive]\nomit = [\"mail\"]\nretain_months = 12\n")));
        assert_eq!(base, hash(&SCANS.replace("10000", "20000").replace("lanes = 1", "lanes = 1  # one")));
        for (from, to) in [
            ("project_id", "tenant"),
            ("Asia/Singapore", "UTC"),
            ("\"inserts\"", "\"net\""),
            ("[\"bytes\"]", "[]"),
            ("\"event_id\"", "\"change\""),
            ("lanes = 1", "lanes = 2"),
            ("ledger_days = 35", "ledger_days = 40"),
            ("\"scanned_at\"", "{ attribute = \"scanned_at\", unit = \"s\" }"),
        ] {
            assert_ne!(base, hash(&SCANS.replace(from, to)), "{to}");
        }
    }
}
