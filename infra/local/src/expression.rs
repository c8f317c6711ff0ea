//! How many operators and functions an expression has, so that local mode refuses what AWS would.
//!
//! AWS allows 300 in one expression (DynamoDB Developer Guide, "Constraints": operators and functions in an
//! expression). The embedded engine holds the 4 KB limit on an expression's text but not this one, and the consumer's
//! big condition comes close to both.
//!
//! Counted: comparators, `=`, `AND`, `OR`, `NOT`, `BETWEEN` (its own `AND` not), `IN`, `+`, `-`, and every function
//! call. AWS does not publish how it counts; counting the `=` of a `SET` errs on the strict side.

use std::borrow::Cow;

use serde::Deserialize;

/// Most operators and functions in one expression.
pub const MAX_OPERATORS: usize = 300;

/// Counts the operators and functions in `expression`. Text that is no expression gets some number; the engine's
/// parser judges it.
pub fn operators(expression: &str) -> usize {
    let mut count = 0;
    let mut betweens = 0usize;
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first.is_alphanumeric() || matches!(first, '_' | '#' | ':') {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '#' | ':'))).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            match word.to_ascii_uppercase().as_str() {
                "BETWEEN" => {
                    betweens += 1;
                    count += 1;
                }
                "AND" if betweens > 0 => betweens -= 1,
                "AND" | "OR" | "NOT" | "IN" => count += 1,
                _ => count += usize::from(after.trim_start().starts_with('(')),
            }
            continue;
        }
        let operator = ["<>", "<=", ">=", "<", ">", "=", "+", "-"].into_iter().find(|op| rest.starts_with(op));
        count += usize::from(operator.is_some());
        let step = operator.map_or(first.len_utf8(), str::len);
        rest = rest.get(step..).unwrap_or_default();
    }
    count
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Expressions<'a> {
    #[serde(borrow, default)]
    condition_expression: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    update_expression: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    filter_expression: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key_condition_expression: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    transact_items: Vec<Action<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Action<'a> {
    #[serde(borrow, default)]
    put: Option<Box<Expressions<'a>>>,
    #[serde(borrow, default)]
    update: Option<Box<Expressions<'a>>>,
    #[serde(borrow, default)]
    delete: Option<Box<Expressions<'a>>>,
    #[serde(borrow, default)]
    condition_check: Option<Box<Expressions<'a>>>,
}

impl Expressions<'_> {
    fn excess(&self) -> Option<String> {
        let named = [
            ("ConditionExpression", &self.condition_expression),
            ("UpdateExpression", &self.update_expression),
            ("FilterExpression", &self.filter_expression),
            ("KeyConditionExpression", &self.key_condition_expression),
        ];
        let own = named.into_iter().find_map(|(name, text)| {
            let count = operators(text.as_deref()?);
            (count > MAX_OPERATORS).then(|| {
                format!("Invalid {name}: it has {count} operators and functions; the limit is {MAX_OPERATORS}")
            })
        });
        let actions = self.transact_items.iter();
        own.or_else(|| {
            actions
                .flat_map(|action| [&action.put, &action.update, &action.delete, &action.condition_check])
                .flatten()
                .find_map(|action| action.excess())
        })
    }
}

/// What is wrong with the expressions of a DynamoDB request, if one has too many operators.
pub fn excess(body: &[u8]) -> Option<String> {
    // No operator is shorter than one byte, and each has an operand: a small request needs no second parsing.
    if body.len() < 2 * MAX_OPERATORS {
        return None;
    }
    // What does not parse here is the engine's to refuse.
    serde_json::from_slice::<Expressions<'_>>(body).ok()?.excess()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_functions_are_counted() {
        let table = [
            ("", 0),
            ("a = :a", 1),
            ("#a<>:b AND NOT contains(#c, :d)", 4),
            ("a BETWEEN :x AND :y AND b IN (:p, :q)", 3),
            ("attribute_not_exists (sealed) OR sealed<:least", 3),
            ("size(recent) >= :n and #or <= :in", 4),
            ("SET a = if_not_exists(a, :z) + :n, b = b - :m REMOVE c ADD d :e", 5),
            ("ADD events :n, recent :keys", 0),
            ("a.b[0].c = :é", 1),
        ];
        for (expression, expected) in table {
            assert_eq!(operators(expression), expected, "{expression}");
        }
    }

    #[test]
    fn the_limit_is_found_wherever_an_expression_stands() {
        let terms = |n: usize| vec!["contains(a,:b)"; n].join(" AND "); // 2n − 1
        let body = |json: serde_json::Value| serde_json::to_vec(&json).unwrap();
        let fine = terms(150);
        let bad = terms(151);
        assert_eq!(excess(&body(serde_json::json!({"ConditionExpression": fine}))), None);
        assert_eq!(
            excess(&body(serde_json::json!({"ConditionExpression": bad}))).unwrap(),
            "Invalid ConditionExpression: it has 301 operators and functions; the limit is 300"
        );
        assert!(excess(&body(serde_json::json!({"FilterExpression": bad, "TableName": "t"}))).is_some());
        let transact =
            serde_json::json!({"TransactItems": [{"Put": {"Item": {}}}, {"Update": {"UpdateExpression": bad}}]});
        assert!(excess(&body(transact)).unwrap().starts_with("Invalid UpdateExpression"));
        assert_eq!(excess(&[b'x'; 2_000]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            operators(&text);
        }
    }
}
