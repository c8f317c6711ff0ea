//! What long work says of itself while it goes on, for whoever waits: which step it makes, of how many things, and how many of
//! these are done. Nothing depends on it. The command line makes a line on the terminal of it, everybody else passes `&|_| {}`.

use crate::log::AddedFile;

/// One thing that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work<'a> {
    /// The step that begins now. The one before is through.
    Step(&'a str),
    /// It is made of so many of these: "rows", "files", "cells". Where nothing is known, it is not said.
    Of(u64, &'static str),
    /// So many more of them are done.
    Done(u64),
}

/// Whom it is said to.
pub type Says<'a> = dyn Fn(Work<'_>) + Sync + 'a;

/// These files one by one; says how many rows they have, and those of each when the next one is asked for.
pub fn files<'f>(files: &'f [AddedFile], says: &Says<'_>) -> impl Iterator<Item = &'f AddedFile> {
    says(Work::Of(files.iter().map(|file| file.rows).sum(), "rows"));
    let (mut files, mut before) = (files.iter(), 0);
    std::iter::from_fn(move || {
        says(Work::Done(std::mem::take(&mut before)));
        files.next().inspect(|file| before = file.rows)
    })
}
