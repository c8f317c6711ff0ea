//! The archive's daily work: retention, then compaction. Both are safe twice, beside each other and beside archivers.

use std::sync::Arc;
use std::time::Duration;

use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Month};
use serde::Serialize;

use crate::archive::finish::Catalog;
use crate::bucket::{Bucket, Objects};
use crate::compact::{CompactReport, Compactor, Limits};
use crate::erase::{EraseError, Eraser, Retention};
use crate::progress::{Says, Work};

/// What a day's work would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DailyReport {
    /// The compaction's report; its `finished` is of both.
    #[serde(flatten)]
    pub compaction: CompactReport,
    /// What retention did; absent where the definition keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// Does the daily work.
#[derive(Debug, Clone)]
pub struct Daily<O = Bucket> {
    compactor: Compactor<O>,
    eraser: Eraser<O>,
    host: SharedHost,
}

impl<O: Objects> Daily<O> {
    /// With these limits.
    pub fn new(objects: O, definition: Arc<Definition>, host: SharedHost, limits: Limits) -> Self {
        let eraser = Eraser::new(objects.clone(), Arc::clone(&definition), host.clone(), limits.life);
        let compactor = Compactor::new(objects, definition, host.clone()).with_limits(limits);
        Self { compactor, eraser, host }
    }

    /// The same with a catalog that is kept in step, where there is one.
    pub fn with_catalog(self, catalog: Option<&Arc<dyn Catalog>>) -> Self {
        let Some(catalog) = catalog else { return self };
        let compactor = self.compactor.with_catalog(Arc::clone(catalog));
        Self { compactor, eraser: self.eraser.with_catalog(Some(Arc::clone(catalog))), ..self }
    }

    /// What a run would do now, of one month or of all. Nothing is written.
    pub async fn plan(&self, only: Option<Month>) -> Result<DailyReport, EraseError> {
        let retention = self.eraser.plan_retention(only).await?;
        let mut compaction = self.compactor.plan(only).await?;
        compaction.finished &= retention.as_ref().is_none_or(|retention| retention.finished);
        Ok(DailyReport { compaction, retention })
    }

    /// Runs, for one month or for all. Retention has at most half of the time, so that it keeps no compaction from its turn.
    pub async fn run(&self, only: Option<Month>, deadline: Deadline) -> Result<DailyReport, EraseError> {
        self.run_telling(only, deadline, &|_| {}).await
    }

    /// The same, which says how far it is.
    pub async fn run_telling(
        &self,
        only: Option<Month>,
        deadline: Deadline,
        says: &Says<'_>,
    ) -> Result<DailyReport, EraseError> {
        says(Work::Step("holding the months against retention"));
        let left = deadline.left(&*self.host);
        let half = if left == Duration::MAX { Deadline::NONE } else { Deadline::after(&*self.host, left / 2) };
        let retention = self.eraser.retain(only, half).await?;
        let mut compaction = self.compactor.run_telling(only, deadline, says).await?;
        compaction.finished &= retention.as_ref().is_none_or(|retention| retention.finished);
        Ok(DailyReport { compaction, retention })
    }
}
