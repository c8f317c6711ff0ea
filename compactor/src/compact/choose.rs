//! Which files of a month are merged. Pure.
//!
//! Only files below half of a merged file's size are. Of those, in the order of their sizes, the longest beginning whose
//! greatest file is no larger than all before it together: so a row is written again only into a file at least twice as large
//! as the one it came from, and a handful of new commits does not rewrite a day. (A file counts as `LEAST_BYTES` at least:
//! what costs is opening it.)
//!
//! A file of which the log does not say what its rows count is written anew whatever its size ([`uncounted`]).
//!
//! They are merged in groups that fit the memory; what remains of a group alone is left as it is.

use std::collections::BTreeSet;

use crate::log::AddedFile;

use super::{GROUP_BYTES, Limits};

/// What a small file counts as, in bytes.
const LEAST_BYTES: u64 = 1 << 20;

/// The groups of files to merge, each into one file or a few; none where it is not worth it.
pub fn choose<'f>(files: impl IntoIterator<Item = &'f AddedFile>, limits: &Limits) -> Vec<Vec<AddedFile>> {
    let mut small: Vec<&AddedFile> = files.into_iter().filter(|file| file.bytes < limits.file_bytes / 2).collect();
    small.sort_by(|a, b| (a.bytes, &a.target).cmp(&(b.bytes, &b.target)));
    let (mut before, mut end) = (0u64, 0);
    for (i, file) in small.iter().enumerate() {
        let weight = file.bytes.max(LEAST_BYTES);
        if weight <= before {
            end = i + 1;
        }
        before = before.saturating_add(weight);
    }
    if end < limits.least_files.max(2) {
        return Vec::new();
    }
    let mut groups: Vec<Vec<AddedFile>> = Vec::new();
    let mut held = 0u64;
    for file in small.into_iter().take(end) {
        let bytes = file.bytes.min(GROUP_BYTES);
        match groups.last_mut() {
            Some(group) if group.len() < limits.inputs.max(2) && held + bytes <= limits.input_bytes => {
                group.push(file.clone());
                held += bytes;
            }
            _ => {
                groups.push(vec![file.clone()]);
                held = bytes;
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Files of which the log does not say what their rows count, and which are in none of the groups: each is written anew
/// alone, once, so that it does. Logs of the first format do not; nothing could be erased from their files.
pub fn uncounted<'f>(files: impl IntoIterator<Item = &'f AddedFile>, groups: &[Vec<AddedFile>]) -> Vec<Vec<AddedFile>> {
    let chosen: BTreeSet<&str> = groups.iter().flatten().map(|file| file.target.as_str()).collect();
    let files = files.into_iter().filter(|file| file.fingerprint.counts.is_none());
    files.filter(|file| !chosen.contains(file.target.as_str())).map(|file| vec![file.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Digest, Fingerprint};
    use recount_schemas::EventKey;

    const MIB: u64 = 1 << 20;

    fn chosen(sizes: &[u64]) -> Vec<Vec<u64>> {
        chosen_by(sizes, &Limits::default())
    }

    fn chosen_by(sizes: &[u64], limits: &Limits) -> Vec<Vec<u64>> {
        let file = |(i, bytes): (usize, &u64)| AddedFile {
            source: String::new(),
            target: format!("{i:04}"),
            month: "2026-11".parse().unwrap(),
            rows: 1,
            bytes: *bytes,
            sha256: Digest::of(b""),
            first_key: EventKey::MIN,
            last_key: EventKey::MIN,
            first_group: None,
            last_group: None,
            fingerprint: Fingerprint::default(),
        };
        let files: Vec<AddedFile> = sizes.iter().enumerate().map(file).collect();
        let groups = choose(&files, limits);
        groups.iter().map(|group| group.iter().map(|file| file.bytes).collect()).collect()
    }

    #[test]
    fn small_files_are_merged_and_large_ones_left() {
        assert_eq!(chosen(&[5, 9, 7]), [[5, 7, 9]]);
        assert_eq!(chosen(&[5, 7, 200 * MIB, 128 * MIB]), [[5, 7]]);
        assert_eq!(chosen(&[5]), Vec::<Vec<u64>>::new());
        assert_eq!(chosen(&[]), Vec::<Vec<u64>>::new());
        assert_eq!(chosen(&[200 * MIB, 200 * MIB]), Vec::<Vec<u64>>::new());
    }

    #[test]
    fn a_row_is_written_again_only_into_a_file_of_twice_the_size() {
        assert_eq!(chosen(&[3 * MIB, MIB]), Vec::<Vec<u64>>::new());
        assert_eq!(chosen(&[60 * MIB, 5, 6, 7]), [[5, 6, 7]], "a few new commits do not rewrite a day");
        assert_eq!(chosen(&[10 * MIB, 10 * MIB, MIB]), [[MIB, 10 * MIB, 10 * MIB]]);
        // Days of commits, one after the other: how often is a byte written?
        let (mut files, mut written, mut total) = (Vec::new(), 0, 0);
        for _ in 0..60 {
            files.extend([MIB; 8]);
            total += 8 * MIB;
            for group in chosen(&files) {
                let sum: u64 = group.iter().sum();
                for size in group {
                    files.remove(files.iter().position(|file| *file == size).unwrap());
                }
                files.push(sum);
                written += sum;
            }
        }
        assert!(written < 6 * total, "{written} of {total}");
        assert!(files.len() < 12, "{files:?}");
    }

    #[test]
    fn a_group_fits_the_memory() {
        let groups = chosen(&[1; 150]);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 22]);
        assert_eq!(chosen(&[1; 129]).len(), 2, "one that is left over stays as it is");
        let groups = chosen(&[100 * MIB; 9]);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
        let fewer = Limits { least_files: 4, ..Limits::default() };
        assert_eq!(chosen_by(&[1; 3], &fewer), Vec::<Vec<u64>>::new());
    }
}
