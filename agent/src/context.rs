//! Everything a command works with: one target's settings, repository and engine, and who this is.

use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use perennial_shared::aws;
use perennial_shared::aws::secrets_manager::SecretsManager;
use perennial_shared::aws::ssm::{Ssm, SsmApi};
use perennial_shared::encryption::{DataKey, KeyId, KeySources, keyring};
use perennial_shared::manifest::Archive;
use perennial_shared::repository::Repository;
use perennial_shared::secret;
use perennial_shared::settings::{
    self, EncryptionSettings, Engine as Kind, KeySettings, Method, RepositorySettings, SecretSource, Target,
};

use crate::engine::native::{Place, Root};
use crate::engine::{Engine, FileBackup, NativeBackup};
use crate::engines::qdrant::{self, Qdrant};
use crate::engines::redis::{self, Redis};
use crate::engines::weaviate::{self, Weaviate};
use crate::failure::{Exit, Failure};
use crate::instance;
use crate::state::State;

/// Where a target's settings are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A YAML file.
    File(PathBuf),
    /// The SSM parameter of the target with this name.
    Parameter(String),
}

/// One target, and the means to work with it.
pub struct Context {
    /// Its settings.
    pub target: Target,
    /// Credentials and region; without either when nothing of the target is in AWS.
    pub aws: SdkConfig,
    /// Its repository.
    pub repository: Repository,
}

impl Source {
    /// A path when it looks like one or is one, else the name of a target.
    pub fn of(text: &str) -> Self {
        let yaml = Path::new(text).extension().is_some_and(|e| e == "yaml" || e == "yml");
        if text.contains('/') || yaml || Path::new(text).is_file() {
            Self::File(text.into())
        } else {
            Self::Parameter(text.into())
        }
    }
}

impl Context {
    /// Reads the settings. Neither the repository nor the engine is asked yet.
    pub async fn open(source: &Source) -> Result<Self, Failure> {
        let (target, aws) = match source {
            Source::File(path) => {
                let target = from_file(path)?;
                let aws = if needs_aws(&target) { aws::config().await } else { aws::no_account() };
                (target, aws)
            }
            Source::Parameter(name) => {
                let aws = aws::config().await;
                (from_parameter(name, &aws).await?, aws)
            }
        };
        let repository = Repository::open(&target.repository, target.engine, &aws)?;
        Ok(Self { target: adapt(target), aws, repository })
    }

    /// The same target with its data in another repository: a replica.
    pub fn with_repository(&self, settings: &RepositorySettings) -> Result<Self, Failure> {
        let repository = Repository::open(settings, self.target.engine, &self.aws)?;
        let target = Target { repository: settings.clone(), ..self.target.clone() };
        Ok(Self { target, aws: self.aws.clone(), repository })
    }

    /// The target's engine, with its API key. Nothing is asked of it yet.
    pub async fn engine(&self) -> Result<Box<dyn Engine>, Failure> {
        self.database().await?.ok_or_else(|| {
            let message = "this target is a folder of files: there is no database to ask";
            Failure::new(Exit::Usage, "NoDatabase", message)
        })
    }

    /// Like [`Context::engine`]; `None` for a folder of files.
    pub async fn database(&self) -> Result<Option<Box<dyn Engine>>, Failure> {
        let key = match &self.target.api_key {
            Some(source) => Some(secret::read(source, &SecretsManager::new(&self.aws)).await?),
            None => None,
        };
        let Target { url, debug_url, data_dir, service, .. } = &self.target;
        Ok(match self.target.engine {
            Kind::Weaviate => {
                let options = weaviate::Options {
                    debug_url: debug_url.clone(),
                    host_name: self.target.host_name.clone(),
                    data_dir: data_dir.clone(),
                    service: service.clone(),
                    physical: self.target.method == Method::Physical,
                };
                Some(Box::new(Weaviate::new(url, key.as_ref(), options)?))
            }
            Kind::Qdrant => {
                let options = qdrant::Options { scratch: self.scratch()?, data_dir: data_dir.clone() };
                Some(Box::new(Qdrant::new(url, key.as_ref(), options)?))
            }
            Kind::Redis => {
                let options = redis::Options {
                    user: self.target.user.clone(),
                    method: self.target.method,
                    data_dir: data_dir.clone(),
                    service: service.clone(),
                    memory: Some(self.state()?.folder().join("redis.json")),
                };
                Some(Box::new(Redis::new(url, key.as_ref(), options)?))
            }
            Kind::Files => None,
        })
    }

