//! One test per line of the protocol's table, and random events against a small specification.

use super::*;
use crate::element::CheckpointScope;
use keybed_env::Random;

const SECOND: Duration = Duration::from_secs(1);
const MANUAL: Purpose = Purpose::Manual(CheckpointScope::Configured);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(n: u64) -> CheckpointId {
    CheckpointId(n)
}

fn timing() -> Timing {
    Timing {
        interval: Some(SECOND),
        min_pause: Duration::ZERO,
        timeout: 10 * SECOND,
        tolerable_failures: 0,
    }
}

/// Two tasks, ready at 0.
fn ready(timing: Timing) -> Coordinator<&'static str> {
    let mut c = Coordinator::new(timing, 2, at(0));
    c.begin_attempt(1);
    assert_eq!(c.on_ready(at(0)), []);
    c
}

fn trigger(c: &mut Coordinator<&'static str>, now: u64, n: u64) {
    assert_eq!(c.on_time(at(now)), [Command::Allot(Purpose::Periodic)]);
    assert_eq!(
        c.on_allotted(at(now), id(n)),
        [Command::Trigger(id(n), Purpose::Periodic)]
    );
}

fn expired(n: u64) -> Command<&'static str> {
    Command::Abort(Some(id(n)), Purpose::Periodic, AbortReason::Expired)
}

#[test]
fn a_checkpoint_completes_when_all_have_acknowledged_and_it_is_published() {
    let mut c = ready(timing());
    assert_eq!(c.on_time(Duration::from_millis(999)), []);
    trigger(&mut c, 1, 1);
    assert_eq!(c.on_ack(1, 0, id(1), "a"), []);
    assert_eq!(
        c.on_ack(1, 1, id(1), "b"),
        [Command::Publish(id(1), Purpose::Periodic, vec!["a", "b"])]
    );
    assert_eq!(
        c.on_time(at(100)),
        [],
        "nothing expires while the outcome is open"
    );
    let done = Command::Complete {
        checkpoint: id(1),
        purpose: Purpose::Periodic,
        duration: 2 * SECOND,
    };
    assert_eq!(c.on_published(at(3), id(1))[0], done);
}

#[test]
fn duplicate_late_unknown_and_foreign_acknowledgements_are_discarded() {
    let mut c = ready(timing());
    assert_eq!(c.on_ack(1, 0, id(1), "early"), [Command::Discard(id(1), "early")]);
    trigger(&mut c, 1, 1);
    c.on_ack(1, 0, id(1), "a");
    assert_eq!(c.on_ack(1, 0, id(1), "again"), [Command::Discard(id(1), "again")]);
    assert_eq!(
        c.on_ack(0, 1, id(1), "zombie"),
        [Command::Discard(id(1), "zombie")]
    );
    assert_eq!(
        c.on_ack(1, 7, id(1), "unknown task"),
        [Command::Discard(id(1), "unknown task")]
    );
    assert_eq!(
        c.on_ack(1, 1, id(9), "other id"),
        [Command::Discard(id(9), "other id")]
    );
    let mut lenient = ready(Timing {
        tolerable_failures: 9,
        ..timing()
    });
    trigger(&mut lenient, 1, 7);
    let commands = lenient.on_time(at(11));
    assert_eq!(commands, [expired(7), Command::Allot(Purpose::Periodic)]);
    assert_eq!(
        lenient.on_ack(1, 0, id(7), "late"),
        [Command::Discard(id(7), "late")]
    );
}

#[test]
fn what_was_acknowledged_before_an_abort_is_discarded() {
    let mut c = ready(Timing {
        tolerable_failures: 1,
        ..timing()
    });
    trigger(&mut c, 1, 1);
    c.on_ack(1, 1, id(1), "b");
    let commands = c.on_decline(at(1), 1, 0, id(1), "no".into(), true);
    assert!(commands.contains(&Command::Discard(id(1), "b")), "{commands:?}");
}

#[test]
fn two_failures_are_borne_a_success_starts_anew_and_three_in_a_row_fail_the_attempt() {
    let mut c = ready(Timing {
        interval: Some(100 * SECOND),
        tolerable_failures: 2,
        ..timing()
    });
    let mut n = 0;
    let mut run = |c: &mut Coordinator<&'static str>, good: bool| {
        n += 1;
        let now = n * 100;
        trigger(c, now, n);
        if good {
            c.on_ack(1, 0, id(n), "a");
            c.on_ack(1, 1, id(n), "b");
            c.on_published(at(now), id(n))
        } else {
            c.on_time(at(now + 10))
        }
    };
    for good in [false, false, true, false, false] {
        let commands = run(&mut c, good);
        assert!(
            !commands.iter().any(|c| matches!(c, Command::FailAttempt(_))),
            "{commands:?}"
        );
    }
    let commands = run(&mut c, false);
    assert!(
        matches!(&commands[..], [Command::Abort(..), Command::FailAttempt(why)] if why.starts_with("3 "))
    );
}

