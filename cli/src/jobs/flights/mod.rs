//! The main job: a year of flights, folded per aircraft and per day.
//!
//! ```text
//!                     ╭─ by tail number ─▶ aircraft ─────────▶ aircraft.csv
//!   flights-in ───────┤
//!   16 splits         ╰─ by airport ─────▶ daily (windows) ──▶ daily.csv
//! ```

mod aircraft;
mod daily;
mod record;
mod source;

use crate::args::OnBadRecord;
use aircraft::{Aircraft, AircraftRow};
use daily::{DAY, Daily, DailyRow};
use keybed::runtime::{FileSink, Pipeline, Tumbling};
use source::FlightSource;
use std::path::{Path, PathBuf};

/// Names of the output files.
pub(crate) const OUTPUTS: [&str; 2] = ["aircraft.csv", "daily.csv"];
/// Where the input lies in the repository.
pub(crate) const INPUT: &str = "examples/data/flights-2013.csv.zst";

/// The program.
pub(crate) fn pipeline(input: PathBuf, out: &Path, on_bad_record: OnBadRecord) -> Pipeline {
    let mut pipeline = Pipeline::new("flights");
    let flights = pipeline.source("flights-in", FlightSource { input, on_bad_record });
    flights
        .filter(|flight| flight.tailnum.is_some())
        .key_by(|flight| flight.tailnum.clone().unwrap_or_default())
        .operator("aircraft", Aircraft::open)
        .sink(
            "aircraft-out",
            FileSink::new(out, AircraftRow::to_string)
                .sorted_file(OUTPUTS[0], AircraftRow::HEADER, |line| columns(line, 1)),
        );
    flights
        .key_by(|flight| flight.origin.clone())
        .window("daily", Tumbling::of(DAY), Daily)
        .sink(
            "daily-out",
            FileSink::new(out, DailyRow::to_string)
                .sorted_file(OUTPUTS[1], DailyRow::HEADER, |line| columns(line, 2)),
        );
    pipeline
}

/// The first columns of a line, so that they sort as they do one after the other.
fn columns(line: &str, count: usize) -> String {
    line.split(',').take(count).collect::<Vec<_>>().join("\0")
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn rows_sort_by_columns_not_by_characters() {
        assert!(columns("N1,9", 1) < columns("N10,1", 1));
        assert!(columns("2013-01-01,EWR,9", 2) < columns("2013-01-01,EWRX,1", 2));
        assert!(columns("2013-01-01,LGA,1", 2) < columns("2013-01-02,EWR,1", 2));
    }
}
