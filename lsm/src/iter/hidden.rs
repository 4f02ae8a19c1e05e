//! What range deletes and floors hide from a merge.
//!
//! ```text
//! source 0 (newest)   · · a · · · [delete c..g @40] · · ·
//! source 1            · · a b C D E F · ·             C to F: one seek instead of four steps
//! source 2            · · · · C · E · G ·
//! ```
//! A range delete of a source hides its keys in all older sources, and what is older than itself in its own; a floor
//! hides what is older than itself in all of them. Each source is moved past what is hidden in it whenever it moves, so
//! that the merge meets nothing hidden. Where everything of a stretch is hidden the source seeks past its end; only
//! where newer versions may lie among hidden ones is each looked at.

use super::Source;
use crate::{
    floor::Floors,
    key::{KeyRange, Seqno},
    range_delete::{RangeDeletes, Region},
    version::{BEHIND_ALL_KEYS, LiveView, region},
};
use keybed_format::Result;
use std::sync::Arc;

/// The range deletes of one source.
pub(crate) enum Layer<'a> {
    /// Those of a memtable.
    Memtable(Arc<RangeDeletes>),
    /// Those of the tables of a run.
    Run(&'a [LiveView]),
}

impl Layer<'_> {
    fn region(&self, key: &[u8]) -> Result<Region> {
        match self {
            Layer::Memtable(deletes) => Ok(deletes.region(key)),
            Layer::Run(tables) => region(tables, key),
        }
    }
}

/// What hides versions of the sources of a merge.
pub(crate) struct Hidden<'a> {
    /// By source, newest first.
    layers: Vec<Option<Layer<'a>>>,
    floors: Option<&'a Floors>,
    /// By source: what holds around the key it was asked about last.
    shades: Vec<Option<Shade>>,
}

/// What is hidden of a source among neighbouring keys.
struct Shade {
    keys: KeyRange,
    /// Versions with smaller seqnos.
    below: Seqno,
    /// There are no others.
    is_whole: bool,
}

impl<'a> Hidden<'a> {
    /// What hides versions of `sources`, newest first; `None` if nothing does.
    pub(super) fn over(sources: &[Source<'a>], floors: Option<&'a Floors>) -> Option<Box<Self>> {
        let layers: Vec<_> = sources.iter().map(Source::layer).collect();
        if floors.is_none() && layers.iter().all(Option::is_none) {
            return None;
        }
        Some(Box::new(Hidden {
            shades: layers.iter().map(|_| None).collect(),
            layers,
            floors,
        }))
    }

    /// Whether the version that source `number` stands at is hidden.
    pub(super) fn hides(&mut self, number: usize, source: &Source<'_>) -> Result<bool> {
        let Some(entry) = source.entry() else {
            return Ok(false);
        };
        Ok(entry.seqno < self.shade(number, source, entry.key)?.below)
    }

    /// Moves source `number` to the next version that is not hidden, in the direction it goes.
    pub(super) fn reveal(&mut self, number: usize, source: &mut Source<'_>, down: bool) -> Result {
        loop {
            let Some(entry) = source.entry() else {
                return Ok(());
            };
            let shade = self.shade(number, source, entry.key)?;
            if entry.seqno >= shade.below {
                return Ok(());
            }
            source.step(down)?;
            // A short stretch is passed by steps.
            if !shade.is_whole || !source.key().is_some_and(|key| shade.keys.contains(key)) {
                continue;
            }
            match (down, &shade.keys.end) {
                (true, _) => source.seek_before(Some(&shade.keys.start))?,
                (false, Some(end)) => source.seek(end)?,
                (false, None) => source.seek(&BEHIND_ALL_KEYS)?,
            }
        }
    }

    fn shade(&mut self, number: usize, source: &Source<'_>, key: &[u8]) -> Result<&Shade> {
        let slot = &mut self.shades[number];
        match slot {
            Some(shade) if shade.keys.contains(key) => {}
            _ => *slot = Some(shade(&self.layers[..=number], self.floors, source, key)?),
        }
        Ok(slot.as_ref().expect("it was just put there"))
    }
}

/// What the last of `layers`, that of `source`, the newer ones and the floors hide of `source` around `key`.
fn shade(
    layers: &[Option<Layer<'_>>],
    floors: Option<&Floors>,
    source: &Source<'_>,
    key: &[u8],
) -> Result<Shade> {
    let mut shade = Shade {
        keys: KeyRange::all(),
        below: 0,
        is_whole: false,
    };
    for (at, layer) in layers.iter().enumerate() {
        let Some(layer) = layer else { continue };
        let region = layer.region(key)?;
        if let Some(seqno) = region.seqno {
            if at + 1 < layers.len() {
                return Ok(Shade {
                    keys: region.keys,
                    below: Seqno::MAX,
                    is_whole: true,
                });
            }
            shade.below = seqno;
            shade.is_whole = matches!(layer, Layer::Memtable(_)) && !region.is_rewritten;
        }
        shade.keys = shade.keys.clip(&region.keys);
    }
    if let Some(floors) = floors {
        let region = floors.region(key);
        if let Some(seqno) = region.seqno {
            shade.below = shade.below.max(seqno);
            shade.is_whole |= match source {
                Source::Memtable(_) => !region.is_rewritten,
                Source::Run(run) => run.seqno_max() < seqno,
            };
        }
        shade.keys = shade.keys.clip(&region.keys);
    }
    Ok(shade)
}
