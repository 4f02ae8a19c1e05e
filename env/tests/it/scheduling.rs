//! If the simulated scheduler were not reproducible or missed a stuck pipeline, a failing seed would be worthless.

use keybed_env::{
    Clock, ManualClock, Priority, Scheduler, SimScheduler, Step, Task, TaskHandle, ThreadScheduler, Waker,
    sched::TaskEnd,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

struct Stepper<F>(F);

impl<F: FnMut() -> Step + Send> Task for Stepper<F> {
    fn step(&mut self) -> Step {
        (self.0)()
    }
}

fn spawn(scheduler: &dyn Scheduler, name: &str, step: impl FnMut() -> Step + Send + 'static) -> TaskHandle {
    scheduler.spawn(name, Box::new(move |_| Box::new(Stepper(step))))
}

fn sim(seed: u64) -> SimScheduler {
    SimScheduler::new(seed, Arc::new(ManualClock::new()))
}

#[derive(Default)]
struct Channel {
    items: VecDeque<u64>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A writer and a reader around a channel of two places; the sum that the reader saw.
fn pipe(scheduler: &dyn Scheduler, items: u64, wakes: bool) -> (Arc<AtomicU64>, [TaskHandle; 2]) {
    let channel = Arc::new(Mutex::new(Channel::default()));
    let sum = Arc::new(AtomicU64::new(0));
    let wake = move |waker: &Option<Waker>| {
        if let Some(waker) = waker.as_ref().filter(|_| wakes) {
            waker.wake();
        }
    };
    let (theirs, mut next) = (channel.clone(), 0);
    let writer = scheduler.spawn(
        "writer",
        Box::new(move |waker| {
            theirs.lock().unwrap().writer = Some(waker);
            Box::new(Stepper(move || {
                let mut channel = theirs.lock().unwrap();
                if next == items {
                    channel.closed = true;
                    wake(&channel.reader);
                    return Step::Done;
                }
                if channel.items.len() == 2 {
                    return Step::Park(None);
                }
                next += 1;
                channel.items.push_back(next);
                wake(&channel.reader);
                Step::Again
            }))
        }),
    );
    let seen = sum.clone();
    let reader = scheduler.spawn(
        "reader",
        Box::new(move |waker| {
            channel.lock().unwrap().reader = Some(waker);
            Box::new(Stepper(move || {
                let mut channel = channel.lock().unwrap();
                match channel.items.pop_front() {
                    Some(item) => {
                        seen.fetch_add(item, SeqCst);
                        wake(&channel.writer);
                        Step::Again
                    }
                    None if channel.closed => Step::Done,
                    None => Step::Park(None),
                }
            }))
        }),
    );
    (sum, [writer, reader])
}

#[test]
fn tasks_finish_under_every_order() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let scheduler = sim(seed);
        let (sum, tasks) = pipe(&scheduler, 50, true);
        let done = || tasks.iter().all(|task| task.ended().is_some());
        assert!(
            scheduler.run_until(done, 10_000),
            "seed {seed}: {:?}",
            scheduler.trace()
        );
        assert_eq!(sum.load(SeqCst), 1275, "seed {seed}");
        traces.insert(scheduler.trace_hash());
    }
    assert!(traces.len() > 95, "{} different orders", traces.len());
}

