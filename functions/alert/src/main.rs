//! The alert function: wires AWS to [`alert::alerts`]. Configuration: `PERENNIAL_TARGET`, `PERENNIAL_TOPIC_ARN`.

use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use perennial_shared::alert::send;
use perennial_shared::aws::sns::Sns;
use perennial_shared::event::Event;
use perennial_shared::function::{Failure, Function};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = Function::start().await?;
    run(service_fn(|event| handle(&function, event))).await
}

/// Messages of the queue are reported one by one, so that one that cannot be mailed does not hold the others back.
async fn handle(function: &Function, event: LambdaEvent<Value>) -> Result<Value, Failure> {
    let event = Event::parse(&event.payload).map_err(|e| Failure::of("EventUnreadable", &e))?;
    let target = function.target().await?;
    let (repository, sns) = (function.repository(&target)?, Sns::new(&function.aws));
    let letters: Vec<String> =
        if let Event::DeadLetters(found) = &event { found.iter().map(|l| l.id.clone()).collect() } else { vec![] };
    let mut unsent = Vec::new();
    for (index, alert) in alert::alerts(&target.name, &event, Timestamp::now()).iter().enumerate() {
        match (send(alert, &function.topic, &sns, &repository).await, letters.get(index)) {
            (Ok(sent), _) => tracing::info!(subject = alert.subject(), sent, "told"),
            (Err(e), Some(letter)) => {
                tracing::error!(error = %e, letter, "not told");
                unsent.push(json!({"itemIdentifier": letter}));
            }
            (Err(e), None) => return Err(Failure::of("AlertNotSent", &e)),
        }
    }
    Ok(json!({"batchItemFailures": unsent}))
}
