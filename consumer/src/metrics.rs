//! One line of metrics per batch, in CloudWatch's embedded metric format: CloudWatch reads it out of the log.
//!
//! Namespace `Recount`, dimension `Stream`.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use metrique::emf::Emf;
use metrique::unit::{Count, Millisecond};
use metrique::writer::core::format::Format;
use metrique::writer::value::MetricValue;
use metrique::writer::{Entry, EntryWriter};

use crate::report::BatchReport;

/// The namespace of the metrics.
pub const NAMESPACE: &str = "Recount";
/// The dimension.
pub const STREAM: &str = "Stream";

/// Writes metrics lines.
pub struct Metrics(Mutex<Sink>);

struct Sink {
    format: Emf,
    out: Box<dyn Write + Send>,
}

impl Metrics {
    /// Lines go to `out`, each in one write.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let format = Emf::builder(NAMESPACE.to_owned(), vec![vec![STREAM.to_owned()]]).build();
        Self(Mutex::new(Sink { format, out: Box::new(out) }))
    }

    /// Lines go to standard output, as Lambda's log wants them.
    pub fn stdout() -> Self {
        Self::to(std::io::stdout())
    }

    /// Lines go nowhere.
    pub fn none() -> Self {
        Self::to(std::io::sink())
    }

    /// Writes the line of one batch that ended at `now_us`, µs since 1970.
    pub fn emit(&self, report: &BatchReport, now_us: i64) -> Result<(), MetricsError> {
        self.write(&Line { report, now_us })
    }

    /// Writes any line. It has to say its `Stream`, the dimension.
    pub fn write(&self, line: &impl Entry) -> Result<(), MetricsError> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Sink { format, out } = &mut *sink;
        let mut bytes = Vec::with_capacity(2_048);
        format.format(line, &mut bytes).map_err(|error| MetricsError(error.to_string()))?;
        out.write_all(&bytes).and_then(|()| out.flush()).map_err(|error| MetricsError(error.to_string()))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A metrics line could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the metrics line could not be written: {0}")]
pub struct MetricsError(String);

struct Line<'r> {
    report: &'r BatchReport,
    now_us: i64,
}

impl Entry for Line<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        let report = self.report;
        writer.timestamp(UNIX_EPOCH + Duration::from_micros(u64::try_from(self.now_us).unwrap_or_default()));
        writer.value(STREAM, report.stream.as_str());
        for (name, value) in [
            ("Records", report.records),
            ("Applied", report.applied),
            ("Duplicates", report.duplicates),
            ("TooOld", report.too_old),
            ("Unusable", report.unusable),
            ("Ignored", report.ignored_total()),
            ("Quarantined", report.quarantined_total()),
            ("Failed", report.failed),
            ("Cells", report.cells),
            ("Retries", report.retries),
            ("Seals", report.seals),
            ("FailedSeals", report.failed_seals),
            ("FailedProgress", report.failed_progress),
        ] {
            writer.value(name, &value.with_unit::<Count>());
        }
        for (code, n) in &report.ignored {
            writer.value(format!("Ignored_{code}"), &n.with_unit::<Count>());
        }
        for (code, n) in &report.quarantined {
            writer.value(format!("Quarantined_{}", code.as_str()), &n.with_unit::<Count>());
        }
        writer.value("WriteUnits", &report.write_units.with_unit::<Count>());
        writer.value("ReadUnits", &report.read_units.with_unit::<Count>());
        writer.value("DurationMs", &report.duration_ms.with_unit::<Millisecond>());
        if let Some(lag) = report.lag_ms {
            writer.value("LagMs", &(lag as f64).with_unit::<Millisecond>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_schemas::QuarantineCode;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_per_batch() {
        let lines = Lines::default();
        let metrics = Metrics::to(lines.clone());
        let report = BatchReport {
            stream: "recount-changes".into(),
            records: 9,
            applied: 4,
            duplicates: 1,
            too_old: 1,
            ignored: [("ttl_delete", 1)].into(),
            quarantined: [(QuarantineCode::NoGroup, 1)].into(),
            failed: 1,
            cells: 3,
            write_units: 4.5,
            read_units: 0.5,
            retries: 2,
            seals: 1,
            lag_ms: Some(1_250),
            duration_ms: 37,
            ..BatchReport::default()
        };
        metrics.emit(&report, 1_795_350_000_123_456).unwrap();
        metrics.emit(&BatchReport { stream: "s".into(), ..BatchReport::default() }, 0).unwrap();
        let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let (first, second) = written.split_once('\n').unwrap();
        insta::assert_snapshot!(first, @r#"{"_aws":{"CloudWatchMetrics":[{"Namespace":"Recount","Dimensions":[["Stream"]],"Metrics":[{"Name":"Records","Unit":"Count"},{"Name":"Applied","Unit":"Count"},{"Name":"Duplicates","Unit":"Count"},{"Name":"TooOld","Unit":"Count"},{"Name":"Unusable","Unit":"Count"},{"Name":"Ignored","Unit":"Count"},{"Name":"Quarantined","Unit":"Count"},{"Name":"Failed","Unit":"Count"},{"Name":"Cells","Unit":"Count"},{"Name":"Retries","Unit":"Count"},{"Name":"Seals","Unit":"Count"},{"Name":"FailedSeals","Unit":"Count"},{"Name":"FailedProgress","Unit":"Count"},{"Name":"Ignored_ttl_delete","Unit":"Count"},{"Name":"Quarantined_no_group","Unit":"Count"},{"Name":"WriteUnits","Unit":"Count"},{"Name":"ReadUnits","Unit":"Count"},{"Name":"DurationMs","Unit":"Milliseconds"},{"Name":"LagMs","Unit":"Milliseconds"}]}],"Timestamp":1795350000123},"Records":9,"Applied":4,"Duplicates":1,"TooOld":1,"Unusable":0,"Ignored":1,"Quarantined":1,"Failed":1,"Cells":3,"Retries":2,"Seals":1,"FailedSeals":0,"FailedProgress":0,"Ignored_ttl_delete":1,"Quarantined_no_group":1,"WriteUnits":4.5,"ReadUnits":0.5,"DurationMs":37,"LagMs":1250,"Stream":"recount-changes"}"#);
        let second: serde_json::Value = serde_json::from_str(second).unwrap();
        assert_eq!((&second["Applied"], &second["Stream"]), (&0.into(), &"s".into()));
        assert_eq!(second.get("LagMs"), None);
    }
}
