//! Qdrant's REST interface, as far as it is used here.
//!
//! An answer is `{"result": …}`, an error `{"status": {"error": "…"}}` or plain text. What changes something is sent once, whoever
//! calls finds out what became of it; only a 429 is sent again, because then nothing was begun, and what twice is as good as once. A
//! snapshot is made to its end also when nobody waits for it any more.

use std::time::Duration;

use perennial_shared::secret::Secret;
use reqwest::header::HeaderName;
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::EngineError;
pub(super) use crate::engines::http::Request;
use crate::engines::http::{self, Answer, CONNECT_TIMEOUT, Dialect, Http, TIMEOUT};

/// Between two pieces of a download.
const SILENCE: Duration = Duration::from_secs(120);

/// A connection to one Qdrant.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    has_key: bool,
}

impl Client {
    /// A client; nothing is sent yet.
    pub(super) fn new(base: &str, key: Option<&Secret>) -> Result<Self, EngineError> {
        let header = key.map(|key| (HeaderName::from_static("api-key"), key.expose().to_owned()));
        Ok(Self { http: Http::new(base, Dialect { root: &[], message }, header)?, has_key: key.is_some() })
    }

    /// The same server without a key.
    pub(super) fn anonymous(&self) -> Result<Self, EngineError> {
        Self::new(&self.url(), None)
    }

    /// The engine's address, for messages.
    pub(super) fn url(&self) -> String {
        self.http.url()
    }

    /// Whether requests carry a key.
    pub(super) fn has_key(&self) -> bool {
        self.has_key
    }

    /// A read that must succeed, or a change that twice is as good as once; what it gives.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, EngineError> {
        let answer = self.http.send_again(&request).await?;
        self.result(&request, answer)
    }

    /// A read of something that may be absent (404).
    pub(super) async fn find<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<Option<T>, EngineError> {
        let answer = self.http.send_again(&request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.result(&request, answer).map(Some)
    }

    /// A read of something that is no JSON, or JSON without an envelope.
    pub(super) async fn text(&self, request: Request<'_>) -> Result<String, EngineError> {
        let answer = self.http.send_again(&request).await?;
        Ok(String::from_utf8_lossy(&self.accept(&request, answer)?.body).into_owned())
    }

    /// A change that must succeed; what it gives.
    pub(super) async fn change<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, EngineError> {
        let answer = self.send_once(&request).await?;
        self.result(&request, answer)
    }

    /// A change of something that may be absent (404); whether it was there.
    pub(super) async fn change_if_there(&self, request: Request<'_>) -> Result<bool, EngineError> {
        let answer = self.send_once(&request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.accept(&request, answer).map(|_| true)
    }

    /// Whether the engine says that it is ready; asked once.
    pub(super) async fn ready(&self) -> Result<(), EngineError> {
        let request = Request::get(&["readyz"]).within(CONNECT_TIMEOUT);
        let answer = self.http.send(&request).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.http.not_ready(&answer)) }
    }

    /// Begins a request whose answer is not read here: only its status is wanted, or its body is long.
    pub(super) async fn open(&self, request: Request<'_>) -> Result<Response, EngineError> {
        let response = tokio::time::timeout(request.timeout, self.http.response(self.http.built(&request))).await;
        let response = response.map_err(|_| self.silent())??;
        match response.status() {
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(response),
            _ => {
                let answer = self.http.read(response).await?;
                Err(self.accept(&request, answer).err().unwrap_or_else(|| self.silent()))
            }
        }
    }

    /// The next piece of a long body; `None` at its end.
    pub(super) async fn piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, EngineError> {
        let piece = tokio::time::timeout(SILENCE, response.chunk()).await.map_err(|_| self.silent())?;
        piece.map_err(|e| self.http.unreachable(&e))
    }

    /// Sends a body that is made while it is sent.
    pub(super) async fn send_body(
        &self,
        request: Request<'_>,
        content_type: &str,
        body: reqwest::Body,
    ) -> Result<(), EngineError> {
        let built = self
            .http
            .built(&request)
            .timeout(request.timeout)
            .header(reqwest::header::CONTENT_TYPE, content_type)
            .body(body);
        let answer = self.http.answer(built).await?;
        self.accept(&request, answer).map(|_| ())
    }

    async fn send_once(&self, request: &Request<'_>) -> Result<Answer, EngineError> {
        let answer = self.http.send(request).await?;
        if answer.status != StatusCode::TOO_MANY_REQUESTS {
            return Ok(answer);
        }
        tokio::time::sleep(answer.retry_after.unwrap_or(Duration::from_secs(1)).min(TIMEOUT)).await;
        self.http.send(request).await
    }

    fn result<T: DeserializeOwned>(&self, request: &Request<'_>, answer: Answer) -> Result<T, EngineError> {
        #[derive(serde::Deserialize)]
        struct Envelope<T> {
            result: T,
        }
        let answer = self.accept(request, answer)?;
        let parsed = serde_json::from_slice::<Envelope<T>>(&answer.body);
        parsed.map(|e| e.result).map_err(|e| self.http.odd(request, &answer, &format!("({e})")))
    }

    /// The answer, if it is a success.
    fn accept(&self, request: &Request<'_>, answer: Answer) -> Result<Answer, EngineError> {
        match answer.status {
            StatusCode::SERVICE_UNAVAILABLE if is_in_progress(&answer.body) => {
                Err(EngineError::Busy { what: "snapshot", id: self.http.message(&answer) })
            }
            StatusCode::INSUFFICIENT_STORAGE => {
                let why = format!("{}; make room on the engine's disk", self.http.message(&answer));
                Err(self.http.odd(request, &answer, &why))
            }
            _ => self.http.accept(request, answer),
        }
    }

    fn silent(&self) -> EngineError {
        EngineError::Unreachable { url: self.url(), why: "no answer in time".into() }
    }
}

/// Whether an error says that there is nothing of that name.
pub(super) fn is_absent(error: &EngineError) -> bool {
    matches!(error, EngineError::Unexpected { status: 404, .. })
}

/// What the engine said, from whichever of its error forms it used.
fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(value) => value["status"]["error"].as_str().map_or_else(|| value.to_string(), Into::into),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    http::quote(&text)
}

fn is_in_progress(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("in_progress") || message(body).contains("in progress")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_error_is_read() {
        assert_eq!(message(br#"{"status":{"error":"Not found: no"},"time":0.1}"#), "Not found: no");
        assert_eq!(message(b"Invalid API key or JWT"), "Invalid API key or JWT");
        assert_eq!(message(b""), "");
        assert_eq!(message("x".repeat(5000).as_bytes()).len(), http::LONGEST_QUOTE);
        assert!(is_in_progress(br#"{"status":{"error":"Partial snapshot recovery is already in progress"}}"#));
        assert!(!is_in_progress(br#"{"status":{"error":"shard unavailable"}}"#));
    }
}
