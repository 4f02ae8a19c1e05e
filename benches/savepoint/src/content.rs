//! The state of the generator job: profiles and totals (values), events (list), articles (map), windows and timers.
//!
//! Per key 1000 + 100 bytes of values, 5 elements of 100 bytes, 5 map entries of 100 bytes, one window of 100 bytes
//! and a timer. Half of every eight bytes is random, half is text that repeats, so that LZ4 about halves it.

use crate::Answer;
use keybed_env::Random;
use keybed_snapshot::{KeyGroupRange, StateCatalogue};
use keybed_state::{
    BackendOptions, KeyCodec, KeyedState, ListState, MapState, ValueState, catalogue, codec::encode_key,
};
use std::sync::Arc;

pub const MAX_PARALLELISM: u32 = 128;
const LARGE_BYTES: usize = 1000;
const SMALL_BYTES: usize = 100;
const ELEMENTS: u64 = 5;

/// Tokens of the job's states.
#[derive(Clone, Copy)]
pub struct Tokens {
    profile: ValueState<Vec<u8>>,
    total: ValueState<Vec<u8>>,
    events: ListState<Vec<u8>>,
    articles: MapState<u64, Vec<u8>>,
    window: ValueState<Vec<u8>>,
}

/// How much and of what kind.
#[derive(Clone, Copy)]
pub struct Content {
    pub keys: u64,
    /// Nothing that compression could save.
    pub random: bool,
}

/// The state of one subtask that owns all key groups.
pub struct Job {
    pub tokens: Tokens,
    pub catalogue: Arc<StateCatalogue>,
}

impl Job {
    pub fn new() -> Answer<Job> {
        let opened = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), |states| {
            Ok(Tokens {
                profile: states.value("profile")?,
                total: states.value("total")?,
                events: states.list("events")?,
                articles: states.map("articles")?,
                window: states.window_value::<i64, _>("window")?,
            })
        });
        let (tokens, catalogue) = opened.map_err(|mut problems| problems.remove(0))?;
        Ok(Job { tokens, catalogue })
    }

    pub fn range() -> KeyGroupRange {
        KeyGroupRange::all(MAX_PARALLELISM).expect("there are key groups")
    }
}

impl Content {
    /// As many keys as make `bytes` of keys and values.
    pub fn of_bytes(bytes: u64, random: bool) -> Content {
        let one = Content { keys: 1, random };
        Content {
            keys: (bytes / one.logical_bytes()).max(1),
            random,
        }
    }

    /// Bytes of all keys (without what the engine puts before and behind them) and values.
    pub fn logical_bytes(self) -> u64 {
        let small = SMALL_BYTES as u64;
        let values = LARGE_BYTES as u64 + small * (2 + 2 * ELEMENTS);
        // A key per value; map entries have one more, the window and the timer a time.
        let keys = 8 * (2 + ELEMENTS + 2 * ELEMENTS + 2 + 2);
        self.keys * (values + keys)
    }

    /// Entries, each element and timer one.
    pub fn entries(self) -> u64 {
        self.keys * (4 + 2 * ELEMENTS)
    }

    fn value(self, random: &mut Random, bytes: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(bytes + 8);
        while value.len() < bytes {
            let number = random.u64();
            if self.random {
                value.extend(number.to_le_bytes());
            } else {
                value.extend((number as u32).to_le_bytes());
                value.extend(WORDS[(value.len() / 8) % WORDS.len()]);
            }
        }
        value.truncate(bytes);
        value
    }

    /// Puts everything through the state's interface.
    pub fn fill(self, job: &Job, options: BackendOptions) -> Answer<KeyedState> {
        let mut state = KeyedState::create(options, Job::range(), MAX_PARALLELISM, job.catalogue.clone())?;
        // Keys come in no order, as they do in a job.
        (0..self.keys).try_for_each(|n| self.put(job, &mut state, self.nth(n)))?;
        Ok(state)
    }

    /// The n-th key.
    fn nth(self, n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn put(self, job: &Job, state: &mut KeyedState, key: u64) -> Answer<()> {
        let (t, mut random) = (job.tokens, Random::from_seed(key));
        state.set_key(&encode_key(&key))?;
        t.profile.set(state, &self.value(&mut random, LARGE_BYTES))?;
        t.total.set(state, &self.value(&mut random, SMALL_BYTES))?;
        for _ in 0..ELEMENTS {
            t.events.push(state, &self.value(&mut random, SMALL_BYTES))?;
        }
        for article in 0..ELEMENTS {
            t.articles
                .put(state, &article, &self.value(&mut random, SMALL_BYTES))?;
        }
        let time = (key >> 40) as i64;
        state.set_namespace(&encode_key(&time));
        t.window.set(state, &self.value(&mut random, SMALL_BYTES))?;
        state.register_timer(time, &[])?;
        Ok(())
    }

    /// Compares the state of a thousandth of the keys, and the number of timers.
    pub fn check(self, job: &Job, state: &mut KeyedState) -> Answer<()> {
        assert_eq!(state.timer_count() as u64, self.keys, "timers were lost");
        let t = job.tokens;
        for n in (0..self.keys).step_by(1000) {
            let key = self.nth(n);
            let mut random = Random::from_seed(key);
            let mut next = |bytes| self.value(&mut random, bytes);
            state.set_key(&encode_key(&key))?;
            assert_eq!(
                t.profile.get(state)?,
                Some(next(LARGE_BYTES)),
                "a profile was changed"
            );
            assert_eq!(
                t.total.get(state)?,
                Some(next(SMALL_BYTES)),
                "a total was changed"
            );
            let events: Vec<_> = (0..ELEMENTS).map(|_| next(SMALL_BYTES)).collect();
            assert_eq!(t.events.get(state)?, events, "events were changed");
            for article in 0..ELEMENTS {
                let expected = Some(next(SMALL_BYTES));
                assert_eq!(
                    t.articles.get(state, &article)?,
                    expected,
                    "an article was changed"
                );
            }
            state.set_namespace(&encode_key(&((key >> 40) as i64)));
            assert_eq!(
                t.window.get(state)?,
                Some(next(SMALL_BYTES)),
                "a window was changed"
            );
        }
        Ok(())
    }
}

const WORDS: [&[u8; 4]; 4] = [b"id: ", b"true", b" EUR", b"list"];
