//! Checkpoints, savepoints and who owns the files.
//!
//! A *snapshot* is the state of a whole job at one moment: keyed state, timers, positions of the sources, pending output.
//! There are three kinds, of one format. What differs is who asked for it, how its bytes are written, and who deletes it.
//!
//! | | checkpoint | native savepoint | canonical savepoint |
//! |---|---|---|---|
//! | asked for by | the job, every few seconds | a person | a person |
//! | deleted by | the job, when newer ones exist | its user | its user |
//! | state is written as | tables of the backend, only what is new | the same tables, all of them | entries by key group, state and key |
//! | files lie | in the job root, shared by its checkpoints | in one directory, nothing outside | in one directory, nothing outside |
//! | costs | what changed | a copy of the files | reading and writing all state |
//! | for | recovery after a failure | moving, forking, stopping for a while | archives, other tools |
//!
//! Every kind restores on either backend and at another parallelism.
//!
//! # Checkpoints belong to the job
//! A job with checkpoints owns one directory, its *job root*:
//!
//! ```text
//! keybed-state/checkpoints/44fb7625ca27c01c84c33d696cef58ab/     the job's id
//!     chk-7/_metadata              the checkpoint exists since this name does
//!     chk-8/_metadata
//!     chk-9/_metadata              three are kept unless said otherwise
//!     shared/g1-c7-…  g1-c8-…      tables; chk-9 may need one that chk-7 brought
//!     owner/1                      who owns the root; the next process writes owner/2
//!     LOCK                         held by the process that runs the job
//! ```
//! A file in `shared/` goes when no metadata names it, and never before. Delete nothing here by hand: `keybed gc` removes
//! what a crash left, and says with `--dry-run` what that is; `keybed owners FILE` says who needs a file. The root can be
//! moved as a whole. A single `chk-9/` copied elsewhere is not complete, and says so
//! ([`SnapshotIncomplete`](crate::Code::SnapshotIncomplete) names every missing file); `keybed snapshot export` makes one
//! complete directory of it.
//!
//! How a job ends decides what becomes of its checkpoints:
//!
//! | end | checkpoints | goes on by |
//! |---|---|---|
//! | killed, failed, cancelled, Ctrl-C | stay | `--resume` |
//! | stopped with a savepoint | deleted once the savepoint and the output stand | `-s SAVEPOINT` |
//! | finished | deleted once the output stands | – |
//!
//! # Savepoints belong to their user
//! ```text
//! savepoints/savepoint-44fb76-78e2cda4f787/      job's first digits, random digits; rename it as you like
//!     _metadata
//!     g1-c3-…   g1-c3-…                          every file it needs
//! ```
//! The job forgets a savepoint the moment it exists: no recovery uses it, no retention deletes it, and deleting it harms
//! nobody (`keybed savepoint -d PATH`). It may be moved to another file system, archived, mounted read-only. Files are
//! copied (by the file system itself where it can); with hard links, on request, `inspect` shows what it shares storage
//! with.
//!
//! One thing is not in it: output that was already handed to the outside. A [`FileSink`](crate::runtime::FileSink) keeps
//! the parts that a savepoint counts on in its own directory (`keybed sink ls OUT` lists them) until they are given up by
//! `keybed sink release`. Without them the savepoint is refused with
//! [`TransactionLost`](crate::Code::TransactionLost), or restored without that output if you say so
//! ([`accept_lost_transactions`](crate::runtime::Restore::accept_lost_transactions)).
//!
//! # Restore modes: who owns the files afterwards
//! A job may start from any snapshot, its own files untouched or taken over:
//!
//! | | [`NoClaim`](crate::runtime::ClaimMode::NoClaim), the default | [`Claim`](crate::runtime::ClaimMode::Claim) | [`Legacy`](crate::runtime::ClaimMode::Legacy), deprecated |
//! |---|---|---|---|
//! | owner of the snapshot | stays its user | the job | nobody clearly |
//! | first checkpoint | full: copies what it needs | incremental: links what it needs | incremental: refers to the snapshot |
//! | when may you delete the snapshot | after `source-snapshot-released` | never; the job does, when the snapshot is the oldest and unused | when no retained checkpoint refers to it |
//! | second job from it | any number | refused: [`SnapshotClaimedByOther`](crate::Code::SnapshotClaimedByOther) | several may read it |
//!
//! A claim is written where the snapshot lies, so that everybody sees it:
//!
//! ```text
//! savepoints/savepoint-44fb76-78e2cda4f787/CLAIMED     a savepoint: who, since when
//! checkpoints/44fb…58ab/claims/1                       a checkpoint: all claims on that root, one list per change
//! ```
//! A claimed snapshot is deleted by being subsumed only: never because the job was cancelled, failed or finished.
//! `keybed claim --release PATH` gives one back after the job has ended.
//!
//! # A job that is moved
//! Take a savepoint of a running job, end the job, start another from the savepoint on the other backend:
//!
//! ```
//! use keybed::{env::Fs, prelude::*};
//! use std::{sync::Arc, time::Duration};
//! # struct Numbers;
//! # impl Source for Numbers {
//! #     type Record = u64;
//! #     fn splits(&self) -> u32 { 4 }
//! #     fn open(&self, _: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<u64>>> {
//! #         Ok(Box::new(Reader(splits.to_vec())))
//! #     }
//! # }
//! # struct Reader(Vec<SplitStart>);
//! # impl SourceReader<u64> for Reader {
//! #     fn poll_next(&mut self) -> Result<Polled<u64>> {
//! #         let Some(SplitStart { split, position }) = self.0.last_mut() else { return Ok(Polled::End) };
//! #         let split = *split;
//! #         if *position == 250 {
//! #             self.0.pop();
//! #             return Ok(Polled::SplitEnd(split));
//! #         }
//! #         *position += 1;
//! #         Ok(Polled::Record { split, next: *position, timestamp: 0, value: *position % 10 })
//! #     }
//! # }
//! # struct Count { seen: ValueState<u64> }
//! # impl Count {
//! #     fn open(states: &mut StateRegistry) -> Result<Self> { Ok(Count { seen: states.value("seen")? }) }
//! # }
//! # impl KeyedOperator for Count {
//! #     type Key = u64;
//! #     type In = u64;
//! #     type Out = String;
//! #     fn process(&mut self, _: &u64, _: u64, ctx: &mut Context<'_, String>) -> Result {
//! #         self.seen.update(ctx, |seen| seen.unwrap_or(0) + 1)?;
//! #         ctx.register_event_timer(i64::MAX)
//! #     }
//! #     fn on_timer(&mut self, digit: &u64, _: i64, ctx: &mut Context<'_, String>) -> Result {
//! #         let seen = self.seen.get(ctx)?.unwrap_or(0);
//! #         ctx.emit(format!("{digit},{seen}"));
//! #         Ok(())
//! #     }
//! # }
//!
//! # fn main() -> Result {
//! # let work = tempfile::tempdir().unwrap();
//! # let dir = work.path();
//! # let out = dir.join("out");
//! // A thousand numbers, counted by their last digit.
//! let program = || {
//!     let mut pipeline = Pipeline::new("digits");
//!     pipeline
//!         .source("numbers", Numbers)
//!         .key_by(|n| *n)
//!         .operator("count", Count::open)
//!         .sink("out", FileSink::new(&out, String::clone).sorted_file("digits.csv", "digit,seen", str::to_owned));
//!     pipeline
//! };
//! let options = |state: &str| JobOptions {
//!     work_dir: dir.join(state).join("work"),
//!     checkpoints: Some(Checkpoints::every(Duration::from_secs(1), dir.join(state).join("checkpoints"))),
//!     ..JobOptions::default()
//! };
//!
//! // Slowly, so that there is time to ask it for something.
//! let first = program().start(JobOptions { throttle: Some(500), ..options("here") })?;
//! let savepoint = loop {
//!     match first.savepoint(SavepointFormat::Native, Some(&dir.join("savepoints"))) {
//!         Err(e) if e.code() == Code::CheckpointDeclined => std::thread::sleep(Duration::from_millis(5)), // starting
//!         other => break other?,
//!     }
//! };
//! first.cancel();
//! first.wait()?;
//!
//! // Nothing of the first job is needed but its output: the savepoint may lie anywhere.
//! let moved = dir.join("moved by hand");
//! std::fs::rename(&savepoint.location, &moved).unwrap();
//! std::fs::remove_dir_all(dir.join("here")).unwrap();
//!
//! let restored = JobOptions {
//!     restore: Some(Restore::from(&moved)), // NoClaim: the savepoint stays ours
//!     parallelism: 3,
//!     backend: Backend::Heap,
//!     ..options("there")
//! };
//! assert!(program().check(&restored)?.is_compatible()); // writes nothing
//! let report = program().start(restored)?.wait()?;
//! assert_eq!(report.outcome, Some(Outcome::Finished));
//! assert!(!report.depends_on_restored_snapshot && moved.join("_metadata").exists());
//!
//! let lines = std::fs::read_to_string(out.join("digits.csv")).unwrap();
//! assert_eq!(lines.lines().nth(1), Some("0,100")); // as if nothing had happened
//! assert_eq!(lines.lines().count(), 11);
//! # Ok(())
//! # }
//! ```
//!
//! The same by commands:
//!
//! ```text
//! keybed run flights --throttle 50000            # and meanwhile, elsewhere:
//! keybed stop flights -p savepoints              # prints the savepoint's directory
//! keybed run flights -s savepoints/savepoint-… --restart -p 7 --backend heap
//! ```
//!
//! # When it does not fit
//! A program that changed is compared with the snapshot before anything starts, and everything that is wrong is said at
//! once ([`Pipeline::check`](crate::runtime::Pipeline::check), `--check`): state without an operator (`-n` leaves it out,
//! `--map OLD=NEW` gives it to an operator with another uid), another key type, too few key groups. The snapshot is never
//! touched by a refusal.
//!
//! Where every byte lies: `docs/format/{job-root,savepoint,claim,metadata}.md`. Why it is so: `docs/decisions/claims.md`,
//! `docs/decisions/parts-outlive-their-job.md`.