#[test]
fn equal_seeds_give_equal_traces() {
    let run = |seed| {
        let scheduler = sim(seed);
        let (_, tasks) = pipe(&scheduler, 50, true);
        scheduler.submit(Priority::Bottom, Box::new(|| {}));
        assert!(scheduler.run_until(|| tasks[1].ended().is_some(), 10_000));
        (scheduler.trace_hash(), scheduler.trace())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

#[test]
fn a_forgotten_wake_is_reported_as_a_deadlock() {
    let scheduler = sim(1);
    let (_, tasks) = pipe(&scheduler, 50, false);
    assert!(!scheduler.run_until(|| tasks[1].ended().is_some(), 10_000));
    let mut stuck = scheduler.deadlock();
    stuck.sort();
    assert!(
        !stuck.is_empty() && stuck.iter().all(|name| name == "reader" || name == "writer"),
        "{stuck:?}"
    );
    assert!(sim(1).deadlock().is_empty());
}

#[test]
fn time_jumps_to_the_next_deadline() {
    let scheduler = sim(1);
    let clock = scheduler.clock();
    let (theirs, mut beats) = (clock.clone(), 0);
    let mut last = None;
    let task = spawn(&scheduler, "heart", move || {
        let now = theirs.monotonic();
        if let Some(last) = last {
            assert!(now - last >= Duration::from_secs(3600));
        }
        last = Some(now);
        beats += 1;
        if beats == 4 {
            Step::Done
        } else {
            Step::Park(Some(Duration::from_secs(3600)))
        }
    });
    assert!(scheduler.run_until(|| task.ended().is_some(), 100));
    assert_eq!(task.ended(), Some(TaskEnd::Done));
    let hours = clock.monotonic().as_secs_f64() / 3600.0;
    assert!((3.0..3.001).contains(&hours), "{hours} hours");
}

#[test]
fn a_task_that_steps_until_a_moment_gets_there() {
    let scheduler = sim(1);
    let clock = scheduler.clock();
    let task = spawn(&scheduler, "poller", move || {
        if clock.monotonic() < Duration::from_micros(500) {
            Step::Again
        } else {
            Step::Done
        }
    });
    assert!(scheduler.run_until(|| task.ended().is_some(), 1000));
}

#[test]
fn a_wake_during_the_step_that_parks_is_not_lost() {
    let scheduler = sim(1);
    let steps = Arc::new(AtomicU64::new(0));
    let count = steps.clone();
    let task = scheduler.spawn(
        "self",
        Box::new(move |waker| {
            Box::new(Stepper(move || {
                if count.fetch_add(1, SeqCst) == 0 {
                    waker.wake();
                    Step::Park(None)
                } else {
                    Step::Done
                }
            }))
        }),
    );
    assert!(scheduler.run_until(|| task.ended().is_some(), 10));
    assert_eq!(steps.load(SeqCst), 2);
}

#[test]
fn panics_end_the_task_alone() {
    let scheduler = sim(1);
    let bad = spawn(&scheduler, "bad", || panic!("at the disco"));
    let early = scheduler.spawn("early", Box::new(|_| panic!("before the first step")));
    let good = spawn(&scheduler, "good", || Step::Done);
    scheduler.submit(Priority::Flush, Box::new(|| panic!("in a job")));
    while scheduler.run_one() {}
    assert_eq!(bad.ended(), Some(TaskEnd::Panicked("at the disco".into())));
    assert_eq!(
        early.ended(),
        Some(TaskEnd::Panicked("before the first step".into()))
    );
    assert_eq!(good.ended(), Some(TaskEnd::Done));
}

#[test]
fn helping_runs_one_job_at_a_time_by_priority() {
    let scheduler = Arc::new(sim(1));
    let order = Arc::new(Mutex::new(Vec::new()));
    for priority in [
        Priority::Bottom,
        Priority::Flush,
        Priority::Upper,
        Priority::Flush,
    ] {
        let order = order.clone();
        scheduler.submit(priority, Box::new(move || order.lock().unwrap().push(priority)));
    }
    // A step may wait for a job by helping, and a job may submit another one.
    let (inner, more) = (scheduler.clone(), order.clone());
    let task = spawn(&*scheduler, "waiter", move || {
        let theirs = inner.clone();
        inner.submit(
            Priority::Flush,
            Box::new(move || theirs.submit(Priority::Bottom, Box::new(|| {}))),
        );
        while more.lock().unwrap().len() < 4 {
            assert!(inner.help());
        }
        Step::Done
    });
    assert!(scheduler.help());
    assert_eq!(*order.lock().unwrap(), [Priority::Flush]);
    assert!(scheduler.run_until(|| task.ended().is_some(), 100));
    while scheduler.help() {}
    assert_eq!(order.lock().unwrap().len(), 4);
    assert!(!scheduler.help());
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a worker is kept busy")]
fn who_waits_for_a_flush_is_not_given_a_merge() {
    let (free, blocked) = std::sync::mpsc::channel::<()>();
    let threads = ThreadScheduler::new(1);
    let (began, begun) = std::sync::mpsc::channel();
    threads.submit(
        Priority::Flush,
        Box::new(move || {
            began.send(()).unwrap();
            let _ = blocked.recv();
        }),
    );
    begun.recv().unwrap();
    for scheduler in [&threads as &dyn Scheduler, &sim(1)] {
        let order = Arc::new(Mutex::new(Vec::new()));
        for priority in [Priority::Bottom, Priority::Upper, Priority::Flush] {
            let order = order.clone();
            scheduler.submit(priority, Box::new(move || order.lock().unwrap().push(priority)));
        }
        assert!(scheduler.help_up_to(Priority::Flush));
        assert!(!scheduler.help_up_to(Priority::Flush));
        assert_eq!(*order.lock().unwrap(), [Priority::Flush]);
        assert!(scheduler.help_up_to(Priority::Upper));
        assert!(scheduler.help());
        assert!(!scheduler.help());
    }
    free.send(()).unwrap();
}

#[test]
fn threads_run_the_same_tasks() {
    let scheduler = ThreadScheduler::new(2);
    let (sum, tasks) = pipe(&scheduler, 1000, true);
    for task in &tasks {
        assert_eq!(task.wait(Duration::from_secs(60)), Some(TaskEnd::Done));
    }
    assert_eq!(sum.load(SeqCst), 500_500);
    let bad = spawn(&scheduler, "bad", || panic!("on a thread"));
    assert_eq!(
        bad.wait(Duration::from_secs(60)),
        Some(TaskEnd::Panicked("on a thread".into()))
    );
    let ran = Arc::new(AtomicU64::new(0));
    for _ in 0..100 {
        let ran = ran.clone();
        scheduler.submit(Priority::Upper, Box::new(move || _ = ran.fetch_add(1, SeqCst)));
    }
    drop(scheduler);
    assert_eq!(ran.load(SeqCst), 100, "queued jobs run before the pool ends");
}
