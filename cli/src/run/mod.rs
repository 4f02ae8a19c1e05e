//! `keybed run`: decide, start, watch, sum up.
//!
//! ```text
//! state directory ─▶ record, FINISHED ─▶ decide ─▶ fresh │ resume │ nothing to do │ refused
//!                                                     ╰────┴─▶ job ─▶ events ─▶ log, bar, lines
//!                                                                └──▶ end ────▶ summary
//! ```

mod check;
mod control;
mod decide;
mod events;
mod log;
mod next_run;
mod places;
mod record;
mod restore_record;
mod summary;
mod watch;

use crate::{
    args::{BackendName, RunArgs},
    claim,
    inputs::Inputs,
    jobs::JobName,
    say,
};
use control::Endpoint;
use decide::{Found, Start, Wanted, Wish, decide};
use events::EventLog;
use keybed::{
    Code, Error, Result,
    env::{Clock, Fs, OsFs, SystemClock, fs::FileLock, random::Ids},
    runtime::{
        Backend, Checkpoints, Job, JobEvent, JobOptions, JobReport, OnEvent, Pipeline, RestartStrategy,
        Restore,
    },
    snapshot::JobId,
};
use places::Places;
pub(crate) use record::JobRecord;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};
use summary::Summary;
use watch::Watch;

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);
/// Exit code of a run whose output is not complete.
const INCOMPLETE: u8 = 1;
/// What a run over standard input cannot promise.
const NOT_REPLAYABLE: &str = "standard input cannot be read again: a failure ends this run instead of restarting it, \
                              --resume will be refused, and lines read after the last checkpoint are lost to \
                              whoever starts from that";
/// Output directory of a run that names none.
const OUT: &str = "out";
/// State directory of a run that names none.
pub(crate) const STATE_DIR: &str = "keybed-state";

/// Runs a job to its end, or until it is stopped.
///
/// # Errors
/// `UnknownJob`, `Locked`, `InterruptedRun`, and whatever the job fails with.
pub(crate) fn run(args: &RunArgs, json: bool) -> Result<ExitCode> {
    let job = JobName::find(&args.job)?;
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let places = Places::new(args.state_dir.clone());
    let wanted = Wanted {
        job: job.as_str().to_owned(),
        input: Inputs::named(&args.input)?,
        out: args.out.as_deref().map(absolute).transpose()?,
    };
    let wish = match (args.resume, args.restart) {
        (true, _) => Wish::Resume,
        (_, true) => Wish::Restart,
        _ => Wish::Nothing,
    };
    let restore = args.restore.restore()?;
    let decided = |found| decide(found, wish, &wanted).map_err(|e| e.in_file(&args.state_dir));
    if args.restore.check {
        let met = places.found(&*fs).and_then(decided).err();
        return look(job, args, &wanted, restore, met, json);
    }
    // Asked before anything is locked or written, so that a finished job is left as it is.
    if let Ok(Start::AlreadyFinished(record)) = places.found(&*fs).and_then(decided) {
        say_already_finished(job, &record, (&places, json))?;
        return Ok(ExitCode::SUCCESS);
    }

    fs.create_dir_all(&args.state_dir)?;
    let in_use = if args.take_over {
        "the state directory is in use, and an owner that lives is not displaced by --take-over"
    } else {
        "the state directory is in use; with a --state-dir of its own this run goes beside it"
    };
    let lock = fs.lock(&places.lock()).map_err(|e| e.context(in_use))?;
    let found = places.found(&*fs)?;
    let plan = match decided(found.clone())? {
        Start::AlreadyFinished(record) => {
            say_already_finished(job, &record, (&places, json))?;
            return Ok(ExitCode::SUCCESS);
        }
        Start::Resume(record) => {
            record.input.check_unchanged(&record.identities)?;
            Plan {
                record,
                resumed: true,
                replaced: None,
            }
        }
        Start::Fresh => Plan {
            record: fresh_record(job, &wanted, restore)?,
            resumed: false,
            replaced: found,
        },
    };
    start_and_watch(job, args, &plan, &places, &fs, (lock, json))
}

/// What was decided.
struct Plan {
    record: JobRecord,
    resumed: bool,
    /// What a fresh start replaces.
    replaced: Option<Found>,
}

