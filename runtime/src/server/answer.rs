//! Answers: JSON, never cached, each closing its connection; errors in the one shape that Flink's client recognises.
//!
//! ```text
//! HTTP/1.1 404 Not Found
//! x-keybed-code: UnknownJob
//!
//! {"errors":["UnknownJob: there is no job of that id here [id 00…]"]}
//! ```

use super::trigger::Failure;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use keybed_format::{Code, Error, ErrorKind};
use serde_json::{Value, json};

/// The header that carries the error's code.
pub(super) const CODE: HeaderName = HeaderName::from_static("x-keybed-code");

/// An error as an answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) failure: Failure,
}

impl Refusal {
    /// With a status that the code alone would not give.
    pub(super) fn new(status: StatusCode, error: &Error) -> Self {
        Refusal {
            status,
            failure: Failure::from(error),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Failure::from(&error).into()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal {
            status: status(failure.code),
            failure,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &json!({ "errors": [self.failure.text] }));
        let code = HeaderValue::from_static(self.failure.code.as_str());
        response.headers_mut().insert(CODE, code);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// An answer.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json; charset=UTF-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONNECTION, "close"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Never 503: Flink's client would ask again and again without saying so.
fn status(code: Code) -> StatusCode {
    match (code, code.kind()) {
        (Code::UnknownJob, _) | (_, ErrorKind::NotFound) => StatusCode::NOT_FOUND,
        (Code::TooManyRequests, _) => StatusCode::TOO_MANY_REQUESTS,
        (Code::NotASnapshot, _) | (_, ErrorKind::InvalidInput) => StatusCode::BAD_REQUEST,
        (_, ErrorKind::Locked | ErrorKind::Incompatible | ErrorKind::Refused | ErrorKind::Closed) => {
            StatusCode::CONFLICT
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_an_error_status_and_a_header() {
        for code in Code::ALL {
            let response = Refusal::from(Error::new(*code, "x")).into_response();
            let status = response.status().as_u16();
            assert!((400..600).contains(&status) && status != 503, "{code}: {status}");
            assert_eq!(response.headers()[CODE], code.as_str());
            assert_eq!(response.headers()["connection"], "close");
        }
        for (code, expected) in [
            (Code::UnknownJob, 404),
            (Code::NotFound, 404),
            (Code::NoTargetDirectory, 400),
            (Code::NotASnapshot, 400),
            (Code::TooManyRequests, 429),
            (Code::SnapshotClaimedByOther, 409),
            (Code::Closed, 409),
            (Code::CheckpointDeclined, 500),
        ] {
            assert_eq!(status(code).as_u16(), expected, "{code}");
        }
    }
}
