//! A target in memory: a group kept at one, an agent that really moves rows, a client that writes through the address.
//!
//! The AWS side is the fake that keeps AWS's rules; the repository is a real [`Repository`] on a store in memory. What stands here
//! is only what the function does not do itself: the group's own life and the agent's work.

#![allow(unreachable_pub, missing_docs, dead_code)] // shared by several tests, none of which uses all of it

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lifecycle::act::ActError;
use lifecycle::decide::Action;
use lifecycle::observe::Services;
use lifecycle::reconcile::{Woken, reconcile};
use perennial_shared::aws::auto_scaling::{LifecycleResult, LifecycleState};
use perennial_shared::aws::fake::{FakeAws, Machine};
use perennial_shared::aws::ssm::{CommandStatus, Order, SsmApi};
use perennial_shared::id::{BackupId, RunId, RunKind};
use perennial_shared::manifest::example;
use perennial_shared::pointer::PointerState;
use perennial_shared::repository::Repository;
use perennial_shared::resolve::resolve;
use perennial_shared::run::{Claim, RunError, RunResult};
use perennial_shared::settings::{self, Engine, Target};
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::memory::MemoryStore;
use perennial_shared::store::{Store, Version};

/// The rows of an engine or a backup.
pub type Rows = BTreeSet<u32>;

/// The kinds of address. Every promise holds for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ElasticIp,
    NetworkInterface,
    PrivateIp,
}

/// Makes each named function, which takes a [`Kind`], a test for every kind.
#[macro_export]
macro_rules! for_every_kind {
    ($($name:ident)*) => {
        for_every_kind! { elastic_ip ElasticIp: $($name)* }
        for_every_kind! { network_interface NetworkInterface: $($name)* }
        for_every_kind! { private_ip PrivateIp: $($name)* }
    };
    ($module:ident $kind:ident: $($name:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(super::Kind::$kind).await;
                }
            )*
        }
    };
}

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// Before what the agent is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Anything,
    Manifest,
    Pointer,
    Result,
}

pub struct World {
    pub aws: FakeAws,
    pub store: Arc<dyn Store>,
    /// The store of the target's only replica; without one where it is `None`.
    pub replica: Option<Arc<dyn Store>>,
    /// The store of another replica, which comes first in the settings.
    pub older_replica: Option<Arc<dyn Store>>,
    /// Whether nobody can read the repository.
    pub away: bool,
    /// Whether nobody can read the replicas.
    pub replica_away: bool,
    pub target: Target,
    pub now: Timestamp,
    /// What each instance's engine holds; an instance that was never restored has no entry.
    pub engines: BTreeMap<String, Rows>,
    /// What each backup holds.
    pub backups: BTreeMap<BackupId, Rows>,
    /// Rows whose write was acknowledged to the client.
    pub acknowledged: Rows,
    /// Where the restores of each instance are claimed, and when the last was that ended well.
    restored: BTreeMap<String, (usize, Option<Timestamp>)>,
    /// Engines that refuse writes and go on answering reads, until they start again.
    pub refusing: BTreeSet<String>,
    /// Whether a test removed what the pointer names; the next take-over repairs it.
    pub tampered: bool,
    launched: u32,
    written: u32,
}

impl World {
    pub fn new(kind: Kind) -> Self {
        Self::with_method(kind, "native")
    }

