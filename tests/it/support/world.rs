//! The whole pipeline in this process: engines in a temporary directory, the parts running against them.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::{Report, reconcile};
use recount_compactor::usage::{Usage, usage};
use recount_local::engines::{Engines, Options as EngineOptions};
use recount_local::pipeline::{Options, Pipeline};
use recount_schemas::host::{SharedHost, SystemHost};
use recount_schemas::{Amount, Definition, Settings};

use super::naive;
use super::records::Change;

/// A definition over the items of `records`, with what `fold` adds to it.
pub fn definition(fold: &str) -> String {
    format!(
        "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\noccurred_at = \"scanned_at\"\n\
         time_zone = \"{}\"\nsum = [\"bytes\"]\n{fold}\n",
        naive::ZONE
    )
}

/// Options for tests: nothing archives by itself, batches are not waited for.
pub fn options() -> Options {
    Options { window: Duration::ZERO, archive_every: None, ..Options::default() }
}

/// A running pipeline.
pub struct World {
    pub dir: tempfile::TempDir,
    pub engines: Engines,
    pub pipeline: Pipeline,
    pub host: SharedHost,
}

impl World {
    /// Starts one with this definition.
    pub async fn start(definition: &str, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = SystemHost::shared();
        let engines = Engines::open(dir.path(), Arc::clone(&host), EngineOptions::default()).unwrap();
        let sdk = recount_local::client::in_process(engines.door()).await;
        let definition = Definition::parse(definition, "recount.toml").unwrap();
        let positions = dir.path().join("positions.sqlite");
        let pipeline =
            Pipeline::start(&engines, &sdk, &positions, Settings::default(), definition, Arc::clone(&host), &options)
                .await
                .unwrap();
        Self { dir, engines, pipeline, host }
    }

    /// Puts raw records into the stream, in order.
    pub async fn put(&self, records: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let entries: Vec<_> = records
            .into_iter()
            .map(|(key, data)| {
                PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
            })
            .collect();
        // 500 records and well below 10 MiB a request.
        for entries in entries.chunks(100) {
            let request = self.pipeline.clients().kinesis.put_records().stream_name(&self.settings().stream);
            let answer = request.set_records(Some(entries.to_vec())).send().await.unwrap();
            assert_eq!(answer.failed_record_count(), Some(0));
        }
    }

    /// Puts changes into the stream, in order.
    pub async fn put_changes<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) {
        self.put(changes.into_iter().map(|c| (c.partition_key.clone(), c.json.clone().into_bytes()))).await;
    }

    /// The names of things.
    pub fn settings(&self) -> &Settings {
        &self.pipeline.context().settings
    }

    /// Live totals as `recount usage` gives them.
    pub async fn usage(&self) -> Usage {
        usage(&self.pipeline.context().totals, None, None).await.unwrap()
    }

    /// Live monthly totals in the oracle's shape; cells that have come back to nothing are left out.
    pub async fn totals(&self) -> naive::Totals {
        monthly(&self.usage().await)
    }

    /// `recount reconcile`.
    pub async fn reconcile(&self) -> Report {
        reconcile(self.pipeline.context(), &Scope::all(), &|_| {}).await.unwrap().report
    }
}

/// Monthly totals in the oracle's shape.
pub fn monthly(usage: &Usage) -> naive::Totals {
    let lines = usage.months.iter().map(|line| {
        let bytes = line.sums.get("bytes").copied().unwrap_or(Amount::ZERO);
        ((line.group.to_string(), line.month.to_string()), (line.events, whole(bytes)))
    });
    lines.filter(|(_, total)| *total != (0, 0)).collect()
}

/// Yearly totals in the oracle's shape.
pub fn yearly(usage: &Usage) -> naive::Totals {
    let lines = usage.years.iter().map(|line| {
        let bytes = line.sums.get("bytes").copied().unwrap_or(Amount::ZERO);
        ((line.group.to_string(), line.year.to_string()), (line.events, whole(bytes)))
    });
    lines.filter(|(_, total)| *total != (0, 0)).collect()
}

fn whole(amount: Amount) -> i64 {
    amount.to_string().parse().expect("the tests' bytes are whole numbers")
}
