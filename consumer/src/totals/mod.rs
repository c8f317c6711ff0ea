//! The totals store: the I/O around the pure protocol in [`cell`](crate::cell).
//!
//! - here: [`Totals`], and [`Totals::apply`], which counts events in one cell, each exactly once.
//! - [`read`]: looks at cells, pages and the too-old list, for whoever checks the totals.
//! - [`definition`]: whose totals these are.
//! - [`item`]: the items; [`error`]: what can go wrong.

pub mod definition;
pub mod error;
pub mod item;
pub mod read;

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure as OnRefusal;
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, ReturnConsumedCapacity, ReturnValue};
use futures::{StreamExt, TryStreamExt, stream};
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::items::{EVENTS, EXPIRES, FORMAT, KEYS, PK, SK, VERSION, cell_sk, ledger_pk, pack, too_old_pk};
use recount_schemas::{Cell, Definition, Delta, EventKey, Settings};
use tracing::warn;

use crate::cell::{Applying, Look, Outcome, Seal, Step, Update};
use crate::expressions::{Expressions, binary, number};
use crate::retry::{Caller, Failure, Meter};
use crate::tuning::Tuning;

pub use error::{ItemError, TotalsError};
pub use item::{Page, TooOld};

/// How many entries of the too-old list are written at once.
const TOO_OLD_AT_ONCE: usize = 8;
/// How often one attempt seals a full cell before it gives up.
const MAX_SEALS: u32 = 4;

/// One event for a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: EventKey,
    /// What it adds.
    pub delta: Delta,
}

/// What became of the events given to [`Totals::apply`], and what it cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// Counted now.
    pub applied: Vec<EventKey>,
    /// Counted before. Also a key that was given more than once, for each time but the first.
    ///
    /// An update whose answer was lost is sent again and finds its own keys; they stand here although this call counted them.
    pub duplicates: Vec<EventKey>,
    /// Older than the ledger reaches back: on the too-old list, not counted.
    pub too_old: Vec<EventKey>,
    /// DynamoDB's write units. For refused updates the size of the item is taken, since the answer does not say.
    pub write_units: f64,
    /// DynamoDB's read units.
    pub read_units: f64,
    /// Requests sent again, and updates refused.
    pub retries: u32,
}

/// The totals and their ledger.
#[derive(Debug, Clone)]
pub struct Totals {
    dynamo: aws_sdk_dynamodb::Client,
    totals: String,
    ledger: String,
    definition: Arc<Definition>,
    host: SharedHost,
    tuning: Tuning,
}

impl Totals {
    /// The totals in the tables that `settings` names.
    pub fn new(
        dynamo: aws_sdk_dynamodb::Client,
        settings: &Settings,
        definition: Arc<Definition>,
        host: SharedHost,
    ) -> Self {
        let tuning = Tuning::new(definition.ledger_days);
        Self { dynamo, totals: settings.totals.clone(), ledger: settings.ledger.clone(), definition, host, tuning }
    }

    /// The same with other numbers than the defaults.
    pub fn with_tuning(self, tuning: Tuning) -> Self {
        Self { tuning, ..self }
    }

    /// The numbers at work.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The definition whose totals these are.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// Counts events in one cell, each exactly once, however often and by however many it is given. Any number of them.
    ///
    /// An error means that some may be counted and some not: give all of them again.
    pub async fn apply(&self, cell: &Cell, entries: &[Entry], deadline: Deadline) -> Result<Applied, TotalsError> {
        let meter = Meter::default();
        let mut applied = self.apply_metered(cell, entries, deadline, &meter).await?;
        applied.write_units = meter.write_units();
        applied.read_units = meter.read_units();
        applied.retries = u32::try_from(meter.retries()).unwrap_or(u32::MAX);
        Ok(applied)
    }

