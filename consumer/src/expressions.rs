//! From a step of the cell protocol to the expressions of one UpdateItem, within DynamoDB's limits.
//!
//! DynamoDB refuses an expression of more than 4,096 bytes or 300 operators and functions (Developer Guide, "Constraints",
//! "Expression parameters"). Stand-ins may not, so [`Expressions`] are counted here and never leave too large.
//!
//! | part | text |
//! | --- | --- |
//! | every update | `SET v = if_not_exists(v, :v)`, if `attribute_not_exists(v) OR v <= :v`: an item of a newer format is never written |
//! | keys | `ADD events :n, recent :keys, sum_… :m0` |
//! | none known | `NOT (contains(recent, :k0) OR contains(recent, :k1) …)`: one `NOT` for all, which saves an operator per key |
//! | below the hard limit | `attribute_not_exists(recent) OR size(recent) < :hard` |
//! | above `sealed` | `attribute_not_exists(sealed) OR sealed < :least`, over all 16 bytes |
//! | same epoch | `epoch = :epoch`, or `attribute_not_exists(epoch)` for 0 |
//! | same size | `size(recent) = :size`, or `attribute_not_exists(recent)` for 0: DynamoDB has no empty sets |
//! | flip | `SET sealed = :sealed, epoch = :next DELETE recent :keys`, if same epoch |

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::definition::Measure;
use recount_schemas::items::{EPOCH, EVENTS, FORMAT, RECENT, SEALED, VERSION};
use recount_schemas::{Delta, EventKey};

use crate::cell::{Guard, Seal, Update};

/// The most bytes of one expression.
pub const MAX_BYTES: usize = 4_096;
/// The most operators and functions of one expression.
pub const MAX_OPERATORS: usize = 300;

/// What an UpdateItem is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Expressions {
    /// The update expression.
    pub update: String,
    /// The condition expression.
    pub condition: String,
    /// Names for `#…`.
    pub names: HashMap<String, String>,
    /// Values for `:…`.
    pub values: HashMap<String, AttributeValue>,
}

/// An expression is larger than DynamoDB takes: a limit of [`Tuning`](crate::tuning::Tuning) was set too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an expression of {bytes} bytes and {operators} operators is larger than DynamoDB takes ({MAX_BYTES}, {MAX_OPERATORS})"
)]
pub struct TooLarge {
    /// Its bytes.
    pub bytes: usize,
    /// Its operators and functions.
    pub operators: usize,
}

impl Expressions {
    fn start() -> Self {
        let mut it =
            Self { update: String::new(), condition: String::new(), names: HashMap::new(), values: HashMap::new() };
        it.name("#v", VERSION).value(":v", number(FORMAT));
        it.update.push_str("SET #v = if_not_exists(#v, :v)");
        it.condition.push_str("(attribute_not_exists(#v) OR #v <= :v)");
        it
    }

    fn name(&mut self, placeholder: &str, name: &str) -> &mut Self {
        self.names.insert(placeholder.to_owned(), name.to_owned());
        self
    }

    fn value(&mut self, placeholder: &str, value: AttributeValue) -> &mut Self {
        self.values.insert(placeholder.to_owned(), value);
        self
    }

    fn and(&mut self, condition: &str) {
        self.condition.push_str(" AND ");
        self.condition.push_str(condition);
    }

    fn none_known(&mut self, keys: &[EventKey], hard_limit: usize) {
        let mut any = String::with_capacity(keys.len() * 21);
        for (i, key) in keys.iter().enumerate() {
            if i > 0 {
                any.push_str(" OR ");
            }
            any.push_str(&format!("contains(#r,:k{i})"));
            self.value(&format!(":k{i}"), binary(key));
        }
        if !any.is_empty() {
            self.and(&format!("NOT ({any})"));
        }
        self.and("(attribute_not_exists(#r) OR size(#r) < :hard)");
        self.value(":hard", number(hard_limit));
    }

    fn same_epoch(&mut self, epoch: u64) {
        self.name("#p", EPOCH);
        if epoch == 0 {
            self.and("attribute_not_exists(#p)");
        } else {
            self.and("#p = :epoch");
            self.value(":epoch", number(epoch));
        }
    }

    fn checked(self) -> Result<Self, TooLarge> {
        for expression in [&self.update, &self.condition] {
            let (bytes, operators) = (expression.len(), operators(expression));
            if bytes > MAX_BYTES || operators > MAX_OPERATORS {
                return Err(TooLarge { bytes, operators });
            }
        }
        Ok(self)
    }

