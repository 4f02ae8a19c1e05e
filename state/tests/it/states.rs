//! If these fail, a job reads other state than it wrote.

use crate::fixture::{on_every_backend, set_key};
use keybed_format::{Code, Result};
use keybed_state::codec::encode_key;

#[test]
fn a_value_belongs_to_its_key() {
    on_every_backend(
        |states| states.value::<u64>("total"),
        |total, state| {
            for key in 0..100 {
                set_key(state, key)?;
                assert_eq!(total.get(state)?, None);
                total.set(state, &key)?;
            }
            for key in 0..100 {
                set_key(state, key)?;
                assert_eq!(total.update(state, |old| old.unwrap() + 1000)?, key + 1000);
                assert_eq!(total.get(state)?, Some(key + 1000));
                total.clear(state)?;
                assert_eq!(total.get(state)?, None);
                assert_eq!(total.update(state, |old| old.unwrap_or(7))?, 7);
            }
            Ok(())
        },
    );
}

#[test]
fn a_list_keeps_order_over_many_chunks() {
    on_every_backend(
        |states| {
            Ok((
                states.list::<(u32, Vec<u8>)>("recent")?,
                states.list::<u8>("other")?,
            ))
        },
        |(list, other), state| {
            set_key(state, 1)?;
            let element = |n: u32| (n, vec![n as u8; (n % 900) as usize]);
            let expected: Vec<_> = (0..300).map(element).collect();
            for (n, e) in expected.iter().enumerate() {
                assert_eq!(list.is_empty(state)?, n == 0);
                list.push(state, e)?;
            }
            other.push(state, &9)?;
            assert_eq!(list.get(state)?, expected);
            assert_eq!(list.iter(state)?.count(), 300);
            list.set(state, &expected[..5])?;
            assert_eq!(list.get(state)?, &expected[..5]);
            list.extend(state, &expected[5..])?;
            assert_eq!(list.get(state)?, expected);
            list.push(state, &(1, vec![1; 100_000]))?;
            assert_eq!(list.iter(state)?.last().unwrap()?.1.len(), 100_000);
            list.clear(state)?;
            assert!(list.is_empty(state)? && list.get(state)?.is_empty());
            list.set(state, [])?;
            assert!(list.is_empty(state)?);
            assert_eq!(other.get(state)?, [9]);
            Ok(())
        },
    );
}

#[test]
fn a_map_iterates_in_the_order_of_its_keys() {
    on_every_backend(
        |states| states.map::<String, u32>("by-sku"),
        |map, state| {
            for key in [2, 1, 3] {
                set_key(state, key)?;
                assert!(map.is_empty(state)?);
                for n in (0..2500_u32).rev() {
                    map.put(state, &n.to_string(), &n)?;
                }
            }
            set_key(state, 1)?;
            let mut expected: Vec<_> = (0..2500_u32).map(|n| (n.to_string(), n)).collect();
            expected.sort();
            let found: Vec<_> = map.iter(state)?.collect::<Result<_>>()?;
            assert_eq!(found, expected);
            assert_eq!(map.get(state, &"17".into())?, Some(17));
            map.remove(state, &"17".into())?;
            assert!(!map.contains(state, &"17".into())? && map.contains(state, &"18".into())?);
            assert_eq!(map.update(state, &"17".into(), |old| old.unwrap_or(5))?, 5);
            map.clear(state)?;
            assert!(map.is_empty(state)?);
            assert_eq!(map.iter(state)?.count(), 0);
            set_key(state, 2)?;
            assert_eq!(map.iter(state)?.count(), 2500);
            Ok(())
        },
    );
}

