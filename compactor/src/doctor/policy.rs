//! What a bucket's policy says of the archive's log. Pure.
//!
//! The log's chain of digests shows that an entry was changed; that nobody can change one is up to the policy. For everybody, under
//! `_log/` and `sets/*/_log/`, it must deny
//!
//! - `s3:DeleteObject` and `s3:DeleteObjectVersion`, whatever the circumstances;
//! - `s3:PutObject` where the request has no `If-None-Match` (condition `Null` of `s3:if-none-match`), as the S3 User Guide says under
//!   "Enforce conditional writes". A second condition on `s3:ObjectCreationOperation` only exempts the parts of multipart uploads.
//!
//! What is said by `NotAction`, `NotResource`, `NotPrincipal` or other conditions is not taken for such a denial: it is said more simply, or
//! a person has to look.

use serde_json::Value;

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPolicy {
    /// Nobody may delete an entry, nor a version of one.
    pub kept: bool,
    /// Nobody may put an entry where one stands.
    pub append_only: bool,
}

/// The policy of a bucket, as S3 gives it; `None` where it is no policy.
pub fn read(text: &str, bucket: &str) -> Option<LogPolicy> {
    let policy: Value = serde_json::from_str(text).ok()?;
    let statements: Vec<&Value> = denials(one_or_many(policy.get("Statement")?)).collect();
    let objects = ["_log/000000000000.json", "sets/x/_log/000000000000.json"];
    let denied = |action: &str, circumstances: fn(&Value) -> bool| {
        objects.iter().all(|object| {
            let of_it = |statement: &&&Value| covers(statement, action, bucket, object);
            statements.iter().filter(of_it).any(|statement| circumstances(statement))
        })
    };
    Some(LogPolicy {
        kept: denied("s3:DeleteObject", always) && denied("s3:DeleteObjectVersion", always),
        append_only: denied("s3:PutObject", |statement| always(statement) || without_if_none_match(statement)),
    })
}

/// One thing, or a list of such: a policy may say either.
fn one_or_many(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// The statements that deny something to everybody.
fn denials(statements: &[Value]) -> impl Iterator<Item = &Value> {
    statements.iter().filter(|statement| {
        let principal = statement.get("Principal");
        let everybody = |principal: &Value| one_or_many(principal).iter().any(|p| p == "*");
        statement.get("Effect").is_some_and(|effect| effect == "Deny")
            && principal.is_some_and(|p| everybody(p) || p.get("AWS").is_some_and(everybody))
    })
}

fn covers(statement: &Value, action: &str, bucket: &str, object: &str) -> bool {
    let says = |member: &str, fits: &dyn Fn(&str) -> bool| {
        let said = statement.get(member).map(one_or_many).unwrap_or_default();
        said.iter().filter_map(Value::as_str).any(fits)
    };
    // Actions know no case; the partition of a bucket's ARN is its Region's.
    let action = action.to_ascii_lowercase();
    let arns =
        ["aws", "aws-cn", "aws-us-gov", "aws-eusc"].map(|partition| format!("arn:{partition}:s3:::{bucket}/{object}"));
    says("Action", &|pattern| matches(pattern.to_ascii_lowercase().as_bytes(), action.as_bytes()))
        && says("Resource", &|pattern| arns.iter().any(|arn| matches(pattern.as_bytes(), arn.as_bytes())))
}

fn always(statement: &Value) -> bool {
    statement.get("Condition").is_none()
}

fn without_if_none_match(statement: &Value) -> bool {
    let Some(conditions) = statement.get("Condition").and_then(Value::as_object) else { return false };
    let is_true = |value: &Value| one_or_many(value).iter().all(|v| *v == Value::Bool(true) || v == "true");
    let mut tests = conditions.iter().flat_map(|(operator, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, value)| (operator.as_str(), key.to_ascii_lowercase(), is_true(value)))
    });
    let mut absent = false;
    let known = tests.all(|(operator, key, is_true)| {
        let of_header = operator == "Null" && key == "s3:if-none-match" && is_true;
        absent |= of_header;
        of_header || (operator == "Bool" && key == "s3:objectcreationoperation" && is_true)
    });
    known && absent
}