#[test]
fn declines_that_are_nobodys_fault_do_not_count() {
    let mut c = ready(timing());
    for n in 1..10 {
        trigger(&mut c, n, n);
        let commands = c.on_decline(at(n), 1, 0, id(n), "subsumed".into(), false);
        assert_eq!(commands.len(), 1, "{commands:?}");
    }
}

#[test]
fn the_pause_counts_from_the_end_of_the_last_checkpoint() {
    let mut c = ready(Timing {
        min_pause: 3 * SECOND,
        ..timing()
    });
    trigger(&mut c, 1, 1);
    c.on_ack(1, 0, id(1), "a");
    c.on_ack(1, 1, id(1), "b");
    c.on_published(at(3), id(1));
    assert_eq!(c.next_deadline(), Some(at(6)));
    assert_eq!(c.on_time(at(5)), []);
    trigger(&mut c, 6, 2);
}

#[test]
fn requests_wait_for_the_running_checkpoint_and_refuse_before_the_tasks_are_ready() {
    let mut c: Coordinator<()> = Coordinator::new(
        Timing {
            interval: None,
            ..timing()
        },
        1,
        at(0),
    );
    c.begin_attempt(1);
    assert_eq!(c.request(at(0), MANUAL), (false, vec![]));
    c.on_ready(at(0));
    assert_eq!(c.request(at(0), MANUAL), (true, vec![Command::Allot(MANUAL)]));
    c.on_allotted(at(0), id(1));
    assert_eq!(c.request(at(1), Purpose::Final), (true, vec![]));
    c.on_ack(1, 0, id(1), ());
    let commands = c.on_published(at(2), id(1));
    assert_eq!(commands[1], Command::Allot(Purpose::Final));
}

#[test]
fn nothing_follows_the_checkpoint_that_ends_the_job() {
    for purpose in [Purpose::Stop, Purpose::Final] {
        let mut c = ready(timing());
        c.request(at(0), purpose);
        c.on_allotted(at(0), id(1));
        c.request(at(0), MANUAL);
        c.on_ack(1, 0, id(1), "a");
        c.on_ack(1, 1, id(1), "b");
        assert_eq!(c.on_published(at(1), id(1)).len(), 1);
        assert_eq!((c.on_time(at(100)), c.next_deadline()), (vec![], None));
        assert_eq!(c.request(at(100), MANUAL), (false, vec![]));
    }
}

#[test]
fn a_checkpoint_that_ends_the_job_is_tried_again_as_long_as_failures_are_borne() {
    for purpose in [Purpose::Stop, Purpose::Final] {
        let mut c: Coordinator<()> = Coordinator::new(
            Timing {
                interval: None,
                tolerable_failures: 1,
                ..timing()
            },
            1,
            at(0),
        );
        c.begin_attempt(1);
        c.on_ready(at(0));
        c.request(at(0), purpose);
        let commands = c.on_storage_failed(at(1), "no space".into());
        assert_eq!(commands[1], Command::Allot(purpose));
        c.on_allotted(at(1), id(2));
        c.on_ack(1, 0, id(2), ());
        let commands = c.on_storage_failed(at(1), "no space".into());
        assert!(
            matches!(commands[..], [Command::Abort(..), Command::FailAttempt(_)]),
            "{commands:?}"
        );
    }
}

#[test]
fn the_end_of_an_attempt_gives_up_what_collects_and_awaits_what_is_stored() {
    let mut c = ready(timing());
    trigger(&mut c, 1, 1);
    c.on_ack(1, 0, id(1), "a");
    let commands = c.on_attempt_ending(at(2));
    assert_eq!(
        commands[0],
        Command::Abort(Some(id(1)), Purpose::Periodic, AbortReason::AttemptEnded)
    );
    assert_eq!(commands[1], Command::Discard(id(1), "a"));
    let mut c = ready(timing());
    assert_eq!(c.on_time(at(1)), [Command::Allot(Purpose::Periodic)]);
    assert_eq!(c.on_attempt_ending(at(1)), []);
    assert!(c.is_storing());
    let commands = c.on_allotted(at(1), id(1));
    assert_eq!(
        commands,
        [Command::Abort(
            Some(id(1)),
            Purpose::Periodic,
            AbortReason::AttemptEnded
        )]
    );
    c.begin_attempt(2);
}