fn start_and_watch(
    job: JobName,
    args: &RunArgs,
    plan: &Plan,
    places: &Places,
    fs: &Arc<dyn Fs>,
    (lock, json): (Box<dyn FileLock>, bool),
) -> Result<ExitCode> {
    let Plan { record, resumed, .. } = plan;
    let pipeline = job.pipeline(&record.input, &record.out, args.on_bad_record)?;
    let said = args.endpoint.or_environment();
    let endpoint = Endpoint::bind(&said, record, places.state_dir())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let log = Arc::new(EventLog::open(&**fs, clock.clone(), places.state_dir())?);
    if !resumed {
        record.write(&**fs, places.state_dir())?;
    }
    log.append(
        "run",
        &json!({
            "job": record.job,
            "job_id": record.id.to_string(),
            "mode": if *resumed { "resume" } else { "fresh" },
            "pid": std::process::id(),
            "parallelism": args.parallelism,
            "backend": format!("{:?}", args.backend).to_lowercase(),
        }),
    )?;
    let (notes, inbox) = mpsc::channel();
    on_ctrl_c(notes.clone())?;
    let watch = Watch::new(json);
    let mut options = options(args, record, places, fs.clone(), clock);
    options.abandoned = plan
        .replaced
        .iter()
        .filter(|f| !f.finished)
        .map(|f| f.record.id)
        .collect();
    // A resume needs the snapshot only if no checkpoint completed since.
    options.restore = match &record.restore {
        Some(_) if *resumed && places.has_checkpoints(record.id)? => None,
        restore => restore.clone(),
    };
    options.anchors = args.restore.anchors()?;
    if let Some(restore) = &mut options.restore {
        // Said again because something was moved once more.
        restore.anchors.extend(options.anchors.clone());
    }
    options.savepoint_dir = said.savepoint_dir.as_deref().map(absolute).transpose()?;
    if record.input == Inputs::Standard {
        // What a new attempt would have to read again is gone.
        options.restart = Some(RestartStrategy::None);
        say::err(format!("warning: {NOT_REPLAYABLE}\n"));
        log.append(
            "warning",
            &json!({ "name": "not-replayable", "text": NOT_REPLAYABLE }),
        )?;
    }
    options.on_event = Some(listener(log.clone(), watch.clone(), notes));
    let running = match start(&pipeline, options, args.take_over) {
        Ok(running) => running,
        Err(error) => {
            undo_record(plan, &**fs, places.state_dir());
            // Of both errors the first one is told.
            let _ = log.append(
                "refused",
                &json!({ "code": error.code().as_str(), "error": error.to_string() }),
            );
            return Err(error);
        }
    };
    let served = endpoint.serve(&running, record, places.state_dir())?;
    let report = watch_to_the_end(&running, &inbox, &watch);
    // Whoever asked may be told later; the next run need not wait for that.
    drop((lock, inbox));
    let told = report.map(|report| tell((job, record), &report, places, json));
    served.end(&running.status());
    told
}

/// Sums up.
fn tell((job, record): (JobName, &JobRecord), report: &JobReport, places: &Places, json: bool) -> ExitCode {
    let job_root = places.job_root(record.id);
    let summary = Summary::of((job, record), report, (places.state_dir(), &job_root));
    if json {
        say::out(summary.object());
    } else {
        say::out(summary.text());
    }
    match summary::is_complete(report) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(INCOMPLETE),
    }
}

/// Starts the job. If nothing but the claim of another job is in the way, that is taken over where it was asked for.
fn start(pipeline: &Pipeline, options: JobOptions, take_over: bool) -> Result<Job> {
    let again = options.clone();
    match (pipeline.start(options), &again.restore) {
        (Err(refused), Some(restore)) if take_over && is_claim_alone(&refused) => {
            claim::take_over(restore)?;
            pipeline.start(again)
        }
        (started, _) => started,
    }
}

fn is_claim_alone(refused: &Error) -> bool {
    let further = refused
        .fields()
        .iter()
        .any(|(name, _)| *name == "further_problem");
    refused.code() == Code::SnapshotClaimedByOther && !further
}

/// Looks whether a run would start, and writes nothing.
fn look(
    job: JobName,
    args: &RunArgs,
    wanted: &Wanted,
    restore: Option<Restore>,
    met: Option<Error>,
    json: bool,
) -> Result<ExitCode> {
    let mut met = Vec::from_iter(met);
    let input = wanted.input.clone().map_or_else(|| job.default_input(), Ok)?;
    met.extend(input.identities().err());
    let options = JobOptions {
        parallelism: args.parallelism.get(),
        checkpoints: Some(checkpoints(args, &Places::new(args.state_dir.clone()))),
        restore,
        ..JobOptions::default()
    };
    let out = or_default(&wanted.out, OUT)?;
    check::run(
        &job.pipeline(&input, &out, args.on_bad_record)?,
        &options,
        met,
        json,
    )
}

/// A run that never started leaves the state directory as it found it; if that fails, the next one is asked whether
/// it resumes or restarts.
fn undo_record(plan: &Plan, fs: &dyn Fs, state_dir: &Path) {
    if !plan.resumed {
        let _ = match &plan.replaced {
            Some(found) => found.record.write(fs, state_dir),
            None => JobRecord::remove(fs, state_dir),
        };
    }
}

