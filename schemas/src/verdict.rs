//! What became of a record. Every record gets exactly one verdict from the consumer.

use std::fmt;

/// The one verdict on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It changed at least one total, now.
    Applied,
    /// Every total that it changes had it already.
    Duplicate,
    /// It changes no total, by the definition.
    Ignored(Ignored),
    /// It came later than the ledger reaches back; it is on the too-old list and not counted.
    TooOld,
    /// The item of its total was written by something else and is not understood. It is not counted, and neither is the
    /// item changed; others are not held up. Reconcile names the item; once it is mended, the event is missing, and repair counts it.
    Unusable,
    /// It cannot be counted; its raw bytes are in quarantine.
    Quarantined(QuarantineReason),
}

/// Why a record that was understood changes no total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It is of another table than the definition's: many tables can feed one stream.
    OtherTable,
    /// A MODIFY or a REMOVE, where only inserts are counted.
    NotAnInsert,
    /// A deletion by time to live, where those are not subtracted.
    TtlDelete,
    /// Both images give the same cell and the same measures.
    NoEffect,
}

impl Ignored {
    /// Its name in metrics and reports.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OtherTable => "other_table",
            Self::NotAnInsert => "not_an_insert",
            Self::TtlDelete => "ttl_delete",
            Self::NoEffect => "no_effect",
        }
    }
}

/// Why a record is quarantined: a code that reports group by, and a sentence for the reader.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QuarantineReason {
    /// The kind of the defect.
    pub code: QuarantineCode,
    /// What was found, at most some 200 characters, without the record's values.
    pub detail: String,
}

impl QuarantineReason {
    /// A reason; a long detail is cut.
    pub fn new(code: QuarantineCode, detail: impl fmt::Display) -> Self {
        let detail: String = detail.to_string().chars().take(200).collect();
        Self { code, detail }
    }
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The kinds of defects for which a record is quarantined.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum QuarantineCode {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl QuarantineCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in objects, metrics and reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

codes! {
    /// The record's envelope does not hold base64.
    BadBase64 = "bad_base64",
    /// The bytes are not the JSON of a change record.
    NotAChange = "not_a_change",
    /// A member that every change record has is missing or malformed.
    BadMember = "bad_member",
    /// The creation time is missing or has an unknown precision.
    BadCreationTime = "bad_creation_time",
    /// The creation time is before DynamoDB existed or more than a day after the record arrived.
    CreationTimeOutOfRange = "creation_time_out_of_range",
    /// `identity = "change"` needs creation times in microseconds.
    NeedsMicroseconds = "needs_microseconds",
    /// The image that would be counted is missing.
    NoImage = "no_image",
    /// An image is not a map of attribute values.
    BadImage = "bad_image",
    /// The item has no attribute to group by, or it is no text or number that can be a key.
    NoGroup = "no_group",
    /// The item has no event time, or it does not read as one.
    BadOccurredAt = "bad_occurred_at",
    /// The event time is before 2000 or more than ten years after the change was created.
    OccurredAtOutOfRange = "occurred_at_out_of_range",
    /// A measure is not a number, or not one that can be summed exactly.
    BadMeasure = "bad_measure",
    /// Another change with the same event key and another content is archived (the compactor's verdict).
    Conflict = "conflict",
    /// The record does not fit the stream (the relay's verdict).
    TooLarge = "too_large",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_their_json() {
        for code in QuarantineCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn a_detail_is_bounded() {
        let reason = QuarantineReason::new(QuarantineCode::NotAChange, "é".repeat(1000));
        assert_eq!(reason.detail.chars().count(), 200);
    }
}
