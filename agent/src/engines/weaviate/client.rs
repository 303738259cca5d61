//! Weaviate's HTTP interface, as far as it is used here.
//!
//! Reads are tried again, a few times, when the engine does not answer or says that it is overloaded. Anything that changes
//! something is sent once: whoever calls finds out what became of it.

use std::time::Duration;

use perennial_shared::secret::Secret;
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::EngineError;
pub(super) use crate::engines::http::Request;
use crate::engines::http::{self, Answer, CONNECT_TIMEOUT, Dialect, Http};

/// Of what changes something: deleting a large collection, and beginning a restore, which answers only when the engine has prepared it.
const LONG_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection to one Weaviate.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
}

impl Client {
    /// A client; nothing is sent yet.
    pub(super) fn new(base: &str, key: Option<&Secret>) -> Result<Self, EngineError> {
        let header = key.map(|key| (AUTHORIZATION, format!("Bearer {}", key.expose())));
        Ok(Self { http: Http::new(base, Dialect { root: &["v1"], message }, header)? })
    }

    /// The engine's address, for messages.
    pub(super) fn url(&self) -> String {
        self.http.url()
    }

    /// A read that must succeed.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, EngineError> {
        let answer = self.http.send_again(&request).await?;
        let answer = self.http.accept(&request, answer)?;
        serde_json::from_slice(&answer.body).map_err(|e| self.http.odd(&request, &answer, &format!("({e})")))
    }

    /// A read of something that may be absent (404).
    pub(super) async fn find<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<Option<T>, EngineError> {
        let answer = self.http.send_again(&request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.http.accept(&request, answer)?;
        serde_json::from_slice(&answer.body).map(Some).map_err(|e| self.http.odd(&request, &answer, &format!("({e})")))
    }

    /// A change that must succeed; sent once.
    pub(super) async fn change(&self, request: Request<'_>) -> Result<(), EngineError> {
        let request = request.within(LONG_TIMEOUT);
        let answer = self.http.send(&request).await?;
        self.http.accept(&request, answer).map(|_| ())
    }

    /// A change whose refusal (422, 404, 500) the caller reads; sent once. Gives back 2xx and these.
    pub(super) async fn try_change(&self, request: Request<'_>) -> Result<Answer, EngineError> {
        let request = request.within(LONG_TIMEOUT);
        let answer = self.http.send(&request).await?;
        match answer.status {
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Ok(answer),
            _ => self.http.accept(&request, answer),
        }
    }

    /// A GraphQL query, which is always a read. GraphQL answers 200 to a failed query and has the errors inside.
    pub(super) async fn graphql(&self, query: &str) -> Result<Value, EngineError> {
        let request = Request::post(&["graphql"], json!({ "query": query })).within(LONG_TIMEOUT);
        let answer = self.http.send_again(&request).await?;
        let answer = self.http.accept(&request, answer)?;
        let mut value: Value =
            serde_json::from_slice(&answer.body).map_err(|e| self.http.odd(&request, &answer, &format!("({e})")))?;
        if let Some(why) = first_message(&value["errors"]) {
            return Err(self.http.odd(&request, &answer, &why));
        }
        Ok(value["data"].take())
    }

    /// Whether the engine says that it is ready.
    pub(super) async fn ready(&self) -> Result<(), EngineError> {
        let request = Request::get(&[".well-known", "ready"]).within(CONNECT_TIMEOUT);
        let answer = self.http.send(&request).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.http.not_ready(&answer)) }
    }

    /// An error about an answer that the caller could not make sense of.
    pub(super) fn unexpected(&self, what: &str, answer: &Answer) -> EngineError {
        let request = format!("{what} of {}", self.url());
        EngineError::Unexpected { request, status: answer.status.as_u16(), why: message(&answer.body) }
    }
}

/// What the engine said, from whichever of its error forms it used.
pub(super) fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(value) => first_message(&value["error"])
            .or_else(|| value["message"].as_str().map(Into::into))
            .unwrap_or_else(|| value.to_string()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    http::quote(&text)
}

fn first_message(errors: &Value) -> Option<String> {
    errors.get(0)?.get("message")?.as_str().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_error_is_read() {
        assert_eq!(message(br#"{"error":[{"message":"no"}]}"#), "no");
        assert_eq!(message(br#"{"code":401,"message":"who?"}"#), "who?");
        assert_eq!(message(b"plain\n"), "plain");
        assert_eq!(message(b""), "");
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        let client = Client::new("http://127.0.0.1:1", None).expect("an address");
        let request = Request::get(&["schema", "A/../b?c"]).query(&[("path", "x y&z")]);
        assert_eq!(client.http.address(&request).as_str(), "http://127.0.0.1:1/v1/schema/A%2F..%2Fb%3Fc?path=x+y%26z");
    }
}
