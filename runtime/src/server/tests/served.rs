//! A job that is none, and the routes over it.

use super::super::{
    control::Control,
    controlled::{Controlled, Pending},
    place::Roots,
    record::Records,
    routes::router,
    shapes::Facts,
    trigger::{Done, Triggers},
};
use crate::{
    element::CheckpointScope,
    event::JobReport,
    job::{JobState, SavepointOptions},
};
use axum::{Router, body::Body, http::Request};
use keybed_env::{ManualClock, OsFs, random::Ids};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, JobId};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tower::ServiceExt;

pub(super) const JOB: &str = "0000000000000000000000000000000a";

/// A job that writes down what it is asked for and answers when the test says so.
pub(super) struct FakeJob {
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) answer: Arc<Mutex<Option<Result<Done>>>>,
    pub(super) state: Mutex<JobState>,
    pub(super) needs: Mutex<Vec<PathBuf>>,
}

impl FakeJob {
    fn note(&self, what: String) -> Result<Pending> {
        self.asked.lock().push(what);
        let answer = self.answer.clone();
        Ok(Box::new(move || {
            answer.lock().as_ref().map(|outcome| match outcome {
                Ok(done) => Ok(done.clone()),
                Err(e) => Err(e.duplicate()),
            })
        }))
    }
}

impl Controlled for FakeJob {
    fn report(&self) -> JobReport {
        JobReport {
            job: JobId(10),
            state: self.state.lock().clone(),
            outcome: None,
            duration: Duration::from_millis(1500),
            attempts: 1,
            checkpoints: 3,
            last_checkpoint: Some(CheckpointId(3)),
            stopped_with: None,
            drained: false,
            nodes: Vec::new(),
            source_records: 99,
            depends_on_restored_snapshot: false,
            restored_from: None,
        }
    }

    fn failure(&self) -> Option<Error> {
        let failed = *self.state.lock() == JobState::Failed;
        failed.then(|| Error::new(Code::OperatorFailed, "it broke"))
    }

    fn needs(&self) -> Vec<PathBuf> {
        self.needs.lock().clone()
    }

    fn savepoint(&self, how: &SavepointOptions) -> Result<Pending> {
        let SavepointOptions {
            format,
            target,
            hard_links,
        } = how;
        if target.is_none() {
            return Err(Error::new(Code::NoTargetDirectory, "name one"));
        }
        let target = target.as_deref().unwrap_or(Path::new("")).display();
        let links = if *hard_links { " by links" } else { "" };
        self.note(format!("savepoint {format:?} {target}{links}"))
    }

    fn stop(&self, how: &SavepointOptions, drain: bool) -> Result<Pending> {
        let SavepointOptions { format, target, .. } = how;
        self.note(format!("stop {format:?} {target:?} drain={drain}"))
    }

    fn gc(&self, options: &keybed_snapshot::GcOptions) -> Result<keybed_snapshot::GcReport> {
        if options.min_age_ms == 7 {
            return Err(Error::new(Code::GcRefused, "metadata cannot be read"));
        }
        let swept = keybed_snapshot::gc::Swept {
            path: format!("shared/{}", options.dry_run),
            bytes: options.min_age_ms,
        };
        Ok(keybed_snapshot::GcReport {
            swept: vec![swept],
            ..Default::default()
        })
    }

    fn checkpoint(&self, scope: CheckpointScope) -> Result<Pending> {
        self.note(format!("checkpoint {scope:?}"))
    }

    fn cancel(&self) {
        self.asked.lock().push("cancel".into());
    }
}

pub(super) struct Served {
    pub(super) job: Arc<FakeJob>,
    pub(super) router: Router,
    pub(super) control: Arc<Control>,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) dir: tempfile::TempDir,
}

impl Served {
    pub(super) fn new() -> Served {
        Served::with_token(None)
    }

    pub(super) fn with_token(token: Option<&str>) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let job = Arc::new(FakeJob {
            asked: Mutex::default(),
            answer: Arc::default(),
            state: Mutex::new(JobState::Running),
            needs: Mutex::default(),
        });
        let records = Records {
            fs: Arc::new(OsFs),
            directory: dir.path().join("requests"),
            job: JobId(10),
        };
        std::fs::create_dir(dir.path().join("sp")).unwrap();
        let control = Arc::new(Control {
            job: job.clone(),
            facts: Facts {
                name: "flights".into(),
                start_ms: 1_000,
                parallelism: 2,
            },
            roots: Roots {
                here: dir.path().canonicalize().unwrap(),
                allowed: vec!["sp".into()],
            },
            token: token.map(str::to_owned),
            fs: Arc::new(OsFs),
            clock: Arc::new(ManualClock::new()),
            ids: Mutex::new(Ids::Entropy),
            records: Some(records),
            triggers: Mutex::new(Triggers::default()),
            told: Condvar::new(),
        });
        Served {
            job,
            router: router(control.clone()),
            control,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
            dir,
        }
    }

    /// Sends a request; status, code header, body.
    pub(super) fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, String, Value) {
        self.send(method, path, body, &[("content-type", "application/json")])
    }

    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Body>,
        headers: &[(&str, &str)],
    ) -> (u16, String, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:8081");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            assert_eq!(head.headers["connection"], "close", "{method} {path}");
            assert!(
                head.headers["content-type"]
                    .to_str()
                    .unwrap()
                    .starts_with("application/json")
            );
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let code = head.headers.get("x-keybed-code");
            let code = code.map_or_else(String::new, |code| code.to_str().unwrap().to_owned());
            let failed = head.status.as_u16() >= 400;
            assert_eq!(failed, !code.is_empty(), "{method} {path}: {body}");
            if failed {
                // Flink's client knows an error by this: one field of that name.
                assert_eq!(body.as_object().unwrap().len(), 1);
                let text = body["errors"][0].as_str().unwrap();
                assert!(text.starts_with(&format!("{code}: ")), "{text}");
            }
            (head.status.as_u16(), code, body)
        })
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.job.asked.lock())
    }

    pub(super) fn answer(&self, outcome: Result<Done>) {
        *self.job.answer.lock() = Some(outcome);
        self.runtime.block_on(async {
            while self.control.triggers.lock().in_progress() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        *self.job.answer.lock() = None;
    }

    pub(super) fn sp(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("sp").join(name)
    }
}

pub(super) fn request_id(body: &Value) -> String {
    let id = body["request-id"].as_str().unwrap().to_owned();
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert!(
        id.len() == 32
            && id
                .bytes()
                .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
    );
    id
}
