//! One fake for all the traits of [`super`], in memory, that keeps AWS's rules.
//!
//! It refuses what AWS refuses: a command to an instance whose agent is not registered, a lifecycle action that no longer
//! waits, an address that is taken, an address for an instance that is not running. Errors can be put in the way of any
//! call. Time does not pass by itself: a test moves instances and commands on.

mod ec2;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;

use super::auto_scaling::{AutoScalingApi, LifecycleAction, LifecycleResult, LifecycleState, Member};
use super::ec2::{Address, Interface};
use super::kms::{Encrypted, KmsApi};
use super::secrets_manager::SecretsApi;
use super::sns::SnsApi;
use super::ssm::{Command, CommandStatus, Order, SsmApi};
use super::{AwsError, AwsErrorKind};

/// The fake.
#[derive(Debug, Default)]
pub struct FakeAws(Mutex<State>);

/// Everything the fake knows.
#[derive(Debug, Default)]
pub struct State {
    /// Instances of the group, and those that left it.
    pub machines: BTreeMap<String, Machine>,
    /// Elastic IPs with the tags they were allocated with.
    pub addresses: Vec<(Address, (String, String))>,
    /// Network interfaces that travel, with their tags. Each instance has one of its own besides: `eni-<instance>`.
    pub interfaces: Vec<(Interface, (String, String))>,
    /// Secondary private addresses, and the interfaces that have them.
    pub private: BTreeMap<Ipv4Addr, String>,
    /// How many more looks an attachment or detachment that begins now takes.
    pub slow: u32,
    /// Guests that do not let go of an interface unless it is forced.
    pub deaf: bool,
    /// Attachments that were detached by force.
    pub forced: Vec<String>,
    /// Looks until what is on its way arrives, and attachments made so far.
    looks: u32,
    attachments: u32,
    /// Commands sent, oldest first, with their instance.
    pub commands: Vec<(String, Command)>,
    /// Orders as they were sent.
    pub orders: Vec<Order>,
    /// E-mails: subject and body.
    pub mail: Vec<(String, String)>,
    /// How lifecycle actions ended: instance and result.
    pub completed: Vec<(String, LifecycleResult)>,
    /// Heartbeats by instance.
    pub heartbeats: BTreeMap<String, u32>,
    /// Errors in the way of calls: the next call of that name fails.
    pub faults: Vec<AwsError>,
    /// Calls whose next reply is lost: they are done and fail all the same.
    pub lost: BTreeSet<&'static str>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, String>,
    /// KMS keys by id, and whether each is enabled.
    pub kms_keys: BTreeMap<String, bool>,
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// What `commands` says the time is.
    pub now: Timestamp,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its lifecycle state; `None` once it left the group.
    pub state: Option<LifecycleState>,
    /// Whether EC2 has it running.
    pub running: bool,
    /// Whether EC2 has it stopping or stopped: it does nothing any more, and what it had stays its own.
    pub stopped: bool,
    /// Whether its SSM agent is registered.
    pub online: bool,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// Its availability zone.
    pub zone: &'static str,
}

/// Where instances are launched.
pub const ZONE: &str = "eu-central-1a";

/// A zone from which neither the interface nor the private address can be had.
pub const OTHER_ZONE: &str = "eu-central-1b";

impl Machine {
    /// Whether it still has its interfaces and its addresses, and can be given more.
    fn exists(&self) -> bool {
        self.running || self.stopped
    }
}

impl State {
    /// The instance is off for good: its processes, its own interface and whatever address it held are gone from it.
    fn end(&mut self, id: &str) {
        if let Some(machine) = self.machines.get_mut(id) {
            (machine.running, machine.stopped, machine.online) = (false, false, false);
        }
        for (address, _) in self.addresses.iter_mut().filter(|(a, _)| a.holder.as_deref() == Some(id)) {
            (address.holder, address.association) = (None, None);
        }
        let held = |i: &Interface| i.attachment.as_ref().is_some_and(|a| a.instance.as_deref() == Some(id));
        self.interfaces.retain(|(i, _)| !(held(i) && i.attachment.as_ref().is_some_and(|a| a.delete_on_termination)));
        for (interface, _) in self.interfaces.iter_mut().filter(|(i, _)| held(i)) {
            interface.attachment = None;
        }
        self.private.retain(|_, interface| interface.trim_start_matches("eni-") != id);
    }
}

