//! Tasks and jobs on one thread, in an order drawn from a seed, in simulated time.
//!
//! ```text
//!            .── nothing can run: the clock jumps to the next deadline ──.
//!            v                                                          |
//! draw one of { tasks that can run, queued jobs } ── step it, 1 µs passes ── note it in the trace
//! ```
//! Equal seeds and equal tasks give equal traces ([`SimScheduler::trace_hash`]), provided that tasks take time
//! from the scheduler's clock and randomness from a seed, and wake each other from this thread only.

use crate::{
    Clock, ManualClock, Random,
    sched::{
        Job, Priority, Scheduler, Step, Task, TaskBuilder, TaskEnd, TaskEnder, TaskHandle, Wake, Waker,
        panic_text,
    },
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt::{self, Debug},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What one step of a task or one job costs: a task that waits for time by stepping again gets there.
pub const STEP_TIME: Duration = Duration::from_micros(1);
/// Lines of the trace that [`SimScheduler::trace`] keeps.
pub const TRACE_LINES_MAX: usize = 256;

/// Runs tasks and jobs one at a time; see the head of this file. Share it as `Arc<SimScheduler>`.
#[derive(Debug)]
pub struct SimScheduler {
    clock: Arc<ManualClock>,
    // Never held while a task or job runs.
    state: Mutex<State>,
}

struct State {
    random: Random,
    tasks: Vec<Slot>,
    jobs: Vec<(Priority, Job)>,
    /// Jobs whose time has not come.
    later: Vec<(Duration, Priority, Job)>,
    steps: u64,
    trace_hash: u64,
    trace: VecDeque<String>,
}

impl Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alive = self.tasks.iter().filter(|task| task.ender.is_some()).count();
        write!(f, "{alive} tasks, {} jobs, {} steps", self.jobs.len(), self.steps)
    }
}

struct Slot {
    name: String,
    body: Body,
    woken: Arc<Flag>,
    /// Present while the task lives.
    ender: Option<TaskEnder>,
}