    /// As [`Totals::apply`], with the costs told to `meter` instead, also when it fails.
    pub async fn apply_metered(
        &self,
        cell: &Cell,
        entries: &[Entry],
        deadline: Deadline,
        meter: &Meter,
    ) -> Result<Applied, TotalsError> {
        let mut deltas: BTreeMap<EventKey, &Delta> = BTreeMap::new();
        let mut repeated = Vec::new();
        for entry in entries {
            match deltas.entry(entry.key) {
                MapEntry::Vacant(new) => {
                    new.insert(&entry.delta);
                }
                MapEntry::Occupied(_) => repeated.push(entry.key),
            }
        }
        let caller = self.caller(deadline, meter);
        let work = self.work(caller, cell, &deltas).await?;
        if let Some(seal) = work.seal(&self.tuning) {
            // The keys are counted; housekeeping that fails must not make the batch fail. The next writer comes to it.
            let done = self.seal(caller, cell, &seal).await;
            meter.sealed(done.is_ok());
            if let Err(error) = done {
                warn!(month = %cell.month, lane = cell.lane, %error, "a cell could not be sealed; a later writer will");
            }
        }
        let Outcome { applied, mut duplicates, too_old } = work.into_outcome();
        duplicates.extend(repeated);
        // Futures in a list, not in a borrowing iterator: else the compiler cannot see that this future may change threads.
        let mut listed = Vec::with_capacity(too_old.len());
        for key in &too_old {
            if let Some(delta) = deltas.get(key) {
                listed.push(self.list_too_old(caller, cell, *key, delta));
            }
        }
        stream::iter(listed).buffer_unordered(TOO_OLD_AT_ONCE).try_collect::<()>().await?;
        Ok(Applied { applied, duplicates, too_old, ..Applied::default() })
    }

    /// Goes through the steps of [`Applying`] until every key has its verdict.
    async fn work(
        &self,
        caller: Caller<'_>,
        cell: &Cell,
        deltas: &BTreeMap<EventKey, &Delta>,
    ) -> Result<Applying, TotalsError> {
        let mut work = Applying::new(deltas.keys().copied());
        let mut seals = 0;
        loop {
            match work.step(&self.tuning) {
                Step::Done => return Ok(work),
                Step::GiveUp => return Err(TotalsError::Contended { cell: cell.clone(), refusals: work.refusals() }),
                Step::Look => {
                    let look = self.look_with(caller, cell).await?.unwrap_or_default();
                    work.saw(look, self.host.now_ms(), &self.tuning);
                }
                Step::Search { from } => {
                    let found = self.search(caller, cell, from, work.todo()).await?;
                    work.searched(&found);
                }
                Step::Update(update) => {
                    let delta = total(deltas, &update).ok_or_else(|| TotalsError::SumOutOfRange(cell.clone()))?;
                    let hard_limit = self.tuning.hard_limit;
                    let expressions = Expressions::add(&update, &delta, &self.definition.measures, hard_limit)?;
                    match self.update(caller, cell, expressions).await? {
                        Answer::Done(after) => work.applied(&update, after, self.host.now_ms(), &self.tuning),
                        Answer::Refused(now) if bugs::on(Bug::RefusedIsDone) => {
                            work.applied(&update, now, self.host.now_ms(), &self.tuning);
                        }
                        Answer::Refused(now) => {
                            work.refused(&update, now, self.host.now_ms(), &self.tuning);
                            caller.meter.retried();
                            if work.refusals() > 1 {
                                caller.pause(work.refusals() - 1).await;
                            }
                        }
                    }
                }
                Step::Seal(seal) => {
                    seals += 1;
                    if seals > MAX_SEALS {
                        return Err(TotalsError::Contended { cell: cell.clone(), refusals: work.refusals() });
                    }
                    let look = self.seal(caller, cell, &seal).await.inspect_err(|_| caller.meter.sealed(false))?;
                    caller.meter.sealed(true);
                    work.saw(look, self.host.now_ms(), &self.tuning);
                }
            }
        }
    }