    /// A target whose data becomes backups by this method.
    pub fn with_method(kind: Kind, method: &str) -> Self {
        let aws = FakeAws::default();
        let endpoint = match kind {
            Kind::ElasticIp => {
                aws.add_address("eipalloc-1", "127.0.77.1");
                "kind: elastic_ip, allocation_id: eipalloc-1"
            }
            Kind::NetworkInterface => {
                aws.add_interface("eni-1", "10.0.1.50");
                "kind: network_interface, network_interface_id: eni-1"
            }
            Kind::PrivateIp => "kind: private_ip, address: 10.0.1.50",
        };
        let engine = match method {
            "aof" => "engine: redis, method: aof",
            "physical" => "engine: weaviate, method: physical, data_dir: /srv/data, service: {docker: weaviate}",
            "read-only" => {
                "engine: weaviate, method: physical, data_dir: /srv/data, service: {docker: weaviate}, backup: {keep_reads: true}"
            }
            _ => "engine: weaviate, method: native",
        };
        let text = format!(
            "{{name: docs, {engine}, repository: 's3://bucket/prefix', auto_scaling: {{group: docs}}, \
             endpoint: {{{endpoint}}}, restore: {{empty_repository: allow, attempts: 2}}}}"
        );
        aws.state().now = START;
        Self {
            aws,
            store: Arc::new(MemoryStore::default()),
            replica: None,
            older_replica: None,
            away: false,
            replica_away: false,
            target: settings::parse("test", &text).expect("settings"),
            now: START,
            engines: BTreeMap::new(),
            backups: BTreeMap::new(),
            acknowledged: Rows::new(),
            restored: BTreeMap::new(),
            refusing: BTreeSet::new(),
            tampered: false,
            launched: 0,
            written: 0,
        }
    }

    pub fn repository(&self) -> Repository {
        Repository::new(self.store.clone(), Engine::Weaviate)
    }

    /// Whatever backups and pointer the repository has, as the agent copies them after each backup.
    pub async fn copy_to_replica(&self) {
        let (own, replica) = (self.repository(), self.replica_repository().expect("a replica"));
        for meta in self.store.list("backups/").await.expect("listed") {
            let object = self.store.get(&meta.key).await.expect("read");
            replica.store().put(&meta.key, object.body).await.expect("copied");
        }
        let (here, there) = (own.pointer().await.expect("read"), replica.pointer().await.expect("read"));
        let generation = |state: &PointerState| state.pointer().map(|p| p.generation);
        if let Some(pointer) = here.pointer().filter(|_| generation(&here) >= generation(&there)) {
            replica.set_pointer(&there, pointer).await.expect("unmoved");
        }
    }

    /// Whose pointer tells who owns the target: a replica's, where the later take-over was in it.
    async fn acting(&self) -> Repository {
        let mut acting = self.repository();
        let taken = async |r: &Repository| r.pointer().await.ok()?.pointer()?.taken_over_at;
        for replica in self.stores().map(|store| Repository::new(store, Engine::Weaviate)) {
            if taken(&replica).await > taken(&acting).await {
                acting = replica;
            }
        }
        acting
    }

    /// Those of the replicas, in the order of the settings.
    fn stores(&self) -> impl Iterator<Item = Arc<dyn Store>> {
        [&self.older_replica, &self.replica].into_iter().flatten().cloned()
    }

    /// The replicas as the function and the agent reach them.
    fn replicas(&self) -> Vec<Repository> {
        let reached = |store: Arc<dyn Store>| if self.replica_away { broken(store) } else { store };
        self.stores().map(|store| Repository::new(reached(store), Engine::Weaviate)).collect()
    }

    pub fn replica_repository(&self) -> Option<Repository> {
        self.replica.clone().map(|store| Repository::new(store, Engine::Weaviate))
    }

    /// One invocation of the function, on any store.
    pub async fn tick_on(&self, repository: &Repository) -> Result<Vec<Action>, ActError> {
        self.invoke(repository, Woken::Tick).await
    }

    /// One invocation because something happened.
    pub async fn event_on(&self, repository: &Repository) -> Result<Vec<Action>, ActError> {
        self.invoke(repository, Woken::Event).await
    }

    /// One invocation by a warning that this instance is about to be taken away.
    pub async fn warn(&self, instance: &str) -> Vec<Action> {
        self.invoke(&self.repository(), Woken::Warning(instance)).await.expect("reconciled")
    }

    async fn invoke(&self, repository: &Repository, woken: Woken<'_>) -> Result<Vec<Action>, ActError> {
        let pause = Duration::ZERO;
        let (aws, replicas) = (&self.aws, &*self.replicas());
        let services = Services { auto_scaling: aws, ec2: aws, ssm: aws, repository, replicas, pause };
        let group = self.target.auto_scaling.as_ref().expect("a group");
        reconcile(services, &self.aws, "topic", &self.target, group, woken, || self.now).await
    }

