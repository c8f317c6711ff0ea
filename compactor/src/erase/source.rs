//! Whether the source table still has the item: then its next change, or a backfill, brings its data into the archive again.

use recount_schemas::Definition;
use recount_schemas::host::SharedHost;
use serde::Serialize;

use super::ItemKey;
use crate::audit::again::Items;
use crate::table::TableError;
use crate::table::item::key_text;
use crate::table::pace::Pace;

/// What the source table says of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InSource {
    /// The table.
    pub table: String,
    /// Whether it has the item; `None` where it could not be asked.
    pub has: Option<bool>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Asks the table, by one read, as an audit does. A value that was typed without its type is asked for as a string, then as a number.
pub async fn in_source(
    dynamo: &aws_sdk_dynamodb::Client,
    definition: &Definition,
    host: &SharedHost,
    key: &ItemKey,
) -> InSource {
    let pace = Pace::new(host.clone(), None);
    let items = Items { dynamo, definition, omitted: &[], host, pace: &pace };
    let mut answers = Vec::new();
    for item in key.forms() {
        let Some(text) = key_text(&definition.key, &item) else { continue };
        answers.push(items.read(&[text.as_str()]).await.map(|found| !found.is_empty()));
    }
    told(definition.table.clone(), answers)
}

/// A form that is not the key's is refused, and says nothing.
fn told(table: String, answers: Vec<Result<bool, TableError>>) -> InSource {
    let has = answers.iter().filter_map(|answer| answer.as_ref().ok()).copied().reduce(|one, other| one || other);
    let why = match has {
        Some(_) => None,
        None => Some(
            answers
                .into_iter()
                .find_map(Result::err)
                .map_or_else(|| "it is no key".to_owned(), |error| error.to_string()),
        ),
    };
    InSource { table, has, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_is_enough() {
        let refused = |why: &str| {
            let why = why.to_owned();
            Err(TableError::Dynamo { action: "reading items of", table: "t".to_owned(), why })
        };
        let of = |answers| told("t".to_owned(), answers);
        assert_eq!(of(vec![Ok(true)]).has, Some(true));
        assert_eq!(of(vec![refused("ValidationException"), Ok(false)]).has, Some(false));
        assert_eq!(
            of(vec![Ok(true), refused("ValidationException")]),
            InSource { table: "t".into(), has: Some(true), why: None }
        );
        let unknown = of(vec![refused("AccessDeniedException"), refused("ValidationException")]);
        assert_eq!(unknown.has, None);
        insta::assert_snapshot!(unknown.why.unwrap(), @"reading items of table t: AccessDeniedException");
        assert_eq!(of(Vec::new()).why.unwrap(), "it is no key");
    }
}