    /// How the engine writes its backups itself, where the settings want that.
    pub fn native<'a>(&self, engine: &'a dyn Engine) -> Option<&'a dyn NativeBackup> {
        engine.native().filter(|_| self.target.method == Method::Native)
    }

    /// How the engine's files are captured.
    pub fn files<'a>(&self, engine: &'a dyn Engine) -> Result<&'a dyn FileBackup, Failure> {
        engine.files().ok_or_else(|| {
            let message = format!("the files of {} cannot be archived", self.target.engine.word());
            Failure::new(Exit::Usage, "NotAnArchive", message)
        })
    }

    /// A folder for copies of the engine's data that are made on the way: beside the data folder, where that is known.
    fn scratch(&self) -> Result<PathBuf, Failure> {
        let beside = self
            .target
            .data_dir
            .as_ref()
            .and_then(|d| Some(d.parent()?.join(format!(".{}.perennial", self.target.name))));
        match beside {
            Some(folder) => Ok(folder),
            None => Ok(self.state()?.folder().join("scratch")),
        }
    }

    /// Where the keys are that wrap the target's data keys. None is asked yet.
    pub fn key_sources(&self) -> Result<KeySources, Failure> {
        let Some(encryption) = &self.target.encryption else {
            let message = format!("{} has no `encryption` in its settings, so there are no keys", self.target.name);
            return Err(Failure::new(Exit::Usage, "NotEncrypted", message));
        };
        Ok(KeySources::new(encryption, &self.aws)?)
    }

    /// The key that a backup's archives are encrypted with; `None` for those that are not.
    pub async fn data_key(&self, archive: Option<&Archive>) -> Result<Option<DataKey>, Failure> {
        let Some(id) = archive.and_then(|a| a.key_id.as_deref()) else { return Ok(None) };
        let id = key_id(id)?;
        let sources = self.key_sources()?;
        Ok(Some(keyring::open(&self.repository, &sources.all(), &id).await?))
    }

    /// The instance this runs on; `None` for a target that is not in an Auto Scaling group.
    pub async fn instance(&self) -> Result<Option<String>, Failure> {
        if self.target.auto_scaling.is_none() && std::env::var_os("PERENNIAL_INSTANCE_ID").is_none() {
            return Ok(None);
        }
        instance::id().await
    }

    /// What is remembered of the target on this machine.
    pub fn state(&self) -> Result<State, Failure> {
        State::of_target(&self.target.name)
    }

    /// Where the engine finds the backup called `id`, whose folder is in `parent` (a key prefix of the repository).
    ///
    /// Fails where the engine itself cannot reach the repository.
    pub fn place(&self, parent: &str, id: &str) -> Result<Place, Failure> {
        let parent = parent.trim_matches('/');
        Ok(match &self.target.repository {
            RepositorySettings::S3 { bucket, prefix, .. } => {
                let path = format!("{prefix}/{parent}").trim_matches('/').to_owned();
                Place { root: Root::Bucket(bucket.clone()), path, id: id.into() }
            }
            RepositorySettings::Folder { path } => {
                Place { root: Root::Folder(path.display().to_string()), path: parent.into(), id: id.into() }
            }
            other @ (RepositorySettings::Google { .. } | RepositorySettings::Azure { .. }) => {
                let message = format!(
                    "the engine's own backup cannot be in {other}: it writes to and reads from s3:// and file:// only"
                );
                return Err(Failure::new(Exit::Usage, "RepositoryUnsuitable", message));
            }
        })
    }
}

/// The data key that a manifest names.
pub fn key_id(id: &str) -> Result<KeyId, Failure> {
    let bad = |e| Failure::new(Exit::Problems, "BackupDamaged", format!("its manifest names the key {id:?}: {e}"));
    id.parse().map_err(bad)
}

fn from_file(path: &Path) -> Result<Target, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new(
            Exit::Usage,
            "SettingsUnreadable",
            format!("{name}: {e}; --target takes a settings file or a target's name"),
        )
    })?;
    Ok(settings::parse(&name, &text)?)
}

async fn from_parameter(name: &str, aws: &SdkConfig) -> Result<Target, Failure> {
    let parameter = Target::parameter_name(name);
    let text = Ssm::new(aws).parameter(&parameter).await?;
    Ok(settings::parse(&parameter, &text)?)
}

fn needs_aws(target: &Target) -> bool {
    let in_s3 = |repository: &RepositorySettings| matches!(repository, RepositorySettings::S3 { .. });
    in_s3(&target.repository)
        || target.replicas.iter().any(in_s3)
        || matches!(target.api_key, Some(SecretSource::SecretsManager(_)))
        || target.encryption.as_ref().is_some_and(is_in_aws)
        || target.auto_scaling.is_some()
}

fn is_in_aws(encryption: &EncryptionSettings) -> bool {
    let mut keys = std::iter::once(&encryption.key).chain(&encryption.previous);
    keys.any(|key| matches!(key, KeySettings::Kms(_) | KeySettings::Secret(_)))
}

/// Where the engine really is on this machine, which the settings of many machines cannot know.
fn adapt(target: Target) -> Target {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    Target {
        url: variable("PERENNIAL_ENGINE_URL").unwrap_or(target.url),
        data_dir: variable("PERENNIAL_DATA_DIR").map(PathBuf::from).or(target.data_dir),
        ..target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_a_name() {
        for path in ["./docs", "/etc/perennial/docs", "docs.yaml", "docs.yml", "Cargo.toml"] {
            assert_eq!(Source::of(path), Source::File(path.into()));
        }
        assert_eq!(Source::of("docs"), Source::Parameter("docs".into()));
    }
}
