//! Listing: the keys of a bucket in UTF-8 byte order, rolled up at a delimiter, a page at a time.
//!
//! The order is that of the keys, not of the directory walk: `a.b` < `a/b` < `a0`, so a directory sorts as if its
//! name ended in a slash. A page starts anywhere by skipping whole subtrees, and reads only the directories it shows.
//! Memory: the names of the directories on the path to the current key, and one page.

use std::fs;
use std::path::{Path, PathBuf};
use std::vec;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::attributes::Attributes;
use super::error::StoreError;
use super::key;
use super::store::Store;

/// Most entries of a page (S3 API, ListObjectsV2 `MaxKeys`).
pub const MAX_PAGE: usize = 1_000;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum From {
    /// At the first key.
    #[default]
    Start,
    /// After this key.
    After(String),
    /// After every key with this prefix: the last entry was a common prefix.
    Past(String),
}

impl From {
    /// The continuation token that means this place.
    pub fn token(&self) -> String {
        let text = match self {
            From::Start => String::new(),
            From::After(key) => format!("k{key}"),
            From::Past(prefix) => format!("p{prefix}"),
        };
        BASE64_URL_SAFE_NO_PAD.encode(text)
    }

    /// Reads a continuation token.
    ///
    /// # Errors
    /// [`StoreError::InvalidArgument`] when [`From::token`] did not write it.
    pub fn parse(token: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::InvalidArgument("the continuation token is not one of this server".to_owned());
        let text = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        match text.split_at_checked(1) {
            Some(("k", key)) => Ok(From::After(key.to_owned())),
            Some(("p", prefix)) => Ok(From::Past(prefix.to_owned())),
            _ => Err(bad()),
        }
    }

    /// Whether a file of this key comes before the place.
    fn skips_key(&self, key: &str) -> bool {
        match self {
            From::Start => false,
            From::After(after) => key <= after.as_str(),
            From::Past(past) => key <= past.as_str() || key.starts_with(past.as_str()),
        }
    }

    /// Whether everything below this directory (its name with the slash) comes before the place.
    fn skips_dir(&self, dir: &str) -> bool {
        match self {
            From::Start => false,
            From::After(after) => dir <= after.as_str() && !after.starts_with(dir),
            From::Past(past) => dir.starts_with(past.as_str()) || (dir < past.as_str() && !past.starts_with(dir)),
        }
    }
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only keys that start so.
    pub prefix: String,
    /// Roll up at the first of these after the prefix; empty: no roll-up.
    pub delimiter: String,
    /// Where to begin.
    pub from: From,
    /// Most entries, keys and common prefixes together; at most [`MAX_PAGE`] are given.
    pub max: usize,
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects, in byte order of their keys.
    pub objects: Vec<(String, Attributes)>,
    /// The common prefixes, in byte order.
    pub prefixes: Vec<String>,
    /// Where the next page begins, when there is one.
    pub next: Option<From>,
}

impl Store {
    /// One page of a bucket.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`], or when a file cannot be read.
    pub fn list(&self, bucket: &str, query: &Query) -> Result<Page, StoreError> {
        let bucket_dir = self.bucket(bucket)?;
        let most = query.max.min(MAX_PAGE);
        let mut page = Page::default();
        if most == 0 {
            return Ok(page);
        }
        let mut last = From::Start;
        let mut walk = Walk::new(&bucket_dir, &query.prefix, query.from.clone());
        while let Some(found) = walk.next() {
            let full = page.objects.len() + page.prefixes.len() == most;
            let rolled = match (query.delimiter.as_str(), found.get(query.prefix.len()..)) {
                ("", _) | (_, None) => None,
                (delimiter, Some(rest)) => {
                    rest.find(delimiter).and_then(|at| found.get(..query.prefix.len() + at + delimiter.len()))
                }
            };
            if full {
                page.next = Some(last);
                return Ok(page);
            }
            if let Some(prefix) = rolled {
                last = From::Past(prefix.to_owned());
                walk.from = last.clone();
                page.prefixes.push(prefix.to_owned());
                continue;
            }
            match self.head(bucket, &found) {
                Ok(attributes) => {
                    last = From::After(found.clone());
                    page.objects.push((found, attributes));
                }
                Err(StoreError::NoSuchKey(_)) => {} // deleted meanwhile
                Err(e) => return Err(e),
            }
        }
        Ok(page)
    }
}

/// One directory on the way.
struct Frame {
    dir: PathBuf,
    /// The directory's key prefix: empty, or ends in a slash.
    prefix: String,
    /// Names to come, in order; a directory's with the slash.
    names: vec::IntoIter<String>,
}

/// All keys with a prefix after a place, in order.
struct Walk<'a> {
    prefix: &'a str,
    from: From,
    frames: Vec<Frame>,
}

impl<'a> Walk<'a> {
    fn new(bucket_dir: &Path, prefix: &'a str, from: From) -> Self {
        let mut walk = Walk { prefix, from, frames: Vec::new() };
        // Begin in the deepest directory that the prefix names for certain.
        let certain = prefix.rfind('/').map(|at| prefix.split_at(at).0);
        let (dir, below) = match certain {
            None => (bucket_dir.to_path_buf(), String::new()),
            Some(certain) => match key::file(bucket_dir, certain) {
                Ok(dir) => (dir, format!("{certain}/")),
                Err(_) => return walk, // no key can start so
            },
        };
        walk.enter(dir, below);
        walk
    }

    fn enter(&mut self, dir: PathBuf, prefix: String) {
        let Ok(entries) = fs::read_dir(&dir) else { return }; // pruned meanwhile, or a file
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let kind = entry.file_type().ok()?;
                let mut name = entry.file_name().into_string().ok()?;
                if kind.is_dir() {
                    name.push('/');
                } else if !kind.is_file() {
                    return None;
                }
                self.wants(&prefix, &name).then_some(name)
            })
            .collect();
        names.sort_unstable();
        self.frames.push(Frame { dir, prefix, names: names.into_iter() });
    }

    fn wants(&self, below: &str, name: &str) -> bool {
        let full = format!("{below}{name}");
        if name.ends_with('/') {
            (full.starts_with(self.prefix) || self.prefix.starts_with(&full)) && !self.from.skips_dir(&full)
        } else {
            full.starts_with(self.prefix) && !self.from.skips_key(&full)
        }
    }

    fn next(&mut self) -> Option<String> {
        loop {
            let frame = self.frames.last_mut()?;
            let Some(name) = frame.names.next() else {
                self.frames.pop();
                continue;
            };
            let (dir, below) = (frame.dir.join(name.trim_end_matches('/')), frame.prefix.clone());
            if !self.wants(&below, &name) {
                continue; // the place has moved since the directory was read
            }
            let full = format!("{below}{name}");
            if name.ends_with('/') {
                self.enter(dir, full);
            } else {
                return Some(full);
            }
        }
    }
}