impl FakeAws {
    /// The state, to look at or to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts a running, registered instance into the group.
    pub fn add(&self, id: &str, state: LifecycleState) {
        let mut all = self.state();
        let launched_at = all.now;
        let machine =
            Machine { state: Some(state), running: true, stopped: false, online: true, launched_at, zone: ZONE };
        all.machines.insert(id.into(), machine);
    }

    /// The instance dies: EC2 says so at once, its group later, its address is free.
    pub fn kill(&self, id: &str) {
        self.state().end(id);
    }

    /// The instance is stopped, or hangs while it is being stopped: it keeps its interfaces and its addresses until it is
    /// [killed](Self::kill), although its group has long let go of it.
    pub fn stop(&self, id: &str) {
        if let Some(machine) = self.state().machines.get_mut(id).filter(|m| m.running) {
            (machine.running, machine.stopped, machine.online) = (false, true, false);
        }
    }

    /// Moves an instance to another lifecycle state, or out of the group.
    pub fn set(&self, id: &str, to: Option<LifecycleState>) {
        if let Some(machine) = self.state().machines.get_mut(id) {
            machine.state = to;
        }
    }

    /// Adds an Elastic IP.
    pub fn add_address(&self, allocation: &str, ip: &str) {
        let address = Address { allocation: allocation.into(), ip: ip.into(), association: None, holder: None };
        self.state().addresses.push((address, (String::new(), String::new())));
    }

    /// Adds a network interface that can travel.
    pub fn add_interface(&self, id: &str, ip: &str) {
        let interface = Interface { id: id.into(), ip: ip.into(), zone: ZONE.into(), attachment: None };
        self.state().interfaces.push((interface, (String::new(), String::new())));
    }

    /// Whom clients reach at the only address, of whatever kind it is. An interface that is being attached or detached may already,
    /// or still, lead there.
    pub fn holder(&self) -> Option<String> {
        let state = self.state();
        let elastic = state.addresses.first().and_then(|(a, _)| a.holder.clone());
        let attached = state.interfaces.first().and_then(|(i, _)| i.attachment.as_ref()?.instance.clone());
        let private = state.private.values().next().map(|interface| interface.trim_start_matches("eni-").to_owned());
        elastic.or(attached).or(private)
    }

    /// Somebody takes the only address away from whoever has it.
    pub fn lead_astray(&self) {
        let mut state = self.state();
        for (address, _) in &mut state.addresses {
            (address.holder, address.association) = (None, None);
        }
        for (interface, _) in &mut state.interfaces {
            interface.attachment = None;
        }
        state.private.clear();
    }

    /// Ends the newest command of a run.
    pub fn end_command(&self, run: &str, status: CommandStatus, detail: &str) {
        if let Some((_, command)) = self.state().commands.iter_mut().rev().find(|(_, c)| c.comment == run) {
            (command.status, command.detail) = (status, detail.into());
        }
    }

    /// Makes the next `call` fail.
    pub fn fail_next(&self, call: &'static str, kind: AwsErrorKind) {
        self.state().faults.push(AwsError { call, kind, code: format!("{kind:?}"), message: "injected".into() });
    }

    /// Makes AWS refuse the next `call` with this code.
    pub fn fail_next_with(&self, call: &'static str, code: &str) {
        self.state().faults.push(error(call, AwsErrorKind::of_code(code), code, "injected".into()));
    }

    /// Makes the next `call` do what it should and its reply get lost.
    pub fn lose_next(&self, call: &'static str) {
        self.state().lost.insert(call);
    }

    /// Adds a secret.
    pub fn put_secret(&self, name: &str, text: &str) {
        self.state().secrets.insert(name.into(), text.into());
    }

    /// Adds an enabled KMS key; its ARN.
    pub fn add_kms_key(&self, id: &str) -> String {
        self.state().kms_keys.insert(id.into(), true);
        kms_arn(id)
    }

    /// Disables a KMS key.
    pub fn disable_kms_key(&self, id: &str) {
        self.state().kms_keys.insert(id.into(), false);
    }

