//! The expected output, folded plainly over the input; shares no code with the job.
//!
//! Own zstd call, own splitting of lines, own calendar, everything in ordered maps in memory. The header and the
//! definitions of the columns are written down here a second time on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

/// What the two files must hold, byte by byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) aircraft: String,
    pub(crate) daily: String,
    /// Lines without the header.
    pub(crate) records: u64,
}

/// The input that is part of the repository.
pub(crate) fn input() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/flights-2013.csv.zst")
}

/// The text of the input.
pub(crate) fn text() -> String {
    let packed = std::fs::read(input()).expect("the input is in the repository");
    let plain = zstd::stream::decode_all(&packed[..]).expect("the input is valid zstd");
    String::from_utf8(plain).expect("the input is text")
}

/// The fold over the input that is part of the repository.
pub(crate) fn expected() -> Expected {
    fold(&text())
}

#[derive(Default)]
struct Aircraft<'a> {
    flights: u64,
    cancelled: u64,
    miles: u64,
    destinations: BTreeSet<&'a str>,
    delays: Vec<i64>,
    last: Option<(i64, usize, &'a str)>,
}

/// Folds the lines of a CSV text with the columns of the flights data.
pub(crate) fn fold(text: &str) -> Expected {
    let mut lines = text.lines().enumerate();
    let (_, header) = lines.next().expect("a header");
    assert_eq!(
        header,
        "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,\
         tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
    );
    let mut aircraft: BTreeMap<&str, Aircraft<'_>> = BTreeMap::new();
    let mut daily: BTreeMap<(i64, &str), (u64, u64, i64)> = BTreeMap::new();
    let mut records = 0;
    for (number, line) in lines {
        records += 1;
        let cell: Vec<&str> = line.split(',').collect();
        assert_eq!(cell.len(), 19, "line {}", number + 1);
        let (dep_time, dep_delay, tailnum, origin, dest) = (cell[3], cell[5], cell[11], cell[12], cell[13]);
        let (distance, minute, time_hour) = (cell[15], cell[17], cell[18]);
        let flown = dep_time != "NA";
        let minutes = minutes_since_1970(time_hour) + minute.parse::<i64>().unwrap();

        let day = daily.entry((minutes.div_euclid(24 * 60), origin)).or_default();
        day.0 += 1;
        if flown {
            day.2 += dep_delay.parse::<i64>().unwrap();
        } else {
            day.1 += 1;
        }

        if tailnum == "NA" {
            continue;
        }
        let plane = aircraft.entry(tailnum).or_default();
        plane.flights += 1;
        if !flown {
            plane.cancelled += 1;
            continue;
        }
        plane.miles += distance.parse::<u64>().unwrap();
        plane.destinations.insert(dest);
        plane.delays.push(dep_delay.parse().unwrap());
        plane.last = plane.last.max(Some((minutes, number, dest)));
    }
    Expected {
        aircraft: aircraft_csv(&aircraft),
        daily: daily_csv(&daily),
        records,
    }
}

fn aircraft_csv(aircraft: &BTreeMap<&str, Aircraft<'_>>) -> String {
    let mut out = String::from("tailnum,flights,cancelled,miles,destinations,max_dep_delay,last_dest\n");
    for (tailnum, plane) in aircraft {
        let delay = plane.delays.iter().max().map_or_else(String::new, i64::to_string);
        let last = plane.last.map_or("", |(_, _, dest)| dest);
        let Aircraft {
            flights,
            cancelled,
            miles,
            ..
        } = plane;
        let destinations = plane.destinations.len();
        writeln!(
            out,
            "{tailnum},{flights},{cancelled},{miles},{destinations},{delay},{last}"
        )
        .unwrap();
    }
    out
}