enum Body {
    /// Not stepped yet.
    New(TaskBuilder),
    /// Wants to run.
    Ready(Box<dyn Task>),
    /// Waits for its waker or for a moment of the clock.
    Parked(Box<dyn Task>, Option<Duration>),
    /// Ended, or running right now.
    Away,
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Flag {
    // SeqCst: wakers may be called from other threads; this flag is all that they share with the scheduler.
    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Wake for Flag {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Slot {
    fn can_run(&self, now: Duration) -> bool {
        match &self.body {
            Body::New(_) | Body::Ready(_) => true,
            Body::Parked(_, deadline) => self.woken.is_set() || deadline.is_some_and(|at| at <= now),
            Body::Away => false,
        }
    }
}

/// What was drawn.
enum Next {
    Task(usize, Body, Waker),
    Job(Job),
    /// Only time passed.
    Time,
}

impl SimScheduler {
    /// The order of everything depends on `seed` alone. The scheduler moves `clock`.
    pub fn new(seed: u64, clock: Arc<ManualClock>) -> Self {
        SimScheduler {
            clock,
            state: Mutex::new(State {
                random: Random::from_seed(seed),
                tasks: Vec::new(),
                jobs: Vec::new(),
                later: Vec::new(),
                steps: 0,
                trace_hash: 0,
                trace: VecDeque::new(),
            }),
        }
    }

    /// The clock that tasks under this scheduler must use.
    pub fn clock(&self) -> Arc<ManualClock> {
        self.clock.clone()
    }

    /// Runs until `done` (asked before every step) holds. `false` if it did not within `steps_max` steps or if
    /// nothing can ever run again, which [`SimScheduler::deadlock`] tells apart.
    pub fn run_until(&self, mut done: impl FnMut() -> bool, steps_max: u64) -> bool {
        for _ in 0..steps_max {
            if done() {
                return true;
            }
            if !self.run_one() {
                break;
            }
        }
        done()
    }

    /// Runs one step of a task or one job or, if nothing can run, moves the clock to the next deadline. `false`
    /// if there is nothing to wait for either.
    pub fn run_one(&self) -> bool {
        match self.draw() {
            None => return false,
            Some(Next::Time) => {}
            Some(Next::Job(job)) => {
                self.run_job(job);
                self.clock.advance(STEP_TIME);
            }
            Some(Next::Task(index, body, waker)) => {
                self.step(index, body, waker);
                self.clock.advance(STEP_TIME);
            }
        }
        true
    }

    /// Names of the tasks that live although nothing can run, no deadline is to come and no job is queued; empty
    /// if something can still happen.
    pub fn deadlock(&self) -> Vec<String> {
        let state = self.state.lock();
        let now = self.clock.monotonic();
        let hope = |task: &Slot| task.can_run(now) || matches!(task.body, Body::Parked(_, Some(_)));
        if !state.jobs.is_empty() || !state.later.is_empty() || state.tasks.iter().any(hope) {
            return Vec::new();
        }
        state
            .tasks
            .iter()
            .filter(|task| task.ender.is_some())
            .map(|task| task.name.clone())
            .collect()
    }

    /// Steps and jobs so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Hash over everything that ran and what it answered.
    pub fn trace_hash(&self) -> u64 {
        self.state.lock().trace_hash
    }

    /// The last [`TRACE_LINES_MAX`] steps and jobs, oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.state.lock().trace.iter().cloned().collect()
    }

    fn draw(&self) -> Option<Next> {
        let now = self.clock.monotonic();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.ripen(now);
        let ready: Vec<usize> = (0..state.tasks.len())
            .filter(|i| state.tasks[*i].can_run(now))
            .collect();
        let choices = ready.len() + state.jobs.len();
        if choices == 0 {
            let deadline = |task: &Slot| match &task.body {
                Body::Parked(_, deadline) => *deadline,
                _ => None,
            };
            let jobs = state.later.iter().map(|(at, ..)| *at);
            let next = state.tasks.iter().filter_map(deadline).chain(jobs).min()?;
            drop(guard);
            self.clock.advance(next.saturating_sub(now));
            return Some(Next::Time);
        }
        let choice = state.random.index(choices);
        let Some(index) = ready.get(choice) else {
            return Some(Next::Job(state.jobs.remove(choice - ready.len()).1));
        };
        let task = &mut state.tasks[*index];
        task.woken.clear();
        let body = std::mem::replace(&mut task.body, Body::Away);
        Some(Next::Task(*index, body, Waker::new(task.woken.clone())))
    }

    fn step(&self, index: usize, body: Body, waker: Waker) {
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let mut task = match body {
                Body::New(build) => build(waker),
                Body::Ready(task) | Body::Parked(task, _) => task,
                Body::Away => unreachable!("a task that is away cannot be drawn"),
            };
            let step = task.step();
            (task, step)
        }));
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let (body, end, answer) = match stepped {
            Ok((task, Step::Again)) => (Body::Ready(task), None, "again".to_owned()),
            Ok((task, Step::Park(at_most))) => {
                let deadline = at_most.map(|d| now.saturating_add(d));
                (Body::Parked(task, deadline), None, format!("park {deadline:?}"))
            }
            Ok((task, Step::Done)) => {
                // What a task drops may call the scheduler.
                drop(state);
                drop(task);
                state = self.state.lock();
                (Body::Away, Some(TaskEnd::Done), "done".to_owned())
            }
            Err(payload) => {
                let text = panic_text(&*payload);
                (
                    Body::Away,
                    Some(TaskEnd::Panicked(text.clone())),
                    format!("panic {text}"),
                )
            }
        };
        let slot = &mut state.tasks[index];
        slot.body = body;
        let ender = end.and_then(|end| slot.ender.take().map(|ender| (ender, end)));
        let name = slot.name.clone();
        state.note(&format!("{now:?} {name} #{index}: {answer}"));
        drop(state);
        if let Some((ender, end)) = ender {
            ender.end(end);
        }
    }

    fn run_job(&self, job: Job) {
        // As on the pool of threads: whoever waits for the job hears of its panic through what it dropped.
        let ended = catch_unwind(AssertUnwindSafe(job)).map_or("panic", |()| "done");
        let now = self.clock.monotonic();
        self.state.lock().note(&format!("{now:?} job: {ended}"));
    }
}