#[test]
fn windows_are_apart() {
    on_every_backend(
        |states| {
            Ok((
                states.window_value::<i64, u64>("count")?,
                states.value::<u64>("total")?,
            ))
        },
        |(count, total), state| {
            for window in [-10_i64, 0, 10] {
                for key in 0..20 {
                    set_key(state, key)?;
                    state.set_namespace(&encode_key(&window));
                    count.set(state, &(key * 2))?;
                    total.update(state, |old| old.unwrap_or(0) + 1)?;
                }
            }
            set_key(state, 3)?;
            assert_eq!(count.get(state)?, None, "a new key starts in the void namespace");
            state.set_namespace(&encode_key(&10_i64));
            count.clear(state)?;
            assert_eq!(count.get(state)?, None);
            state.set_namespace(&encode_key(&-10_i64));
            assert_eq!((count.get(state)?, total.get(state)?), (Some(6), Some(3)));
            Ok(())
        },
    );
}

#[test]
fn timers_fire_once_in_time_order() {
    on_every_backend(
        |_| Ok(()),
        |(), state| {
            for (key, time) in [(1, 30), (2, 10), (3, 20), (1, i64::MAX), (4, i64::MIN)] {
                set_key(state, key)?;
                assert!(state.register_timer(time, b"ns")?);
                assert!(!state.register_timer(time, b"ns")?, "the same timer fires once");
            }
            set_key(state, 3)?;
            assert!(state.delete_timer(20, b"ns")? && !state.delete_timer(20, b"ns")?);
            assert!(!state.delete_timer(30, b"ns")?, "that one is another key's");
            let mut fired = Vec::new();
            while let Some(timer) = state.pop_due(30)? {
                assert_eq!(state.key(), Some(&*timer.key));
                assert_eq!(state.namespace(), &*timer.namespace);
                if timer.time == 10 {
                    state.register_timer(25, b"")?;
                }
                fired.push(timer.time);
            }
            assert_eq!(fired, [i64::MIN, 10, 25, 30]);
            assert_eq!(
                (state.next_timer_time(), state.timer_count()),
                (Some(i64::MAX), 1)
            );
            assert!(state.pop_due(i64::MAX)?.is_some() && state.pop_due(i64::MAX)?.is_none());
            Ok(())
        },
    );
}

#[test]
fn no_state_without_a_key() {
    on_every_backend(
        |states| states.value::<u64>("total"),
        |total, state| {
            assert_eq!(total.get(state).unwrap_err().code(), Code::InvalidArgument);
            assert_eq!(
                state.register_timer(1, &[]).unwrap_err().code(),
                Code::InvalidArgument
            );
            Ok(())
        },
    );
}

#[test]
fn limits_are_those_of_every_backend() {
    on_every_backend(
        |states| {
            Ok((
                states.value::<Vec<u8>>("value")?,
                states.map::<String, u8>("map")?,
            ))
        },
        |(value, map), state| {
            set_key(state, 1)?;
            let huge = vec![0; (64 << 20) + 1];
            assert_eq!(value.set(state, &huge).unwrap_err().code(), Code::ValueTooLarge);
            assert_eq!(
                value.update(state, |_| huge.clone()).unwrap_err().code(),
                Code::ValueTooLarge
            );
            assert_eq!(value.get(state)?, None);
            let long = "k".repeat(1 << 16);
            assert_eq!(map.put(state, &long, &1).unwrap_err().code(), Code::KeyTooLarge);
            assert_eq!(
                map.update(state, &long, |_| 1).unwrap_err().code(),
                Code::KeyTooLarge
            );
            assert!(map.is_empty(state)?);
            Ok(())
        },
    );
}

#[test]
fn an_error_in_a_change_changes_nothing() {
    on_every_backend(
        |states| Ok((states.value::<u64>("value")?, states.list::<u8>("list")?)),
        |(value, list), state| {
            set_key(state, 1)?;
            value.set(state, &7)?;
            list.push(state, &1)?;
            // A token of another type reads bytes that are none of its own.
            let schema = <u64 as keybed_state::KeyCodec>::key_schema();
            let restored = keybed_snapshot::StateCatalogue::new();
            let (wrong, _) =
                keybed_state::catalogue::open(&schema, &restored, |states| states.value::<u16>("value"))
                    .expect("declared well");
            assert_eq!(wrong.update(state, |_| 1).unwrap_err().code(), Code::Malformed);
            assert_eq!((value.get(state)?, list.get(state)?), (Some(7), vec![1]));
            Ok(())
        },
    );
}
