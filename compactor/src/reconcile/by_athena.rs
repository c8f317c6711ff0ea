//! What Athena says of the cells: the same that the summaries of the files say, of all files at once.
//!
//! | of each cell | what for |
//! | --- | --- |
//! | the number of its events, the sum modulo 2¹²⁸ of a hash of their keys | equal to that of a set of keys only if it is this set |
//! | the sum of what they add | what the cell's number must be |
//! | its [`TAIL`] greatest keys, where some are older than the ledger reaches | what is left in the ledger of a month whose pages have expired |
//! | its least key | how old its oldest event is |
//!
//! Beside the cells it says how far each shard's events go in each month. A cell of a month may only be taken for expired if the consumer
//! has passed all of them. What the answer does not settle is looked at again, event by event, on this machine. So a finding is never
//! Athena's.
//!
//! Cells come as they will, and go through the external sort: memory holds one group's month at a time. Where one stands twice, both
//! are added, which equals no ledger.

use std::collections::BTreeSet;
use std::io;
use std::iter::Peekable;

use jiff::tz::TimeZone;
use recount_schemas::definition::Count;
use recount_schemas::{Cell, Definition, EventKey, Group, Month, SequenceNumber, ShardId};
use sha2::{Digest, Sha256};

use super::bulk::Bulk;
use super::diff::Passed;
use crate::athena::answer::{Fields, Line};
use crate::athena::cover::{OfFile, Read, Taking};
use crate::athena::{AthenaError, sql};
use crate::contributions::spill::{Sorted, Sorter};
use crate::contributions::{Scope, order};
use crate::rows::summary::{CellSummary, TAIL};

/// The question, for people to read.
pub const SQL: &str = include_str!("../../../infra/aws/athena/engine/reconcile.sql");

/// The question for a definition and a scope; events created before `horizon` are older than the ledger reaches back.
pub fn question(definition: &Definition, scope: &Scope, horizon: EventKey) -> Result<String, AthenaError> {
    if definition.count != Count::Inserts {
        return Err(AthenaError::Net);
    }
    let each = |line: &dyn Fn(&str, &str, &str) -> String| {
        sql::each(definition, |measure| {
            line(&measure.column, &sql::named(measure, "counted"), &sql::named(measure, "sum"))
        })
    };
    let inner = "        ";
    let measures =
        each(&|column, counted, _| format!("CASE WHEN counts THEN {column} END AS {counted},\n    {column}"));
    let measures = measures.replace("\n    ", &format!("\n{inner}"));
    let sums = each(&|_, counted, sum| format!("sum({counted}) AS {sum}"));
    let all_sums =
        sql::each(definition, |measure| format!("sum({}) AS {}", measure.column, sql::named(measure, "all")));
    // A file is held against the log by all its rows: a group is no reason to leave some out.
    let and_group = scope.group.as_ref().map(|group| format!(" AND group_key = {}", sql::literal(group.as_str())));
    let only = scope.month.map(|month| format!("\n        WHERE month = {}", sql::literal(&month.to_string())));
    // A month goes by when its events occurred, a key by when its change was created. Where an older one is in a later month all the
    // same, none of its cell's keys is named, and the rows tell. The month after allows for any time zone.
    let last = Month::of(horizon.created_ms().saturating_mul(1_000), &TimeZone::UTC).and_then(Month::next);
    let and_older = last.map(|last| format!(" AND month <= {}", sql::literal(&last.to_string())));
    Ok(sql::filled(
        &sql::statement(SQL),
        &[
            ("table", &sql::literal(&definition.table)),
            ("and_group", &and_group.unwrap_or_default()),
            ("lane_bits", &definition.lanes.saturating_sub(1).to_string()),
            ("horizon", &digits(horizon)),
            ("and_older", &and_older.unwrap_or_default()),
            ("tail", &TAIL.to_string()),
            ("measures", &measures),
            ("sums", &sums),
            ("all_sums", &all_sums),
            ("where", &only.unwrap_or_default()),
        ],
    ))
}

/// A key as Athena's `to_hex` writes it.
fn digits(key: EventKey) -> String {
    key.to_string().to_uppercase()
}

/// What Athena makes of a key: the first 16 bytes of its SHA-256 as two signed halves of 64 bits, summed apart, put together.
pub fn key_hash(key: &EventKey) -> u128 {
    let [high, low] = halves(key);
    joined(i128::from(high), i128::from(low))
}

fn halves(key: &EventKey) -> [i64; 2] {
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let mut halves = [[0; 8]; 2];
    halves.as_flattened_mut().iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    halves.map(i64::from_be_bytes)
}

/// Sums of halves as one number modulo 2¹²⁸. Of one key's halves each pair gives another number.
fn joined(high: i128, low: i128) -> u128 {
    (high << 64).wrapping_add(low) as u128
}