    pub async fn tick(&self) -> Vec<Action> {
        self.tick_on(&self.reachable()).await.expect("reconciled")
    }

    /// The repository as the function reaches it.
    pub fn reachable(&self) -> Repository {
        if !self.away {
            return self.repository();
        }
        Repository::new(broken(self.store.clone()), Engine::Weaviate)
    }

    /// The claim of a run and where it stands, as the agent looks for them: in the repository, then in the replicas.
    async fn claimed(&self, run: &RunId) -> Option<(usize, Repository, Claim)> {
        for (home, repository) in std::iter::once(self.reachable()).chain(self.replicas()).enumerate() {
            if let Ok(Some(claim)) = repository.claim_of(run).await {
                return Some((home, repository, claim));
            }
        }
        None
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.aws.state().now = self.now;
    }

    // ---- the group -------------------------------------------------------------------------------------------------

    /// Keeps the group at one, as Auto Scaling does: a terminating member does not count.
    pub fn group_step(&mut self) -> Option<String> {
        let mut all = self.aws.state();
        for machine in all.machines.values_mut() {
            machine.state = match machine.state.take() {
                Some(LifecycleState::Terminating) => Some(LifecycleState::TerminatingWait),
                Some(LifecycleState::InService | LifecycleState::PendingWait) if !machine.running => {
                    Some(LifecycleState::TerminatingWait)
                }
                other => other,
            };
        }
        let counted =
            |s: &Option<LifecycleState>| matches!(s, Some(LifecycleState::InService | LifecycleState::PendingWait));
        let count = all.machines.values().filter(|m| counted(&m.state)).count();
        drop(all);
        (count == 0).then(|| self.launch())
    }

    pub fn launch(&mut self) -> String {
        self.launched += 1;
        let id = format!("i-{:017x}", self.launched);
        self.aws.add(&id, LifecycleState::PendingWait);
        id
    }

    pub fn in_service(&self) -> Option<String> {
        let all = self.aws.state();
        all.machines
            .iter()
            .find(|(_, m)| m.state == Some(LifecycleState::InService) && m.running)
            .map(|(id, _)| id.clone())
    }

    pub fn terminate(&mut self) {
        if let Some(id) = self.in_service() {
            self.aws.set(&id, Some(LifecycleState::TerminatingWait));
        }
    }

    pub fn kill(&mut self) {
        if let Some(id) = self.in_service() {
            self.aws.kill(&id);
            self.engines.remove(&id);
        }
    }

    /// The instance in service is stopped, or hangs while it is being stopped: its disks are lost, its address stays with it.
    pub fn stop(&mut self) -> Option<String> {
        let id = self.in_service()?;
        self.aws.stop(&id);
        self.engines.remove(&id);
        Some(id)
    }

    /// EC2 ends what was stopped.
    pub fn end_stopped(&mut self) {
        let stopped: Vec<String> = {
            let all = self.aws.state();
            all.machines.iter().filter(|(_, m)| m.stopped).map(|(id, _)| id.clone()).collect()
        };
        for id in stopped {
            self.aws.kill(&id);
        }
    }

    // ---- the client ------------------------------------------------------------------------------------------------

    /// Writes a row through the address; acknowledged only if somebody answers there.
    pub fn write(&mut self) {
        self.written += 1;
        let writable = self.aws.holder().filter(|h| !self.refusing.contains(h));
        if let Some(rows) = writable.and_then(|h| self.engines.get_mut(&h)) {
            rows.insert(self.written);
            self.acknowledged.insert(self.written);
        }
    }

    /// What a client sees at the address; nothing when nobody answers.
    pub fn served(&self) -> Option<&Rows> {
        self.aws.holder().and_then(|h| self.engines.get(&h))
    }

    // ---- the agent -------------------------------------------------------------------------------------------------

