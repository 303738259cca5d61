//! A real Redis with a password, which the program can stop and start.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use perennial::engine::Engine;
use perennial::engines::redis::{Options, Redis};
use perennial_shared::secret::Secret;
use perennial_shared::settings::Method;
use redis::AsyncConnectionConfig;

use super::scripted::Scripted;
use super::{free_ports, installed};

/// The password of the default user.
pub const PASSWORD: &str = "test-password";
/// For one answer, on a busy machine; the library's own half second is too short.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis with its own data folder. It does not outlive its test.
#[derive(Debug)]
pub struct RedisServer {
    script: Scripted,
    folder: tempfile::TempDir,
    port: u16,
}

impl RedisServer {
    /// Starts it with these lines in its configuration file and waits until it answers.
    pub async fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("made");
        let [port] = free_ports();
        let text = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass {PASSWORD}\ndir {}\nlogfile {}\nenable-debug-command local\n{configuration}\n",
            data.display(),
            folder.path().join("redis.log").display()
        );
        std::fs::write(folder.path().join("redis.conf"), text).expect("written");
        let mut command = Command::new(installed("redis-server"));
        command.arg(folder.path().join("redis.conf")).current_dir(folder.path());
        let script = Scripted::new(folder.path(), &command);
        script.start();
        let server = Self { script, folder, port };
        server.wait().await;
        server
    }

    /// Waits until it is ready.
    pub async fn wait(&self) {
        let ready = self.engine(Method::Both).wait_until_ready(Duration::from_mins(2)).await;
        ready.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default();
        format!("{log}{}", self.script.log())
    }

    /// Its scripts.
    pub fn script(&self) -> &Scripted {
        &self.script
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("redis.conf")
    }

    /// The folder that everything of it is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The engine as the product uses it.
    pub fn engine(&self, method: Method) -> Redis {
        self.engine_of(None, PASSWORD, method)
    }

    /// The engine of another user.
    pub fn engine_of(&self, user: Option<&str>, password: &str, method: Method) -> Redis {
        let options = Options {
            user: user.map(Into::into),
            method,
            data_dir: None,
            service: Some(self.script.service()),
            memory: None,
        };
        Redis::new(&self.url(), Some(&Secret::new(password)), options).expect("an address")
    }

    /// What a target's settings say of it; `more` is added.
    pub fn settings(&self, more: &str) -> String {
        format!("engine: redis\nurl: {}\n{}\n{more}", self.url(), self.script.settings())
    }

    /// A connection of a client.
    pub async fn client(&self) -> Client {
        self.client_if_up().await.expect("it answers")
    }

    /// A connection of a client, if the server runs.
    pub async fn client_if_up(&self) -> Option<Client> {
        Client::of(&self.url()).await
    }
}

/// A client of the server.
pub struct Client {
    connection: redis::aio::MultiplexedConnection,
}

impl Client {
    /// A client of the server at this address, if it answers.
    pub async fn of(url: &str) -> Option<Self> {
        let client = redis::Client::open(url).expect("an address");
        let patient =
            AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE)).set_connection_timeout(Some(PATIENCE));
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await.ok()?;
        let mut client = Self { connection };
        // A server that is starting to load its data takes connections and refuses this.
        client.try_say(&["AUTH", PASSWORD]).await.ok()?;
        Some(client)
    }

    /// Sends a command, which must succeed.
    pub async fn say(&mut self, words: &[&str]) -> redis::Value {
        self.try_say(words).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Sends a command.
    pub async fn try_say(&mut self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.connection).await
    }

    /// Sends a command and gives its answer as text.
    pub async fn text(&mut self, words: &[&str]) -> String {
        redis::from_redis_value(self.say(words).await).expect("a text")
    }

    /// Sets the keys `PREFIX0` and so on, in steps of many.
    pub async fn fill(&mut self, prefix: &str, range: std::ops::Range<u64>) {
        for some in range.collect::<Vec<_>>().chunks(500) {
            let mut command = redis::cmd("MSET");
            for n in some {
                command.arg(format!("{prefix}{n}")).arg(format!("value {n} of {prefix}"));
            }
            command.query_async::<()>(&mut self.connection).await.expect("set");
        }
    }

    /// A digest of all data, as the server makes it: the same for the same data.
    pub async fn digest(&mut self) -> String {
        self.text(&["DEBUG", "DIGEST"]).await
    }
}
