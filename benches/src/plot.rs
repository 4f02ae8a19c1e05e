//! Bar charts as SVG, by hand: a few rectangles need no crate.

use crate::{
    report::{Clock, PEERS, Report},
    rows::Row,
};
use std::{fmt::Write as _, fs, io, path::Path};

const WIDTH: f64 = 960.0;
const LABELS: f64 = 300.0;
const BAR: f64 = 11.0;
const COLOURS: [(&str, &str, &str); 5] = [
    ("keybed", "keybed", "#0b6e4f"),
    ("keybed-unmapped", "keybed, unmapped", "#6bbf9c"),
    ("rocksdb", "RocksDB, best", "#c2571a"),
    ("fjall", "fjall", "#7a6ba8"),
    ("redb", "redb", "#8a8a8a"),
];

/// Writes `cpu.svg`, `wall.svg` and `ratios.svg`.
pub fn write(report: &Report, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(
        dir.join("cpu.svg"),
        costs(report, Clock::Cpu, "CPU per operation, ns, logarithmic"),
    )?;
    fs::write(
        dir.join("wall.svg"),
        costs(report, Clock::Wall, "Wall time per operation, ns, logarithmic"),
    )?;
    fs::write(dir.join("ratios.svg"), ratios(report))
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"12\" y=\"22\" \
         font-size=\"16\">{title}</text>\n"
    )
}

/// Bars of every engine for every row, on a logarithmic scale from 1 ns.
fn costs(report: &Report, clock: Clock, title: &str) -> String {
    let rows: Vec<&Row> = report.rows().collect();
    let ns = |peer: &str, row: &Row| report.best(peer, row, clock).map(|best| best.ns);
    let most = rows
        .iter()
        .flat_map(|row| COLOURS.iter().filter_map(|(peer, ..)| ns(peer, row)))
        .fold(10.0, f64::max);
    let decades = most.log10().ceil();
    let scale = (WIDTH - LABELS - 90.0) / decades;
    let step = BAR * COLOURS.len() as f64 + 10.0;
    let height = 70.0 + step * rows.len() as f64;
    let mut out = open(height, title);
    for (at, (_, name, colour)) in COLOURS.iter().enumerate() {
        let x = 12.0 + 150.0 * at as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"45\">{name}</text>",
            x + 17.0
        );
    }
    for decade in 0..=decades as u32 {
        let x = LABELS + scale * f64::from(decade);
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"58\" x2=\"{x}\" y2=\"{}\" stroke=\"#ddd\"/>",
            height - 8.0
        );
    }
    for (at, row) in rows.iter().enumerate() {
        let y = 64.0 + step * at as f64;
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{}\">{}</text>",
            y + step / 2.0,
            row.title
        );
        for (bar, (peer, _, colour)) in COLOURS.iter().enumerate() {
            let Some(ns) = ns(peer, row) else { continue };
            let (top, width) = (y + BAR * bar as f64, scale * ns.max(1.0).log10());
            let _ = writeln!(
                out,
                "<rect x=\"{LABELS}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" font-size=\"9\">{ns:.0}</text>",
                BAR - 1.0,
                LABELS + width + 4.0,
                top + BAR - 2.0
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// RocksDB's cost over keybed's per row, with marks at floor and aim.
fn ratios(report: &Report) -> String {
    let rows: Vec<(&Row, f64)> = report
        .rows()
        .filter_map(|row| Some((row, report.ratio("rocksdb", "keybed", row, Clock::Cpu)?)))
        .collect();
    let most = rows
        .iter()
        .map(|(row, ratio)| ratio.max(row.aim.unwrap_or(0.0)))
        .fold(1.0, f64::max);
    let decades = most.log10().ceil().max(1.0);
    let scale = (WIDTH - LABELS - 90.0) / decades;
    let height = 60.0 + 24.0 * rows.len() as f64;
    let peer = PEERS[0].1;
    let mut out = open(
        height,
        &format!("{peer}'s CPU over keybed's, logarithmic; lines: floor (red) and aim (blue)"),
    );
    for (at, (row, ratio)) in rows.iter().enumerate() {
        let y = 40.0 + 24.0 * at as f64;
        let width = scale * ratio.max(1.0).log10();
        let missed = row.floor.is_some_and(|floor| *ratio < floor);
        let colour = if missed { "#c2571a" } else { "#0b6e4f" };
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{}\">{}</text><rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" \
             fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{ratio:.1}×</text>",
            y + 13.0,
            row.title,
            LABELS + width + 5.0,
            y + 13.0
        );
        for (mark, colour) in [(row.floor, "#d00"), (row.aim, "#06c")] {
            let Some(mark) = mark else { continue };
            let x = LABELS + scale * mark.log10();
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                y - 2.0,
                y + 18.0
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
