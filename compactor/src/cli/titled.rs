//! Which home a report is of, where that is a set: since a `recount switch` it may be one that nobody named.
//!
//! Before a table stands a line, `home: set tokyo`; a JSON report begins with the member `set`. Of the base neither is said.

use std::io::{Result, Write};

use recount_schemas::SetName;

use super::args::{Command, Format};

/// Whether a command's report is of one home. The others are of all homes, of none, or a list for programs.
pub fn is_of_one_home(command: &Command) -> bool {
    match command {
        Command::Rebuild(_)
        | Command::Switch(_)
        | Command::Sets
        | Command::Definition(_)
        | Command::Estimate(_)
        | Command::Files { .. } => false,
        Command::Replay(args) => !args.positions,
        Command::Usage { .. }
        | Command::Archive
        | Command::Recompute { .. }
        | Command::Reconcile { .. }
        | Command::Repair { .. }
        | Command::Explain(_)
        | Command::Why(_)
        | Command::Fsck(_)
        | Command::Redrive(_)
        | Command::Compact(_)
        | Command::Audit(_)
        | Command::Backfill(_)
        | Command::Erase(_)
        | Command::Doctor(_) => true,
    }
}

/// What is still to be said of the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// All of it, before the first byte of a table or as the first member of an object.
    Title,
    /// The comma behind it, if a member follows.
    Comma,
    /// Nothing.
    Report,
}

/// Writes a report with its title. A command that fails before it writes anything has none.
pub struct Titled<'o> {
    out: &'o mut (dyn Write + Send),
    format: Format,
    set: String,
    next: Next,
}

impl<'o> Titled<'o> {
    /// In front of `out`.
    pub fn new(out: &'o mut (dyn Write + Send), format: Format, set: Option<&SetName>) -> Self {
        let next = if set.is_some() { Next::Title } else { Next::Report };
        Self { out, format, set: set.map(ToString::to_string).unwrap_or_default(), next }
    }
}

impl Write for Titled<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match (self.next, self.format, bytes) {
            (_, _, []) | (Next::Report, ..) => return self.out.write(bytes),
            (Next::Title, Format::Table, _) => writeln!(self.out, "home: set {}", self.set)?,
            (Next::Title, Format::Json, [b'{', ..]) => {
                // The name of a set needs no escape.
                write!(self.out, "{{\"set\":\"{}\"", self.set)?;
                self.next = Next::Comma;
                return Ok(1);
            }
            (Next::Comma, _, [b'}', ..]) | (Next::Title, Format::Json, _) => {}
            (Next::Comma, ..) => self.out.write_all(b",")?,
        }
        self.next = Next::Report;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes come.
    fn written(format: Format, set: Option<&str>, report: &str) -> String {
        let set = set.map(|name| name.parse::<SetName>().unwrap());
        let at_once = |most: usize| {
            let mut out = Vec::new();
            let mut titled = Titled::new(&mut out, format, set.as_ref());
            report.as_bytes().chunks(most).for_each(|chunk| titled.write_all(chunk).unwrap());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at_once(1), at_once(1_000));
        at_once(2)
    }

    #[test]
    fn a_report_of_a_set_says_so() {
        assert_eq!(written(Format::Table, Some("tokyo"), "clean\n"), "home: set tokyo\nclean\n");
        assert_eq!(written(Format::Json, Some("tokyo"), "{\"a\":{}}\n"), "{\"set\":\"tokyo\",\"a\":{}}\n");
        assert_eq!(written(Format::Json, Some("tokyo"), "{}\n"), "{\"set\":\"tokyo\"}\n");
        assert_eq!(written(Format::Json, Some("tokyo"), "[]\n"), "[]\n");
    }

    #[test]
    fn a_report_of_the_base_is_as_it_is_and_what_writes_nothing_says_nothing() {
        for format in [Format::Table, Format::Json] {
            assert_eq!(written(format, None, "{\"a\":1}"), "{\"a\":1}");
            assert_eq!(written(format, Some("tokyo"), ""), "");
        }
    }
}