    /// Does the oldest open command of a machine that runs.
    pub async fn agent(&mut self, ends: Result<Option<Death>, RunError>) {
        let open = {
            let all = self.aws.state();
            let runs = |id: &String| all.machines.get(id).is_some_and(|m| m.running);
            all.commands.iter().find(|(id, c)| c.status == CommandStatus::Open && runs(id)).cloned()
        };
        let Some((_, command)) = open else { return };
        let run: RunId = command.comment.parse().expect("a run");
        let done = match self.claimed(&run).await {
            None => false, // no repository can be read
            Some((home, repository, claim)) => match repository.result_of(&run).await.expect("read") {
                Some(result) => result.ok,
                None => self.begin(home, &repository, &claim, ends).await,
            },
        };
        let status = if done { CommandStatus::Success } else { CommandStatus::Failed };
        let mut all = self.aws.state();
        let (_, mine) = all.commands.iter_mut().find(|(_, c)| c.id == command.id).expect("it was sent");
        (mine.status, mine.detail) = (status, "ended".into());
    }

    async fn begin(
        &mut self,
        home: usize,
        repository: &Repository,
        claim: &Claim,
        ends: Result<Option<Death>, RunError>,
    ) -> bool {
        if claim.run.kind() == RunKind::Restore {
            let pointer = repository.pointer().await.expect("read");
            let owns = pointer.pointer().is_some_and(|p| p.owner.as_ref() == Some(&claim.instance));
            let moved = pointer.version().map(Version::as_str) != claim.pointer_version.as_deref();
            let (first, last) = *self.restored.entry(claim.instance.clone()).or_insert((home, None));
            if first != home || last.is_some_and(|last| last > claim.claimed_at) || owns && moved {
                let error = RunError { code: "Overtaken".into(), message: "simulated".into() };
                return self.finish(repository, claim, None, Some(error)).await;
            }
        }
        match ends {
            Err(error) => self.finish(repository, claim, None, Some(error)).await,
            Ok(death) => self.work(home, repository, claim, death).await,
        }
    }

    /// Whether it exited with success.
    async fn work(&mut self, home: usize, repository: &Repository, claim: &Claim, death: Option<Death>) -> bool {
        if death == Some(Death::Anything) {
            return false;
        }
        if claim.run.kind() == RunKind::Restore {
            assert_ne!(self.aws.holder().as_ref(), Some(&claim.instance), "clients see what is being changed");
            let rows = claim.backup_id.as_ref().map_or_else(Rows::new, |id| self.backups[id].clone());
            self.engines.insert(claim.instance.clone(), rows);
            self.restored.insert(claim.instance.clone(), (home, Some(claim.claimed_at)));
            self.refusing.remove(&claim.instance);
        } else if !self.back_up(claim, death).await {
            return false;
        }
        death != Some(Death::Result) && self.finish(repository, claim, None, None).await
    }

    async fn back_up(&mut self, claim: &Claim, death: Option<Death>) -> bool {
        let (repository, me) = (self.repository(), claim.instance.as_str());
        if claim.run.kind() == RunKind::Final && self.target.keeps_reads() {
            self.refusing.insert(me.into());
        }
        let pointer = repository.pointer().await.expect("read");
        let generation = pointer.pointer().map(|p| p.generation).unwrap_or_default();
        let id = BackupId::new(self.now, generation);
        let key = format!("backups/{id}/n/chunk-1");
        repository.store().create(&key, Bytes::from_static(b"data")).await.expect("stored");
        if death == Some(Death::Manifest) {
            return false;
        }
        self.backups.insert(id.clone(), self.engines.get(me).cloned().unwrap_or_default());
        let manifest = example(&id, &[("n/chunk-1", b"data")]);
        repository.create_manifest(&manifest).await.expect("stored");
        if death == Some(Death::Pointer) {
            return false;
        }
        repository.publish(&manifest, Some(me), self.now).await.is_ok()
    }

