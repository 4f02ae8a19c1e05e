//! The rows of the comparison, with the floor and the aim that keybed's design sets for each.

/// One row of the tables.
pub struct Row {
    pub title: &'static str,
    /// What a child calls it; of several the cheapest counts, for every engine.
    pub sources: &'static [&'static str],
    /// RocksDB's cost over keybed's that must be reached.
    pub floor: Option<f64>,
    /// The same, hoped for.
    pub aim: Option<f64>,
}

const fn row(title: &'static str, sources: &'static [&'static str], floor: f64, aim: f64) -> Row {
    Row {
        title,
        sources,
        floor: Some(floor),
        aim: if aim > 0.0 { Some(aim) } else { None },
    }
}

const fn shown(title: &'static str, sources: &'static [&'static str]) -> Row {
    Row {
        title,
        sources,
        floor: None,
        aim: None,
    }
}

/// In the order of the report.
pub const ROWS: &[Row] = &[
    row("load, random order", &["load"], 3.0, 5.0),
    row("get, hit, uniform", &["get-uniform"], 4.0, 6.0),
    row("get, hit, Zipf 0.99", &["get-zipf"], 4.0, 8.0),
    row("get, each depending on the last", &["get-dependent"], 2.5, 4.0),
    row("get, batches of 16", &["multi-get"], 6.0, 10.0),
    row("get, miss", &["get-miss"], 3.0, 6.0),
    row("read-modify-write, uniform", &["rmw-uniform"], 5.0, 8.0),
    row("read-modify-write, Zipf 0.99", &["rmw-zipf"], 6.0, 12.0),
    shown(
        "the same by general update, uniform",
        &["rmw-uniform-plain", "rmw-uniform"],
    ),
    shown(
        "the same by general update, Zipf",
        &["rmw-zipf-plain", "rmw-zipf"],
    ),
    shown("the same, 16 keys announced", &["rmw-announced"]),
    row("list append", &["list-append"], 5.0, 10.0),
    row("list read, 30 elements", &["list-read"], 10.0, 20.0),
    shown("list read from files", &["list-read-files"]),
    shown("map load", &["map-load"]),
    row("map iterate, 55 entries", &["map-iterate"], 2.5, 4.0),
    shown("map iterate from files", &["map-iterate-files"]),
    row("window, event", &["window-event"], 4.0, 8.0),
    row("window, fire = get + delete", &["window-fire"], 4.0, 10.0),
    row(
        "scan of churned windows, per live entry",
        &["window-scan"],
        10.0,
        0.0,
    ),
    shown("the same after settling", &["window-scan-settled"]),
    row(
        "timers, pop + insert, best way",
        &["timers-batched", "timers-head", "timers-hinted", "timers-start"],
        5.0,
        20.0,
    ),
    shown("timers, head cache in the program", &["timers-head"]),
    shown("timers, head cache, removed in one go", &["timers-batched"]),
    shown("timers, seek from the last one", &["timers-hinted"]),
    shown("timers, seek from the start", &["timers-start"]),
    row("full scan, per entry", &["full-scan"], 2.5, 4.0),
    shown("full scan of files", &["full-scan-files"]),
    shown("shared store, get, 1 thread", &["shared-get-1"]),
    shown("shared store, get, 2 threads", &["shared-get-2"]),
    shown("shared store, get, 4 threads", &["shared-get-4"]),
    shown("shared store, put, 1 thread", &["shared-put-1"]),
    shown("shared store, put, 2 threads", &["shared-put-2"]),
    shown("shared store, put, 4 threads", &["shared-put-4"]),
    shown("shared store, 9 gets to 1 put, 1 thread", &["shared-mixed-1"]),
    shown("shared store, 9 gets to 1 put, 2 threads", &["shared-mixed-2"]),
    shown("shared store, 9 gets to 1 put, 4 threads", &["shared-mixed-4"]),
    row("beside cache: load", &["cached-load"], 3.0, 5.0),
    row(
        "beside cache: get, hit, uniform",
        &["cached-get-uniform"],
        2.5,
        5.0,
    ),
    shown("beside cache: get, hit, Zipf", &["cached-get-zipf"]),
    row("beside cache: get, miss", &["cached-get-miss"], 2.0, 4.0),
    row(
        "beside cache: read-modify-write, uniform",
        &["cached-rmw-uniform"],
        3.0,
        6.0,
    ),
    row(
        "beside cache: read-modify-write, Zipf",
        &["cached-rmw-zipf"],
        4.0,
        8.0,
    ),
    shown("384 MiB for all: load", &["confined-load"]),
    shown("384 MiB for all: get, uniform", &["confined-get-uniform"]),
    row(
        "384 MiB for all: read-modify-write, uniform",
        &["confined-rmw-uniform"],
        1.5,
        0.0,
    ),
    shown("384 MiB for all: read-modify-write, Zipf", &["confined-rmw-zipf"]),
    row(
        "4x outside memory: get, uniform",
        &["outside-get-uniform"],
        1.1,
        0.0,
    ),
    shown("4x outside memory: get, Zipf", &["outside-get-zipf"]),
    row(
        "4x outside memory: batches of 16",
        &["outside-multi-get"],
        3.0,
        0.0,
    ),
    shown("4x outside memory: miss", &["outside-get-miss"]),
];

/// Wall time needs this share of a floor.
pub const WALL_SHARE: f64 = 0.85;

/// A figure that is held against a bound of its own.
pub struct Bound {
    pub title: &'static str,
    /// What a child calls its latencies, and which one counts (0 = p50, 1 = p99).
    pub source: &'static str,
    pub percentile: usize,
    /// Nanoseconds that keybed must not exceed; `None` = RocksDB's best.
    pub ns_max: Option<f64>,
}

/// In the order of the report.
pub const BOUNDS: &[Bound] = &[
    Bound {
        title: "snapshot, blocking part, CPU of the caller, p50",
        source: "snapshot-cpu",
        percentile: 0,
        ns_max: Some(200_000.0),
    },
    Bound {
        title: "snapshot, blocking part, wall p99",
        source: "snapshot-wall",
        percentile: 1,
        ns_max: Some(1_000_000.0),
    },
    Bound {
        title: "timers, seek from the start, p99",
        source: "timers-start",
        percentile: 1,
        ns_max: Some(50_000.0),
    },
    Bound {
        title: "reopen, wall p50",
        source: "reopen",
        percentile: 0,
        ns_max: None,
    },
];
