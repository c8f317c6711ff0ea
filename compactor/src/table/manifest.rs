//! What an export says of itself: `manifest-summary.json` and `manifest-files.json` (DynamoDB Developer Guide,
//! "S3DataExport.Output"). Pure.
//!
//! | the summary says | then |
//! | --- | --- |
//! | `outputFormat` `DYNAMODB_JSON`, `exportType` `FULL_EXPORT` or none (older exports) | it is read |
//! | `ION` | refused: export it again as DYNAMODB_JSON |
//! | `INCREMENTAL_EXPORT` | refused: an item that came and went within its window is not in it |
//! | another table's ARN | refused |
//!
//! Names in a manifest are taken only by what stands behind `AWSDynamoDB/<id>/`, below the folder that was given: so an
//! export that was copied elsewhere reads the same, and no manifest can name any other object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The largest `manifest-summary.json`, in bytes.
pub const MAX_SUMMARY: u64 = 1 << 20;
/// The largest `manifest-files.json`, in bytes: 100,000 files of some 300 bytes each.
pub const MAX_FILES_MANIFEST: u64 = 64 << 20;
/// Most data files of an export.
pub const MAX_FILES: usize = 200_000;

/// Where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The folder, without a slash at its end: `…AWSDynamoDB/<id>`.
    pub folder: String,
    /// The export's ID.
    pub id: String,
}

/// The export cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The address is none.
    #[error("{0:?} is no export: give s3://BUCKET/PREFIX/AWSDynamoDB/ID, the folder that has manifest-summary.json")]
    Address(String),
    /// The manifest is not understood.
    #[error("{name}: {why}")]
    Malformed {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The export is of a kind that is not read.
    #[error("the export is {what}: {hint}")]
    Kind {
        /// What it is.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is of another table.
    #[error("the export is of table {found:?}, the definition counts {wanted:?}")]
    Table {
        /// Its table.
        found: String,
        /// The definition's.
        wanted: String,
    },
}

impl Location {
    /// Reads `s3://bucket/prefix/AWSDynamoDB/id`.
    pub fn parse(address: &str) -> Result<Self, ManifestError> {
        let bad = || ManifestError::Address(address.chars().take(300).collect());
        let (bucket, folder) = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
        let folder = folder.trim_end_matches('/');
        let (before, id) = folder.rsplit_once('/').ok_or_else(bad)?;
        let named = before == "AWSDynamoDB" || before.ends_with("/AWSDynamoDB");
        if bucket.is_empty() || id.is_empty() || !named {
            return Err(bad());
        }
        Ok(Self { bucket: bucket.to_owned(), folder: folder.to_owned(), id: id.to_owned() })
    }

    /// The name of a file of the export.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// The object that a manifest names.
    pub fn resolve(&self, named: &str) -> Result<String, ManifestError> {
        let marker = format!("AWSDynamoDB/{}/", self.id);
        let tail = named.rsplit_once(&marker).map(|(_, tail)| tail);
        let plain = |tail: &&str| !tail.is_empty() && tail.split('/').all(|part| !matches!(part, "" | "." | ".."));
        tail.filter(plain).map(|tail| self.key(tail)).ok_or_else(|| ManifestError::Malformed {
            name: self.key("manifest-files.json"),
            why: format!("it names {:?}, which is not below {}", short(named), self.folder),
        })
    }
}

/// `manifest-summary.json`, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The table's ARN.
    pub table_arn: String,
    /// The moment that the export shows, RFC 3339.
    pub export_time: String,
    /// The name of `manifest-files.json`.
    #[serde(rename = "manifestFilesS3Key")]
    pub manifest_files: String,
    /// How many items it has.
    pub item_count: u64,
    /// `DYNAMODB_JSON` or `ION`.
    pub output_format: String,
    /// `FULL_EXPORT` or `INCREMENTAL_EXPORT`; absent in exports of before 2023.
    pub export_type: Option<String>,
}

