//! What a person is told by e-mail: what happened, to what, since when, what it means and what to do.
//!
//! One [`Alert`] becomes one e-mail: [`send`] records it as `alerts/<key>.json` in the repository, so that a doubled event or the
//! next tick does not mail again. When the repository cannot be read or written the e-mail goes out all the same: told twice is
//! better than not told, but for what is repeated as long as it lasts ([`send_noted_in`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aws::AwsError;
use crate::aws::sns::SnsApi;
use crate::repository::{Claimed, Repository, RepositoryError};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Good news, or a change that somebody may wonder about.
    Info,
    /// A promise is weaker than it should be; data is safe.
    Warning,
    /// The database is down or data is in danger: act now.
    Critical,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// What happened. Each kind has one text; the word is stable and may be filtered on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A replacement instance was restored and serves.
    Recovered,
    /// A target started for the first time, with an empty database.
    StartedEmpty,
    /// A restore failed; another attempt follows.
    RestoreFailed,
    /// A replacement instance was given up.
    LaunchAbandoned,
    /// Replacing stopped after repeated failures.
    ReplacementStopped,
    /// There is nothing to restore, and starting empty is not allowed.
    NothingToRestore,
    /// The repository could not be read while a restore waits for it.
    RepositoryUnreadable,
    /// The repository can be read again, after an instance was restored from a replica.
    RepositoryBack,
    /// The final backup of an instance failed.
    FinalBackupFailed,
    /// A final backup is made while nothing keeps clients from writing.
    WritesNotRefused,
    /// The instance that owned the data went away without a final backup.
    OwnerLost,
    /// Two instances want the target at once.
    TwoInstances,
    /// The endpoint could not be moved.
    EndpointFailed,
    /// A new instance is where the endpoint can never reach it: another zone, another subnet.
    AddressOutOfReach,
    /// A scheduled backup failed or was not started.
    BackupFailed,
    /// A backup is damaged or incomplete.
    BackupDamaged,
    /// The newest backup is older than promised.
    BackupTooOld,
    /// The backups could not be examined.
    VerificationInconclusive,
    /// A command on the instance failed.
    CommandFailed,
    /// The group launched or terminated an instance.
    GroupNotice,
    /// The group could not launch or terminate an instance.
    GroupFailed,
    /// An event could not be handled, after all retries.
    DeadLetter,
}

impl Kind {
    /// Whether it is a state that is told again and again while it lasts, not an event.
    fn lasts(self) -> bool {
        matches!(
            self,
            Self::NothingToRestore
                | Self::RepositoryUnreadable
                | Self::TwoInstances
                | Self::EndpointFailed
                | Self::AddressOutOfReach
        )
    }

    fn severity(self) -> Severity {
        match self {
            Self::Recovered | Self::StartedEmpty | Self::GroupNotice => Severity::Info,
            Self::RestoreFailed
            | Self::RepositoryBack
            | Self::WritesNotRefused
            | Self::OwnerLost
            | Self::TwoInstances
            | Self::BackupFailed
            | Self::BackupTooOld
            | Self::VerificationInconclusive
            | Self::CommandFailed
            | Self::DeadLetter => Severity::Warning,
            Self::GroupFailed
            | Self::LaunchAbandoned
            | Self::ReplacementStopped
            | Self::NothingToRestore
            | Self::RepositoryUnreadable
            | Self::FinalBackupFailed
            | Self::EndpointFailed
            | Self::AddressOutOfReach
            | Self::BackupDamaged => Severity::Critical,
        }
    }

