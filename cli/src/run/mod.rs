//! `keybed run`: decide, start, watch, sum up.
//!
//! ```text
//! state directory ─▶ record, FINISHED ─▶ decide ─▶ fresh │ resume │ nothing to do │ refused
//!                                                     ╰────┴─▶ job ─▶ events ─▶ log, bar, lines
//!                                                                └──▶ end ────▶ summary
//! ```

mod decide;
mod events;
mod log;
mod record;
mod summary;
mod watch;

use crate::{
    args::{BackendName, RunArgs},
    jobs::{JobName, flights},
    say,
};
use decide::{Found, Start, Wanted, Wish, decide};
use events::EventLog;
use keybed::{
    Code, Error, Result,
    env::{Clock, Fs, OsFs, SystemClock, random::Ids},
    runtime::{Backend, Checkpoints, Job, JobEvent, JobOptions, JobReport, Outcome},
    snapshot::{
        CheckpointStorage, FinishedRecord, JobId, LocalStorage, ObjectPath, OpenRoot, Place, SnapshotDir,
        finished::FINISHED_BYTES_MAX, storage::layout,
    },
};
use record::JobRecord;
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

/// Runs a job to its end, or until it is stopped.
///
/// # Errors
/// `UnknownJob`, `Locked`, `InterruptedRun`, and whatever the job fails with.
pub(crate) fn run(args: &RunArgs, json: bool) -> Result<ExitCode> {
    let job = JobName::find(&args.job)?;
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let places = Places {
        state_dir: args.state_dir.clone(),
    };
    let wanted = Wanted {
        job: job.as_str().to_owned(),
        input: args.input.as_deref().map(absolute).transpose()?,
        out: args.out.as_deref().map(absolute).transpose()?,
    };
    let wish = match (args.resume, args.restart) {
        (true, _) => Wish::Resume,
        (_, true) => Wish::Restart,
        _ => Wish::Nothing,
    };
    // Asked before anything is locked or written, so that a finished job is left as it is.
    let start = places.found(&*fs).and_then(|found| decide(found, wish, &wanted));
    if let Ok(Start::AlreadyFinished(record)) = start {
        say_already_finished(&record, json);
        return Ok(ExitCode::SUCCESS);
    }

    fs.create_dir_all(&places.state_dir)?;
    let _lock = fs
        .lock(&places.lock())
        .map_err(|e| e.context("the state directory is in use"))?;
    let found = places.found(&*fs)?;
    let abandoned: Vec<JobId> = found
        .iter()
        .filter(|f| !f.finished)
        .map(|f| f.record.id)
        .collect();
    let (record, resumed) = match decide(found, wish, &wanted)? {
        Start::AlreadyFinished(record) => {
            say_already_finished(&record, json);
            return Ok(ExitCode::SUCCESS);
        }
        Start::Resume(record) => (record, true),
        Start::Fresh => (fresh_record(&wanted)?, false),
    };
    let log = Arc::new(EventLog::open(&*fs, clock.clone(), &places.state_dir)?);
    let watch = Watch::new(json);
    if !resumed {
        record.write(&*fs, &places.state_dir)?;
    }
    if resumed {
        verify_newest(fs.clone(), &places.job_root(record.id), record.id)?;
    }
    log.append(
        "run",
        &json!({
            "job": record.job,
            "job_id": record.id.to_string(),
            "mode": if resumed { "resume" } else { "fresh" },
            "pid": std::process::id(),
            "parallelism": args.parallelism,
            "backend": format!("{:?}", args.backend).to_lowercase(),
        }),
    )?;

    let (notes, inbox) = mpsc::channel();
    on_ctrl_c(notes.clone())?;
    let pipeline = match job {
        JobName::Flights => flights::pipeline(record.input.clone(), &record.out, args.on_bad_record),
    };
    let mut options = options(args, &record, &places, fs, clock);
    options.abandoned = if resumed { Vec::new() } else { abandoned };
    let broken_log = AtomicBool::new(false);
    let (events, lines) = (log.clone(), watch.clone());
    options.on_event = Some(Arc::new(move |event: &JobEvent| {
        if let Err(error) = events.job_event(event)
            && !broken_log.swap(true, Ordering::Relaxed)
        {
            lines.line(&format!("the event log cannot be written any more: {error}"));
        }
        lines.event(event);
        if matches!(event, JobEvent::Ended { .. }) {
            let _ = notes.send(Note::Ended); // nobody listens any more: it has been noticed otherwise
        }
    }));
    let running = pipeline.start(options)?;
    let report = watch_to_the_end(&running, &inbox, &watch)?;
    let job_root = places.job_root(record.id);
    let summary = Summary::of(&record, &report, &job_root);
    if json {
        say::out(summary.object());
    } else {
        say::out(summary.text());
    }
    Ok(match report.outcome {
        Some(Outcome::Finished) => ExitCode::SUCCESS,
        _ => ExitCode::from(INCOMPLETE),
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
    let interval = *args.checkpoint_interval;
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
        checkpoints: Some(Checkpoints::every(interval, places.checkpoints()).retain(args.retain.get())),
        throttle: args.throttle.map(|t| u64::from(t.get())),
        fs,
        clock,
        ..JobOptions::default()
    }
}

/// Where things lie in the state directory. Page: docs/format/state-dir.md.
struct Places {
    state_dir: PathBuf,
}

impl Places {
    fn lock(&self) -> PathBuf {
        self.state_dir.join("LOCK")
    }

    fn work(&self) -> PathBuf {
        self.state_dir.join("work")
    }

    fn checkpoints(&self) -> PathBuf {
        self.state_dir.join("checkpoints")
    }

    fn job_root(&self, job: JobId) -> PathBuf {
        self.checkpoints().join(job.to_string())
    }

    /// What an earlier run left.
    fn found(&self, fs: &dyn Fs) -> Result<Option<Found>> {
        let Some(record) = JobRecord::read(fs, &self.state_dir)? else {
            return Ok(None);
        };
        let storage = LocalStorage::at(Arc::new(OsFs), self.job_root(record.id));
        let finished = match storage.read(&ObjectPath::Finished, FINISHED_BYTES_MAX) {
            Ok(bytes) => FinishedRecord::decode(&bytes)
                .map(|_| true)
                .map_err(|e| e.in_file(storage.describe(&ObjectPath::Finished)))?,
            Err(e) if e.code() == Code::NotFound => false,
            Err(e) => return Err(e),
        };
        Ok(Some(Found { record, finished }))
    }
}

/// Reads every byte of the checkpoint that a resume goes on from, before anything starts. See
/// docs/decisions/resume-verifies-everything.md.
fn verify_newest(fs: Arc<dyn Fs>, job_root: &Path, job: JobId) -> Result {
    if fs.facts(job_root)?.is_none() {
        return Ok(()); // killed before the root was made: the run starts at the beginning
    }
    let storage = Arc::new(LocalStorage::at(fs.clone(), job_root));
    let Some(newest) = OpenRoot::open(storage, job)?.latest()? else {
        return Ok(());
    };
    let directory = layout::directory(job_root, Place::Checkpoint(newest.checkpoint));
    let snapshot = SnapshotDir::open(fs, &directory)?;
    crate::snapshot::verify::check(&snapshot)
        .map_err(|e| e.context(format!("checkpoint {} cannot be resumed from", newest.checkpoint)))
}

fn fresh_record(wanted: &Wanted) -> Result<JobRecord> {
    let or = |named: &Option<PathBuf>, default: &str| {
        named.clone().map_or_else(|| absolute(Path::new(default)), Ok)
    };
    Ok(JobRecord {
        job: wanted.job.clone(),
        id: JobId(Ids::Entropy.fresh()?),
        input: or(&wanted.input, flights::INPUT)?,
        out: or(&wanted.out, "out")?,
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))
}

fn say_already_finished(record: &JobRecord, json: bool) {
    if json {
        say::out(json!({
            "job": record.job,
            "job_id": record.id.to_string(),
            "state": "already-finished",
            "out": record.out.display().to_string(),
        }));
    } else {
        let (job, out) = (&record.job, record.out.display());
        say::out(format!(
            "{job} has finished already; its output is in {out}. Nothing was changed."
        ));
    }
}
