//! Where the current record's state lies: builds logical keys. Page: docs/format/logical-key.md.
//!
//! ```text
//! key group u16 BE │ state id u16 BE │ components
//!                                      key-first        key, map key or chunk id
//!                                      namespace-first  namespace, key, map key or chunk id
//!                                      time-first       time, key, namespace          (state id 0: timers)
//! ```
//! Key and namespace are components already: order-preserving and self-delimiting ([`KeyCodec`]).
//!
//! [`KeyCodec`]: crate::KeyCodec

use crate::StateFamily;
use keybed_format::{Code, Error, Result, Sink};
use keybed_snapshot::{ComponentOrder, KeyGroup, KeyGroupRange, StateId, StateKind, key_group_of};

/// Bytes before the components: key group and state id.
pub(crate) const PREFIX_BYTES: usize = 4;

/// The state id under which timers are stored; the catalogue never allots it.
pub(crate) const TIMERS: StateId = StateId(0);

/// What a token knows of its state: enough to find its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) id: StateId,
    pub(crate) order: ComponentOrder,
    pub(crate) family: StateFamily,
}

impl Slot {
    pub(crate) fn new(id: StateId, kind: StateKind, order: ComponentOrder) -> Self {
        Slot {
            id,
            order,
            family: family_of(kind, order),
        }
    }
}

/// The family that holds states of this kind and order.
pub(crate) fn family_of(kind: StateKind, order: ComponentOrder) -> StateFamily {
    match (order, kind) {
        (ComponentOrder::TimeFirst, _) | (_, StateKind::Timer) => StateFamily::Timer,
        (ComponentOrder::NamespaceFirst, _) => StateFamily::Window,
        (ComponentOrder::KeyFirst, StateKind::List | StateKind::Map) => StateFamily::Prefix,
        (ComponentOrder::KeyFirst, _) => StateFamily::Point,
    }
}

/// The current key and namespace of a subtask.
#[derive(Debug)]
pub(crate) struct Current {
    range: KeyGroupRange,
    max_parallelism: u32,
    group: Option<KeyGroup>,
    key: Vec<u8>,
    namespace: Vec<u8>,
    scratch: Sink,
}

impl Current {
    pub(crate) fn new(range: KeyGroupRange, max_parallelism: u32) -> Self {
        Current {
            range,
            max_parallelism,
            group: None,
            key: Vec::new(),
            namespace: Vec::new(),
            scratch: Sink::new(),
        }
    }

    /// The group of `key`, which must be one of ours.
    pub(crate) fn group_of(&self, key: &[u8]) -> Result<KeyGroup> {
        let group = key_group_of(key, self.max_parallelism);
        if self.range.contains(group) {
            return Ok(group);
        }
        Err(Error::invalid("the key belongs to another subtask")
            .expected_found(self.range, group.0)
            .with("max_parallelism", self.max_parallelism))
    }

    pub(crate) fn set_key(&mut self, key: &[u8]) -> Result {
        self.group = None;
        self.namespace.clear();
        self.group = Some(self.group_of(key)?);
        self.key.clear();
        self.key.extend_from_slice(key);
        Ok(())
    }

    pub(crate) fn set_namespace(&mut self, namespace: &[u8]) {
        self.namespace.clear();
        self.namespace.extend_from_slice(namespace);
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.group.map(|_| self.key.as_slice())
    }

    pub(crate) fn group_and_key(&self) -> Result<(KeyGroup, &[u8])> {
        match self.group {
            Some(group) => Ok((group, &self.key)),
            None => Err(Error::invalid("state is used while no key is current")),
        }
    }

    pub(crate) fn namespace(&self) -> &[u8] {
        &self.namespace
    }

    /// The logical key of an entry of a state for the current key; `suffix` appends map key or chunk id.
    #[inline]
    pub(crate) fn entry(&mut self, slot: Slot, suffix: impl FnOnce(&mut Sink)) -> Result<&[u8]> {
        let Some(group) = self.group else {
            return Err(Error::invalid("state is used while no key is current"));
        };
        if slot.id == TIMERS {
            return Err(Error::invalid(
                "state is used through a token that was only declared, not bound",
            ));
        }
        let out = &mut self.scratch;
        out.clear();
        out.raw(&group.prefix()).raw(&slot.id.0.to_be_bytes());
        if slot.order == ComponentOrder::NamespaceFirst {
            out.raw(&self.namespace);
        }
        out.raw(&self.key);
        suffix(out);
        Ok(out.as_slice())
    }
}

/// The smallest key above all keys that start with `prefix`, whose first byte is below 0xff.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

/// Reads a key group from the front of a logical key.
pub(crate) fn group_of_entry(key: &[u8]) -> Result<KeyGroup> {
    match key {
        [high, low, ..] if key.len() >= PREFIX_BYTES => Ok(KeyGroup(u16::from_be_bytes([*high, *low]))),
        _ => Err(
            Error::new(Code::Malformed, "a logical key is shorter than its prefix").with("bytes", key.len()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: u16, order: ComponentOrder) -> Slot {
        Slot::new(StateId(id), StateKind::Map, order)
    }

    #[test]
    fn golden_keys_pin_the_format() {
        let mut current = Current::new(KeyGroupRange::all(1).unwrap(), 1);
        current.set_key(&[0xaa, 0xbb]).unwrap();
        current.set_namespace(&[0x11]);
        let key = current.entry(slot(3, ComponentOrder::KeyFirst), |out| {
            out.u8(0xcc);
        });
        assert_eq!(key.unwrap(), [0, 0, 0, 3, 0xaa, 0xbb, 0xcc]);
        let key = current.entry(slot(0x102, ComponentOrder::NamespaceFirst), |_| ());
        assert_eq!(key.unwrap(), [0, 0, 1, 2, 0x11, 0xaa, 0xbb]);
    }

    #[test]
    fn a_foreign_key_leaves_no_key_current() {
        let all = 128;
        let first = KeyGroupRange::of_subtask(all, 128, 0).unwrap();
        let mut current = Current::new(first, all);
        let keys = (0_u64..).map(u64::to_be_bytes);
        let ours = keys
            .clone()
            .find(|key| key_group_of(key, all) == KeyGroup(0))
            .unwrap();
        let foreign = keys
            .clone()
            .find(|key| key_group_of(key, all) != KeyGroup(0))
            .unwrap();
        current.set_key(&ours).unwrap();
        assert!(current.set_key(&foreign).is_err());
        assert!(current.entry(slot(1, ComponentOrder::KeyFirst), |_| ()).is_err());
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_it_starts() {
        assert_eq!(prefix_end(&[0, 1]), [0, 2]);
        assert_eq!(prefix_end(&[0, 0xff, 0xff]), [1]);
    }
}
