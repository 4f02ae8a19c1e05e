//! If the simulated disk did not lose what a real one may lose, crash tests would prove nothing: each planted
//! mistake must be seen, and the correct way must survive every image.

use keybed_env::{Fs, Random, SimFs};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

fn path(text: &str) -> &Path {
    Path::new(text)
}

type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Distinct images after every operation, `draws` draws each.
fn images(fs: &SimFs, draws: u32) -> Vec<(u64, Tree)> {
    let mut images = Vec::new();
    fs.each_crash_image(draws, &mut Random::from_seed(7), |at, image| {
        images.push((at, image.tree()));
    });
    images
}

fn at_end(fs: &SimFs, draws: u32) -> Vec<Tree> {
    let end = fs.op_count();
    images(fs, draws)
        .into_iter()
        .filter(|(at, _)| *at == end)
        .map(|(_, tree)| tree)
        .collect()
}

fn write(fs: &SimFs, name: &str, bytes: &[u8]) {
    let mut file = fs.create(path(name)).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
}

fn old_file() -> SimFs {
    let fs = SimFs::new();
    write(&fs, "a", b"old");
    fs.settle();
    fs
}

#[test]
fn an_atomic_write_is_whole_in_every_image() {
    let fs = old_file();
    let new = vec![9; 3000];
    fs.write_atomic(path("a"), path("a.tmp"), &new).unwrap();
    let end = fs.op_count();
    let (mut old_seen, mut new_seen) = (0, 0);
    for (at, tree) in images(&fs, 300) {
        let found = &tree[path("a")];
        assert!(found == b"old" || *found == new, "torn after operation {at}");
        assert!(at < end || *found == new, "acknowledged and lost");
        old_seen += u32::from(found == b"old");
        new_seen += u32::from(*found == new);
    }
    assert!(old_seen > 20 && new_seen == 2, "{old_seen} old, {new_seen} new");
}

#[test]
fn a_skipped_sync_is_caught() {
    let fs = old_file();
    let new = vec![9; 3000];
    fs.create(path("a.tmp")).unwrap().append(&new).unwrap();
    fs.rename(path("a.tmp"), path("a")).unwrap();
    fs.sync_dir(path(".")).unwrap();
    let trees = at_end(&fs, 1000);
    let torn = trees.iter().filter(|tree| tree[path("a")] != new).count();
    assert!(torn > 50, "{torn} torn images of {}", trees.len());
    assert!(trees.iter().any(|tree| tree[path("a")].is_empty()));
    assert!(trees.iter().any(|tree| tree[path("a")] == new));
    assert!(
        trees
            .iter()
            .any(|tree| tree[path("a")].len() == 3000 && tree[path("a")].contains(&0)),
        "no hole"
    );
    assert!(
        trees.iter().all(|tree| tree[path("a")] != b"old"),
        "the rename was durable"
    );
}

