//! A whole program: a replayable source, a keyed operator with state and a timer, an exactly-once file.
//!
//! `cargo run -p keybed --example word_totals` counts words and prints the file it has written. Started a second time with the
//! same directories it is a new job; a job that was interrupted goes on if it is started with its own id
//! (`JobOptions::job`).

use keybed::{env::Fs, prelude::*};
use std::{sync::Arc, time::Duration};

const LINES: [&str; 3] = ["the quick brown fox", "jumps over the lazy dog", "and the cat"];

/// Lines as a source: each line is a split, each word a record; the position is the number of the next word.
struct Words;

impl Source for Words {
    type Record = String;

    fn splits(&self) -> u32 {
        LINES.len() as u32
    }

    fn open(&self, _: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<String>>> {
        Ok(Box::new(WordReader {
            splits: splits.to_vec(),
        }))
    }
}

struct WordReader {
    /// What is still to be read; the last one is read first.
    splits: Vec<SplitStart>,
}

impl SourceReader<String> for WordReader {
    fn poll_next(&mut self) -> Result<Polled<String>> {
        let Some(SplitStart { split, position }) = self.splits.last_mut() else {
            return Ok(Polled::End);
        };
        let word = LINES
            .get(*split as usize)
            .and_then(|line| line.split(' ').nth(*position as usize));
        let Some(word) = word else {
            let split = *split;
            self.splits.pop();
            return Ok(Polled::SplitEnd(split));
        };
        *position += 1;
        Ok(Polled::Record {
            split: *split,
            next: *position,
            timestamp: 0,
            value: word.to_owned(),
        })
    }
}

/// What is kept of a word. Ids stand for the meaning of a field for ever; names may change, and fields may move.
#[derive(Codec, Default)]
struct Seen {
    #[keybed(id = 1)]
    count: u64,
}

/// Counts each word, and says so at the end of the input.
struct Totals {
    seen: ValueState<Seen>,
}

impl Totals {
    fn open(states: &mut StateRegistry) -> Result<Self> {
        Ok(Totals {
            seen: states.value("seen")?,
        })
    }
}

impl KeyedOperator for Totals {
    type Key = String;
    type In = String;
    type Out = String;

    fn process(&mut self, _word: &String, _: String, ctx: &mut Context<'_, String>) -> Result {
        self.seen.update(ctx, |seen| Seen {
            count: seen.unwrap_or_default().count + 1,
        })?;
        ctx.register_event_timer(i64::MAX)
    }

    fn on_timer(&mut self, word: &String, _time: i64, ctx: &mut Context<'_, String>) -> Result {
        let Seen { count } = self.seen.get(ctx)?.unwrap_or_default();
        ctx.emit(format!("{word},{count}"));
        Ok(())
    }
}

fn main() -> Result {
    let dir = std::env::temp_dir().join(format!("keybed-example-words-{}", std::process::id()));
    let mut pipeline = Pipeline::new("word-totals");
    pipeline
        .source("words-in", Words)
        .key_by(String::clone)
        .operator("totals", Totals::open)
        .sink(
            "totals-out",
            FileSink::new(&dir, String::clone).sorted_file("totals.csv", "word,count", str::to_owned),
        );
    let job = pipeline.start(JobOptions {
        parallelism: 2,
        work_dir: dir.join("work"),
        checkpoints: Some(Checkpoints::every(Duration::from_secs(1), dir.join("checkpoints")).retain(3)),
        ..JobOptions::default()
    })?;
    let report = job.wait()?;
    let file = dir.join("totals.csv");
    let text = std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, e))?;
    println!("{} words, job {}\n{text}", report.source_records, report.job);
    Ok(())
}
