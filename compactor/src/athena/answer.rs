//! The lines of an answer: texts, which may be anything.

use std::str::FromStr;

use recount_schemas::{Amount, Delta, EventKey};
use smallvec::SmallVec;

use super::AthenaError;

/// One line of an answer; `None` is NULL.
pub type Line = Vec<Option<String>>;

/// The most lines that an answer may have: groups, files and shards, by month.
pub const MAX_ROWS: usize = 10_000_000;
/// How much of a line an error shows, in characters.
const SHOWN: usize = 400;

/// The fields of a line, one after the other.
#[derive(Debug)]
pub struct Fields<'l> {
    line: &'l Line,
    at: usize,
}

impl<'l> Fields<'l> {
    /// From its first.
    pub fn new(line: &'l Line) -> Self {
        Self { line, at: 0 }
    }

    /// An error about this line.
    pub fn bad(&self, what: &str) -> AthenaError {
        let shown: String = format!("{:?}", self.line).chars().take(SHOWN).collect();
        AthenaError::Answer(format!("{what} in {shown}"))
    }

    /// The next field.
    pub fn text(&mut self) -> Result<Option<&'l str>, AthenaError> {
        let field = self.line.get(self.at).ok_or_else(|| self.bad("too few columns"))?;
        self.at += 1;
        Ok(field.as_deref())
    }

    /// The next field, as what it must be where it is not NULL.
    pub fn maybe<T: FromStr>(&mut self, what: &str) -> Result<Option<T>, AthenaError> {
        let text = self.text()?;
        text.map(str::parse).transpose().map_err(|_| self.bad(&format!("no {what}")))
    }

    /// The next field, which is never NULL.
    pub fn given<T: FromStr>(&mut self, what: &str) -> Result<T, AthenaError> {
        self.maybe(what)?.ok_or_else(|| self.bad(&format!("NULL for {what}")))
    }

    /// The next so many fields, as sums. A sum over nothing but NULL is NULL, and comes to nothing.
    pub fn sums(&mut self, measures: usize) -> Result<SmallVec<[Amount; 2]>, AthenaError> {
        let mut sums = SmallVec::with_capacity(measures);
        for _ in 0..measures {
            let sum = match self.text()? {
                Some(text) => Amount::parse_sum(text).map_err(|_| self.bad("no sum"))?,
                None => Amount::ZERO,
            };
            sums.push(sum);
        }
        Ok(sums)
    }

    /// The next field, as an event key: 32 hexadecimal digits.
    pub fn key(&mut self) -> Result<Option<EventKey>, AthenaError> {
        self.maybe("event key")
    }

    /// The next field, as the text whose UTF-8 its hexadecimal digits are: so no character of it can be changed on the way.
    pub fn spelt(&mut self, what: &str) -> Result<Option<String>, AthenaError> {
        let Some(digits) = self.text()? else { return Ok(None) };
        let byte = |pair: &[u8]| {
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            let [high, low] = pair else { return None };
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Some).ok_or_else(|| self.bad(&format!("no {what}")))
    }

    /// The number of events, and the next so many fields as their sums.
    pub fn delta(&mut self, events: u64, measures: usize) -> Result<Delta, AthenaError> {
        let events = i64::try_from(events).map_err(|_| self.bad("too many events"))?;
        Ok(Delta { events, sums: self.sums(measures)? })
    }

    /// There is no further field.
    pub fn end(self) -> Result<(), AthenaError> {
        if self.at == self.line.len() { Ok(()) } else { Err(self.bad("more columns")) }
    }
}

/// A line of these texts, for tests.
#[cfg(test)]
pub(crate) fn line(texts: &[&str]) -> Line {
    texts.iter().map(|text| (*text != "NULL").then(|| (*text).to_owned())).collect()
}
