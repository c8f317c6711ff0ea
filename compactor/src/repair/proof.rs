//! The report of a repair, kept in the archive under the hash of its own bytes: whoever has the hash can show that nobody
//! changed what it says.
//!
//! It names the plan by its hash, says of each cell what was done and its number before and after, and what the
//! reconcile after it found. Unlike a plan it tells of an act, so it bears a time: each application has its own report. What
//! reconcile takes into account stands in `plans/<plan>.report.json` ([`applied`](super::applied)).

use bytes::Bytes;
use recount_schemas::{Cell, Month};
use serde::{Deserialize, Serialize};

use super::apply::CellReport;
use super::holes::Withheld;
use super::plan::{self, MAX_BYTES, Plan};
use crate::bucket::{BucketError, Objects};
use crate::log::Digest;
use crate::reconcile::{Coverage, Kind, Report as Reconciliation, Verdict};

/// The format of reports that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Where reports are.
pub const PREFIX: &str = "plans/reports/";

/// What a repair did, and what the reconcile after it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// [`FORMAT`].
    pub format: u32,
    /// The plan's hash.
    pub plan: String,
    /// The hash of the definition whose totals these are.
    pub definition: String,
    /// When the reconcile after it had ended, ms since 1970.
    pub at_ms: i64,
    /// Whether it was accepted that events may be taken out of a number that were lost from the archive.
    pub accept_loss: bool,
    /// What was done to each cell of the plan, and its number before and after.
    pub cells: Vec<CellReport>,
    /// Cells that were left as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    /// What the reconcile after it says.
    pub reconciled: Summary,
}

/// What a reconcile said, without its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The verdict.
    pub verdict: Verdict,
    /// How many cells were compared.
    pub cells: u64,
    /// How many archived events.
    pub events: u64,
    /// How much of it is verified.
    pub coverage: Option<Coverage>,
    /// What is still wrong.
    pub findings: Vec<Left>,
}

/// A finding that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// Its kind.
    pub kind: Kind,
    /// The cell's group.
    pub group: Option<recount_schemas::Group>,
    /// The cell's month.
    pub month: Option<Month>,
    /// The cell's lane.
    pub lane: Option<u16>,
    /// How many events it concerns.
    pub count: u64,
}

impl From<&Reconciliation> for Summary {
    fn from(report: &Reconciliation) -> Self {
        let left = report.findings.iter().map(|finding| Left {
            kind: finding.kind,
            group: finding.group.clone(),
            month: finding.month,
            lane: finding.lane,
            count: finding.count,
        });
        Self {
            verdict: report.verdict,
            cells: report.cells,
            events: report.events,
            coverage: report.coverage,
            findings: left.collect(),
        }
    }
}

