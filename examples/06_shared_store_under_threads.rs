//! 06: one store, many threads; transactions that notice when what they read has changed.
//!
//! `cargo run -p keybed --example 06_shared_store_under_threads`

use keybed::{lsm::SharedStore, prelude::*};
use std::thread;

const ACCOUNTS: u64 = 10;
const THREADS: u64 = 4;

fn account(number: u64) -> [u8; 8] {
    (number % ACCOUNTS).to_be_bytes()
}

fn amount(value: Option<Vec<u8>>) -> u64 {
    value
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Runs the example in a directory that goes with it.
pub(crate) fn main() -> Result {
    let dir = tempfile::tempdir().expect("the system has a place for temporary files");
    let bank = SharedStore::open(dir.path().join("bank"), StoreOptions::default())?;
    let accounts = bank.family("accounts")?;
    for number in 0..ACCOUNTS {
        bank.put(accounts, &account(number), &100_u64.to_le_bytes())?;
    }

    thread::scope(|scope| {
        let transfers = (0..THREADS).map(|thread| {
            let bank = bank.clone();
            scope.spawn(move || -> Result {
                for round in 0..200 {
                    let (from, to) = (account(thread * 7 + round), account(thread * 3 + round * 5 + 1));
                    // Runs again from its beginning if another thread changed one of the two accounts.
                    bank.transact(|transaction| {
                        let has = amount(transaction.get(accounts, &from)?);
                        if has > 0 && from != to {
                            let other = amount(transaction.get(accounts, &to)?);
                            transaction.put(accounts, &from, &(has - 1).to_le_bytes());
                            transaction.put(accounts, &to, &(other + 1).to_le_bytes());
                        }
                        Ok(())
                    })?;
                }
                Ok(())
            })
        });
        let transfers: Vec<_> = transfers.collect();
        transfers
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no transfer panics"))
    })?;

    // A view is the content of one moment, and may go to another thread.
    let view = bank.view()?;
    let mut total = 0;
    for entry in view.range(accounts, ..)? {
        total += amount(Some(entry?.1));
    }
    println!("{THREADS} threads moved money around; the total is still {total}");
    assert_eq!(total, ACCOUNTS * 100);
    drop(view);
    bank.close()
}
