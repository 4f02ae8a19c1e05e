//! A table for people: facts, then one line per block.

use super::{TableReader, reader::BlockRef};
use std::fmt;

/// Prints a table; made by [`TableReader::dump`]. A damaged block is printed as its error.
#[derive(Clone, Copy, Debug)]
pub struct TableDump<'t>(&'t TableReader);

impl TableReader {
    /// The table as text: its facts, then one line per block. Reads every block.
    pub fn dump(&self) -> TableDump<'_> {
        TableDump(self)
    }
}

impl TableReader {
    /// Name, offset and bytes (checksum included) of each section, in the order of the file.
    pub fn sections(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.footer
            .sections
            .iter()
            .map(|section| (section.id.name(), section.start, section.end - section.start))
    }
}

impl fmt::Display for TableDump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, facts) = (self.0, self.0.facts());
        writeln!(
            f,
            "table {} · {} bytes · digest {:016x}",
            facts.id, facts.bytes, facts.digest
        )?;
        writeln!(
            f,
            "entries {} · keys {} · tombstones {} · merges {} · seqnos {}..={}",
            facts.entries, facts.keys, facts.tombstones, facts.merges, facts.seqno_min, facts.seqno_max
        )?;
        writeln!(
            f,
            "key bytes {} · value bytes {} · keys {}..={}",
            facts.key_bytes,
            facts.value_bytes,
            facts.smallest.escape_ascii(),
            facts.largest.escape_ascii()
        )?;
        if let Some((oldest, newest)) = facts.touched {
            writeln!(f, "touched {oldest}..={newest} · unstamped {}", facts.unstamped)?;
        }
        for fragment in table.range_deletes().iter().flat_map(|deletes| deletes.iter()) {
            write!(
                f,
                "deleted before {} · from {}",
                fragment.seqno,
                fragment.start.escape_ascii()
            )?;
            match fragment.end {
                Some(end) => writeln!(f, " to {}", end.escape_ascii())?,
                None => writeln!(f, " on")?,
            }
        }
        write!(f, "blocks {}", facts.blocks)?;
        for section in &table.footer.sections {
            let bytes = section.end - section.start;
            write!(f, " · {} {bytes} bytes at {}", section.id.name(), section.start)?;
        }
        if let Some(filters) = &table.filter {
            write!(f, " · filters {}", filters.groups())?;
        }
        writeln!(f)?;
        for block in 0..table.fence.blocks() {
            let (start, end) = table.fence.place(block);
            write!(f, "block {block} at {start} · {} bytes", end - start)?;
            if block > 0 {
                write!(f, " · from {}", table.fence.whole_separator(block).escape_ascii())?;
            }
            match table.block(block, false) {
                Ok(loaded) => {
                    let how = if matches!(loaded, BlockRef::Mapped(_)) {
                        "mapped"
                    } else {
                        "decoded"
                    };
                    writeln!(f, " · {} entries, {how}", loaded.view().geometry.entries())?;
                }
                Err(error) => writeln!(f, " · {error}")?,
            }
        }
        Ok(())
    }
}