    /// Puts the page, then flips: see [`cell`](crate::cell). The item as it is then; a refused flip means that somebody else sealed.
    async fn seal(&self, caller: Caller<'_>, cell: &Cell, seal: &Seal) -> Result<Look, TotalsError> {
        let Some(name) = seal.page_name() else { return Ok(Look::default()) };
        let expires = (self.host.now_ms() + self.tuning.ledger_ms + self.tuning.page_slack_ms).div_euclid(1_000);
        let put = self
            .dynamo
            .put_item()
            .table_name(&self.ledger)
            .item(PK, AttributeValue::S(ledger_pk(cell)))
            .item(SK, AttributeValue::B(Blob::new(name.to_bytes())))
            .item(KEYS, AttributeValue::B(Blob::new(pack(seal.page()))))
            .item(VERSION, number(FORMAT))
            .item(EXPIRES, number(expires))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        if bugs::on(Bug::FlipBeforePage) {
            self.update(caller, cell, Expressions::flip(seal)?).await?;
        }
        let put = caller.call(|| put.clone().send()).await.map_err(|f| self.failed("putting a page", cell, &f))?;
        caller.meter.wrote(units(put.consumed_capacity()));
        match self.update(caller, cell, Expressions::flip(seal)?).await? {
            Answer::Done(look) | Answer::Refused(look) => Ok(look),
        }
    }

