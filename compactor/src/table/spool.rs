//! What was read of the table, on disk: items as lines, each part up to a checkpoint from which the reading goes on.
//!
//! A part is a file of lines. `I <µs since 1970> <item>` is an item and when it was read; `C <checkpoint>` closes what was
//! read up to there; `C null` is the end of the part. What stands behind the last checkpoint was cut off by a crash: it is
//! removed and read again. So a part has each item of its pages once.
//!
//! The directory is the caller's, to be taken up again after a crash, or a temporary one. It is for one answer: whoever has given
//! it calls [`clear`], so that the next run reads the table and does not say again what was true then. What a run left that never
//! got to its answer is taken up only if it is of the same kind and younger than [`MAX_AGE_US`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TableError;

/// The longest line, in bytes: an item of 400 KB as JSON, each of its bytes perhaps as `\u0000`, comes to less.
pub const MAX_LINE: u64 = 8 << 20;
/// How long after its beginning a reading is taken up, in µs: seven days. A Scan of some 500 GB at 100 read units a second takes so
/// long; what a run of last month left is older.
pub const MAX_AGE_US: u64 = 7 * 86_400 * 1_000_000;
/// The format of the directory: 2 says whether it was read consistently, and when the reading ended.
const FORMAT: u32 = 2;
const HEADER: &str = "reading.json";
const PART: &str = "part-";
/// What stands in a line around its item: a letter, the time, the line's end.
const HEAD: u64 = 32;

/// What is being read. A directory of another reading is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format of the directory.
    pub format: u32,
    /// The source table.
    pub table: String,
    /// `scan`, or the export's name.
    pub source: String,
    /// Its parts: segments of a scan.
    pub parts: u16,
    /// Whether a scan reads consistently.
    pub consistent: bool,
    /// When the reading began, µs since 1970.
    pub began_us: i64,
    /// When all of it was read.
    pub ended_us: Option<i64>,
}

impl Header {
    /// Whether `other` is a reading of the same by the same means, whenever that was.
    fn is_like(&self, other: &Self) -> bool {
        *self == Self { began_us: self.began_us, ended_us: self.ended_us, ..other.clone() }
    }
}

/// An item out of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its part.
    pub part: u16,
    /// Where its line begins.
    pub offset: u64,
    /// When it was read, µs since 1970.
    pub read_us: i64,
    /// The item, as DynamoDB JSON with binary in base64 once.
    pub json: String,
}

/// Makes the directory, and none above it: its name may be misspelt, and it takes the table's size.
fn make(dir: &Path) -> Result<(), TableError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(source) => Err(TableError::Unmade { dir: dir.display().to_string(), source }),
        Ok(()) => Ok(()),
    }
}

/// The directory.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    header: Header,
    _temporary: Option<tempfile::TempDir>,
}