/// Whatever happens: one checkpoint at a time, published only with every task's acknowledgement of this attempt,
/// each id ends once, and every acknowledgement is either published or discarded.
#[test]
fn random_events_keep_the_promises() {
    let mut stopped = 0;
    for seed in 0..2000 {
        let mut random = Random::from_seed(seed);
        let tasks = 1 + random.index(3);
        let timing = Timing {
            tolerable_failures: random.below(3) as u32,
            ..timing()
        };
        let mut c: Coordinator<(u64, usize, u64)> = Coordinator::new(timing, tasks, at(0));
        let (mut now, mut attempt, mut next_id) = (0, 1, 1);
        c.begin_attempt(attempt);
        let mut commands = c.on_ready(at(0));
        let (mut ended, mut sent, mut settled) = (std::collections::BTreeSet::new(), 0, 0);
        let (mut collecting, mut storing, mut failed) = (None, None, false);
        // The barrier under way was sent behind the end of the input; the job ended.
        let (mut drained, mut over) = (false, false);
        for _ in 0..200 {
            for command in std::mem::take(&mut commands) {
                match command {
                    Command::Allot(_) => {
                        assert!(storing.replace(None).is_none() && collecting.is_none());
                        assert!(!drained && !over, "seed {seed}: after the end of the input");
                    }
                    Command::Trigger(id, purpose) => {
                        assert!(collecting.replace(id).is_none());
                        drained = purpose.drains();
                    }
                    Command::Publish(id, _, acks) => {
                        assert_eq!(collecting.take(), Some(id), "seed {seed}");
                        let expected: Vec<_> = (0..tasks).map(|t| (attempt, t, id.0)).collect();
                        assert_eq!(acks, expected, "seed {seed}");
                        settled += acks.len();
                        storing = Some(Some(id));
                    }
                    Command::Complete {
                        checkpoint, purpose, ..
                    } => {
                        assert!(ended.insert(checkpoint), "seed {seed}");
                        over = purpose.ends_the_job();
                    }
                    Command::Abort(id, ..) => {
                        collecting = None;
                        assert!(id.is_none_or(|id| ended.insert(id)), "seed {seed}");
                    }
                    Command::Discard(..) => settled += 1,
                    Command::FailAttempt(_) => failed = true,
                    Command::RestartAttempt(_) => {
                        assert!(std::mem::take(&mut drained), "seed {seed}: for nothing");
                        failed = true;
                    }
                }
            }
            if over {
                assert_eq!((c.next_deadline(), c.request(at(now), MANUAL).0), (None, false));
                assert_eq!(c.on_time(at(now + 1000)), [], "seed {seed}: nothing follows");
                stopped += 1;
                break;
            }
            if failed && storing.is_none() {
                assert_eq!(c.on_time(at(now + 1000)), [], "seed {seed}: a failed attempt");
                drained = false;
                attempt += 1;
                c.begin_attempt(attempt);
                failed = false;
                commands = c.on_ready(at(now));
                continue;
            }
            let task = random.index(tasks);
            let some_id = collecting
                .filter(|_| !random.one_in(8))
                .unwrap_or(id(random.below(next_id + 1)));
            commands = match random.below(10) {
                0..=3 => {
                    sent += 1;
                    let a = if random.one_in(8) { attempt - 1 } else { attempt };
                    c.on_ack(a, task, some_id, (a, task, some_id.0))
                }
                4 if random.one_in(3) => c.on_decline(at(now), attempt, task, some_id, "no".into(), true),
                5 => {
                    now += random.below(4);
                    c.on_time(at(now))
                }
                6 if random.one_in(3) => {
                    let (format, drain) = (crate::SavepointFormat::Native, random.one_in(2));
                    c.request(at(now), Purpose::StopWithSavepoint { format, drain }).1
                }
                6 => c.request(at(now), MANUAL).1,
                _ => match storing.take() {
                    Some(None) if random.one_in(8) => c.on_storage_failed(at(now), "io".into()),
                    Some(None) => {
                        next_id += 1;
                        c.on_allotted(at(now), id(next_id))
                    }
                    Some(Some(_)) if random.one_in(8) => c.on_storage_failed(at(now), "io".into()),
                    Some(Some(id)) => c.on_published(at(now), id),
                    None => vec![],
                },
            };
        }
        let held = match &c.stage {
            Stage::Collecting(p) => (0..tasks).filter(|&t| p.has(t)).count(),
            _ => 0,
        };
        let waiting: usize = commands
            .iter()
            .map(|c| match c {
                Command::Publish(_, _, acks) => acks.len(),
                Command::Discard(..) => 1,
                _ => 0,
            })
            .sum();
        assert_eq!(
            sent,
            settled + held + waiting,
            "seed {seed}: every acknowledgement is accounted for"
        );
    }
    assert!(stopped > 100, "{stopped} stops");
}

