//! What each aircraft did: one row per tail number, emitted when the input has ended.
//!
//! ```text
//! key       tail number
//! states    totals        records, cancelled ones, miles
//!           max-dep-delay absent until one was flown with a known delay
//!           last          event time, line, destination of the latest one flown
//!           destinations  map: destination → times flown there
//! timer     at the end of time
//! ```

use super::record::Flight;
use keybed::{
    Result,
    runtime::{Context, KeyedOperator},
    state::{MapState, StateRegistry, ValueState},
};
use std::fmt::{self, Display};

/// The operator.
pub(crate) struct Aircraft {
    totals: ValueState<(u64, u64, u64)>,
    max_dep_delay: ValueState<i64>,
    last: ValueState<(i64, u64, String)>,
    destinations: MapState<String, u64>,
}

/// Event time at which all input has been seen.
const END_OF_TIME: i64 = i64::MAX;

impl Aircraft {
    /// Declares the states.
    pub(crate) fn open(states: &mut StateRegistry) -> Result<Self> {
        Ok(Aircraft {
            totals: states.value("totals")?,
            max_dep_delay: states.value("max-dep-delay")?,
            last: states.value("last")?,
            destinations: states.map("destinations")?,
        })
    }
}

impl KeyedOperator for Aircraft {
    type Key = String;
    type In = Flight;
    type Out = AircraftRow;

    fn process(&mut self, _tailnum: &String, flight: Flight, ctx: &mut Context<'_, AircraftRow>) -> Result {
        let miles_flown = if flight.flown { flight.distance } else { 0 };
        let (flights, ..) = self.totals.update(ctx, |totals| {
            let (flights, cancelled, miles) = totals.unwrap_or_default();
            (
                flights + 1,
                cancelled + u64::from(!flight.flown),
                miles + miles_flown,
            )
        })?;
        if flights == 1 {
            ctx.register_event_timer(END_OF_TIME)?;
        }
        if !flight.flown {
            return Ok(());
        }
        if let Some(delay) = flight.dep_delay {
            self.max_dep_delay
                .update(ctx, |max| max.map_or(delay, |max| max.max(delay)))?;
        }
        self.destinations
            .update(ctx, &flight.dest, |times| times.unwrap_or(0) + 1)?;
        self.last
            .update(ctx, |last| latest(last, (flight.time, flight.line, flight.dest)))?;
        Ok(())
    }

    fn on_timer(&mut self, tailnum: &String, _: i64, ctx: &mut Context<'_, AircraftRow>) -> Result {
        let (flights, cancelled, miles) = self.totals.get(ctx)?.unwrap_or_default();
        let max_dep_delay = self.max_dep_delay.get(ctx)?;
        let last_dest = self.last.get(ctx)?.map(|(_, _, dest)| dest);
        let mut destinations = 0;
        for entry in self.destinations.iter(ctx)? {
            entry?;
            destinations += 1;
        }
        let tailnum = tailnum.clone();
        ctx.emit(AircraftRow {
            tailnum,
            flights,
            cancelled,
            miles,
            destinations,
            max_dep_delay,
            last_dest,
        });
        Ok(())
    }
}

/// The flight with the later event time; of equal ones that of the later line. So the order of arrival does not
/// matter.
fn latest(last: Option<(i64, u64, String)>, new: (i64, u64, String)) -> (i64, u64, String) {
    match last {
        Some(last) if (last.0, last.1) > (new.0, new.1) => last,
        _ => new,
    }
}

/// A row of `aircraft.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AircraftRow {
    pub(crate) tailnum: String,
    flights: u64,
    cancelled: u64,
    miles: u64,
    destinations: u64,
    max_dep_delay: Option<i64>,
    last_dest: Option<String>,
}

impl AircraftRow {
    /// The header.
    pub(crate) const HEADER: &str = "tailnum,flights,cancelled,miles,destinations,max_dep_delay,last_dest";
}

impl Display for AircraftRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AircraftRow {
            tailnum,
            flights,
            cancelled,
            miles,
            destinations,
            ..
        } = self;
        write!(f, "{tailnum},{flights},{cancelled},{miles},{destinations},")?;
        if let Some(delay) = self.max_dep_delay {
            write!(f, "{delay}")?;
        }
        write!(f, ",{}", self.last_dest.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_line_wins_a_tie_in_either_order_of_arrival() {
        let flight = |time, line, dest: &str| (time, line, dest.to_owned());
        let (early, late) = (flight(5, 10, "A"), flight(5, 11, "B"));
        assert_eq!(latest(Some(early.clone()), late.clone()), late);
        assert_eq!(latest(Some(late.clone()), early.clone()), late);
        assert_eq!(latest(Some(flight(6, 1, "C")), late).2, "C");
        assert_eq!(latest(None, early.clone()), early);
    }

    #[test]
    fn what_is_unknown_stays_empty() {
        let row = AircraftRow {
            tailnum: "N1".into(),
            flights: 2,
            cancelled: 2,
            miles: 0,
            destinations: 0,
            max_dep_delay: None,
            last_dest: None,
        };
        assert_eq!(row.to_string(), "N1,2,2,0,0,,");
        let flown = AircraftRow {
            max_dep_delay: Some(-3),
            last_dest: Some("ORD".into()),
            ..row
        };
        assert_eq!(flown.to_string(), "N1,2,2,0,0,-3,ORD");
    }
}