impl State {
    /// Queues the jobs whose time has come.
    fn ripen(&mut self, now: Duration) {
        let ripe = self.later.extract_if(.., |(at, ..)| *at <= now);
        self.jobs.extend(ripe.map(|(_, priority, job)| (priority, job)));
    }

    fn note(&mut self, line: &str) {
        self.steps += 1;
        self.trace_hash =
            keybed_format::checksum::bound(line.as_bytes(), u128::from(self.trace_hash), self.steps);
        if self.trace.len() == TRACE_LINES_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(line.to_owned());
    }
}

impl Scheduler for SimScheduler {
    fn spawn(&self, name: &str, build: TaskBuilder) -> TaskHandle {
        let (handle, ender) = TaskHandle::pair();
        let slot = Slot {
            name: name.into(),
            body: Body::New(build),
            woken: Arc::default(),
            ender: Some(ender),
        };
        self.state.lock().tasks.push(slot);
        handle
    }

    fn submit(&self, priority: Priority, job: Job) {
        self.state.lock().jobs.push((priority, job));
    }

    fn submit_after(&self, delay: Duration, priority: Priority, job: Job) {
        let at = self.clock.monotonic().saturating_add(delay);
        self.state.lock().later.push((at, priority, job));
    }

    /// The job that has waited longest among those that go first.
    fn help(&self) -> bool {
        self.help_up_to(Priority::Bottom)
    }

    fn help_up_to(&self, last: Priority) -> bool {
        let job = {
            let now = self.clock.monotonic();
            let mut state = self.state.lock();
            state.ripen(now);
            let ready = (0..state.jobs.len()).filter(|i| state.jobs[*i].0 <= last);
            let first = ready.min_by_key(|i| (state.jobs[*i].0, *i));
            first.map(|i| state.jobs.remove(i).1)
        };
        job.map(|job| self.run_job(job)).is_some()
    }

    fn pass_time(&self, at_most: Duration) -> Option<Duration> {
        let now = self.clock.monotonic();
        let job = {
            let mut state = self.state.lock();
            state.ripen(now);
            let waiting = state.jobs.len();
            (waiting > 0).then(|| {
                let choice = state.random.index(waiting);
                state.jobs.remove(choice).1
            })
        };
        let passed = match job {
            Some(job) => {
                self.run_job(job);
                STEP_TIME
            }
            None => {
                let next = self.state.lock().later.iter().map(|(at, ..)| *at).min();
                next.map_or(at_most, |at| at.saturating_sub(now).min(at_most))
            }
        };
        self.clock.advance(passed);
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_job_waits_for_its_time_and_time_passes_only_without_work() {
        let clock = Arc::new(ManualClock::new());
        let scheduler = SimScheduler::new(1, clock.clone());
        let ran = Arc::new(AtomicBool::new(false));
        let seen = ran.clone();
        let job = Box::new(move || seen.store(true, Ordering::SeqCst));
        scheduler.submit_after(Duration::from_millis(5), Priority::Flush, job);
        scheduler.submit(Priority::Bottom, Box::new(|| {}));
        assert_eq!(scheduler.pass_time(Duration::from_secs(1)), Some(STEP_TIME));
        assert!(!scheduler.help());
        assert_eq!(
            scheduler.pass_time(Duration::from_secs(1)),
            Some(Duration::from_millis(5) - STEP_TIME)
        );
        assert!(!ran.load(Ordering::SeqCst));
        assert!(scheduler.help());
        assert!(ran.load(Ordering::SeqCst));
    }
}
