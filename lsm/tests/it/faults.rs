//! If this fails, one refused call of the operating system makes a store answer wrongly, lose what it had flushed,
//! or never recover.

use crate::simulated::{Model, Subject};
use keybed_env::{
    FaultFs, Random, SimFs,
    fs::{Fault, FaultPlan},
};
use keybed_format::{Code, Result};
use std::sync::Arc;

/// What a scenario knows about its outcome.
struct Progress {
    /// What was written, flushed or not.
    model: Model,
    /// Contents that may be found after the process has died: from the last flush that succeeded on, every content
    /// at which a flush was tried.
    flushed: Vec<Model>,
}

impl Progress {
    fn new() -> Self {
        Progress {
            model: Model::default(),
            flushed: vec![Model::default()],
        }
    }

    fn flush(&mut self, subject: &mut Subject, flush: impl FnOnce(&mut Subject) -> Result) -> Result {
        self.flushed.push(self.model.clone());
        flush(subject)?;
        self.flushed.drain(..self.flushed.len() - 1);
        Ok(())
    }
}

/// Writes, flushes, merges, pins, reopens. Ends at the first error.
fn scenario(fs: &FaultFs, subject: &mut Option<Subject>, progress: &mut Progress) -> Result {
    let mut random = Random::from_seed(5);
    let mut seed = 1;
    for round in 0..7 {
        let open = match subject {
            Some(open) => open,
            None => subject.insert(Subject::open(Arc::new(fs.clone()), seed)?),
        };
        for _ in 0..12 {
            open.write(&mut progress.model, &mut random)?;
        }
        match round {
            2 => progress.flush(open, |s| s.store.pin()?.finish().map(drop))?,
            4 => progress.flush(open, |s| s.store.compact(s.families[0]))?,
            5 => {
                progress.flush(open, |s| s.store.flush())?;
                open.store.wait_for_background()?;
            }
            _ => progress.flush(open, |s| s.store.flush())?,
        }
        for family in 0..2 {
            let answers = open.answers(family);
            assert!(
                answers.agree_with(&progress.model.0[family]),
                "wrong answers in round {round}"
            );
            if let Some(code) = answers.errors().first() {
                return Err(keybed_format::Error::new(*code, "a read failed"));
            }
        }
        if round == 3 {
            let closing = subject.take().map_or(Ok(()), |open| open.store.close());
            closing?;
            seed += 1;
        }
    }
    Ok(())
}

/// After the fault has passed: the store goes on, or it says that it must be opened again and that works.
fn recover(fs: &FaultFs, sim: &Arc<SimFs>, subject: Option<Subject>, mut progress: Progress, what: &str) {
    fs.heal();
    if let Some(mut open) = subject {
        match progress.flush(&mut open, |s| s.store.flush()) {
            Ok(()) => {
                for family in 0..2 {
                    let answers = open.answers(family);
                    let right = answers.agree_with(&progress.model.0[family]) && answers.errors().is_empty();
                    assert!(right, "{what}: wrong after recovery");
                }
                open.store
                    .wait_for_background()
                    .unwrap_or_else(|e| panic!("{what}: never recovers: {e}"));
            }
            Err(e) => {
                assert_eq!(e.code(), Code::Poisoned, "{what}: {e}");
                for family in 0..2 {
                    let answers = open.answers(family);
                    assert!(
                        answers.agree_with(&progress.model.0[family]),
                        "{what}: a poisoned store answers wrongly"
                    );
                }
            }
        }
    }
    let again = Subject::open(sim.clone(), 99).unwrap_or_else(|e| panic!("{what}: does not open again: {e}"));
    for family in 0..2 {
        let answers = again.answers(family);
        let found = progress
            .flushed
            .iter()
            .any(|model| answers.agree_with(&model.0[family]));
        assert!(
            found && answers.errors().is_empty(),
            "{what}: family {family} lost its content"
        );
    }
}

#[test]
fn every_call_can_fail_in_every_way() {
    let mut runs = 0;
    for fault in Fault::ALL {
        for forever in [false, true] {
            for nth in 1.. {
                let sim = Arc::new(SimFs::new());
                let fs = FaultFs::new(sim.clone());
                let plan = FaultPlan::new(*fault, nth);
                fs.arm(if forever { plan.forever() } else { plan });
                let (mut subject, mut progress) = (None, Progress::new());
                let outcome = scenario(&fs, &mut subject, &mut progress);
                let Some(call) = fs.first_fault() else {
                    outcome.unwrap();
                    break;
                };
                let what = format!("{fault:?}{} at {call}", if forever { " for ever" } else { "" });
                recover(&fs, &sim, subject, progress, &what);
                runs += 1;
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 1000, "{runs} runs");
}