    fn call(&self, call: &'static str) -> Result<MutexGuard<'_, State>, AwsError> {
        let mut state = self.state();
        match state.faults.iter().position(|f| f.call == call) {
            Some(place) => Err(state.faults.remove(place)),
            None => Ok(state),
        }
    }
}

/// The end of a call that succeeded, unless its reply is to be lost.
fn reply<T>(state: &mut State, call: &'static str, answer: T) -> Result<T, AwsError> {
    if state.lost.remove(call) {
        return Err(error(call, AwsErrorKind::Unavailable, "NoAnswer", "the reply was lost".into()));
    }
    Ok(answer)
}

fn error(call: &'static str, kind: AwsErrorKind, code: &str, message: String) -> AwsError {
    AwsError { call, kind, code: code.into(), message }
}

/// The member that waits in the transition of this hook; hooks are told apart by their names.
fn waiting<'a>(
    state: &'a mut State,
    call: &'static str,
    action: &LifecycleAction,
) -> Result<&'a mut Machine, AwsError> {
    let wanted =
        if action.hook.contains("launch") { LifecycleState::PendingWait } else { LifecycleState::TerminatingWait };
    let found = state.machines.get_mut(&action.instance).filter(|m| m.state.as_ref() == Some(&wanted));
    found.ok_or_else(|| {
        let text = format!("No active Lifecycle Action found with instance ID {}", action.instance);
        error(call, AwsErrorKind::NotFound, "ValidationError", text)
    })
}

#[async_trait]
impl AutoScalingApi for FakeAws {
    async fn members(&self, _group: &str) -> Result<Vec<Member>, AwsError> {
        let state = self.call("autoscaling:DescribeAutoScalingGroups")?;
        let members =
            state.machines.iter().filter_map(|(id, m)| Some(Member { instance: id.clone(), state: m.state.clone()? }));
        Ok(members.collect())
    }

    async fn heartbeat(&self, action: &LifecycleAction) -> Result<(), AwsError> {
        let call = "autoscaling:RecordLifecycleActionHeartbeat";
        let mut state = self.call(call)?;
        waiting(&mut state, call, action)?;
        *state.heartbeats.entry(action.instance.clone()).or_default() += 1;
        Ok(())
    }

    async fn complete(&self, action: &LifecycleAction, result: LifecycleResult) -> Result<(), AwsError> {
        let call = "autoscaling:CompleteLifecycleAction";
        let mut state = self.call(call)?;
        let machine = waiting(&mut state, call, action)?;
        machine.state = match (machine.state.clone(), result) {
            (Some(LifecycleState::PendingWait), LifecycleResult::Continue) => Some(LifecycleState::InService),
            (Some(LifecycleState::PendingWait), LifecycleResult::Abandon) => Some(LifecycleState::Terminating),
            (_, LifecycleResult::Continue) => None,
            (_, LifecycleResult::Abandon) => Some(LifecycleState::TerminatingRetained),
        };
        let ends = machine.state.is_none() && !machine.stopped; // EC2 takes its time over one that hangs
        state.completed.push((action.instance.clone(), result));
        if ends {
            state.end(&action.instance);
        }
        reply(&mut state, call, ())
    }
}

#[async_trait]
impl SsmApi for FakeAws {
    async fn online(&self, instance: &str) -> Result<bool, AwsError> {
        let state = self.call("ssm:DescribeInstanceInformation")?;
        Ok(state.machines.get(instance).is_some_and(|m| m.online))
    }

    async fn send(&self, order: &Order) -> Result<String, AwsError> {
        let call = "ssm:SendCommand";
        let mut state = self.call(call)?;
        if !state.machines.get(&order.instance).is_some_and(|m| m.online) {
            let text = format!("Instances [{}] not in a valid state for account", order.instance);
            return Err(error(call, AwsErrorKind::Refused, "InvalidInstanceId", text));
        }
        let id = format!("command-{}", state.commands.len());
        let command = Command {
            id: id.clone(),
            comment: order.run.to_string(),
            status: CommandStatus::Open,
            detail: "InProgress".into(),
            requested_at: state.now,
        };
        state.orders.push(order.clone());
        state.commands.push((order.instance.clone(), command));
        Ok(id)
    }

    async fn commands(&self, instance: &str, _document: &str) -> Result<Vec<Command>, AwsError> {
        let state = self.call("ssm:ListCommandInvocations")?;
        Ok(state.commands.iter().rev().filter(|(i, _)| i == instance).map(|(_, c)| c.clone()).collect())
    }

    async fn cancel(&self, command: &str, _instance: &str) -> Result<(), AwsError> {
        let mut state = self.call("ssm:CancelCommand")?;
        for (_, found) in state.commands.iter_mut().filter(|(_, c)| c.id == command && c.status == CommandStatus::Open)
        {
            (found.status, found.detail) = (CommandStatus::Failed, "Cancelled".into());
        }
        Ok(())
    }

