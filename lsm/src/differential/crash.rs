//! The end of a store and what is there afterwards: closed, killed, without power.

use super::{
    answer::{Done, Stop, listed, same_list},
    model::{FAMILIES, Map},
    run::{World, open},
};
use crate::Durability;
use keybed_env::Random;
use keybed_format::Result;
use std::sync::Arc;

impl World<'_> {
    /// Lets go of what borrows the store's life.
    pub(super) fn let_go(&mut self) {
        self.views.clear();
        self.cursors.clear();
        self.reached.count(&self.store.stats());
    }

    pub(super) fn open_again(&mut self) -> Result {
        self.opened += 1;
        (self.store, self.families) = open(
            self.config,
            self.disk.as_ref(),
            &self.dir,
            (self.opened, &self.clock),
        )?;
        Ok(())
    }

    pub(super) fn reopen(&mut self) -> Done {
        self.let_go();
        self.reached.reopened += 1;
        self.store.flush()?;
        self.store.shut_down();
        self.open_again()?;
        self.model.settle();
        self.check_all()
    }

    /// Whether writes are in a log before they return.
    pub(super) fn is_logged(&self) -> bool {
        self.config.durability != Durability::None
    }

    /// Without a log, what was flushed is what the death of the process leaves.
    pub(super) fn flushed(&mut self) {
        if !self.is_logged() {
            self.model.settle();
        }
    }

    pub(super) fn kill(&mut self) -> Done {
        self.let_go();
        self.reached.crashes += 1;
        self.store.shut_down();
        self.open_again()?;
        let found = self.content()?;
        if self.is_logged() {
            // A log survives the death of the process whole; what a power loss may take afterwards is unchanged.
            return self.check_all();
        }
        let before = self.model.log_len();
        let kept = self.model.rewind_each_to(&found);
        self.found(kept, before, &found)
    }

    pub(super) fn lose_power(&mut self, seed: u64) -> Done {
        // Without a log nothing is promised but that damage is named, which other tests look at.
        let Some(disk) = self.disk.clone().filter(|_| self.is_logged()) else {
            return self.kill();
        };
        self.let_go();
        self.reached.crashes += 1;
        let image = disk.crash_image(disk.op_count(), &mut Random::from_seed(seed));
        self.store.shut_down();
        self.disk = Some(Arc::new(image));
        self.open_again()?;
        let found = self.content()?;
        if self.config.durability == Durability::Sync {
            self.model.settle();
        }
        let before = self.model.log_len();
        let kept = self.model.rewind_to(&found);
        self.found(kept, before, &found)
    }

    /// What the families hold.
    pub(super) fn content(&self) -> Result<[Map; FAMILIES]> {
        let mut found: [Map; FAMILIES] = std::array::from_fn(|_| Map::new());
        for (number, map) in found.iter_mut().enumerate() {
            *map = self
                .store
                .range(self.families[number], ..)?
                .collect::<Result<_>>()?;
        }
        Ok(found)
    }

    /// Judges what was found after a crash, `kept` of the `before` writes that could be lost.
    pub(super) fn found(&mut self, kept: Option<usize>, before: usize, found: &[Map; FAMILIES]) -> Done {
        let Some(kept) = kept else {
            for (number, model) in self.model.families.iter().enumerate() {
                let what = format!("after a crash, no moment's content; against the last, family {number}");
                same_list(
                    &listed(found[number].iter(), false),
                    &listed(model.iter(), false),
                    &what,
                )?;
            }
            return Err(Stop::Wrong(
                "after a crash, families of different moments".to_owned(),
            ));
        };
        self.reached.lost_writes += (before - kept) as u64;
        self.check_all()
    }
}
