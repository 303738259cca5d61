//! Weaviate's HTTP interface, as far as it is used here.
//!
//! Reads are tried again, a few times, when the engine does not answer or says that it is overloaded. Anything that changes
//! something is sent once: whoever calls finds out what became of it. No proxy and no redirect is followed, because the API
//! key goes along with every request.

use std::time::Duration;

use perennial_shared::aws::chain;
use perennial_shared::secret::Secret;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::EngineError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Deleting a large collection, and beginning a restore, which answers only when the engine has prepared it.
const LONG_TIMEOUT: Duration = Duration::from_secs(300);
/// Of a read.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Of what an error quotes from an answer.
const LONGEST_QUOTE: usize = 600;

/// A connection to one Weaviate.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// A request, described for sending and for error messages.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Option<Value>,
    timeout: Duration,
}

impl<'a> Request<'a> {
    fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, query: &[], body: None, timeout: TIMEOUT }
    }

    pub(super) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: &'a [&'a str], body: Value) -> Self {
        Self { body: Some(body), timeout: LONG_TIMEOUT, ..Self::new(Method::POST, path) }
    }

    pub(super) fn put(path: &'a [&'a str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PUT, path) }
    }

    pub(super) fn delete(path: &'a [&'a str]) -> Self {
        Self { timeout: LONG_TIMEOUT, ..Self::new(Method::DELETE, path) }
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(super) fn query(self, query: &'a [(&'a str, &'a str)]) -> Self {
        Self { query, ..self }
    }

    /// As messages call it: without the query, which is long and has no news.
    fn name(&self) -> String {
        format!("{} /v1/{}", self.method, self.path.join("/"))
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Client {
    /// A client; nothing is sent yet.
    pub(super) fn new(base: &str, key: Option<&Secret>) -> Result<Self, EngineError> {
        let unusable =
            |why: String| EngineError::Unsupported(format!("{base} cannot be used as the engine's address: {why}"));
        let mut headers = reqwest::header::HeaderMap::new();
        if let Some(key) = key {
            // The library's error would not show the key, but neither would it help: say what is wrong with it.
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
                .map_err(|_| EngineError::Unsupported("the API key has characters that no API key can have".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .default_headers(headers)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| unusable(chain(&e)))?;
        let base = Url::parse(base).map_err(|e| unusable(e.to_string()))?;
        if base.cannot_be_a_base() {
            return Err(unusable("it is not an http address".into()));
        }
        Ok(Self { http, base })
    }

    /// The engine's address, for messages.
    pub(super) fn url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// A read that must succeed.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, EngineError> {
        let answer = self.send_again(&request).await?;
        let answer = self.accept(&request, answer)?;
        serde_json::from_slice(&answer.body).map_err(|e| self.odd(&request, &answer, &format!("({e})")))
    }

    /// A read of something that may be absent (404).
    pub(super) async fn find<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<Option<T>, EngineError> {
        let answer = self.send_again(&request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.accept(&request, answer)?;
        serde_json::from_slice(&answer.body).map(Some).map_err(|e| self.odd(&request, &answer, &format!("({e})")))
    }

    /// A change that must succeed; sent once.
    pub(super) async fn change(&self, request: Request<'_>) -> Result<(), EngineError> {
        let answer = self.send(&request).await?;
        self.accept(&request, answer).map(|_| ())
    }

    /// A change whose refusal (422, 404, 500) the caller reads; sent once. Gives back 2xx and these.
    pub(super) async fn try_change(&self, request: Request<'_>) -> Result<Answer, EngineError> {
        let answer = self.send(&request).await?;
        match answer.status {
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Ok(answer),
            _ => self.accept(&request, answer),
        }
    }

    /// A GraphQL query, which is always a read. GraphQL answers 200 to a failed query and has the errors inside.
    pub(super) async fn graphql(&self, query: &str) -> Result<Value, EngineError> {
        let request = Request::post(&["graphql"], json!({ "query": query }));
        let answer = self.send_again(&request).await?;
        let answer = self.accept(&request, answer)?;
        let mut value: Value =
            serde_json::from_slice(&answer.body).map_err(|e| self.odd(&request, &answer, &format!("({e})")))?;
        if let Some(why) = first_message(&value["errors"]) {
            return Err(self.odd(&request, &answer, &why));
        }
        Ok(value["data"].take())
    }

    /// Whether the engine says that it is ready.
    pub(super) async fn ready(&self) -> Result<(), EngineError> {
        let request = Request { timeout: CONNECT_TIMEOUT, ..Request::get(&[".well-known", "ready"]) };
        let answer = self.send(&request).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.not_ready(&answer)) }
    }

    async fn send_again(&self, request: &Request<'_>) -> Result<Answer, EngineError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.send(request).await {
                Ok(answer) if !is_overload(answer.status) => return Ok(answer),
                Err(e) if !e.is_absence() => return Err(e),
                _ => tokio::time::sleep(pause).await,
            }
            pause *= 3;
        }
        self.send(request).await
    }

    async fn send(&self, request: &Request<'_>) -> Result<Answer, EngineError> {
        let unreachable = |e: &reqwest::Error| EngineError::Unreachable { url: self.url(), why: shortest(e) };
        let mut built = self.http.request(request.method.clone(), self.address(request)).timeout(request.timeout);
        if let Some(body) = &request.body {
            built = built.json(body);
        }
        let reply = built.send().await.map_err(|e| unreachable(&e))?;
        let status = reply.status();
        let body = reply.bytes().await.map_err(|e| unreachable(&e))?.to_vec();
        Ok(Answer { status, body })
    }

    fn address(&self, request: &Request<'_>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().push("v1").extend(request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        url
    }

    /// The answer, if it is a success.
    fn accept(&self, request: &Request<'_>, answer: Answer) -> Result<Answer, EngineError> {
        let (url, why) = (self.url(), answer.message());
        match answer.status {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(EngineError::Unauthorized { url, why }),
            StatusCode::FORBIDDEN => Err(EngineError::Forbidden { url, request: request.name(), why }),
            StatusCode::SERVICE_UNAVAILABLE => Err(self.not_ready(&answer)),
            _ => Err(self.odd(request, &answer, &why)),
        }
    }

    fn not_ready(&self, answer: &Answer) -> EngineError {
        EngineError::NotReady {
            url: self.url(),
            why: format!("{} {}", answer.status.as_u16(), answer.message()).trim().into(),
        }
    }

    fn odd(&self, request: &Request<'_>, answer: &Answer, why: &str) -> EngineError {
        let request = format!("{} of {}", request.name(), self.url());
        EngineError::Unexpected { request, status: answer.status.as_u16(), why: why.into() }
    }

    /// An error about an answer that the caller could not make sense of.
    pub(super) fn unexpected(&self, what: &str, answer: &Answer) -> EngineError {
        let request = format!("{what} of {}", self.url());
        EngineError::Unexpected { request, status: answer.status.as_u16(), why: answer.message() }
    }
}

