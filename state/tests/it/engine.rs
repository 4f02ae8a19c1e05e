//! If this fails, state larger than a memtable is not what the tests above think they tested.

use crate::world::World;
use keybed_snapshot::BackendKind;

/// Rounds after which background merges must have happened.
const ROUNDS_MAX: u64 = 400;

#[test]
fn small_memtables_are_flushed_merged_to_the_bottom_and_read_from_tables() {
    let mut world = World::new(BackendKind::Lsm, 1, 16 << 10);
    let (total, by_sku) = (world.tokens.total, world.tokens.by_sku);
    let mut round = 0;
    loop {
        round += 1;
        for key in 0..500 {
            let state = world.at(key);
            assert_eq!(total.update(state, |old| old.unwrap_or(0) + 1).unwrap(), round);
            by_sku
                .put(state, &format!("{}", round % 5), &(round as i32))
                .unwrap();
        }
        world.run_background();
        let stats = world.subtasks[0].stats();
        if stats.flushes > 20
            && stats.compactions > 5
            && stats.bottom_compactions > 2
            && stats.table_gets > 1000
        {
            break;
        }
        assert!(round < ROUNDS_MAX, "{stats:?}");
    }
    for key in 0..500 {
        let state = world.at(key);
        assert_eq!(total.get(state).unwrap(), Some(round));
        assert_eq!(by_sku.iter(state).unwrap().count() as u64, round.min(5));
    }
}
