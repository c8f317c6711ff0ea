//! The conditional update of a cell with which a repair begins, as expressions; and the raise by itself, for a cell that a
//! writer changed since the plan saw it.
//!
//! | part | text |
//! | --- | --- |
//! | every repair | `ADD events :d, <sums> SET repair = :plan` |
//! | not done, and nobody else came between | `repair = :seen`, or `attribute_not_exists(repair)` |
//! | raising an absent item | `SET epoch, sealed`, if `attribute_not_exists(pk)` |
//! | raising an item behind its pages | the same, if `epoch` and `size(recent)` are as they were seen |
//! | a raise by itself | `SET epoch, sealed`, if `epoch` is as it was just seen: `sealed` changes only with it |
//! | every update | `SET v = if_not_exists(v, :v)`, if `attribute_not_exists(v) OR v <= :v` |

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use recount_consumer::expressions::{binary, number};
use recount_schemas::Definition;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::items::{EPOCH, EVENTS, FORMAT, PK, RECENT, REPAIR, SEALED, VERSION};

use super::plan::CellPlan;
use crate::reconcile::standing::Raise;

/// What the UpdateItem is made of.
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

impl Expressions {
    /// The update that begins the repair of a cell by the plan called `hash`.
    pub fn correct(cell: &CellPlan, hash: &str, definition: &Definition) -> Self {
        let mut names = HashMap::new();
        let mut values = HashMap::new();
        let mut name = |placeholder: &str, name: &str| names.insert(placeholder.to_owned(), name.to_owned());
        let mut value = |placeholder: &str, value| values.insert(placeholder.to_owned(), value);
        let mut sets = vec!["#v = if_not_exists(#v, :v)", "#p = :plan"];
        let mut adds = vec!["#e :d".to_owned()];
        let mut conditions = vec!["(attribute_not_exists(#v) OR #v <= :v)"];

        name("#v", VERSION);
        value(":v", number(FORMAT));
        name("#p", REPAIR);
        value(":plan", AttributeValue::S(hash.to_owned()));
        name("#e", EVENTS);
        value(":d", number(cell.add.events));
        for (i, (measure, sum)) in definition.measures.iter().zip(&cell.add.sums).enumerate() {
            name(&format!("#m{i}"), &measure.total);
            value(&format!(":m{i}"), number(sum));
            adds.push(format!("#m{i} :m{i}"));
        }
        match &cell.seen {
            _ if bugs::on(Bug::RepairIgnoresSeen) => {}
            Some(seen) => {
                conditions.push("#p = :seen");
                value(":seen", AttributeValue::S(seen.clone()));
            }
            None => conditions.push("attribute_not_exists(#p)"),
        }
        if let Some(raise) = &cell.raise {
            name("#epoch", EPOCH);
            name("#s", SEALED);
            value(":epoch", number(raise.to.epoch));
            value(":sealed", binary(&raise.to.sealed));
            sets.extend(["#epoch = :epoch", "#s = :sealed"]);
            match raise.from_epoch {
                None => {
                    name("#pk", PK);
                    conditions.push("attribute_not_exists(#pk)");
                }
                Some(epoch) => {
                    name("#r", RECENT);
                    if epoch == 0 {
                        conditions.push("attribute_not_exists(#epoch)");
                    } else {
                        value(":was", number(epoch));
                        conditions.push("#epoch = :was");
                    }
                    if raise.recent == 0 {
                        conditions.push("attribute_not_exists(#r)");
                    } else {
                        value(":size", number(raise.recent));
                        conditions.push("size(#r) = :size");
                    }
                }
            }
        }
        let update = format!("SET {} ADD {}", sets.join(", "), adds.join(", "));
        Self { update, condition: conditions.join(" AND "), names, values }
    }

    /// The update that raises a cell by itself, from `epoch`.
    pub fn raise(to: &Raise, epoch: u64) -> Self {
        let names = [("#v", VERSION), ("#epoch", EPOCH), ("#s", SEALED)];
        let values = [(":v", number(FORMAT)), (":epoch", number(to.epoch)), (":sealed", binary(&to.sealed))];
        let was = (epoch > 0).then(|| (":was", number(epoch)));
        let unmoved = if epoch > 0 { "#epoch = :was" } else { "attribute_not_exists(#epoch)" };
        Self {
            update: "SET #v = if_not_exists(#v, :v), #epoch = :epoch, #s = :sealed".to_owned(),
            condition: format!("(attribute_not_exists(#v) OR #v <= :v) AND {unmoved}"),
            names: names.map(|(placeholder, name)| (placeholder.to_owned(), name.to_owned())).into(),
            values: values.into_iter().chain(was).map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}
