//! The routes, each with and without the prefix `/v1`. Page: docs/control.md.
//!
//! ```text
//!  GET  /jobs   /jobs/overview   /jobs/:id   /jobs/:id/status   /jobs/:id/execution-result   /config   /overview
//!  POST /jobs/:id/savepoints    /jobs/:id/stop      ─▶ 202 {"request-id"}   GET /jobs/:id/savepoints/:r
//!  POST /jobs/:id/checkpoints                       ─▶ 202 {"request-id"}   GET /jobs/:id/checkpoints/:r
//!  POST /savepoint-disposal                         ─▶ 200 {"request-id"}   GET /savepoint-disposal/:r
//!  PATCH /jobs/:id?mode=cancel                      ─▶ 202 {}
//!  ours: GET /keybed/jobs/:id   GET /keybed/requests/:r(?peek)   POST /keybed/disposal-check
//!        POST /keybed/jobs/:id/gc
//! ```

use super::{
    answer::{Refusal, json},
    control::Control,
    guard,
    record::object,
    request::{self, BODY_BYTES_MAX, SavepointRequest},
    shapes,
    trigger::{Asked, TriggerId},
};
use crate::job::SavepointOptions;
use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Response, StatusCode, Uri},
    middleware::{self, Next},
    response::IntoResponse,
    routing::{get, patch, post},
};
use keybed_format::{Code, Error};
use keybed_snapshot::GcOptions;
use serde_json::json;
use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

/// Longest time for the body of a request.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// What is read of a body that is refused anyway, so that the client comes to read why: a program of Flink's.
const UPLOAD_BYTES_MAX: usize = 256 << 20;
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(60);

type Answer = Result<Response<Body>, Refusal>;
type Shared = State<Arc<Control>>;
type Param = Result<Path<String>, PathRejection>;
type Params = Result<Path<(String, String)>, PathRejection>;

/// Everything that can be asked.
pub(super) fn router(control: Arc<Control>) -> Router {
    let routes = || {
        Router::new()
            .route("/jobs", get(jobs).post(start))
            .route("/jars", get(start).post(start))
            .route("/jars/{*rest}", get(start).post(start).delete(start))
            .route("/jobs/overview", get(overview))
            .route("/jobs/{id}", get(details))
            .route("/jobs/{id}", patch(cancel))
            .route("/jobs/{id}/status", get(status))
            .route("/jobs/{id}/execution-result", get(execution_result))
            .route("/jobs/{id}/savepoints", post(savepoint))
            .route("/jobs/{id}/stop", post(stop))
            .route("/jobs/{id}/checkpoints", post(checkpoint))
            .route("/jobs/{id}/savepoints/{request}", get(savepoint_outcome))
            .route("/jobs/{id}/checkpoints/{request}", get(checkpoint_outcome))
            .route("/savepoint-disposal", post(disposal))
            .route("/savepoint-disposal/{request}", get(disposal_outcome))
            .route("/config", get(config))
            .route("/overview", get(cluster))
    };
    Router::new()
        .merge(routes())
        .nest("/v1", routes())
        .route("/keybed/jobs/{id}", get(report))
        .route("/keybed/requests/{request}", get(any_outcome))
        .route("/keybed/jobs/{id}/gc", post(gc))
        .route("/keybed/disposal-check", post(disposal_check))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(control.clone(), admit))
        .with_state(control)
}

async fn admit(State(control): Shared, request: Request, next: Next) -> Response<Body> {
    let (head, body) = request.into_parts();
    match guard::admit(&head, control.token.as_deref()) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn wrong_method() -> Refusal {
    let error = Error::invalid("the route does not know this method");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, &error)
}

async fn nowhere() -> Refusal {
    Error::new(Code::NotFound, "there is no such route").into()
}

/// Programs are given on the command line, never over the endpoint.
async fn start(request: Request) -> Refusal {
    // Whoever sends a program reads no answer before it is sent.
    let _ = tokio::time::timeout(UPLOAD_TIME_MAX, discard(request.into_body())).await;
    let error = Error::invalid("start jobs with keybed run: this endpoint takes no programs");
    Refusal::new(StatusCode::FORBIDDEN, &error)
}

