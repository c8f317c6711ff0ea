//! What is being done, on a terminal: one line on standard error that goes away. Where there is none, only what is waited for: a line
//! that stays.
//!
//! A step of which nothing more is known has a spinner; one that says of how many things it is made, a bar, the count, and the time
//! that is left if it goes on so.

use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use recount_schemas::terminal::{shown, shown_line};

use crate::progress::Work;

/// The line.
#[derive(Debug)]
pub struct Progress(Option<Line>);

#[derive(Debug)]
struct Line {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    /// A line, if `wanted` and standard error is a terminal. Without colour where `NO_COLOR` is set (no-color.org).
    pub fn new(wanted: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let line = (wanted && std::io::stderr().is_terminal()).then(|| Line::to(ProgressDrawTarget::stderr(), plain));
        if let Some(line) = &line {
            line.bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self(line)
    }

    /// Shows what is said.
    pub fn say(&self, work: Work<'_>) {
        match (&self.0, work) {
            (Some(line), _) => line.say(work),
            // Where nobody reads it, it need not be said.
            (None, Work::Wait(what)) => drop(writeln!(std::io::stderr(), "{}", shown_line(what))),
            (None, _) => {}
        }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(line) = &self.0 {
            line.bar.finish_and_clear();
        }
    }
}

impl Line {
    fn to(target: ProgressDrawTarget, plain: bool) -> Self {
        let line = Self { bar: ProgressBar::with_draw_target(None, target), plain };
        line.style(false);
        line
    }

    fn style(&self, counted: bool) {
        // What is being done takes what room there is, and is cut where there is none: a line that wraps is not taken away.
        let template = match (counted, self.plain) {
            (false, true) => "{spinner} {wide_msg}",
            (false, false) => "{spinner:.cyan} {wide_msg}",
            (true, true) => "{spinner} {wide_msg} [{bar:12}] {human_pos} of {human_len} {prefix}{left}",
            (true, false) => "{spinner:.cyan} {wide_msg} [{bar:12.cyan}] {human_pos} of {human_len} {prefix}{left}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> ").with_key("left", left));
        }
    }

    fn say(&self, work: Work<'_>) {
        let bar = &self.bar;
        match work {
            Work::Step(step) | Work::Wait(step) => {
                self.style(false);
                bar.unset_length();
                bar.set_position(0);
                bar.set_message(shown(step));
            }
            Work::Of(all, unit) => {
                bar.set_position(0);
                bar.reset_eta();
                bar.set_length(all);
                bar.set_prefix(unit);
                self.style(true);
            }
            Work::Done(more) => bar.inc(more),
        }
    }
}

/// The time that is left; nothing until it can be told.
fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let eta = state.eta();
    if state.pos() > 0 && !eta.is_zero() {
        let _ = write!(out, ", {:#} left", HumanDuration(eta)); // "5m left"; a line that cannot be made longer is shown as it is
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal that remembers the last line that was written to it.
    #[derive(Debug, Clone)]
    struct Terminal(Arc<Mutex<String>>, u16);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            self.1
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            if !text.trim().is_empty() {
                text.trim_end().clone_into(&mut self.0.lock().unwrap());
            }
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn drawn(plain: bool, width: u16, said: &[Work<'_>]) -> String {
        let terminal = Terminal(Arc::default(), width);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let line = Line::to(target, plain);
        said.iter().for_each(|work| line.say(*work));
        line.bar.abandon(); // draws what it has come to
        terminal.0.lock().unwrap().clone()
    }

    /// The spinner and the time that is left depend on the clock, the room between on the width.
    fn after(plain: bool, said: &[Work<'_>]) -> String {
        let shown = drawn(plain, 120, said);
        let shown = shown.split(", ").next().unwrap_or_default();
        let shown: String = shown.chars().skip_while(|c| !c.is_ascii_alphabetic()).collect();
        match shown.split_once(" [") {
            Some((step, bar)) => format!("{} [{bar}", step.trim_end()),
            None => shown,
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let step =
            Work::Step("reading the tables' items and what the archive says of each of them, by shard and by month");
        let said = [step, Work::Of(1_000_000_000, "archived changes"), Work::Done(123_456_789)];
        for (width, plain) in [(80, true), (120, true), (80, false)] {
            for said in [&said[..1], &said] {
                let line = drawn(plain, width, said);
                assert!(line.chars().count() <= usize::from(width), "{width}: {line:?}"); // no colours: this is no terminal
            }
        }
    }

    #[test]
    fn a_line_says_what_is_done_and_how_far_it_is() {
        let (step, of) = (Work::Step("comparing"), Work::Of(2_000, "rows"));
        for (said, expected) in [
            (&[step][..], "comparing"),
            (&[step, of], "comparing [            ] 0 of 2,000 rows"),
            (&[step, of, Work::Done(1_000)], "comparing [======>     ] 1,000 of 2,000 rows"),
            (&[step, of, Work::Done(1_500), Work::Done(500)], "comparing [============] 2,000 of 2,000 rows"),
            // The next step begins anew, whatever the one before came to.
            (&[step, of, Work::Done(3), Work::Step("tidying")], "tidying"),
            (&[step, of, Work::Done(3), Work::Of(7, "cells")], "comparing [            ] 0 of 7 cells"),
            // Nothing to do is no fraction of anything; more than was said is shown as it is.
            (&[step, Work::Of(0, "rows")], "comparing [============] 0 of 0 rows"),
            (&[step, Work::Of(1, "rows"), Work::Done(2)], "comparing [============] 2 of 1 rows"),
            (&[step, of, Work::Wait("waiting until then")], "waiting until then"),
            (&[Work::Step("a\u{1b}[2Jb")], r"a\u{1b}[2Jb"),
        ] {
            assert_eq!(after(true, said), expected, "{said:?}");
        }
    }

    #[test]
    fn without_a_terminal_no_step_is_said() {
        let none = Progress(None);
        none.say(Work::Step("comparing"));
        none.say(Work::Done(1));
        none.finish();
        // Neither tests nor a program that reads JSON have one.
        assert!(Progress::new(false).0.is_none());
    }
}
