//! The verify function: wires AWS to [`perennial_shared::verify`]. Configuration: `PERENNIAL_TARGET`, `PERENNIAL_TOPIC_ARN`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use perennial_shared::alert::send;
use perennial_shared::aws::sns::Sns;
use perennial_shared::event::Event;
use perennial_shared::function::{Failure, Function};
use perennial_shared::metrics;
use perennial_shared::verify::{Depth, Options, Subset, newest, one};
use serde_json::{Value, json};

/// Kept back from the function's time for the report and the e-mail.
const RESERVE: Duration = Duration::from_secs(20);
/// Of archives this part is read each day: a week for all, and what was read is not read again for a month.
const PARTS: u32 = 7;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = Function::start().await?;
    run(service_fn(|event| handle(&function, event))).await
}

async fn handle(function: &Function, event: LambdaEvent<Value>) -> Result<Value, Failure> {
    let left = event.context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or_default();
    let deadline = Some(Instant::now() + left.saturating_sub(RESERVE));
    let event = Event::parse(&event.payload).map_err(|e| Failure::of("EventUnreadable", &e))?;
    let target = function.target().await?;
    let repository = function.repository(&target)?;
    let now = Timestamp::now();
    let options = Options { deadline, depth: Depth::Subset(Subset::by_date(PARTS, now)), ..Options::default() };
    let report = match verify::created_backup(&event) {
        Some(id) => one(&repository, &id, now, &options).await,
        None => newest(&repository, now, &Options { max_age: Some(target.backup.max_age), ..options }).await,
    };
    tracing::info!(report = %json!(report), "verified");
    metrics::emit(&target.name, &verify::metrics(&report));
    let sns = Sns::new(&function.aws);
    for alert in verify::alerts(&target.name, &repository.location(), &report, now) {
        send(&alert, &function.topic, &sns, &repository).await.map_err(|e| Failure::of("AlertNotSent", &e))?;
    }
    Ok(json!(report))
}