    async fn error_output(&self, command: &str, _instance: &str) -> Result<String, AwsError> {
        let state = self.call("ssm:GetCommandInvocation")?;
        let known = state.commands.iter().any(|(_, c)| c.id == command);
        let missing =
            || error("ssm:GetCommandInvocation", AwsErrorKind::NotFound, "InvocationDoesNotExist", command.into());
        if known { Ok("error: injected failure".into()) } else { Err(missing()) }
    }

    async fn parameter(&self, name: &str) -> Result<String, AwsError> {
        let call = "ssm:GetParameter";
        let state = self.call(call)?;
        let missing = || error(call, AwsErrorKind::NotFound, "ParameterNotFound", name.into());
        state.parameters.get(name).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl SnsApi for FakeAws {
    async fn publish(&self, _topic: &str, subject: &str, body: &str) -> Result<(), AwsError> {
        let call = "sns:Publish";
        let mut state = self.call(call)?;
        if subject.is_empty() || subject.len() >= 100 || subject.contains(['\n', '\r']) || !subject.is_ascii() {
            return Err(error(
                call,
                AwsErrorKind::Refused,
                "InvalidParameter",
                format!("Invalid parameter: Subject {subject:?}"),
            ));
        }
        state.mail.push((subject.into(), body.into()));
        Ok(())
    }
}

#[async_trait]
impl SecretsApi for FakeAws {
    async fn secret(&self, name: &str) -> Result<String, AwsError> {
        let call = "secretsmanager:GetSecretValue";
        let state = self.call(call)?;
        let missing = || error(call, AwsErrorKind::NotFound, "ResourceNotFoundException", name.into());
        state.secrets.get(name).cloned().ok_or_else(missing)
    }
}

fn kms_arn(id: &str) -> String {
    format!("arn:aws:kms:eu-west-1:111122223333:key/{id}")
}

/// The id of an enabled key, out of its id or ARN.
fn kms_key<'a>(state: &State, call: &'static str, key: &'a str) -> Result<&'a str, AwsError> {
    let id = key.rsplit('/').next().unwrap_or(key);
    match state.kms_keys.get(id) {
        Some(true) => Ok(id),
        Some(false) => {
            let text = format!("{} is disabled.", kms_arn(id));
            Err(error(call, AwsErrorKind::Refused, "DisabledException", text))
        }
        None => {
            let text = format!("Key '{}' does not exist", kms_arn(id));
            Err(error(call, AwsErrorKind::NotFound, "NotFoundException", text))
        }
    }
}

/// What the fake's ciphertexts hold: key id, context, a number that makes each different, and the plain bytes.
type KmsBlob = (String, String, u32, Vec<u8>);

#[async_trait]
impl KmsApi for FakeAws {
    async fn encrypt(&self, key: &str, plain: &[u8], context: &str) -> Result<Encrypted, AwsError> {
        let call = "kms:Encrypt";
        let state = self.call(call)?;
        let id = kms_key(&state, call, key)?;
        if !(1..=4096).contains(&plain.len()) {
            let text = "1 validation error detected: Value at 'plaintext' failed to satisfy constraint".into();
            return Err(error(call, AwsErrorKind::Refused, "ValidationException", text));
        }
        let blob: KmsBlob = (id.into(), context.into(), rand::random(), plain.into());
        Ok(Encrypted { key_arn: kms_arn(id), ciphertext: serde_json::to_vec(&blob).unwrap_or_default() })
    }

    async fn decrypt(&self, key: &str, ciphertext: Vec<u8>, context: &str) -> Result<Vec<u8>, AwsError> {
        let call = "kms:Decrypt";
        let state = self.call(call)?;
        let id = kms_key(&state, call, key)?;
        let invalid = || error(call, AwsErrorKind::Refused, "InvalidCiphertextException", "UnknownError".into());
        let (by, within, _, plain): KmsBlob = serde_json::from_slice(&ciphertext).map_err(|_| invalid())?;
        if by != id {
            let text = "The key ID in the request does not identify a CMK that can perform this operation.".into();
            return Err(error(call, AwsErrorKind::Refused, "IncorrectKeyException", text));
        }
        if within == context { Ok(plain) } else { Err(invalid()) }
    }
}