async fn discard(mut body: Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        read += frame.data_ref().map_or(0, axum::body::Bytes::len);
        if read > UPLOAD_BYTES_MAX {
            return;
        }
    }
}

/// The body of a request, whole.
async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    let refuse = |status, what: &str| Err(Refusal::new(status, &Error::invalid(what)));
    let too_large = "the body is too large";
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, too_large);
    }
    match tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        // Longer than said, or cut off: then nobody reads the answer.
        Ok(Err(_)) => refuse(StatusCode::PAYLOAD_TOO_LARGE, too_large),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    }
}

/// Demands that the job is the one here.
fn demand(control: &Control, id: Param) -> Result<(), Refusal> {
    control.demand_job(&id.map(|Path(id)| id).unwrap_or_default())
}

fn demand_both(control: &Control, ids: Params) -> Result<String, Refusal> {
    let (job, request) = ids.map(|Path(ids)| ids).unwrap_or_default();
    control.demand_job(&job).map(|()| request)
}

async fn jobs(State(control): Shared) -> Answer {
    Ok(json(StatusCode::OK, &shapes::jobs(&control.job.report())))
}

async fn overview(State(control): Shared) -> Answer {
    let overview = shapes::overview(&control.facts, &control.job.report());
    Ok(json(StatusCode::OK, &overview))
}

async fn details(State(control): Shared, id: Param) -> Answer {
    demand(&control, id)?;
    let details = shapes::details(&control.facts, &control.job.report());
    Ok(json(StatusCode::OK, &details))
}

async fn status(State(control): Shared, id: Param) -> Answer {
    demand(&control, id)?;
    Ok(json(StatusCode::OK, &shapes::status(&control.job.report())))
}

async fn execution_result(State(control): Shared, id: Param) -> Answer {
    demand(&control, id)?;
    // Flink's shape of a failure holds an object of Java.
    if let Some(error) = control.job.failure() {
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, &error));
    }
    let result = shapes::execution_result(&control.job.report());
    Ok(json(StatusCode::OK, &result))
}

async fn config() -> Answer {
    Ok(json(StatusCode::OK, &shapes::config()))
}

async fn cluster(State(control): Shared) -> Answer {
    let cluster = shapes::cluster(&control.facts, &control.job.report());
    Ok(json(StatusCode::OK, &cluster))
}

async fn report(State(control): Shared, id: Param) -> Answer {
    demand(&control, id)?;
    let report = shapes::report(&control.facts, &control.job.report());
    Ok(json(StatusCode::OK, &report))
}

async fn savepoint(State(control): Shared, id: Param, request: Request) -> Answer {
    demand(&control, id)?;
    let request = SavepointRequest::savepoint(&read(request.into_body()).await?)?;
    begin_savepoint(control, request).await
}

async fn stop(State(control): Shared, id: Param, request: Request) -> Answer {
    demand(&control, id)?;
    let request = SavepointRequest::stop(&read(request.into_body()).await?)?;
    begin_savepoint(control, request).await
}

async fn begin_savepoint(control: Arc<Control>, request: SavepointRequest) -> Answer {
    let target = request.target.map(|path| control.roots.admit(&path)).transpose();
    let asked = Asked::Savepoint {
        how: SavepointOptions {
            target: target.map_err(outside)?,
            format: request.format,
            hard_links: request.hard_links,
        },
        stop: request.stop,
        drain: request.drain,
    };
    accepted(StatusCode::ACCEPTED, control.begin(request.trigger, asked).await)
}

async fn checkpoint(State(control): Shared, id: Param, request: Request) -> Answer {
    demand(&control, id)?;
    let (scope, trigger) = request::checkpoint(&read(request.into_body()).await?)?;
    accepted(
        StatusCode::ACCEPTED,
        control.begin(trigger, Asked::Checkpoint(scope)).await,
    )
}

