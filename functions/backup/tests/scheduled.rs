//! Scheduled backups against the fake that keeps AWS's rules.

use std::sync::Arc;

use backup::{Outcome, Services, metrics, report, start};
use jiff::Timestamp;
use perennial_shared::alert::Kind;
use perennial_shared::aws::AwsErrorKind;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::fake::FakeAws;
use perennial_shared::aws::ssm::CommandStatus;
use perennial_shared::event::Command;
use perennial_shared::id::RunId;
use perennial_shared::pointer::{Pointer, PointerState};
use perennial_shared::repository::Repository;
use perennial_shared::run::{Progress, RunError, RunResult};
use perennial_shared::settings::{self, Engine, Target};
use perennial_shared::store::memory::MemoryStore;

const OWNER: &str = "i-1";

struct World {
    aws: FakeAws,
    repository: Repository,
    target: Target,
}

impl World {
    async fn owned() -> Self {
        let text = "{name: docs, engine: weaviate, repository: 's3://bucket/prefix', auto_scaling: {group: docs}}";
        let world = Self {
            aws: FakeAws::default(),
            repository: Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate),
            target: settings::parse("test", text).expect("settings"),
        };
        world.aws.add(OWNER, LifecycleState::InService);
        let pointer = Pointer::first("docs", "weaviate", Some(OWNER), at(0));
        world.repository.set_pointer(&PointerState::Absent, &pointer).await.expect("created");
        world
    }

    fn services(&self) -> Services<'_> {
        Services {
            auto_scaling: &self.aws,
            ssm: &self.aws,
            repository: &self.repository,
            target: &self.target,
            group: self.target.auto_scaling.as_ref().expect("a group"),
        }
    }

    fn orders(&self) -> usize {
        self.aws.state().orders.len()
    }

    fn ended(&self) -> Command {
        let (instance, command) = self.aws.state().commands.last().cloned().expect("sent");
        Command {
            command_id: command.id,
            document_name: "perennial-docs".into(),
            instance_id: Some(instance),
            status: "Failed".into(),
        }
    }

    async fn finish(&self, run: &RunId, error: Option<RunError>) {
        let result = RunResult {
            run: run.clone(),
            ok: error.is_none(),
            error,
            backup_id: None,
            started_at: at(0),
            finished_at: at(4),
            size_bytes: 1000,
            objects: 1,
            findings: vec![],
        };
        self.repository.finish(&result).await.expect("stored");
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn missed(outcome: Outcome) -> String {
    let Outcome::Missed(alert) = outcome else { panic!("{outcome:?}") };
    assert_eq!(alert.kind, Kind::BackupFailed);
    alert.body()
}

#[tokio::test]
async fn a_schedule_starts_one_backup_however_often_it_is_delivered() {
    let world = World::owned().await;
    let run = RunId::scheduled(at(0));
    assert_eq!(start(world.services(), at(0), at(1)).await.expect("started"), Outcome::Started(run.clone()));
    assert_eq!(start(world.services(), at(0), at(2)).await.expect("known"), Outcome::Already(run));
    assert_eq!(world.orders(), 1);
}

#[tokio::test]
async fn a_delivery_that_died_before_sending_is_made_good_by_the_next() {
    let world = World::owned().await;
    world.aws.fail_next("ssm:SendCommand", AwsErrorKind::Unavailable);
    assert!(start(world.services(), at(0), at(1)).await.is_err());
    assert!(matches!(start(world.services(), at(0), at(2)).await.expect("started"), Outcome::Started(_)));
    assert_eq!(world.orders(), 1);
}

#[tokio::test]
async fn one_backup_at_a_time_and_only_of_the_owner_in_service() {
    let world = World::owned().await;
    start(world.services(), at(0), at(1)).await.expect("started");
    assert!(missed(start(world.services(), at(60), at(61)).await.expect("answered")).contains("still running"));
    world.aws.end_command(RunId::scheduled(at(0)).as_str(), CommandStatus::Success, "Success");
    world.aws.set(OWNER, Some(LifecycleState::TerminatingWait));
    world.aws.add("i-2", LifecycleState::InService);
    assert!(
        missed(start(world.services(), at(120), at(121)).await.expect("answered")).contains("no instance that owns")
    );
    assert_eq!(world.orders(), 1);
}

#[tokio::test]
async fn copies_to_replicas_keep_no_schedule_waiting() {
    let world = World::owned().await;
    let run = RunId::scheduled(at(0));
    start(world.services(), at(0), at(1)).await.expect("started");
    let progress =
        |published| Progress { run: run.clone(), stage: "s".into(), done: 0, total: None, published, at: at(2) };
    world.repository.report_progress(&progress(false)).await.expect("written");
    assert!(missed(start(world.services(), at(60), at(61)).await.expect("answered")).contains("still running"));
    world.repository.report_progress(&progress(true)).await.expect("written");
    let next = start(world.services(), at(120), at(121)).await.expect("started");
    assert_eq!(next, Outcome::Started(RunId::scheduled(at(120))));
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_an_error() {
    let world = World::owned().await;
    let inner: Arc<dyn perennial_shared::store::Store> = Arc::new(MemoryStore::default());
    let broken =
        perennial_shared::store::faulty::FaultyStore::crash(inner, 0, perennial_shared::store::faulty::Fault::Before);
    let repository = Repository::new(Arc::new(broken), Engine::Weaviate);
    let services = Services { repository: &repository, ..world.services() };
    assert!(start(services, at(0), at(1)).await.is_err());
    assert_eq!(world.orders(), 0);
}

#[tokio::test]
async fn success_is_measured_and_failure_is_told_with_its_reason() {
    let world = World::owned().await;
    let run = RunId::scheduled(at(0));
    start(world.services(), at(0), at(1)).await.expect("started");
    assert_eq!(report(world.services(), &world.ended(), at(2)).await.expect("read"), None, "it still runs");
    world.finish(&run, None).await;
    world.aws.end_command(run.as_str(), CommandStatus::Success, "Success");
    let ended = report(world.services(), &world.ended(), at(5)).await.expect("read").expect("ended");
    assert_eq!((ended.alert.is_none(), metrics(&ended).len()), (true, 3));

    let run = RunId::scheduled(at(60));
    start(world.services(), at(60), at(61)).await.expect("started");
    let error = RunError { code: "EngineFailed".into(), message: "the disk is full".into() };
    world.finish(&run, Some(error)).await;
    world.aws.end_command(run.as_str(), CommandStatus::Failed, "Failed");
    let ended = report(world.services(), &world.ended(), at(65)).await.expect("read").expect("ended");
    assert!(ended.alert.as_ref().is_some_and(|a| a.body().contains("EngineFailed: the disk is full")), "{ended:?}");
    assert_eq!(metrics(&ended).len(), 1);
}

#[tokio::test]
async fn a_command_that_left_no_result_is_told_with_what_it_printed() {
    let world = World::owned().await;
    start(world.services(), at(0), at(1)).await.expect("started");
    world.aws.end_command(RunId::scheduled(at(0)).as_str(), CommandStatus::Failed, "ExecutionTimedOut");
    let ended = report(world.services(), &world.ended(), at(5)).await.expect("read").expect("ended");
    let body = ended.alert.expect("told").body();
    assert!(body.contains("ExecutionTimedOut") && body.contains("error: injected failure"), "{body}");
}