    /// Adds `update.keys`, which together contribute `delta`, to a cell.
    pub fn add(update: &Update, delta: &Delta, measures: &[Measure], hard_limit: usize) -> Result<Self, TooLarge> {
        let mut it = Self::start();
        it.name("#e", EVENTS).name("#r", RECENT);
        it.value(":n", number(delta.events)).value(":keys", binary_set(&update.keys));
        it.update.push_str(" ADD #e :n, #r :keys");
        for (i, (measure, sum)) in measures.iter().zip(&delta.sums).enumerate() {
            it.update.push_str(&format!(", #m{i} :m{i}"));
            it.name(&format!("#m{i}"), &measure.total).value(&format!(":m{i}"), number(sum));
        }
        match update.guard {
            Guard::Fast { least } => {
                let named = if bugs::on(Bug::FastUpdateNamesNoKey) { &[][..] } else { &update.keys };
                it.none_known(named, hard_limit);
                let greatest = update.keys.last().filter(|_| bugs::on(Bug::FastUpdateAsksTheGreatest));
                if !bugs::on(Bug::FastUpdateIgnoresSealed) {
                    it.name("#s", SEALED).value(":least", binary(greatest.unwrap_or(&least)));
                    it.and("(attribute_not_exists(#s) OR #s < :least)");
                }
            }
            Guard::Late { epoch } => {
                let named = if bugs::on(Bug::LateUpdateNamesNoKey) { &[][..] } else { &update.keys };
                it.none_known(named, hard_limit);
                if !bugs::on(Bug::LateUpdateIgnoresEpoch) {
                    it.same_epoch(epoch);
                }
            }
            Guard::Exact { epoch, size } => {
                if !bugs::on(Bug::ExactUpdateIgnoresEpoch) {
                    it.same_epoch(epoch);
                }
                match size {
                    _ if bugs::on(Bug::ExactUpdateIgnoresSize) => {}
                    0 => it.and("attribute_not_exists(#r)"),
                    _ => {
                        it.and("size(#r) = :size");
                        it.value(":size", number(size));
                    }
                }
            }
        }
        it.checked()
    }

    /// Takes a page's keys out of `recent`, after the page was put.
    pub fn flip(seal: &Seal) -> Result<Self, TooLarge> {
        let mut it = Self::start();
        it.name("#r", RECENT).name("#s", SEALED);
        if bugs::on(Bug::FlipIgnoresEpoch) {
            it.name("#p", EPOCH);
        } else {
            it.same_epoch(seal.epoch);
        }
        it.value(":sealed", binary(&seal.sealed)).value(":next", number(seal.epoch.saturating_add(1)));
        it.value(":keys", binary_set(&seal.keys));
        it.update.push_str(", #s = :sealed, #p = :next DELETE #r :keys");
        it.checked()
    }
}

/// A number.
pub fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A key.
pub fn binary(key: &EventKey) -> AttributeValue {
    AttributeValue::B(Blob::new(key.as_bytes().as_slice()))
}

fn binary_set(keys: &[EventKey]) -> AttributeValue {
    AttributeValue::Bs(keys.iter().map(|key| Blob::new(key.as_bytes().as_slice())).collect())
}

