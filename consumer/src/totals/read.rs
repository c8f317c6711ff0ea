//! Reading the totals and the ledger: consistent, in pages as DynamoDB gives them (1 MB at most), never all at once.
//!
//! An item that cannot be understood is an error in its place in a stream; what comes after it can still be read.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use recount_schemas::host::Deadline;
use recount_schemas::items::{DEFINITION_PK, PK, SK, cell_of, cell_sk, ledger_pk, too_old_pk};
use recount_schemas::{Cell, EventKey, Group};

use super::item::{self, Item, Page, TooOld};
use super::{ItemError, Totals, TotalsError, units};
use crate::cell::Look;
use crate::expressions::binary;
use crate::retry::{Caller, Meter};

/// A stream of what stands in a table.
pub type Rows<'a, T> = BoxStream<'a, Result<T, TotalsError>>;

/// Where a paged read goes on.
enum From {
    Start,
    After(Item),
    End,
}

impl Totals {
    /// One moment of a cell; `None` where there is no item.
    pub async fn look(&self, cell: &Cell) -> Result<Option<Look>, TotalsError> {
        self.look_with(self.caller(Deadline::NONE, &Meter::default()), cell).await
    }

    pub(super) async fn look_with(&self, caller: Caller<'_>, cell: &Cell) -> Result<Option<Look>, TotalsError> {
        let get = self
            .dynamo
            .get_item()
            .table_name(&self.totals)
            .key(PK, AttributeValue::S(cell.group.to_string()))
            .key(SK, AttributeValue::S(cell_sk(cell.month, cell.lane)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = caller.call(|| get.clone().send()).await.map_err(|f| self.failed("reading", cell, &f))?;
        caller.meter.read(units(answer.consumed_capacity()));
        let look = answer.item().map(|item| item::look(item, &self.definition.measures)).transpose();
        look.map_err(|why| self.unusable(cell, why))
    }

    /// The pages of a cell that can hold a key at or above `from` (all with [`EventKey::MIN`]), by their greatest key.
    ///
    /// Those with an epoch below the cell's, as read *before*, are its ledger together with `recent`; others are orphans of a
    /// sealing that broke off.
    pub fn pages(&self, cell: &Cell, from: EventKey) -> Rows<'_, Page> {
        let read = self.query_ledger(None, ledger_pk(cell), Some(from));
        self.rows(read, self.ledger.clone(), |_, item| Some(item::page(item)))
    }

    pub(super) fn pages_with<'a>(&'a self, caller: Caller<'a>, cell: &Cell, from: EventKey) -> Rows<'a, Page> {
        let read = self.query_ledger(Some(caller), ledger_pk(cell), Some(from));
        self.rows(read, self.ledger.clone(), |_, item| Some(item::page(item)))
    }

    /// The records of a cell that came too late to be counted, by key.
    pub fn too_old(&self, cell: &Cell) -> Rows<'_, TooOld> {
        let read = self.query_ledger(None, too_old_pk(cell), None);
        self.rows(read, self.ledger.clone(), |totals, item| Some(item::too_old(item, &totals.definition.measures)))
    }

