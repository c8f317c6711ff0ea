//! A change without some attributes of its images: what the archive keeps where a definition omits them.
//!
//! A row that lacks something says so in its envelope, in a member of its own: which attributes, and the hash of the content that is
//! left. The row's content hash stays that of the change as it came, so that a record that comes again with other values in
//! just these attributes is still a conflict. Whoever puts the record together again can tell by the member what it lacks, and
//! that it lacks nothing else.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Change;
use super::canonical::ContentHash;
use super::envelope::{members, verbatim, write_object};

/// The envelope's member.
pub const MEMBER: &str = "recount_omitted";

/// What a row says that it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// The attributes that were taken out of either image.
    pub attributes: BTreeSet<String>,
    /// The hash of the change without them, as 32 hexadecimal digits.
    pub kept: String,
}

impl Omitted {
    /// What an envelope says; `None` where it says nothing of the kind.
    pub fn read(envelope: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            recount_omitted: Option<Omitted>,
        }
        if !envelope.contains(MEMBER) {
            return None;
        }
        serde_json::from_str::<Envelope>(envelope).ok()?.recount_omitted
    }

    /// Whether this is the content that is left.
    pub fn kept(&self, content: ContentHash) -> bool {
        self.kept == hex(content)
    }
}

/// A change's images and envelope without the omitted attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The new image.
    pub new_image: Option<String>,
    /// The old image.
    pub old_image: Option<String>,
    /// The envelope, with what is omitted.
    pub envelope: String,
}

/// Takes the attributes `names` out of a change's images. `None` where it has none of them: then it is kept as it came. An image
/// whose attributes cannot be told is left out as a whole.
pub fn omit(change: &Change<'_>, envelope: &str, names: &[String]) -> Option<Kept> {
    if names.is_empty() {
        return None;
    }
    let mut gone = BTreeSet::new();
    let mut of = |image: Option<&str>| image.and_then(|image| without(image, names, &mut gone));
    let (new_image, old_image) = (of(change.new_image), of(change.old_image));
    if gone.is_empty() {
        return None;
    }
    let left = Change { new_image: new_image.as_deref(), old_image: old_image.as_deref(), ..change.clone() };
    let kept = hex(left.content_hash());
    // A record that was put together from a row may lack more.
    gone.extend(Omitted::read(envelope).into_iter().flat_map(|before| before.attributes));
    let envelope = marked(envelope, &Omitted { attributes: gone, kept });
    Some(Kept { new_image, old_image, envelope })
}

fn without(image: &str, names: &[String], gone: &mut BTreeSet<String>) -> Option<String> {
    let Ok(attributes) = members(image) else {
        gone.extend(names.iter().cloned());
        return None;
    };
    let is_omitted = |name: &str| names.iter().any(|omitted| omitted == name);
    let found: Vec<&str> = attributes.iter().map(|(name, _)| name.as_ref()).filter(|name| is_omitted(name)).collect();
    if found.is_empty() {
        return Some(image.to_owned());
    }
    gone.extend(found.into_iter().map(str::to_owned));
    let mut out = String::with_capacity(image.len());
    let left = attributes.into_iter().filter(|(name, _)| !is_omitted(name));
    write_object(&mut out, left, verbatim).ok().map(|()| out)
}

/// The envelope with the member. One that is no object, which no judged record has, is not kept: it may hold what is omitted.
fn marked(envelope: &str, omitted: &Omitted) -> String {
    let write = || {
        let marker = serde_json::to_string(omitted)?;
        let mut out = String::with_capacity(envelope.len() + marker.len() + 32);
        let others = members(envelope).unwrap_or_default().into_iter().filter(|(name, _)| name != MEMBER);
        let with = others.chain([(MEMBER.into(), marker.as_str())]);
        write_object(&mut out, with, verbatim).map(|()| out)
    };
    // Text and sets of text are always JSON.
    write().unwrap_or_else(|_: serde_json::Error| "{}".to_owned())
}

