//! The table by a point-in-time export in S3: one moment, without any load on the table.
//!
//! Every data file is fetched whole and held against its MD5 before one of its lines is believed; then it is unpacked line by
//! line and its items are counted. Disk: one file; memory: one line. The checkpoint is the number of files that are done.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::TableError;
use super::manifest::{self, DataFile, Location, MAX_FILES_MANIFEST, MAX_SUMMARY, ManifestError, Summary};
use super::spool::{MAX_LINE, Spool};
use crate::bucket::Objects;
use crate::progress::{Says, Work};

/// The largest data file, in bytes as stored.
pub const MAX_FILE: u64 = 16 << 30;
/// What is fetched at a time.
const CHUNK: u64 = 8 << 20;

/// An export whose manifests have been read.
#[derive(Debug, Clone)]
pub struct Export {
    location: Location,
    /// The summary.
    pub summary: Summary,
    files: Vec<DataFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, rename = "Item")]
    item: &'a RawValue,
}

impl Export {
    /// Reads the manifests of an export of `table`.
    pub async fn open<O: Objects>(objects: &O, location: Location, table: &str) -> Result<Self, TableError> {
        let name = location.key("manifest-summary.json");
        let summary = Summary::read(&name, &whole(objects, &name, MAX_SUMMARY).await?, table)?;
        let name = location.resolve(&summary.manifest_files)?;
        let files = manifest::data_files(&name, &whole(objects, &name, MAX_FILES_MANIFEST).await?, &summary)?;
        Ok(Self { location, summary, files })
    }

    /// What names it in a spool.
    pub fn name(location: &Location) -> String {
        format!("s3://{}/{}", location.bucket, location.folder)
    }

    /// Reads what the spool does not have yet. Gives the number of items that it has then.
    pub async fn read<O: Objects>(&self, objects: &O, spool: &Spool, says: &Says<'_>) -> Result<u64, TableError> {
        let mut part = spool.resume(0)?;
        let read_us = self.summary.export_us().unwrap_or_default();
        let done = part.checkpoint().and_then(serde_json::Value::as_u64).unwrap_or(0);
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        if !part.is_done() {
            says(Work::Step("reading the export"));
            says(Work::Of(self.files.len() as u64, "files"));
            says(Work::Done(done as u64));
            for (i, file) in self.files.iter().enumerate().skip(done) {
                let key = self.location.resolve(&file.key)?;
                let fetched = fetch(objects, &key, file).await?;
                unpack(&key, fetched, file.item_count, |item| Ok(part.item(read_us, item)?))?;
                part.close(Some((i as u64 + 1).into()))?;
                says(Work::Done(1));
            }
            part.close(None)?;
        }
        if part.items() != self.summary.item_count {
            let (found, said) = (part.items(), self.summary.item_count);
            return Err(TableError::Export {
                key: self.location.key("manifest-summary.json"),
                why: format!("{found} items were read, it says {said}"),
            });
        }
        Ok(part.items())
    }
}

async fn whole<O: Objects>(objects: &O, name: &str, most: u64) -> Result<Bytes, TableError> {
    objects.get(name, most).await?.ok_or_else(|| {
        let why = "it is not there; is the export complete, and is this its folder".to_owned();
        ManifestError::Malformed { name: name.to_owned(), why }.into()
    })
}

/// A data file, whole and with the MD5 that the manifest says.
async fn fetch<O: Objects>(objects: &O, key: &str, file: &DataFile) -> Result<File, TableError> {
    let bad = |why: String| TableError::Export { key: key.to_owned(), why };
    let size = objects.head(key).await?.ok_or_else(|| bad("the manifest names it, it is not there".into()))?.bytes;
    if size > MAX_FILE {
        return Err(bad(format!("it has {size} bytes, at most {MAX_FILE} are read")));
    }
    let (mut to, mut md5, mut at) = (tempfile::tempfile()?, Md5::new(), 0);
    while at < size {
        let end = size.min(at + CHUNK);
        let bytes = objects.get_range(key, at..end).await?;
        md5.update(&bytes);
        to.write_all(&bytes)?;
        at = end;
    }
    if Some(<[u8; 16]>::from(md5.finalize())) != file.md5() {
        return Err(
            bad("its MD5 is not the one in the manifest: it was changed or cut; export the table again".into()),
        );
    }
    to.rewind()?;
    Ok(to)
}

