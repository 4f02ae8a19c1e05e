//! A disk, its processes, and the ledger: carries an action out, with its trouble, and compares.

use super::{
    action::{Action, Trouble, What},
    job::Live,
    ledger::{Files, Ledger, Violation, demand},
};
use crate::support::write_table;
use keybed_env::{
    Fs, Random, SimFs,
    fs::{Fault, FaultFs, FaultPlan},
};
use keybed_format::Error;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// What the library said to a step: `None` if there was nothing to do or it went well.
pub(crate) type Said = Result<Option<Error>, Violation>;

pub(crate) struct World {
    pub(crate) disk: SimFs,
    /// The disk as the user's own commands see it.
    pub(crate) user: FaultFs,
    pub(crate) ledger: Ledger,
    /// The process of each root, while it lives.
    pub(crate) live: Vec<Option<Live>>,
    pub(crate) next: u64,
    plan: Option<FaultPlan>,
    pub(crate) random: Random,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let disk = SimFs::without_history();
        for dir in ["/ckpt", "/local", "/sp", "/exported"] {
            disk.create_dir(Path::new(dir)).unwrap_or_else(|e| panic!("{e}"));
        }
        disk.settle();
        World {
            user: FaultFs::new(Arc::new(disk.process())),
            disk,
            ledger: Ledger::default(),
            live: Vec::new(),
            next: 0,
            plan: None,
            random: Random::from_seed(seed),
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn files(&self) -> Files {
        let tree = self.disk.tree().into_iter();
        tree.map(|(path, bytes)| (format!("/{}", path.display()), bytes))
            .collect()
    }

    /// A new local table of a job.
    pub(crate) fn new_table(&mut self, work: &Path) -> super::job::Table {
        let content = u128::from(self.fresh()) | 1 << 100;
        let path = work.join(format!("{content:x}.sst"));
        let bytes = content.to_le_bytes().repeat(1 + self.random.index(40));
        let trailer = write_table(&self.disk, &path, content, &bytes).unwrap_or_else(|e| panic!("{e}"));
        let whole = self.disk.read(&path, 1 << 20).unwrap_or_else(|e| panic!("{e}"));
        self.ledger.contents.insert(content, whole);
        super::job::Table {
            content,
            path,
            trailer,
            confirmed: None,
            leftover: None,
        }
    }

    /// What the user's own calls meet now.
    pub(crate) fn user_plan(&self) -> Option<FaultPlan> {
        self.plan.clone()
    }

    /// Ends the program: every job that can go on does, comes to rest, and leaves nothing that it does not need.
    pub(crate) fn end(&mut self) -> Result<(), Violation> {
        for root in 0..self.live.len() {
            if self.live[root].as_ref().is_some_and(|live| live.tainted) {
                self.live[root] = None;
            }
            if self.live[root].is_none()
                && let Some(error) = self.resume(root, None, 0)?
            {
                return Err(format!("it cannot go on: {error}"));
            }
            self.compare()?;
            if let Some(mut live) = self.live[root].take() {
                self.quiesce(&mut live)?;
                self.live[root] = Some(live);
                self.compare()?;
            }
        }
        Ok(())
    }

    /// Carries an action out and compares.
    pub(crate) fn act(&mut self, action: Action) -> Result<(), Violation> {
        let root = self.choose_root(action);
        let was_tainted = root.is_some_and(|i| self.live[i].as_ref().is_some_and(|live| live.tainted));
        self.plan = plan(action.trouble);
        if let Some(plan) = self.plan.clone() {
            self.arm(root, &plan);
        }
        let said = self.step(action)?;
        self.heal();
        if let Some(error) = &said {
            self.count("steps that failed");
            let explained = action.trouble != Trouble::None || (was_tainted && super::job::late(error));
            demand!(explained, "an error out of the blue: {error}");
        }
        match action.trouble {
            Trouble::Kill(_) => self.kill(root),
            Trouble::PowerLoss(_) => self.power_loss(),
            _ => {}
        }
        self.compare()
    }

    fn step(&mut self, action: Action) -> Said {
        let Action { what, a, b, .. } = action;
        let root = self.choose_root(action);
        match (what, root) {
            (What::NewJob, _) => self.new_job(a),
            (What::Gc, Some(root)) if self.live[root].is_none() => self.gc(root),
            (What::Restore, _) => self.restore(a, b),
            (What::Export, _) => self.export(a),
            (What::Dispose, _) => self.dispose(a),
            (What::DisposeCheckpoint, _) => self.dispose_checkpoint(a),
            (_, None) => Ok(None),
            (What::Resume | What::Release, Some(root)) if self.live[root].is_none() => {
                self.resume(root, None, a)
            }
            (What::ResumeOlder, Some(root)) => self.resume(root, Some(b), a),
            (What::Forget, Some(root)) => self.forget(root),
            (_, Some(root)) => match self.live[root].take() {
                None => self.resume(root, None, a),
                Some(mut live) => {
                    let said = self.job_step(&mut live, action);
                    // Who gives a claim back has ended, or was never needed.
                    let ends = matches!(what, What::Finish | What::Close | What::Release);
                    if !ends {
                        self.live[root] = Some(live);
                    }
                    said
                }
            },
        }
    }

    pub(crate) fn choose_root(&self, action: Action) -> Option<usize> {
        let roots = self.live.len();
        (roots > 0).then(|| action.actor as usize % roots)
    }

    fn arm(&mut self, root: Option<usize>, plan: &FaultPlan) {
        self.user.arm(plan.clone());
        if let Some(live) = root.and_then(|i| self.live[i].as_mut()) {
            live.faulty.arm(plan.clone());
        }
    }

    fn heal(&mut self) {
        self.plan = None;
        self.user.heal();
        for live in self.live.iter_mut().flatten() {
            live.faulty.heal();
            live.tainted |= live.faulty.triggered() > 0;
        }
    }

    fn kill(&mut self, root: Option<usize>) {
        if let Some(live) = root.and_then(|i| self.live.get_mut(i)?.take()) {
            live.sim.kill();
            self.count("kills");
        }
    }

    /// Everything dies; the disk keeps what was durable and a part of the rest.
    pub(crate) fn power_loss(&mut self) {
        for live in self.live.iter_mut().filter_map(Option::take) {
            live.sim.kill();
        }
        let at = self.disk.op_count();
        self.disk = self.disk.crash_image(at, &mut self.random);
        self.disk.settle();
        self.user = FaultFs::new(Arc::new(self.disk.process()));
        self.count("power losses");
    }

    /// The invariants that hold after every step.
    pub(crate) fn compare(&mut self) -> Result<(), Violation> {
        let files = self.files();
        let mut pinned = BTreeSet::new();
        for live in self.live.iter().flatten() {
            let root = &self.ledger.roots[live.index];
            pinned.extend(live.pins.iter().map(|(id, _)| root.checkpoint(*id)));
        }
        self.ledger.check(&files, &pinned, &mut self.counts)?;
        for live in self.live.iter().flatten() {
            live.demand_promised(&self.ledger, &files)?;
        }
        Ok(())
    }
}

fn plan(trouble: Trouble) -> Option<FaultPlan> {
    match trouble {
        Trouble::None => None,
        Trouble::Fail(fault, nth) => Some(FaultPlan::new(fault, nth.into())),
        Trouble::Kill(nth) | Trouble::PowerLoss(nth) => {
            Some(FaultPlan::new(Fault::Eio, nth.into()).forever())
        }
    }
}
