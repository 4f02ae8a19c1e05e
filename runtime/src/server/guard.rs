//! Who may ask: what is checked of every request before anything else looks at it. Pure functions of its head.
//!
//! The endpoint listens on the loopback interface only. What reaches it there is either a program of this machine or a
//! browser on it that a page from elsewhere makes ask. Against the second: a page can neither send JSON without asking
//! first (and nobody answers such a question), nor hide its origin; and a name that was bound to 127.0.0.1 to get
//! around the origin (DNS rebinding) is not one of ours. Against other users of the machine: the token.

use super::answer::Refusal;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts, uri::Authority};
use keybed_format::{Code, Error, Result};

/// Sent by browsers; tells whether a page from elsewhere is behind the request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a request through, or says why not.
pub(super) fn admit(head: &Parts, token: Option<&str>) -> Result<(), Refusal> {
    let host = host(head)?;
    origin(&head.headers, &host)?;
    if let Some(token) = token {
        bearer(&head.headers, token)?;
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    if reads || starts_jobs(head.uri.path()) {
        return Ok(());
    }
    json(&head.headers)
}

/// Requests that are refused whatever they carry, by a text of their own.
pub(super) fn starts_jobs(path: &str) -> bool {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    path == "/jobs" || path == "/jobs/" || path.starts_with("/jars")
}

fn refuse(status: StatusCode, what: &str) -> Refusal {
    Refusal::new(status, &Error::new(Code::InvalidArgument, what))
}

/// The only value of a header, if it is there.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(refuse(StatusCode::BAD_REQUEST, "a header is there twice"));
    }
    let text = first.map(|value| value.to_str());
    text.transpose()
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "a header is no text"))
}

fn host(head: &Parts) -> Result<String, Refusal> {
    let named = match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => single(&head.headers, header::HOST)?,
    };
    let foreign = || {
        refuse(
            StatusCode::FORBIDDEN,
            "this endpoint answers under the names of the loopback interface only: 127.0.0.1, localhost, [::1]",
        )
    };
    let host = named.ok_or_else(foreign)?;
    let authority: Authority = host.parse().map_err(|_| foreign())?;
    let name = authority.host().to_ascii_lowercase();
    let ours = matches!(name.as_str(), "127.0.0.1" | "localhost" | "[::1]");
    if ours && !host.contains('@') {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(foreign())
    }
}

fn origin(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    let foreign = || refuse(StatusCode::FORBIDDEN, "pages from elsewhere may not ask");
    if let Some(origin) = single(headers, header::ORIGIN)?
        && origin.to_ascii_lowercase().strip_prefix("http://") != Some(host)
    {
        return Err(foreign());
    }
    match single(headers, FETCH_SITE)? {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(foreign()),
    }
}

fn bearer(headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
    let given = single(headers, header::AUTHORIZATION)?.and_then(|value| value.split_once(' '));
    match given {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") && same(given.trim(), token) => Ok(()),
        _ => Err(refuse(
            StatusCode::UNAUTHORIZED,
            "the bearer token of this job is missing or wrong (header Authorization: Bearer …)",
        )),
    }
}

/// Takes as long wherever the texts differ, so that nobody can guess a token letter by letter.
fn same(given: &str, token: &str) -> bool {
    let differing = given
        .bytes()
        .zip(token.bytes())
        .fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == token.len() && differing == 0
}

fn json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = single(headers, header::CONTENT_TYPE)?.unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(refuse(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a request that changes something must be of content type application/json",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn status(method: &str, uri: &str, headers: &[(&str, &str)], token: Option<&str>) -> u16 {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        admit(&head, token).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    const HOST: (&str, &str) = ("host", "localhost:8081");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn only_loopback_names_are_ours() {
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:8081", 200),
            ("127.0.0.1:9", 200),
            ("[::1]:8081", 200),
            ("evil.example:8081", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("user@localhost", 403),
            ("0.0.0.0:8081", 403),
            ("::1", 403),
            ("", 403),
            ("a b", 403),
        ] {
            assert_eq!(
                status("GET", "/jobs", &[("host", host)], None),
                expected,
                "{host}"
            );
        }
        assert_eq!(status("GET", "/jobs", &[], None), 403, "no host");
        assert_eq!(
            status("GET", "http://evil.example/jobs", &[HOST], None),
            403,
            "absolute"
        );
        assert_eq!(
            status("GET", "/jobs", &[HOST, ("host", "evil.example")], None),
            400,
            "two"
        );
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        for (origin, expected) in [
            ("http://localhost:8081", 200),
            ("http://LOCALHOST:8081", 200),
            ("http://localhost:3000", 403),
            ("http://127.0.0.1:8081", 403),
            ("https://localhost:8081", 403),
            ("http://evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            let headers = [HOST, JSON, ("origin", origin)];
            assert_eq!(status("POST", "/v1/x", &headers, None), expected, "{origin}");
        }
        for (site, expected) in [
            ("same-origin", 200),
            ("none", 200),
            ("cross-site", 403),
            ("same-site", 403),
        ] {
            let headers = [HOST, ("sec-fetch-site", site)];
            assert_eq!(status("GET", "/jobs", &headers, None), expected, "{site}");
        }
    }

    #[test]
    fn forms_and_texts_change_nothing() {
        for (kind, expected) in [
            ("application/json", 200),
            ("Application/JSON; charset=UTF-8", 200),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("multipart/form-data; boundary=x", 415),
            ("text/plain; application/json", 415),
            ("application/jsonp", 415),
            ("", 415),
        ] {
            for method in ["POST", "PATCH", "PUT", "DELETE", "OPTIONS"] {
                let headers = [HOST, ("content-type", kind)];
                assert_eq!(
                    status(method, "/v1/jobs/x/stop", &headers, None),
                    expected,
                    "{method} {kind}"
                );
            }
        }
        assert_eq!(status("PATCH", "/jobs/x", &[HOST], None), 415, "none");
        assert_eq!(
            status("POST", "/v1/jobs", &[HOST], None),
            200,
            "refused by a text of its own"
        );
    }

    #[test]
    fn a_token_is_asked_for_on_every_route() {
        for (given, expected) in [
            ("Bearer secret", 200),
            ("bearer  secret", 200),
            ("Bearer secre", 401),
            ("Bearer secrets", 401),
            ("Bearer ", 401),
            ("Basic secret", 401),
            ("secret", 401),
        ] {
            let headers = [HOST, ("authorization", given)];
            assert_eq!(
                status("GET", "/jobs", &headers, Some("secret")),
                expected,
                "{given}"
            );
        }
        assert_eq!(status("GET", "/jobs", &[HOST], Some("secret")), 401);
        assert_eq!(status("POST", "/jars/x/run", &[HOST], Some("secret")), 401);
    }
}