    async fn finish(
        &self,
        repository: &Repository,
        claim: &Claim,
        backup_id: Option<BackupId>,
        error: Option<RunError>,
    ) -> bool {
        let ok = error.is_none();
        let result = RunResult {
            run: claim.run.clone(),
            ok,
            error,
            backup_id,
            started_at: self.now,
            finished_at: self.now,
            size_bytes: 4,
            objects: 1,
            findings: vec![],
        };
        repository.finish(&result).await.expect("stored");
        ok
    }

    /// A restore that some function claims for an instance, and sends.
    pub async fn claim(
        &self,
        repository: &Repository,
        instance: &str,
        attempt: u32,
        backup_id: Option<BackupId>,
    ) -> RunId {
        let run = RunId::on_instance(RunKind::Restore, instance, attempt);
        let pointer = repository.pointer().await.expect("read");
        let claim = Claim {
            run: run.clone(),
            target: "docs".into(),
            instance: instance.into(),
            backup_id,
            pointer_version: pointer.version().map(ToString::to_string),
            generation: pointer.pointer().map(|p| p.generation).unwrap_or_default(),
            replace: true,
            claimed_at: self.now,
            nonce: String::new(),
        };
        repository.claim(&claim).await.expect("claimed");
        let order = Order {
            document: self.target.auto_scaling.as_ref().expect("a group").document.clone(),
            instance: instance.into(),
            target: "docs".into(),
            run: run.clone(),
            execution: self.target.restore.timeout,
            delivery: Duration::from_secs(300),
        };
        drop(self.aws.send(&order).await); // an agent that does not answer gets none
        run
    }

    /// A restore that somebody claims, in any repository that can be read, who does not know what happened meanwhile.
    pub async fn late_claim(&self, in_replica: bool) {
        let repository = match self.replica_repository() {
            Some(replica) if in_replica && !self.replica_away => replica,
            Some(_) if !in_replica && !self.away => self.repository(),
            _ => return,
        };
        let waits = |m: &Machine| m.running && m.state == Some(LifecycleState::PendingWait);
        let waiting = self.aws.state().machines.iter().find(|(_, m)| waits(m)).map(|(id, _)| id.clone());
        let Some(id) = waiting else { return };
        let found = resolve(&repository).await.expect("read");
        let owner = found.pointer.pointer().and_then(|p| p.owner.as_ref());
        if owner != Some(&id)
            && let Some(best) = found.candidates.first()
        {
            let attempt = 100 + u32::try_from(self.aws.state().orders.len()).expect("few");
            self.claim(&repository, &id, attempt, Some(best.id.clone())).await;
        }
    }

    /// A scheduled backup of the instance in service, as the backup function starts it.
    pub async fn scheduled_backup(&mut self, death: Option<Death>) {
        let Some(instance) = self.in_service() else { return };
        let run = RunId::scheduled(self.now);
        let claim = Claim {
            run,
            target: "docs".into(),
            instance,
            backup_id: None,
            pointer_version: None,
            generation: perennial_shared::id::Generation::default(),
            replace: false,
            claimed_at: self.now,
            nonce: String::new(),
        };
        self.back_up(&claim, death).await;
    }

    // ---- what is promised ------------------------------------------------------------------------------------------

    /// Whatever happened: no client sees an empty or half-restored database, and the pointer names a backup that restores.
    pub async fn check(&self) {
        let resolution = resolve(&self.acting().await).await.expect("read");
        if let Some(named) = resolution.pointer.backup_id().filter(|_| !self.tampered) {
            let mut best = resolution.candidates.first().map(|c| c.id.clone());
            if let Some(replica) = self.replica_repository().filter(|_| best.is_none()) {
                // What an emptied repository lost is restored from there.
                best = resolve(&replica).await.expect("read").candidate(named).map(|c| c.id.clone());
            }
            assert_eq!(best.as_ref(), Some(named), "{:?}", resolution.problems);
            assert!(self.backups.contains_key(named), "{named}");
        }
        let runs = |id: &String| self.aws.state().machines[id].running;
        if let Some(holder) = self.aws.holder().filter(runs) {
            assert!(self.engines.contains_key(&holder), "{holder} has the address and no data");
            let owner = resolution.pointer.pointer().and_then(|p| p.owner.clone());
            // The last owner may go on answering reads after its final backup, until the address moves or it ends.
            let harmless = self.refusing.contains(&holder);
            assert!(harmless || owner == Some(holder.clone()), "{holder} has the address, {owner:?} owns the target");
        }
    }

