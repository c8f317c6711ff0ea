//! Where a part finds its things: names of tables, stream and bucket, from environment variables.
//!
//! The variables name the things of the base. `RECOUNT_SET` says that a part works on a set instead, see [`set`](crate::set): its
//! tables and its place in the bucket follow from the base's.

use crate::set::{NotASetName, SetName};

/// Names, as a deployment or local mode gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `RECOUNT_SET`: the set that these are the names of; `None`: the base.
    pub set: Option<SetName>,
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
    /// The names that a deployed part has: those of the set in `RECOUNT_SET`, else those of the base.
    pub fn deployed(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, NotASetName> {
        let set =
            lookup(Self::SET).filter(|value| !value.is_empty()).map(|name| name.parse::<SetName>()).transpose()?;
        let base = Self::from_lookup(lookup);
        Ok(set.map_or_else(|| base.clone(), |set| base.of_set(&set)))
    }

    /// The variable that names a set.
    pub const SET: &str = "RECOUNT_SET";

    /// The names of a set beside these, which may be those of the base or of another set.
    pub fn of_set(&self, set: &SetName) -> Self {
        let base = self.base();
        let of = |table: &str| format!("{table}-{set}");
        let (totals, ledger, progress) = (of(&base.totals), of(&base.ledger), of(&base.progress));
        Self { totals, ledger, progress, set: Some(set.clone()), ..base }
    }

    /// The names of the base.
    pub fn base(&self) -> Self {
        let Some(set) = &self.set else { return self.clone() };
        let suffix = format!("-{set}");
        let of = |table: &str| table.strip_suffix(&suffix).unwrap_or(table).to_owned();
        Self {
            totals: of(&self.totals),
            ledger: of(&self.ledger),
            progress: of(&self.progress),
            set: None,
            ..self.clone()
        }
    }

    /// What stands in front of the names of its objects in the bucket: nothing for the base.
    pub fn prefix(&self) -> String {
        self.set.as_ref().map(SetName::prefix).unwrap_or_default()
    }

    /// The base's names. Takes each from `lookup` (such as `|name| std::env::var(name).ok()`), else the one of local mode.
    /// An empty value counts as absent.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let optional = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let named = |name: &str, local: &str| optional(name).unwrap_or_else(|| local.to_owned());
        Self {
            set: None,
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

    #[test]
    fn the_names_of_a_set_follow_from_those_of_the_base() {
        let base = Settings::default();
        let tokyo = base.of_set(&"tokyo".parse().unwrap());
        assert_eq!((tokyo.totals.as_str(), tokyo.prefix().as_str()), ("recount-totals-tokyo", "sets/tokyo/"));
        assert_eq!((tokyo.bucket.as_str(), tokyo.stream.as_str()), ("recount-archive", "recount-changes"));
        assert_eq!(tokyo.base(), base);
        let other = tokyo.of_set(&"x".parse().unwrap());
        assert_eq!((other.ledger.as_str(), base.prefix().as_str()), ("recount-ledger-x", ""));
        assert_eq!(other.base(), base);

        let of = |set: &'static str| Settings::deployed(move |name| (name == Settings::SET).then(|| set.to_owned()));
        assert_eq!((of("tokyo").unwrap(), of("").unwrap()), (tokyo, base));
        assert!(of("../x").is_err(), "a wrong name must not mean the base");
    }
}
