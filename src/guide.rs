//! How to use keybed, by examples that are tested.
//!
//! # The store alone
//! A [`Store`](crate::Store) is ordered bytes in one directory, owned by one thread at a time.
//! [`Family`](crate::lsm::Family) tokens name its key spaces.
//!
//! ```
//! use keybed::prelude::*;
//!
//! # fn main() -> keybed::Result {
//! # let work = tempfile::tempdir().unwrap();
//! # let dir = work.path().join("orders");
//! let mut store = Store::open(&dir, StoreOptions::default())?;
//! let orders = store.family("orders")?;
//! store.put(orders, b"o-1", b"42")?;
//! store.put(orders, b"o-2", b"43")?;
//!
//! // Read, change and write with one look-up.
//! store.update(orders, b"o-1", |old| Update::Put([old.unwrap_or_default(), b"!"].concat()))?;
//!
//! let mut keys = Vec::new();
//! for entry in store.range(orders, &b"o-"[..]..)? {
//!     let (key, _value) = entry?;
//!     keys.push(key);
//! }
//! assert_eq!(keys, [b"o-1", b"o-2"]);
//!
//! // A view is the content of this moment, for other threads.
//! let view = store.view()?;
//! store.delete(orders, b"o-1")?;
//! assert_eq!(store.get(orders, b"o-1")?, None);
//! assert_eq!(view.get(orders, b"o-1")?.as_deref(), Some(&b"42!"[..]));
//! # store.close()
//! # }
//! ```
//!
//! # A program of streams
//! A [`Pipeline`](crate::runtime::Pipeline) connects sources, keyed operators and sinks. An operator declares its
//! states when it is opened; a state is a small token, and every access goes through the context, which knows the
//! key of the record at hand.
//!
//! ```
//! use keybed::prelude::*;
//!
//! /// Adds up what each user has spent, and says so at the end.
//! struct Totals {
//!     cents: ValueState<u64>,
//! }
//!
//! impl Totals {
//!     fn open(states: &mut StateRegistry) -> Result<Self> {
//!         Ok(Totals { cents: states.value("cents")? })
//!     }
//! }
//!
//! impl KeyedOperator for Totals {
//!     type Key = String;
//!     type In = u64;
//!     type Out = (String, u64);
//!
//!     fn process(&mut self, _user: &String, cents: u64, ctx: &mut Context<'_, Self::Out>) -> Result {
//!         self.cents.update(ctx, |total| total.unwrap_or(0) + cents)?;
//!         ctx.register_event_timer(i64::MAX) // fires when the input has ended
//!     }
//!
//!     fn on_timer(&mut self, user: &String, _time: i64, ctx: &mut Context<'_, Self::Out>) -> Result {
//!         if let Some(total) = self.cents.get(ctx)? {
//!             ctx.emit((user.clone(), total));
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! The complete program, with its source and with checkpoints, is `examples/word_totals.rs`; a larger one is the job
//! `flights` of the command line.
//!
//! # Snapshots
//! Checkpoints, savepoints, and who owns their files: [`snapshots`].
//!
//! # Errors
//! Every fallible call returns [`Error`](crate::Error): a stable [`Code`](crate::Code) that names the case, a
//! [`kind`](crate::Error::kind) that says what can be done, and, where bytes are wrong, file and offset.
//!
//! ```
//! use keybed::{Code, ErrorKind, Store, StoreOptions};
//!
//! # fn main() -> keybed::Result {
//! # let work = tempfile::tempdir().unwrap();
//! # let dir = work.path().join("orders");
//! let owner = Store::open(&dir, StoreOptions::default())?;
//! let error = Store::open(&dir, StoreOptions::default()).unwrap_err(); // one directory, one owner
//! assert_eq!((error.code(), error.kind()), (Code::Locked, ErrorKind::Locked));
//! assert_eq!(error.fields()[0].0, "pid");
//! # owner.close()
//! # }
//! ```

pub mod snapshots;