/// Gives every item of a data file to `take`. An empty file has no bytes at all.
fn unpack(
    key: &str,
    file: impl Read,
    items: u64,
    mut take: impl FnMut(&str) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let bad = |why: String| TableError::Export { key: key.to_owned(), why };
    let mut packed = BufReader::with_capacity(1 << 18, file);
    if packed.fill_buf()?.is_empty() && items == 0 {
        return Ok(());
    }
    let mut lines = BufReader::with_capacity(1 << 18, MultiGzDecoder::new(packed));
    let (mut line, mut found) = (Vec::new(), 0u64);
    loop {
        line.clear();
        let unpacked = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if unpacked.map_err(|e| bad(format!("line {}: {e}", found + 1)))? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 == MAX_LINE {
            return Err(bad(format!("line {} is longer than any item", found + 1)));
        }
        found += 1;
        if found > items {
            return Err(bad(format!("it has more than the {items} items that the manifest says")));
        }
        let text = std::str::from_utf8(&line).map_err(|e| bad(format!("line {found}: {e}")))?;
        let read: Line<'_> =
            serde_json::from_str(text).map_err(|e| bad(format!("line {found} is no {{\"Item\": …}}: {e}")))?;
        take(read.item.get())?;
    }
    if found != items {
        return Err(bad(format!("it has {found} items, the manifest says {items}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    const AT: &str = "s3://b/p/AWSDynamoDB/1";

    fn packed(text: &str) -> Vec<u8> {
        let mut to = GzEncoder::new(Vec::new(), Compression::fast());
        to.write_all(text.as_bytes()).unwrap();
        to.finish().unwrap()
    }

    /// An export of these files in a bucket; each file's bytes and its number of items.
    async fn export(files: &[(Vec<u8>, u64)]) -> Memory {
        let objects = Memory::new();
        let mut lines = String::new();
        for (i, (bytes, items)) in files.iter().enumerate() {
            let md5 = STANDARD.encode(Md5::digest(bytes));
            lines += &format!(
                r#"{{"itemCount":{items},"md5Checksum":"{md5}","etag":"x-1","dataFileS3Key":"AWSDynamoDB/1/data/{i}.json.gz"}}"#
            );
            lines.push('\n');
            objects.put(&format!("p/AWSDynamoDB/1/data/{i}.json.gz"), bytes.clone().into()).await.unwrap();
        }
        let items: u64 = files.iter().map(|(_, items)| items).sum();
        let summary = format!(
            r#"{{"tableArn":"arn:aws:dynamodb:us-east-1:1:table/scans","exportTime":"2026-11-04T07:28:34Z","manifestFilesS3Key":"AWSDynamoDB/1/manifest-files.json","itemCount":{items},"outputFormat":"DYNAMODB_JSON","exportType":"FULL_EXPORT"}}"#
        );
        objects.put("p/AWSDynamoDB/1/manifest-files.json", lines.into()).await.unwrap();
        objects.put("p/AWSDynamoDB/1/manifest-summary.json", summary.into()).await.unwrap();
        objects
    }

    async fn read(objects: &Memory) -> Result<Vec<String>, TableError> {
        let export = Export::open(objects, Location::parse(AT).unwrap(), "scans").await?;
        let spool = Spool::open(None, "scans", AT, 1, false, 1).unwrap();
        export.read(objects, &spool, &|_| {}).await?;
        spool.items().map(|item| item.map(|item| item.json)).collect()
    }

    #[tokio::test]
    async fn every_item_of_every_file_is_read() {
        let two = packed("{\"Item\":{\"id\":{\"S\":\"a\"}}}\n{\"Item\":{\"id\":{\"S\":\"b\"}}}\n");
        // A file may be several gzip streams in a row, and an empty partition gives an empty file.
        let mut more = packed("{\"Item\":{\"id\":{\"S\":\"c\"}}}\n");
        more.extend(packed("{\"Item\":{\"id\":{\"S\":\"d\"}}}"));
        let objects = export(&[(two, 2), (Vec::new(), 0), (packed(""), 0), (more, 2)]).await;
        let ids: Vec<String> = ["a", "b", "c", "d"].map(|id| format!(r#"{{"id":{{"S":"{id}"}}}}"#)).into();
        assert_eq!(read(&objects).await.unwrap(), ids);
    }

    #[tokio::test]
    async fn what_is_damaged_is_refused_with_its_name() {
        let good = packed("{\"Item\":{\"id\":{\"S\":\"a\"}}}\n");
        let why = async |objects: Memory| read(&objects).await.unwrap_err().to_string();
        let mut flipped = good.clone();
        let objects = export(&[(good.clone(), 1)]).await;
        flipped[12] ^= 1;
        objects.put("p/AWSDynamoDB/1/data/0.json.gz", flipped.into()).await.unwrap();
        insta::assert_snapshot!(why(objects).await, @"p/AWSDynamoDB/1/data/0.json.gz: its MD5 is not the one in the manifest: it was changed or cut; export the table again");
        let objects = export(&[(good.clone(), 1)]).await;
        objects.delete("p/AWSDynamoDB/1/data/0.json.gz").await.unwrap();
        insta::assert_snapshot!(why(objects).await, @"p/AWSDynamoDB/1/data/0.json.gz: the manifest names it, it is not there");
        insta::assert_snapshot!(why(export(&[(good.clone(), 2)]).await).await, @"p/AWSDynamoDB/1/data/0.json.gz: it has 1 items, the manifest says 2");
        insta::assert_snapshot!(why(export(&[(good, 0)]).await).await, @"p/AWSDynamoDB/1/data/0.json.gz: it has more than the 0 items that the manifest says");
        let incremental = packed("{\"Metadata\":{\"WriteTimestampMicros\":\"1\"},\"Keys\":{}}\n");
        assert!(why(export(&[(incremental, 1)]).await).await.contains("line 1 is no {\"Item\": …}"));
        assert!(why(export(&[(b"not gzip".to_vec(), 1)]).await).await.contains("line 1"));
        assert!(why(Memory::new()).await.contains("it is not there; is the export complete"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), gz in any::<bool>(), items in 0u64..3) {
            let bytes = if gz { packed(&String::from_utf8_lossy(&bytes)) } else { bytes };
            let _ = unpack("x", bytes.as_slice(), items, |_| Ok(()));
        }
    }
}
