//! If this fails, a store whose compression was changed cannot be read any more, or a choice is found out to be
//! impossible only when memory is full.

use crate::support::{Map, content, disk, simulated};
use keybed_format::Code;
use keybed_lsm::{BOTTOM, Store, StoreOptions, table::Compression};

const CHOICES: &[Compression] = &[
    Compression::None,
    Compression::Lz4,
    #[cfg(feature = "zstd")]
    Compression::Zstd(1),
    #[cfg(feature = "zstd")]
    Compression::Zstd(-5),
];

#[test]
fn every_choice_reads_what_every_other_wrote() {
    let fs = disk();
    let mut map = Map::new();
    let mut number = 0_u32;
    for (seed, &upper) in (0..).zip(CHOICES) {
        for (more, &bottom) in (0..).zip(CHOICES) {
            let options = StoreOptions {
                upper_compression: upper,
                bottom_compression: bottom,
                compaction: more % 2 == 0,
                ..simulated(fs.clone(), 10 * seed + more)
            };
            let mut store = Store::open("s", options).unwrap();
            let family = store.family("f").unwrap();
            assert_eq!(content(&store, family).unwrap(), map, "{upper:?}, {bottom:?}");
            for _ in 0..300 {
                number += 1;
                let key = (number * 7919 % 1000).to_be_bytes().to_vec();
                let value = format!("value {number} ")
                    .repeat(1 + number as usize % 9)
                    .into_bytes();
                store.put(family, &key, &value).unwrap();
                map.insert(key, value);
            }
            store.flush().unwrap();
            assert_eq!(content(&store, family).unwrap(), map, "{upper:?}, {bottom:?}");
            store.close().unwrap();
        }
    }
}

/// Bytes of the upper and of the bottom tables of the same content.
fn sizes(upper: Compression, bottom: Compression) -> (u64, u64) {
    let options = StoreOptions {
        upper_compression: upper,
        bottom_compression: bottom,
        compaction: false,
        block_bytes: 4 << 10,
        target_file_bytes: 1 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..2000_u32 {
        store.put(family, &n.to_be_bytes(), &[n as u8; 60]).unwrap();
    }
    store.flush().unwrap();
    let upper = store.stats().table_bytes;
    store.compact(family).unwrap();
    let runs = &store.stats().families[0].runs;
    assert_eq!((runs.len(), runs[0].tier), (1, BOTTOM));
    (upper, runs[0].bytes)
}

#[test]
fn each_level_is_packed_as_it_was_asked_for() {
    let (plain_upper, plain_bottom) = sizes(Compression::None, Compression::None);
    for &choice in &CHOICES[1..] {
        let (upper, bottom) = sizes(choice, Compression::None);
        assert!(
            upper * 3 < plain_upper * 2,
            "{choice:?}: {upper} of {plain_upper}"
        );
        assert_eq!(bottom, plain_bottom, "{choice:?}");
        let (upper, bottom) = sizes(Compression::None, choice);
        assert_eq!(upper, plain_upper, "{choice:?}");
        assert!(
            bottom * 3 < plain_bottom * 2,
            "{choice:?}: {bottom} of {plain_bottom}"
        );
    }
}

#[test]
fn a_choice_that_cannot_be_written_is_refused_when_the_store_is_opened() {
    for (upper, bottom) in [(99, 1), (1, -8)] {
        let options = StoreOptions {
            upper_compression: Compression::Zstd(upper),
            bottom_compression: Compression::Zstd(bottom),
            ..simulated(disk(), 1)
        };
        let error = Store::open("s", options).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let named = if cfg!(feature = "zstd") {
            "zstd level"
        } else {
            "feature `zstd`"
        };
        assert!(error.to_string().contains(named), "{error}");
    }
}
