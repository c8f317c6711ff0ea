//! What a Parquet file claims of itself, held against bounds before the library believes it.
//!
//! The library takes memory by what footers and page headers say: a header of thirty bytes can ask for 2 GiB. So each is
//! walked first, by the Thrift compact protocol that both are written in, and refused where it claims more than any file of
//! ours holds:
//!
//! | claim | bound | why no file of ours reaches it |
//! | --- | --- | --- |
//! | bytes of a footer | [`MAX_FOOTER`] | a row group takes some 6 KiB of it |
//! | elements of a list in it | [`MAX_LIST`], and a byte each | as above |
//! | rows of a row group, values of a page | [`MAX_GROUP_ROWS`] | the writer closes a row group at an eighth of it |
//! | bytes of a column chunk, and of a page when decompressed | [`MAX_CHUNK`] | a commit has at most 256 MiB of records, and one page of GetRecords (10 MiB) |
//! | nesting | `MAX_DEPTH` | the format's own is 6 |
//!
//! (parquet.thrift of apache/parquet-format has the members; thrift's `thrift-compact-protocol.md` the encoding.)

use parquet::errors::{ParquetError, Result};

/// The most bytes of a footer, and of one read of page indexes.
pub const MAX_FOOTER: u64 = 4 << 20;
/// The most elements of a list in a footer.
pub const MAX_LIST: u64 = 1 << 16;
/// The most rows of a row group, and values of a page.
pub const MAX_GROUP_ROWS: i64 = 1 << 20;
/// The most bytes of a column chunk as stored, and of a page as decompressed.
pub const MAX_CHUNK: u64 = 320 << 20;
/// How deep structures are nested.
const MAX_DEPTH: u32 = 16;

/// Walks a footer's metadata.
pub fn footer(bytes: &[u8]) -> Result<()> {
    Compact { rest: bytes }.structure(MAX_DEPTH, &mut |_, _| Ok(false)).map_err(|why| damaged("footer", why))
}

/// Walks the headers of the pages that `bytes` are made of.
pub fn pages(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = page(rest).map_err(|why| damaged("page header", why))?;
    }
    Ok(())
}

fn damaged(what: &str, why: &str) -> ParquetError {
    ParquetError::General(format!("a {what} {why}"))
}

type Walked<T> = std::result::Result<T, &'static str>;

const TRUNCATED: &str = "is cut off";
const UNFIT: &str = "has a member of another type than the format gives it";

