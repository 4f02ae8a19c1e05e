//! Who runs what: cooperative tasks and background jobs.
//!
//! A [`Task`] is a long-lived state machine (a source, an operator subtask, a coordinator) that is stepped until
//! it is done; it never blocks inside a step. A [`Job`] is a short closure for the background pool (flush,
//! compaction, upload). [`ThreadScheduler`] gives every task a thread and runs jobs on a pool;
//! [`SimScheduler`](crate::SimScheduler) (file `sched_sim`) runs the same tasks and jobs on one thread in an order drawn from a seed.

#![allow(
    clippy::disallowed_methods,
    reason = "the one place where threads start and are waited for"
)]

use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    fmt::Debug,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What a task did in one step and when it wants the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It made progress: step it again soon.
    Again,
    /// It has nothing to do until its [`Waker`] is woken or the duration (from now) has passed. `None` waits for
    /// the waker alone.
    Park(Option<Duration>),
    /// It is finished and must not be stepped again.
    Done,
}

/// A long-lived cooperative state machine.
pub trait Task: Send {
    /// Does a bounded amount of work without blocking. A panic ends the task; its handle reports it.
    fn step(&mut self) -> Step;
}

/// A short piece of background work. It may block on I/O, never on another job.
pub type Job = Box<dyn FnOnce() + Send>;

/// Which jobs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it: flush of a sealed memtable, the asynchronous part of a checkpoint.
    Flush,
    /// Merges of small upper runs.
    Upper,
    /// Merges into the bottom run and everything that can wait.
    Bottom,
}

/// Wakes a parked task; cheap to clone, may be called from any thread, any number of times.
#[derive(Clone, Debug)]
pub struct Waker(Arc<dyn Wake>);

/// How a scheduler is told that a task has work.
pub trait Wake: Send + Sync + Debug {
    /// The task will be stepped at least once after this call.
    fn wake(&self);
}

impl Waker {
    /// For implementations of [`Scheduler`].
    pub fn new(wake: Arc<dyn Wake>) -> Self {
        Waker(wake)
    }

    /// Makes the task run at least one more step after this call.
    pub fn wake(&self) {
        self.0.wake();
    }

    /// A waker that wakes nobody.
    pub fn noop() -> Self {
        #[derive(Debug)]
        struct Nobody;
        impl Wake for Nobody {
            fn wake(&self) {}
        }
        Waker(Arc::new(Nobody))
    }
}

/// Watches one spawned task.
#[derive(Clone, Debug)]
pub struct TaskHandle {
    state: Arc<TaskState>,
}

#[derive(Debug, Default)]
struct TaskState {
    ended: Mutex<Option<TaskEnd>>,
    changed: Condvar,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// It returned [`Step::Done`].
    Done,
    /// It panicked with this message.
    Panicked(String),
}

impl TaskHandle {
    /// A handle and the means to complete it; for implementations of [`Scheduler`].
    pub fn pair() -> (TaskHandle, TaskEnder) {
        let state = Arc::new(TaskState::default());
        (TaskHandle { state: state.clone() }, TaskEnder { state })
    }

    /// How it ended, or `None` while it lives.
    pub fn ended(&self) -> Option<TaskEnd> {
        self.state.ended.lock().clone()
    }

    /// Blocks until it ends or the time is over. Only for threads that are not tasks, and only under a scheduler
    /// with threads of its own.
    pub fn wait(&self, at_most: Duration) -> Option<TaskEnd> {
        let deadline = Instant::now() + at_most;
        let mut ended = self.state.ended.lock();
        while ended.is_none() {
            if self.state.changed.wait_until(&mut ended, deadline).timed_out() {
                break;
            }
        }
        ended.clone()
    }
}

/// Completes a [`TaskHandle`].
#[derive(Debug)]
pub struct TaskEnder {
    state: Arc<TaskState>,
}

impl TaskEnder {
    /// Tells everybody who waits.
    pub fn end(self, end: TaskEnd) {
        *self.state.ended.lock() = Some(end);
        self.state.changed.notify_all();
    }
}

/// Builds a task around the waker that its channels will use to wake it.
pub type TaskBuilder = Box<dyn FnOnce(Waker) -> Box<dyn Task> + Send>;

/// Who runs tasks and jobs.
pub trait Scheduler: Send + Sync + Debug + 'static {
    /// Starts a task. `build` runs on the task's own thread (if it has one) before the first step.
    fn spawn(&self, name: &str, build: TaskBuilder) -> TaskHandle;

    /// Queues a background job.
    fn submit(&self, priority: Priority, job: Job);

    /// Queues a background job once `delay` has passed. A job that still waits for its time when the scheduler ends
    /// is dropped, not run.
    fn submit_after(&self, delay: Duration, priority: Priority, job: Job);

    /// Runs one waiting job on this thread if there is one. Whoever waits for a job calls this in his loop, so
    /// that waiting cannot deadlock a single-threaded scheduler.
    fn help(&self) -> bool;

    /// As [`Scheduler::help`], but leaves jobs that go after `last` to others: who waits for a flush must not be
    /// kept by a merge of minutes when the flush is long done.
    fn help_up_to(&self, last: Priority) -> bool;

    /// Lets the background get on while the caller rests. A scheduler without threads of its own runs one waiting
    /// job, or lets at most `at_most` of its time pass if there is none, and says how much time passed. `None`: its
    /// threads work by themselves, the caller sleeps as long as it likes.
    fn pass_time(&self, at_most: Duration) -> Option<Duration> {
        let _ = at_most;
        None
    }
}

