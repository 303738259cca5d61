//! What the clients of the engines' HTTP interfaces have in common.
//!
//! No proxy and no redirect is followed, because the API key goes along with every request, and the key is in no error and no
//! log. Reads are tried again, a few times, when the engine does not answer or says that it is overloaded; how long it wants to be
//! left alone is respected up to a point.

use std::time::Duration;

use perennial_shared::aws::chain;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::engine::EngineError;

/// Loopback, or the same network.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of what an error quotes from an answer.
pub(super) const LONGEST_QUOTE: usize = 600;
/// Of a request that does not say otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Of a read.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A connection to one engine.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    base: Url,
    dialect: Dialect,
}

/// What differs between engines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// What every path begins with.
    pub(super) root: &'static [&'static str],
    /// What the body of an error says, from whichever of its forms.
    pub(super) message: fn(&[u8]) -> String,
}

/// A request, described for sending and for error messages.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<Value>,
    pub(super) timeout: Duration,
}

impl<'a> Request<'a> {
    fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, query: &[], body: None, timeout: TIMEOUT }
    }

    pub(super) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: &'a [&'a str], body: Value) -> Self {
        Self::new(Method::POST, path).body(body)
    }

    /// A POST whose body is given when it is sent.
    pub(super) fn upload(path: &'a [&'a str]) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn put(path: &'a [&'a str], body: Value) -> Self {
        Self::new(Method::PUT, path).body(body)
    }

    pub(super) fn delete(path: &'a [&'a str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(super) fn query(self, query: &'a [(&'a str, &'a str)]) -> Self {
        Self { query, ..self }
    }

    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the engine wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// A connection whose requests carry `key` in a header; nothing is sent yet.
    pub(super) fn new(base: &str, dialect: Dialect, key: Option<(HeaderName, String)>) -> Result<Self, EngineError> {
        let unusable =
            |why: String| EngineError::Unsupported(format!("{base} cannot be used as the engine's address: {why}"));
        let mut headers = HeaderMap::new();
        if let Some((name, key)) = key {
            // The library's error would not show the key, but neither would it help: say what is wrong with it.
            let mut value = HeaderValue::from_str(&key)
                .map_err(|_| EngineError::Unsupported("the API key has characters that no API key can have".into()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = reqwest::Client::builder()
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
        Ok(Self { client, base, dialect })
    }

    /// The engine's address, for messages.
    pub(super) fn url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// As messages call a request: without the query, which is long and has no news.
    pub(super) fn name(&self, request: &Request<'_>) -> String {
        let path: Vec<_> = self.dialect.root.iter().chain(request.path).copied().collect();
        format!("{} /{}", request.method, path.join("/"))
    }

    /// A request's address; each segment is escaped.
    pub(super) fn address(&self, request: &Request<'_>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(self.dialect.root.iter().chain(request.path));
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        url
    }

    /// A request to be sent by [`Http::answer`] or [`Http::response`], without a time limit.
    pub(super) fn built(&self, request: &Request<'_>) -> RequestBuilder {
        let built = self.client.request(request.method.clone(), self.address(request));
        match &request.body {
            Some(body) => built.json(body),
            None => built,
        }
    }

    /// Sends once, within the request's time, and reads the whole answer.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Answer, EngineError> {
        self.answer(self.built(request).timeout(request.timeout)).await
    }

    /// Sends once and reads the whole answer.
    pub(super) async fn answer(&self, request: RequestBuilder) -> Result<Answer, EngineError> {
        self.read(self.response(request).await?).await
    }

    /// Sends once; the body is still to come.
    pub(super) async fn response(&self, request: RequestBuilder) -> Result<Response, EngineError> {
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    /// The rest of an answer.
    pub(super) async fn read(&self, response: Response) -> Result<Answer, EngineError> {
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(|e| self.unreachable(&e))?.to_vec();
        Ok(Answer { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    /// Sends a read until there is an answer that is worth something, a few times.
    pub(super) async fn send_again(&self, request: &Request<'_>) -> Result<Answer, EngineError> {
        again(|| self.send(request)).await
    }

    /// The answer, if it is a success.
    pub(super) fn accept(&self, request: &Request<'_>, answer: Answer) -> Result<Answer, EngineError> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let (url, why) = (self.url(), self.message(&answer));
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(EngineError::Unauthorized { url, why }),
            StatusCode::FORBIDDEN => Err(EngineError::Forbidden { url, request: self.name(request), why }),
            StatusCode::SERVICE_UNAVAILABLE => Err(self.not_ready(&answer)),
            _ => Err(self.odd(request, &answer, &why)),
        }
    }

    /// What an error says.
    pub(super) fn message(&self, answer: &Answer) -> String {
        (self.dialect.message)(&answer.body)
    }

    /// The error for an engine that says that it does not serve yet.
    pub(super) fn not_ready(&self, answer: &Answer) -> EngineError {
        let why = format!("{} {}", answer.status.as_u16(), self.message(answer)).trim().into();
        EngineError::NotReady { url: self.url(), why }
    }

    /// The error for an answer that the caller could not make sense of.
    pub(super) fn odd(&self, request: &Request<'_>, answer: &Answer, why: &str) -> EngineError {
        let request = format!("{} of {}", self.name(request), self.url());
        EngineError::Unexpected { request, status: answer.status.as_u16(), why: why.into() }
    }

    /// The error for a connection that failed.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> EngineError {
        EngineError::Unreachable { url: self.url(), why: shortest(error) }
    }
}

async fn again<F>(send: impl Fn() -> F) -> Result<Answer, EngineError>
where
    F: Future<Output = Result<Answer, EngineError>> + Send,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        let wanted = match send().await {
            Ok(answer) if !is_overload(answer.status) => return Ok(answer),
            Ok(answer) => answer.retry_after.unwrap_or_default(),
            Err(e) if !e.is_absence() => return Err(e),
            Err(_) => Duration::ZERO,
        };
        tokio::time::sleep(wanted.clamp(pause, LONGEST_PAUSE)).await;
        pause *= 3;
    }
    send().await
}

fn is_overload(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// At most so many characters of what an engine said.
pub(super) fn quote(text: &str) -> String {
    text.trim().chars().take(LONGEST_QUOTE).collect()
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

    fn http(key: &str) -> Result<Http, EngineError> {
        let dialect = Dialect { root: &["v1"], message: |_| String::new() };
        Http::new("http://127.0.0.1:1", dialect, Some((HeaderName::from_static("api-key"), key.into())))
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        let address = http("k").expect("an address").address(&Request::get(&["A/../b?c"]).query(&[("path", "x y&z")]));
        assert_eq!(address.as_str(), "http://127.0.0.1:1/v1/A%2F..%2Fb%3Fc?path=x+y%26z");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", http("very-secret").expect("a client")).contains("very-secret"));
        let error = http("very\nsecret").expect_err("a bad key");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
