//! The backup function: wires AWS to [`backup::start`] and [`backup::report`]. Configuration: `PERENNIAL_TARGET`,
//! `PERENNIAL_TOPIC_ARN`.

use backup::{Outcome, Services};
use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use perennial_shared::alert::{Alert, send};
use perennial_shared::aws::auto_scaling::AutoScaling;
use perennial_shared::aws::sns::Sns;
use perennial_shared::event::Event;
use perennial_shared::function::{Failure, Function};
use perennial_shared::metrics;
use perennial_shared::repository::Repository;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = Function::start().await?;
    run(service_fn(|event| handle(&function, event))).await
}

async fn handle(function: &Function, event: LambdaEvent<Value>) -> Result<Value, Failure> {
    let event = Event::parse(&event.payload).map_err(|e| Failure::of("EventUnreadable", &e))?;
    let target = function.target().await?;
    let group = target.auto_scaling.as_ref().ok_or_else(|| {
        Failure::new("SettingsInvalid", format!("target {} has no auto_scaling section", target.name))
    })?;
    let repository = function.repository(&target)?;
    let auto_scaling = AutoScaling::new(&function.aws);
    let services =
        Services { auto_scaling: &auto_scaling, ssm: &function.ssm, repository: &repository, target: &target, group };
    let now = Timestamp::now();
    match event {
        Event::Schedule { at, .. } => {
            let outcome = backup::start(services, at.unwrap_or(now), now).await;
            let outcome = outcome.map_err(|e| Failure::of("BackupNotStarted", &e))?;
            tracing::info!(?outcome, "scheduled backup");
            if let Outcome::Missed(alert) = &outcome {
                tell(function, alert, &repository).await?;
            }
            Ok(json!({"outcome": format!("{outcome:?}")}))
        }
        Event::Command(command) => {
            let ended =
                backup::report(services, &command, now).await.map_err(|e| Failure::of("BackupNotReported", &e))?;
            let Some(ended) = ended else { return Ok(json!({"outcome": "not a scheduled backup that ended"})) };
            tracing::info!(run = %ended.run, ok = ended.alert.is_none(), "backup ended");
            metrics::emit(&target.name, &backup::metrics(&ended));
            if let Some(alert) = &ended.alert {
                tell(function, alert, &repository).await?;
            }
            Ok(json!({"run": ended.run, "ok": ended.alert.is_none()}))
        }
        other => {
            tracing::warn!(event = ?other, "not an event for this function");
            Ok(json!({"outcome": "ignored"}))
        }
    }
}

async fn tell(function: &Function, alert: &Alert, repository: &Repository) -> Result<(), Failure> {
    let sent = send(alert, &function.topic, &Sns::new(&function.aws), repository).await;
    sent.map(|_| ()).map_err(|e| Failure::of("AlertNotSent", &e))
}
