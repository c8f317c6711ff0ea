//! An external sort: as much as one likes, in order, with a bounded amount of memory.
//!
//! Entries are pairs of bytes, ordered by the first, then by the second. What is pushed fills a buffer; a full buffer is
//! sorted and becomes a run in an unnamed temporary file, which the system removes with the process. Reading merges the runs. More than
//! `MAX_RUNS` runs are merged into one first, so that the number of open files is bounded too.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// Bytes that are held before a run is written.
pub const DEFAULT_BUFFER: usize = 64 << 20;
/// Most runs that are open at one time.
const MAX_RUNS: usize = 64;
/// What an entry costs beside its bytes.
const OVERHEAD: usize = 64;

/// A key and what goes with it.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Takes entries in any order.
#[derive(Debug)]
pub struct Sorter {
    buffer: Vec<Entry>,
    held: usize,
    limit: usize,
    runs: Vec<File>,
    #[cfg(test)]
    pushed: usize,
}

impl Sorter {
    /// With a buffer of [`DEFAULT_BUFFER`].
    pub fn new() -> Self {
        Self::with_buffer(DEFAULT_BUFFER)
    }

    /// With a buffer of `limit` bytes.
    pub fn with_buffer(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            held: 0,
            limit,
            runs: Vec::new(),
            #[cfg(test)]
            pushed: 0,
        }
    }

    /// How many entries it was given.
    #[cfg(test)]
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// Takes one entry.
    pub fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        self.held = self.held.saturating_add(key.len() + value.len() + OVERHEAD);
        self.buffer.push((key, value));
        #[cfg(test)]
        {
            self.pushed += 1;
        }
        if self.held >= self.limit { self.flush() } else { Ok(()) }
    }

    /// All entries, in order.
    pub fn finish(mut self) -> io::Result<Sorted> {
        self.buffer.sort_unstable();
        let mut sources: Vec<Source> = Vec::new();
        for run in self.runs {
            sources.push(Source::open(run)?);
        }
        sources.push(Source::Memory(self.buffer.into_iter()));
        Sorted::new(sources)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer.sort_unstable();
        let mut to = BufWriter::new(tempfile::tempfile()?);
        for (key, value) in self.buffer.drain(..) {
            write(&mut to, &key, &value)?;
        }
        self.held = 0;
        self.runs.push(to.into_inner().map_err(io::IntoInnerError::into_error)?);
        if self.runs.len() < MAX_RUNS {
            return Ok(());
        }
        let mut sources = Vec::new();
        for run in self.runs.drain(..) {
            sources.push(Source::open(run)?);
        }
        let mut to = BufWriter::new(tempfile::tempfile()?);
        for entry in Sorted::new(sources)? {
            let (key, value) = entry?;
            write(&mut to, &key, &value)?;
        }
        self.runs.push(to.into_inner().map_err(io::IntoInnerError::into_error)?);
        Ok(())
    }
}

impl Default for Sorter {
    fn default() -> Self {
        Self::new()
    }
}

fn write(to: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    for part in [key, value] {
        let length = u32::try_from(part.len()).map_err(|_| io::Error::other("an entry of 4 GiB cannot be sorted"))?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(part)?;
    }
    Ok(())
}

#[derive(Debug)]
enum Source {
    Run(BufReader<File>),
    Memory(std::vec::IntoIter<Entry>),
}

impl Source {
    fn open(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self::Run(BufReader::with_capacity(1 << 17, file)))
    }

    fn next(&mut self) -> io::Result<Option<Entry>> {
        match self {
            Self::Memory(entries) => Ok(entries.next()),
            Self::Run(file) => {
                let Some(key) = part(file, true)? else { return Ok(None) };
                let value = part(file, false)?.unwrap_or_default();
                Ok(Some((key, value)))
            }
        }
    }
}

/// One part of an entry; `None` at the end of the file, where that may be.
fn part(file: &mut BufReader<File>, may_end: bool) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match file.read_exact(&mut length) {
        Err(e) if may_end && e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// The entries, in order.
#[derive(Debug)]
pub struct Sorted {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl Sorted {
    fn new(mut sources: Vec<Source>) -> io::Result<Self> {
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (index, source) in sources.iter_mut().enumerate() {
            if let Some(entry) = source.next()? {
                heads.push(Reverse((entry, index)));
            }
        }
        Ok(Self { sources, heads })
    }
}

impl Iterator for Sorted {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((entry, index)) = self.heads.pop()?;
        match self.sources.get_mut(index).map(Source::next) {
            Some(Ok(Some(next))) => self.heads.push(Reverse((next, index))),
            Some(Err(e)) => return Some(Err(e)),
            Some(Ok(None)) | None => {}
        }
        Some(Ok(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_out_sorted_whatever_the_buffer(
            entries in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(any::<u8>(), 0..6)), 0..300),
            buffer in 1usize..4_000,
        ) {
            let mut sorter = Sorter::with_buffer(buffer);
            for (key, value) in &entries {
                sorter.push(key.clone(), value.clone()).unwrap();
            }
            let sorted: Vec<Entry> = sorter.finish().unwrap().collect::<io::Result<_>>().unwrap();
            let mut expected = entries;
            expected.sort();
            prop_assert_eq!(sorted, expected);
        }
    }
}
