//! Text from outside on its way to a terminal. The one place: everything that a table or a message shows goes through here.
//!
//! A project's name, a file's name, an answer of a server: each may hold what moves the cursor, changes colours or hides text.
//! Log lines and messages of a command line's parser hold them, too: [`Guarded`] stands before standard error.
//!
//! Numbers that people read are laid out here as well: [`grouped`], [`plural`].

use std::io::{self, Write};

/// The most characters of one cell of a table.
const MOST: usize = 120;

/// The text with everything escaped that is not plainly visible: control characters (and so every terminal sequence),
/// characters that change the direction of writing or have no width. A long text is cut.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (i, c) in text.chars().enumerate() {
        if i == MOST {
            shown.push('…');
            break;
        }
        push(&mut shown, c);
    }
    shown
}

/// As [`shown`], for one line of any length.
pub fn shown_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut shown, c));
    shown
}

/// As [`shown`], for a message of any length that may have several lines.
pub fn shown_message(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' { shown.push(c) } else { push(&mut shown, c) }
    }
    shown
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    if n < 0 {
        text.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count as [`grouped`] shows numbers.
pub fn count(n: u64) -> String {
    grouped(i64::try_from(n).unwrap_or(i64::MAX))
}

/// So many of a thing: `1 file`, `2 files`, `0 entries`. `one` is the word for one.
pub fn plural(n: u64, one: &str) -> String {
    let n_shown = count(n);
    let stem = one.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match (n, stem) {
        (1, _) => format!("{n_shown} {one}"),
        (_, Some(stem)) => format!("{n_shown} {stem}ies"),
        (_, None) => format!("{n_shown} {one}s"),
    }
}

fn push(shown: &mut String, c: char) {
    if c.is_control() || is_invisible(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
}

/// Format characters of Unicode's general category Cf that hide or reorder text, and the two separators of lines.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes what is written through it as [`shown_message`] does. Bytes that are no UTF-8 become U+FFFD.
///
/// For writers that give whole lines in one write, as `tracing-subscriber` does; colours do not come through.
#[derive(Debug)]
pub struct Guarded<W>(pub W);

impl<W: Write> Write for Guarded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(shown_message(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        let said =
            [plural(0, "entry"), plural(1, "entry"), plural(2, "key"), plural(1_234, "removed file"), plural(1, "row")];
        assert_eq!(said, ["0 entries", "1 entry", "2 keys", "1,234 removed files", "1 row"]);
        assert_eq!([grouped(-1_234_567), grouped(0), grouped(999)], ["-1,234,567", "0", "999"]);
        assert_eq!(plural(u64::MAX, "row"), "9,223,372,036,854,775,807 rows");
    }

    #[test]
    fn terminal_sequences_and_hidden_characters_are_shown_as_such() {
        assert_eq!(shown("a\u{1b}[31mred\r\n\t"), "a\\u{1b}[31mred\\r\\n\\t");
        assert_eq!(shown("\u{9b}2J \u{202e}evil \u{200b}"), "\\u{9b}2J \\u{202e}evil \\u{200b}");
        assert_eq!(shown("é 😀 漢"), "é 😀 漢");
        assert_eq!(shown(&"x".repeat(1_000)).chars().count(), MOST + 1);
        assert_eq!(shown_message("one\ntwo\u{7}"), "one\ntwo\\u{7}");
        assert_eq!(shown_line("one\ntwo\u{7}"), "one\\ntwo\\u{7}");
        let mut written = Vec::new();
        Guarded(&mut written).write_all("\u{1b}]8;;x\u{7}\u{2066}\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "\\u{1b}]8;;x\\u{7}\\u{2066}\n");
    }

    proptest! {
        #[test]
        fn nothing_shown_controls_a_terminal(text in "\\PC{0,50}|[\0-\u{ff}]{0,50}") {
            for shown in [shown(&text), shown_line(&text)] {
                prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
            }
        }
    }
}