/// The answer, as its lines come by.
#[derive(Debug)]
pub struct Lines<'a> {
    definition: &'a Definition,
    scope: &'a Scope,
    passed: &'a Passed,
    cells: Sorter,
    /// The months with events that the consumer has not come to.
    ahead: BTreeSet<Month>,
}

impl<'a> Lines<'a> {
    /// Of no line. `passed` is the consumer's progress, read before the cells.
    pub fn new(definition: &'a Definition, scope: &'a Scope, passed: &'a Passed) -> Self {
        Self { definition, scope, passed, cells: Sorter::new(), ahead: BTreeSet::new() }
    }

    /// The cells, in their order.
    pub fn finish(self) -> io::Result<Answered> {
        let cells = self.cells.finish()?.peekable();
        Ok(Answered { cells, ahead: self.ahead })
    }

    /// What the line of a month's rows by group and lane says of a cell; `None` of the rows that count nowhere.
    fn cell(
        &self,
        fields: &Fields<'_>,
        month: Month,
        (group, lane): (Option<Group>, Option<u16>),
        said: Said,
    ) -> Result<Option<CellSummary>, AthenaError> {
        let (group, lane) = match (group, lane, said.adds.events) {
            (None, None, 0) => return Ok(None),
            (Some(group), Some(lane), 1..) => (group, lane),
            // A group without a lane or an event: its rows have no event key.
            _ => return Err(fields.bad("events of no cell, or a cell of no event")),
        };
        let cell = Cell { group, month, lane };
        let rows = u64::try_from(said.adds.events).map_err(|_| fields.bad("no number of events"))?;
        let (Some((high, low)), Some(least)) = (said.hash, said.least) else { return Err(fields.bad("no keys")) };
        if lane >= self.definition.lanes || !self.scope.has(&cell) {
            return Err(fields.bad("a cell that nobody asked for"));
        }
        let within = said.greatest.first().is_none_or(|first| least <= *first);
        let whole = said.greatest.is_empty() || said.greatest.len() as u64 == rows.min(TAIL as u64);
        let belong = said.greatest.iter().chain([&least]).all(|key| key.lane(self.definition.lanes) == lane);
        if !(within && whole && belong) {
            return Err(fields.bad("other keys than a cell has"));
        }
        // Where one stands twice, the rows tell.
        let tail = if said.greatest.is_sorted_by(|a, b| a < b) { said.greatest } else { Vec::new() };
        Ok(Some(CellSummary { cell, rows, hash: joined(high, low), adds: said.adds, least, tail }))
    }
}

/// What a line says of events.
struct Said {
    adds: recount_schemas::Delta,
    hash: Option<(i128, i128)>,
    least: Option<EventKey>,
    greatest: Vec<EventKey>,
}

impl Taking for Lines<'_> {
    const KINDS: &'static [&'static str] = &["cell", "shard"];
    const KEYS: bool = true;

    fn take(&mut self, line: &Line, read: &mut Read) -> Result<(), AthenaError> {
        let measures = self.definition.measures.len();
        let mut fields = Fields::new(line);
        let month: Month = fields.given("month")?;
        if self.scope.month.is_some_and(|only| only != month) {
            return Err(fields.bad("a month that nobody asked for"));
        }
        let group = fields.spelt("group")?.map(|text| text.parse::<Group>()).transpose();
        let group = group.map_err(|_| fields.bad("no group"))?;
        let lane: Option<u16> = fields.maybe("lane")?;
        let file = fields.text()?;
        let shard: Option<ShardId> = fields.maybe("shard")?;
        let rows: u64 = fields.given("number of rows")?;
        let events: u64 = fields.given("number of events")?;
        let (high, low): (Option<i128>, Option<i128>) = (fields.maybe("hash")?, fields.maybe("hash")?);
        let least = fields.key()?;
        let greatest = keys(&mut fields)?;
        let reached = sequence(&mut fields)?;
        let judged: u64 = fields.given("number of judged rows")?;
        let keys = fields.key()?.zip(fields.key()?);
        let groups = fields.spelt("group")?.zip(fields.spelt("group")?);
        let adds = fields.delta(events, measures)?;
        let sums = fields.sums(measures)?;
        if events > rows {
            return Err(fields.bad("more events than rows"));
        }
        match (file, shard) {
            (Some(file), None) if group.is_none() && lane.is_none() => {
                if !read.file(month, file, OfFile { rows, judged, keys, groups, sums }) {
                    return Err(fields.bad("a file twice"));
                }
            }
            (None, Some(shard)) if group.is_none() && lane.is_none() => {
                read.others("shard", month, rows);
                let all_passed = match (events, &reached) {
                    (0, _) => true,
                    (_, Some(reached)) => self.passed.covers(&shard, reached),
                    (_, None) => return Err(fields.bad("no sequence number")),
                };
                if !all_passed {
                    self.ahead.insert(month);
                }
            }
            (None, None) => {
                read.others("cell", month, rows);
                let said = Said { adds, hash: high.zip(low), least, greatest };
                if let Some(cell) = self.cell(&fields, month, (group, lane), said)? {
                    let (key, value) = encode(&cell)?;
                    self.cells.push(key, value)?;
                }
            }
            _ => return Err(fields.bad("no single one of group, file and shard")),
        }
        fields.end()
    }
}

