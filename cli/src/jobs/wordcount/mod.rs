//! The second job: words of a text, how often and where each was seen, and the most frequent ones of every page.
//!
//! ```text
//!                                            ╭─ at the end ──────────────────────────▶ words.csv
//!   text-in ─▶ words ─ by word ─▶ words ─────┤
//!   lines                                    ╰─ page over ─ by page ─▶ top ──────────▶ top.csv
//! ```

mod source;
mod standard;
mod top;
mod words;

use crate::{args::OnBadRecord, inputs::Inputs};
use keybed::runtime::{FileSink, Pipeline};
use source::TextSource;
use std::path::Path;
use top::{Top, TopRow};
use words::{Found, WordRow, Words, seen};

/// Names of the output files.
pub(crate) const OUTPUTS: [&str; 2] = ["words.csv", "top.csv"];

/// The program.
pub(crate) fn pipeline(input: Inputs, out: &Path, on_bad_record: OnBadRecord) -> Pipeline {
    let mut pipeline = Pipeline::new("wordcount");
    let found = pipeline
        .source("text-in", TextSource::new(input, on_bad_record))
        .flat_map(|line| seen(line.number, &line.text))
        .key_by(|seen| seen.word.clone())
        .operator("words", Words::open);
    found
        .flat_map(|found| match found {
            Found::Row(row) => Some(row),
            Found::OnPage(..) => None,
        })
        .sink(
            "words-out",
            FileSink::new(out, WordRow::to_string).sorted_file(OUTPUTS[0], WordRow::HEADER, |line| {
                line.split(',').next().unwrap_or_default().to_owned()
            }),
        );
    found
        .flat_map(|found| match found {
            Found::Row(_) => None,
            Found::OnPage(page, word, count) => Some((page, count, word)),
        })
        .key_by(|(page, ..)| *page)
        .operator("top", Top::open)
        .sink(
            "top-out",
            FileSink::new(out, TopRow::to_string).sorted_file(OUTPUTS[1], TopRow::HEADER, TopRow::key),
        );
    pipeline
}
