//! A consumer that breaks on demand, as Lambda functions do: for the demo's incident and for tests.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::mapping::{Function, FunctionError};

/// Switches that make a function break. A clone is the same set of switches.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    crashes: u32,
    crashed: u32,
    breaks_on: BTreeSet<String>,
}

impl Faults {
    /// The next `times` batches of more than one record crash in the middle: their first half is processed to the end,
    /// the rest is not, and there is no answer.
    pub fn crash_mid_batch(&self, times: u32) {
        self.lock().crashes += times;
    }

    /// How many batches crashed so.
    pub fn crashed(&self) -> u32 {
        self.lock().crashed
    }

    /// A defect: every batch with a record whose bytes contain one of these texts crashes before anything is done.
    /// An empty list mends it.
    pub fn break_on(&self, texts: impl IntoIterator<Item = String>) {
        self.lock().breaks_on = texts.into_iter().collect();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to happen to a batch.
    fn draw(&self, records: &[&RawValue]) -> Fate {
        let mut state = self.lock();
        if !state.breaks_on.is_empty() && records.iter().any(|record| is_broken(record, &state.breaks_on)) {
            return Fate::CrashAtOnce;
        }
        if state.crashes > 0 && records.len() > 1 {
            state.crashes -= 1;
            state.crashed += 1;
            return Fate::CrashMidway;
        }
        Fate::Run
    }
}

enum Fate {
    Run,
    CrashMidway,
    CrashAtOnce,
}

fn is_broken(record: &RawValue, texts: &BTreeSet<String>) -> bool {
    #[derive(Deserialize)]
    struct Record {
        kinesis: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        data: String,
    }
    let data = serde_json::from_str::<Record>(record.get()).ok().and_then(|r| STANDARD.decode(r.kinesis.data).ok());
    let data = data.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    data.is_some_and(|data| texts.iter().any(|text| data.contains(text)))
}

/// A function behind the switches.
#[derive(Debug)]
pub struct Faulty<F> {
    function: F,
    faults: Faults,
}

impl<F> Faulty<F> {
    /// `function`, breaking as `faults` says.
    pub fn new(function: F, faults: Faults) -> Self {
        Self { function, faults }
    }
}

#[derive(Serialize, Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
}

#[async_trait]
impl<F: Function> Function for Faulty<F> {
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
        let half = {
            let Ok(event) = serde_json::from_slice::<Event<'_>>(&payload) else {
                return self.function.invoke(payload).await;
            };
            match self.faults.draw(&event.records) {
                Fate::Run => None,
                Fate::CrashAtOnce => return Err(FunctionError::Failed("a defect, as asked".to_owned())),
                Fate::CrashMidway => {
                    let half = event.records.iter().take(event.records.len() / 2).copied().collect();
                    serde_json::to_vec(&Event { records: half }).ok()
                }
            }
        };
        match half {
            None => self.function.invoke(payload).await,
            Some(half) => {
                self.function.invoke(half.into()).await?;
                Err(FunctionError::Failed("a crash in the middle of the batch, as asked".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<usize>>);

    #[async_trait]
    impl Function for Seen {
        async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
            let event: Event<'_> = serde_json::from_slice(&payload).unwrap();
            self.0.lock().unwrap().push(event.records.len());
            Ok(Vec::new())
        }
    }

    fn batch(texts: &[&str]) -> Bytes {
        let records: Vec<String> =
            texts.iter().map(|text| format!(r#"{{"kinesis":{{"data":"{}"}}}}"#, STANDARD.encode(text))).collect();
        format!(r#"{{"Records":[{}]}}"#, records.join(",")).into()
    }

    #[tokio::test]
    async fn a_crash_midway_has_done_the_first_half() {
        let faults = Faults::default();
        let function = Faulty::new(Seen::default(), faults.clone());
        faults.crash_mid_batch(1);
        assert!(function.invoke(batch(&["a", "b", "c", "d", "e"])).await.is_err());
        assert!(function.invoke(batch(&["a", "b", "c", "d", "e"])).await.is_ok());
        assert_eq!((function.function.0.into_inner().unwrap(), faults.crashed()), (vec![2, 5], 1));
    }

    #[tokio::test]
    async fn a_defect_breaks_every_batch_with_its_record_until_mended() {
        let faults = Faults::default();
        let function = Faulty::new(Seen::default(), faults.clone());
        faults.break_on(["bad".to_owned()]);
        assert!(function.invoke(batch(&["good", "so bad"])).await.is_err());
        assert!(function.invoke(batch(&["good"])).await.is_ok());
        faults.break_on([]);
        assert!(function.invoke(batch(&["good", "so bad"])).await.is_ok());
        assert_eq!(function.function.0.into_inner().unwrap(), vec![1, 2]);
    }
}
