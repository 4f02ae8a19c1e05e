//! Files, a writer and one background thread, as far as the picker and the space on disk are concerned.

use keybed_lsm::{
    BOTTOM, TableId,
    compaction::{
        picker::{self, LevelFacts, Merge, PartFacts, PickOptions, Plan, RunFacts, Shape, Wishes},
        slice_bytes,
    },
    pressure::{self, Debt},
    version::edit::DRAINING,
};
use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
};

/// Bytes of an entry; all are equally large.
const ENTRY: u64 = 1024;
/// Distinct keys of a memtable.
pub(super) const MEMTABLE: usize = 512;
/// Entries of a merged file; a slice is at most four of them, as in a store.
const FILE: usize = 512;
const FAN_IN: usize = 4;
pub(super) const RUNS_MAX: usize = 6;
const SEALED_MAX: usize = 3;
/// Nanoseconds of a write, and of an entry that is flushed or goes into a merge.
const WRITE: u64 = 300;
const FLUSHED: u64 = 150;
const MERGED: u64 = 200;

/// Writes between two looks at debt and space.
const LOOKS: u64 = 16;

/// A key, and whether it is deleted.
type Entry = (u32, bool);

/// A file; those who hold it keep it on disk.
struct File {
    id: u128,
    entries: Vec<Entry>,
    tombstones: u64,
}

/// What of a file is visible: keys from..to.
#[derive(Clone)]
struct Live {
    file: Rc<File>,
    from: u32,
    to: u32,
}

impl Live {
    fn visible(&self) -> &[Entry] {
        let at = |key| self.file.entries.partition_point(|entry| entry.0 < key);
        &self.file.entries[at(self.from)..at(self.to)]
    }

    fn clip(&self, from: u32, to: u32) -> Option<Live> {
        let clipped = Live {
            file: self.file.clone(),
            from: self.from.max(from),
            to: self.to.min(to),
        };
        (clipped.from < clipped.to && !clipped.visible().is_empty()).then_some(clipped)
    }
}

struct Run {
    number: u64,
    tier: u8,
    tables: Vec<Live>,
}

/// A merge under way.
struct UnderWay {
    plan: Merge,
    output: Vec<Entry>,
    /// Nanoseconds it takes, and that it has had.
    takes: u64,
    had: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Entries in files at most and at the end, and keys alive then.
    pub(super) space_max: f64,
    pub(super) space_settled: f64,
    /// Entries written per entry flushed.
    pub(super) write_amplification: f64,
    pub(super) runs_max: usize,
    /// Time of the writer in multiples of what it would take without delays.
    pub(super) slowed: f64,
}

#[derive(Default)]
pub(super) struct Model {
    runs: Vec<Run>,
    next_run: u64,
    next_id: u128,
    active: BTreeMap<u32, bool>,
    sealed: Vec<Vec<Entry>>,
    /// Nanoseconds that the flush of the oldest one has had.
    flush_had: u64,
    merge: Option<UnderWay>,
    alive: HashSet<u32>,
    at_rest: bool,
    flushed: u64,
    merged: u64,
    nanos: u64,
    writes: u64,
    runs_max: usize,
    space_max: f64,
    /// Live keys from which on space is looked at.
    measured_from: usize,
    /// What the writer owes now.
    delay: u64,
}