impl Summary {
    /// Reads it, and refuses what the table above refuses.
    pub fn read(name: &str, bytes: &[u8], table: &str) -> Result<Self, ManifestError> {
        let malformed = |why: String| ManifestError::Malformed { name: name.to_owned(), why };
        let summary: Self = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        match summary.export_type.as_deref() {
            None | Some("FULL_EXPORT") => {}
            Some(other) => {
                return Err(ManifestError::Kind {
                    what: format!("of type {}", short(other)),
                    hint: "make a FULL_EXPORT; an incremental one leaves out what came and went within its window",
                });
            }
        }
        if summary.output_format != "DYNAMODB_JSON" {
            return Err(ManifestError::Kind {
                what: format!("in format {}", short(&summary.output_format)),
                hint: "export the table as DYNAMODB_JSON",
            });
        }
        let found = summary.table_arn.rsplit_once(":table/").map_or("", |(_, name)| name);
        if found != table {
            return Err(ManifestError::Table { found: short(found), wanted: table.to_owned() });
        }
        summary
            .export_us()
            .ok_or_else(|| malformed(format!("exportTime {:?} is no time", short(&summary.export_time))))?;
        Ok(summary)
    }

    /// The moment that the export shows, µs since 1970.
    pub fn export_us(&self) -> Option<i64> {
        self.export_time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
    }
}

/// One line of `manifest-files.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataFile {
    /// How many items it has.
    pub item_count: u64,
    /// The MD5 of the file as it is stored, in base64. (The `etag` beside it is the MD5 of this one, for an upload in one
    /// part; where the bucket encrypts with KMS it is no MD5, so it is not looked at.)
    pub md5_checksum: String,
    /// Its name.
    #[serde(rename = "dataFileS3Key")]
    pub key: String,
}

impl DataFile {
    /// The MD5.
    pub fn md5(&self) -> Option<[u8; 16]> {
        STANDARD.decode(&self.md5_checksum).ok()?.try_into().ok()
    }
}

