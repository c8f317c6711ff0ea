//! How one event stands in one cell: what explain says of it, and where in the ledger its key is.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use recount_schemas::{Cell, Delta, EventKey, Group, Month, quarantine};
use serde::{Deserialize, Serialize};

use super::WhyError;
use super::search::Event;
use crate::bucket::{Listing, Objects};
use crate::context::Context;
use crate::explain::token;
use crate::reconcile::ReconcileError;
use crate::reconcile::diff::{Archived, KeyFacts, Passed, horizon, judge};
use crate::reconcile::evidence::EvidenceError;
use crate::reconcile::finding::Origin;
use crate::repair::applied::{self, AppliedError, MAX_KEYS, MAX_REPORTS};
use crate::repair::plan::{self, Plan};

/// An event in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The cell's group.
    pub group: Group,
    /// Its month.
    pub month: Month,
    /// Its lane.
    pub lane: u16,
    /// What the event adds to it.
    pub adds: Delta,
    /// Whether it is in the number.
    pub counted: bool,
    /// Why, by the tokens of explain: `counted`, `taken_as_counted`, `not_yet`, `missing`, `quarantined`, `too_old`.
    pub why: String,
    /// Where in the ledger its key is: `recent`, a page by its name, or a page that a sealing which broke off left and that
    /// is not in the ledger. `None`: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// Whether the consumer has passed its position.
    pub passed: bool,
    /// Whether it is in the consumer's quarantine.
    pub quarantined: bool,
    /// Whether it is on the cell's too-old list.
    pub too_old: bool,
    /// What applied plans have said about it here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<Said>,
    /// The cell's number now.
    pub number: Delta,
}

/// A place in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ledger {
    /// In the cell's item.
    Recent,
    /// On a page: its sort key, in hexadecimal digits.
    Page(String),
    /// On a page that does not belong to the ledger: likewise.
    OrphanPage(String),
}

/// What an applied plan said about an event in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The plan's hash.
    pub plan: String,
    /// `void`: its key is in no number. `settled`: it came too late, and was put into the number.
    pub said: String,
}

/// What is the same for all cells.
#[derive(Debug)]
pub struct Known {
    passed: Passed,
    horizon: EventKey,
    plans: Vec<(String, applied::Settled)>,
}

impl Known {
    /// Reads it.
    pub async fn read(context: &Context) -> Result<Self, WhyError> {
        let now_ms = context.host.now_ms();
        Ok(Self {
            passed: context.passed().await?,
            horizon: horizon(now_ms, context.definition.ledger_days),
            plans: plans(&context.bucket).await.map_err(ReconcileError::from)?,
        })
    }

    /// How an event stands in a cell: its item first, then its pages, as the ledger is read everywhere.
    pub async fn standing(
        &self,
        context: &Context,
        cell: &Cell,
        adds: &Delta,
        event: &Event,
    ) -> Result<Standing, WhyError> {
        let failed = |error| ReconcileError::Look(crate::reconcile::look::LookError::Totals(error));
        let look = context.totals.look(cell).await.map_err(failed)?.unwrap_or_default();
        let ledger = match look.recent.contains(&event.key) {
            true => Some(Ledger::Recent),
            false => self.page(context, cell, event.key, look.epoch).await.map_err(failed)?,
        };
        let in_ledger = matches!(ledger, Some(Ledger::Recent | Ledger::Page(_)));
        let mut listed = context.totals.too_old(cell);
        let mut too_old = false;
        while let Some(late) = listed.try_next().await.map_err(failed)? {
            too_old |= late.key == event.key;
        }
        let has =
            |keys: &BTreeMap<Cell, BTreeSet<EventKey>>| keys.get(cell).is_some_and(|keys| keys.contains(&event.key));
        let said = |plan: &str, said: &str| Said { plan: plan.to_owned(), said: said.to_owned() };
        let mut plans = Vec::new();
        for (plan, settled) in &self.plans {
            plans.extend(has(&settled.void).then(|| said(plan, "void")));
            plans.extend(has(&settled.settled).then(|| said(plan, "settled")));
        }
        let object = quarantine::object_key(&event.shard, &event.sequence);
        let quarantined =
            context.bucket.head(&object).await.map_err(EvidenceError::from).map_err(ReconcileError::from)?;
        let passed = self.passed.covers(&event.shard, &event.sequence);
        let listed = too_old && !plans.iter().any(|said| said.said == "settled");
        let origin = Origin {
            event_id: String::new(),
            shard_id: event.shard.clone(),
            sequence_number: event.sequence.clone(),
            file: String::new(),
        };
        let verdict = judge(&KeyFacts {
            key: event.key,
            in_ledger,
            archived: &[Archived { delta: adds.clone(), origin, variant: false }],
            passed,
            old: event.key < self.horizon,
            quarantined: quarantined.is_some(),
            listed,
            voided: false,
        });
        let (counted, why) = token(verdict, listed);
        Ok(Standing {
            group: cell.group.clone(),
            month: cell.month,
            lane: cell.lane,
            adds: adds.clone(),
            counted,
            why: why.to_owned(),
            ledger,
            passed,
            quarantined: quarantined.is_some(),
            too_old,
            plans,
            number: Delta { events: look.events, sums: look.sums },
        })
    }

    async fn page(
        &self,
        context: &Context,
        cell: &Cell,
        key: EventKey,
        epoch: u64,
    ) -> Result<Option<Ledger>, recount_consumer::totals::TotalsError> {
        let mut pages = context.totals.pages(cell, key);
        let mut orphan = None;
        while let Some(page) = pages.try_next().await? {
            if page.keys.binary_search(&key).is_ok() {
                let name = page.name.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                match page.name.epoch < epoch {
                    true => return Ok(Some(Ledger::Page(name))),
                    false => orphan = Some(Ledger::OrphanPage(name)),
                }
            }
        }
        Ok(orphan)
    }
}

/// What each applied plan has said.
async fn plans<O: Objects>(objects: &O) -> Result<Vec<(String, applied::Settled)>, AppliedError> {
    let (mut plans, mut keys) = (Vec::new(), 0usize);
    let mut listing = Listing::new(objects, plan::PREFIX);
    while let Some(page) = listing.next_page().await? {
        for hash in page.iter().filter_map(|listed| Plan::reported(&listed.key)) {
            let Some(applied) = applied::kept(objects, hash).await? else { continue };
            let mut settled = applied::Settled::default();
            for cell in &applied.cells {
                keys += cell.void.len() + cell.settled.len();
                settled.add(cell);
            }
            if plans.len() >= MAX_REPORTS || keys > MAX_KEYS {
                return Err(AppliedError::TooMany);
            }
            plans.push((hash.to_owned(), settled));
        }
    }
    Ok(plans)
}