async fn disposal(State(control): Shared, request: Request) -> Answer {
    let (path, trigger) = request::disposal(&read(request.into_body()).await?)?;
    let path = control.roots.admit(&path).map_err(outside)?;
    accepted(
        StatusCode::OK,
        control.begin(trigger, Asked::Disposal(path)).await,
    )
}

async fn disposal_check(State(control): Shared, request: Request) -> Answer {
    let (path, _) = request::disposal(&read(request.into_body()).await?)?;
    let path = control.roots.here.join(path);
    control.demand_unneeded(&path.canonicalize().unwrap_or(path))?;
    Ok(json(StatusCode::OK, &json!({})))
}

/// Answers when it is done: its list is the answer, and asking again does no harm.
async fn gc(State(control): Shared, id: Param, request: Request) -> Answer {
    demand(&control, id)?;
    let (dry_run, min_age_ms) = request::gc(&read(request.into_body()).await?)?;
    let options = GcOptions {
        dry_run,
        min_age_ms,
        now_ms: control.clock.wall_millis(),
    };
    let swept = tokio::task::spawn_blocking(move || control.job.gc(&options)).await;
    let lost = || Error::new(Code::JobFailed, "the sweep ended without an outcome");
    let report = swept.unwrap_or_else(|_| Err(lost()))?;
    Ok(json(StatusCode::OK, &shapes::sweep(dry_run, &report)))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn outside(error: Error) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, &error)
}

fn accepted(status: StatusCode, begun: Result<TriggerId, Refusal>) -> Answer {
    begun.map(|id| json(status, &json!({ "request-id": id.to_string() })))
}

async fn savepoint_outcome(State(control): Shared, ids: Params) -> Answer {
    let request = demand_both(&control, ids)?;
    let trigger = control.tell(&request, |asked| matches!(asked, Asked::Savepoint { .. }))?;
    Ok(json(StatusCode::OK, &shapes::trigger(&trigger)))
}

async fn checkpoint_outcome(State(control): Shared, ids: Params) -> Answer {
    let request = demand_both(&control, ids)?;
    let trigger = control.tell(&request, |asked| matches!(asked, Asked::Checkpoint(_)))?;
    Ok(json(StatusCode::OK, &shapes::trigger(&trigger)))
}

async fn disposal_outcome(State(control): Shared, request: Param) -> Answer {
    let request = request.map(|Path(request)| request).unwrap_or_default();
    let trigger = control.tell(&request, |asked| matches!(asked, Asked::Disposal(_)))?;
    Ok(json(StatusCode::OK, &shapes::trigger(&trigger)))
}

/// As recorded; a failed one is told as it is, too. Whoever only peeks is not told yet and comes back.
async fn any_outcome(State(control): Shared, request: Param, uri: Uri) -> Answer {
    let request = request.map(|Path(request)| request).unwrap_or_default();
    let id: TriggerId = request.parse()?;
    if uri.query() != Some("peek") {
        // Whether it failed is in the object.
        let _ = control.tell(&request, |_| true);
    }
    let job = control.job.report().job;
    let triggers = control.triggers.lock();
    match triggers.get(id) {
        Some(trigger) => Ok(json(StatusCode::OK, &object(id, job, trigger))),
        None => Err(super::record::unknown(id).into()),
    }
}

async fn cancel(State(control): Shared, id: Param, request: Request) -> Answer {
    demand(&control, id)?;
    let mode = request.uri().query().map(str::to_owned);
    match mode.as_deref() {
        None | Some("" | "mode=cancel") => {}
        Some(_) => return Err(Error::invalid("a job is patched with mode=cancel and nothing else").into()),
    }
    request::nothing(&read(request.into_body()).await?)?;
    if control.job.report().state.is_ended() {
        return Err(Error::new(Code::Closed, "the job is over already").into());
    }
    control.job.cancel();
    Ok(json(StatusCode::ACCEPTED, &json!({})))
}
