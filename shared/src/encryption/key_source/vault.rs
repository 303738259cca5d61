//! A key in `HashiCorp` Vault's (or `OpenBao`'s) key-value engine, version 2.
//!
//! One request: `GET <address>/v1/<mount>/data/<path>`, with a token out of a variable or a file. The token is read anew for
//! each request, because Vault's agent renews it in its file.
//!
//! How it fails: 403 is [`KeyError::Denied`] (Vault answers so for a bad token and for a policy alike); 404, a deleted version
//! and a secret without the field are [`KeyError::Missing`]; 5xx (a sealed Vault is 503), 429 and no answer are
//! [`KeyError::Unavailable`]. A redirect, by which a standby points to the active node, is followed to the same scheme only,
//! so that a token never travels unencrypted.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::KeyError;
use super::raw::KeyText;
use crate::aws::chain;
use crate::settings::{TokenSource, VaultSettings};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A field of a secret in Vault.
#[derive(Debug, Clone)]
pub struct Vault {
    settings: VaultSettings,
    client: Client,
}

/// A reply, as far as it matters. Errors come as `{"errors": [...]}`, a deleted version with `data.data` null.
#[derive(Deserialize, Default)]
struct Reply {
    data: Option<Version>,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Version {
    data: Option<Map<String, Value>>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

impl Vault {
    /// The secret that the settings name. Nothing is asked yet.
    pub fn new(settings: VaultSettings) -> Result<Self, KeyError> {
        let policy = Policy::custom(same_scheme);
        let client = Client::builder().connect_timeout(TIMEOUT).timeout(TIMEOUT).redirect(policy).build();
        let client = client.map_err(|e| KeyError::Unavailable { source_name: name(&settings), why: chain(&e) })?;
        Ok(Self { settings, client })
    }

    fn missing(&self, why: impl Into<String>) -> KeyError {
        KeyError::Missing { source_name: self.describe(), why: why.into() }
    }

    fn unavailable(&self, why: impl Into<String>) -> KeyError {
        KeyError::Unavailable { source_name: self.describe(), why: why.into() }
    }

    async fn token(&self) -> Result<HeaderValue, KeyError> {
        let (text, place) = match &self.settings.token {
            TokenSource::Env(name) => {
                let text = std::env::var(name).map_err(|_| self.missing(format!("{name} (its token) is not set")))?;
                (Zeroizing::new(text), name.clone())
            }
            TokenSource::File(path) => {
                let place = path.display().to_string();
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|e| self.missing(format!("its token cannot be read from {place}: {e}")))?;
                (Zeroizing::new(text), place)
            }
        };
        let mut token = HeaderValue::from_str(text.trim())
            .ok()
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.missing(format!("what stands in {place} is not a Vault token")))?;
        token.set_sensitive(true);
        Ok(token)
    }

    async fn ask(&self) -> Result<Response, KeyError> {
        let VaultSettings { address, mount, path, namespace, .. } = &self.settings;
        let mut request = self.client.get(format!("{address}/v1/{mount}/data/{path}"));
        request = request.header("X-Vault-Token", self.token().await?).header("X-Vault-Request", "true");
        if let Some(namespace) = namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        request.send().await.map_err(|e| self.unavailable(chain(&e)))
    }

    /// What a reply other than 200 means.
    fn refused(&self, status: StatusCode, reply: &Reply) -> KeyError {
        let said = if reply.errors.is_empty() { status.to_string() } else { reply.errors.join("; ") };
        // An error may come in several lines.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        match status.as_u16() {
            401 | 403 => KeyError::Denied {
                source_name: self.describe(),
                why: format!("{said}; check the token, its policy (read on {}) and the namespace", self.policy_path()),
            },
            404 => self.missing(absent(reply).unwrap_or_else(|| {
                format!(
                    "nothing is stored there ({said}); check mount, path and namespace, and that the mount is version 2"
                )
            })),
            412 | 429 | 500.. => self.unavailable(said),
            300..=399 => self.unavailable(format!("it redirects to another scheme ({said})")),
            _ => self.missing(format!("it did not take the request: {said}")),
        }
    }

    fn policy_path(&self) -> String {
        format!("{}/data/{}", self.settings.mount, self.settings.path)
    }
}

