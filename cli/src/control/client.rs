//! Requests to an endpoint, and its answers as results: an error of the job comes back as the error it was.

use keybed::{Code, Error, Result};
use serde_json::Value;
use std::time::Duration;
use ureq::{Agent, Body, http::Response};

/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Longest time for one request; what takes longer is polled.
const TIME_MAX: Duration = Duration::from_secs(30);

/// An endpoint.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    /// `host:port`.
    address: String,
    token: Option<String>,
}

impl Client {
    /// Nothing is asked yet.
    pub(crate) fn new(address: &str, token: Option<String>) -> Client {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(TIME_MAX))
            .build();
        Client {
            agent: Agent::new_with_config(config),
            address: address
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned(),
            token,
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// # Errors
    /// What the job answered; [`is_unreachable`] ones if it did not.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let mut request = self.agent.get(self.url(path));
        if let Some(bearer) = self.bearer() {
            request = request.header("authorization", bearer);
        }
        self.read(request.call())
    }

    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(self.agent.post(self.url(path)), body)
    }

    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(self.agent.patch(self.url(path)), body)
    }

    fn send(&self, request: ureq::RequestBuilder<ureq::typestate::WithBody>, body: &Value) -> Result<Value> {
        let mut request = request.header("content-type", "application/json");
        if let Some(bearer) = self.bearer() {
            request = request.header("authorization", bearer);
        }
        self.read(request.send(body.to_string()))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn bearer(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    fn read(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Value> {
        let mut response = response.map_err(|e| self.unreachable(e))?;
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|e| self.unreachable(e))?;
        let value: Option<Value> = serde_json::from_str(&text).ok();
        if response.status().is_success() {
            let foreign = || {
                Error::new(
                    Code::Malformed,
                    "the answer is no JSON: is that a job's endpoint?",
                )
            };
            return value.ok_or_else(|| foreign().with("address", &self.address));
        }
        let header = response.headers().get("x-keybed-code");
        let code = header.and_then(|code| {
            Code::ALL
                .iter()
                .find(|known| known.as_str().as_bytes() == code.as_bytes())
        });
        let unauthorized = response.status().as_u16() == 401;
        let said = value.as_ref().and_then(|value| value["errors"][0].as_str());
        Err(match (code, said) {
            (Some(code), Some(said)) => {
                let sentence = said.strip_prefix(&format!("{code}: ")).unwrap_or(said);
                let error = Error::new(*code, sentence);
                match unauthorized {
                    true => error.context("say --token WORD, or set KEYBED_CONTROL_TOKEN"),
                    false => error,
                }
            }
            _ => {
                let what = format!("the endpoint answered {}", response.status());
                Error::new(Code::IoFailed, what).with("address", &self.address)
            }
        })
    }

    fn unreachable(&self, error: ureq::Error) -> Error {
        let source = match error {
            ureq::Error::Io(source) => source,
            other => std::io::Error::other(other),
        };
        Error::io("the endpoint does not answer", "", source).with("address", &self.address)
    }
}

/// Whether nobody answered, so that what was asked may have happened or not.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    error.io_kind().is_some()
}
