//! The endpoint of a run, and clients that are not nice.

use crate::{
    control::{Running, http, obey},
    place::{Place, Run},
};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

#[test]
fn a_token_is_asked_for_and_known_to_the_verbs() {
    // Any program of any user of the machine could end the job.
    let place = Place::new();
    let running = Running::start(&place, &["--token", "secret"]);
    let address = running.address();
    let get = |more: &str| {
        let request = format!("GET /v1/jobs/overview HTTP/1.1\r\nhost: {address}\r\n{more}\r\n");
        http(&address, &request)
    };
    assert_eq!(get("").0, 401);
    assert_eq!(get("authorization: Bearer wrong\r\n").0, 401);
    let (status, body) = get("authorization: Bearer secret\r\n");
    assert_eq!((status, &body["jobs"][0]["name"]), (200, &json!("flights")));
    let elsewhere = ["list", "-m", &address];
    obey(&place, &elsewhere).error("InvalidArgument", 2);
    obey(&place, &[&elsewhere[..], &["--token", "secret"]].concat()).summary();
    obey(&place, &["cancel", "flights"]).summary();
    running.end();
}

#[test]
fn hostile_requests_change_nothing() {
    // A page in a browser, or a program that guesses, would end the job.
    let place = Place::new();
    let running = Running::start(&place, &["--savepoint-dir", "sp"]);
    let address = running.address();
    let id = running.listed()["job_id"].as_str().unwrap().to_owned();
    let send = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        http(
            &address,
            &format!(
                "POST {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {length}\r\n\r\n{body}"
            ),
        )
    };
    let stop = format!("/v1/jobs/{id}/stop");
    let json_type = "content-type: application/json\r\n";
    let deep = "[".repeat(60_000);
    for (path, headers, body, status) in [
        (&*stop, "content-type: text/plain\r\n", "{}", 415),
        (
            &stop,
            "content-type: application/x-www-form-urlencoded\r\n",
            "drain=true",
            415,
        ),
        (&stop, "", "{}", 415),
        (
            &stop,
            "origin: http://evil.example\r\ncontent-type: application/json\r\n",
            "{}",
            403,
        ),
        (&stop, json_type, &deep, 400),
        (&stop, json_type, "{\"targetDirectory\":\"/sp\\u0000\"}", 400),
        (&stop, json_type, "{\"drain\":1e999}", 400),
        (&stop, json_type, "{\"targetDirectory\":\"/etc\"}", 403),
        (&stop, json_type, "{\"targetDirectory\":\"../../etc\"}", 403),
        (
            "/v1/jobs",
            "content-type: multipart/form-data; boundary=x\r\n",
            "--x",
            403,
        ),
    ] {
        let (found, body) = send(path, headers, body);
        assert_eq!(found, status, "{headers} {body}");
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["errors"]);
    }
    let rebound = "GET /jobs HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    assert_eq!(http(&address, rebound).0, 403);
    // Half a request, and one that never ends its head.
    let mut half = TcpStream::connect(&address).unwrap();
    half.write_all(
        format!("POST {stop} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 9\r\n\r\n{{").as_bytes(),
    )
    .unwrap();
    let mut noise = TcpStream::connect(&address).unwrap();
    noise.write_all(&[0xff, 0x00, 0x0d, 0x0a, 0x0d, 0x0a]).unwrap();
    assert_eq!(running.listed()["state"], "RUNNING");
    assert!(!place.path("sp").exists());
    obey(&place, &["cancel", "flights"]).summary();
    let run = running.end();
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn a_wanted_port_that_is_taken_is_refused_before_the_job_starts() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    place.run(&["--control-port", &port]).error("Busy", 4);
    assert!(!place.state_dir().join("job.json").exists());
    place.run(&["--token", "two words"]).error("InvalidArgument", 2);
    assert!(!place.state_dir().join("job.json").exists());
    let run = place.run(&["--control-port", "off"]);
    assert_eq!(
        (run.summary()["state"].as_str(), run.stderr.as_str()),
        (Some("finished"), "")
    );
}

#[test]
fn a_stop_whose_commits_are_pending_is_no_success() {
    // The user would delete the state directory, and with it what is still to be committed.
    let place = Place::new();
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    let id = "0000000000000000000000000000000a";
    let job = |state: &str, ended: bool| json!({ "state": state, "ended": ended });
    let script = [
        (
            "GET /v1/jobs/overview ",
            json!({ "jobs": [{ "jid": id, "name": "flights" }] }),
        ),
        ("POST /v1/jobs/", json!({ "request-id": id })),
        ("GET /keybed/requests/", json!({ "status": "in-progress" })),
        ("GET /keybed/requests/", json!({ "status": "completed" })),
        ("GET /keybed/jobs/", job("Running", false)),
        ("GET /keybed/jobs/", job("StopCommitPending", true)),
        (
            "GET /v1/jobs/",
            json!({ "status": { "id": "COMPLETED" }, "operation": { "location": "file:/sp/x" } }),
        ),
    ];
    let child = place
        .command(&["stop", "flights", "-m", &address, "--json"])
        .spawn()
        .unwrap();
    for (start, answer) in script {
        let (mut stream, _) = endpoint.accept().unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..length]);
        assert!(request.starts_with(start), "{request}");
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes()).unwrap();
        // Whatever is still being sent is read, so that the answer is not lost.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let error = Run::of(child.wait_with_output().unwrap()).error("StopCommitPending", 5);
    assert_eq!(error["fields"]["savepoint"], "/sp/x");
}