/// Tells log, screen and main thread of events.
fn listener(log: Arc<EventLog>, watch: Watch, notes: mpsc::Sender<Note>) -> OnEvent {
    let broken_log = AtomicBool::new(false);
    Arc::new(move |event: &JobEvent| {
        if let Err(error) = log.job_event(event)
            && !broken_log.swap(true, Ordering::Relaxed)
        {
            watch.line(&format!("the event log cannot be written any more: {error}"));
        }
        watch.event(event);
        if matches!(event, JobEvent::Ended { .. }) {
            let _ = notes.send(Note::Ended); // nobody listens any more: it has been noticed otherwise
        }
    })
}

/// What the main thread is told.
enum Note {
    /// The user wants the job to stop.
    Stop,
    /// The job is over.
    Ended,
}

fn watch_to_the_end(job: &Job, inbox: &mpsc::Receiver<Note>, watch: &Watch) -> Result<JobReport> {
    while !job.is_ended() {
        match inbox.recv_timeout(TICK) {
            Ok(Note::Stop) => {
                watch.line("stopping after a last checkpoint; once more ends at once");
                job.stop_gracefully()?;
            }
            Ok(Note::Ended) => break,
            Err(_) => watch.progress(&job.status()),
        }
    }
    let report = job.wait();
    watch.end();
    report
}

/// The first Ctrl-C asks for a stop, the second one ends the process.
fn on_ctrl_c(notes: mpsc::Sender<Note>) -> Result {
    let asked = AtomicBool::new(false);
    let handler = move || {
        if asked.swap(true, Ordering::Relaxed) || notes.send(Note::Stop).is_err() {
            std::process::exit(i32::from(INCOMPLETE));
        }
    };
    ctrlc::set_handler(handler)
        .map_err(|e| Error::new(Code::IoFailed, format!("signals cannot be listened to: {e}")))
}

fn options(
    args: &RunArgs,
    record: &JobRecord,
    places: &Places,
    fs: Arc<dyn Fs>,
    clock: Arc<dyn Clock>,
) -> JobOptions {
    let memtable = args
        .memtable
        .map(|m| usize::try_from(m.as_u64()).unwrap_or(usize::MAX));
    JobOptions {
        job: Some(record.id),
        parallelism: args.parallelism.get(),
        backend: match (args.backend, memtable) {
            (BackendName::Heap, _) => Backend::Heap,
            (BackendName::Lsm, Some(memtable_bytes)) => Backend::Lsm { memtable_bytes },
            (BackendName::Lsm, None) => Backend::lsm(),
        },
        work_dir: places.work(),
        checkpoints: Some(checkpoints(args, places)),
        throttle: args.throttle.map(|t| u64::from(t.get())),
        fs,
        clock,
        ..JobOptions::default()
    }
}

fn checkpoints(args: &RunArgs, places: &Places) -> Checkpoints {
    Checkpoints::every(*args.checkpoint_interval, places.checkpoints()).retain(args.retain.get())
}

fn fresh_record(job: JobName, wanted: &Wanted, restore: Option<Restore>) -> Result<JobRecord> {
    let input = wanted.input.clone().map_or_else(|| job.default_input(), Ok)?;
    Ok(JobRecord {
        job: wanted.job.clone(),
        id: JobId(Ids::Entropy.fresh()?),
        identities: input.identities()?,
        input,
        out: or_default(&wanted.out, OUT)?,
        restore,
    })
}

fn or_default(named: &Option<PathBuf>, default: &str) -> Result<PathBuf> {
    named.clone().map_or_else(|| absolute(Path::new(default)), Ok)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))
}

fn say_already_finished(job: JobName, record: &JobRecord, (places, json): (&Places, bool)) -> Result {
    let stopped = places.stopped_with(record.id)?;
    let stopped = stopped.as_ref();
    let savepoint = stopped.map(|stop| stop.directory.display().to_string());
    let drained = stopped.is_none_or(|stop| stop.drained);
    if json {
        say::out(json!({
            "job": record.job,
            "job_id": record.id.to_string(),
            "state": "already-finished",
            "out": record.out.display().to_string(),
            "stopped_with": savepoint,
        }));
    } else if let (Some(savepoint), false) = (&savepoint, drained) {
        let (name, again) = (
            &record.job,
            next_run::from((job, record), places.state_dir(), Path::new(savepoint)),
        );
        say::out(format!(
            "{name} was stopped with the savepoint {savepoint}; go on with: {again}\nNothing was changed."
        ));
    } else {
        let (job, out) = (&record.job, record.out.display());
        say::out(format!(
            "{job} has finished already; its output is in {out}. Nothing was changed."
        ));
    }
    Ok(())
}
