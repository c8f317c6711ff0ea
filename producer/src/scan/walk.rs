//! Which files lie below a directory, and which project each belongs to.
//!
//! Symbolic links are not followed (but the directory named to begin with may be one), and no directory is entered deeper than
//! [`MAX_DEPTH`]. Directories are read as they come, so memory and open handles are bounded by the depth.

use std::fs::{DirEntry, ReadDir};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ProjectFrom;
use crate::items::hex;

/// How deep directories are entered.
pub const MAX_DEPTH: usize = 128;

/// Something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileError {
    /// The file or directory.
    pub path: String,
    /// Why not.
    pub error: String,
}

impl FileError {
    /// About `path`.
    pub fn new(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self { path: readable(path), error: error.to_string() }
    }
}

/// A file to scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// The same, below the directory that is scanned.
    pub relative: PathBuf,
    /// That, as text (see [`readable`]).
    pub name: String,
    /// Whose it is.
    pub project: String,
}

/// What a walk comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File(FoundFile),
    /// A link, socket or the like.
    LeftOut,
    /// What could not be looked at.
    Failed(FileError),
}

/// A walk below one directory.
#[derive(Debug)]
pub struct Walk {
    root: PathBuf,
    project: Project,
    open: Vec<(PathBuf, ReadDir)>,
}

#[derive(Debug)]
enum Project {
    All(String),
    TopDir { else_named: String },
}

impl Walk {
    /// Begins at `root`; an error says why that cannot be read.
    pub fn new(root: &Path, project_from: &ProjectFrom) -> std::io::Result<Self> {
        let entries = std::fs::read_dir(root)?;
        let project = match project_from {
            ProjectFrom::Name(name) => Project::All(name.clone()),
            ProjectFrom::TopDir => {
                let whole = std::fs::canonicalize(root)?;
                // Only `/` has no name of its own.
                let else_named = whole.file_name().map_or_else(|| "root".to_owned(), |name| readable(Path::new(name)));
                Project::TopDir { else_named }
            }
        };
        Ok(Self { root: root.to_owned(), project, open: vec![(root.to_owned(), entries)] })
    }

    fn look(&mut self, entry: &DirEntry) -> Option<Found> {
        let path = entry.path();
        let kind = match entry.file_type() {
            Ok(kind) => kind, // of the link itself, where it is one
            Err(error) => return Some(Found::Failed(FileError::new(&path, &error))),
        };
        if kind.is_dir() {
            if self.open.len() >= MAX_DEPTH {
                let error = format!("deeper than {MAX_DEPTH} directories; scan it by itself");
                return Some(Found::Failed(FileError::new(&path, &error)));
            }
            return match std::fs::read_dir(&path) {
                Ok(entries) => {
                    self.open.push((path, entries));
                    None
                }
                Err(error) => Some(Found::Failed(FileError::new(&path, &error))),
            };
        }
        if !kind.is_file() {
            return Some(Found::LeftOut);
        }
        let relative = path.strip_prefix(&self.root).unwrap_or(&path).to_owned();
        let mut parts = relative.components();
        let project = match (&self.project, parts.next(), parts.next()) {
            (Project::All(name), _, _) => name.clone(),
            (Project::TopDir { .. }, Some(top), Some(_)) => readable(top.as_ref()),
            (Project::TopDir { else_named }, _, _) => else_named.clone(),
        };
        Some(Found::File(FoundFile { name: readable(&relative), path, relative, project }))
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let (dir, entries) = self.open.last_mut()?;
            match entries.next() {
                None => _ = self.open.pop(),
                Some(Err(error)) => {
                    let failed = FileError::new(dir, &error);
                    self.open.pop(); // a directory that fails once may fail for ever
                    return Some(Found::Failed(failed));
                }
                Some(Ok(entry)) => {
                    if let Some(found) = self.look(&entry) {
                        return Some(found);
                    }
                }
            }
        }
    }
}

/// A path as text: what is not UTF-8 in it appears as `\x` and two hexadecimal digits a byte. (Two names could then read alike:
/// keys are made from the bytes, not from this.)
pub fn readable(path: &Path) -> String {
    let mut text = String::new();
    for piece in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(piece.valid());
        for byte in piece.invalid() {
            text.push_str("\\x");
            text.push_str(&hex(&[*byte]));
        }
    }
    text
}
