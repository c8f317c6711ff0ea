//! Every event key of the archive, to find those that stand twice, in whatever files and months.
//!
//! An external sort of its own kind: a key and the number of its file are 20 bytes, and there may be hundreds of millions. A full
//! buffer is sorted and becomes a run in an unnamed temporary file; reading merges the runs. Memory: the buffer, once more while one
//! is being written, and a small one for each run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::sync::{Mutex, PoisonError};

use recount_schemas::EventKey;

/// Keys that are held before a run is written: 64 MiB of them.
const BUFFER: usize = 2 << 20;
/// Most runs that are open at one time; so many are merged into one.
const MAX_RUNS: usize = 256;
/// What a run is read by at a time.
const READ: usize = 1 << 16;
/// A key and the number of a file, as stored.
const ENTRY: usize = 20;

/// A key, and the number of the file that it is in.
type Entry = (u128, u32);

/// Takes the keys of files, from several tasks at a time.
#[derive(Debug)]
pub struct Keys {
    held: Mutex<Held>,
    buffer: usize,
    max_runs: usize,
}

#[derive(Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    runs: Vec<File>,
}

/// An event key that stands twice, and the numbers of two files that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Twice {
    /// The key.
    pub key: EventKey,
    /// One file.
    pub one: u32,
    /// The other; the same where the key stands twice in one file.
    pub other: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self::with_buffer(BUFFER, MAX_RUNS)
    }
}

impl Keys {
    fn with_buffer(buffer: usize, max_runs: usize) -> Self {
        Self { held: Mutex::default(), buffer, max_runs }
    }

    /// Takes some keys of one file.
    pub fn add(&self, file: u32, keys: &[EventKey]) -> io::Result<()> {
        let full = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.entries.extend(keys.iter().map(|key| (u128::from_be_bytes(*key.as_bytes()), file)));
            match held.entries.len() >= self.buffer {
                true => std::mem::take(&mut held.entries),
                false => return Ok(()),
            }
        };
        // Sorted and written while others fill the next buffer.
        let run = run(full)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.runs.push(run);
        if held.runs.len() >= self.max_runs {
            let merged = Merged::new(std::mem::take(&mut held.runs), Vec::new())?;
            held.runs = vec![written(merged)?];
        }
        Ok(())
    }

    /// All keys that stand twice, in their order. A key that stands n times comes n - 1 times.
    pub fn twice(self) -> io::Result<impl Iterator<Item = io::Result<Twice>>> {
        let mut held = self.held.into_inner().unwrap_or_else(PoisonError::into_inner);
        held.entries.sort_unstable();
        let mut before: Option<Entry> = None;
        Ok(Merged::new(held.runs, held.entries)?.filter_map(move |entry| match entry {
            Err(error) => Some(Err(error)),
            Ok(entry) => {
                let (key, other) = entry;
                let twice = before.replace(entry).filter(|(same, _)| *same == key);
                twice.map(|(_, one)| Ok(Twice { key: EventKey::from_bytes(key.to_be_bytes()), one, other }))
            }
        }))
    }
}

fn run(mut entries: Vec<Entry>) -> io::Result<File> {
    entries.sort_unstable();
    written(entries.into_iter().map(Ok))
}

fn written(entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<File> {
    let mut to = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
    for entry in entries {
        let (key, file) = entry?;
        to.write_all(&key.to_be_bytes())?;
        to.write_all(&file.to_be_bytes())?;
    }
    let mut file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// Runs merged into one order.
struct Merged {
    runs: Vec<BufReader<File>>,
    memory: std::vec::IntoIter<Entry>,
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl Merged {
    fn new(runs: Vec<File>, memory: Vec<Entry>) -> io::Result<Self> {
        let runs: Vec<_> = runs.into_iter().map(|run| BufReader::with_capacity(READ, run)).collect();
        let mut merged = Self { heads: BinaryHeap::with_capacity(runs.len() + 1), runs, memory: memory.into_iter() };
        for index in 0..=merged.runs.len() {
            merged.advance(index)?;
        }
        Ok(merged)
    }

    /// Puts the next entry of a source among the heads; the last source is the memory.
    fn advance(&mut self, index: usize) -> io::Result<()> {
        let next = match self.runs.get_mut(index) {
            Some(run) => read(run)?,
            None => self.memory.next(),
        };
        self.heads.extend(next.map(|entry| Reverse((entry, index))));
        Ok(())
    }
}

impl Iterator for Merged {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((entry, index)) = self.heads.pop()?;
        Some(self.advance(index).map(|()| entry))
    }
}

fn read(run: &mut BufReader<File>) -> io::Result<Option<Entry>> {
    let mut bytes = [0; ENTRY];
    match run.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut key = [0; 16];
    let mut file = [0; 4];
    let (first, last) = bytes.split_at(key.len());
    key.copy_from_slice(first);
    file.copy_from_slice(last);
    Ok(Some((u128::from_be_bytes(key), u32::from_be_bytes(file))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn invariant_6_a_key_that_stands_n_times_is_found_n_less_one_times(
            files in prop::collection::vec(prop::collection::vec(0u8..40, 0..30), 0..8),
            buffer in 1usize..40,
            max_runs in 2usize..5,
        ) {
            let keys = Keys::with_buffer(buffer, max_runs);
            let mut counts: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            for (file, of_file) in (0u32..).zip(&files) {
                for part in of_file.chunks(7) {
                    let part: Vec<EventKey> = part.iter().map(|n| EventKey::from_bytes([*n; 16])).collect();
                    keys.add(file, &part).unwrap();
                }
                of_file.iter().for_each(|n| counts.entry(*n).or_default().push(file));
            }
            let found: Vec<Twice> = keys.twice().unwrap().collect::<io::Result<_>>().unwrap();
            let expected: Vec<Twice> = counts
                .iter()
                .flat_map(|(n, files)| files.windows(2).map(move |pair| {
                    Twice { key: EventKey::from_bytes([*n; 16]), one: pair[0], other: pair[1] }
                }))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
