//! Restoring from a replica what the target's own repository cannot give.
//!
//! Promises: a replica is asked only for what a repository can be at fault for, and then every one until one gives the backup; what was
//! wrong with those before is told, whether it succeeds or not. What is wrong here (the engine, the disk, the keys, the wish) ends it.

use crate::context::Context;
use crate::failure::Failure;
use crate::watch::{Progress, Watch};

/// Failures of one repository: another may be reached, have the backup, have it whole, or suit the engine. All others come back
/// wherever the same bytes are read from.
const OF_ONE_REPOSITORY: [&str; 14] = [
    "BackupDamaged",
    "BackupIncomplete",
    "EngineFindsNoBackup",
    "KeyNotInRepository",
    "KeyTampered",
    "NoSuchBackup",
    "NotInRepository",
    "NothingToRestore",
    "RecordDamaged",
    "RepositoryDenied",
    "RepositoryFailed",
    "RepositoryInvalid",
    "RepositoryUnavailable",
    "RepositoryUnsuitable",
];

/// Whether a restore that failed with this code may succeed from another repository.
pub fn another_may_help(code: &str) -> bool {
    OF_ONE_REPOSITORY.contains(&code)
}

/// What `restore` brings from the target's repository, else from the first replica that has it, and then why from there.
///
/// Where none has it, the target's own repository is what has to be put right: its failure is the one given back.
pub async fn from_where_it_can<T>(
    context: &Context,
    watch: &dyn Watch,
    restore: impl AsyncFn(&Context) -> Result<T, Failure>,
) -> Result<(T, Option<String>), Failure> {
    let first = match restore(context).await {
        Err(e) if another_may_help(e.code) => e,
        result => return Ok((result?, None)),
    };
    let mut passed_over = vec![format!("{}: {first}", context.target.repository)];
    for replica in &context.target.replicas {
        let why = passed_over.join("; ");
        watch.see(&Progress::stage(format!("the backup cannot be restored ({why}); trying {replica}")));
        let tried = match context.with_repository(replica) {
            Ok(there) => restore(&there).await,
            Err(e) => Err(e),
        };
        match tried {
            Ok(done) => return Ok((done, Some(format!("restored from {replica}, because: {why}")))),
            Err(e) if another_may_help(e.code) => passed_over.push(format!("{replica}: {e}")),
            Err(e) => {
                let message = format!("{e} (this was restoring from {replica}, because: {why})");
                return Err(Failure { message, ..e });
            }
        }
    }
    let replicas = passed_over.split_off(1);
    if replicas.is_empty() {
        return Err(first);
    }
    let message = format!("{first}; nor could it be restored from a replica: {}", replicas.join("; "));
    Err(Failure { message, ..first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Source;
    use crate::failure::Exit;
    use crate::watch::Nobody;

    #[test]
    fn only_what_a_repository_is_at_fault_for_falls_over() {
        for code in OF_ONE_REPOSITORY {
            assert!(another_may_help(code), "{code}");
        }
        let ours = [
            "SettingsInvalid",
            "BadPattern",
            "NotAFolder",
            "NotConfirmed",
            "NotEmpty",
            "OtherEngine",
            "SecretUnreadable",
        ];
        let keys = ["KeyWrong", "KeyMissing", "KeyDenied", "KeyUnavailable", "KeyNewer", "NotEncrypted", "AwsFailed"];
        let machine =
            ["DiskTooSmall", "FilesUnwritable", "FilesUnusable", "RepositoryFull", "StateUnusable", "Interrupted"];
        let engine = [
            "EngineUnreachable",
            "EngineNotReady",
            "EngineDenied",
            "EngineTimedOut",
            "EngineRestarted",
            "ServiceFailed",
        ];
        let same_bytes = ["RestoreDiffers", "RestoreRefused", "ManifestNewer", "VersionUnsupported", "HostNameDiffers"];
        for code in [&ours[..], &keys, &machine, &engine, &same_bytes].concat() {
            assert!(!another_may_help(code), "{code}");
        }
    }

    /// A target in `/a` with replicas in `/b` and `/c`.
    async fn context() -> Context {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docs.yaml");
        let settings =
            "name: docs\nengine: files\ndata_dir: /data\nrepository: file:///a\nreplicas: ['file:///b', 'file:///c']\n";
        std::fs::write(&path, settings).expect("written");
        Context::open(&Source::File(path)).await.expect("opened")
    }

    /// What comes of repositories that fail with these codes, in turn; those after them give their place. And how many were asked.
    async fn ended(codes: &[&'static str]) -> (Result<(String, Option<String>), Failure>, usize) {
        let asked = std::cell::Cell::new(0);
        let restore = async |context: &Context| {
            let code = codes.get(asked.replace(asked.get() + 1)).copied().unwrap_or_default();
            let place = context.repository.location();
            if code.is_empty() { Ok(place) } else { Err(Failure::new(Exit::Failed, code, format!("{code} there"))) }
        };
        (from_where_it_can(&context().await, &Nobody, restore).await, asked.get())
    }

    #[tokio::test]
    async fn each_replica_is_asked_until_one_has_the_backup() {
        let (done, _) = ended(&[]).await;
        assert_eq!(done, Ok(("file:///a".into(), None)));
        let (done, _) = ended(&["NothingToRestore", "RepositoryInvalid"]).await;
        let (place, why) = done.expect("restored");
        let expected =
            "restored from file:///c, because: file:///a: NothingToRestore there; file:///b: RepositoryInvalid there";
        assert_eq!((place.as_str(), why.as_deref()), ("file:///c", Some(expected)));
    }

    #[tokio::test]
    async fn the_first_failure_counts_unless_the_fault_is_here() {
        let (failed, asked) = ended(&["BackupDamaged", "RepositoryUnavailable", "NoSuchBackup"]).await;
        let failure = failed.expect_err("nothing to restore");
        assert_eq!((failure.code, asked), ("BackupDamaged", 3));
        assert!(
            failure.message.contains("file:///b: RepositoryUnavailable")
                && failure.message.contains("file:///c: NoSuch")
        );

        let (failed, asked) = ended(&["KeyWrong"]).await;
        assert_eq!((failed.expect_err("a wrong key").message.as_str(), asked), ("KeyWrong there", 1));
        let (failed, asked) = ended(&["BackupDamaged", "NotEmpty"]).await;
        let failure = failed.expect_err("refused");
        assert_eq!((failure.code, asked), ("NotEmpty", 2));
        assert!(failure.message.contains("because: file:///a: BackupDamaged"), "{failure}");
    }
}
