//! `recount definition`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;

use clap::Args;
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::definition::given::{MAX_BASE64, base64};
use recount_schemas::definition::least_ledger_days;
use recount_schemas::terminal::shown_line;
use recount_schemas::{Definition, bounded};
use serde::Serialize;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use crate::context::ContextError;

/// How many hours the stream of `infra/aws/template.yaml` keeps records.
pub const TEMPLATE_RETENTION_HOURS: u32 = 168;

/// What can be typed behind `recount definition`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Checks a definition; asks nobody. A deployment takes it in base64, as a parameter of its template, and its functions in
their environment, which has room for 3,072 characters of it. Every key, its default and its limits: infra/definition.md.

Examples:
  recount definition recount.toml
  sam deploy --parameter-overrides Definition=$(recount definition recount.toml --base64)

Ends with 0 if it can be deployed, with 1 if it is right but too long for that, or its ledger_days too few for the stream, with 3 if
it is wrong."
)]
pub struct DefinitionArgs {
    /// The file.
    #[arg(value_name = "FILE", default_value = "recount.toml")]
    pub file: String,
    /// Print its base64, and nothing else.
    #[arg(long)]
    pub base64: bool,
    /// How many hours the stream keeps records, where that is not what the template gives it.
    #[arg(long, value_name = "HOURS", default_value_t = TEMPLATE_RETENTION_HOURS, value_parser = clap::value_parser!(u32).range(24..=8_760))]
    pub retention_hours: u32,
}

/// What there is to say of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The file.
    pub file: String,
    /// The table whose changes it counts.
    pub table: String,
    /// Its hash, which the totals bear.
    pub hash: String,
    /// Its base64.
    pub base64: String,
    /// Whether that fits a function's environment, and `ledger_days` the stream.
    pub deployable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<String>,
}

/// Runs it.
pub fn run(args: &DefinitionArgs, format: Format, out: &mut (dyn Write + Send)) -> Result<Exit, CommandError> {
    let path = args.file.as_str();
    let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
    let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE)).map_err(unreadable)?;
    let definition = Definition::parse(&text, path).map_err(ContextError::from)?;
    let told = told(path, &text, &definition, args.retention_hours);
    match (args.base64, told.deployable) {
        (false, _) => write(out, format, &told, shown)?,
        (true, true) => writeln!(out, "{}", told.base64)?,
        // What a shell would paste into a deployment is nothing.
        (true, false) => {
            return Err(CommandError::Undeployable { path: path.to_owned(), why: told.why_not.join("; ") });
        }
    }
    Ok(if told.deployable { Exit::Clean } else { Exit::Findings })
}

fn told(path: &str, text: &str, definition: &Definition, retention_hours: u32) -> Told {
    let base64 = base64(text);
    let why_not: Vec<String> =
        too_long(base64.len()).into_iter().chain(too_few_days(definition.ledger_days, retention_hours)).collect();
    Told {
        file: path.to_owned(),
        table: definition.table.clone(),
        hash: definition.hash().to_owned(),
        deployable: why_not.is_empty(),
        why_not,
        base64,
    }
}

fn too_long(has: usize) -> Option<String> {
    (has > MAX_BASE64).then(|| {
        format!(
            "it has {has} characters in base64; a function's environment has room for {MAX_BASE64}: leave out comments and the quotas of \
             single groups"
        )
    })
}

/// The consumer refuses to start with fewer.
fn too_few_days(ledger_days: u16, retention_hours: u32) -> Option<String> {
    let least = least_ledger_days(retention_hours);
    let stream = match retention_hours {
        TEMPLATE_RETENTION_HOURS => "the template's stream, which keeps records for 168 hours",
        _ => "a stream that keeps records for so long",
    };
    let other = match retention_hours {
        TEMPLATE_RETENTION_HOURS => ", or say by --retention-hours what yours is given",
        _ => "",
    };
    (u32::from(ledger_days) < least).then(|| {
        format!(
            "ledger_days = {ledger_days} is too short for {stream}: it must be more than the retention and 2 days, or the consumer refuses \
             to start; set it to {least} or more{other}"
        )
    })
}

fn shown(told: &Told) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} counts changes of table {}", shown_line(&told.file), shown_line(&told.table));
    let _ = writeln!(text, "hash    {}", told.hash);
    let _ = writeln!(text, "base64  {}", told.base64);
    for why in &told.why_not {
        let _ = writeln!(text, "\nit cannot be deployed: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n";

    fn of(text: &str) -> Told {
        told("recount.toml", text, &Definition::parse(text, "recount.toml").unwrap(), TEMPLATE_RETENTION_HOURS)
    }

    #[test]
    fn a_definition_reads_well() {
        insta::assert_snapshot!(shown(&of(TOML)), @r"
        recount.toml counts changes of table scans
        hash    33dd66e132e0a82cb25b31af7f57638b31e4c3d8a4c2199bcb14b0740e3fcfa5
        base64  W3NvdXJjZV0KdGFibGUgPSAic2NhbnMiCmtleSA9IFsic2Nhbl9pZCJdCltmb2xkXQpncm91cF9ieSA9ICJwcm9qZWN0X2lkIgo=
        ");
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let padded = |bytes: usize| format!("{TOML}#{}", "x".repeat(bytes - TOML.len() - 1));
        // Three bytes are four characters.
        assert!(of(&padded(MAX_BASE64 / 4 * 3)).deployable);
        let long = of(&padded(MAX_BASE64 / 4 * 3 + 1));
        assert!(!long.deployable);
        let said = shown(&long);
        insta::assert_snapshot!(said.lines().last().unwrap(), @"it cannot be deployed: it has 3076 characters in base64; a function's environment has room for 3072: leave out comments and the quotas of single groups");
    }

    #[test]
    fn ledger_days_that_the_consumer_would_refuse_are_said() {
        let days = |days: u16| format!("{TOML}ledger_days = {days}\n");
        assert!(of(&days(10)).deployable);
        let short = of(&days(9));
        assert!(!short.deployable);
        insta::assert_snapshot!(shown(&short).lines().last().unwrap(), @"it cannot be deployed: ledger_days = 9 is too short for the template's stream, which keeps records for 168 hours: it must be more than the retention and 2 days, or the consumer refuses to start; set it to 10 or more, or say by --retention-hours what yours is given");
        let with = |text: &str, hours| told("x", text, &Definition::parse(text, "x").unwrap(), hours);
        assert!(with(&days(4), 24).deployable);
        insta::assert_snapshot!(with(&days(3), 24).why_not.join("\n"), @"ledger_days = 3 is too short for a stream that keeps records for so long: it must be more than the retention and 2 days, or the consumer refuses to start; set it to 4 or more");
    }

    #[test]
    fn the_template_keeps_records_for_so_long() {
        let template = include_str!("../../../infra/aws/template.yaml");
        assert_eq!(template.matches(&format!("RetentionPeriodHours: {TEMPLATE_RETENTION_HOURS}\n")).count(), 1);
        assert_eq!(template.matches("RetentionPeriodHours").count(), 1);
    }
}
