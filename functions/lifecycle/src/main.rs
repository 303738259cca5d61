//! The lifecycle function: wires AWS to [`lifecycle::reconcile`]. Configuration: `PERENNIAL_TARGET`, `PERENNIAL_TOPIC_ARN`.

use std::time::Duration;

use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use lifecycle::observe::Services;
use lifecycle::reconcile::{Woken, reconcile};
use perennial_shared::aws::auto_scaling::AutoScaling;
use perennial_shared::aws::ec2::Ec2;
use perennial_shared::aws::sns::Sns;
use perennial_shared::event::Event;
use perennial_shared::function::{Failure, Function};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = Function::start().await?;
    run(service_fn(|event| handle(&function, event))).await
}

async fn handle(function: &Function, event: LambdaEvent<Value>) -> Result<Value, Failure> {
    // The event is only a reason to look; one that cannot be read is a reason too.
    let event = Event::parse(&event.payload);
    match &event {
        Ok(event) => tracing::info!(?event, "woken"),
        Err(e) => tracing::warn!(error = %e, "woken by something unreadable"),
    }
    let woken = match &event {
        Ok(Event::Warning { instance, .. }) => Woken::Warning(instance),
        Ok(Event::Schedule { .. }) => Woken::Tick,
        _ => Woken::Event,
    };
    let target = function.target().await?;
    let group = target.auto_scaling.as_ref().ok_or_else(|| {
        Failure::new("SettingsInvalid", format!("target {} has no auto_scaling section", target.name))
    })?;
    let repository = function.repository(&target)?;
    let replicas = function.replicas(&target)?;
    let services = Services {
        auto_scaling: &AutoScaling::new(&function.aws),
        ec2: &Ec2::new(&function.aws),
        ssm: &function.ssm,
        repository: &repository,
        replicas: &replicas,
        pause: Duration::from_secs(1),
    };
    let sns = Sns::new(&function.aws);
    let done = reconcile(services, &sns, &function.topic, &target, group, woken, Timestamp::now).await;
    let done = done.map_err(|e| Failure::of("ReconcileFailed", &e))?;
    Ok(json!({"target": target.name, "actions": done.len()}))
}
