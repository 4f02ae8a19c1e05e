//! Iterators, cursors and views on both, step by step.

use super::{draw::Bounds, pair::Pair};
use keybed_lsm::Range;
use rocksdb::DBRawIterator;

/// Writes while a snapshot is held.
const WRITES: u64 = 40;
/// Moves of a cursor.
const MOVES: u64 = 20;

/// Entries of a range, one way or the other.
pub fn scan(pair: &mut Pair) {
    let bounds = pair.shape.bounds(&mut pair.random);
    let backward = pair.random.one_in(2);
    let db = pair.db();
    let mut theirs = db.raw_iterator_opt(bounds.read_options());
    let family = pair.family;
    let ours = if backward {
        pair.store().range_rev(family, bounds.range())
    } else {
        pair.store().range(family, bounds.range())
    };
    equal(ours.expect("keybed scans"), &mut theirs, backward, &bounds);
}

fn equal(mut ours: Range<'_>, theirs: &mut DBRawIterator<'_>, backward: bool, bounds: &Bounds) {
    if backward {
        theirs.seek_to_last();
    } else {
        theirs.seek_to_first();
    }
    loop {
        let entry = ours.next_entry().expect("keybed scans");
        assert_eq!(entry, theirs.item(), "scan of {bounds:?}, backward {backward}");
        if entry.is_none() {
            break;
        }
        if backward {
            theirs.prev();
        } else {
            theirs.next();
        }
    }
    theirs.status().expect("RocksDB scans");
}

/// A view and a snapshot show the same while both stores go on.
pub fn view(pair: &mut Pair) {
    let db = pair.db();
    let snapshot = db.snapshot();
    let view = pair.store().view().expect("keybed takes a view");
    (0..WRITES).for_each(|_| pair.write_or_read());
    let family = pair.family;
    for _ in 0..5 {
        let key = pair.shape.key(&mut pair.random);
        let ours = view.get(family, &key).expect("keybed reads");
        let theirs = snapshot.get(&key).expect("RocksDB reads");
        assert_eq!(
            ours.as_deref(),
            theirs.as_deref(),
            "view of {}",
            key.escape_ascii()
        );
    }
    let bounds = pair.shape.bounds(&mut pair.random);
    for backward in [false, true] {
        let mut theirs = snapshot.raw_iterator_opt(bounds.read_options());
        let ours = if backward {
            view.range_rev(family, bounds.range())
        } else {
            view.range(family, bounds.range())
        };
        equal(ours.expect("keybed scans"), &mut theirs, backward, &bounds);
    }
}

/// A cursor and an iterator, moved about while both stores go on.
pub fn cursor(pair: &mut Pair) {
    let bounds = pair.shape.bounds(&mut pair.random);
    let db = pair.db();
    let mut theirs = db.raw_iterator_opt(bounds.read_options());
    let family = pair.family;
    let mut ours = pair
        .store()
        .cursor(family, bounds.range())
        .expect("keybed makes a cursor");
    let mut valid = false;
    for _ in 0..MOVES {
        let key = pair.shape.key(&mut pair.random);
        let choice = pair.random.below(10);
        let store = pair.store();
        // A step from nowhere means different things to the two, so it is not taken.
        let (moved, what) = match choice {
            0 => {
                theirs.seek_to_first();
                (ours.seek_to_first(store), "seek_to_first")
            }
            1 => {
                theirs.seek_to_last();
                (ours.seek_to_last(store), "seek_to_last")
            }
            2 => {
                theirs.seek(&key);
                (ours.seek(store, &key), "seek")
            }
            3 => {
                theirs.seek_for_prev(&key);
                (ours.seek_for_prev(store, &key), "seek_for_prev")
            }
            4..=6 if valid => {
                theirs.next();
                (ours.next(store), "next")
            }
            7..=8 if valid => {
                theirs.prev();
                (ours.prev(store), "prev")
            }
            _ => {
                pair.write_or_read();
                continue;
            }
        };
        let moved = moved.expect("keybed moves");
        theirs.status().expect("RocksDB moves");
        let entry = moved.then(|| (ours.key(), ours.value()));
        assert_eq!(
            entry,
            theirs.item(),
            "{what} {} in {bounds:?}",
            key.escape_ascii()
        );
        valid = moved;
    }
}

/// Everything, in both directions.
pub fn all(pair: &mut Pair) {
    let bounds = Bounds { from: None, to: None };
    let db = pair.db();
    let family = pair.family;
    for backward in [false, true] {
        let mut theirs = db.raw_iterator_opt(bounds.read_options());
        let store = pair.store();
        let ours = if backward {
            store.range_rev(family, ..)
        } else {
            store.range(family, ..)
        };
        equal(ours.expect("keybed scans"), &mut theirs, backward, &bounds);
    }
}