#[test]
fn a_skipped_sync_of_the_directory_is_caught() {
    let fs = old_file();
    write(&fs, "a.tmp", b"new");
    fs.rename(path("a.tmp"), path("a")).unwrap();
    let states: BTreeSet<_> = at_end(&fs, 1000)
        .iter()
        .map(|tree| tree[path("a")].clone())
        .collect();
    assert_eq!(states, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    assert_eq!(fs.strict_image(fs.op_count()).tree()[path("a")], b"old");
}

#[test]
fn a_directory_whose_own_name_was_not_synced_takes_its_files_along() {
    let fs = SimFs::new();
    fs.create_dir(path("dir")).unwrap();
    write(&fs, "dir/a", b"bytes");
    fs.sync_dir(path("dir")).unwrap();
    assert!(at_end(&fs, 100).iter().any(BTreeMap::is_empty));
    fs.sync_dir(path("/")).unwrap();
    assert!(at_end(&fs, 100).iter().all(|tree| tree.len() == 1));
}

#[test]
fn create_dir_all_makes_every_name_durable() {
    let fs = SimFs::new();
    fs.create_dir_all(path("x/y/z")).unwrap();
    write(&fs, "x/y/z/a", b"bytes");
    fs.sync_dir(path("x/y/z")).unwrap();
    assert_eq!(fs.strict_image(fs.op_count()).tree().len(), 1);
}

#[test]
fn create_dir_all_makes_names_durable_that_a_killed_process_left_pending() {
    // What is written below would be acknowledged and gone with the directory.
    let fs = SimFs::new();
    fs.create_dir(path("a")).unwrap();
    fs.create_dir(path("a/b")).unwrap();
    fs.create_dir_all(path("a/b/c")).unwrap();
    fs.create_dir_all(path("a/b")).unwrap();
    write(&fs, "a/b/f", b"new");
    fs.sync_dir(path("a/b")).unwrap();
    assert!(at_end(&fs, 8).iter().all(|tree| tree.contains_key(path("a/b/f"))));
}

#[test]
fn pending_names_survive_as_a_prefix_or_a_subset() {
    let fs = SimFs::new();
    for name in ["a", "b", "c"] {
        fs.create(path(name)).unwrap();
    }
    let states: BTreeSet<Vec<PathBuf>> = at_end(&fs, 1000)
        .into_iter()
        .map(|tree| tree.into_keys().collect())
        .collect();
    assert_eq!(states.len(), 8, "{states:?}");
}

#[test]
fn what_needs_a_lost_name_is_lost_with_it() {
    // a is created, moved to b, and another a created: the second a cannot exist without the move.
    let fs = SimFs::new();
    fs.settle();
    write(&fs, "a", b"first");
    fs.rename(path("a"), path("b")).unwrap();
    write(&fs, "a", b"second");
    let states: BTreeSet<Tree> = at_end(&fs, 1000).into_iter().collect();
    for tree in &states {
        let second = tree.get(path("a")).is_some_and(|bytes| bytes == b"second");
        assert!(
            !second || tree.get(path("b")).is_some_and(|bytes| bytes == b"first"),
            "{tree:?}"
        );
    }
    assert_eq!(states.len(), 4, "nothing, a, b, both");
    // Its sync makes it durable together with what it needs.
    fs.sync_dir(path(".")).unwrap();
    assert_eq!(fs.strict_image(fs.op_count()).tree().len(), 2);
}

#[test]
fn a_file_moved_between_directories_is_never_lost_nor_doubled() {
    let fs = SimFs::new();
    for dir in ["from", "to"] {
        fs.create_dir(path(dir)).unwrap();
    }
    write(&fs, "from/a", b"bytes");
    fs.settle();
    fs.rename(path("from/a"), path("to/a")).unwrap();
    fs.sync_dir(path("from")).unwrap();
    fs.remove_dir(path("from")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    for (at, tree) in images(&fs, 200) {
        assert_eq!(tree.len(), 1, "after operation {at}: {tree:?}");
    }
    assert_eq!(at_end(&fs, 200).len(), 1);
}

#[test]
fn a_failed_sync_loses_bytes_that_stay_readable_and_no_later_sync_brings_back() {
    let fs = SimFs::new();
    let mut file = fs.create(path("a")).unwrap();
    fs.sync_dir(path(".")).unwrap();
    file.append(b"safe ").unwrap();
    file.sync().unwrap();
    file.append(b"lost ").unwrap();
    file.fail_sync();
    file.append(b"after").unwrap();
    // The planted mistake: syncing again and believing it.
    file.sync().unwrap();
    assert_eq!(fs.tree()[path("a")], b"safe lost after");
    assert_eq!(
        fs.strict_image(fs.op_count()).tree()[path("a")],
        b"safe \0\0\0\0\0after"
    );
}

#[test]
fn synced_bytes_stay_under_a_later_truncation_and_append() {
    let fs = SimFs::new();
    let mut file = fs.create(path("a")).unwrap();
    file.append(&[1; 2000]).unwrap();
    file.sync().unwrap();
    fs.settle();
    fs.truncate(path("a"), 1000).unwrap();
    file.append(&[2; 1500]).unwrap();
    let trees = at_end(&fs, 2000);
    assert!(trees.len() > 300, "{} images", trees.len());
    let mut old_seen = false;
    for tree in &trees {
        let found = &tree[path("a")];
        assert!(
            found.len() >= 1000 && found[..1000] == [1; 1000],
            "below the cut nothing changes"
        );
        old_seen |= found.len() > 2000 && found[1000..2000].contains(&1);
    }
    assert!(old_seen, "a sector may read as before the truncation");
    fs.append(path("a")).unwrap().sync().unwrap();
    assert_eq!(at_end(&fs, 50).len(), 1);
}

#[test]
fn links_share_bytes_across_a_crash() {
    let fs = SimFs::new();
    write(&fs, "a", b"bytes");
    fs.link(path("a"), path("b")).unwrap();
    fs.sync_dir(path(".")).unwrap();
    let image = fs.strict_image(fs.op_count());
    image.append(path("a")).unwrap().append(b" more").unwrap();
    assert_eq!(image.tree()[path("b")], b"bytes more");
    image.remove_file(path("a")).unwrap();
    assert_eq!(image.tree()[path("b")], b"bytes more");
}

#[test]
fn images_nest_and_do_not_touch_their_origin() {
    let fs = SimFs::new();
    write(&fs, "a", b"bytes");
    fs.sync_dir(path(".")).unwrap();
    let hash = fs.image_hash();
    let image = fs.crash_image(fs.op_count(), &mut Random::from_seed(1));
    assert_eq!((image.image_hash(), image.op_count()), (hash, 0));
    image.remove_file(path("a")).unwrap();
    assert_eq!(image.strict_image(1).tree().len(), 1);
    assert_eq!(image.tree().len(), 0);
    assert_eq!(fs.image_hash(), hash);
}

#[test]
fn without_history_the_present_can_still_crash() {
    let fs = SimFs::without_history();
    for i in 0..3000_u32 {
        write(&fs, "a.tmp", &i.to_le_bytes());
        fs.rename(path("a.tmp"), path("a")).unwrap();
        fs.sync_dir(path(".")).unwrap();
    }
    write(&fs, "a.tmp", b"last");
    fs.rename(path("a.tmp"), path("a")).unwrap();
    assert_eq!(
        fs.strict_image(fs.op_count()).tree()[path("a")],
        2999_u32.to_le_bytes()
    );
    assert_eq!(fs.live_image().tree()[path("a")], b"last");
}

#[test]
fn flipped_bits_are_there_after_a_crash_and_earlier_moments_are_not_changed() {
    let fs = SimFs::new();
    write(&fs, "a", b"bytes");
    fs.sync_dir(path(".")).unwrap();
    let before = fs.op_count();
    fs.corrupt("a", |bytes| bytes[0] ^= 1).unwrap();
    assert_eq!(fs.tree()[path("a")], b"cytes");
    assert_eq!(fs.strict_image(fs.op_count()).tree()[path("a")], b"cytes");
    assert_eq!(fs.strict_image(before).tree()[path("a")], b"bytes");
}

#[test]
fn the_trace_names_every_operation() {
    let fs = SimFs::new();
    fs.write_atomic(path("a"), path("a.tmp"), b"bytes").unwrap();
    assert_eq!(
        fs.trace(),
        [
            "create a.tmp",
            "write a.tmp +5",
            "sync a.tmp",
            "rename a.tmp → a",
            "sync-dir ."
        ]
    );
    assert_eq!(fs.op_count(), 5);
}

#[test]
fn the_death_of_processes_loses_nothing_at_any_moment() {
    let fs = SimFs::new();
    let mut live = vec![fs.tree()];
    let mut file = fs.create(path("a")).unwrap();
    live.push(fs.tree());
    file.append(b"lost by a failed sync").unwrap();
    live.push(fs.tree());
    file.fail_sync();
    live.push(fs.tree());
    fs.rename(path("a"), path("b")).unwrap();
    live.push(fs.tree());
    for (at, tree) in live.iter().enumerate() {
        assert_eq!(fs.live_image_at(at as u64).tree(), *tree, "after operation {at}");
    }
    assert_eq!(fs.live_image().tree(), live[4]);
}
