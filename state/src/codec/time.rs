//! Spans and points of time.
//!
//! ```text
//! as a value   seconds u64 / i64 little-endian, nanoseconds u32 little-endian: twelve bytes
//! as a key     seconds u64 / i64 as components, nanoseconds u32 as a component: twelve bytes, in order
//! ```
//! A point before 1970 has negative seconds; nanoseconds always count forwards and are below 10⁹.

use super::{Codec, KeyCodec};
use keybed_format::{Cursor, Result, Sink};
use keybed_snapshot::schema::{Primitive, Schema};
use std::time::{Duration, SystemTime};

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Nanoseconds of a value.
pub(super) fn decode_nanos(input: &mut Cursor<'_>) -> Result<u32> {
    let nanos = input.u32()?;
    checked(nanos, input)
}

fn checked(nanos: u32, input: &Cursor<'_>) -> Result<u32> {
    match nanos < NANOS_PER_SECOND {
        true => Ok(nanos),
        false => Err(input
            .malformed("nanoseconds are a second or more")
            .with("found", nanos)),
    }
}

fn parts(time: SystemTime) -> (i64, u32) {
    // A system time has 64 bits of seconds, so these fit.
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (since.as_secs().cast_signed(), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (before.as_secs().wrapping_neg().cast_signed(), 0),
                nanos => (
                    before.as_secs().wrapping_neg().cast_signed() - 1,
                    NANOS_PER_SECOND - nanos,
                ),
            }
        }
    }
}

fn system_time(seconds: i64, nanos: u32, input: &Cursor<'_>) -> Result<SystemTime> {
    let whole = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.unsigned_abs())),
        _ => SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(seconds.unsigned_abs())),
    };
    whole
        .and_then(|time| time.checked_add(Duration::from_nanos(nanos.into())))
        .ok_or_else(|| input.malformed("a point of time is out of the range of this system"))
}

impl Codec for Duration {
    fn encode(&self, out: &mut Sink) {
        out.u64(self.as_secs()).u32(self.subsec_nanos());
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        Ok(Duration::new(input.u64()?, decode_nanos(input)?))
    }

    fn schema() -> Schema {
        Primitive::Duration.into()
    }
}

impl Codec for SystemTime {
    fn encode(&self, out: &mut Sink) {
        let (seconds, nanos) = parts(*self);
        out.i64(seconds).u32(nanos);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        let (seconds, nanos) = (input.i64()?, decode_nanos(input)?);
        system_time(seconds, nanos, input)
    }

    fn schema() -> Schema {
        Primitive::Timestamp.into()
    }
}

impl KeyCodec for Duration {
    fn encode_key(&self, out: &mut Sink) {
        self.as_secs().encode_key(out);
        self.subsec_nanos().encode_key(out);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        let (seconds, nanos) = (u64::decode_key(input)?, u32::decode_key(input)?);
        Ok(Duration::new(seconds, checked(nanos, input)?))
    }

    fn key_schema() -> Schema {
        Primitive::Duration.into()
    }
}

impl KeyCodec for SystemTime {
    fn encode_key(&self, out: &mut Sink) {
        let (seconds, nanos) = parts(*self);
        seconds.encode_key(out);
        nanos.encode_key(out);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        let (seconds, nanos) = (i64::decode_key(input)?, u32::decode_key(input)?);
        system_time(seconds, checked(nanos, input)?, input)
    }

    fn key_schema() -> Schema {
        Primitive::Timestamp.into()
    }
}
