//! What the clients of the engines' HTTP interfaces have in common.
//!
//! No proxy and no redirect is followed, because the API key goes along with every request, and the key is in no error and no
//! log. Reads are tried again, a few times, when the engine does not answer or says that it is overloaded; how long it wants to be
//! left alone is respected up to a point.

use std::time::Duration;

use perennial_shared::aws::chain;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use crate::engine::EngineError;

/// Loopback, or the same network.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of what an error quotes from an answer.
pub(super) const LONGEST_QUOTE: usize = 600;
/// Of a read.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A connection to one engine.
#[derive(Debug)]
pub(super) struct Http {
    http: reqwest::Client,
    base: Url,
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
    pub(super) fn new(base: &str, key: Option<(HeaderName, String)>) -> Result<Self, EngineError> {
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

    /// The address of something in the engine; each segment is escaped.
    pub(super) fn address(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// A request to be sent by [`Http::answer`] or [`Http::response`].
    pub(super) fn request(&self, method: Method, address: Url) -> RequestBuilder {
        self.http.request(method, address)
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

    /// The error for a connection that failed.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> EngineError {
        EngineError::Unreachable { url: self.url(), why: shortest(error) }
    }
}

/// Sends until there is an answer that is worth something, a few times. For reads only, and for what was refused before it began.
pub(super) async fn again<F>(send: impl Fn() -> F) -> Result<Answer, EngineError>
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
        Http::new("http://127.0.0.1:1", Some((HeaderName::from_static("api-key"), key.into())))
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        let address = http("k").expect("an address").address(&["v1", "A/../b?c"], &[("path", "x y&z")]);
        assert_eq!(address.as_str(), "http://127.0.0.1:1/v1/A%2F..%2Fb%3Fc?path=x+y%26z");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", http("very-secret").expect("a client")).contains("very-secret"));
        let error = http("very\nsecret").expect_err("a bad key");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