/// The message of a panic payload.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without a message".into())
}

/// One thread per task and a pool of threads for jobs; the one place where keybed starts threads.
///
/// Dropping the last handle ends the pool after the jobs that were queued.
#[derive(Debug)]
pub struct ThreadScheduler {
    pool: Arc<Pool>,
    workers: Vec<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Pool {
    queues: Mutex<Queues>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queues {
    by_priority: [VecDeque<Job>; 3],
    /// Jobs whose time has not come; few, so in no order.
    later: Vec<(Instant, Priority, Job)>,
    closed: bool,
}

impl Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} jobs", self.by_priority.each_ref().map(VecDeque::len))
    }
}

impl Queues {
    /// Moves the jobs whose time has come to their queues.
    fn ripen(&mut self) {
        if self.later.is_empty() {
            return;
        }
        let now = Instant::now();
        let ripe = self.later.extract_if(.., |(at, ..)| *at <= now);
        for (_, priority, job) in ripe {
            self.by_priority[priority as usize].push_back(job);
        }
    }

    fn pop(&mut self, last: Priority) -> Option<Job> {
        self.ripen();
        let queues = self.by_priority.iter_mut().take(last as usize + 1);
        queues.into_iter().find_map(VecDeque::pop_front)
    }
}

impl ThreadScheduler {
    /// A pool of `threads` (at least 1) background threads.
    pub fn new(threads: usize) -> Self {
        let pool = Arc::new(Pool::default());
        let workers = (0..threads.max(1))
            .map(|i| {
                let pool = pool.clone();
                thread::Builder::new()
                    .name(format!("keybed-pool-{i}"))
                    .spawn(move || pool.work())
                    .unwrap_or_else(|e| panic!("the system starts no thread: {e}"))
            })
            .collect();
        ThreadScheduler { pool, workers }
    }
}

impl Pool {
    fn work(&self) {
        loop {
            let job = {
                let mut queues = self.queues.lock();
                loop {
                    if let Some(job) = queues.pop(Priority::Bottom) {
                        break job;
                    }
                    if queues.closed {
                        return;
                    }
                    match queues.later.iter().map(|(at, ..)| *at).min() {
                        Some(next) => {
                            self.arrived.wait_until(&mut queues, next);
                        }
                        None => self.arrived.wait(&mut queues),
                    }
                }
            };
            run_job(job);
        }
    }
}

/// Runs a job so that its panic does not take the pool with it; whoever waits for the job hears of it through
/// what the job dropped.
fn run_job(job: Job) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
}

impl Scheduler for ThreadScheduler {
    fn spawn(&self, name: &str, build: TaskBuilder) -> TaskHandle {
        let (handle, ender) = TaskHandle::pair();
        let run = move || {
            let park = Arc::new(ThreadPark::default());
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut task = build(Waker::new(park.clone()));
                loop {
                    match task.step() {
                        Step::Again => {}
                        Step::Park(at_most) => park.park(at_most),
                        Step::Done => break,
                    }
                }
            }));
            ender.end(match end {
                Ok(()) => TaskEnd::Done,
                Err(payload) => TaskEnd::Panicked(panic_text(&*payload)),
            });
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .unwrap_or_else(|e| panic!("the system starts no thread: {e}"));
        handle
    }

    fn submit(&self, priority: Priority, job: Job) {
        self.pool.queues.lock().by_priority[priority as usize].push_back(job);
        self.pool.arrived.notify_one();
    }

    fn submit_after(&self, delay: Duration, priority: Priority, job: Job) {
        let at = Instant::now() + delay;
        self.pool.queues.lock().later.push((at, priority, job));
        self.pool.arrived.notify_one();
    }

    fn help(&self) -> bool {
        self.help_up_to(Priority::Bottom)
    }

    fn help_up_to(&self, last: Priority) -> bool {
        let job = self.pool.queues.lock().pop(last);
        job.map(run_job).is_some()
    }
}

impl Drop for ThreadScheduler {
    fn drop(&mut self) {
        let later = {
            let mut queues = self.pool.queues.lock();
            queues.closed = true;
            std::mem::take(&mut queues.later)
        };
        // What a job holds may call the scheduler when it goes.
        drop(later);
        self.pool.arrived.notify_all();
        let me = thread::current().id();
        for worker in self.workers.drain(..) {
            // A job may hold the last handle of the pool; it cannot wait for its own thread.
            if worker.thread().id() != me {
                let _ = worker.join();
            }
        }
    }
}

/// Parks a task's thread; a wake before the park is not lost.
#[derive(Debug, Default)]
struct ThreadPark {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl ThreadPark {
    fn park(&self, at_most: Option<Duration>) {
        let mut woken = self.woken.lock();
        if !*woken {
            match at_most {
                Some(d) => {
                    self.changed.wait_for(&mut woken, d);
                }
                None => self.changed.wait(&mut woken),
            }
        }
        *woken = false;
    }
}

impl Wake for ThreadPark {
    fn wake(&self) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}
