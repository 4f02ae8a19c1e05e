//! The rounds of one backend in one directory.

use crate::{
    Answer, Options,
    content::{Content, Job},
    measure::{Cost, cost, memory},
    plain,
    report::Report,
    savepoint,
};
use keybed_snapshot::{BackendKind, SnapshotKind};
use keybed_state::{BackendOptions, KeyedState};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What is measured, in the order of a round.
pub const PHASES: [&str; 9] = [
    "cp + fsync of the native files",
    "native savepoint",
    "native restore",
    "sequential write + fsync of the canonical file",
    "canonical savepoint",
    "sequential read, page cache",
    "canonical restore, page cache",
    "sequential read, cold",
    "canonical restore, cold",
];

/// Figures of one backend in one directory.
pub struct Figures {
    pub backend: BackendKind,
    /// Which file system.
    pub place: String,
    pub native_bytes: u64,
    pub canonical_bytes: u64,
    pub fill: Cost,
    /// Memory of writing the canonical savepoint beyond that of the state, in a process that restored it; of that what
    /// sorting took.
    pub writer_bytes: u64,
    pub sort_bytes: u64,
    /// By round, then by phase.
    pub rounds: Vec<[Option<Cost>; PHASES.len()]>,
}

struct Run<'a> {
    options: &'a Options,
    content: Content,
    job: Job,
    kind: BackendKind,
    dir: PathBuf,
    works: u32,
}

pub fn run(
    options: &Options,
    content: Content,
    parent: &Path,
    kind: BackendKind,
    report: &mut Report,
) -> Answer<()> {
    let scratch = tempfile::Builder::new()
        .prefix("keybed-bench-")
        .tempdir_in(parent)?;
    let mut run = Run {
        options,
        content,
        job: Job::new()?,
        kind,
        dir: scratch.path().to_path_buf(),
        works: 0,
    };
    eprintln!("{kind:?} in {}: filling", parent.display());
    let backend = run.backend();
    let (fill, mut state) = cost(|| content.fill(&run.job, backend))?;
    // Flushes what is in memory, so that every round finds the same tables; its files are what `cp` copies.
    let (native, _) = savepoint::take(&run.job, &mut state, &run.dir, SnapshotKind::NativeSavepoint)?;
    let (canonical, stats) =
        savepoint::take(&run.job, &mut state, &run.dir, SnapshotKind::CanonicalSavepoint)?;
    let writer_bytes = writer_memory(options, kind, &native)?;
    let mut figures = Figures {
        backend: kind,
        place: file_system(parent),
        native_bytes: plain::bytes_of(&native)?,
        canonical_bytes: plain::bytes_of(&canonical)?,
        fill,
        writer_bytes,
        sort_bytes: stats.sort_bytes_max,
        rounds: Vec::new(),
    };
    for round in 0..options.rounds {
        eprintln!(
            "{kind:?} in {}: round {} of {}",
            parent.display(),
            round + 1,
            options.rounds
        );
        figures.rounds.push(run.round(&mut state, &native, &canonical)?);
    }
    report.add(figures);
    Ok(())
}

/// Runs this program on a savepoint, so that no memory that was used before hides what the writer takes.
fn writer_memory(options: &Options, kind: BackendKind, native: &Path) -> Answer<u64> {
    let kind = if kind == BackendKind::Lsm { "lsm" } else { "heap" };
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--backend", kind, "--bytes", &options.bytes.to_string()]);
    child.arg("--writer-of").arg(native);
    let output = child.output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// What [`writer_memory`] runs.
pub fn print_writer_memory(options: &Options, content: Content, native: &Path) -> Answer<()> {
    let scratch = tempfile::Builder::new()
        .prefix("keybed-bench-")
        .tempdir_in(native)?;
    let mut run = Run {
        options,
        content,
        job: Job::new()?,
        kind: options.backends[0],
        dir: scratch.path().to_path_buf(),
        works: 0,
    };
    let backend = run.backend();
    let mut state = savepoint::restore(&run.job, native, backend)?;
    let (bytes, _) =
        memory(|| savepoint::take(&run.job, &mut state, &run.dir, SnapshotKind::CanonicalSavepoint))?;
    println!("{bytes}");
    Ok(())
}

/// The type of the file system in which `dir` lies.
fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = fs::canonicalize(dir).unwrap_or_default();
    let around = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        dir.starts_with(at).then(|| (at.len(), kind.to_owned()))
    });
    around.max().map_or_else(|| "unknown".into(), |(_, kind)| kind)
}

impl Run<'_> {
    fn backend(&mut self) -> BackendOptions {
        self.works += 1;
        let dir = self.dir.join(format!("work-{}", self.works));
        BackendOptions {
            kind: self.kind,
            canonical_compression: self.options.compression,
            ..BackendOptions::lsm(dir)
        }
    }

    fn round(
        &mut self,
        state: &mut KeyedState,
        native: &Path,
        canonical: &Path,
    ) -> Answer<[Option<Cost>; 9]> {
        let copy = self.dir.join("copy");
        let file = plain::files_of(canonical)?
            .into_iter()
            .max_by_key(|file| fs::metadata(file).map_or(0, |facts| facts.len()))
            .ok_or("the savepoint has no files")?;
        let mut costs = [None; PHASES.len()];
        for (phase, place) in costs.iter_mut().enumerate() {
            if self
                .options
                .phase
                .as_deref()
                .is_some_and(|only| !PHASES[phase].contains(only))
            {
                continue;
            }
            plain::settle();
            *place = Some(match phase {
                0 => {
                    let (cost, ()) = cost(|| plain::copy(native, &copy))?;
                    fs::remove_dir_all(&copy)?;
                    cost
                }
                1 => self.take(state, SnapshotKind::NativeSavepoint)?,
                2 => self.restore(native)?,
                3 => {
                    let (cost, ()) = plain::write(&file, &copy, |write| cost(write))?;
                    fs::remove_file(&copy)?;
                    cost
                }
                4 => self.take(state, SnapshotKind::CanonicalSavepoint)?,
                5 => cost(|| plain::read(canonical))?.0,
                6 => self.restore(canonical)?,
                7 => {
                    plain::forget(canonical)?;
                    cost(|| plain::read(canonical))?.0
                }
                _ => {
                    plain::forget(canonical)?;
                    self.restore(canonical)?
                }
            });
        }
        Ok(costs)
    }

    fn take(&self, state: &mut KeyedState, kind: SnapshotKind) -> Answer<Cost> {
        let (cost, (dir, _)) = cost(|| savepoint::take(&self.job, state, &self.dir, kind))?;
        fs::remove_dir_all(dir)?;
        Ok(cost)
    }

    fn restore(&mut self, from: &Path) -> Answer<Cost> {
        let backend = self.backend();
        let work = backend.dir.clone();
        let (cost, mut state) = cost(|| savepoint::restore(&self.job, from, backend))?;
        self.content.check(&self.job, &mut state)?;
        drop(state);
        fs::remove_dir_all(work)?;
        Ok(cost)
    }
}
