//! Keyed state for stream operators on two backends.
//!
//! ```text
//!   ValueState · ListState · MapState · timers
//!                     │
//!                KeyedState          the current key; logical keys; snapshots
//!                /         \
//!        HeapBackend     LsmBackend
//! ```
//!
//! | file | idea |
//! |---|---|
//! | [`codec`] | values and keys as bytes; keys in order |
//! | [`registry`] | where an operator declares its states and gets its tokens |
//! | [`catalogue`] | declarations against a snapshot: ids, and all problems at once |
//! | [`keyed`] | the keyed state of one subtask: current key, backend, timers |
//! | `current` | the logical key |
//! | [`value`], [`list`], [`map`], [`timers`] | the kinds of state; lists lie in chunks (`chunk`) |
//! | [`operator_state`] | lists that belong to no key |
//! | [`family`] | the four families of a backend |
//! | [`snapshot`] | a snapshot on its way out |
//! | `runs` | several handles as one stack of runs: rescale without rewriting |
//! | [`canonical`] | keyed state uniformly, whoever wrote it: canonical savepoints |
//! | [`convert`] | a snapshot rewritten in the other format, with no job |
//! | [`processor`] | reading state from a snapshot without a job; the logical digest |
//! | [`backend`] | the ordered store under it all: heap and LSM |
//!
//! Driven by hand, without a runtime:
//!
//! ```
//! use keybed_snapshot::{KeyGroupRange, StateCatalogue};
//! use keybed_state::{BackendOptions, KeyCodec, KeyedState, catalogue, codec::encode_key};
//!
//! // Declare the states; the catalogue gives them their ids and belongs into every snapshot.
//! let opened = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), |states| {
//!     Ok((states.value::<u64>("total")?, states.map::<String, u32>("by-sku")?))
//! });
//! let ((total, by_sku), catalogue) = opened.map_err(|mut problems| problems.remove(0))?;
//!
//! // One subtask that owns all of 128 key groups.
//! # let work = tempfile::tempdir().expect("a directory");
//! # let dir = work.path();
//! let mut state = KeyedState::create(BackendOptions::heap(dir), KeyGroupRange::all(128)?, 128, catalogue)?;
//! state.set_key(&encode_key(&42_u64))?;
//! assert_eq!(total.update(&mut state, |cents| cents.unwrap_or(0) + 250)?, 250);
//! by_sku.put(&mut state, &"bolt".to_owned(), &3)?;
//! state.register_timer(1_000, &[])?;
//!
//! // Event time passes.
//! let timer = state.pop_due(2_000)?.expect("it is due");
//! assert_eq!(timer.time, 1_000);
//! assert_eq!(total.get(&mut state)?, Some(250)); // the timer's key is current
//! # Ok::<(), keybed_format::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod backend;
pub mod canonical;
pub mod catalogue;
mod chunk;
pub mod codec;
pub mod convert;
mod current;
pub mod family;
pub mod keyed;
pub mod list;
pub mod map;
pub mod operator_state;
pub mod processor;
pub mod registry;
mod runs;
pub mod snapshot;
pub mod timers;
pub mod value;

pub use backend::{
    BackendOptions, BackendStats, Change, Changer, EntryScan, HeapBackend, KeyedBackend, LsmBackend,
    ScanEntry,
};
pub use codec::{Codec, KeyCodec};
pub use family::StateFamily;
pub use keybed_derive::{Codec, KeyCodec};
pub use keyed::{KeyedState, StateAccess};
pub use list::{ListIter, ListState};
pub use map::{MapIter, MapState};
pub use operator_state::ListOperatorState;
pub use registry::StateRegistry;
pub use snapshot::{PendingSnapshot, SnapshotStats, WrittenSnapshot};
pub use timers::Timer;
pub use value::ValueState;