/// A report could not be kept, or is not what its name says.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is none of that name.
    #[error("{0} is not in the bucket; `recount repair --confirm` says the hash of the report that it keeps")]
    Absent(String),
    /// Its bytes have another hash.
    #[error(
        "{name} holds other bytes than its name says: they have the hash {found}. Somebody changed it; trust nothing in it"
    )]
    Altered {
        /// The object.
        name: String,
        /// The hash of what is there.
        found: String,
    },
    /// It does not read as a report.
    #[error("{name} is not a repair's report of format {FORMAT} or older: {why}")]
    Malformed {
        /// The object.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The plan that it is about is not what the report says.
    #[error("the report is of plan {plan}, which {why}")]
    Plan {
        /// The plan's hash.
        plan: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Proof {
    /// The name of the report with this hash.
    pub fn object_key(hash: &str) -> String {
        format!("{PREFIX}{hash}.json")
    }

    /// Keeps it; says its hash. The same report is kept once.
    pub async fn keep<O: Objects>(&self, objects: &O) -> Result<String, ProofError> {
        let malformed = |e: serde_json::Error| ProofError::Malformed { name: PREFIX.to_owned(), why: e.to_string() };
        let bytes = Bytes::from(serde_json::to_vec_pretty(self).map_err(malformed)?);
        let hash = Digest::of(&bytes).to_string();
        objects.put_if_absent(&Self::object_key(&hash), bytes).await?;
        Ok(hash)
    }

    /// Fetches the report with this hash and checks it: its bytes have this hash, the plan that it names is there and has its
    /// own, and the cells are that plan's.
    pub async fn fetch<O: Objects>(objects: &O, hash: &str) -> Result<Self, ProofError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let name = Self::object_key(hash);
        let bytes = objects.get(&name, MAX_BYTES).await?.ok_or_else(|| ProofError::Absent(name.clone()))?;
        let found = Digest::of(&bytes).to_string();
        if found != hash {
            return Err(ProofError::Altered { name, found });
        }
        let malformed = |why: String| ProofError::Malformed { name: name.clone(), why };
        let Format { format } = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        if format > FORMAT {
            return Err(malformed(format!("it is of format {format}")));
        }
        let proof: Self = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        proof.check_plan(objects).await?;
        Ok(proof)
    }

    async fn check_plan<O: Objects>(&self, objects: &O) -> Result<(), ProofError> {
        let wrong = |why: &str| ProofError::Plan { plan: self.plan.clone(), why: why.to_owned() };
        let bytes = objects.get(&Plan::object_key(&self.plan), plan::MAX_BYTES).await?;
        let bytes = bytes.ok_or_else(|| wrong("is not in the bucket"))?;
        let plan: Plan = serde_json::from_slice(&bytes).map_err(|_| wrong("does not read as a plan"))?;
        if plan.hash().ok().as_deref() != Some(self.plan.as_str()) {
            return Err(wrong("was changed: its content has another hash"));
        }
        let theirs: Vec<&Cell> = plan.cells.iter().map(|cell| &cell.cell).collect();
        let ours: Vec<&Cell> = self.cells.iter().map(|cell| &cell.cell).collect();
        if ours == theirs { Ok(()) } else { Err(wrong("has other cells than the report")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;

    fn plan() -> Plan {
        Plan { format: 1, definition: "d".to_owned(), cells: Vec::new() }
    }

    fn proof() -> Proof {
        Proof {
            format: FORMAT,
            plan: plan().hash().unwrap(),
            definition: "d".to_owned(),
            at_ms: 1_790_000_000_000,
            accept_loss: false,
            cells: Vec::new(),
            withheld: Vec::new(),
            reconciled: Summary {
                verdict: Verdict::Clean,
                cells: 1,
                events: 2,
                coverage: Some(Coverage::default()),
                findings: Vec::new(),
            },
        }
    }

    #[tokio::test]
    async fn a_report_is_what_its_name_says_or_refused() {
        let objects = Memory::new();
        let hash = proof().keep(&objects).await.unwrap();
        assert!(Proof::fetch(&objects, &hash).await.unwrap_err().to_string().ends_with("is not in the bucket"));
        let name = Plan::object_key(&proof().plan);
        objects.put(&name, plan().to_bytes().unwrap().into()).await.unwrap();
        assert_eq!(Proof::fetch(&objects, &hash).await.unwrap(), proof());
        assert_eq!(proof().keep(&objects).await.unwrap(), hash, "kept once");

        let key = Proof::object_key(&hash);
        let text = String::from_utf8(objects.get(&key, u64::MAX).await.unwrap().unwrap().to_vec()).unwrap();
        objects.put(&key, text.replace("\"events\": 2", "\"events\": 3").into()).await.unwrap();
        assert!(matches!(Proof::fetch(&objects, &hash).await, Err(ProofError::Altered { .. })));
        objects.put(&key, text.into()).await.unwrap();
        objects.put(&name, "{\"format\":1,\"definition\":\"e\",\"cells\":[]}".into()).await.unwrap();
        assert!(matches!(Proof::fetch(&objects, &hash).await, Err(ProofError::Plan { .. })));
        assert!(matches!(Proof::fetch(&objects, &"0".repeat(64)).await, Err(ProofError::Absent(_))));
    }
}
