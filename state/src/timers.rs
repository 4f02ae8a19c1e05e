//! Event-time timers: entries of the store from registration on, and a queue over them.
//!
//! ```text
//! entry   [key group][state id 0][time i64, sign flipped][key][namespace]     family `timer`
//! value   length of the key component, varint
//! ```
//! Timers are ordinary state, so every snapshot holds them and rescale deals them out. The queue in memory holds the
//! same timers ordered by time across key groups; it is read from the store at restore and answers "already
//! registered?" without a look-up.

use crate::{
    EntryScan, KeyCodec, KeyedBackend, StateFamily,
    current::{PREFIX_BYTES, TIMERS},
};
use keybed_format::{Code, Cursor, Result, Sink};
use keybed_snapshot::KeyGroup;
use std::collections::BTreeSet;

/// An event-time timer. Ordered by time, then by the bytes of key and namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timer {
    /// Event time in milliseconds at which it is due.
    pub time: i64,
    /// The key's component.
    pub key: Box<[u8]>,
    /// The namespace's component; void is empty.
    pub namespace: Box<[u8]>,
}

impl Timer {
    pub(crate) fn new(time: i64, key: &[u8], namespace: &[u8]) -> Self {
        Timer {
            time,
            key: key.into(),
            namespace: namespace.into(),
        }
    }

    fn entry(&self, group: KeyGroup) -> (Vec<u8>, Vec<u8>) {
        let (mut key, mut value) = (Sink::new(), Sink::new());
        key.raw(&group.prefix()).raw(&TIMERS.0.to_be_bytes());
        self.time.encode_key(&mut key);
        key.raw(&self.key).raw(&self.namespace);
        value.count(self.key.len());
        (key.into_vec(), value.into_vec())
    }

    /// The timer stored in an entry.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if the entry is no timer's.
    pub(crate) fn of_entry(key: &[u8], value: &[u8]) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut cursor = Cursor::new(key);
            cursor.take(PREFIX_BYTES)?;
            let time = i64::decode_key(&mut cursor)?;
            let mut length = Cursor::new(value);
            let key_bytes = length.varint()?;
            length.finish()?;
            let key = cursor.take(usize::try_from(key_bytes).unwrap_or(usize::MAX))?;
            Ok(Timer::new(time, key, cursor.take(cursor.remaining())?))
        };
        read().map_err(|e| {
            e.recode_malformed(Code::SnapshotCorrupt)
                .context("reading a timer")
        })
    }
}

/// The timers of a subtask in the order in which they fire.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    timers: BTreeSet<Timer>,
}

impl TimerQueue {
    /// Reads all timers of the store.
    pub(crate) fn read(backend: &dyn KeyedBackend) -> Result<Self> {
        let mut timers = Vec::new();
        let mut scan: Box<dyn EntryScan> = backend.scan(StateFamily::Timer, &[], None)?;
        while let Some((key, value)) = scan.next_entry()? {
            timers.push(Timer::of_entry(key, value)?);
        }
        // Built at once from all of them, which lie sorted by key group.
        Ok(TimerQueue {
            timers: BTreeSet::from_iter(timers),
        })
    }

    pub(crate) fn first(&self) -> Option<&Timer> {
        self.timers.first()
    }

    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn register(
        &mut self,
        backend: &mut dyn KeyedBackend,
        group: KeyGroup,
        timer: Timer,
    ) -> Result<bool> {
        if self.timers.contains(&timer) {
            return Ok(false);
        }
        let (key, value) = timer.entry(group);
        backend.put(StateFamily::Timer, &key, &value)?;
        Ok(self.timers.insert(timer))
    }

    pub(crate) fn delete(
        &mut self,
        backend: &mut dyn KeyedBackend,
        group: KeyGroup,
        timer: &Timer,
    ) -> Result<bool> {
        if !self.timers.contains(timer) {
            return Ok(false);
        }
        backend.delete(StateFamily::Timer, &timer.entry(group).0)?;
        Ok(self.timers.remove(timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_entry_pins_the_format() {
        let timer = Timer::new(-2, &[0xaa, 0xbb], &[0x11]);
        let (key, value) = timer.entry(KeyGroup(5));
        let time = [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(key, [&[0, 5, 0, 0][..], &time, &[0xaa, 0xbb, 0x11]].concat());
        assert_eq!(value, [2]);
        assert_eq!(Timer::of_entry(&key, &value).unwrap(), timer);
    }

    #[test]
    fn a_damaged_entry_is_corruption() {
        let (key, value) = Timer::new(i64::MAX, b"key", b"").entry(KeyGroup(0));
        for (key, value) in [
            (&key[..11], &value[..]),
            (&key, &[]),
            (&key, &[4]),
            (&key, &[3, 0]),
        ] {
            assert_eq!(
                Timer::of_entry(key, value).unwrap_err().code(),
                Code::SnapshotCorrupt
            );
        }
    }
}