/// Reads `manifest-files.json`. Its counts add up to the summary's.
pub fn data_files(name: &str, bytes: &[u8], summary: &Summary) -> Result<Vec<DataFile>, ManifestError> {
    let malformed = |why: String| ManifestError::Malformed { name: name.to_owned(), why };
    let mut files = Vec::new();
    // One object after another, whether on one line each or not.
    for file in serde_json::Deserializer::from_slice(bytes).into_iter::<DataFile>() {
        let file = file.map_err(|e| malformed(e.to_string()))?;
        if file.md5().is_none() {
            return Err(malformed(format!("md5Checksum {:?} is no MD5 in base64", short(&file.md5_checksum))));
        }
        files.push(file);
        if files.len() > MAX_FILES {
            return Err(malformed(format!("it names more than {MAX_FILES} files")));
        }
    }
    let sum = files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.item_count));
    if sum != Some(summary.item_count) {
        return Err(malformed(format!(
            "its files have {} items, the summary says {}",
            sum.map_or_else(|| "too many".to_owned(), |sum| sum.to_string()),
            summary.item_count
        )));
    }
    Ok(files)
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUMMARY: &str = r#"{"version":"2020-06-30","exportArn":"arn:aws:dynamodb:us-east-1:123456789012:table/scans/export/0123-a1",
        "startTime":"2026-11-04T07:28:34.028Z","endTime":"2026-11-04T07:33:43.897Z",
        "tableArn":"arn:aws:dynamodb:us-east-1:123456789012:table/scans","tableId":"1","exportTime":"2026-11-04T07:28:34.028Z",
        "s3Bucket":"b","s3Prefix":"p","s3SseAlgorithm":"AES256","s3SseKmsKeyId":null,
        "manifestFilesS3Key":"p/AWSDynamoDB/0123-a1/manifest-files.json","billedSizeBytes":0,"itemCount":8,
        "outputFormat":"DYNAMODB_JSON","exportType":"FULL_EXPORT"}"#;

    fn read(text: &str) -> Result<Summary, ManifestError> {
        Summary::read("s", text.as_bytes(), "scans")
    }

    #[test]
    fn where_an_export_is() {
        let at = Location::parse("s3://b/2026-Nov/AWSDynamoDB/0123-a1/").unwrap();
        assert_eq!(
            (at.bucket.as_str(), at.folder.as_str(), at.id.as_str()),
            ("b", "2026-Nov/AWSDynamoDB/0123-a1", "0123-a1")
        );
        assert_eq!(Location::parse("s3://b/AWSDynamoDB/x").unwrap().folder, "AWSDynamoDB/x");
        for bad in ["", "b/AWSDynamoDB/x", "s3://b", "s3://b/x", "s3:///AWSDynamoDB/x", "s3://b/NotAWSDynamoDB/x"] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
        // With the prefix, without it (as in the guide's own example), or from where the export was made first.
        for named in ["2026-Nov/AWSDynamoDB/0123-a1/data/x.json.gz", "AWSDynamoDB/0123-a1/data/x.json.gz"] {
            assert_eq!(at.resolve(named).unwrap(), "2026-Nov/AWSDynamoDB/0123-a1/data/x.json.gz");
        }
        for bad in [
            "AWSDynamoDB/other/data/x",
            "x",
            "AWSDynamoDB/0123-a1/",
            "AWSDynamoDB/0123-a1/../../x",
            "AWSDynamoDB/0123-a1//x",
        ] {
            assert!(at.resolve(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_read_and_what_is_refused() {
        assert_eq!(read(SUMMARY).unwrap().export_us(), Some(1_793_777_314_028_000));
        assert!(read(&SUMMARY.replace(r#","exportType":"FULL_EXPORT""#, "")).is_ok());
        let refusal = |from: &str, to: &str| read(&SUMMARY.replace(from, to)).unwrap_err().to_string();
        insta::assert_snapshot!(refusal("DYNAMODB_JSON", "ION"), @"the export is in format ION: export the table as DYNAMODB_JSON");
        insta::assert_snapshot!(refusal("FULL_EXPORT", "INCREMENTAL_EXPORT"), @"the export is of type INCREMENTAL_EXPORT: make a FULL_EXPORT; an incremental one leaves out what came and went within its window");
        insta::assert_snapshot!(refusal("table/scans\"", "table/others\""), @r#"the export is of table "others", the definition counts "scans""#);
        insta::assert_snapshot!(refusal("2026-11-04T07:28:34.028Z\",\n        \"s3Bucket", "soon\",\"s3Bucket"), @r#"s: exportTime "soon" is no time"#);
        assert!(read("[]").is_err() && read("").is_err());
    }

    #[test]
    fn the_files_add_up() {
        let line = |n: u64| {
            format!(
                r#"{{"itemCount":{n},"md5Checksum":"sQMSpEILNgoQmarvDFonGQ==","etag":"af83d6f217c19b8b0fff8023d8ca4716-1","dataFileS3Key":"AWSDynamoDB/0123-a1/data/{n}.json.gz"}}"#
            )
        };
        let summary = read(SUMMARY).unwrap();
        let files = data_files("f", format!("{}\n{}\n", line(5), line(3)).as_bytes(), &summary).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].md5().map(|md5| md5[0]), Some(0xb1));
        for bad in [line(5), line(8).replace("sQMSp", "sQ"), line(8) + "x", format!("{}{}", line(u64::MAX), line(9))] {
            assert!(data_files("f", bad.as_bytes(), &summary).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "\\PC{0,60}") {
            let _ = Summary::read("s", &bytes, "scans");
            let _ = data_files("f", &bytes, &read(SUMMARY).unwrap());
            if let Ok(at) = Location::parse(&text) {
                let _ = at.resolve(&text);
            }
        }

        #[test]
        fn whatever_a_manifest_names_is_below_the_folder(named in "[a-z./]{0,20}(AWSDynamoDB/1/)?[a-z./]{0,20}") {
            let at = Location::parse("s3://b/p/AWSDynamoDB/1").unwrap();
            if let Ok(key) = at.resolve(&named) {
                prop_assert!(key.starts_with("p/AWSDynamoDB/1/") && key.split('/').all(|part| part != ".."));
            }
        }
    }
}
