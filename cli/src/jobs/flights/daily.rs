//! What each airport did on each UTC day: a tumbling window, one row when the day is over.

use super::record::Flight;
use jiff::{Timestamp, tz::TimeZone};
use keybed::runtime::{Aggregate, Window};
use std::{
    fmt::{self, Display},
    time::Duration,
};

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Sums per airport and day.
pub(crate) struct Daily;

impl Aggregate for Daily {
    type Key = String;
    type In = Flight;
    /// Records, cancelled ones, minutes of delay over those flown.
    type Accumulator = (u64, u64, i64);
    type Out = DailyRow;

    fn create(&self) -> Self::Accumulator {
        (0, 0, 0)
    }

    fn add(&self, (flights, cancelled, delay): &mut Self::Accumulator, flight: Flight) {
        *flights += 1;
        *cancelled += u64::from(!flight.flown);
        *delay += flight.dep_delay.unwrap_or(0); // only flown ones have a delay
    }

    fn finish(&self, origin: &String, window: Window, accumulator: Self::Accumulator) -> DailyRow {
        let (flights, cancelled, total_dep_delay) = accumulator;
        DailyRow {
            start: window.start,
            origin: origin.clone(),
            flights,
            cancelled,
            total_dep_delay,
        }
    }
}

/// A row of `daily.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DailyRow {
    /// First millisecond of the day.
    pub(crate) start: i64,
    /// Airport.
    pub(crate) origin: String,
    flights: u64,
    cancelled: u64,
    total_dep_delay: i64,
}

impl DailyRow {
    /// The header.
    pub(crate) const HEADER: &str = "day,origin,flights,cancelled,total_dep_delay";
}

impl Display for DailyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DailyRow {
            start,
            origin,
            flights,
            cancelled,
            total_dep_delay,
        } = self;
        match Timestamp::from_millisecond(*start) {
            Ok(time) => write!(f, "{}", time.to_zoned(TimeZone::UTC).date())?,
            Err(_) => write!(f, "{start} ms")?, // beyond the calendar; the record's own time cannot be
        }
        write!(f, ",{origin},{flights},{cancelled},{total_dep_delay}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc_and_cancelled_flights_have_no_delay() {
        let flight = |flown, dep_delay| Flight {
            line: 2,
            time: 0,
            tailnum: None,
            origin: "EWR".into(),
            dest: "ORD".into(),
            distance: 1,
            flown,
            dep_delay,
        };
        let mut sums = Daily.create();
        for one in [
            flight(true, Some(7)),
            flight(true, Some(-3)),
            flight(false, None),
            flight(true, None),
        ] {
            Daily.add(&mut sums, one);
        }
        assert_eq!(sums, (4, 1, 4));
        let day = 86_400_000;
        let window = Window {
            start: 15_706 * day,
            end: 15_707 * day,
        };
        assert_eq!(
            Daily.finish(&"EWR".into(), window, sums).to_string(),
            "2013-01-01,EWR,4,1,4"
        );
        let leap = Window {
            start: 11_016 * day,
            end: 11_017 * day,
        };
        assert_eq!(
            Daily.finish(&"LGA".into(), leap, (0, 0, 0)).to_string(),
            "2000-02-29,LGA,0,0,0"
        );
    }
}
