//! Reads of every kind: by key, ranges, views, cursors, copies.

use super::{
    answer::{Done, Stop, collect, listed, same, same_list},
    config::HOUR,
    op::Step,
    run::{OpenCursor, World, open},
};
use std::ops::Bound;

impl World<'_> {
    pub(super) fn multi_get(&mut self, family: usize, keys: &[Vec<u8>]) -> Done {
        let found = self.store.multi_get(self.families[family], keys)?;
        same(found.len(), keys.len(), "answers of a multi_get")?;
        for (key, value) in keys.iter().zip(found) {
            let value = value?.map(|value| value.to_vec());
            self.reached.answers += 1;
            same(value.as_ref(), self.model.families[family].get(key), "multi_get")?;
        }
        Ok(())
    }

    pub(super) fn get_stamped(&mut self, family: usize, key: &[u8]) -> Done {
        let found = self.store.get_stamped(self.families[family], key)?;
        let found = found.map(|(value, stamp)| (value.to_vec(), stamp));
        self.reached.answers += 1;
        let expected = self.model.families[family].get(key);
        same(found.as_ref().map(|(value, _)| value), expected, "get_stamped")?;
        let Some((_, stamp)) = found.filter(|_| self.config.ttl[family].is_some()) else {
            return Ok(());
        };
        // What the store itself took of the time is less than half an hour.
        let half = HOUR.as_millis() as u64 / 2;
        let expected = self.model.hours_ago(family, key).map(|ago| self.stamp(ago));
        let is_near = expected.is_some_and(|expected| expected.abs_diff(stamp) < half);
        same(is_near, true, "when a key was touched")
    }

    pub(super) fn range(&mut self, family: usize, start: &[u8], end: Option<&[u8]>, down: bool) -> Done {
        let bounds = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let token = self.families[family];
        let found = if down {
            self.store.range_rev(token, bounds)?
        } else {
            self.store.range(token, bounds)?
        };
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        let entries = self.model.families[family].iter().filter(|(key, _)| inside(key));
        let expected = listed(entries, down);
        self.reached.answers += 1;
        same_list(&collect(found)?, &expected, "range")
    }

    pub(super) fn prefix(&mut self, family: usize, prefix: &[u8], down: bool) -> Done {
        let token = self.families[family];
        let found = if down {
            self.store.prefix_rev(token, prefix)?
        } else {
            self.store.prefix(token, prefix)?
        };
        let entries = self.model.families[family].iter();
        let expected = listed(entries.filter(|(key, _)| key.starts_with(prefix)), down);
        self.reached.answers += 1;
        same_list(&collect(found)?, &expected, "prefix")
    }

    pub(super) fn check_views(&mut self) -> Done {
        for (view, models) in &self.views {
            for (number, model) in models.iter().enumerate() {
                let (name, _) = self.config.family(number);
                let family = view
                    .family(&name)
                    .ok_or_else(|| Stop::Wrong(format!("a view without the family {name}")))?;
                let down = number % 2 == 1;
                let found = if down {
                    view.range_rev(family, ..)?
                } else {
                    view.range(family, ..)?
                };
                same_list(&collect(found)?, &listed(model.iter(), down), "a view")?;
                if let Some((key, value)) = model.iter().nth(model.len() / 2) {
                    let found = view.get(family, key)?.map(|value| value.to_vec());
                    same(found.as_ref(), Some(value), "a key of a view")?;
                }
                self.reached.answers += 2;
            }
        }
        Ok(())
    }

    /// Pinned files are a store of their own.
    pub(super) fn pin(&mut self) -> Done {
        let pinned = self.store.pin()?.finish()?;
        self.flushed();
        self.opened += 1;
        let copy = self.dir.with_extension(format!("copy-{}", self.opened));
        pinned.link_to(&copy)?;
        drop(pinned);
        let (mut store, families) = open(self.config, self.disk.as_ref(), &copy, (self.opened, &self.clock))?;
        for (number, model) in self.model.families.iter().enumerate() {
            let found = collect(store.range(families[number], ..)?)?;
            same_list(&found, &listed(model.iter(), false), "a copy by links")?;
            self.reached.answers += 1;
        }
        // It lives on its own.
        store.put(families[0], b"only here", b"")?;
        Ok(store.close()?)
    }

    pub(super) fn cursor(&mut self, family: usize, prefix: &[u8]) -> Done {
        if self.cursors.len() >= 4 {
            return Ok(());
        }
        let cursor = self.store.prefix_cursor(self.families[family], prefix)?;
        let entries = self.model.families[family].iter();
        self.cursors.push(OpenCursor {
            cursor,
            entries: listed(entries.filter(|(key, _)| key.starts_with(prefix)), false),
            at: None,
        });
        Ok(())
    }

    pub(super) fn step_cursor(&mut self, at: usize, step: &Step) -> Done {
        let Some(OpenCursor { cursor, entries, at }) = self.cursors.get_mut(at) else {
            return Ok(());
        };
        let store = &self.store;
        let last = entries.len().checked_sub(1);
        let expected = match step {
            Step::First => last.map(|_| 0),
            Step::Last => last,
            Step::Seek(key) => {
                let found = entries.partition_point(|(other, _)| other < key);
                (found < entries.len()).then_some(found)
            }
            Step::SeekForPrev(key) => entries.partition_point(|(other, _)| other <= key).checked_sub(1),
            // A cursor that stands nowhere is moved by a seek alone.
            Step::Next | Step::Prev if at.is_none() => return Ok(()),
            Step::Next => at.map(|at| at + 1).filter(|at| *at < entries.len()),
            Step::Prev => at.and_then(|at| at.checked_sub(1)),
        };
        let found = match step {
            Step::First => cursor.seek_to_first(store)?,
            Step::Last => cursor.seek_to_last(store)?,
            Step::Seek(key) => cursor.seek(store, key)?,
            Step::SeekForPrev(key) => cursor.seek_for_prev(store, key)?,
            Step::Next => cursor.next(store)?,
            Step::Prev => cursor.prev(store)?,
        };
        *at = expected;
        self.reached.answers += 1;
        same(found, expected.is_some(), "whether a cursor stands at an entry")?;
        let stands_at = found.then(|| (cursor.key().to_vec(), cursor.value().to_vec()));
        same(
            stands_at.as_ref(),
            expected.map(|at| &entries[at]),
            "the entry of a cursor",
        )
    }

    /// Everything is compared, in both directions.
    pub(super) fn check_all(&mut self) -> Done {
        for (number, model) in self.model.families.iter().enumerate() {
            let family = self.families[number];
            let up = collect(self.store.range(family, ..)?)?;
            same_list(&up, &listed(model.iter(), false), "everything")?;
            let down = collect(self.store.range_rev(family, ..)?)?;
            same_list(&down, &listed(model.iter(), true), "everything, downwards")?;
            self.reached.answers += 2;
        }
        Ok(())
    }
}