    fn headline(self) -> &'static str {
        match self {
            Self::Recovered => "replacement instance restored and serving",
            Self::StartedEmpty => "started for the first time, with an empty database",
            Self::RestoreFailed => "a restore failed, trying again",
            Self::LaunchAbandoned => "a replacement instance was given up",
            Self::ReplacementStopped => "down: replacing stopped after repeated failures",
            Self::NothingToRestore => "down: there is nothing to restore",
            Self::RepositoryUnreadable => "down: the backups cannot be read",
            Self::RepositoryBack => "restored from a replica; backups go to the repository again",
            Self::FinalBackupFailed => "the final backup failed, instance kept",
            Self::WritesNotRefused => "writes during this replacement may be lost",
            Self::OwnerLost => "the instance was lost without a final backup",
            Self::TwoInstances => "two instances want to serve at once",
            Self::EndpointFailed => "the address could not be moved",
            Self::AddressOutOfReach => "down: the new instance is where the address cannot go",
            Self::BackupFailed => "a backup failed",
            Self::BackupDamaged => "a backup is damaged",
            Self::BackupTooOld => "the newest backup is too old",
            Self::VerificationInconclusive => "backups could not be verified",
            Self::CommandFailed => "a command on the instance failed",
            Self::GroupNotice => "the Auto Scaling group changed",
            Self::GroupFailed => "the Auto Scaling group could not launch or end an instance",
            Self::DeadLetter => "an event could not be handled",
        }
    }

    /// What it means for the database and its data.
    fn meaning(self) -> &'static str {
        match self {
            Self::Recovered => "Clients reach the restored database at the same address as before.",
            Self::StartedEmpty => "Clients reach an empty database. There is no backup until the first schedule.",
            Self::RestoreFailed => "The database is not served yet. Perennial goes on with the next attempt by itself.",
            Self::LaunchAbandoned => {
                "The database is down. The group launches another instance and the restore starts again."
            }
            Self::ReplacementStopped => {
                "The database is down and stays down until you act. The last instance is kept for you to look at."
            }
            Self::NothingToRestore => {
                "The database is down. An empty one is not put in service, because clients would take it for the real one."
            }
            Self::RepositoryUnreadable => {
                "An instance waits to be restored or saved. A repository that cannot be read is not taken for an empty one."
            }
            Self::RepositoryBack => {
                "The database serves what the replica held. Backups go to the repository again; one that is newer there was not restored, and stays."
            }
            Self::FinalBackupFailed => {
                "What was written since the last backup exists only on this instance. It is kept (Terminating:Retained) where the group's policy says so."
            }
            Self::WritesNotRefused => {
                "An instance makes its final backup and then ends, and nothing keeps clients from writing to it. What it acknowledges once that backup has begun is lost with it."
            }
            Self::OwnerLost => "Writes since the newest backup are lost. The replacement restores that backup.",
            Self::TwoInstances => {
                "The instance in service keeps serving; the new one waits in its launch hook and was not given the data or the address."
            }
            Self::EndpointFailed => "The data is restored, but clients do not reach it.",
            Self::AddressOutOfReach => {
                "The database is down. A network interface cannot leave its zone, a private address not its subnet; the instance is kept waiting and nothing is restored on it."
            }
            Self::BackupFailed => "The database serves. Its newest backup gets older until a backup succeeds.",
            Self::BackupDamaged => "The database serves. A restore would pass this backup over and take an older one.",
            Self::BackupTooOld => "The database serves. If the instance died now, more would be lost than promised.",
            Self::VerificationInconclusive => "Nothing is known to be wrong, and nothing is known to be right.",
            Self::CommandFailed => "The message below tells which run it was.",
            Self::GroupFailed => "If no instance is in service the database is down until the group succeeds.",
            Self::GroupNotice => {
                "For your information: a launch is followed by a restore, a termination by a final backup."
            }
            Self::DeadLetter => {
                "The one-minute tick of the lifecycle function repairs what a lost lifecycle event leaves; a lost schedule means a missed backup or check."
            }
        }
    }

    /// What the reader should do.
    fn to_do(self, target: &str) -> String {
        match self {
            Self::Recovered => "Nothing, unless the counts below surprise you.".into(),
            Self::StartedEmpty => format!("If data should have been there, stop clients now and look at `perennial --target {target} backup list`."),
            Self::RestoreFailed => "Nothing yet. If the next message is not good news, read the reason below.".into(),
            Self::LaunchAbandoned => format!("Read the reason below. `perennial --target {target} backup verify` tells whether the backups are good."),
            Self::ReplacementStopped => format!(
                "Read the reason below and repair it. `perennial --target {target} backup list` and `backup verify` show what can be restored. \
                 Then terminate the kept instance in its group: the next one restores again."
            ),
            Self::NothingToRestore => "For a new target set restore.empty_repository: allow. Otherwise check repository.url in the settings: the backups are not where it points.".into(),
            Self::RepositoryUnreadable => "Check the bucket, its policy and the lifecycle function's role. It tries again every minute and keeps the instance waiting; where the settings name replicas, one stands in after restore.fall_over_after.".into(),
            Self::RepositoryBack => format!(
                "Take a backup now (`perennial --target {target} backup create`). Where the backups named below differ, look at \
                 `backup list` for what the newer one holds."
            ),
            Self::FinalBackupFailed => format!(
                "Connect to the instance (aws ssm start-session) and run `perennial --target {target} backup create`, \
                 or copy the data folder. Then end it: aws autoscaling terminate-instance-in-auto-scaling-group."
            ),
            Self::WritesNotRefused => "Stop what writes to the old instance until the new one serves, and write again what was written meanwhile. \
                 For the next replacement set an endpoint, which is taken away before the final backup, or stop what writes \
                 before you replace the instance.".into(),
            Self::OwnerLost => "Write again what was written after the time of the newest backup, named below.".into(),
            Self::TwoInstances => "Keep the group at one: max size 1, and instance refreshes with MinHealthyPercentage 0, so that the old instance goes first.".into(),
            Self::EndpointFailed => "Check that the address exists and that the lifecycle function may move it; it tries again every minute.".into(),
            Self::AddressOutOfReach => "Pin the group to the zone or subnet named below (VPCZoneIdentifier; SubnetIds in infra/group.yaml), then terminate the instance in its group: the next one is restored and gets the address.".into(),
            Self::BackupFailed => format!("Run `perennial --target {target} doctor` on the instance, then `backup create`."),
            Self::BackupDamaged => format!("Take a new backup now that needs nothing of the old ones (`perennial --target {target} backup create --type base`), then find out who changed the bucket."),
            Self::BackupTooOld => format!("See why the schedule did not run; `perennial --target {target} backup create` takes one now."),
            Self::VerificationInconclusive => "Check the verify function's permissions and the bucket; it tries again at its next schedule.".into(),
            Self::CommandFailed => "Read the message; `aws ssm get-command-invocation` shows all of the output.".into(),
            Self::GroupFailed => "Read the group's reason below: capacity, quota, image or subnet. The group tries again by itself.".into(),
            Self::GroupNotice => "Nothing.".into(),
            Self::DeadLetter => "Read the reason below and the function's log. The message stays recorded here only.".into(),
        }
    }
}

