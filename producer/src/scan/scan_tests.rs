use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use super::*;
use crate::loopback::StillHost;

#[derive(Default)]
struct Kept(Mutex<Vec<Scan>>);

impl Target for Kept {
    type Op = Write;
    type Error = std::convert::Infallible;

    fn most(&self) -> usize {
        3
    }

    fn item<'a>(&self, op: &'a Write) -> &'a str {
        match op {
            Write::Put(scan) => &scan.scan_id,
            Write::Delete(scan_id) => scan_id,
        }
    }

    fn distinct(&self) -> bool {
        true
    }

    async fn send(&self, batch: Vec<Write>) -> Result<(), Self::Error> {
        self.0.lock().unwrap().extend(batch.into_iter().map(|op| match op {
            Write::Put(scan) => scan,
            Write::Delete(_) => panic!("a scan deletes nothing"),
        }));
        Ok(())
    }
}

fn settings(dir: &Path) -> ScanSettings {
    ScanSettings {
        dir: dir.to_owned(),
        project_from: ProjectFrom::TopDir,
        occurred_at: OccurredAt::Now,
        run: "run".into(),
        readers: 4,
    }
}

async fn scanned(settings: &ScanSettings) -> (ScanReport, Vec<Scan>) {
    let (kept, host): (_, SharedHost) = (Kept::default(), Arc::new(StillHost::default()));
    let report = scan(&kept, settings, &host, &|_| {}).await.unwrap();
    (report, kept.0.into_inner().unwrap())
}

/// A tree of 40 files in 4 directories, and one above them.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40usize {
        let below = dir.path().join(format!("p{}/deep/er", i % 4));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(format!("f{i}.bin")), vec![7u8; i * 3_000]).unwrap();
    }
    fs::write(dir.path().join("loose \"🦀\".txt"), "abc").unwrap();
    dir
}

/// Files and bytes for each first directory, by the plainest recursion there is.
fn plain_walk(dir: &Path, top: Option<&str>, into: &mut BTreeMap<String, Tally>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            plain_walk(&entry.path(), Some(top.unwrap_or(&name)), into);
        } else {
            let own = dir.file_name().unwrap().to_str().unwrap();
            let tally = into.entry(top.unwrap_or(own).to_owned()).or_default();
            tally.files += 1;
            tally.bytes += entry.metadata().unwrap().len();
        }
    }
}

#[tokio::test]
async fn a_scan_counts_what_a_plain_walk_counts() {
    let dir = tree();
    let (report, scans) = scanned(&settings(dir.path())).await;
    let mut expected = BTreeMap::new();
    plain_walk(dir.path(), None, &mut expected);
    assert_eq!(report.projects, expected);
    assert_eq!((report.inserted, report.failed, report.left_out), (41, 0, 0));
    assert_eq!(report.bytes, expected.values().map(|tally| tally.bytes).sum::<u64>());

    let mut items: BTreeMap<String, Tally> = BTreeMap::new();
    for scan in &scans {
        let tally = items.entry(scan.project_id.clone()).or_default();
        *tally = Tally { files: tally.files + 1, bytes: tally.bytes + scan.bytes };
    }
    assert_eq!(items, expected, "the items say the same as the report");
    let ids: BTreeSet<_> = scans.iter().map(|scan| &scan.scan_id).collect();
    assert_eq!(ids.len(), 41);
    let loose = scans.iter().find(|scan| scan.file_name == "loose \"🦀\".txt").unwrap();
    assert_eq!(loose.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(scans.iter().any(|scan| scan.file_name == "p1/deep/er/f5.bin"));
}

#[tokio::test]
async fn the_same_run_has_the_same_keys_and_another_has_others() {
    let dir = tree();
    let ids = |scans: Vec<Scan>| scans.into_iter().map(|scan| scan.scan_id).collect::<BTreeSet<_>>();
    let base = ids(scanned(&settings(dir.path())).await.1);
    assert_eq!(base, ids(scanned(&settings(dir.path())).await.1));
    let other = ScanSettings { run: "other".into(), ..settings(dir.path()) };
    assert!(base.is_disjoint(&ids(scanned(&other).await.1)));
}

#[tokio::test]
async fn one_project_for_all_and_times_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "x").unwrap();
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_764_547_199_999_999);
    fs::File::options().write(true).open(dir.path().join("f")).unwrap().set_modified(at).unwrap();
    let project_from = ProjectFrom::Name("acme".into());
    let settings = ScanSettings { project_from, occurred_at: OccurredAt::Mtime, ..settings(dir.path()) };
    let (_, scans) = scanned(&settings).await;
    assert_eq!((scans[0].project_id.as_str(), scans[0].scanned_at().as_str()), ("acme", "2025-11-30T23:59:59.999999Z"));
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_not_followed_and_odd_names_are_kept() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let outside = tree();
    fs::create_dir(dir.path().join("p")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("p/linked")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("p/round")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("p/dangling")).unwrap();
    for name in [b"odd\xff".as_slice(), b"odd\xfe"] {
        fs::write(dir.path().join("p").join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    let (report, scans) = scanned(&settings(dir.path())).await;
    assert_eq!((report.inserted, report.left_out, report.failed), (2, 3, 0));
    let names: BTreeSet<_> = scans.iter().map(|scan| scan.file_name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["p/odd\\xfe", "p/odd\\xff"]));
    assert_ne!(scans[0].scan_id, scans[1].scan_id);
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_and_the_rest_is_scanned() {
    let kept = Kept::default();
    let host: SharedHost = Arc::new(StillHost::default());
    let nowhere = settings(Path::new("/nowhere/at/all"));
    assert!(matches!(scan(&kept, &nowhere, &host, &|_| {}).await, Err(ScanError::Dir { .. })));

    let dir = tempfile::tempdir().unwrap();
    let mut deep = dir.path().to_owned();
    for _ in 0..MAX_DEPTH {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("unreached"), "x").unwrap();
    fs::write(dir.path().join("f"), "x").unwrap();
    let (report, _) = scanned(&settings(dir.path())).await;
    assert_eq!((report.inserted, report.failed), (1, 1));
    assert!(report.errors[0].error.contains("deeper than 128 directories"), "{:?}", report.errors);
}

#[test]
fn a_file_that_is_gone_is_an_error_of_that_file() {
    assert!(contents(Path::new("/nowhere/at/all")).is_err());
}
