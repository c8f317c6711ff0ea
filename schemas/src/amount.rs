//! Exact decimal amounts: what is summed.
//!
//! DynamoDB numbers have up to 38 significant digits. An [`Amount`] has nine decimals and, as a measure of one event, at most
//! 20 digits before the point; then a sum of 10⁹ events of one cell still fits 38 digits, so that DynamoDB's own
//! `ADD` never rounds and never fails. A number outside these bounds is refused ([`AmountError`]), not rounded.

use std::fmt;
use std::str::FromStr;

/// The number of decimals of an amount.
pub const SCALE: u32 = 9;
/// The precision of an amount's column in Parquet.
pub const PRECISION: u8 = 38;

const ONE: i128 = 1_000_000_000;
/// Measures of one event are below 10²⁰ in magnitude.
const MEASURE_LIMIT: i128 = ONE * 100_000_000_000_000_000_000;

/// A decimal number with nine decimals, kept as a whole number of billionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i128);

/// Why a text is not a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// It does not read as a decimal number.
    #[error("not a decimal number")]
    NotANumber,
    /// More than nine decimals.
    #[error("more than {SCALE} decimals")]
    TooPrecise,
    /// 10²⁰ or more in magnitude.
    #[error("10^20 or more in magnitude")]
    OutOfRange,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From a number of billionths, the unit of the Parquet column.
    pub const fn from_billionths(billionths: i128) -> Self {
        Self(billionths)
    }

    /// As a number of billionths.
    pub const fn billionths(self) -> i128 {
        self.0
    }

    /// The sum, or `None` beyond the range of 128 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The negated amount.
    pub fn negated(self) -> Self {
        Self(self.0.saturating_neg())
    }

    /// Reads a sum as DynamoDB returns it: as [`FromStr`], but up to the full 38 digits.
    pub fn parse_sum(text: &str) -> Result<Self, AmountError> {
        parse(text, i128::MAX)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Reads a measure as DynamoDB writes numbers: `-12.5`, `1E+3`.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        parse(text, MEASURE_LIMIT - 1)
    }
}

fn parse(text: &str, limit: i128) -> Result<Amount, AmountError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| AmountError::NotANumber)?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|b| b.is_ascii_digit()) || (mantissa.contains('.') && fraction.is_empty()) {
        return Err(AmountError::NotANumber);
    }
    // value = digits · 10^(exponent − decimals); we want it in units of 10^−SCALE.
    let decimals = i64::try_from(fraction.len()).map_err(|_| AmountError::OutOfRange)?;
    let mut shift = i64::from(exponent) - decimals + i64::from(SCALE);
    // Zeros at the end carry no precision: dropping them keeps `1.50000000000` exact.
    let trailing = digits().rev().take_while(|b| *b == b'0').count();
    let kept = (whole.len() + fraction.len()).saturating_sub(trailing);
    if kept == 0 {
        return Ok(Amount::ZERO);
    }
    shift += i64::try_from(trailing).map_err(|_| AmountError::OutOfRange)?;
    if shift < 0 {
        return Err(AmountError::TooPrecise);
    }
    let mut value: i128 = 0;
    for digit in digits().take(kept) {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i128::from(digit - b'0')))
            .ok_or(AmountError::OutOfRange)?;
    }
    for _ in 0..shift {
        value = value.checked_mul(10).ok_or(AmountError::OutOfRange)?;
    }
    if value > limit {
        return Err(AmountError::OutOfRange);
    }
    Ok(Amount(if negative { -value } else { value }))
}

impl fmt::Display for Amount {
    /// The shortest decimal text: `12.5`, `-3`, `0`. DynamoDB reads it as a number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = ONE.unsigned_abs();
        let (whole, fraction) = (self.0.unsigned_abs() / one, self.0.unsigned_abs() % one);
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = format!("{fraction:09}");
        let text = match digits.trim_end_matches('0') {
            "" => format!("{sign}{whole}"),
            decimals => format!("{sign}{whole}.{decimals}"),
        };
        f.pad_integral(true, "", &text)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Amount {
    /// As a text, since JSON readers round numbers of this size.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse_sum(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_dynamodb_writes() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("12.50", "12.5"),
            ("-3", "-3"),
            ("+7", "7"),
            ("1E+3", "1000"),
            ("1.5e-3", "0.0015"),
            ("0.000000001", "0.000000001"),
            ("1.50000000000000", "1.5"),
            ("99999999999999999999.999999999", "99999999999999999999.999999999"),
        ] {
            assert_eq!(text.parse::<Amount>().map(|a| a.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_hold_exactly() {
        use AmountError::*;
        for (text, error) in [
            ("", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("1e", NotANumber),
            ("1e+-2", NotANumber),
            ("NaN", NotANumber),
            ("0x10", NotANumber),
            ("1e99999999999", NotANumber),
            ("0.0000000001", TooPrecise),
            ("100000000000000000000", OutOfRange),
            ("12345678901234567890123456789012345678", OutOfRange),
            ("1e125", OutOfRange),
        ] {
            assert_eq!(text.parse::<Amount>(), Err(error), "{text}");
        }
    }

    #[test]
    fn in_json_it_is_a_text_and_nothing_else() {
        let amount: Amount = "-1.5".parse().unwrap();
        assert_eq!(serde_json::to_string(&amount).unwrap(), r#""-1.5""#);
        assert_eq!(serde_json::from_str::<Amount>(r#""-1.5""#).unwrap(), amount);
        for text in ["-1.5", r#""x""#] {
            assert!(serde_json::from_str::<Amount>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn survives_its_own_text(billionths in any::<i128>().prop_filter("38 digits", |n| n.unsigned_abs() < 10u128.pow(38))) {
            let amount = Amount::from_billionths(billionths);
            prop_assert_eq!(Amount::parse_sum(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn never_panics(text in "[-+0-9.eE]{0,40}") {
            let _ = text.parse::<Amount>();
        }
    }
}