/// Something to tell a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What happened.
    pub kind: Kind,
    /// Target's name.
    pub target: String,
    /// Instance, group, bucket or function concerned.
    pub place: String,
    /// Since when.
    pub since: Timestamp,
    /// What was seen, a line each: reasons, counts, durations.
    pub details: Vec<String>,
    /// Alerts with the same key are sent once. Letters, digits and `-`.
    pub key: String,
}

impl Alert {
    /// An alert that is sent once for `place`.
    pub fn new(kind: Kind, target: &str, place: &str, since: Timestamp) -> Self {
        let key = format!("{kind:?}-{place}").to_lowercase();
        Self { kind, target: target.into(), place: place.into(), since, details: vec![], key }
    }

    /// Adds lines of detail.
    #[must_use]
    pub fn with(mut self, details: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.details.extend(details.into_iter().map(Into::into));
        self
    }

    /// Sent once for this key instead.
    #[must_use]
    pub fn once_for(mut self, key: &str) -> Self {
        self.key = format!("{:?}-{key}", self.kind).to_lowercase();
        self
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }

    /// The subject line: ASCII, one line, under 100 characters, as SNS demands.
    pub fn subject(&self) -> String {
        let text = format!("[{}] {}: {}", self.severity().word(), self.target, self.kind.headline());
        text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(99).collect()
    }