fn key(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// The first number whose key is not before these bytes.
fn number(bytes: &[u8]) -> u32 {
    let mut padded = [0; 4];
    let whole = bytes.len().min(4);
    padded[..whole].copy_from_slice(&bytes[..whole]);
    u32::from_be_bytes(padded) + u32::from(bytes.len() > 4)
}

impl Model {
    /// Nothing written; space counts once this many keys live.
    pub(super) fn new(measured_from: usize) -> Self {
        Model {
            measured_from,
            ..Model::default()
        }
    }

    fn shape(&self) -> Shape {
        let mut shape = Shape::default();
        for run in &self.runs {
            for live in &run.tables {
                let (bytes, entries) = (
                    live.visible().len() as u64 * ENTRY,
                    live.file.entries.len() as u64,
                );
                if run.tier == BOTTOM {
                    shape.bottom_bytes += bytes;
                    shape.bottom_entries += entries;
                } else {
                    shape.upper_bytes += bytes;
                    shape.upper_entries += entries;
                    shape.upper_tombstones += live.file.tombstones;
                }
            }
        }
        shape
    }

    fn facts(&self) -> LevelFacts {
        let part = |live: &Live| {
            let visible = live.visible();
            PartFacts {
                id: TableId(live.file.id),
                visible_start: key(live.from),
                first: key(visible[0].0),
                last: key(visible[visible.len() - 1].0),
                is_open: false,
                bytes: visible.len() as u64 * ENTRY,
                entries: live.file.entries.len() as u64,
                tombstones: live.file.tombstones,
                movable: live.file.tombstones == 0 && visible.len() * 2 >= live.file.entries.len(),
                stamps: None,
                stands_on: None,
            }
        };
        LevelFacts {
            runs: self
                .runs
                .iter()
                .map(|run| RunFacts {
                    number: run.number,
                    tier: run.tier,
                    tables: run.tables.iter().map(part).collect(),
                })
                .collect(),
            shape: self.shape(),
            wishes: Wishes {
                at_rest: self.at_rest,
                ..Wishes::default()
            },
        }
    }

    fn options(&self) -> PickOptions {
        PickOptions {
            fan_in: FAN_IN,
            runs_max: RUNS_MAX,
            slice_bytes: slice_bytes(self.shape().bottom_bytes, FILE as u64 * ENTRY),
            moved_bytes_min: FILE as u64 * ENTRY / 16,
        }
    }

    /// Entries in files, and what of a merge's output is written.
    fn on_disk(&self) -> u64 {
        let mut seen = HashSet::new();
        let files = self.runs.iter().flat_map(|run| &run.tables);
        let held: usize = files
            .filter(|live| seen.insert(live.file.id))
            .map(|live| live.file.entries.len())
            .sum();
        let begun = self.merge.as_ref().map_or(0, |merge| {
            merge.output.len() as u64 * merge.had / merge.takes.max(1)
        });
        held as u64 + begun
    }

    fn look(&mut self) {
        self.runs_max = self.runs_max.max(self.runs.len());
        if self.alive.len() >= self.measured_from {
            self.space_max = self
                .space_max
                .max(self.on_disk() as f64 / self.alive.len() as f64);
        }
    }

    /// What the writer owes for each byte.
    fn owed(&self) -> u64 {
        let memtable = MEMTABLE as u64 * ENTRY;
        let shape = self.shape();
        let held: usize = self.sealed.iter().map(Vec::len).sum();
        pressure::nanos_per_byte(&Debt {
            memory_bytes: (held + self.active.len()) as u64 * ENTRY,
            memory_bytes_max: (SEALED_MAX as u64 + 1) * memtable,
            runs: self.runs.len() as u64,
            runs_max: RUNS_MAX as u64,
            merge_bytes: shape.upper_bytes,
            merge_bytes_max: pressure::merge_bytes_usual(memtable, FAN_IN as u64, shape.bottom_bytes),
        })
    }

    pub(super) fn put(&mut self, key: u32) {
        self.write(key, false);
    }

    pub(super) fn delete(&mut self, key: u32) {
        self.write(key, true);
    }

    fn write(&mut self, key: u32, is_delete: bool) {
        self.active.insert(key, is_delete);
        if is_delete {
            self.alive.remove(&key);
        } else {
            self.alive.insert(key);
        }
        if self.writes.is_multiple_of(LOOKS) {
            self.delay = self.owed();
            self.look();
        }
        self.writes += 1;
        let nanos = WRITE + self.delay * ENTRY;
        self.nanos += nanos;
        self.background(nanos);
        if self.active.len() >= MEMTABLE {
            while self.sealed.len() >= SEALED_MAX {
                self.nanos += 1000;
                self.background(1000);
            }
            self.sealed
                .push(std::mem::take(&mut self.active).into_iter().collect());
        }
    }

    /// Gives the one background thread some time. Says whether it had something to do.
    fn background(&mut self, mut nanos: u64) -> bool {
        while nanos > 0 {
            if let Some(sealed) = self.sealed.first() {
                let takes = sealed.len() as u64 * FLUSHED;
                let step = nanos.min(takes - self.flush_had);
                self.flush_had += step;
                nanos -= step;
                if self.flush_had == takes {
                    self.flush();
                }
                continue;
            }
            if self.merge.is_none() && !self.next_work() {
                return false;
            }
            let Some(merge) = &mut self.merge else { continue };
            let step = nanos.min(merge.takes - merge.had);
            merge.had += step;
            nanos -= step;
            if merge.had == merge.takes {
                self.install();
            }
        }
        true
    }

    fn file(&mut self, entries: Vec<Entry>) -> Live {
        self.next_id += 1;
        Live {
            from: entries[0].0,
            to: entries[entries.len() - 1].0 + 1,
            file: Rc::new(File {
                id: self.next_id,
                tombstones: entries.iter().filter(|entry| entry.1).count() as u64,
                entries,
            }),
        }
    }

    fn flush(&mut self) {
        self.flush_had = 0;
        let mut entries = self.sealed.remove(0);
        // A tombstone over nothing is not written.
        entries.retain(|(key, is_delete)| !is_delete || self.runs.iter().any(|run| holds(run, *key)));
        self.flushed += entries.len() as u64;
        self.next_run += 1;
        if !entries.is_empty() {
            let live = self.file(entries);
            self.runs.insert(
                0,
                Run {
                    number: self.next_run,
                    tier: 0,
                    tables: vec![live],
                },
            );
        }
        self.look();
    }

    /// Picks, and does at once what takes no time.
    fn next_work(&mut self) -> bool {
        match picker::pick(&self.facts(), &self.options()) {
            None => {
                self.at_rest = false;
                false
            }
            Some(Plan::Move(parts)) => {
                for part in parts {
                    let run = self.runs.iter_mut().find(|run| run.number == part.run);
                    let tables = &mut run.expect("a picked run is there").tables;
                    let at = tables.iter().position(|live| live.file.id == part.id.0);
                    let moved = tables.remove(at.expect("a picked part is there"));
                    self.put_into_bottom(vec![moved]);
                }
                self.runs.retain(|run| !run.tables.is_empty());
                true
            }
            Some(Plan::Merge(plan)) => {
                let inputs = self.inputs(&plan);
                let read: usize = inputs.iter().flatten().map(|live| live.visible().len()).sum();
                let mut merged = BTreeMap::new();
                for (key, is_delete) in inputs.iter().rev().flatten().flat_map(Live::visible) {
                    merged.insert(*key, *is_delete);
                }
                let oldest = self.runs.iter().rposition(|run| plan.runs.contains(&run.number));
                let older = match oldest {
                    Some(at) if plan.output_tier != BOTTOM => &self.runs[at + 1..],
                    _ => &[],
                };
                merged.retain(|key, is_delete| !*is_delete || older.iter().any(|run| holds(run, *key)));
                self.merge = Some(UnderWay {
                    plan,
                    output: merged.into_iter().collect(),
                    takes: (read as u64 * MERGED).max(1),
                    had: 0,
                });
                true
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Visible parts inside of the slice, newest first.
    fn inputs(&self, plan: &Merge) -> Vec<Vec<Live>> {
        let (from, to) = slice(plan);
        let is_in = |run: &Run, live: &Live| {
            plan.runs.contains(&run.number)
                || (run.tier == BOTTOM
                    && plan
                        .bottom
                        .iter()
                        .any(|(id, start)| id.0 == live.file.id && *start == key(live.from)))
        };
        let of = |run: &Run| {
            let inside = run.tables.iter().filter(|live| is_in(run, live));
            inside.filter_map(|live| live.clip(from, to)).collect()
        };
        self.runs.iter().map(of).collect()
    }

    fn put_into_bottom(&mut self, files: Vec<Live>) {
        if files.is_empty() {
            return;
        }
        if self.runs.last().is_none_or(|run| run.tier != BOTTOM) {
            self.runs.push(Run {
                number: 0,
                tier: BOTTOM,
                tables: Vec::new(),
            });
        }
        let bottom = self.runs.last_mut().expect("it was just put there");
        bottom.tables.extend(files);
        bottom.tables.sort_by_key(|live| live.from);
        let apart = |pair: &[Live]| pair[0].to <= pair[1].from;
        assert!(bottom.tables.windows(2).all(apart), "bottom files overlap");
    }

    fn install(&mut self) {
        let UnderWay { plan, output, .. } = self.merge.take().expect("a merge is under way");
        self.merged += output.len() as u64;
        let (from, to) = slice(&plan);
        let files: Vec<Live> = output
            .chunks(FILE)
            .map(|chunk| self.file(chunk.to_vec()))
            .collect();
        // Old and new are there together until the edit is installed.
        let held = self.on_disk() + output.len() as u64;
        if self.alive.len() >= self.measured_from {
            self.space_max = self.space_max.max(held as f64 / self.alive.len() as f64);
        }
        for run in &mut self.runs {
            let is_input = plan.runs.contains(&run.number);
            if is_input && plan.drains {
                run.tier = DRAINING;
            }
            let is_taken = |live: &Live| {
                is_input
                    || (run.tier == BOTTOM
                        && plan
                            .bottom
                            .iter()
                            .any(|(id, start)| id.0 == live.file.id && *start == key(live.from)))
            };
            let mut rest = Vec::new();
            for live in &run.tables {
                if is_taken(live) {
                    rest.extend(live.clip(0, from));
                    rest.extend(live.clip(to, u32::MAX));
                } else {
                    rest.push(live.clone());
                }
            }
            run.tables = rest;
        }
        self.runs
            .retain(|run| !run.tables.is_empty() || run.tier == BOTTOM);
        if plan.output_tier == BOTTOM {
            self.put_into_bottom(files);
        } else if !files.is_empty() {
            let at = self.runs.partition_point(|run| run.number > plan.output_run);
            self.runs.insert(
                at,
                Run {
                    number: plan.output_run,
                    tier: plan.output_tier,
                    tables: files,
                },
            );
        }
        self.runs.retain(|run| !run.tables.is_empty());
        self.look();
    }

    pub(super) fn end(mut self) -> Figures {
        self.sealed
            .push(std::mem::take(&mut self.active).into_iter().collect());
        while self.background(1_000_000) {}
        self.at_rest = true;
        while self.background(1_000_000) {}
        let alive = self.alive.len().max(1) as f64;
        Figures {
            space_max: self.space_max,
            space_settled: self.on_disk() as f64 / alive,
            write_amplification: (self.flushed + self.merged) as f64 / self.flushed.max(1) as f64,
            runs_max: self.runs_max,
            slowed: self.nanos as f64 / (self.writes * WRITE).max(1) as f64,
        }
    }
}

fn slice(plan: &Merge) -> (u32, u32) {
    let end = plan.slice.end.as_deref().map_or(u32::MAX, number);
    (number(&plan.slice.start), end)
}

fn holds(run: &Run, key: u32) -> bool {
    let at = run.tables.partition_point(|live| live.to <= key);
    run.tables
        .get(at)
        .is_some_and(|live| live.visible().binary_search_by_key(&key, |entry| entry.0).is_ok())
}
