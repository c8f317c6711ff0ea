//! `infra/definition.md` held against the code: what it says of a key, the parser must do.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::*;
use crate::verdict::QuarantineCode;

const PAGE: &str = include_str!("../../../infra/definition.md");

/// The text behind a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let start = PAGE.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading}")) + heading.len();
    let rest = &PAGE[start..];
    &rest[..rest.find("\n#").unwrap_or(rest.len())]
}

/// The lines of the section's table without its head, each as its cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let table = section(heading).lines().filter(|line| line.starts_with('|')).skip(2);
    table.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What the parser says that it would have taken instead.
fn expected<T: DeserializeOwned>(text: &str) -> BTreeSet<String> {
    let error = toml::from_str::<T>(text).err().expect(text).message().to_owned();
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
    quoted(expected).into_iter().map(str::to_owned).collect()
}

/// A definition's text by table and key.
type Text = BTreeMap<String, BTreeMap<String, String>>;

fn least() -> Text {
    let text = |pairs: [(&str, &str); 2]| pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let mut least = Text::new();
    least.insert("source".to_owned(), text([("table", "\"scans\""), ("key", "[\"scan_id\"]")]));
    least.insert("fold".to_owned(), text([("group_by", "\"project_id\""), ("count", "\"inserts\"")]));
    least
}

fn parsed(text: &Text) -> Result<Definition, DefinitionError> {
    let key = |(key, value): (&String, &String)| format!("{key} = {value}\n");
    let table =
        |(name, keys): (&String, &BTreeMap<_, _>)| format!("[{name}]\n{}", keys.iter().map(key).collect::<String>());
    Definition::parse(&text.iter().map(table).collect::<String>(), "recount.toml")
}

