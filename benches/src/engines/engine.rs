//! What every engine must be able to do here: the calls that keyed state makes.

use std::path::Path;

/// How an increment is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Add {
    /// In the cheapest way the engine offers for a value that keeps its length.
    InPlace,
    /// By a general read-modify-write: a new value made from the old one.
    Plain,
    /// As `Plain`, and an absent key begins with a count of 1.
    Upsert,
}

/// Shows key and value; `false` ends a scan.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// What is left of a snapshot when the caller may go on.
pub type Rest = Box<dyn FnOnce()>;

/// One embedded store, one writer thread.
pub trait Engine {
    /// Stores a value.
    fn put(&mut self, key: &[u8], value: &[u8]);

    /// Removes a key.
    fn delete(&mut self, key: &[u8]);

    /// Shows the value, or `None`.
    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>));

    /// Shows the values of several keys with their position, in any order; one by one if the engine knows no batches.
    fn multi_get(&mut self, keys: &[&[u8]], seen: &mut dyn FnMut(usize, Option<&[u8]>)) {
        for (at, key) in keys.iter().enumerate() {
            self.get(key, &mut |value| seen(at, value));
        }
    }

    /// Says that these keys will be read or changed next; nothing if the engine has no such call.
    fn announce(&mut self, keys: &[&[u8]]) {
        let _ = keys;
    }

    /// Adds 1 to the little-endian u64 in the value's first eight bytes.
    fn add(&mut self, key: &[u8], how: Add);

    /// Whether [`Add::InPlace`] is anything else than [`Add::Plain`].
    fn adds_in_place(&self) -> bool {
        false
    }

    /// Adds bytes behind a value; an absent one counts as empty.
    fn append(&mut self, key: &[u8], bytes: &[u8]);

    /// Shows entries from `from` on, below `to` if there is one, ascending.
    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>);

    /// Shows entries whose keys begin with `prefix`, ascending.
    fn prefix(&mut self, prefix: &[u8], each: Each<'_>);

    /// Removes `key`, the smallest of those that begin with `queue`; whatever lies below it is gone already.
    fn pop(&mut self, queue: &[u8], key: &[u8]) {
        let _ = queue;
        self.delete(key);
    }

    /// Removes all of `queue` up to `last` at once; `keys` are those that are there.
    fn pop_through(&mut self, queue: &[u8], last: &[u8], keys: &[[u8; 18]]) {
        let _ = (queue, last);
        keys.iter().for_each(|key| self.delete(key));
    }

    /// Removes every key that begins with `prefix`; one by one if the engine knows no other way.
    fn delete_prefix(&mut self, prefix: &[u8]) {
        let mut keys = Vec::new();
        self.prefix(prefix, &mut |key, _| {
            keys.push(key.to_vec());
            true
        });
        keys.iter().for_each(|key| self.delete(key));
    }

    /// Waits until flushes and compactions that are due have ended.
    fn settle(&mut self);

    /// Writes what is in memory to files, without waiting for compactions.
    fn flush(&mut self);

    /// The part of a snapshot that blocks the caller; files go to `to` where the engine links or copies them.
    /// `None` if the engine has no snapshots on disk.
    fn snapshot(&mut self, to: &Path) -> Option<Rest>;

    /// Leaves everything on disk.
    fn close(self: Box<Self>);

    /// Figures of the engine itself worth a line (levels, flushes), for people.
    fn facts(&mut self) -> String;
}

/// One embedded store, many threads: each has a handle of its own.
pub trait SharedEngine: Send {
    /// A handle for another thread.
    fn handle(&self) -> Box<dyn SharedEngine>;

    /// Stores a value.
    fn put(&self, key: &[u8], value: &[u8]);

    /// Shows the value, or `None`.
    fn get(&self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>));

    /// Waits until flushes and compactions that are due have ended.
    fn settle(&self);
}

/// Opens a store for many threads.
pub type OpenShared = fn(&Path, &Setup) -> Box<dyn SharedEngine>;

/// What a programme asks of an engine when it opens it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Block cache, bytes.
    pub cache_bytes: usize,
    /// Write memory, bytes.
    pub memtable_bytes: usize,
    /// Bound on cache, memtables and everything else, for engines that keep one.
    pub budget_bytes: Option<usize>,
    /// The kind of state is scanned: keybed's families of such state keep their memtables in order, as its state
    /// backend does, and the reference is a B-tree instead of a hash map.
    pub ordered: bool,
    /// Keys are taken from the front of queues, each named by so many first bytes; 0 = they are not.
    pub queue_bytes: u8,
    /// First bytes of a key that its scans ask for; 0 = there are no such.
    pub prefix_bytes: u16,
    /// Appends are merges where the engine has merge operators.
    pub appends: bool,
}

/// Adds 1 to the count at the head of `value`.
pub fn increment(value: &mut [u8]) {
    let (head, _) = value
        .split_first_chunk_mut::<8>()
        .expect("values have at least eight bytes");
    *head = (u64::from_le_bytes(*head) + 1).to_le_bytes();
}

/// The value of a key that [`Add::Upsert`] meets for the first time.
pub const FIRST: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7];

/// Makes the value that replaces `old`, in `buffer`.
pub fn added<'b>(old: Option<&[u8]>, how: Add, buffer: &'b mut [u8; 128]) -> &'b [u8] {
    match old {
        Some(old) => {
            buffer[..old.len()].copy_from_slice(old);
            increment(&mut buffer[..old.len()]);
            &buffer[..old.len()]
        }
        None => {
            assert!(how == Add::Upsert, "a key that was loaded is not found");
            buffer[..FIRST.len()].copy_from_slice(&FIRST);
            &buffer[..FIRST.len()]
        }
    }
}
