//! One line of the flights data.
//!
//! Columns are found by the names in the header, so their order does not matter and further columns are ignored.
//! Fields are separated by commas and never quoted; `NA` marks a missing value.

use jiff::Timestamp;
use keybed::{Code, Error, Result};
use std::{ops::RangeInclusive, path::Path};

/// A flight as the operators need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flight {
    /// Line in the file, from 1; the header is line 1. Later lines win ties.
    pub(crate) line: u64,
    /// Event time, milliseconds since 1970: hour of the scheduled departure + minute.
    pub(crate) time: i64,
    /// The aircraft, unless unknown.
    pub(crate) tailnum: Option<String>,
    /// Airport of departure.
    pub(crate) origin: String,
    /// Airport of arrival.
    pub(crate) dest: String,
    /// Miles.
    pub(crate) distance: u64,
    /// Whether it was flown, or cancelled.
    pub(crate) flown: bool,
    /// Minutes between scheduled and real departure, negative if early; only of flown ones.
    pub(crate) dep_delay: Option<i64>,
}

/// The columns that are read, in the order of [`Columns::at`].
const NAMES: [&str; 8] = [
    "dep_time",
    "dep_delay",
    "tailnum",
    "origin",
    "dest",
    "distance",
    "minute",
    "time_hour",
];
/// Most columns that a line may have.
const COLUMNS_MAX: usize = 64;
const NOT_AVAILABLE: &str = "NA";

/// Where the header says that the columns are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    at: [usize; NAMES.len()],
    count: usize,
}

impl Columns {
    /// Reads the header line.
    ///
    /// # Errors
    /// `BadRecord` naming the column that is missing.
    pub(crate) fn of_header(file: &Path, line: u64, header: &[u8]) -> Result<Columns> {
        let bad = |column: &str, what: &str| bad_record(file, line, column, what);
        let header = std::str::from_utf8(header).map_err(|_| bad("header", "it is not UTF-8"))?;
        let names: Vec<&str> = header
            .trim_start_matches('\u{feff}')
            .split(',')
            .take(COLUMNS_MAX + 1)
            .collect();
        if names.len() > COLUMNS_MAX {
            return Err(bad("header", "it names too many columns"));
        }
        let mut at = [0; NAMES.len()];
        for (place, name) in at.iter_mut().zip(NAMES) {
            let found = names.iter().position(|n| *n == name);
            *place = found.ok_or_else(|| bad(name, "the header does not name this column"))?;
        }
        Ok(Columns {
            at,
            count: names.len(),
        })
    }
}

fn bad_record(file: &Path, line: u64, column: &str, what: &str) -> Error {
    Error::new(Code::BadRecord, what)
        .in_file(file)
        .with("line", line)
        .with("column", column)
}

