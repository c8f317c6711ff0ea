//! What the questions share.
//!
//! Nobody else's text goes into a statement but the source table's name and a group, as literals; columns' names are of a-z, 0-9
//! and _ only.

use recount_schemas::Definition;
use recount_schemas::definition::Measure;

/// A text as a literal. Trino knows no escape in it but the doubled quote.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A statement as it is asked: without what it tells people.
pub fn statement(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

/// A statement with its places filled: each `{name}` of these by its text, in which nothing is filled.
pub fn filled(statement: &str, places: &[(&str, &str)]) -> String {
    let mut parts = statement.split('{');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let place = part.split_once('}').and_then(|(name, rest)| {
            let (_, text) = places.iter().find(|(place, _)| *place == name)?;
            Some((text, rest))
        });
        match place {
            Some((text, rest)) => out.extend([text, rest]),
            None => out.extend(["{", part]),
        }
    }
    out
}

/// One line for each measure, behind what stands before.
pub fn each(definition: &Definition, line: impl Fn(&Measure) -> String) -> String {
    definition.measures.iter().map(|measure| format!(",\n    {}", line(measure))).collect()
}

/// The name of what a measure's column comes to: `sum_bytes` of `measure_bytes`.
pub fn named(measure: &Measure, what: &str) -> String {
    measure.column.replacen("measure", what, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_be_left() {
        assert_eq!(literal("o'x' OR ''='"), "'o''x'' OR ''''='''");
        assert_eq!(literal("a\\\n-- b"), "'a\\\n-- b'");
    }

    #[test]
    fn what_is_filled_in_is_not_filled() {
        let places = [("a", "{b}"), ("b", "2")];
        assert_eq!(filled("{a} {b}{c} { } {", &places), "{b} 2{c} { } {");
    }

    #[test]
    fn a_statement_is_without_its_comments() {
        assert_eq!(statement("-- a\nSELECT\n    -- b\n    1"), "SELECT\n    1");
    }
}