/// A deleted or destroyed version says so in a reply of 404.
fn absent(reply: &Reply) -> Option<String> {
    let metadata = reply.data.as_ref()?.metadata.as_ref()?;
    if metadata.destroyed {
        return Some("its newest version was destroyed".into());
    }
    let at = &metadata.deletion_time;
    (!at.is_empty()).then(|| format!("its newest version was deleted at {at}; `vault kv undelete` brings it back"))
}

/// One or two standbys may point onwards, and not from https to http.
fn same_scheme(attempt: Attempt) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| first.scheme() == attempt.url().scheme());
    if same && attempt.previous().len() <= 3 { attempt.follow() } else { attempt.stop() }
}

fn name(settings: &VaultSettings) -> String {
    let VaultSettings { address, mount, path, field, .. } = settings;
    format!("field {field} of Vault's {mount}/{path} at {address}")
}

#[async_trait]
impl KeyText for Vault {
    fn describe(&self) -> String {
        name(&self.settings)
    }

    async fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        let response = self.ask().await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| self.unavailable(chain(&e)))?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &serde_json::from_slice(&body).unwrap_or_default()));
        }
        // What serde says of a body that is not a reply could quote the key.
        let reply: Reply = serde_json::from_slice(&body).map_err(|_| self.missing("its reply is not Vault's"))?;
        let fields = reply.data.and_then(|version| version.data);
        let mut fields = fields.ok_or_else(|| self.missing("its reply holds no secret; is the mount version 2?"))?;
        match fields.remove(&self.settings.field) {
            Some(Value::String(text)) => Ok(Zeroizing::new(text)),
            Some(_) => Err(self.missing("the field is not a text")),
            None => Err(self.missing("the secret has no such field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    const KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c2b7e151628aed2a6abf7158809cf4f3c";

    /// Gives these answers, one a connection, and then what it was asked.
    async fn server(replies: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for reply in replies {
                let (mut connection, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(connection.read_u8().await.expect("a request"));
                }
                requests.push(String::from_utf8(request).expect("a text"));
                connection.write_all(reply.as_bytes()).await.expect("sent");
                connection.shutdown().await.expect("closed");
            }
            requests
        });
        (address, requests)
    }

    fn reply(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn secret(data: &str, metadata: &str) -> String {
        format!(
            r#"{{"request_id":"2d6a","lease_id":"","renewable":false,"lease_duration":0,"data":{{"data":{data},"metadata":{{
            "created_time":"2026-11-20T09:12:44.1Z","custom_metadata":null,{metadata},"version":2}}}},"wrap_info":null,
            "warnings":null,"auth":null,"mount_type":"kv"}}"#
        )
    }

    const LIVE: &str = r#""deletion_time":"","destroyed":false"#;

    fn token() -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a file");
        writeln!(file, "hvs.very-secret").expect("written");
        file
    }

    fn vault(address: &str, token: &NamedTempFile) -> Vault {
        let settings = VaultSettings {
            address: address.into(),
            mount: "secret".into(),
            path: "backup/docs".into(),
            field: "key".into(),
            token: TokenSource::File(token.path().into()),
            namespace: Some("team/a".into()),
        };
        Vault::new(settings).expect("a client")
    }

    async fn answer(status: &str, body: &str) -> Result<Zeroizing<String>, KeyError> {
        let (address, requests) = server(vec![reply(status, body)]).await;
        let answer = vault(&address, &token()).text().await;
        requests.await.expect("was asked");
        answer
    }

    #[tokio::test]
    async fn the_field_of_a_secret_is_the_key_and_the_token_is_sent() {
        let body = secret(&format!(r#"{{"key":"{KEY}","note":"x"}}"#), LIVE);
        let (address, requests) = server(vec![reply("200 OK", &body)]).await;
        let token = token();
        let vault = vault(&address, &token);
        assert_eq!(vault.text().await.expect("there").as_str(), KEY);
        let request = requests.await.expect("asked").remove(0).to_lowercase();
        assert!(request.starts_with("get /v1/secret/data/backup/docs http/1.1\r\n"), "{request}");
        assert!(request.contains("x-vault-token: hvs.very-secret\r\n"), "{request}");
        assert!(request.contains("x-vault-namespace: team/a\r\n"), "{request}");
        assert!(!format!("{vault:?}").contains("very-secret"));
    }

    #[tokio::test]
    async fn each_refusal_keeps_its_meaning() {
        let destroyed = secret("null", r#""deletion_time":"","destroyed":true"#);
        let deleted = secret("null", r#""deletion_time":"2026-11-21T08:00:00Z","destroyed":false"#);
        let number = secret(r#"{"key":7}"#, LIVE);
        let rows = [
            (
                "403 Forbidden",
                r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#,
                "D",
                "permission denied",
            ),
            ("403 Forbidden", r#"{"errors":["permission denied","invalid token"]}"#, "D", "invalid token"),
            ("404 Not Found", r#"{"errors":[]}"#, "M", "nothing is stored there"),
            (
                "404 Not Found",
                r#"{"errors":["no handler for route \"x/data/y\". route entry not found."]}"#,
                "M",
                "route",
            ),
            ("404 Not Found", &deleted, "M", "deleted at 2026-11-21T08:00:00Z"),
            ("404 Not Found", &destroyed, "M", "destroyed"),
            ("200 OK", &secret(r#"{"other":"x"}"#, LIVE), "M", "no such field"),
            ("200 OK", &number, "M", "not a text"),
            ("200 OK", "<html>sk-secret</html>", "M", "not Vault's"),
            ("400 Bad Request", r#"{"errors":["missing client token"]}"#, "M", "missing client token"),
            (
                "429 Too Many Requests",
                r#"{"errors":["request path \"secret/data/x\": rate limit quota exceeded"]}"#,
                "U",
                "quota",
            ),
            ("503 Service Unavailable", r#"{"errors":["Vault is sealed"]}"#, "U", "Vault is sealed"),
            ("500 Internal Server Error", r#"{"errors":["internal error"]}"#, "U", "internal error"),
            ("502 Bad Gateway", "<html>", "U", "502 Bad Gateway"),
        ];
        for (status, body, kind, words) in rows {
            let error = answer(status, body).await.expect_err(body);
            let found = match &error {
                KeyError::Denied { .. } => "D",
                KeyError::Missing { .. } => "M",
                KeyError::Unavailable { .. } => "U",
                _ => "?",
            };
            let text = error.to_string();
            assert_eq!(found, kind, "{status} {body}: {text}");
            assert!(text.contains(words) && text.contains("secret/backup/docs"), "{status} {body}: {text}");
            assert!(!text.contains("sk-secret") && !text.contains("very-secret"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_standby_s_redirect_is_followed_and_one_to_another_scheme_is_not() {
        let body = secret(&format!(r#"{{"key":"{KEY}"}}"#), LIVE);
        let (active, asked) = server(vec![reply("200 OK", &body)]).await;
        let to = |url: &str| format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n");
        let (standby, _) = server(vec![to(&format!("{active}/v1/secret/data/backup/docs"))]).await;
        assert_eq!(vault(&standby, &token()).text().await.expect("there").as_str(), KEY);
        assert!(asked.await.expect("asked")[0].to_lowercase().contains("hvs.very-secret"));

        let (standby, _) = server(vec![to("https://127.0.0.1:1/v1/secret/data/backup/docs")]).await;
        let error = vault(&standby, &token()).text().await.expect_err("another scheme");
        assert!(matches!(error, KeyError::Unavailable { .. }) && error.to_string().contains("redirects"), "{error}");
    }

    #[tokio::test]
    async fn no_vault_and_no_token_differ() {
        let error = vault("http://127.0.0.1:1", &token()).text().await.expect_err("nobody listens");
        assert!(matches!(error, KeyError::Unavailable { .. }), "{error}");
        let empty = NamedTempFile::new().expect("a file");
        let error = vault("http://127.0.0.1:1", &empty).text().await.expect_err("no token");
        assert!(
            matches!(error, KeyError::Missing { .. }) && error.to_string().contains("not a Vault token"),
            "{error}"
        );
    }
}