    /// The body.
    pub fn body(&self) -> String {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        let mut body = format!(
            "What:   {}\nTarget: {}\nWhere:  {}\nSince:  {since}\n\nWhat it means\n  {}\n\nWhat to do\n  {}\n",
            self.kind.headline(),
            self.target,
            self.place,
            self.kind.meaning(),
            self.kind.to_do(&self.target),
        );
        if !self.details.is_empty() {
            body.push_str("\nDetails\n");
            for line in self.details.iter().flat_map(|d| d.lines()) {
                body.push_str("  ");
                body.push_str(line);
                body.push('\n');
            }
        }
        body
    }
}

/// Whoever sends says so first. After this many seconds without the record that it was sent, the sender has died.
const SENDER_GONE_AFTER: i64 = 30;

/// `alerts/<key>.json` when it was sent, `alerts/<key>.sending.json` before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    subject: String,
    at: Timestamp,
    nonce: String,
}

impl Record {
    fn new(alert: &Alert, at: Timestamp) -> Self {
        Self { subject: alert.subject(), at, nonce: crate::pointer::nonce() }
    }
}

/// What becomes of an alert that will be repeated anyway, when it cannot be noted anywhere that it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnoted {
    /// It goes out.
    Send,
    /// It is not worth an e-mail now.
    KeepBack,
}

/// Tells a person, once for each key. Whether it was sent now.
///
/// Two that want to send at once agree by the first record; a sender that died between sending and the second record is
/// followed by another e-mail, because the other order would not mail at all.
pub async fn send(alert: &Alert, topic: &str, sns: &dyn SnsApi, repository: &Repository) -> Result<bool, AwsError> {
    send_noted_in(&[repository], alert, topic, sns, Unnoted::Send).await
}

/// As [`send`], noted in the first of these repositories that takes a note.
pub async fn send_noted_in(
    places: &[&Repository],
    alert: &Alert,
    topic: &str,
    sns: &dyn SnsApi,
    unnoted: Unnoted,
) -> Result<bool, AwsError> {
    let key: String = alert.key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let (sent, sending) = (format!("alerts/{key}.json"), format!("alerts/{key}.sending.json"));
    let mut noted_in = None;
    for repository in places {
        match may_send(alert, &sent, &sending, repository).await {
            Ok(true) => {
                noted_in = Some(repository);
                break;
            }
            Ok(false) => return Ok(false),
            Err(e) => tracing::warn!(error = %e, location = repository.location(), "cannot note alerts"),
        }
    }
    if noted_in.is_none() && unnoted == Unnoted::KeepBack && alert.kind.lasts() {
        return Ok(false);
    }
    if let Err(e) = sns.publish(topic, &alert.subject(), &alert.body()).await {
        // The next try must not wait for a sender that has given up. If this fails too, it waits half a minute.
        if let Some(repository) = noted_in {
            let gave_up = crate::manifest::to_json(&Record::new(alert, Timestamp::UNIX_EPOCH));
            let _ = repository.store().put(&sending, gave_up.into()).await;
        }
        return Err(e);
    }
    let Some(repository) = noted_in else {
        tracing::warn!(key, "nobody noted that this alert was sent; it may be sent twice");
        return Ok(true);
    };
    if let Err(e) = repository.create_record(&sent, &Record::new(alert, Timestamp::now())).await {
        tracing::warn!(error = %e, "cannot record that this alert was sent; it may be sent twice");
    }
    Ok(true)
}