/// The greatest keys, ascending. Trino promises no order of them.
fn keys(fields: &mut Fields<'_>) -> Result<Vec<EventKey>, AthenaError> {
    // Where no key was looked at there is no list, or an empty one.
    let Some(text) = fields.text()?.filter(|text| !text.is_empty()) else { return Ok(Vec::new()) };
    let keys: Result<Vec<EventKey>, _> = text.split(' ').take(TAIL + 1).map(|key| key.parse()).collect();
    let mut keys = keys.map_err(|_| fields.bad("no event keys"))?;
    keys.sort_unstable();
    Ok(keys)
}

/// A sequence number behind three digits that say how long it is.
fn sequence(fields: &mut Fields<'_>) -> Result<Option<SequenceNumber>, AthenaError> {
    let Some(text) = fields.text()? else { return Ok(None) };
    let number: Option<SequenceNumber> = text.get(3..).and_then(|digits| digits.parse().ok());
    let number = number.filter(|number| number.sortable() == text);
    number.map(Some).ok_or_else(|| fields.bad("no sequence number"))
}

/// What Athena answered of the cells, in the order (month, group, lane).
#[derive(Debug)]
pub struct Answered {
    cells: Peekable<Sorted>,
    ahead: BTreeSet<Month>,
}

impl Answered {
    fn bulk(&self, key: &[u8], value: &[u8]) -> io::Result<Bulk> {
        let cell = decode(key, value).ok_or_else(|| io::Error::other("an entry of the temporary file is damaged"))?;
        let passed = !self.ahead.contains(&cell.cell.month);
        Ok(Bulk::of(cell, key_hash, passed))
    }

    fn merged(&mut self, key: &[u8], value: &[u8]) -> io::Result<Bulk> {
        let mut bulk = self.bulk(key, value)?;
        while let Some(Ok(_)) = self.cells.peek().filter(|next| matches!(next, Ok((next, _)) if next == key)) {
            if let Some((key, value)) = self.cells.next().transpose()? {
                bulk.add(self.bulk(&key, &value)?);
            }
        }
        Ok(bulk)
    }
}

impl Iterator for Answered {
    type Item = io::Result<Bulk>;

    fn next(&mut self) -> Option<io::Result<Bulk>> {
        let entry = self.cells.next()?;
        Some(entry.and_then(|(key, value)| self.merged(&key, &value)))
    }
}

type Kept = (u64, [u8; 16], recount_schemas::Delta, EventKey, Vec<EventKey>);

fn encode(cell: &CellSummary) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut key = order::unit(cell.cell.month, &cell.cell.group);
    key.extend(cell.cell.lane.to_be_bytes());
    let kept = (cell.rows, cell.hash.to_be_bytes(), &cell.adds, cell.least, &cell.tail);
    Ok((key, serde_json::to_vec(&kept).map_err(io::Error::other)?))
}

fn decode(key: &[u8], value: &[u8]) -> Option<CellSummary> {
    let (month, group, lane) = order::split_unit(key)?;
    let (rows, hash, adds, least, tail): Kept = serde_json::from_slice(value).ok()?;
    let cell = Cell { group, month, lane: u16::from_be_bytes(lane.try_into().ok()?) };
    Some(CellSummary { cell, rows, hash: u128::from_be_bytes(hash), adds, least, tail })
}

/// Asks, and reads the answer. `state` is the archive's log as it was when the archive was at the tip.
#[cfg(feature = "aws")]
pub async fn ask(
    context: &crate::context::Context,
    scope: &Scope,
    passed: &Passed,
    horizon: EventKey,
    state: &crate::log::State,
    says: &crate::progress::Says<'_>,
) -> Result<(Answered, crate::athena::Asked), AthenaError> {
    let sql = question(&context.definition, scope, horizon)?;
    let fresh = || Lines::new(&context.definition, scope, passed);
    let (lines, asked) = crate::athena::about::about(context, &sql, scope.month, state, fresh, says).await?;
    Ok((lines.finish()?, asked))
}

/// This program cannot ask.
#[cfg(not(feature = "aws"))]
pub async fn ask(
    _: &crate::context::Context,
    _: &Scope,
    _: &Passed,
    _: EventKey,
    _: &crate::log::State,
    _: &crate::progress::Says<'_>,
) -> Result<(Answered, crate::athena::Asked), AthenaError> {
    Err(AthenaError::Unable)
}

#[cfg(test)]
#[path = "by_athena_tests.rs"]
pub(crate) mod tests;
