//! A connection to the server: commands, and what its refusals mean.
//!
//! Every call is bounded in time. The password is sent by `AUTH`, by ourselves, because the server's own word for a refusal tells a
//! wrong password from a missing right; it stands in no error and in no log. A connection belongs to one database for its life.

use std::time::Duration;

use perennial_shared::secret::Secret;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, IntoConnectionInfo, RedisConnectionInfo, RedisError, Value};

use super::info::Info;
use crate::engine::EngineError;

/// The server answers within this time; nothing that is asked of it takes long.
const ANSWER: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);

/// How the server is reached.
#[derive(Debug, Clone)]
pub(super) struct Client {
    url: String,
    redis: redis::Client,
    user: Option<String>,
    key: Option<Secret>,
}

/// A connection.
pub(super) struct Link {
    url: String,
    connection: MultiplexedConnection,
}

impl Client {
    pub(super) fn new(url: &str, key: Option<&Secret>, user: Option<&str>) -> Result<Self, EngineError> {
        let unusable = |why: &str| EngineError::Unsupported(format!("`url` is no address of a Redis server: {why}"));
        let address = url.into_connection_info().map_err(|e| unusable(&e.to_string()))?;
        let given = address.redis_settings();
        if given.password().is_some() || given.username().is_some() {
            return Err(unusable("it holds a user or a password; those are `user` and `api_key`"));
        }
        if given.db() != 0 {
            return Err(unusable("it names a database, and all of them are backed up"));
        }
        let address = address.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
        let redis = redis::Client::open(address).map_err(|e| unusable(&e.to_string()))?;
        Ok(Self { url: url.into(), redis, user: user.map(Into::into), key: key.cloned() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A connection to database 0, which is as good as any for what concerns the whole server.
    pub(super) async fn open(&self) -> Result<Link, EngineError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let connecting = self.redis.get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await.map_err(|e| refused(&self.url, "connecting", &e))?;
        let mut link = Link { url: self.url.clone(), connection };
        if let Some(key) = &self.key {
            let words = ["AUTH"].into_iter().chain(self.user.as_deref()).chain([key.expose()]);
            let words: Vec<_> = words.collect();
            link.call(&words).await.map_err(|e| self.unauthorized(e))?;
        }
        Ok(link)
    }

    /// A connection to one database.
    pub(super) async fn open_database(&self, number: u32) -> Result<Link, EngineError> {
        let mut link = self.open().await?;
        if number > 0 {
            link.call(&["SELECT", &number.to_string()]).await?;
        }
        Ok(link)
    }

    /// Whatever the server has against an `AUTH` is about the key: no password configured, an unknown user, a wrong password.
    fn unauthorized(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Failed { why, .. } => EngineError::Unauthorized { url: self.url.clone(), why },
            other => other,
        }
    }
}

impl Link {
    /// Sends one command.
    pub(super) async fn call<W: AsRef<[u8]> + Sync>(&mut self, words: &[W]) -> Result<Value, EngineError> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        let answer: Result<Value, RedisError> = command.query_async(&mut self.connection).await;
        answer.map_err(|e| refused(&self.url, &name(words), &e))
    }

    /// Sections of `INFO`.
    pub(super) async fn info(&mut self, section: &str) -> Result<Info, EngineError> {
        Ok(Info::parse(&text(self.call(&["INFO", section]).await?)))
    }

    /// A setting as it is in force; `None` for one that this server does not know.
    pub(super) async fn setting(&mut self, name: &str) -> Result<Option<String>, EngineError> {
        let Value::Array(mut pair) = self.call(&["CONFIG", "GET", name]).await? else { return Ok(None) };
        Ok(if pair.len() < 2 { None } else { Some(text(pair.swap_remove(1))) })
    }
}

/// A command's name without its arguments, which may hold data or secrets.
fn name<W: AsRef<[u8]>>(words: &[W]) -> String {
    let words: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(w.as_ref()).into_owned()).collect();
    let two = matches!(words.first().map(String::as_str), Some("CONFIG" | "MEMORY" | "ACL"));
    words.into_iter().take(1 + usize::from(two)).collect::<Vec<_>>().join(" ")
}

fn refused(url: &str, request: &str, error: &RedisError) -> EngineError {
    let url = || url.to_owned();
    let why = || match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        _ => error.to_string(),
    };
    match error.code() {
        Some("NOAUTH" | "WRONGPASS") => EngineError::Unauthorized { url: url(), why: why() },
        Some("NOPERM") => EngineError::Forbidden { url: url(), request: request.into(), why: why() },
        Some("LOADING" | "BUSY" | "MASTERDOWN") => EngineError::NotReady { url: url(), why: why() },
        // The server closes a connection that it has no place for after it said so.
        _ if error.to_string().contains("max number of clients") => EngineError::NotReady { url: url(), why: why() },
        None if error.is_timeout() => {
            EngineError::NotReady { url: url(), why: format!("{request} was not answered in time") }
        }
        None if error.is_io_error() || error.is_connection_dropped() => {
            EngineError::Unreachable { url: url(), why: error.to_string() }
        }
        _ => EngineError::Failed { what: "execution", id: request.into(), why: why() },
    }
}

/// The text of an answer; empty where there is none.
pub(super) fn text(value: Value) -> String {
    String::from_utf8(bytes(value)).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// The bytes of an answer; empty where there are none.
pub(super) fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.into_bytes(),
        Value::Okay => b"OK".to_vec(),
        Value::Int(number) => number.to_string().into_bytes(),
        _ => vec![],
    }
}

/// The number of an answer.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

/// The parts of an answer.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_address_and_nothing_else() {
        for (url, good) in [
            ("redis://127.0.0.1:6379", true),
            ("rediss://db.example.com", true),
            ("redis://127.0.0.1:6379/0", true),
            ("redis://127.0.0.1:6379/3", false),
            ("redis://:secret@127.0.0.1", false),
            ("redis://user@127.0.0.1", false),
            ("http://127.0.0.1", false),
        ] {
            let made = Client::new(url, None, None);
            assert_eq!(made.is_ok(), good, "{url}");
            assert!(made.err().is_none_or(|e| !e.to_string().contains("secret")), "{url}");
        }
    }

    #[test]
    fn a_command_is_named_without_what_it_carries() {
        assert_eq!(name(&["AUTH", "user", "secret"]), "AUTH");
        assert_eq!(name(&["CONFIG", "SET", "requirepass", "secret"]), "CONFIG SET");
        assert_eq!(name(&["GET", "key"]), "GET");
    }
}
