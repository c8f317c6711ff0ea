//! `recount definition`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;

use clap::Args;
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::definition::given::{MAX_BASE64, base64};
use recount_schemas::terminal::shown_line;
use recount_schemas::{Definition, bounded};
use serde::Serialize;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use crate::context::ContextError;

/// What can be typed behind `recount definition`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Checks a definition; asks nobody. A deployment takes it in base64, as a parameter of its template, and its functions in
their environment, which has room for 3,072 characters of it. Every key, its default and its limits: infra/definition.md.

Examples:
  recount definition recount.toml
  sam deploy --parameter-overrides Definition=$(recount definition recount.toml --base64)

Ends with 0 if it can be deployed, with 1 if it is right but too long for that, with 3 if it is wrong."
)]
pub struct DefinitionArgs {
    /// The file.
    #[arg(value_name = "FILE", default_value = "recount.toml")]
    pub file: String,
    /// Print its base64, and nothing else.
    #[arg(long)]
    pub base64: bool,
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
    /// Whether that fits a function's environment.
    pub deployable: bool,
}

/// Runs it.
pub fn run(args: &DefinitionArgs, format: Format, out: &mut (dyn Write + Send)) -> Result<Exit, CommandError> {
    let path = args.file.as_str();
    let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
    let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE)).map_err(unreadable)?;
    let definition = Definition::parse(&text, path).map_err(ContextError::from)?;
    let told = told(path, &text, &definition);
    let exit = if told.deployable { Exit::Clean } else { Exit::Findings };
    if args.base64 && told.deployable {
        writeln!(out, "{}", told.base64)?;
    } else if args.base64 {
        return Err(CommandError::TooLong { path: path.to_owned(), has: told.base64.len(), most: MAX_BASE64 });
    } else {
        write(out, format, &told, shown)?;
    }
    Ok(exit)
}

fn told(path: &str, text: &str, definition: &Definition) -> Told {
    let base64 = base64(text);
    Told {
        file: path.to_owned(),
        table: definition.table.clone(),
        hash: definition.hash().to_owned(),
        deployable: base64.len() <= MAX_BASE64,
        base64,
    }
}

fn shown(told: &Told) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} counts changes of table {}", shown_line(&told.file), shown_line(&told.table));
    let _ = writeln!(text, "hash    {}", told.hash);
    let _ = writeln!(text, "base64  {}", told.base64);
    if !told.deployable {
        let has = told.base64.len();
        let _ = writeln!(
            text,
            "\nit has {has} characters in base64; a function's environment has room for {MAX_BASE64}: leave out comments and the quotas of \
             single groups"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n";

    fn of(text: &str) -> Told {
        told("recount.toml", text, &Definition::parse(text, "recount.toml").unwrap())
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
        insta::assert_snapshot!(said.lines().last().unwrap(), @"it has 3076 characters in base64; a function's environment has room for 3072: leave out comments and the quotas of single groups");
    }
}