async fn may_send(alert: &Alert, sent: &str, sending: &str, repository: &Repository) -> Result<bool, RepositoryError> {
    if repository.record::<Record>(sent).await?.is_some() {
        return Ok(false);
    }
    let now = Timestamp::now();
    Ok(match repository.create_record(sending, &Record::new(alert, now)).await? {
        Claimed::Won => true,
        Claimed::Lost(other) => now.duration_since(other.at).as_secs() >= SENDER_GONE_AFTER,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aws::AwsErrorKind;
    use crate::aws::fake::FakeAws;
    use crate::settings::Engine;
    use crate::store::memory::MemoryStore;

    fn alert() -> Alert {
        let at = "2026-11-21T10:55:01Z".parse().expect("a time");
        Alert::new(Kind::BackupTooOld, "docs", "s3://bucket/prefix", at).with(["newest: b1, 30 hours old"])
    }

    #[test]
    fn a_person_reads_what_where_since_when_and_what_to_do() {
        let (subject, body) = (alert().subject(), alert().body());
        assert_eq!(subject, "[WARNING] docs: the newest backup is too old");
        for part in [
            "Where:  s3://bucket/prefix",
            "Since:  2026-11-21 10:55:01 UTC",
            "What to do",
            "backup create",
            "30 hours old",
        ] {
            assert!(body.contains(part), "{part}: {body}");
        }
    }

    #[test]
    fn after_damage_a_base_is_asked_for_because_an_increment_would_rest_on_it() {
        let body = Alert { kind: Kind::BackupDamaged, ..alert() }.body();
        assert!(body.contains("`perennial --target docs backup create --type base`"), "{body}");
    }

    #[test]
    fn a_subject_keeps_to_the_rules_of_sns() {
        let mut alert = alert();
        alert.target = "é\n".repeat(200);
        let subject = alert.subject();
        assert!(subject.len() < 100 && subject.is_ascii() && !subject.contains('\n'));
    }

    #[tokio::test]
    async fn it_is_sent_once_and_again_only_when_sending_failed() {
        let (aws, repository) =
            (FakeAws::default(), Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate));
        aws.fail_next("sns:Publish", AwsErrorKind::Unavailable);
        assert!(send(&alert(), "topic", &aws, &repository).await.is_err());
        assert!(send(&alert(), "topic", &aws, &repository).await.expect("sent"));
        assert!(!send(&alert(), "topic", &aws, &repository).await.expect("known"));
        assert_eq!(aws.state().mail.len(), 1);
    }

    #[tokio::test]
    async fn two_that_send_at_once_send_one() {
        let (aws, repository) =
            (FakeAws::default(), Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate));
        let alert = alert();
        let (one, two) =
            tokio::join!(send(&alert, "topic", &aws, &repository), send(&alert, "topic", &aws, &repository));
        assert_ne!(one.expect("sent"), two.expect("left to the other"));
        assert_eq!(aws.state().mail.len(), 1);
    }

    #[tokio::test]
    async fn what_the_first_repository_cannot_note_is_noted_in_the_next_and_else_not_repeated() {
        use crate::store::faulty::{Fault, FaultyStore};
        let aws = FakeAws::default();
        let good = Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate);
        let broken = FaultyStore::crash(Arc::new(MemoryStore::default()), 0, Fault::Before);
        let broken = Repository::new(Arc::new(broken), Engine::Weaviate);
        let lasting = Alert { kind: Kind::RepositoryUnreadable, ..alert() };
        let send = async |places: &[&Repository], alert: &Alert, unnoted| {
            send_noted_in(places, alert, "topic", &aws, unnoted).await.expect("answered")
        };
        assert!(send(&[&broken, &good], &lasting, Unnoted::Send).await);
        assert!(!send(&[&broken, &good], &lasting, Unnoted::Send).await, "it is noted");
        assert!(!send(&[&broken], &lasting, Unnoted::KeepBack).await);
        assert!(send(&[&broken], &lasting, Unnoted::Send).await);
        assert!(send(&[&broken], &alert(), Unnoted::KeepBack).await, "an event is not told again");
    }
}
