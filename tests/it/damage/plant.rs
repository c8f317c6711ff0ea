//! Damage, planted past the consumer with plain requests.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::TryStreamExt;
use recount_consumer::cell::Look;
use recount_consumer::totals::Page;
use recount_schemas::items::{self, PageName, cell_sk, ledger_pk, pack};
use recount_schemas::{Cell, EventKey};

use super::bench::{Added, Bench};

fn n(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn b(bytes: impl AsRef<[u8]>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes.as_ref()))
}

fn set(key: &EventKey) -> AttributeValue {
    AttributeValue::Bs(vec![Blob::new(key.as_bytes().as_slice())])
}

impl Bench {
    /// Updates a cell's item as it pleases.
    pub async fn edit(&self, cell: &Cell, update: &str, values: &[(&str, AttributeValue)]) {
        let request = self.world.pipeline.clients().dynamodb.update_item().table_name(&self.world.settings().totals);
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        request
            .key(items::PK, AttributeValue::S(cell.group.to_string()))
            .key(items::SK, AttributeValue::S(cell_sk(cell.month, cell.lane)))
            .update_expression(update)
            .set_expression_attribute_values(
                Some(values).filter(|values: &std::collections::HashMap<_, _>| !values.is_empty()),
            )
            .send()
            .await
            .unwrap();
    }

    pub async fn add(&self, cell: &Cell, events: i64, bytes: i64) {
        self.edit(cell, "ADD events :e, sum_bytes :b", &[(":e", n(events)), (":b", n(bytes))]).await;
    }

    /// A key comes into `recent`, and the number with it.
    pub async fn invent(&self, cell: &Cell, key: &EventKey, events: i64, bytes: i64) {
        let values = [(":e", n(events)), (":b", n(bytes)), (":k", set(key))];
        self.edit(cell, "ADD events :e, sum_bytes :b, recent :k", &values).await;
    }

    /// A key goes from `recent`, and the number with it.
    pub async fn lose(&self, cell: &Cell, key: &EventKey, events: i64, bytes: i64) {
        let values = [(":e", n(-events)), (":b", n(-bytes)), (":k", set(key))];
        self.edit(cell, "ADD events :e, sum_bytes :b DELETE recent :k", &values).await;
    }

    /// The item goes; its pages stay.
    pub async fn delete(&self, cell: &Cell) {
        let request = self.world.pipeline.clients().dynamodb.delete_item().table_name(&self.world.settings().totals);
        request
            .key(items::PK, AttributeValue::S(cell.group.to_string()))
            .key(items::SK, AttributeValue::S(cell_sk(cell.month, cell.lane)))
            .send()
            .await
            .unwrap();
    }

    pub async fn delete_page(&self, cell: &Cell, name: &PageName) {
        let request = self.world.pipeline.clients().dynamodb.delete_item().table_name(&self.world.settings().ledger);
        request
            .key(items::PK, AttributeValue::S(ledger_pk(cell)))
            .key(items::SK, b(name.to_bytes()))
            .send()
            .await
            .unwrap();
    }

    /// Puts a page under a name, which may not be its own.
    pub async fn put_page(&self, cell: &Cell, name: &PageName, keys: &[EventKey]) {
        let request = self.world.pipeline.clients().dynamodb.put_item().table_name(&self.world.settings().ledger);
        request
            .item(items::PK, AttributeValue::S(ledger_pk(cell)))
            .item(items::SK, b(name.to_bytes()))
            .item(items::KEYS, b(pack(keys)))
            .item(items::VERSION, n(items::FORMAT))
            .item(items::EXPIRES, n(self.world.host.now_ms() / 1_000 + 30 * 86_400))
            .send()
            .await
            .unwrap();
    }

    /// Puts an item of somebody else's into the totals table.
    pub async fn put_foreign(&self, pk: &str, sk: &str, attributes: &[(&str, AttributeValue)]) {
        let mut request = self.world.pipeline.clients().dynamodb.put_item().table_name(&self.world.settings().totals);
        for (name, value) in attributes {
            request = request.item(*name, value.clone());
        }
        request.item("pk", AttributeValue::S(pk.into())).item("sk", AttributeValue::S(sk.into())).send().await.unwrap();
    }

    pub async fn delete_foreign(&self, pk: &str, sk: &str) {
        let request = self.world.pipeline.clients().dynamodb.delete_item().table_name(&self.world.settings().totals);
        request.key("pk", AttributeValue::S(pk.into())).key("sk", AttributeValue::S(sk.into())).send().await.unwrap();
    }

    pub async fn look(&self, cell: &Cell) -> Look {
        self.world.pipeline.context().totals.look(cell).await.unwrap().unwrap()
    }

    pub async fn pages(&self, cell: &Cell) -> Vec<Page> {
        self.world.pipeline.context().totals.pages(cell, EventKey::MIN).try_collect().await.unwrap()
    }

    /// Some event of the cell that stands in `recent`.
    pub async fn recent(&self, cell: &Cell) -> (EventKey, Added) {
        let look = self.look(cell).await;
        let account = &self.account[cell];
        let key = look.recent.iter().find(|key| account.get(key).is_some_and(|added| added.events != 0));
        let key = *key.expect("some event is in recent");
        (key, account[&key].clone())
    }

    /// The cell's page with the most keys.
    pub async fn page(&self, cell: &Cell) -> Page {
        let pages = self.pages(cell).await;
        let kept = self.look(cell).await.epoch;
        pages
            .into_iter()
            .filter(|page| page.name.epoch < kept)
            .max_by_key(|page| page.keys.len())
            .expect("a sealed page")
    }

    /// The event IDs of these keys in a cell's account.
    pub fn ids<'a>(&'a self, cell: &Cell, keys: impl IntoIterator<Item = &'a EventKey>) -> Vec<&'a str> {
        let account: &BTreeMap<EventKey, Added> = &self.account[cell];
        keys.into_iter().map(|key| account[key].event_id.as_str()).collect()
    }
}