    /// Runs everything until the group serves again, without faults.
    pub async fn settle(&mut self) {
        for _ in 0..40 {
            self.group_step();
            for machine in self.aws.state().machines.values_mut() {
                machine.online = machine.running;
            }
            self.tick().await;
            self.check().await;
            self.agent(Ok(None)).await;
            self.pass(61);
            let served = self.in_service().is_some_and(|id| self.aws.holder() == Some(id));
            let waits = self.aws.state().machines.values().any(|m| {
                matches!(
                    m.state,
                    Some(LifecycleState::PendingWait | LifecycleState::TerminatingWait | LifecycleState::Terminating)
                )
            });
            if served && !waits {
                return;
            }
        }
        let all = self.aws.state();
        panic!("it never came back: {:#?}\n{:#?}", all.machines, all.mail);
    }

    /// As [`World::settle`], with a person who ends the instances that were kept for them.
    pub async fn settle_with_operator(&mut self) {
        let retained = |m: &perennial_shared::aws::fake::Machine| m.state == Some(LifecycleState::TerminatingRetained);
        for machine in self.aws.state().machines.values_mut().filter(|m| retained(m)) {
            (machine.state, machine.running) = (None, false);
        }
        let waiting: Vec<String> = {
            let all = self.aws.state();
            let waits = all.machines.iter().filter(|(_, m)| m.state == Some(LifecycleState::PendingWait));
            waits.map(|(id, _)| id.clone()).collect()
        };
        for id in waiting {
            self.aws.set(&id, Some(LifecycleState::TerminatingWait));
        }
        self.settle().await;
    }

    pub fn subjects(&self) -> Vec<String> {
        self.aws.state().mail.iter().map(|(subject, _)| subject.clone()).collect()
    }

    pub fn abandoned(&self) -> usize {
        let all = self.aws.state();
        let given_up = all.completed.iter().filter(|(id, r)| {
            *r == LifecycleResult::Abandon && all.machines[id].state != Some(LifecycleState::TerminatingRetained)
        });
        given_up.count()
    }
}

/// A store that answers nothing.
pub fn broken(store: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(FaultyStore::crash(store, 0, Fault::Before))
}

/// A target in service with one published backup of 3 rows and 1 row written since.
pub async fn serving(kind: Kind) -> World {
    in_service(World::new(kind)).await
}

/// Methods whose final backups have the engine refuse writes: Redis's, and Weaviate's where the settings ask for it.
pub const KEEP_READS: [&str; 2] = ["aof", "read-only"];

/// As [`serving`], of a target whose engine refuses writes during its final backup.
pub async fn serving_reads(kind: Kind, method: &str) -> World {
    in_service(World::with_method(kind, method)).await
}

/// As [`serving`], of a target whose backups are increments and whose engine cannot refuse writes.
pub async fn serving_increments(kind: Kind) -> World {
    in_service(World::with_method(kind, "physical")).await
}

async fn in_service(mut world: World) -> World {
    world.settle().await;
    for _ in 0..3 {
        world.write();
    }
    world.scheduled_backup(None).await;
    world.pass(1);
    world.write();
    world
}

/// As [`serving`], and its instance just died; the id of the one that replaces it.
pub async fn replacing(kind: Kind) -> (World, String) {
    let mut world = serving(kind).await;
    world.kill();
    let id = world.group_step().expect("a replacement");
    (world, id)
}

pub fn told(world: &World, words: &str) -> bool {
    world.subjects().iter().any(|s| s.contains(words))
}

pub fn state_of(world: &World, id: &str) -> Option<LifecycleState> {
    world.aws.state().machines[id].state.clone()
}