fn daily_csv(daily: &BTreeMap<(i64, &str), (u64, u64, i64)>) -> String {
    let mut out = String::from("day,origin,flights,cancelled,total_dep_delay\n");
    for ((day, origin), (flights, cancelled, delay)) in daily {
        let (year, month, day) = civil(*day);
        writeln!(
            out,
            "{year:04}-{month:02}-{day:02},{origin},{flights},{cancelled},{delay}"
        )
        .unwrap();
    }
    out
}

/// `2013-01-01T10:00:00Z` in minutes.
fn minutes_since_1970(time: &str) -> i64 {
    let number = |from: usize, to: usize| time[from..to].parse::<i64>().unwrap();
    assert!(time.len() == 20 && time.ends_with(":00Z"), "{time}");
    let days = days_since_1970(number(0, 4), number(5, 7), number(8, 10));
    (days * 24 + number(11, 13)) * 60 + number(14, 16)
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64) -> [i64; 12] {
    [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ]
}

/// Counted year by year and month by month: slow and plain.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let months: i64 = month_days(year)[..month as usize - 1].iter().sum();
    years + months + day - 1
}

fn civil(mut days: i64) -> (i64, i64, i64) {
    let mut year = 1970;
    while days >= if leap(year) { 366 } else { 365 } {
        days -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let mut month = 0;
    while days >= month_days(year)[month] {
        days -= month_days(year)[month];
        month += 1;
    }
    (year, month as i64 + 1, days + 1)
}

#[test]
fn the_fold_counts_by_hand_what_three_lines_say() {
    // Would the oracle be wrong, every comparison with it would prove nothing.
    let header = text().lines().next().unwrap().to_owned();
    let csv = format!(
        "{header}\n\
         2013,1,1,517,515,2,830,819,11,UA,1,N1,EWR,IAH,227,1400,5,15,2013-01-01T23:00:00Z\n\
         2013,1,1,NA,515,NA,NA,819,NA,UA,2,N1,EWR,ORD,NA,700,5,0,2013-01-02T00:00:00Z\n\
         2013,1,1,NA,515,NA,NA,819,NA,UA,3,NA,JFK,ORD,NA,700,5,0,2013-01-02T00:00:00Z\n\
         2013,1,1,514,515,-1,830,819,11,UA,4,N1,EWR,MIA,227,100,5,15,2013-01-01T23:00:00Z\n\
         2013,1,1,NA,515,NA,NA,819,NA,UA,5,N0,LGA,ORD,NA,700,5,0,2013-02-28T00:00:00Z\n"
    );
    let folded = fold(&csv);
    assert_eq!(folded.records, 5);
    assert_eq!(
        folded.aircraft,
        "tailnum,flights,cancelled,miles,destinations,max_dep_delay,last_dest\n\
         N0,1,1,0,0,,\n\
         N1,3,1,1500,2,2,MIA\n"
    );
    assert_eq!(
        folded.daily,
        "day,origin,flights,cancelled,total_dep_delay\n\
         2013-01-01,EWR,2,0,1\n\
         2013-01-02,EWR,1,1,0\n\
         2013-01-02,JFK,1,1,0\n\
         2013-02-28,LGA,1,1,0\n"
    );
}

#[test]
fn the_input_in_the_repository_is_whole() {
    // Would the input be cut, all tests over it would still agree with each other.
    let all = expected();
    let sum = |csv: &str, column: usize| -> i64 {
        csv.lines()
            .skip(1)
            .map(|l| l.split(',').nth(column).unwrap().parse::<i64>().unwrap())
            .sum()
    };
    assert_eq!(all.records, 336_776);
    assert_eq!(all.aircraft.lines().count(), 1 + 4_043);
    assert_eq!(all.daily.lines().count(), 1 + 1_098);
    assert_eq!(sum(&all.daily, 2), 336_776);
    assert_eq!(sum(&all.daily, 3), 8_255);
    assert_eq!(
        sum(&all.aircraft, 1),
        336_776 - 2_512,
        "records without a tail number are left out"
    );
}