    /// Every cell of the totals table. Each is one moment of its item; the moments differ.
    pub fn scan_cells(&self) -> Rows<'_, (Cell, Look)> {
        let scan = self.dynamo.scan().table_name(&self.totals).consistent_read(true);
        let read = self.paged(None, self.totals.clone(), move |from| {
            let scan = scan.clone().set_exclusive_start_key(from);
            async move {
                scan.send().await.map(|answer| {
                    let read = units(answer.consumed_capacity());
                    (answer.items.unwrap_or_default(), answer.last_evaluated_key, read)
                })
            }
        });
        self.rows(read, self.totals.clone(), Self::cell)
    }

    /// Every cell of one group, by month and lane.
    pub fn group_cells(&self, group: &Group) -> Rows<'_, (Cell, Look)> {
        let query = self
            .dynamo
            .query()
            .table_name(&self.totals)
            .consistent_read(true)
            .key_condition_expression("#pk = :pk")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_values(":pk", AttributeValue::S(group.to_string()));
        let read = self.query(None, query, self.totals.clone());
        self.rows(read, self.totals.clone(), Self::cell)
    }

    /// The cell in an item of the totals table; nothing for the item of the definition.
    fn cell(&self, item: &Item) -> Option<Result<(Cell, Look), ItemError>> {
        let (pk, sk) = item::names(item);
        match cell_of(&pk, &sk) {
            Some(cell) => Some(item::look(item, &self.definition.measures).map(|look| (cell, look))),
            None if pk == DEFINITION_PK => None,
            None => Some(Err(item::check_format(item).err().unwrap_or(ItemError::NotACell))),
        }
    }

    fn query_ledger<'a>(
        &'a self,
        caller: Option<Caller<'a>>,
        pk: String,
        from: Option<EventKey>,
    ) -> Rows<'a, Vec<Item>> {
        let query = self
            .dynamo
            .query()
            .table_name(&self.ledger)
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .expression_attribute_names("#pk", PK)
            .expression_attribute_values(":pk", AttributeValue::S(pk));
        let query = match from {
            None => query.key_condition_expression("#pk = :pk"),
            // A page's `sk` begins with its greatest key, so a page that can hold `from` is at or above its bytes.
            Some(from) => query
                .key_condition_expression("#pk = :pk AND #sk >= :from")
                .expression_attribute_names("#sk", SK)
                .expression_attribute_values(":from", binary(&from)),
        };
        self.query(caller, query, self.ledger.clone())
    }

    fn query<'a>(
        &'a self,
        caller: Option<Caller<'a>>,
        query: aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder,
        table: String,
    ) -> Rows<'a, Vec<Item>> {
        self.paged(caller, table, move |from| {
            let query = query.clone().set_exclusive_start_key(from);
            async move {
                query.send().await.map(|answer| {
                    let read = units(answer.consumed_capacity());
                    (answer.items.unwrap_or_default(), answer.last_evaluated_key, read)
                })
            }
        })
    }

    /// The answers of a paged read, one after the other. An empty answer is not the end; the missing key to go on from is.
    fn paged<'a, E, F, Fut>(&'a self, caller: Option<Caller<'a>>, table: String, read: F) -> Rows<'a, Vec<Item>>
    where
        E: aws_sdk_dynamodb::error::ProvideErrorMetadata + Send + 'a,
        F: Fn(Option<Item>) -> Fut + Send + Sync + 'a,
        Fut: Future<Output = Result<(Vec<Item>, Option<Item>, f64), SdkError<E>>> + Send,
    {
        stream::try_unfold((From::Start, read, table), move |(from, read, table)| async move {
            let from = match from {
                From::Start => None,
                From::After(key) => Some(key),
                From::End => return Ok(None),
            };
            let meter = Meter::default();
            let caller = match caller {
                Some(caller) => caller,
                None => self.caller(Deadline::NONE, &meter),
            };
            let answer = caller.call(|| read(from.clone())).await;
            let (items, last, units) =
                answer.map_err(|failure| TotalsError::request(format!("reading {table}"), &failure))?;
            caller.meter.read(units);
            let next = last.filter(|key| !key.is_empty()).map_or(From::End, From::After);
            Ok(Some((items, (next, read, table))))
        })
        .boxed()
    }

    /// Understands each item by itself.
    fn rows<'a, T: Send + 'a>(
        &'a self,
        read: Rows<'a, Vec<Item>>,
        table: String,
        parse: impl Fn(&Self, &Item) -> Option<Result<T, ItemError>> + Send + 'a,
    ) -> Rows<'a, T> {
        read.map_ok(move |items| {
            let parsed: Vec<_> = items
                .iter()
                .filter_map(|item| {
                    let row = parse(self, item)?;
                    Some(row.map_err(|why| {
                        let (pk, sk) = item::names(item);
                        TotalsError::Item { table: table.clone(), pk, sk, why }
                    }))
                })
                .collect();
            stream::iter(parsed)
        })
        .try_flatten()
        .boxed()
    }
}

type SdkError<E> = aws_sdk_dynamodb::error::SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>;