impl Spool {
    /// Opens `dir`, or makes it; a temporary one where none is given. A reading that is too old is removed, another's refused.
    pub fn open(
        dir: Option<&Path>,
        table: &str,
        source: &str,
        parts: u16,
        consistent: bool,
        now_us: i64,
    ) -> Result<Self, TableError> {
        let (dir, temporary) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        make(&dir)?;
        let path = dir.join(HEADER);
        let (table, source) = (table.to_owned(), source.to_owned());
        let ours = Header { format: FORMAT, table, source, parts, consistent, began_us: now_us, ended_us: None };
        let there = match fs::read(&path) {
            Ok(bytes) => {
                let there: Option<Header> = serde_json::from_slice(&bytes).ok();
                let there = there.filter(|there| there.is_like(&ours));
                Some(there.ok_or_else(|| TableError::OtherReading { dir: dir.display().to_string() })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        // A clock that was set back makes no reading young: what lies so far ahead is none to go on with either.
        let young = there.filter(|there| now_us.abs_diff(there.began_us) < MAX_AGE_US);
        let is_new = young.is_none();
        let spool = Self { dir, header: young.unwrap_or(ours), _temporary: temporary };
        if is_new {
            clear(&spool.dir)?;
            spool.keep_header()?;
        }
        Ok(spool)
    }

    fn keep_header(&self) -> Result<(), TableError> {
        let new = self.dir.join("reading.json.new");
        fs::write(&new, serde_json::to_vec(&self.header).map_err(io::Error::other)?)?;
        Ok(fs::rename(&new, self.dir.join(HEADER))?)
    }

    /// Notes that all was read by now, and gives when that was: earlier, where a run before this one did it.
    pub fn ended(&mut self, now_us: i64) -> Result<i64, TableError> {
        if let Some(ended_us) = self.header.ended_us {
            return Ok(ended_us);
        }
        self.header.ended_us = Some(now_us);
        self.keep_header()?;
        Ok(now_us)
    }

    /// What is being read.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn path(&self, part: u16) -> PathBuf {
        self.dir.join(format!("{PART}{part:03}"))
    }

    /// Goes on with a part: behind its last checkpoint, whatever stands behind that is removed.
    pub fn resume(&self, part: u16) -> Result<Part, TableError> {
        let path = self.path(part);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let (mut end, mut at, mut checkpoint, mut items) = (0u64, 0u64, None, 0u64);
        let mut seen = 0;
        let mut lines = BufReader::with_capacity(1 << 18, &mut file);
        let mut line = Vec::new();
        while let Some(bytes) = next_line(&mut lines, &mut line)? {
            at += bytes;
            match line.strip_prefix(b"C ") {
                Some(text) => {
                    let Ok(value) = serde_json::from_slice::<Value>(text) else { break };
                    (end, checkpoint, items) = (at, Some(value), seen);
                }
                None => seen += 1,
            }
        }
        drop(lines);
        file.set_len(end)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Part { file: BufWriter::with_capacity(1 << 18, file), checkpoint, items })
    }

    /// Every item of every part, up to its last checkpoint.
    pub fn items(&self) -> Items<'_> {
        Items { spool: self, part: 0, lines: None, at: 0 }
    }

    /// The item whose line begins there.
    pub fn get(&self, part: u16, offset: u64) -> Result<Stored, TableError> {
        let mut file = File::open(self.path(part))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut line = Vec::new();
        let damaged = || TableError::Damaged { dir: self.dir.display().to_string() };
        next_line(&mut BufReader::new(file), &mut line)?.ok_or_else(damaged)?;
        stored(part, offset, &line).ok_or_else(damaged)
    }
}

/// Removes the reading in `dir`: it has been answered by. What else stands there, and the directory, stay.
pub fn clear(dir: &Path) -> Result<(), TableError> {
    // The header first: parts without one are no reading, and a new one begins with removing them.
    let mut names = vec![dir.join(HEADER)];
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PART));
        if number.is_some_and(|number| number.len() >= 3 && number.bytes().all(|b| b.is_ascii_digit())) {
            names.push(dir.join(name));
        }
    }
    for name in names {
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A part that is being written.
#[derive(Debug)]
pub struct Part {
    file: BufWriter<File>,
    checkpoint: Option<Value>,
    items: u64,
}

impl Part {
    /// From where the reading goes on; `None`: from the beginning.
    pub fn checkpoint(&self) -> Option<&Value> {
        self.checkpoint.as_ref().filter(|value| !value.is_null())
    }

    /// Whether the part was read to its end.
    pub fn is_done(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(Value::is_null)
    }

    /// The items that it holds.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Takes an item; `json` has no line end.
    pub fn item(&mut self, read_us: i64, json: &str) -> io::Result<()> {
        self.items += 1;
        writeln!(self.file, "I {read_us} {json}")
    }

    /// Closes what was read up to here. `None` is the end of the part.
    pub fn close(&mut self, checkpoint: Option<Value>) -> io::Result<()> {
        let value = checkpoint.unwrap_or(Value::Null);
        writeln!(self.file, "C {value}")?;
        self.checkpoint = Some(value);
        self.file.flush()
    }
}

/// One line without its end, and its length with it; `None` at the end of the file or at a line that was cut off.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<u64>> {
    line.clear();
    let bytes = lines.take(MAX_LINE + HEAD).read_until(b'\n', line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    Ok(Some(bytes as u64))
}

fn stored(part: u16, offset: u64, line: &[u8]) -> Option<Stored> {
    let text = std::str::from_utf8(line.strip_prefix(b"I ")?).ok()?;
    let (read_us, json) = text.split_once(' ')?;
    Some(Stored { part, offset, read_us: read_us.parse().ok()?, json: json.to_owned() })
}

/// The items of a spool.
#[derive(Debug)]
pub struct Items<'a> {
    spool: &'a Spool,
    part: u16,
    lines: Option<BufReader<File>>,
    at: u64,
}

