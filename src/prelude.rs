//! What programs need most: `use keybed::prelude::*;`.

pub use keybed_format::{Code, Error, ErrorKind, Result};
pub use keybed_lsm::{Family, Store, StoreOptions, Update};
pub use keybed_runtime::{
    Aggregate, Backend, Checkpoints, Context, FileSink, Job, JobOptions, JobReport, KeyedOperator, Outcome,
    Pipeline, Polled, Source, SourceReader, SplitStart, Tumbling, Window,
};
pub use keybed_state::{Codec, KeyCodec, ListState, MapState, StateRegistry, ValueState};