/// Walks one page; gives what follows it.
fn page(bytes: &[u8]) -> Walked<&[u8]> {
    let mut walk = Compact { rest: bytes };
    let (mut stored, mut decompressed) = (None, None);
    walk.structure(MAX_DEPTH, &mut |at, walk| {
        match at.id {
            2 => decompressed = Some(walk.member(at)?),
            3 => stored = Some(walk.member(at)?),
            // data_page_header, dictionary_page_header and data_page_header_v2: all begin with num_values.
            5 | 7 | 8 if at.kind == STRUCT => walk.structure(MAX_DEPTH - 1, &mut |at, walk| {
                let values = match at.id {
                    1 => walk.member(at)?,
                    _ if at.kind == LIST => return Err(UNFIT),
                    _ => return Ok(false),
                };
                if !(0..=MAX_GROUP_ROWS).contains(&values) {
                    return Err("claims more values than a row group may have");
                }
                Ok(true)
            })?,
            5 | 7 | 8 => return Err(UNFIT),
            _ if at.kind == LIST => return Err(UNFIT),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (Some(stored), Some(decompressed)) = (stored, decompressed) else { return Err("does not say its size") };
    if u64::try_from(decompressed).map_or(true, |bytes| bytes > MAX_CHUNK) {
        return Err("claims more bytes than a page may have");
    }
    let stored = usize::try_from(stored).map_err(|_| "has a negative size")?;
    walk.rest.get(stored..).ok_or("claims more bytes than there are")
}

/// Types of the compact protocol.
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A member of a structure.
#[derive(Debug, Clone, Copy)]
struct Member {
    id: i16,
    kind: u8,
}

/// Bytes in Thrift's compact protocol, as much of it as Parquet's structures use: no maps, no sets, no lists of booleans.
/// (The page index has such lists; it is not walked.)
struct Compact<'a> {
    rest: &'a [u8],
}

impl Compact<'_> {
    fn byte(&mut self) -> Walked<u8> {
        let (byte, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn skip(&mut self, bytes: u64) -> Walked<()> {
        self.rest = usize::try_from(bytes).ok().and_then(|n| self.rest.get(n..)).ok_or(TRUNCATED)?;
        Ok(())
    }

    fn varint(&mut self) -> Walked<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        // The tenth byte holds the 64th bit and nothing else.
        match self.byte()? {
            last @ 0..=1 => Ok(value | u64::from(last) << 63),
            _ => Err("has a number of more than 64 bits"),
        }
    }

    fn signed(&mut self) -> Walked<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64)) // zigzag: the lowest bit is the sign
    }

    /// A member that is an i32. The library reads it as one whatever its type, so another type is refused here.
    fn member(&mut self, at: Member) -> Walked<i64> {
        if at.kind != I32 {
            return Err(UNFIT);
        }
        let value = self.signed()?;
        i32::try_from(value).map(i64::from).map_err(|_| "has a number of more than 32 bits")
    }

    /// Walks a structure. `known` walks the members that it knows (and says so); the others are walked by their type.
    fn structure(&mut self, depth: u32, known: &mut dyn FnMut(Member, &mut Self) -> Walked<bool>) -> Walked<()> {
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            let (delta, kind) = (head >> 4, head & 0x0f);
            if kind == 0 {
                return Ok(());
            }
            id = match delta {
                0 => i16::try_from(self.signed()?).map_err(|_| "has a member without a number")?,
                _ => id.checked_add(i16::from(delta)).ok_or("has a member without a number")?,
            };
            let member = Member { id, kind };
            if !known(member, self)? {
                self.value(kind, depth)?;
            }
        }
    }

    /// Walks a value of this type.
    fn value(&mut self, kind: u8, depth: u32) -> Walked<()> {
        let deeper = depth.checked_sub(1).ok_or("is nested too deep")?;
        match kind {
            1 | 2 => Ok(()), // a boolean member is its type
            BYTE => self.skip(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.skip(8),
            BINARY => {
                let length = self.varint()?;
                self.skip(length)
            }
            LIST => self.list(deeper),
            STRUCT => self.structure(deeper, &mut |_, _| Ok(false)),
            _ => Err("has a value of a type that the format does not use"),
        }
    }

    fn list(&mut self, depth: u32) -> Walked<()> {
        let head = self.byte()?;
        let length = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        if length > MAX_LIST || length > self.rest.len() as u64 {
            return Err("has a list that is too long");
        }
        let kind = head & 0x0f;
        if matches!(kind, 1 | 2) {
            return Err("has a list of booleans"); // they take no bytes when skipped, so their number bounds nothing
        }
        (0..length).try_for_each(|_| self.value(kind, depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{NOVEMBER, definition, page_header as header, row};
    use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
    use proptest::prelude::*;

    fn file() -> Vec<u8> {
        let rows =
            (0..3_000).map(|i| row(&format!("e{i}"), Some(&format!("g{}", i % 7)), NOVEMBER + i, "1.5")).collect();
        let month = "2026-11".parse().unwrap();
        crate::rows::write(&definition(), month, rows).unwrap().unwrap().bytes.to_vec()
    }

    fn footer_of(file: &[u8]) -> &[u8] {
        let tail = FooterTail::try_from(&file[file.len() - 8..]).unwrap();
        &file[file.len() - 8 - tail.metadata_length()..file.len() - 8]
    }

    #[test]
    fn our_own_files_are_within_their_bounds() {
        let file = file();
        footer(footer_of(&file)).unwrap();
        let metadata = ParquetMetaDataReader::decode_metadata(footer_of(&file)).unwrap();
        for group in metadata.row_groups() {
            for column in group.columns() {
                let (start, length) = column.byte_range();
                pages(&file[start as usize..(start + length) as usize]).unwrap();
            }
        }
    }

    #[test]
    fn a_page_that_claims_too_much_is_refused() {
        let says = |bytes: Vec<u8>| pages(&bytes).map_err(|error| error.to_string());
        assert_eq!(says(header(320 << 20, 0, 1 << 20)), Ok(()));
        let refused = [
            says(header((320 << 20) + 1, 0, 1)),
            says(header(i64::from(i32::MAX), 0, 1)),
            says(header(-1, 0, 1)),
            says(header(1, 1, 1)),
            says(header(1, -1, 1)),
            says(header(1 << 40, 0, 1)),
            says(header(1, 0, (1 << 20) + 1)),
            says(header(1, 0, -1)),
            says(header(1, 0, 1)[..9].to_vec()),
            says(vec![0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0]),
            says(vec![0]),
        ];
        insta::assert_snapshot!(refused.map(|error| error.unwrap_err()).join("\n"), @r"
        Parquet error: a page header claims more bytes than a page may have
        Parquet error: a page header claims more bytes than a page may have
        Parquet error: a page header claims more bytes than a page may have
        Parquet error: a page header claims more bytes than there are
        Parquet error: a page header has a negative size
        Parquet error: a page header has a number of more than 32 bits
        Parquet error: a page header claims more values than a row group may have
        Parquet error: a page header claims more values than a row group may have
        Parquet error: a page header is cut off
        Parquet error: a page header has a member of another type than the format gives it
        Parquet error: a page header does not say its size
        ");
    }

    #[test]
    fn a_footer_that_claims_too_much_is_refused() {
        let says = |bytes: &[u8]| footer(bytes).unwrap_err().to_string();
        let refused = [
            // 2^31 - 1 booleans in a list: not a byte of them is there, and the library would count them.
            says(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0]),
            says(&[0x19, 0x21, 1, 1, 0]),
            says(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0]),
            says(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            says(&[0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]),
            says(&[0x1b, 0x01, 0x11, 1, 1, 0]),
            says(&[0x1c; 64]),
            says(&[0x15]),
        ];
        insta::assert_snapshot!(refused.join("\n"), @r"
        Parquet error: a footer has a list that is too long
        Parquet error: a footer has a list of booleans
        Parquet error: a footer has a list that is too long
        Parquet error: a footer is cut off
        Parquet error: a footer has a number of more than 64 bits
        Parquet error: a footer has a value of a type that the format does not use
        Parquet error: a footer is nested too deep
        Parquet error: a footer is cut off
        ");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, at: usize, byte: u8) {
            let _ = (footer(&bytes), pages(&bytes));
            let mut damaged = header(100, 0, 10);
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = pages(&damaged);
        }
    }
}
