//! CloudWatch metrics in the embedded metric format: one JSON line in the function's log, from which CloudWatch makes
//! metrics without a call that could fail.
//! Format: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The namespace of every metric.
pub const NAMESPACE: &str = "Perennial";

/// A metric and what it is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Age of the newest good backup, seconds.
    BackupAge,
    /// Size of a backup, bytes.
    BackupSize,
    /// Duration of a backup, seconds.
    BackupDuration,
    /// 1 for a backup that failed, else 0.
    BackupFailed,
    /// Duration of a restore, seconds.
    RestoreDuration,
    /// 1 for a restore that failed, else 0.
    RestoreFailed,
    /// From launch hook to CONTINUE, seconds.
    RecoveryDuration,
    /// 1 for a good verification, 0 for damaged; nothing when it could not tell.
    VerificationGood,
}

impl Metric {
    fn name_and_unit(self) -> (&'static str, &'static str) {
        match self {
            Self::BackupAge => ("BackupAge", "Seconds"),
            Self::BackupSize => ("BackupSize", "Bytes"),
            Self::BackupDuration => ("BackupDuration", "Seconds"),
            Self::BackupFailed => ("BackupFailed", "Count"),
            Self::RestoreDuration => ("RestoreDuration", "Seconds"),
            Self::RestoreFailed => ("RestoreFailed", "Count"),
            Self::RecoveryDuration => ("RecoveryDuration", "Seconds"),
            Self::VerificationGood => ("VerificationGood", "Count"),
        }
    }
}

/// The log line for some values of one target.
pub fn line(target: &str, at: Timestamp, values: &[(Metric, f64)]) -> Value {
    let definitions: Vec<Value> = values
        .iter()
        .map(|(metric, _)| {
            let (name, unit) = metric.name_and_unit();
            json!({"Name": name, "Unit": unit})
        })
        .collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": at.as_millisecond(),
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [["Target"]], "Metrics": definitions}],
        },
        "Target": target,
    });
    for (metric, value) in values {
        line[metric.name_and_unit().0] = json!(value);
    }
    line
}

/// Writes the line where Lambda's log takes it from.
#[allow(clippy::print_stdout)] // standard output is the log here, and the line must stand alone on it
pub fn emit(target: &str, values: &[(Metric, f64)]) {
    println!("{}", line(target, Timestamp::now(), values));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_each_metric_with_its_unit_and_value() {
        let at = Timestamp::from_millisecond(1_800_000_000_123).expect("in range");
        let line = line("docs", at, &[(Metric::BackupAge, 60.5), (Metric::VerificationGood, 1.0)]);
        assert_eq!(line["_aws"]["Timestamp"], 1_800_000_000_123_i64);
        let metrics = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(metrics["Dimensions"], json!([["Target"]]));
        assert_eq!(metrics["Metrics"][0], json!({"Name": "BackupAge", "Unit": "Seconds"}));
        assert_eq!((&line["BackupAge"], &line["Target"]), (&json!(60.5), &json!("docs")));
    }
}