impl Answer {
    /// What the engine said, from whichever of its error forms it used.
    pub(super) fn message(&self) -> String {
        let text = match serde_json::from_slice::<Value>(&self.body) {
            Ok(value) => first_message(&value["error"])
                .or_else(|| value["message"].as_str().map(Into::into))
                .unwrap_or_else(|| value.to_string()),
            Err(_) => String::from_utf8_lossy(&self.body).trim().to_owned(),
        };
        text.chars().take(LONGEST_QUOTE).collect()
    }
}

fn first_message(errors: &Value) -> Option<String> {
    errors.get(0)?.get("message")?.as_str().map(Into::into)
}

fn is_overload(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The innermost cause: "Connection refused" says more than the sentence around it.
fn shortest(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer { status: StatusCode::UNPROCESSABLE_ENTITY, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn every_form_of_an_error_is_read() {
        assert_eq!(answer(r#"{"error":[{"message":"no"}]}"#).message(), "no");
        assert_eq!(answer(r#"{"code":401,"message":"who?"}"#).message(), "who?");
        assert_eq!(answer("plain\n").message(), "plain");
        assert_eq!(answer("").message(), "");
        assert_eq!(answer(&"x".repeat(5000)).message().len(), LONGEST_QUOTE);
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        let client = Client::new("http://127.0.0.1:1", None).expect("an address");
        let request = Request::get(&["schema", "A/../b?c"]).query(&[("path", "x y&z")]);
        assert_eq!(client.address(&request).as_str(), "http://127.0.0.1:1/v1/schema/A%2F..%2Fb%3Fc?path=x+y%26z");
    }

    #[test]
    fn the_key_is_not_shown() {
        let client = Client::new("http://127.0.0.1:1", Some(&Secret::new("very-secret"))).expect("a client");
        assert!(!format!("{client:?}").contains("very-secret"));
        let error = Client::new("http://127.0.0.1:1", Some(&Secret::new("very\nsecret"))).expect_err("a bad key");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