impl Flight {
    /// Reads one line.
    ///
    /// # Errors
    /// `BadRecord` naming file, line and column.
    pub(crate) fn of_line(file: &Path, columns: &Columns, line: u64, bytes: &[u8]) -> Result<Flight> {
        let bad = |column: &str, what: &str, found: &str| {
            bad_record(file, line, column, what).with("found", format_args!("{found:?}"))
        };
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let column = bytes[..e.valid_up_to()].iter().filter(|b| **b == b',').count();
            bad_record(file, line, &format!("{}", column + 1), "it is not UTF-8")
        })?;
        let mut fields = [""; COLUMNS_MAX];
        let mut count = 0;
        for field in text.split(',') {
            if let Some(place) = fields.get_mut(count) {
                *place = field;
            }
            count += 1;
        }
        if count != columns.count {
            return Err(bad_record(
                file,
                line,
                &format!("{}", count.min(columns.count) + 1),
                "it has too few or too many fields",
            )
            .expected_found(columns.count, count));
        }
        let [
            dep_time,
            dep_delay,
            tailnum,
            origin,
            dest,
            distance,
            minute,
            time_hour,
        ] = columns.at.map(|at| fields[at]);

        let number = |column: &str, field: &str, range: RangeInclusive<i64>| match field.parse::<i64>() {
            Ok(n) if range.contains(&n) => Ok(n),
            _ => Err(
                bad(column, "it is not a number in the range of this column", field)
                    .with("expected", format_args!("{}..={}", range.start(), range.end())),
            ),
        };
        let word = |column: &str, field: &str| {
            let plain = !field.is_empty()
                && field != NOT_AVAILABLE
                && field.bytes().all(|b| b.is_ascii_alphanumeric());
            if plain {
                Ok(field.to_owned())
            } else {
                Err(bad(column, "it is not a word of letters and digits", field))
            }
        };

        let flown = dep_time != NOT_AVAILABLE;
        if flown {
            number("dep_time", dep_time, 0..=2400)?;
        }
        let dep_delay = match dep_delay {
            NOT_AVAILABLE => None,
            delay => Some(number("dep_delay", delay, -1_000_000..=1_000_000)?).filter(|_| flown),
        };
        let tailnum = if tailnum == NOT_AVAILABLE {
            None
        } else {
            Some(word("tailnum", tailnum)?)
        };
        let minute = number("minute", minute, 0..=59)?;
        let hour: Timestamp = time_hour.parse().map_err(|_| {
            bad(
                "time_hour",
                "it is not a time like 2013-01-01T10:00:00Z",
                time_hour,
            )
        })?;
        let distance = number("distance", distance, 0..=100_000)?;
        Ok(Flight {
            line,
            time: hour.as_millisecond() + minute * 60_000,
            tailnum,
            origin: word("origin", origin)?,
            dest: word("dest", dest)?,
            distance: distance.unsigned_abs(),
            flown,
            dep_delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] =
        b"year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,\
        flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";

    fn read(line: &str) -> Result<Flight> {
        let file = Path::new("in.csv");
        Flight::of_line(file, &Columns::of_header(file, 1, HEADER)?, 7, line.as_bytes())
    }

    fn refused(line: &str) -> (Code, String, String) {
        let error = read(line).unwrap_err();
        assert_eq!(error.file(), Some(Path::new("in.csv")));
        let field = |name| error.fields().iter().find(|(n, _)| *n == name).unwrap().1.clone();
        (error.code(), field("line"), field("column"))
    }

    #[test]
    fn a_flown_flight() {
        let flight =
            read("2013,1,1,517,515,-2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z")
                .unwrap();
        assert_eq!(
            flight,
            Flight {
                line: 7,
                time: 1_357_035_300_000,
                tailnum: Some("N14228".into()),
                origin: "EWR".into(),
                dest: "IAH".into(),
                distance: 1400,
                flown: true,
                dep_delay: Some(-2),
            }
        );
    }

    #[test]
    fn a_cancelled_flight_of_an_unknown_aircraft() {
        let flight =
            read("2013,1,1,NA,515,NA,NA,819,NA,UA,1545,NA,EWR,IAH,NA,1400,5,0,2013-01-01T10:00:00Z").unwrap();
        assert_eq!(
            (flight.flown, flight.dep_delay, flight.tailnum),
            (false, None, None)
        );
        assert_eq!(flight.time, 1_357_034_400_000);
    }

    #[test]
    fn mistakes_name_line_and_column() {
        let bad = |line: &str| refused(line);
        let at = |column: &str| (Code::BadRecord, "7".to_owned(), column.to_owned());
        assert_eq!(bad("2013,1,1,517"), at("5"));
        assert_eq!(
            bad("2013,1,1,5x7,515,2,830,819,11,UA,1,N1,EWR,IAH,2,14,5,15,2013-01-01T10:00:00Z"),
            at("dep_time")
        );
        assert_eq!(
            bad("2013,1,1,517,515,soon,830,819,11,UA,1,N1,EWR,IAH,2,14,5,15,2013-01-01T10:00:00Z"),
            at("dep_delay")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,,EWR,IAH,2,14,5,15,2013-01-01T10:00:00Z"),
            at("tailnum")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,N1,\"E\",IAH,2,14,5,15,2013-01-01T10:00:00Z"),
            at("origin")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,N1,EWR,NA,2,14,5,15,2013-01-01T10:00:00Z"),
            at("dest")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,N1,EWR,IAH,2,-4,5,15,2013-01-01T10:00:00Z"),
            at("distance")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,N1,EWR,IAH,2,14,5,60,2013-01-01T10:00:00Z"),
            at("minute")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,N1,EWR,IAH,2,14,5,-1,2013-01-01T10:00:00Z"),
            at("minute")
        );
        assert_eq!(
            bad("2013,1,1,517,515,2,830,819,11,UA,1,N1,EWR,IAH,2,14,5,15,yesterday"),
            at("time_hour")
        );
        assert_eq!(bad(""), at("2"));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic() {
        let file = Path::new("in.csv");
        let columns = Columns::of_header(file, 1, HEADER).unwrap();
        for seed in 0..2_000_u64 {
            let mut random = keybed::env::Random::from_seed(seed);
            let alphabet = b",,,,,,0159-NAZ:T\xff\"";
            let bytes: Vec<u8> = (0..random.below(120))
                .map(|_| alphabet[random.index(alphabet.len())])
                .collect();
            let result = Flight::of_line(file, &columns, 1, &bytes);
            assert!(result.is_err_and(|e| e.code() == Code::BadRecord), "seed {seed}");
        }
    }

    #[test]
    fn a_header_without_a_column_is_refused() {
        let error = Columns::of_header(Path::new("in.csv"), 1, b"year,month").unwrap_err();
        assert_eq!(
            error.fields(),
            [("line", "1".to_owned()), ("column", "dep_time".to_owned())]
        );
    }
}
