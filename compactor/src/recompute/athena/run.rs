//! Asking Athena, and writing what it answers.

use bytes::Bytes;

use super::super::{RecomputeError, write};
use super::{Report, Totals, question};
use crate::athena::about::about;
use crate::athena::{AthenaError, Place};
use crate::bucket::Objects;
use crate::context::Context;
use crate::progress::{Says, Work};
use crate::usage::Totalled;

/// Recounts the archive by Athena and writes the totals.
pub async fn recompute(context: &Context, says: &Says<'_>) -> Result<Report, AthenaError> {
    Place::of(context)?;
    let sql = question(&context.definition)?;
    // Every entry is read, and every link of the chain is checked.
    let state = context.whole_log().await.map_err(|error| AthenaError::Context(Box::new(error)))?;
    let fresh = || Totals::new(&context.definition);
    let (Totals { totals, .. }, asked) = about(context, &sql, None, &state, fresh, says).await?;
    says(Work::Step("writing the totals"));
    let written = put(context, &totals).await.map_err(|error| AthenaError::Recompute(Box::new(error)))?;
    Ok(Report { totals: totals.lines(&context.definition)?, asked, written })
}

async fn put(context: &Context, totals: &Totalled) -> Result<Vec<String>, RecomputeError> {
    let mut written = Vec::new();
    for (key, bytes) in [
        (write::MONTHLY, write::monthly(&context.definition, totals)?),
        (write::YEARLY, write::yearly(&context.definition, totals)?),
    ] {
        context.bucket.put(key, Bytes::from(bytes)).await?;
        written.push(key.to_owned());
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use recount_schemas::Definition;

    use super::*;
    use crate::athena::about::tests::Deployment;
    use crate::recompute::athena::tests::TOML;

    #[tokio::test]
    async fn an_answer_about_the_log_is_written_and_any_other_is_not() {
        let definition = || Definition::parse(TOML, "recount.toml").unwrap();
        let deployment = Deployment::new(definition(), &[], 0, vec![Vec::new()]);
        let report = recompute(&deployment.context, &|_| {}).await.unwrap();
        assert_eq!((report.asked.files, report.asked.rows, report.asked.entries, report.written.len()), (0, 0, 0, 2));
        assert_eq!((deployment.times("StartQueryExecution"), deployment.times("PUT /recount-archive/totals/")), (1, 2));

        // A file that the log does not have: asked again, then nothing is said and nothing is written.
        let foreign = [
            ["2026-11", "NULL", "s3://b/events/x", "8", "8", "8", "61", "62", "NULL", "NULL"],
            ["2026-11", "NULL", "NULL", "8", "0", "8", "NULL", "NULL", "NULL", "NULL"],
        ];
        let foreign = foreign.map(|line| line.map(str::to_owned).to_vec()).to_vec();
        let file_alone = foreign[..1].to_vec();
        let deployment = Deployment::new(definition(), &[], 0, vec![foreign]);
        let error = recompute(&deployment.context, &|_| {}).await.unwrap_err();
        assert!(matches!(&error, AthenaError::OtherFiles(months) if months.len() == 1), "{error}");
        assert!(!error.is_usage() && error.to_string().contains("2026-11"), "{error}");
        assert_eq!((deployment.times("StartQueryExecution"), deployment.times("PUT ")), (2, 0));

        // An answer that is not whole.
        let deployment = Deployment::new(definition(), &[], 0, vec![file_alone]);
        let error = recompute(&deployment.context, &|_| {}).await.unwrap_err();
        insta::assert_snapshot!(error, @"Athena's answer has 8 rows of 2026-11 by file and 0 by group");
        assert_eq!(deployment.times("PUT "), 0);
    }
}
