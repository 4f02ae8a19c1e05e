//! What programs need most: `use keybed::prelude::*;`.

pub use keybed_format::{Code, Error, ErrorKind, Result};
pub use keybed_lsm::{Family, FamilyOptions, SharedStore, Store, StoreOptions, Update, View, WriteBatch};
pub use keybed_runtime::{
    Aggregate, AllowNonRestored, Backend, Checkpoints, ClaimMode, Context, FileSink, Job, JobOptions,
    JobReport, KeyedOperator, OperatorUid, Outcome, Pipeline, Polled, Restore, SavepointFormat, Source,
    SourceReader, SplitStart, Tumbling, Window,
};
pub use keybed_state::{Codec, KeyCodec, ListState, MapState, StateRegistry, ValueState};
