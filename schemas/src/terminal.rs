//! Text from outside on its way to a terminal. The one place: everything that a table or a message shows goes through here.
//!
//! A project's name, a file's name, an answer of a server: each may hold what moves the cursor, changes colours or hides text.

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

/// As [`shown`], for a message of any length that may have several lines.
pub fn shown_message(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' { shown.push(c) } else { push(&mut shown, c) }
    }
    shown
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terminal_sequences_and_hidden_characters_are_shown_as_such() {
        assert_eq!(shown("a\u{1b}[31mred\r\n\t"), "a\\u{1b}[31mred\\r\\n\\t");
        assert_eq!(shown("\u{9b}2J \u{202e}evil \u{200b}"), "\\u{9b}2J \\u{202e}evil \\u{200b}");
        assert_eq!(shown("é 😀 漢"), "é 😀 漢");
        assert_eq!(shown(&"x".repeat(1_000)).chars().count(), MOST + 1);
        assert_eq!(shown_message("one\ntwo\u{7}"), "one\ntwo\\u{7}");
    }

    proptest! {
        #[test]
        fn nothing_shown_controls_a_terminal(text in "\\PC{0,50}|[\0-\u{ff}]{0,50}") {
            prop_assert!(!shown(&text).chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }
}
