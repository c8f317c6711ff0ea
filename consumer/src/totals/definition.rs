//! Whose totals these are: the hash of the definition stands in the totals table, and another one is refused.

use aws_sdk_dynamodb::types::AttributeValue;
use recount_schemas::host::Deadline;
use recount_schemas::items::{DEFINITION_PK, DEFINITION_SK, FORMAT, HASH, PK, SK, VERSION};

use super::item::{Item, check_format};
use super::{ItemError, Totals, TotalsError};
use crate::expressions::number;
use crate::retry::{Class, Meter};

impl Totals {
    /// Makes these the totals of our definition, if they are nobody's; an error if they are another's.
    pub async fn claim_definition(&self) -> Result<(), TotalsError> {
        let meter = Meter::default();
        let caller = self.caller(Deadline::NONE, &meter);
        let put = self
            .dynamo
            .put_item()
            .table_name(&self.totals)
            .item(PK, AttributeValue::S(DEFINITION_PK.to_owned()))
            .item(SK, AttributeValue::S(DEFINITION_SK.to_owned()))
            .item(VERSION, number(FORMAT))
            .item(HASH, AttributeValue::S(self.definition.hash().to_owned()))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", PK);
        match caller.call(|| put.clone().send()).await {
            Ok(_) => return Ok(()),
            // Somebody claimed them before: perhaps we, by an answer that was lost.
            Err(failure) if failure.class() == Class::Refused => {}
            Err(failure) => {
                return Err(TotalsError::request(format!("claiming {} for the definition", self.totals), &failure));
            }
        }
        match self.read_definition_hash().await? {
            Some(found) if found == self.definition.hash() => Ok(()),
            found => Err(TotalsError::OtherDefinition {
                table: self.totals.clone(),
                found: found.unwrap_or_else(|| "(none)".to_owned()),
                ours: self.definition.hash().to_owned(),
            }),
        }
    }

    /// The hash of the definition that made these totals; `None` where nobody has claimed them yet.
    pub async fn read_definition_hash(&self) -> Result<Option<String>, TotalsError> {
        let meter = Meter::default();
        let caller = self.caller(Deadline::NONE, &meter);
        let get = self
            .dynamo
            .get_item()
            .table_name(&self.totals)
            .key(PK, AttributeValue::S(DEFINITION_PK.to_owned()))
            .key(SK, AttributeValue::S(DEFINITION_SK.to_owned()))
            .consistent_read(true);
        let answer = caller
            .call(|| get.clone().send())
            .await
            .map_err(|failure| TotalsError::request(format!("reading the definition of {}", self.totals), &failure))?;
        answer.item().map(hash).transpose().map_err(|why| TotalsError::Item {
            table: self.totals.clone(),
            pk: DEFINITION_PK.to_owned(),
            sk: DEFINITION_SK.to_owned(),
            why,
        })
    }
}

fn hash(item: &Item) -> Result<String, ItemError> {
    check_format(item)?;
    match item.get(HASH) {
        Some(AttributeValue::S(hash)) => Ok(hash.clone()),
        _ => Err(ItemError::Attribute { attribute: HASH.to_owned(), expected: "a text" }),
    }
}
