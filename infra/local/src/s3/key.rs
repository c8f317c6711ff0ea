//! Which file a key is.
//!
//! The key `events/month=2026-11/000000000000/a.parquet` is the file of that very path below the bucket's directory:
//! people look at these files and DuckDB globs them, so nothing is escaped. What cannot be such a path is refused.
//!
//! | key | verdict |
//! | --- | --- |
//! | `a`, `a/b c/é%`, `.hidden`, `a..b` | a file |
//! | empty, longer than 1,024 bytes | refused, as by AWS |
//! | `a//b`, `/a`, `a/` | refused: an empty component is no file name |
//! | `.`, `..`, `a/../b` | refused: would be another path |
//! | a NUL | refused: no file name holds one |
//! | a component of more than 255 bytes | refused: the limit of Linux and macOS file systems |

use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Longest key in bytes (S3 User Guide, "Object key names").
const MAX_KEY_BYTES: usize = 1_024;

/// Longest file name in bytes on the file systems that matter here.
const MAX_COMPONENT_BYTES: usize = 255;

/// A bucket's name that is safe as the name of one directory: the characters and lengths that AWS allows.
///
/// # Errors
/// [`StoreError::InvalidBucket`].
pub fn check_bucket(bucket: &str) -> Result<(), StoreError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let edges = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = bucket.as_bytes();
    if (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(allowed)
        && edges(bytes.first())
        && edges(bytes.last())
        && !bucket.contains("..")
    {
        Ok(())
    } else {
        Err(StoreError::InvalidBucket(bucket.to_owned()))
    }
}

/// The components of `key`, each a file name that stays inside the bucket.
///
/// # Errors
/// [`StoreError::InvalidKey`] with the reason.
pub fn components(key: &str) -> Result<Vec<&str>, StoreError> {
    let refuse = |why| Err(StoreError::InvalidKey { key: key.to_owned(), why });
    if key.is_empty() {
        return refuse("it is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return refuse("it is longer than 1024 bytes");
    }
    if key.contains('\0') {
        return refuse("it holds a NUL, which no file name can");
    }
    let parts: Vec<&str> = key.split('/').collect();
    for part in &parts {
        match *part {
            "" => return refuse("it has an empty component (a slash first, last or doubled), which no file can have"),
            "." | ".." => return refuse("a component is `.` or `..`, which would be another path"),
            long if long.len() > MAX_COMPONENT_BYTES => return refuse("a component is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(parts)
}

/// The file of `key` below `bucket_dir`.
///
/// # Errors
/// [`StoreError::InvalidKey`].
pub fn file(bucket_dir: &Path, key: &str) -> Result<PathBuf, StoreError> {
    let mut path = bucket_dir.to_path_buf();
    path.extend(components(key)?);
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_or_refused() {
        let long = "x".repeat(256);
        let table = [
            ("a", true),
            ("a/b c/é%2F", true),
            (".hidden/..b/a..", true),
            ("_log/000000000001.json", true),
            ("back\\slash", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            (".", false),
            ("..", false),
            ("../x", false),
            ("a/../b", false),
            ("a/.", false),
            ("a\0b", false),
            (long.as_str(), false),
        ];
        for (key, fine) in table {
            assert_eq!(file(Path::new("/b"), key).is_ok(), fine, "{key:?}");
        }
        assert!(components(&"a/".repeat(600)).is_err());
        assert_eq!(file(Path::new("/b"), "x/y").unwrap(), Path::new("/b/x/y"));
    }

    #[test]
    fn bucket_names_stay_one_directory() {
        for good in ["abc", "recount-archive", "a.b-c", "0ab"] {
            assert!(check_bucket(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "..", "...", "a/b", "A-bucket", "-abc", "abc.", "a..b", "a\0bc", &"a".repeat(64)] {
            assert!(check_bucket(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_accepted_key_leaves_its_bucket(key in "[a./\\\\\0]{0,12}") {
            if let Ok(path) = file(Path::new("/data/bucket"), &key) {
                proptest::prop_assert!(path.starts_with("/data/bucket"));
                proptest::prop_assert!(path.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
                proptest::prop_assert_eq!(path.strip_prefix("/data/bucket").unwrap().to_str().unwrap(), key);
            }
        }
    }
}
