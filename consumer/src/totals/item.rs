//! Reading items: every attribute is checked, and an item of a newer format is refused before anything else is read.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use recount_schemas::definition::Measure;
use recount_schemas::items::{EPOCH, EVENTS, FORMAT, KEYS, PK, PageName, RECENT, REPAIR, SEALED, SK, VERSION, unpack};
use recount_schemas::{Amount, Delta, EventKey};

use super::error::ItemError;
use crate::cell::Look;

/// An item as the SDK returns it.
pub type Item = HashMap<String, AttributeValue>;

fn wrong(attribute: &str, expected: &'static str) -> ItemError {
    ItemError::Attribute { attribute: attribute.to_owned(), expected }
}

fn integer<T: std::str::FromStr>(item: &Item, name: &str, expected: &'static str) -> Result<Option<T>, ItemError> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(text)) => text.parse().map(Some).map_err(|_| wrong(name, expected)),
        Some(_) => Err(wrong(name, expected)),
    }
}

fn key(item: &Item, name: &str) -> Result<Option<EventKey>, ItemError> {
    let expected = "16 bytes";
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::B(bytes)) => {
            EventKey::from_slice(bytes.as_ref()).map(Some).ok_or_else(|| wrong(name, expected))
        }
        Some(_) => Err(wrong(name, expected)),
    }
}

/// Refuses an item of a newer format.
pub fn check_format(item: &Item) -> Result<(), ItemError> {
    match integer::<u64>(item, VERSION, "a format number")? {
        Some(format) if format > u64::from(FORMAT) => Err(ItemError::Newer(format)),
        _ => Ok(()),
    }
}

/// `events` and the sums of an item.
fn numbers(item: &Item, measures: &[Measure]) -> Result<Delta, ItemError> {
    let sum = |measure: &Measure| match item.get(&measure.total) {
        None => Ok(Amount::ZERO),
        Some(AttributeValue::N(text)) => {
            Amount::parse_sum(text).map_err(|_| wrong(&measure.total, "an exact decimal number"))
        }
        Some(_) => Err(wrong(&measure.total, "a number")),
    };
    Ok(Delta {
        events: integer(item, EVENTS, "a whole number of 64 bits")?.unwrap_or_default(),
        sums: measures.iter().map(sum).collect::<Result<_, _>>()?,
    })
}

/// What a cell's item shows.
pub fn look(item: &Item, measures: &[Measure]) -> Result<Look, ItemError> {
    check_format(item)?;
    let Delta { events, sums } = numbers(item, measures)?;
    let recent = match item.get(RECENT) {
        None => Ok(Default::default()),
        Some(AttributeValue::Bs(set)) => set
            .iter()
            .map(|bytes| EventKey::from_slice(bytes.as_ref()))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong(RECENT, "a set of keys of 16 bytes")),
        Some(_) => Err(wrong(RECENT, "a binary set")),
    }?;
    let repair = match item.get(REPAIR) {
        None => Ok(None),
        Some(AttributeValue::S(plan)) => Ok(Some(plan.clone())),
        Some(_) => Err(wrong(REPAIR, "a text")),
    }?;
    let epoch = integer(item, EPOCH, "a count")?.unwrap_or_default();
    Ok(Look { events, sums, recent, sealed: key(item, SEALED)?, epoch, repair })
}

/// A page of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its name. It belongs to the ledger once the cell's epoch is above the name's.
    pub name: PageName,
    /// Its keys, ascending.
    pub keys: Vec<EventKey>,
}

/// A page; its name must be the one that its keys give it.
pub fn page(item: &Item) -> Result<Page, ItemError> {
    check_format(item)?;
    let name = match item.get(SK) {
        Some(AttributeValue::B(bytes)) => PageName::from_bytes(bytes.as_ref()),
        _ => None,
    }
    .ok_or_else(|| wrong(SK, "the name of a page"))?;
    let keys = match item.get(KEYS) {
        Some(AttributeValue::B(bytes)) => unpack(bytes.as_ref()),
        _ => None,
    }
    .ok_or_else(|| wrong(KEYS, "a list of packed keys"))?;
    if PageName::new(&keys, name.epoch).as_ref() != Some(&name) {
        return Err(wrong(KEYS, "what the page's name says"));
    }
    Ok(Page { name, keys })
}

/// A late record that came after the ledger's reach, and was not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooOld {
    /// Its key.
    pub key: EventKey,
    /// What it would have added to the cell.
    pub delta: Delta,
}

/// An entry of the too-old list.
pub fn too_old(item: &Item, measures: &[Measure]) -> Result<TooOld, ItemError> {
    check_format(item)?;
    let key = key(item, SK)?.ok_or_else(|| wrong(SK, "16 bytes"))?;
    Ok(TooOld { key, delta: numbers(item, measures)? })
}