fn hex(ContentHash(bytes): ContentHash) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::envelope::{restore, strip};
    use super::*;

    fn record(new: &str, old: &str) -> String {
        format!(
            r#"{{"awsRegion":"us-east-2","eventID":"e","eventName":"MODIFY","userIdentity":null,"recordFormat":"application/json",
            "tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":1721011165891550,"Keys":{{"pk":{{"S":"a"}}}},
            "NewImage":{new},"OldImage":{old},"SizeBytes":7,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},
            "eventSource":"aws:dynamodb"}}"#
        )
    }

    fn omitted(record: &str, names: &[&str]) -> Option<Kept> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        omit(&Change::decode(record.as_bytes()).unwrap(), &strip(record).unwrap(), &names)
    }

    #[test]
    fn named_attributes_go_from_both_images_and_the_envelope_says_so() {
        let record =
            record(r#"{"pk":{"S":"a"}, "m\u0061il":{"S":"x@y"},"n":{"N":"1.50"}}"#, r#"{"mail":{"NULL":true}}"#);
        let kept = omitted(&record, &["mail", "phone"]).unwrap();
        assert_eq!(kept.new_image.as_deref(), Some(r#"{"pk":{"S":"a"},"n":{"N":"1.50"}}"#));
        assert_eq!(kept.old_image.as_deref(), Some("{}"));
        let said = Omitted::read(&kept.envelope).unwrap();
        assert_eq!(said.attributes.iter().collect::<Vec<_>>(), ["mail"]);
        let change = Change::decode(record.as_bytes()).unwrap();
        let back = restore(&kept.envelope, "e", change.keys, kept.new_image.as_deref(), kept.old_image.as_deref());
        let back = back.unwrap();
        let left = Change::decode(back.as_bytes()).unwrap();
        assert!(said.kept(left.content_hash()) && !said.kept(change.content_hash()));
        assert_eq!(strip(&back).unwrap(), kept.envelope);
        // What is left may lose more; what it lacked before is remembered.
        let again = omitted(&back, &["n"]).unwrap();
        let said = Omitted::read(&again.envelope).unwrap();
        assert_eq!((said.attributes.len(), again.new_image.as_deref()), (2, Some(r#"{"pk":{"S":"a"}}"#)));
        assert_eq!(again.envelope.matches(MEMBER).count(), 1);
    }

    #[test]
    fn a_change_without_them_is_kept_as_it_came() {
        let record = record(r#"{"pk":{"S":"a"}, "m":{"M":{"mail":{"S":"inner"}}}}"#, "null");
        assert_eq!(omitted(&record, &["mail"]), None, "only top-level attributes");
        assert_eq!(omitted(&record, &[]), None);
        assert_eq!(Omitted::read(&strip(&record).unwrap()), None);
        assert_eq!(Omitted::read(r#"{"recount_omitted":7}"#), None);
    }

    #[test]
    fn an_image_whose_attributes_cannot_be_told_is_left_out() {
        for odd in [r#"[{"mail":{"S":"x"}}]"#, r#"{"\ud800":{"S":"x"},"mail":{"S":"x"}}"#] {
            let kept = omitted(&record(r#"{"pk":{"S":"a"}}"#, odd), &["mail"]).unwrap();
            assert_eq!((kept.new_image.as_deref(), kept.old_image), (Some(r#"{"pk":{"S":"a"}}"#), None), "{odd}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the attributes are called and in whichever order they stand.
        #[test]
        fn the_others_stay_as_they_are(
            names in prop::collection::btree_set("[a-c\"\\\\é]{1,2}", 0..8), omit in prop::collection::btree_set("[a-c]{1,2}", 1..4),
        ) {
            let image: serde_json::Map<String, Value> =
                names.iter().map(|name| (name.clone(), serde_json::json!({"S": format!("of {name}")}))).collect();
            let record = record(&Value::Object(image.clone()).to_string(), "{}");
            let listed: Vec<&str> = omit.iter().map(String::as_str).collect();
            let gone: BTreeSet<String> = names.intersection(&omit).cloned().collect();
            let kept = omitted(&record, &listed);
            prop_assert_eq!(kept.is_some(), !gone.is_empty());
            if let Some(kept) = kept {
                let left: Value = serde_json::from_str(&kept.new_image.unwrap()).unwrap();
                let expected = image.into_iter().filter(|(name, _)| !omit.contains(name)).collect();
                prop_assert_eq!(left, Value::Object(expected));
                prop_assert_eq!(Omitted::read(&kept.envelope).unwrap().attributes, gone);
            }
        }
    }
}
