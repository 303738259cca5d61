//! Observe, decide and act until nothing is left to do.
//!
//! A failed action ends the actions for its instance in this round and is returned in the end, so that Lambda's error metric and
//! dead-letter queue see it; other instances are still looked after.

use std::collections::BTreeSet;

use jiff::Timestamp;
use perennial_shared::alert::Unnoted;
use perennial_shared::aws::sns::SnsApi;
use perennial_shared::settings::{AutoScaling, Target};

use crate::act::{ActError, Actor};
use crate::decide::{Action, decide};
use crate::observe::{Services, observe};

/// Steps from claim to CONTINUE are fewer; more means that something undoes what is done.
const MOST_ROUNDS: u32 = 8;

/// What the function was woken by. It concludes little from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken<'a> {
    /// The tick of each minute.
    Tick,
    /// Something happened.
    Event,
    /// EC2 announced to take this instance away.
    Warning(&'a str),
}

impl Woken<'_> {
    /// Once an hour at most from ticks, and when something happened.
    fn unnoted(self, now: Timestamp) -> Unnoted {
        let first_of_hour = now.as_second().rem_euclid(3600) < 60;
        if self != Self::Tick || first_of_hour { Unnoted::Send } else { Unnoted::KeepBack }
    }
}

/// Brings one target as far as it can be brought now. Returns what was done.
pub async fn reconcile(
    services: Services<'_>,
    sns: &dyn SnsApi,
    topic: &str,
    target: &Target,
    group: &AutoScaling,
    woken: Woken<'_>,
    clock: impl Fn() -> Timestamp,
) -> Result<Vec<Action>, ActError> {
    let mut done = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let now = clock();
        let mut world = observe(services, target, group, now).await?;
        world.warned = if let Woken::Warning(instance) = woken { Some(instance.into()) } else { None };
        let services = services.acting_on(&world);
        let actor = Actor { services, sns, topic, target, group, unnoted: woken.unnoted(now), now };
        let mut changed = false;
        let mut failure = None;
        let mut stopped: BTreeSet<String> = BTreeSet::new();
        for action in decide(target, group, &world) {
            let instance = instance_of(&action).to_owned();
            if stopped.contains(&instance) {
                continue;
            }
            match actor.act(&action).await {
                Ok(different) => {
                    changed |= different;
                    tracing::info!(?action, "done");
                    done.push(action);
                }
                Err(e) => {
                    tracing::error!(?action, error = %perennial_shared::aws::chain(&e), "failed");
                    stopped.insert(instance);
                    failure = Some(e);
                }
            }
        }
        if let Some(e) = failure {
            return Err(e);
        }
        if !changed {
            break;
        }
    }
    Ok(done)
}

/// The instance that an action is about; empty for actions about none.
fn instance_of(action: &Action) -> &str {
    match action {
        Action::Heartbeat { instance, .. }
        | Action::Send { instance, .. }
        | Action::Cancel { instance, .. }
        | Action::TakeOver { instance, .. }
        | Action::Endpoint { instance, .. }
        | Action::GiveUp { instance, .. }
        | Action::Complete { instance, .. } => instance,
        Action::Start(start) => &start.instance,
        Action::Return { .. } | Action::Tell(_) | Action::Measure { .. } => "",
    }
}
