//! A copy of a store that costs no bytes: its files under second names in another directory, with a manifest of
//! their own.

use crate::{
    ingest::transfer_file,
    mount::{Mount, MountFamily, MountRun, MountTable},
    pin::{PinnedFamily, PinnedFiles, PinnedRun, PinnedTable},
    store::Store,
};
use keybed_format::{Code, Error, Result};
use std::{collections::HashSet, path::Path};

impl PinnedFiles {
    /// Makes an openable copy of the pinned content in `dir`: hard links, or copies where links are impossible, and a
    /// manifest. The copy is a store of its own; neither notices what becomes of the other.
    ///
    /// # Errors
    /// `TargetExists` if `dir` holds a store or some table of one; `Locked`; errors of the file system. What was
    /// linked until then stays; without its CURRENT the directory is no store.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use keybed_lsm::{Store, StoreOptions};
    ///
    /// let mut store = Store::open(dir.path().join("live"), StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// store.pin()?.finish()?.link_to(dir.path().join("copy"))?;
    /// store.put(orders, b"o-1", b"43")?;
    ///
    /// let mut copy = Store::open(dir.path().join("copy"), StoreOptions::default())?;
    /// let orders = copy.family("orders")?;
    /// assert_eq!(copy.get(orders, b"o-1")?.unwrap(), b"42");
    /// # Ok(()) }
    /// ```
    pub fn link_to(&self, dir: impl AsRef<Path>) -> Result {
        let dir = dir.as_ref();
        let options = self.options();
        let fs = options.fs.clone();
        fs.create_dir_all(dir)?;
        let taken = |name: &str| name == crate::version::manifest::CURRENT || name.ends_with(".sst");
        if let Some(found) = fs.list(dir)?.into_iter().find(|entry| taken(&entry.name)) {
            return Err(
                Error::new(Code::TargetExists, "the directory holds a store or tables of one")
                    .in_file(dir.join(found.name)),
            );
        }
        let mut linked = HashSet::new();
        for table in self.tables().filter(|table| linked.insert(table.id)) {
            transfer_file(&*fs, &table.path, &Store::table_path(dir, table.id), true)?;
        }
        fs.sync_dir(dir)?;
        Store::mount(dir, options, self.mount(dir))?.close()
    }

    /// What there is to mount once the files are in `dir`.
    fn mount(&self, dir: &Path) -> Mount {
        let families = self.families.iter().map(|family| family.mount(dir));
        Mount {
            families: families.collect(),
            next_seqno: self.next_seqno,
        }
    }
}

impl PinnedFamily {
    /// What [`Store::mount`] takes once the files are in `dir`, under the names of [`Store::table_path`].
    pub fn mount(&self, dir: impl AsRef<Path>) -> MountFamily {
        let dir = dir.as_ref();
        let table = |table: &PinnedTable| MountTable {
            path: Store::table_path(dir, table.id),
            id: table.id,
            visible: table.visible.clone(),
            seqno_base: table.seqno_base,
        };
        let run = |run: &PinnedRun| MountRun {
            tier: run.tier,
            tables: run.tables.iter().map(table).collect(),
        };
        MountFamily {
            name: self.name.clone(),
            options: self.options.clone(),
            floors: self.floors.clone(),
            runs: self.runs.iter().map(run).collect(),
        }
    }
}
