//! The routes over a job that is none: what clients send, what they get, what reaches the job.

mod served;

use super::trigger::{Done, IN_PROGRESS_MAX};
use crate::job::JobState;
use axum::{body::Body, http::Request};
use keybed_env::OsFs;
use keybed_format::{Code, Error};
use keybed_snapshot::CheckpointId;
use serde_json::json;
use served::{JOB, Served, request_id};
use std::time::Duration;
use tower::ServiceExt;

#[test]
fn a_sweep_is_answered_with_its_list_or_why_it_is_refused() {
    let served = Served::new();
    let path = format!("/keybed/jobs/{JOB}/gc");
    let (status, _, body) = served.ask("POST", &path, r#"{"dryRun":true,"minAgeMs":3}"#);
    assert_eq!((status, &body["dry_run"]), (200, &true.into()));
    assert_eq!(body["swept"], json!([{ "path": "shared/true", "bytes": 3 }]));
    let (status, _, body) = served.ask("POST", &path, "");
    assert_eq!((status, &body["swept"][0]["path"]), (200, &"shared/false".into()));
    let (_, code, _) = served.ask("POST", &path, r#"{"minAgeMs":7}"#);
    assert_eq!(code, "GcRefused");
    for hostile in [
        r#"{"minAgeMs":-1}"#,
        r#"{"minAge":1}"#,
        r#"{"dryRun":"yes"}"#,
        "[]",
    ] {
        let (status, code, _) = served.ask("POST", &path, hostile);
        assert_eq!((status, code.as_str()), (400, "InvalidArgument"), "{hostile}");
    }
    let (_, code, _) = served.ask("POST", "/keybed/jobs/0000000000000000000000000000000b/gc", "");
    assert_eq!(code, "UnknownJob");
    // From a web form.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let (status, ..) = served.send("POST", &path, "dryRun=false", &form);
    assert_eq!(status, 415);
}

#[test]
fn lists_hold_flinks_fields_and_no_others_with_and_without_the_prefix() {
    // A client of Flink would fail at a missing or an unknown field.
    let served = Served::new();
    for prefix in ["", "/v1"] {
        let (status, _, body) = served.ask("GET", &format!("{prefix}/jobs/overview"), "{}");
        assert_eq!(status, 200);
        let job = &body["jobs"][0];
        let mut names: Vec<&String> = job.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(
            names,
            [
                "duration",
                "end-time",
                "jid",
                "last-modification",
                "name",
                "pending-operators",
                "start-time",
                "state",
                "tasks"
            ]
        );
        assert_eq!(
            (&job["jid"], &job["name"], &job["state"]),
            (&json!(JOB), &json!("flights"), &json!("RUNNING"))
        );
        assert_eq!((&job["end-time"], &job["duration"]), (&json!(-1), &json!(1500)));
        assert_eq!(job["tasks"].as_object().unwrap().len(), 11);
        let (_, _, body) = served.ask("GET", &format!("{prefix}/jobs"), "");
        assert_eq!(body, json!({ "jobs": [{ "id": JOB, "status": "RUNNING" }] }));
        let (_, _, body) = served.ask("GET", &format!("{prefix}/jobs/{JOB}/status"), "");
        assert_eq!(body, json!({ "status": "RUNNING" }));
        for path in ["config", "overview", &format!("jobs/{JOB}")] {
            let (status, _, body) = served.ask("GET", &format!("{prefix}/{path}"), "{}");
            assert!(status == 200 && body.is_object(), "{path}");
        }
        let (_, _, body) = served.ask("GET", &format!("{prefix}/jobs/{JOB}/execution-result"), "");
        assert_eq!(body, json!({ "status": { "id": "IN_PROGRESS" } }));
    }
    *served.job.state.lock() = JobState::Failed;
    let (status, code, _) = served.ask("GET", &format!("/v1/jobs/{JOB}/execution-result"), "");
    assert_eq!((status, code.as_str()), (500, "OperatorFailed"));
}

#[test]
fn a_savepoint_is_accepted_polled_and_told() {
    let served = Served::new();
    let target = served.sp("a b");
    for (spelled, format, said) in [
        (format!("file:{}", target.display()), Some("NATIVE"), "Native"),
        (
            format!("file://{}", target.display()),
            Some("CANONICAL"),
            "Canonical",
        ),
        (target.display().to_string(), None, "Canonical"),
        ("sp/a b".to_owned(), None, "Canonical"),
    ] {
        let body = json!({ "target-directory": spelled, "cancel-job": false, "formatType": format, "triggerId": null });
        let (status, _, body) = served.ask("POST", &format!("/v1/jobs/{JOB}/savepoints"), body.to_string());
        assert_eq!(status, 202);
        let id = request_id(&body);
        assert_eq!(served.asked(), [format!("savepoint {said} {}", target.display())]);
        let poll = format!("/v1/jobs/{JOB}/savepoints/{id}");
        let (_, _, body) = served.ask("GET", &poll, "{}");
        assert_eq!(
            body,
            json!({ "status": { "id": "IN_PROGRESS" }, "operation": null })
        );
        assert!(!served.control.linger(Duration::ZERO));
        served.answer(Ok(Done::Savepoint(target.join("savepoint-x"))));
        let (_, _, peeked) = served.ask("GET", &format!("/keybed/requests/{id}?peek"), "");
        assert_eq!(peeked["status"], "completed");
        assert!(!served.control.linger(Duration::ZERO), "who peeks comes back");
        let (status, _, body) = served.ask("GET", &poll, "{}");
        let location = format!("file:{}/savepoint-x", target.display());
        assert_eq!(
            (status, body),
            (
                200,
                json!({ "status": { "id": "COMPLETED" }, "operation": { "location": location } })
            )
        );
        assert!(served.control.linger(Duration::ZERO));
        let (status, _, _) = served.ask("GET", &format!("/v1/jobs/{JOB}/checkpoints/{id}"), "{}");
        assert_eq!(status, 404, "it is no checkpoint");
        let recorded = super::recorded_request(&OsFs, &served.dir.path().join("requests"), &id).unwrap();
        assert_eq!(recorded["status"], "completed");
        let (_, _, ours) = served.ask("GET", &format!("/keybed/requests/{id}"), "");
        assert_eq!(ours, recorded);
    }
}

#[test]
fn a_failed_savepoint_is_an_error_of_its_poll() {
    let served = Served::new();
    let body = json!({ "target-directory": "sp" }).to_string();
    let (_, _, body) = served.ask("POST", &format!("/jobs/{JOB}/savepoints"), body);
    let id = request_id(&body);
    served.answer(Err(Error::new(Code::IoFailed, "no space left").in_file("/sp/x")));
    for _ in 0..2 {
        let (status, code, body) = served.ask("GET", &format!("/jobs/{JOB}/savepoints/{id}"), "");
        assert_eq!((status, code.as_str()), (500, "IoFailed"));
        assert_eq!(body["errors"][0], "IoFailed: no space left [file /sp/x]");
    }
    let (status, _, ours) = served.ask("GET", &format!("/keybed/requests/{id}"), "");
    assert_eq!((status, &ours["status"]), (200, &json!("failed")));
    assert_eq!(ours["error"]["code"], "IoFailed");
}

#[test]
fn stop_drain_and_cancel_with_savepoint_reach_the_job() {
    let served = Served::new();
    for (path, body, said) in [
        (
            "stop",
            r#"{"targetDirectory":null,"drain":false,"formatType":"NATIVE","triggerId":null}"#,
            "Native None drain=false",
        ),
        ("stop", r#"{"drain":true}"#, "Canonical None drain=true"),
        (
            "savepoints",
            r#"{"cancel-job":true}"#,
            "Canonical None drain=false",
        ),
    ] {
        let (status, _, body) = served.ask("POST", &format!("/v1/jobs/{JOB}/{path}"), body);
        assert_eq!((status, served.asked()), (202, vec![format!("stop {said}")]));
        served.answer(Ok(Done::Savepoint("/sp/x".into())));
        let poll = format!("/v1/jobs/{JOB}/savepoints/{}", request_id(&body));
        assert_eq!(
            served.ask("GET", &poll, "{}").2["operation"]["location"],
            "file:/sp/x"
        );
    }
}

#[test]
fn checkpoints_are_asked_for_by_scope() {
    let served = Served::new();
    for (kind, said) in [("CONFIGURED", "Configured"), ("FULL", "Full")] {
        let body = json!({ "checkpointType": kind, "triggerId": null }).to_string();
        let (status, _, body) = served.ask("POST", &format!("/v1/jobs/{JOB}/checkpoints"), body);
        assert_eq!(
            (status, served.asked()),
            (202, vec![format!("checkpoint {said}")])
        );
        served.answer(Ok(Done::Checkpoint(CheckpointId(4))));
        let poll = format!("/v1/jobs/{JOB}/checkpoints/{}", request_id(&body));
        let (_, _, body) = served.ask("GET", &poll, "{}");
        assert_eq!(
            body,
            json!({ "status": { "id": "COMPLETED" }, "operation": { "checkpointId": 4 } })
        );
    }
}

#[test]
fn cancel_is_a_patch_and_programs_are_not_taken() {
    let served = Served::new();
    let (status, _, body) = served.ask("PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"), "{}");
    assert_eq!(
        (status, body, served.asked()),
        (202, json!({}), vec!["cancel".to_owned()])
    );
    let (status, ..) = served.ask("PATCH", &format!("/v1/jobs/{JOB}?mode=stop"), "{}");
    assert_eq!(status, 400);
    *served.job.state.lock() = JobState::Finished;
    let (status, code, _) = served.ask("PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"), "{}");
    assert_eq!((status, code.as_str()), (409, "Closed"));
    let upload = vec![7_u8; 3 << 20];
    for (method, path) in [
        ("POST", "/v1/jobs"),
        ("POST", "/jars/upload"),
        ("POST", "/v1/jars/x/run"),
        ("GET", "/jars"),
    ] {
        let headers = [("content-type", "multipart/form-data; boundary=x")];
        let (status, _, body) = served.send(method, path, upload.clone(), &headers);
        assert_eq!(status, 403);
        assert!(
            body["errors"][0]
                .as_str()
                .unwrap()
                .contains("start jobs with keybed run")
        );
    }
    assert_eq!(served.asked(), [""; 0]);
}

#[test]
fn unknown_jobs_requests_routes_and_methods_have_their_codes() {
    let served = Served::new();
    let other = "0000000000000000000000000000000b";
    for (method, path, status, code) in [
        ("POST", format!("/v1/jobs/{other}/savepoints"), 404, "UnknownJob"),
        ("POST", format!("/v1/jobs/{other}/stop"), 404, "UnknownJob"),
        ("POST", format!("/v1/jobs/{other}/checkpoints"), 404, "UnknownJob"),
        (
            "PATCH",
            format!("/v1/jobs/{other}?mode=cancel"),
            404,
            "UnknownJob",
        ),
        ("GET", format!("/v1/jobs/{other}/status"), 404, "UnknownJob"),
        ("GET", "/v1/jobs/%00%ff".to_owned(), 404, "UnknownJob"),
        ("GET", "/v1/jobs/..%2f..%2fetc".to_owned(), 404, "UnknownJob"),
        (
            "GET",
            format!("/v1/jobs/{JOB}/savepoints/{other}"),
            404,
            "NotFound",
        ),
        (
            "GET",
            format!("/v1/jobs/{JOB}/savepoints/..%2fx"),
            400,
            "InvalidArgument",
        ),
        ("GET", format!("/savepoint-disposal/{other}"), 404, "NotFound"),
        ("GET", format!("/keybed/requests/{other}"), 404, "NotFound"),
        ("GET", "/nowhere".to_owned(), 404, "NotFound"),
        ("GET", "/v1/v1/jobs".to_owned(), 404, "NotFound"),
        ("DELETE", format!("/v1/jobs/{JOB}"), 405, "InvalidArgument"),
        ("PUT", format!("/v1/jobs/{JOB}/stop"), 405, "InvalidArgument"),
    ] {
        let (found, said, _) = served.ask(method, &path, "{}");
        assert_eq!((found, said.as_str()), (status, code), "{method} {path}");
    }
    assert_eq!(served.asked(), [""; 0]);
}

#[test]
fn targets_outside_the_roots_are_refused_before_the_job_hears_of_them() {
    // Whoever reaches the endpoint could write anywhere that the job may.
    let served = Served::new();
    for target in ["/etc", "file:/etc", "sp/../..", "/", "sp/new/../../x", "../x"] {
        for (path, name) in [("savepoints", "target-directory"), ("stop", "targetDirectory")] {
            let body = json!({ name: target }).to_string();
            let (status, _, body) = served.ask("POST", &format!("/v1/jobs/{JOB}/{path}"), body);
            assert_eq!(status, 403, "{target}");
            let text = body["errors"][0].as_str().unwrap();
            assert!(
                text.contains("allowed-roots") || text.contains("goes up"),
                "{text}"
            );
        }
        let body = json!({ "savepoint-path": target }).to_string();
        assert_eq!(
            served.ask("POST", "/v1/savepoint-disposal", body).0,
            403,
            "{target}"
        );
    }
    assert_eq!(served.asked(), [""; 0]);
    let (status, code, _) = served.ask("POST", &format!("/v1/jobs/{JOB}/savepoints"), "{}");
    assert_eq!((status, code.as_str()), (400, "NoTargetDirectory"));
    assert!(
        served.control.linger(Duration::ZERO),
        "nothing is left in progress"
    );
    assert_eq!(
        std::fs::read_dir(served.dir.path().join("requests"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn hostile_bodies_and_forms_change_nothing() {
    let served = Served::new();
    let path = format!("/v1/jobs/{JOB}/stop");
    for body in [
        "[",
        "[]",
        "{\"drain\":1e999}",
        &"[".repeat(50_000),
        "{\"targetDirectory\":\"/sp\\u0000\"}",
    ] {
        let (status, code, _) = served.ask("POST", &path, body.to_owned());
        assert_eq!((status, code.as_str()), (400, "InvalidArgument"));
    }
    let (status, ..) = served.ask("POST", &path, "x".repeat(70_000));
    assert_eq!(status, 413);
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let (status, ..) = served.send("POST", &path, "{}", &[("content-type", kind)]);
        assert_eq!(status, 415);
    }
    let headers = [
        ("content-type", "application/json"),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(served.send("POST", &path, "{}", &headers).0, 403);
    assert_eq!(served.asked(), [""; 0]);
}

#[test]
fn the_same_trigger_id_is_the_same_request() {
    let served = Served::new();
    let path = format!("/v1/jobs/{JOB}/savepoints");
    let body =
        json!({ "target-directory": "sp", "triggerId": "00000000000000000000000000000ABC" }).to_string();
    let (_, _, first) = served.ask("POST", &path, body.clone());
    let (status, _, second) = served.ask("POST", &path, body.clone());
    assert_eq!((status, &first), (202, &second));
    assert_eq!(request_id(&first), "00000000000000000000000000000abc");
    assert_eq!(served.asked().len(), 1);
    let other = json!({ "target-directory": "sp/b", "triggerId": "00000000000000000000000000000abc" });
    let (status, code, _) = served.ask("POST", &path, other.to_string());
    assert_eq!((status, code.as_str()), (409, "TargetExists"));
    served.answer(Ok(Done::Savepoint("/sp/x".into())));
    assert_eq!(served.ask("POST", &path, body).0, 202);
    assert_eq!(served.asked(), [""; 0]);
}

#[test]
fn too_many_requests_are_refused() {
    let served = Served::new();
    let path = format!("/v1/jobs/{JOB}/checkpoints");
    for _ in 0..IN_PROGRESS_MAX {
        assert_eq!(served.ask("POST", &path, "{}").0, 202);
    }
    let (status, code, _) = served.ask("POST", &path, "{}");
    assert_eq!((status, code.as_str()), (429, "TooManyRequests"));
    served.answer(Ok(Done::Checkpoint(CheckpointId(1))));
    assert_eq!(served.ask("POST", &path, "{}").0, 202);
}

#[test]
fn disposal_refuses_what_the_job_needs_and_what_is_no_snapshot() {
    let served = Served::new();
    let needed = served.sp("restored");
    std::fs::create_dir(&needed).unwrap();
    served.job.needs.lock().push(needed.clone());
    for path in ["sp/restored", "sp/restored/_metadata", "sp"] {
        let body = json!({ "savepoint-path": path }).to_string();
        let (status, code, _) = served.ask("POST", "/v1/savepoint-disposal", body.clone());
        assert_eq!((status, code.as_str()), (409, "GcRefused"), "{path}");
        let (status, code, _) = served.ask("POST", "/keybed/disposal-check", body);
        assert_eq!((status, code.as_str()), (409, "GcRefused"), "{path}");
    }
    served.job.needs.lock().clear();
    let body = json!({ "savepoint-path": "sp/restored" }).to_string();
    assert_eq!(served.ask("POST", "/keybed/disposal-check", body.clone()).0, 200);
    let (status, _, body) = served.ask("POST", "/v1/savepoint-disposal", body);
    assert_eq!(status, 200);
    let poll = format!("/v1/savepoint-disposal/{}", request_id(&body));
    let outcome = loop {
        let (status, code, body) = served.ask("GET", &poll, "{}");
        if body["status"]["id"] != "IN_PROGRESS" {
            break (status, code);
        }
        served
            .runtime
            .block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    };
    assert_eq!(outcome, (400, "NotASnapshot".to_owned()));
    assert!(needed.exists());
}

#[test]
fn the_token_guards_every_route() {
    let served = Served::with_token(Some("secret"));
    for (method, path) in [
        ("GET", "/v1/jobs/overview"),
        ("POST", "/v1/jobs"),
        ("GET", "/nowhere"),
        ("GET", "/config"),
    ] {
        assert_eq!(served.ask(method, path, "").0, 401, "{path}");
    }
    let headers = [
        ("authorization", "Bearer secret"),
        ("content-type", "application/json"),
    ];
    assert_eq!(served.send("GET", "/v1/jobs/overview", "{}", &headers).0, 200);
}

#[test]
fn a_client_that_goes_away_leaves_its_request_whole() {
    // A dropped connection would leave a request that is in progress for ever.
    let served = Served::new();
    let request = Request::post(format!("/v1/jobs/{JOB}/checkpoints"))
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Body::from("{}"))
        .unwrap();
    served.runtime.block_on(async {
        let mut future = std::pin::pin!(served.router.clone().oneshot(request));
        let once = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready()));
        assert!(!once.await, "it was answered at once: the test shows nothing");
    });
    served.runtime.block_on(async {
        while served.job.asked.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    served.answer(Ok(Done::Checkpoint(CheckpointId(9))));
    assert!(!served.control.linger(Duration::ZERO), "nobody was told");
}
