//! Where a part finds its things: names of tables, stream and bucket, from environment variables.

/// Names, as a deployment or local mode gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `RECOUNT_DEFINITION`: the path of the definition.
    pub definition: String,
    /// `RECOUNT_TOTALS_TABLE`.
    pub totals: String,
    /// `RECOUNT_LEDGER_TABLE`.
    pub ledger: String,
    /// `RECOUNT_PROGRESS_TABLE`.
    pub progress: String,
    /// `RECOUNT_STREAM`: the Kinesis stream's name.
    pub stream: String,
    /// `RECOUNT_BUCKET`: the bucket of archive, quarantine and plans.
    pub bucket: String,
    /// `RECOUNT_GLUE_DATABASE`: absent where there is no Glue.
    pub glue_database: Option<String>,
    /// `RECOUNT_ATHENA_WORKGROUP`.
    pub athena_workgroup: Option<String>,
}

impl Default for Settings {
    /// The names of local mode.
    fn default() -> Self {
        Self::from_lookup(|_| None)
    }
}

impl Settings {
    /// Takes each name from `lookup` (such as `|name| std::env::var(name).ok()`), else the one of local mode.
    /// An empty value counts as absent.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let optional = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let named = |name: &str, local: &str| optional(name).unwrap_or_else(|| local.to_owned());
        Self {
            definition: named("RECOUNT_DEFINITION", "recount.toml"),
            totals: named("RECOUNT_TOTALS_TABLE", "recount-totals"),
            ledger: named("RECOUNT_LEDGER_TABLE", "recount-ledger"),
            progress: named("RECOUNT_PROGRESS_TABLE", "recount-progress"),
            stream: named("RECOUNT_STREAM", "recount-changes"),
            bucket: named("RECOUNT_BUCKET", "recount-archive"),
            glue_database: optional("RECOUNT_GLUE_DATABASE"),
            athena_workgroup: optional("RECOUNT_ATHENA_WORKGROUP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_environment_or_are_those_of_local_mode() {
        let settings = Settings::from_lookup(|name| match name {
            "RECOUNT_BUCKET" => Some("b".to_owned()),
            "RECOUNT_STREAM" => Some(String::new()),
            _ => None,
        });
        assert_eq!((settings.bucket.as_str(), settings.stream.as_str()), ("b", "recount-changes"));
        assert_eq!(settings.glue_database, None);
    }
}
