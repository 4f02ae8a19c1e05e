//! A first look at the price of keyed state over its backends: CPU-bound loops on one thread, figures in ns per
//! operation. No gate; the comparison with other engines is in benches/.

use keybed_env::{Clock, SystemClock};
use keybed_format::Result;
use keybed_snapshot::{CheckpointId, KeyGroupRange, SnapshotKind, SnapshotRequest, StateCatalogue};
use keybed_state::{BackendOptions, KeyCodec, KeyedState, catalogue};

const KEYS: u64 = 200_000;
const ROUNDS: u64 = 5;

fn main() -> Result {
    let dir = std::env::temp_dir().join(format!("state-speed-{}", std::process::id()));
    for options in [
        BackendOptions::heap(dir.join("heap")),
        BackendOptions::lsm(dir.join("lsm")),
    ] {
        measure(options)?;
    }
    println!("tables are left in {}", dir.display());
    Ok(())
}

fn measure(options: BackendOptions) -> Result {
    let kind = options.kind;
    let opened = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), |states| {
        Ok((
            states.value::<u64>("total")?,
            states.list::<u64>("recent")?,
            states.map::<u32, u64>("by-sku")?,
        ))
    });
    let ((total, recent, by_sku), catalogue) = opened.map_err(|mut problems| problems.remove(0))?;
    let mut state = KeyedState::create(options, KeyGroupRange::all(128)?, 128, catalogue)?;
    let clock = SystemClock::new();
    let time = |what: &str, state: &mut KeyedState, each: &mut dyn FnMut(&mut KeyedState, u64) -> Result| {
        let start = clock.monotonic();
        for n in 0..KEYS * ROUNDS {
            let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS;
            state.set_key(&key.to_be_bytes())?;
            each(state, key)?;
        }
        let nanos = (clock.monotonic() - start).as_nanos() as u64 / (KEYS * ROUNDS);
        println!("{kind:?}\t{what}\t{nanos} ns");
        Ok::<(), keybed_format::Error>(())
    };
    time("set key alone", &mut state, &mut |_, _| Ok(()))?;
    time("value update", &mut state, &mut |s, _| {
        total.update(s, |old| old.unwrap_or(0) + 1).map(|_| ())
    })?;
    time("value get", &mut state, &mut |s, _| total.get(s).map(|_| ()))?;
    time("map update", &mut state, &mut |s, k| {
        by_sku
            .update(s, &(k as u32 % 3), |old| old.unwrap_or(0) + 1)
            .map(|_| ())
    })?;
    time("list push", &mut state, &mut |s, k| recent.push(s, &k))?;
    time("list get", &mut state, &mut |s, _| recent.get(s).map(|_| ()))?;
    for id in 1..=5 {
        for key in 0..1000_u64 {
            state.set_key(&key.to_be_bytes())?;
            total.set(&mut state, &id)?;
        }
        let request = SnapshotRequest {
            checkpoint: CheckpointId(id),
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: 0,
        };
        let start = clock.monotonic();
        let pending = state.prepare(&request)?;
        println!(
            "{kind:?}\tprepare {id}\t{} us",
            (clock.monotonic() - start).as_micros()
        );
        drop(pending);
    }
    Ok(())
}