/// The keys of an item as texts, for a message.
pub fn names(item: &Item) -> (String, String) {
    let text = |name: &str| match item.get(name) {
        Some(AttributeValue::S(text)) => text.clone(),
        Some(AttributeValue::B(bytes)) => bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => String::new(),
    };
    (text(PK), text(SK))
}

/// What a write to the item costs at least, in write units: one for each begun KB of it. DynamoDB charges a refused write
/// like any other, but does not say so in its answer.
pub fn write_units(item: &Item) -> f64 {
    let size: usize = item.iter().map(|(name, value)| name.len() + size_of(value)).sum();
    size.div_ceil(1_024).max(1) as f64
}

fn size_of(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        // "approximately one byte per two significant digits plus one" (Developer Guide, item sizes)
        AttributeValue::N(text) => text.len().div_ceil(2) + 1,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Bs(set) => 3 + set.iter().map(|bytes| bytes.as_ref().len()).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expressions::{binary, number};
    use aws_sdk_dynamodb::primitives::Blob;
    use recount_schemas::items::pack;

    fn measure() -> Vec<Measure> {
        vec![Measure { attribute: "b".into(), column: "b".into(), total: "sum_b".into() }]
    }

    fn item(pairs: &[(&str, AttributeValue)]) -> Item {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn what_is_absent_is_nothing() {
        let expected = Look { sums: smallvec::smallvec![Amount::ZERO], ..Look::default() };
        assert_eq!(look(&item(&[]), &measure()), Ok(expected));
    }

    #[test]
    fn a_cell_is_read_whole() {
        let key = EventKey::least_at(7);
        let look = look(
            &item(&[
                ("v", number(1)),
                ("events", number(-3)),
                ("sum_b", number("12345678901234567890123456789.5")),
                ("recent", AttributeValue::Bs(vec![Blob::new(key.as_bytes().as_slice())])),
                ("sealed", binary(&key)),
                ("epoch", number(9)),
                ("repair", AttributeValue::S("p".into())),
            ]),
            &measure(),
        )
        .unwrap();
        assert_eq!((look.events, look.epoch, look.sealed, look.recent.len()), (-3, 9, Some(key), 1));
        assert_eq!(look.sums[0].to_string(), "12345678901234567890123456789.5");
    }

    #[test]
    fn a_newer_format_is_never_misread() {
        let newer = item(&[("v", number(2)), ("events", AttributeValue::S("a new idea".into()))]);
        assert_eq!(look(&newer, &[]), Err(ItemError::Newer(2)));
        assert_eq!(page(&newer), Err(ItemError::Newer(2)));
    }

    #[test]
    fn wrong_shapes_are_errors() {
        for (name, value) in [
            ("events", number("1.5")),
            ("events", AttributeValue::S("1".into())),
            ("sum_b", number("1e-30")),
            ("recent", AttributeValue::B(Blob::new("x"))),
            ("recent", AttributeValue::Bs(vec![Blob::new("x")])),
            ("sealed", AttributeValue::B(Blob::new("x"))),
            ("epoch", number(-1)),
            ("repair", number(1)),
            ("v", AttributeValue::S("1".into())),
        ] {
            assert!(
                matches!(look(&item(&[(name, value)]), &measure()), Err(ItemError::Attribute { attribute, .. }) if attribute == name)
            );
        }
    }

    #[test]
    fn a_page_whose_keys_are_not_those_of_its_name_is_refused() {
        let keys = [EventKey::least_at(1), EventKey::least_at(2)];
        let name = PageName::new(&keys, 4).unwrap();
        let with = |keys: &[EventKey]| {
            item(&[
                ("sk", AttributeValue::B(Blob::new(name.to_bytes()))),
                ("keys", AttributeValue::B(Blob::new(pack(keys)))),
            ])
        };
        assert_eq!(page(&with(&keys)).unwrap(), Page { name: name.clone(), keys: keys.to_vec() });
        assert!(page(&with(&keys[..1])).is_err());
    }

    #[test]
    fn a_default_cell_of_52_keys_costs_one_unit() {
        let recent = (0..52).map(|i| Blob::new(EventKey::least_at(i).as_bytes().as_slice())).collect();
        let cell = item(&[
            ("pk", AttributeValue::S("g".repeat(40))),
            ("sk", AttributeValue::S("2026-11#0".into())),
            ("v", number(1)),
            ("events", number(123_456_789)),
            ("sum_bytes", number("123456789012345678")),
            ("recent", AttributeValue::Bs(recent)),
            ("sealed", binary(&EventKey::MAX)),
            ("epoch", number(1_000_000)),
        ]);
        assert_eq!(write_units(&cell), 1.0);
    }
}