    /// Sends one conditional update of a cell.
    async fn update(&self, caller: Caller<'_>, cell: &Cell, it: Expressions) -> Result<Answer, TotalsError> {
        let update = self
            .of_cell(cell)
            .update_expression(it.update)
            .condition_expression(it.condition)
            .set_expression_attribute_names(Some(it.names))
            .set_expression_attribute_values(Some(it.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnRefusal::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match caller.call(|| update.clone().send()).await {
            Ok(answer) => {
                caller.meter.wrote(units(answer.consumed_capacity()));
                let item = answer.attributes().ok_or(ItemError::NotACell);
                let look = item.and_then(|item| item::look(item, &self.definition.measures));
                Ok(Answer::Done(look.map_err(|why| self.unusable(cell, why))?))
            }
            Err(failure) => match refused(&failure) {
                Some(Some(item)) => {
                    caller.meter.wrote(item::write_units(&item));
                    let look = item::look(&item, &self.definition.measures);
                    Ok(Answer::Refused(look.map_err(|why| self.unusable(cell, why))?))
                }
                // Refused without the item: there is none, or the answer does not carry it. A read tells which.
                Some(None) => {
                    caller.meter.wrote(1.0);
                    Ok(Answer::Refused(self.look_with(caller, cell).await?.unwrap_or_default()))
                }
                None => {
                    if let Some(message) = invalid(&failure) {
                        // An attribute of a wrong type, or an item that is full, refuses every update: the item says so itself.
                        self.look_with(caller, cell).await?;
                        if OF_THE_ITEM.iter().any(|part| message.contains(part)) {
                            return Err(self.unusable(cell, ItemError::TakesNoUpdate(message)));
                        }
                    }
                    Err(self.failed("updating", cell, &failure))
                }
            },
        }
    }

    /// Which of the keys stand on a page at or above `from`. Holds one answer of the query in memory at a time.
    async fn search(
        &self,
        caller: Caller<'_>,
        cell: &Cell,
        from: EventKey,
        keys: &BTreeSet<EventKey>,
    ) -> Result<BTreeSet<EventKey>, TotalsError> {
        let mut found = BTreeSet::new();
        let mut pages = self.pages_with(caller, cell, from);
        while let Some(page) = pages.try_next().await? {
            found.extend(page.keys.into_iter().filter(|key| keys.contains(key)));
            if found.len() == keys.len() || bugs::on(Bug::SearchReadsOnePage) {
                break; // all are known: no further page can say more
            }
        }
        Ok(found)
    }

    /// Writes an entry of the too-old list; the first one for a key stays.
    async fn list_too_old(
        &self,
        caller: Caller<'_>,
        cell: &Cell,
        key: EventKey,
        delta: &Delta,
    ) -> Result<(), TotalsError> {
        let mut put = self
            .dynamo
            .put_item()
            .table_name(&self.ledger)
            .item(PK, AttributeValue::S(too_old_pk(cell)))
            .item(SK, binary(&key))
            .item(VERSION, number(FORMAT))
            .item(EVENTS, number(delta.events))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", PK)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for (measure, sum) in self.definition.measures.iter().zip(&delta.sums) {
            put = put.item(&measure.total, number(sum));
        }
        match caller.call(|| put.clone().send()).await {
            Ok(answer) => caller.meter.wrote(units(answer.consumed_capacity())),
            Err(failure) if failure.class() == crate::retry::Class::Refused => caller.meter.wrote(1.0),
            Err(failure) => return Err(self.failed("writing the too-old list", cell, &failure)),
        }
        Ok(())
    }

    fn caller<'a>(&'a self, deadline: Deadline, meter: &'a Meter) -> Caller<'a> {
        Caller { host: self.host.as_ref(), tuning: &self.tuning, deadline, meter }
    }

    fn of_cell(&self, cell: &Cell) -> UpdateItemFluentBuilder {
        self.dynamo
            .update_item()
            .table_name(&self.totals)
            .key(PK, AttributeValue::S(cell.group.to_string()))
            .key(SK, AttributeValue::S(cell_sk(cell.month, cell.lane)))
    }

    fn failed<E: ProvideErrorMetadata>(&self, what: &str, cell: &Cell, failure: &Failure<E>) -> TotalsError {
        let what = format!("{what} of cell {} in {} / {}", cell_sk(cell.month, cell.lane), self.totals, self.ledger);
        TotalsError::request(what, failure)
    }

    fn unusable(&self, cell: &Cell, why: ItemError) -> TotalsError {
        TotalsError::Item {
            table: self.totals.clone(),
            pk: cell.group.to_string(),
            sk: cell_sk(cell.month, cell.lane),
            why,
        }
    }
}

/// The answer to a conditional update: the item after it, or the item that refused it.
enum Answer {
    Done(Look),
    Refused(Look),
}

/// What the keys of an update add together; `None` out of range.
fn total(deltas: &BTreeMap<EventKey, &Delta>, update: &Update) -> Option<Delta> {
    update.keys.iter().filter_map(|key| deltas.get(key)).try_fold(Delta::default(), |sum, delta| sum.checked_add(delta))
}

/// The item that refused a write, if it was refused: `Some(None)` where the answer does not carry it.
fn refused(failure: &Failure<UpdateItemError>) -> Option<Option<item::Item>> {
    let Failure::Sdk(error) = failure else { return None };
    let SdkError::ServiceError(context) = error.as_ref() else { return None };
    match context.err() {
        UpdateItemError::ConditionalCheckFailedException(refused) => {
            Some(refused.item().filter(|item| !item.is_empty()).cloned())
        }
        _ => None,
    }
}

/// What a `ValidationException` says where the item, and not the request, is at fault (observed; the API reference gives no list).
const OF_THE_ITEM: &[&str] = &["Item size", "Number overflow", "significant digits"];

/// The message of a request that was refused as invalid, cut short.
fn invalid(failure: &Failure<UpdateItemError>) -> Option<String> {
    let Failure::Sdk(error) = failure else { return None };
    let error = error.as_service_error()?;
    let message = || error.message().unwrap_or_default().chars().take(200).collect();
    (error.code() == Some("ValidationException")).then(message)
}

/// The capacity that an answer names.
fn units(consumed: Option<&ConsumedCapacity>) -> f64 {
    consumed.and_then(ConsumedCapacity::capacity_units).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send(_: &impl Send) {}

    #[tokio::test]
    async fn work_on_cells_can_be_spawned() {
        let config = aws_sdk_dynamodb::Config::builder().behavior_version_latest().build();
        let dynamo = aws_sdk_dynamodb::Client::from_conf(config);
        let text = "[source]\ntable = \"t\"\nkey = [\"k\"]\n[fold]\ngroup_by = \"g\"\n";
        let definition = Arc::new(Definition::parse(text, "test").unwrap());
        let host = recount_schemas::host::SystemHost::shared();
        let totals = Totals::new(dynamo, &Settings::default(), definition, host);
        let cell = Cell { group: "g".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 };
        is_send(&totals.apply(&cell, &[], Deadline::NONE));
        is_send(&totals.scan_cells());
        is_send(&totals.look(&cell));
        // Nothing to do asks nobody.
        assert_eq!(totals.apply(&cell, &[], Deadline::NONE).await.unwrap(), Applied::default());
    }
}
