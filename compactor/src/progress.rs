//! What long work says of itself while it goes on, for whoever waits: which step it makes, of how many things, and how many of
//! these are done. Nothing depends on it. The command line makes a line on the terminal of it, everybody else passes `&|_| {}`.

use std::time::Duration;

use recount_schemas::host::SharedHost;

use crate::log::AddedFile;
use crate::table::time;

/// One thing that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work<'a> {
    /// The step that begins now. The one before is through.
    Step(&'a str),
    /// Such a step that does nothing but wait, perhaps for minutes. It is said where nobody watches, too.
    Wait(&'a str),
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

/// Waits for what capture may still have under way, and says until when.
pub async fn settle(host: &SharedHost, wait: Duration, says: &Says<'_>) {
    if wait.is_zero() {
        return;
    }
    says(Work::Wait(&settling(host.now_us(), wait)));
    host.sleep(wait).await;
}

fn settling(now_us: i64, wait: Duration) -> String {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    let until = now_us.div_euclid(1_000_000).saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
    let until = time(until.saturating_mul(1_000_000));
    format!("waiting until {until}, {seconds} s, for what capture may have under way (--settle)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_says_how_long_and_until_when() {
        let now_us = 1_793_500_000_400_000;
        insta::assert_snapshot!(settling(now_us, Duration::from_secs(900)), @"waiting until 2026-11-01T02:41:40Z, 900 s, for what capture may have under way (--settle)");
        insta::assert_snapshot!(settling(now_us, Duration::from_millis(1)), @"waiting until 2026-11-01T02:26:41Z, 1 s, for what capture may have under way (--settle)");
        assert!(settling(i64::MAX, Duration::MAX).starts_with("waiting until "), "whatever was asked for");
    }
}