#[test]
fn a_savepoint_changes_neither_the_count_of_failures_nor_the_times_of_checkpoints() {
    let purpose = Purpose::Savepoint(crate::SavepointFormat::Native);
    let mut c = ready(Timing {
        tolerable_failures: 1,
        min_pause: 5 * SECOND,
        ..timing()
    });
    trigger(&mut c, 1, 1);
    let abort = c.on_decline(at(1), 1, 0, id(1), "full".into(), true);
    assert!(matches!(
        abort[..],
        [Command::Abort(Some(_), Purpose::Periodic, _)]
    ));
    for n in 2..5 {
        assert_eq!(c.request(at(2), purpose), (true, vec![Command::Allot(purpose)]));
        assert_eq!(c.on_allotted(at(2), id(n)), [Command::Trigger(id(n), purpose)]);
        if n < 4 {
            let abort = c.on_decline(at(3), 1, 0, id(n), "full".into(), true);
            assert!(matches!(abort[..], [Command::Abort(Some(_), p, _)] if p == purpose));
        }
    }
    c.on_ack(1, 0, id(4), "a");
    assert_eq!(
        c.on_ack(1, 1, id(4), "b"),
        [Command::Publish(id(4), purpose, vec!["a", "b"])]
    );
    assert!(matches!(
        c.on_published(at(4), id(4))[..],
        [Command::Complete { .. }]
    ));
    // The pause counts from the failed checkpoint, and its failure still counts.
    assert_eq!(c.next_deadline(), Some(at(6)));
    trigger(&mut c, 6, 5);
    let abort = c.on_decline(at(6), 1, 0, id(5), "full".into(), true);
    assert!(matches!(abort[..], [Command::Abort(..), Command::FailAttempt(_)]));
}

fn stop(drain: bool) -> Purpose {
    let format = crate::SavepointFormat::Canonical;
    Purpose::StopWithSavepoint { format, drain }
}

#[test]
fn a_stop_that_fails_leaves_the_job_running_unless_the_end_of_its_input_was_processed() {
    for (drain, triggered) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut c = ready(timing());
        assert_eq!(c.request(at(0), stop(drain)).1, [Command::Allot(stop(drain))]);
        let commands = if triggered {
            assert_eq!(
                c.on_allotted(at(0), id(1)),
                [Command::Trigger(id(1), stop(drain))]
            );
            c.on_ack(1, 0, id(1), "a");
            c.on_decline(at(1), 1, 1, id(1), "full".into(), true)
        } else {
            c.on_storage_failed(at(1), "no such place".into())
        };
        assert!(matches!(commands[0], Command::Abort(_, p, _) if p == stop(drain)));
        let restarts = matches!(commands.last(), Some(Command::RestartAttempt(_)));
        assert_eq!(restarts, drain && triggered, "{commands:?}");
        let goes_on = commands.contains(&Command::Allot(Purpose::Periodic));
        assert_eq!(goes_on, !restarts, "{commands:?}");
        assert!(
            !commands.contains(&Command::Allot(stop(drain))),
            "nobody asked again"
        );
        if restarts {
            assert_eq!((c.on_time(at(100)), c.next_deadline()), (vec![], None));
            c.begin_attempt(2);
            assert_eq!(c.on_ready(at(100)), []);
        }
    }
}

#[test]
fn a_stop_waits_for_what_was_asked_before_and_goes_before_the_end_of_the_input() {
    let mut c = ready(timing());
    trigger(&mut c, 1, 1);
    for purpose in [Purpose::Final, stop(true), MANUAL] {
        assert_eq!(c.request(at(1), purpose), (true, vec![]));
    }
    let mut next = |n: u64, then: Option<Purpose>| {
        c.on_ack(1, 0, id(n), "a");
        c.on_ack(1, 1, id(n), "b");
        let commands = c.on_published(at(1), id(n));
        assert_eq!(commands.get(1), then.map(Command::Allot).as_ref());
        if then.is_some() {
            c.on_allotted(at(1), id(n + 1));
        }
    };
    next(1, Some(MANUAL));
    next(2, Some(stop(true)));
    next(3, None);
}
