//! The definition as a deployed part is given it: its text in the environment, or a file.
//!
//! A Lambda function has no file of its own, so its environment holds the definition: as it is, or in base64 behind `base64:`,
//! for a template's parameter is one line and a definition is not. All of a function's environment has at most 4 KB (Lambda quotas),
//! names and the other values included; so the base64 has at most [`MAX_BASE64`] characters.

use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::file::MAX_FILE;
use super::{Definition, DefinitionError};
use crate::bounded;

/// The variable that holds the definition's text, or [`PREFIX`] and its base64.
pub const VARIABLE: &str = "RECOUNT_DEFINITION_TOML";
/// What stands before base64.
pub const PREFIX: &str = "base64:";
/// The most base64 that a function's environment has room for, beside its other variables.
pub const MAX_BASE64: usize = 3 << 10;

/// A definition could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// The file could not be read.
    #[error(
        "the definition {path} could not be read: {source}; name it in RECOUNT_DEFINITION, or put its text in {VARIABLE}"
    )]
    Unreadable {
        /// Its path.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// What stands behind `base64:` is not base64 of text.
    #[error("{VARIABLE} begins with {PREFIX} but what follows is {0}; `recount definition FILE --base64` makes it")]
    NotBase64(String),
    /// It is wrong.
    #[error(transparent)]
    Wrong(#[from] DefinitionError),
}

/// The definition of a deployed part: the text in [`VARIABLE`], else what `open` gives of the file at `path`.
pub fn deployed<R: Read>(
    lookup: impl Fn(&str) -> Option<String>,
    path: &str,
    open: impl FnOnce(&str) -> io::Result<R>,
) -> Result<Definition, GivenError> {
    match lookup(VARIABLE).filter(|value| !value.trim().is_empty()) {
        Some(value) => Ok(Definition::parse(&text(&value)?, VARIABLE)?),
        None => {
            let text = open(path).and_then(|file| bounded::text(file, MAX_FILE));
            let text = text.map_err(|source| GivenError::Unreadable { path: path.to_owned(), source })?;
            Ok(Definition::parse(&text, path)?)
        }
    }
}

/// The text of a definition out of the value of [`VARIABLE`].
pub fn text(value: &str) -> Result<String, GivenError> {
    let Some(encoded) = value.trim().strip_prefix(PREFIX) else { return Ok(value.to_owned()) };
    let bytes = STANDARD.decode(encoded.trim()).map_err(|error| GivenError::NotBase64(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| GivenError::NotBase64("no UTF-8 text".to_owned()))
}

/// The base64 of a definition's text, without [`PREFIX`].
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n";

    fn given(value: Option<&str>, file: &[u8]) -> Result<Definition, GivenError> {
        deployed(|name| value.filter(|_| name == VARIABLE).map(str::to_owned), "recount.toml", |_| Ok(file))
    }

    #[test]
    fn the_environment_comes_before_the_file() {
        let other = TOML.replace("scans", "prints");
        let encoded = format!("{PREFIX}{}\n", base64(TOML));
        for (value, table) in
            [(Some(TOML), "scans"), (Some(encoded.as_str()), "scans"), (None, "prints"), (Some(" \n"), "prints")]
        {
            assert_eq!(given(value, other.as_bytes()).unwrap().table, table, "{value:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |value: Option<&str>, file: &[u8]| given(value, file).unwrap_err().to_string();
        insta::assert_snapshot!(said(Some("base64:@@@"), b""), @"RECOUNT_DEFINITION_TOML begins with base64: but what follows is Invalid symbol 64, offset 0.; `recount definition FILE --base64` makes it");
        insta::assert_snapshot!(said(Some("base64:/w=="), b""), @"RECOUNT_DEFINITION_TOML begins with base64: but what follows is no UTF-8 text; `recount definition FILE --base64` makes it");
        insta::assert_snapshot!(said(None, &[0xff]), @"the definition recount.toml could not be read: it is not UTF-8; name it in RECOUNT_DEFINITION, or put its text in RECOUNT_DEFINITION_TOML");
        // Empty base64 is an empty definition, not an absent one: a deployment that lost it must not fall back on a file.
        assert!(matches!(given(Some("base64:"), TOML.as_bytes()), Err(GivenError::Wrong(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC*") {
            proptest::prop_assert_eq!(super::text(&format!("{PREFIX}{}", base64(&text))).unwrap(), text);
        }

        #[test]
        fn no_value_panics(value in ".*") {
            let _ = super::text(&value);
        }
    }
}