/// Whether a pattern with `*` and `?` stands for the whole text. Bounded: it goes back to the last `*` only.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || c == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    (p, t) = (at + 1, from + 1);
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const BUCKET: &str = "archive";

    fn resources() -> Value {
        json!(["arn:aws:s3:::archive/_log/*", "arn:aws:s3:::archive/sets/*/_log/*"])
    }

    /// As infra/aws/template.yaml says it.
    fn template() -> Value {
        json!({"Version": "2012-10-17", "Statement": [
            {"Sid": "TheLogIsNeverDeleted", "Effect": "Deny", "Principal": "*",
             "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"], "Resource": resources()},
            {"Sid": "TheLogIsNeverOverwritten", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resources(),
             "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}},
        ]})
    }

    fn said(policy: &Value) -> (bool, bool) {
        let policy = read(&policy.to_string(), BUCKET).unwrap();
        (policy.kept, policy.append_only)
    }

    #[test]
    fn what_the_template_says_is_enough_and_each_part_of_it_is_needed() {
        assert_eq!(said(&template()), (true, true));
        let change = |statement: usize, member: &str, to: Value| {
            let mut policy = template();
            policy["Statement"][statement][member] = to;
            said(&policy)
        };
        for (statement, member, to) in [
            (0, "Effect", json!("Allow")),
            (0, "Principal", json!({"AWS": "arn:aws:iam::1:role/r"})),
            (0, "Action", json!("s3:DeleteObject")),
            (0, "Resource", json!("arn:aws:s3:::archive/_log/*")),
            (0, "Resource", json!("arn:aws:s3:::another/*")),
            (0, "Condition", json!({"StringEquals": {"aws:PrincipalAccount": "1"}})),
        ] {
            assert_eq!(change(statement, member, to.clone()), (false, true), "{member} {to}");
        }
        for (member, to) in [
            ("Action", json!("s3:GetObject")),
            ("Condition", json!({"Null": {"s3:if-none-match": "false"}})),
            ("Condition", json!({"Bool": {"s3:ObjectCreationOperation": "true"}})),
            ("Condition", json!({"Null": {"s3:if-none-match": "true"}, "StringEquals": {"aws:PrincipalAccount": "1"}})),
        ] {
            assert_eq!(change(1, member, to.clone()), (true, false), "{member} {to}");
        }
        // Said in other words.
        for (statement, member, to) in [
            (0, "Action", json!("s3:*")),
            (0, "Action", json!(["S3:deleteobject*"])),
            (0, "Principal", json!({"AWS": ["*"]})),
            (0, "Resource", json!(["arn:aws-cn:s3:::archive/*"])),
            (1, "Condition", json!({"Null": {"S3:If-None-Match": true}})),
        ] {
            assert_eq!(change(statement, member, to.clone()), (true, true), "{member} {to}");
        }
    }

    #[test]
    fn no_policy_says_nothing() {
        assert_eq!(said(&json!({"Statement": []})), (false, false));
        assert_eq!(
            said(&json!({"Statement": {"Effect": "Deny", "NotPrincipal": "*", "Action": "*", "Resource": "*"}})),
            (false, false)
        );
        for text in ["", "[]", "{}", "{\"Statement\""] {
            assert_eq!(read(text, BUCKET), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_is_what_a_regular_expression_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            // The rule itself, by the definition of both signs.
            fn by_rule(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|n| by_rule(rest, &text[n..])),
                    Some((c, rest)) => !text.is_empty() && (*c == b'?' || *c == text[0]) && by_rule(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), by_rule(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = read(&text, BUCKET);
        }
    }
}