/// The operators and functions of an expression: its comparators, `AND`, `OR`, `NOT` and every name before a parenthesis.
fn operators(expression: &str) -> usize {
    let functions = expression.match_indices('(').filter(|(at, _)| {
        expression.get(..*at).and_then(|before| before.chars().next_back()).is_some_and(|c| c.is_ascii_alphanumeric())
    });
    let words = expression.split([' ', '(', ')', ',']);
    functions.count() + words.filter(|word| matches!(*word, "AND" | "OR" | "NOT" | "=" | "<" | "<=" | "+")).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_schemas::Amount;
    use smallvec::smallvec;

    fn key(i: i64) -> EventKey {
        EventKey::least_at(i)
    }

    fn measures(n: usize) -> Vec<Measure> {
        (0..n)
            .map(|i| Measure { attribute: format!("a{i}"), column: String::new(), total: format!("sum_a{i}") })
            .collect()
    }

    fn fast(n: i64) -> Update {
        Update { keys: (1..=n).map(key).collect(), guard: Guard::Fast { least: key(1) } }
    }

    #[test]
    fn the_fast_path_is_one_conditional_update() {
        let delta = Delta { events: 2, sums: smallvec!["1.5".parse::<Amount>().unwrap()] };
        let it = Expressions::add(&fast(2), &delta, &measures(1), 16_000).unwrap();
        insta::assert_snapshot!(it.update, @"SET #v = if_not_exists(#v, :v) ADD #e :n, #r :keys, #m0 :m0");
        insta::assert_snapshot!(it.condition, @"(attribute_not_exists(#v) OR #v <= :v) AND NOT (contains(#r,:k0) OR contains(#r,:k1)) AND (attribute_not_exists(#r) OR size(#r) < :hard) AND (attribute_not_exists(#s) OR #s < :least)");
        assert_eq!(it.values[":n"], AttributeValue::N("2".into()));
        assert_eq!(it.values[":m0"], AttributeValue::N("1.5".into()));
        assert_eq!(it.values[":least"], binary(&key(1)));
        assert_eq!(it.names["#m0"], "sum_a0");
    }

    #[test]
    fn epoch_and_size_of_nothing_are_absent_attributes() {
        let update = |guard| Update { keys: vec![key(1)], guard };
        let add = |guard| Expressions::add(&update(guard), &Delta::zero(0), &[], 9).unwrap().condition;
        insta::assert_snapshot!(add(Guard::Late { epoch: 0 }), @"(attribute_not_exists(#v) OR #v <= :v) AND NOT (contains(#r,:k0)) AND (attribute_not_exists(#r) OR size(#r) < :hard) AND attribute_not_exists(#p)");
        insta::assert_snapshot!(add(Guard::Late { epoch: 3 }), @"(attribute_not_exists(#v) OR #v <= :v) AND NOT (contains(#r,:k0)) AND (attribute_not_exists(#r) OR size(#r) < :hard) AND #p = :epoch");
        insta::assert_snapshot!(add(Guard::Exact { epoch: 0, size: 0 }), @"(attribute_not_exists(#v) OR #v <= :v) AND attribute_not_exists(#p) AND attribute_not_exists(#r)");
        insta::assert_snapshot!(add(Guard::Exact { epoch: 3, size: 5 }), @"(attribute_not_exists(#v) OR #v <= :v) AND #p = :epoch AND size(#r) = :size");
    }

    #[test]
    fn a_flip_moves_keys_out_and_the_epoch_on() {
        let flip = Expressions::flip(&Seal { keys: vec![key(1)], sealed: key(2), epoch: 0 }).unwrap();
        insta::assert_snapshot!(flip.update, @"SET #v = if_not_exists(#v, :v), #s = :sealed, #p = :next DELETE #r :keys");
        insta::assert_snapshot!(flip.condition, @"(attribute_not_exists(#v) OR #v <= :v) AND attribute_not_exists(#p)");
        assert_eq!(flip.values[":next"], AttributeValue::N("1".into()));
    }

    #[test]
    fn the_defaults_fit_dynamodbs_limits_with_every_measure() {
        let tuning = crate::tuning::Tuning::new(35);
        let delta = Delta { events: 96, sums: smallvec![Amount::ZERO; 8] };
        let update = fast(i64::try_from(tuning.named_keys).unwrap());
        let it = Expressions::add(&update, &delta, &measures(8), tuning.hard_limit).unwrap();
        assert_eq!((it.condition.len(), operators(&it.condition)), (2_148, 205));
        names_are_used_and_known(&it);
    }

    /// DynamoDB refuses a name or value that is not used, as it does one that is not given.
    fn names_are_used_and_known(it: &Expressions) {
        let all = format!("{} {}", it.update, it.condition);
        let words: Vec<_> = all.split(|c: char| !(c.is_ascii_alphanumeric() || "#:_".contains(c))).collect();
        for word in &words {
            assert!(!word.starts_with('#') || it.names.contains_key(*word), "{word}");
            assert!(!word.starts_with(':') || it.values.contains_key(*word), "{word}");
        }
        assert!(it.names.keys().chain(it.values.keys()).all(|name| words.contains(&name.as_str())));
    }

    /// A deliberate bug counts wrongly; what DynamoDB refuses would count nothing.
    #[cfg(feature = "bugs")]
    #[test]
    fn with_a_deliberate_bug_dynamodb_still_takes_the_update() {
        let guards = [
            Guard::Fast { least: key(1) },
            Guard::Late { epoch: 3 },
            Guard::Late { epoch: 0 },
            Guard::Exact { epoch: 3, size: 5 },
            Guard::Exact { epoch: 0, size: 0 },
        ];
        for bug in recount_schemas::bugs::Bug::ALL {
            bugs::within(*bug, || {
                for guard in guards.clone() {
                    let update = Update { keys: vec![key(1), key(2)], guard };
                    names_are_used_and_known(&Expressions::add(&update, &Delta::zero(0), &[], 9).unwrap());
                }
                let seal = Seal { keys: vec![key(1)], sealed: key(2), epoch: 3 };
                names_are_used_and_known(&Expressions::flip(&seal).unwrap());
            });
        }
    }

    #[test]
    fn what_dynamodb_would_refuse_never_leaves() {
        let delta = Delta::zero(0);
        assert!(Expressions::add(&fast(140), &delta, &[], 9).is_ok());
        assert!(matches!(Expressions::add(&fast(150), &delta, &[], 9), Err(TooLarge { operators: 301.., .. })));
        assert!(matches!(
            Expressions::add(&fast(1), &Delta { sums: smallvec![Amount::ZERO; 400], ..delta }, &measures(400), 9),
            Err(TooLarge { bytes: 4_097.., .. })
        ));
        let of = |bytes: usize, operators: usize| {
            let text = format!("{:1$}", "= ".repeat(operators), bytes);
            Expressions { condition: text, ..Expressions::start() }.checked().is_ok()
        };
        assert!(of(4_096, 300));
        assert!(!of(4_097, 300));
        assert!(!of(4_096, 301));
    }
}
