//! The engines by name.

mod engine;
#[cfg(feature = "fjall")]
mod fjall;
mod keybed;
mod map;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

pub use engine::{Add, Engine, OpenShared, Setup, SharedEngine};
use std::path::Path;

/// One engine in one configuration.
pub struct Contender {
    /// Name in tables.
    pub name: &'static str,
    /// Configurations of one engine are one peer; the best of them counts per row.
    pub peer: &'static str,
    /// Runs in quick mode too.
    pub quick: bool,
    /// Opens a store in a directory.
    pub open: fn(&Path, &Setup) -> Box<dyn Engine>,
    /// The same for many threads, if it is compared there.
    pub shared: Option<OpenShared>,
}

/// All that this build knows, in the order they take turns.
pub const CONTENDERS: &[Contender] = &[
    Contender {
        name: "keybed",
        peer: "keybed",
        quick: true,
        open: |dir, setup| Box::new(keybed::Keybed::open(dir, setup, keybed_lsm::Access::Map)),
        shared: Some(keybed::open_shared),
    },
    #[cfg(feature = "rocksdb")]
    Contender {
        name: "rocksdb-flink",
        peer: "rocksdb",
        quick: true,
        open: |dir, setup| Box::new(rocksdb::RocksDb::open(dir, setup, rocksdb::Tuning::Flink)),
        shared: Some(|dir, setup| rocksdb::open_shared(dir, setup, rocksdb::Tuning::Flink)),
    },
    Contender {
        name: "keybed-unmapped",
        peer: "keybed-unmapped",
        quick: true,
        open: |dir, setup| Box::new(keybed::Keybed::open(dir, setup, keybed_lsm::Access::Cache)),
        shared: None,
    },
    #[cfg(feature = "rocksdb")]
    Contender {
        name: "rocksdb-tuned",
        peer: "rocksdb",
        quick: true,
        open: |dir, setup| Box::new(rocksdb::RocksDb::open(dir, setup, rocksdb::Tuning::PointLookup)),
        shared: Some(|dir, setup| rocksdb::open_shared(dir, setup, rocksdb::Tuning::PointLookup)),
    },
    #[cfg(feature = "fjall")]
    Contender {
        name: "fjall",
        peer: "fjall",
        quick: true,
        open: |dir, setup| Box::new(fjall::Fjall::open(dir, setup)),
        shared: Some(fjall::open_shared),
    },
    #[cfg(feature = "rocksdb")]
    Contender {
        name: "rocksdb-plain",
        peer: "rocksdb",
        quick: false,
        open: |dir, setup| Box::new(rocksdb::RocksDb::open(dir, setup, rocksdb::Tuning::Plain)),
        shared: None,
    },
    #[cfg(feature = "redb")]
    Contender {
        name: "redb",
        peer: "redb",
        quick: true,
        open: |dir, setup| Box::new(redb::Redb::open(dir, setup)),
        shared: None,
    },
    #[cfg(feature = "rocksdb")]
    Contender {
        name: "rocksdb-mapped",
        peer: "rocksdb",
        quick: false,
        open: |dir, setup| Box::new(rocksdb::RocksDb::open(dir, setup, rocksdb::Tuning::Mapped)),
        shared: None,
    },
    Contender {
        name: "std",
        peer: "std",
        quick: true,
        open: |_, setup| map::open(setup),
        shared: Some(map::open_shared),
    },
];

/// The contender of that name.
pub fn contender(name: &str) -> Option<&'static Contender> {
    CONTENDERS.iter().find(|contender| contender.name == name)
}
