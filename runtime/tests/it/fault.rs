//! If this fails, a failing disk gives wrong output, a nameless error, or a job that cannot go on afterwards.

use crate::world::{Bomb, Machine, expected_output, input, pipeline};
use keybed_env::{
    Random,
    fs::{Fault, FaultFs, FaultPlan, SimFs},
};
use keybed_format::{Code, Error, Result};
use keybed_runtime::{Backend, Checkpoints, JobOptions, JobReport, Outcome, RestartStrategy};
use keybed_snapshot::JobId;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const LSM: Backend = Backend::Lsm { memtable_bytes: 4096 };

struct Scenario {
    seed: u64,
    input: Arc<crate::world::Input>,
    expected: BTreeMap<String, String>,
    restarts: u32,
    backend: Backend,
}

impl Scenario {
    fn new(seed: u64, orders: usize, restarts: u32, backend: Backend) -> Self {
        let input = Arc::new(input(&mut Random::from_seed(seed), 2, orders));
        let expected = expected_output(&input);
        Scenario {
            seed,
            input,
            expected,
            restarts,
            backend,
        }
    }

    fn run(&self, fs: &FaultFs, run: u64, parallelism: u32) -> (Machine, Result<JobReport>) {
        let machine = Machine::new(self.seed + run, Arc::new(fs.clone()));
        let restart = RestartStrategy::FixedDelay {
            attempts: self.restarts,
            delay: Duration::from_micros(10),
        };
        let options = JobOptions {
            checkpoints: Some(Checkpoints::every(Duration::from_micros(150), "ckpt").retain(2)),
            restart: Some(restart),
            throttle: Some(20_000),
            ..machine.options(JobId(7), parallelism, self.backend)
        };
        let started = pipeline(&self.input, &Bomb::default()).start(options);
        let report = started
            .map_err(|e| e.context("start"))
            .and_then(|job| machine.finish(&job));
        (machine, report)
    }

    /// The job survives, or fails with a named error; what follows on a healed disk is right. Gives back whether
    /// the fault was met and the error.
    fn check(&self, plan: &FaultPlan) -> (bool, Option<Error>) {
        let fs = FaultFs::new(Arc::new(SimFs::without_history()));
        fs.arm(plan.clone());
        let (machine, report) = self.run(&fs, 0, 1);
        let met = fs.triggered() > 0;
        fs.heal();
        let failure = match report {
            Ok(report) => {
                assert_eq!(report.outcome, Some(Outcome::Finished));
                self.check_output(&machine, plan);
                return (met, None);
            }
            Err(e) => e,
        };
        assert!(met, "{plan:?}: failed without a fault: {failure}");
        let (machine, report) = self.run(&fs, 1, 2);
        match report {
            Ok(_) => {}
            // The job was over, only its last words failed.
            Err(e) if e.code() == Code::InvalidArgument && e.message().starts_with("the job is finished") => {
            }
            Err(e) => panic!("{plan:?}: {failure}\nthen, on the healed disk: {e}"),
        }
        self.check_output(&machine, plan);
        (met, Some(failure))
    }

    fn check_output(&self, machine: &Machine, plan: &FaultPlan) {
        let mut found = machine.output();
        // Clean-up may have met the fault.
        found.retain(|name, _| name != "parts" && name != ".pending");
        assert_eq!(found, self.expected, "{plan:?}");
    }
}

/// Every n until the fault is met no more; how often the job failed, by code.
fn sweep(scenario: &Scenario, fault: Fault, forever: bool) -> (u64, BTreeMap<String, u64>) {
    let mut failures = BTreeMap::new();
    for n in 1.. {
        let plan = FaultPlan::new(fault, n);
        let (met, failure) = scenario.check(&if forever { plan.forever() } else { plan });
        if let Some(failure) = failure {
            let when = if failure.to_string().contains(": start: ") {
                " at the start"
            } else {
                ""
            };
            *failures.entry(format!("{}{when}", failure.code())).or_default() += 1;
        }
        if !met {
            return (n - 1, failures);
        }
    }
    unreachable!()
}

#[test]
fn every_fault_at_every_call_is_survived_or_named() {
    for &fault in Fault::ALL {
        for backend in [Backend::Heap, LSM] {
            let (calls, failures) = sweep(&Scenario::new(1, 20, 0, backend), fault, false);
            println!("{fault:?} on {backend:?}: {calls} calls, failures {failures:?}");
            assert!(calls > 10, "{fault:?} on {backend:?}: {calls} calls");
        }
    }
}

#[test]
fn with_one_restart_every_single_fault_of_a_running_job_is_survived() {
    let (calls, failures) = sweep(&Scenario::new(2, 30, 1, LSM), Fault::Eio, false);
    println!("{calls} calls, failures {failures:?}");
    // What happens before the job runs (output directory, lock, owner record) is not tried twice.
    let running: Vec<_> = failures.keys().filter(|f| !f.ends_with("at the start")).collect();
    assert!(running.is_empty(), "{calls} calls, failures {failures:?}");
}

#[test]
fn a_disk_that_is_full_for_good_ends_the_job_with_a_name_and_loses_nothing() {
    let (calls, failures) = sweep(&Scenario::new(3, 8, 1, LSM), Fault::Enospc, true);
    println!("{calls} calls, failures {failures:?}");
    assert!(!failures.contains_key("OperatorFailed"), "{failures:?}");
}