#[test]
fn the_page_has_every_key_of_each_table_and_no_other() {
    let unknown = "no_such_key = 1";
    let tables = [
        ("source", expected::<Source>(unknown)),
        ("fold", expected::<Fold>(unknown)),
        ("quota", expected::<QuotaTable>(unknown)),
        ("archive", expected::<ArchiveTable>(unknown)),
    ];
    assert_eq!(expected::<File>(unknown), tables.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (name, keys) in tables {
        let rows = rows(&format!("## [{name}]"));
        assert!(rows.iter().all(|row| row.len() == 6), "{rows:?}");
        let said: BTreeSet<String> = rows.iter().map(|row| quoted(row[0])[0].to_owned()).collect();
        assert_eq!((said, rows.len()), (keys.clone(), keys.len()), "[{name}]");
    }
}

#[test]
fn defaults_are_as_the_page_says_and_so_is_what_changes_the_hash() {
    for table in ["source", "fold", "quota", "archive"] {
        for row in rows(&format!("## [{table}]")) {
            let (key, default, hashed, example) = (quoted(row[0])[0], row[2], row[3], quoted(row[4])[0]);
            let with = |value: &str| {
                let mut text = least();
                if key == "ttl_deletes" {
                    text.get_mut("fold").unwrap().insert("count".to_owned(), "\"net\"".to_owned());
                }
                let base = parsed(&text).unwrap().hash().to_owned();
                text.entry(table.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
                parsed(&text).unwrap().hash() != base
            };
            if let [default] = quoted(default)[..] {
                assert!(!with(default), "{key}: {default} is not the default");
            }
            assert_eq!(if with(example) { "yes" } else { "no" }, hashed, "{key}");
            if default == "required" {
                let mut text = least();
                text.get_mut(table).unwrap().remove(key);
                assert!(parsed(&text).is_err(), "{key}");
            }
        }
    }
    assert_eq!(parsed(&least()).unwrap().occurred_at, OccurredAt::CreationTime);
}

#[test]
fn words_and_limits_are_as_the_page_says() {
    let said = |table: &str, key: &str| {
        let rows = rows(&format!("## [{table}]"));
        let row = rows.into_iter().find(|row| quoted(row[0]) == [key]).unwrap();
        (row[1], row[5])
    };
    let words =
        |key| quoted(said("fold", key).0).iter().map(|word| word.trim_matches('"').to_owned()).collect::<BTreeSet<_>>();
    #[derive(serde::Deserialize)]
    struct One<T> {
        #[allow(dead_code)] // only its absence is looked at
        x: T,
    }
    assert_eq!(words("count"), expected::<One<CountName>>("x = 'none'"));
    assert_eq!(words("ttl_deletes"), expected::<One<TtlName>>("x = 'none'"));
    assert_eq!(words("identity"), expected::<One<Identity>>("x = 'none'"));

    let has = |text: &str, number: usize| {
        let digits = number.to_string();
        let of_text = text.replace(',', "");
        of_text.split(|c: char| !c.is_ascii_digit()).any(|found| found == digits)
    };
    assert!(has(said("fold", "sum").0, MAX_MEASURES));
    assert!(has(said("archive", "omit").0, MAX_OMITTED) && has(said("archive", "omit").0, MAX_OMITTED_NAME));
    assert!(has(said("archive", "retain_months").0, usize::from(MAX_RETAINED_MONTHS)));
    assert!(has(said("fold", "group_by").1, crate::fold::MAX_GROUP));
    assert!(has(PAGE, super::super::given::MAX_BASE64) && has(PAGE, super::super::given::MAX_BASE64 / 4 * 3));
    assert_eq!(MAX_FILE, 1 << 20, "the page says 1 MiB");
    // Limits that the parser has and no constant does: the ends that the page names, and one beyond each.
    for (key, kind, ends) in
        [("lanes", "a power of two, 1 to 256", [1, 256]), ("ledger_days", "integer, 3 to 3650", [3, 3650])]
    {
        assert_eq!(said("fold", key).0, kind);
        let taken = |value: u16| {
            let text = format!("[source]\ntable='t'\nkey=['k']\n[fold]\ngroup_by='g'\n{key} = {value}");
            Definition::parse(&text, "x").is_ok()
        };
        assert_eq!([ends[0], ends[1], ends[0] - 1, ends[1] * 2].map(taken), [true, true, false, false], "{key}");
    }
}

#[test]
fn every_form_of_the_time_is_on_the_page_and_is_taken() {
    let forms: Vec<&str> =
        rows("### The time of an event").iter().filter_map(|row| quoted(row[0]).first().copied()).collect();
    let mut units = BTreeSet::new();
    for form in &forms {
        let text = format!("[source]\ntable='t'\nkey=['k']\n[fold]\ngroup_by='g'\n{form}");
        if let OccurredAt::Epoch { unit, .. } = Definition::parse(&text, "x").unwrap().occurred_at {
            units.insert(format!("{unit:?}"));
            assert_eq!(form.matches('=').count(), 3, "{form}");
        }
    }
    assert_eq!((forms.len(), units.len()), (4, 3), "a text, and each unit");
    assert_eq!(expected::<EpochTable>("x = 1"), ["attribute", "unit"].map(str::to_owned).into());
    assert_eq!(expected::<EpochTable>("attribute = 't'\nunit = 'h'").len(), units.len());
}

#[test]
fn the_page_has_every_reason_for_quarantine_and_no_other() {
    let rows = rows("## A record that does not fit");
    let said: Vec<&str> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    let codes: BTreeSet<&str> = QuarantineCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!((said.len(), said.into_iter().collect()), (codes.len(), codes));
}

#[test]
fn the_examples_of_the_page_are_definitions() {
    let examples: Vec<&str> = PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in &examples {
        Definition::parse(example, "infra/definition.md").unwrap();
    }
    // The second one says everything.
    for table in ["source", "fold", "quota", "archive"] {
        for row in rows(&format!("## [{table}]")) {
            let key = quoted(row[0])[0];
            assert!(examples[1].lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
    }
}