impl Items<'_> {
    fn advance(&mut self) -> Result<Option<Stored>, TableError> {
        let mut line = Vec::new();
        loop {
            if self.part >= self.spool.header.parts {
                return Ok(None);
            }
            let lines = match &mut self.lines {
                Some(lines) => lines,
                none => {
                    self.at = 0;
                    none.insert(BufReader::with_capacity(1 << 18, File::open(self.spool.path(self.part))?))
                }
            };
            let Some(bytes) = next_line(lines, &mut line)? else {
                self.lines = None;
                self.part += 1;
                continue;
            };
            let offset = self.at;
            self.at += bytes;
            if line.starts_with(b"C ") {
                continue;
            }
            let damaged = || TableError::Damaged { dir: self.spool.dir.display().to_string() };
            return stored(self.part, offset, &line).ok_or_else(damaged).map(Some);
        }
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Stored, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn open(dir: &Path) -> Spool {
        open_at(dir, 7)
    }

    fn open_at(dir: &Path, now_us: i64) -> Spool {
        Spool::open(Some(dir), "scans", "scan", 2, false, now_us).unwrap()
    }

    fn texts(spool: &Spool) -> Vec<(u16, i64, String)> {
        spool.items().map(|item| item.map(|item| (item.part, item.read_us, item.json)).unwrap()).collect()
    }

    #[test]
    fn a_directory_is_made_and_none_above_it() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("work");
        drop(open(&dir));
        drop(open(&dir));
        let misspelt = above.path().join("wrok/audit");
        let error = Spool::open(Some(&misspelt), "scans", "scan", 2, false, 7).unwrap_err();
        assert!(error.to_string().ends_with("; the one that it lies in must be there"), "{error}");
        assert!(!above.path().join("wrok").exists());
        fs::write(above.path().join("file"), "").unwrap();
        assert!(Spool::open(Some(&above.path().join("file")), "scans", "scan", 2, false, 7).is_err());
    }

    #[test]
    fn a_part_goes_on_behind_its_last_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let mut part = spool.resume(0).unwrap();
        assert!(part.checkpoint().is_none() && !part.is_done());
        part.item(1, "{}").unwrap();
        part.close(Some(json!({"id": {"S": "a"}}))).unwrap();
        part.item(2, r#"{"cut":1}"#).unwrap();
        drop(part);
        spool.resume(1).unwrap().close(None).unwrap();

        let again = open(dir.path());
        let mut part = again.resume(0).unwrap();
        assert_eq!((part.checkpoint(), part.items()), (Some(&json!({"id": {"S": "a"}})), 1));
        assert!(again.resume(1).unwrap().is_done());
        part.item(3, r#"{"b":{"S":"x"}}"#).unwrap();
        part.close(None).unwrap();
        drop(part);
        assert_eq!(texts(&again), [(0, 1, "{}".to_owned()), (0, 3, r#"{"b":{"S":"x"}}"#.to_owned())]);
        for item in again.items() {
            let item = item.unwrap();
            assert_eq!(again.get(item.part, item.offset).unwrap(), item);
        }
        assert_eq!(again.header().began_us, 7);
    }

    /// An export's line may be as long as a line is at all: behind such an item the part goes on.
    #[test]
    fn the_longest_item_does_not_end_its_part() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let mut part = spool.resume(0).unwrap();
        let longest = "x".repeat(MAX_LINE as usize);
        part.item(i64::MIN, &longest).unwrap();
        part.item(2, "{}").unwrap();
        part.close(None).unwrap();
        drop(part);
        assert_eq!(spool.resume(0).unwrap().items(), 2);
        spool.resume(1).unwrap().close(None).unwrap();
        assert_eq!(texts(&spool).len(), 2);
    }

    #[test]
    fn the_directory_of_another_reading_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path());
        for (table, source, parts, consistent) in [
            ("other", "scan", 2, false),
            ("scans", "export", 2, false),
            ("scans", "scan", 3, false),
            ("scans", "scan", 2, true),
        ] {
            let error = Spool::open(Some(dir.path()), table, source, parts, consistent, 9).unwrap_err();
            assert!(matches!(error, TableError::OtherReading { .. }), "{error}");
        }
    }

    /// All of the table, read at `now_us`, unless it is there already.
    fn read_whole(dir: &Path, now_us: i64) -> (Vec<i64>, (i64, i64)) {
        let mut spool = open_at(dir, now_us);
        for part in 0..2 {
            let mut part = spool.resume(part).unwrap();
            if !part.is_done() {
                part.item(now_us, "{}").unwrap();
                part.close(None).unwrap();
            }
        }
        let ended_us = spool.ended(now_us).unwrap();
        (texts(&spool).into_iter().map(|(_, read_us, _)| read_us).collect(), (spool.header().began_us, ended_us))
    }

    /// An audit that names its directory again next month must be of next month's table.
    #[test]
    fn a_reading_is_for_one_answer_and_for_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let week = i64::try_from(MAX_AGE_US).unwrap();
        assert_eq!(read_whole(dir.path(), 7), (vec![7, 7], (7, 7)));
        // Cut before its answer, a run goes on, and knows when the table was read.
        assert_eq!(read_whole(dir.path(), week + 6), (vec![7, 7], (7, 7)));
        assert_eq!(read_whole(dir.path(), week + 7), (vec![week + 7; 2], (week + 7, week + 7)), "it is too old");
        fs::write(dir.path().join("part-of-mine"), "x").unwrap();
        clear(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "somebody else's file");
        assert_eq!(read_whole(dir.path(), week + 8), (vec![week + 8; 2], (week + 8, week + 8)), "it was answered");
        // A removal that was cut left parts without a header.
        fs::remove_file(dir.path().join(HEADER)).unwrap();
        assert_eq!(read_whole(dir.path(), week + 9).0, [week + 9; 2]);
        assert_eq!(read_whole(dir.path(), 0).0, [0; 2], "begun a week ahead of the clock");
    }

    proptest! {
        /// Wherever a crash cuts a part, what it has is what was closed, and what was not is read again.
        #[test]
        fn a_part_cut_anywhere_has_what_was_closed(pages in prop::collection::vec(0usize..4, 1..6), cut in any::<prop::sample::Index>()) {
            let dir = tempfile::tempdir().unwrap();
            let spool = Spool::open(Some(dir.path()), "scans", "scan", 1, false, 7).unwrap();
            let mut part = spool.resume(0).unwrap();
            for (n, items) in pages.iter().enumerate() {
                for i in 0..*items {
                    part.item(n as i64, &format!(r#"{{"i":{i}}}"#)).unwrap();
                }
                part.close((n + 1 < pages.len()).then(|| json!(n + 1))).unwrap();
            }
            drop(part);
            let expected = texts(&spool);
            let path = spool.path(0);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..cut.index(bytes.len() + 1)]).unwrap();
            let mut part = spool.resume(0).unwrap();
            let from = if part.is_done() { pages.len() } else { part.checkpoint().map_or(0, |n| n.as_u64().unwrap() as usize) };
            for (n, items) in pages.iter().enumerate().skip(from) {
                for i in 0..*items {
                    part.item(n as i64, &format!(r#"{{"i":{i}}}"#)).unwrap();
                }
                part.close((n + 1 < pages.len()).then(|| json!(n + 1))).unwrap();
            }
            prop_assert_eq!(part.items() as usize, expected.len());
            drop(part);
            prop_assert_eq!(texts(&spool), expected);
        }
    }
}
