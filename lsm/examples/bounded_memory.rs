//! Anonymous memory of a process that writes much under a budget: `cargo run --release -p keybed-lsm --example
//! bounded_memory [BUDGET_MIB] [WRITE_MIB] [STORES] [VALUE_BYTES] [DIR]`. Prints what the budget counted and what the
//! kernel saw (`RssAnon`; mapped tables are file pages and not in it), and fails if the kernel saw more than the
//! budget and a tenth above what the process had before.

use keybed_env::Random;
use keybed_format::{Error, Result, checksum};
use keybed_lsm::{Access, MemoryBudget, Store, StoreOptions};

const MIB: u64 = 1 << 20;

/// Anonymous resident memory in bytes.
fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn main() -> Result {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (budget_mib, write_mib, stores, value_bytes) = (number(256), number(2048), number(4), number(1024));
    let temporary = tempfile::tempdir().map_err(|e| Error::io("create", "a directory", e))?;
    let dir = args
        .next()
        .map_or_else(|| temporary.path().to_path_buf(), Into::into);
    let before = rss_anon();
    let budget = MemoryBudget::new((budget_mib * MIB) as usize);
    let options = StoreOptions {
        budget: Some(budget.clone()),
        access: Access::Cache,
        cache_bytes: (budget_mib * MIB / 4) as usize,
        ..StoreOptions::default()
    };
    let mut open = Vec::new();
    for number in 0..stores {
        let mut store = Store::open(dir.join(number.to_string()), options.clone())?;
        let family = store.family("f")?;
        open.push((store, family));
    }
    let mut random = Random::from_seed(1);
    let writes = write_mib * MIB / (value_bytes + 16);
    let mut value = vec![0; value_bytes as usize];
    let mut rss_peak = 0;
    for n in 0..writes {
        let at = (n / 10_000 % stores) as usize;
        let (store, family) = &mut open[at];
        let key = checksum::hash(&n.to_le_bytes()).to_be_bytes();
        value[..8].copy_from_slice(&n.to_le_bytes());
        store.put(*family, &key, &value)?;
        if n % 8 == 0 {
            let of = random.below(n + 1) / 10_000 * 10_000;
            let (store, family) = &open[(of / 10_000 % stores) as usize];
            let found = store.get(*family, &checksum::hash(&of.to_le_bytes()).to_be_bytes())?;
            assert!(found.is_some(), "write {of} is lost");
        }
        if n % 4096 == 0 {
            rss_peak = rss_peak.max(rss_anon());
        }
    }
    for (store, _) in &mut open {
        store.flush()?;
    }
    let stats = budget.stats();
    let mib = |bytes: u64| bytes / MIB;
    println!("written {write_mib} MiB to {stores} stores under a budget of {budget_mib} MiB");
    println!(
        "counted at most {} MiB, anonymous memory at most {} MiB, before {} MiB",
        mib(stats.peak as u64),
        mib(rss_peak),
        mib(before)
    );
    println!("{stats:?}");
    let stalls: u64 = open.iter().map(|(store, _)| store.stats().stalls).sum();
    println!("writes that were stopped {stalls}");
    for (store, _) in open {
        store.close()?;
    }
    assert!(
        rss_peak <= before + budget_mib * MIB * 11 / 10,
        "anonymous memory exceeds the budget by more than a tenth"
    );
    Ok(())
}
