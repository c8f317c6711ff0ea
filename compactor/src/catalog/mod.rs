//! Where readers by location find the months of the archive: partitions in Glue, by which Athena goes.
//!
//! - [`noted`]: that there is a catalog, for whoever was not told of it.
//! - [`partition`]: what a partition says, and what is to be done about it. Pure.
//! - `glue`: the same done in Glue; only in a build with the feature `aws`.
//!
//! Only the base's archive has partitions: the tables of the database are declared over it. A set is read by its log.

#[cfg(feature = "aws")]
pub mod glue;
pub mod noted;
pub mod partition;

use std::sync::Arc;

use aws_config::SdkConfig;
use recount_schemas::Settings;
use recount_schemas::host::SharedHost;

use crate::archive::finish::Catalog;

/// The table of events in the database; the template declares it.
pub const EVENTS_TABLE: &str = "events";

/// The catalog of these names; `None` where there is none.
pub fn of(sdk: &SdkConfig, settings: &Settings, host: &SharedHost) -> Option<Arc<dyn Catalog>> {
    let database = settings.glue_database.as_deref().filter(|_| settings.set.is_none())?;
    Some(in_glue(sdk, database, &settings.bucket, host))
}

#[cfg(feature = "aws")]
fn in_glue(sdk: &SdkConfig, database: &str, bucket: &str, host: &SharedHost) -> Arc<dyn Catalog> {
    Arc::new(glue::Glue::new(sdk, database, bucket, host.clone()))
}

/// A deployment with a catalog, and a program that cannot keep it: whoever reads by location would go by what is deleted.
#[cfg(not(feature = "aws"))]
fn in_glue(_: &SdkConfig, database: &str, _: &str, _: &SharedHost) -> Arc<dyn Catalog> {
    Arc::new(unable::Unable(database.to_owned()))
}

#[cfg(not(feature = "aws"))]
mod unable {
    use std::collections::BTreeSet;

    use futures::future::{BoxFuture, ready};
    use recount_schemas::Month;

    use crate::archive::finish::{Catalog, Shown};
    use crate::log::State;

    /// Fails whatever is asked.
    #[derive(Debug)]
    pub(super) struct Unable(pub(super) String);

    impl Unable {
        fn why(&self) -> String {
            let database = &self.0;
            format!("RECOUNT_GLUE_DATABASE is {database}, but this program was built without the feature `aws`")
        }
    }

    impl Catalog for Unable {
        fn name(&self) -> String {
            format!("Glue database {}", self.0)
        }

        fn place<'c>(&'c self, _: &'c State, _: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>> {
            Box::pin(ready(Err(self.why())))
        }

        fn shown(&self, _: Month) -> BoxFuture<'_, Result<Option<Shown>, String>> {
            Box::pin(ready(Err(self.why())))
        }
    }
}
