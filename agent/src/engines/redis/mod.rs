//! Redis.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use perennial_shared::manifest::Sample;
use perennial_shared::secret::Secret;
use perennial_shared::settings::{Method, Service};

use crate::check::Check;
use crate::engine::{Answer, Counted, Engine, EngineError, Identity};

/// One Redis server.
#[derive(Debug)]
pub struct Redis {
    #[allow(dead_code)]
    options: Options,
}

/// What must be known of a Redis server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The ACL user that the key belongs to; `None` is the default user.
    pub user: Option<String>,
    /// What is captured.
    pub method: Method,
    /// The server's `dir` as this program sees it; `None` asks the server.
    pub data_dir: Option<PathBuf>,
    /// How it is started and stopped.
    pub service: Option<Service>,
}

impl Redis {
    /// The server at `url`; nothing is sent yet.
    pub fn new(_url: &str, _key: Option<&Secret>, options: Options) -> Result<Self, EngineError> {
        Ok(Self { options })
    }
}

fn todo<T>() -> Result<T, EngineError> {
    Err(EngineError::Unsupported("not written yet".into()))
}

#[async_trait]
impl Engine for Redis {
    async fn health(&self) -> Result<(), EngineError> {
        todo()
    }
    async fn wait_until_ready(&self, _: Duration) -> Result<(), EngineError> {
        todo()
    }
    async fn identity(&self) -> Result<Identity, EngineError> {
        todo()
    }
    async fn collections(&self) -> Result<Vec<String>, EngineError> {
        todo()
    }
    async fn count(&self) -> Result<Vec<Counted>, EngineError> {
        todo()
    }
    async fn samples(&self, _: &str, _: usize) -> Result<Vec<Sample>, EngineError> {
        todo()
    }
    async fn ask(&self, _: &str, _: &Sample) -> Result<Answer, EngineError> {
        todo()
    }
    fn can_refuse_writes(&self) -> bool {
        false
    }
    async fn refuse_writes(&self) -> Result<(), EngineError> {
        todo()
    }
    async fn accept_writes(&self) -> Result<(), EngineError> {
        todo()
    }
    async fn examine(&self) -> Vec<Check> {
        vec![]
    }
}
