//! The most frequent words of each page, emitted when the page is over.
//!
//! ```text
//! key       page
//! states    arrived      counts of words that came
//!           candidates   list: times seen, word; the best ones and those that came last
//! timer     last line of the page
//! ```
//! Counts of a page are sent at the time of its last line, before the watermark that fires the timer here; so none comes
//! too late.

use super::words::{PAGE_LINES, end_of};
use keybed::{
    Result,
    runtime::{Context, KeyedOperator},
    state::{ListState, StateRegistry, ValueState},
};
use std::{
    cmp::Reverse,
    fmt::{self, Display},
};

/// Words of a page that are told.
pub(crate) const TOP: usize = 10;
/// So many candidates come before their list is cut.
const CUT_AFTER: u64 = 64;

/// The operator.
pub(crate) struct Top {
    arrived: ValueState<u64>,
    candidates: ListState<(u64, String)>,
}

impl Top {
    /// Declares the states.
    pub(crate) fn open(states: &mut StateRegistry) -> Result<Self> {
        Ok(Top {
            arrived: states.value("arrived")?,
            candidates: states.list("candidates")?,
        })
    }

    /// The best ones, most frequent first, ties by the word.
    fn best(&self, ctx: &mut Context<'_, TopRow>) -> Result<Vec<(u64, String)>> {
        let mut candidates = self.candidates.get(ctx)?;
        candidates.sort_unstable_by(|(a, x), (b, y)| (Reverse(a), x).cmp(&(Reverse(b), y)));
        candidates.truncate(TOP);
        Ok(candidates)
    }
}

impl KeyedOperator for Top {
    type Key = u64;
    /// Page, times seen there, word.
    type In = (u64, u64, String);
    type Out = TopRow;

    fn process(&mut self, page: &u64, (_, count, word): Self::In, ctx: &mut Context<'_, TopRow>) -> Result {
        let arrived = self.arrived.update(ctx, |arrived| arrived.unwrap_or(0) + 1)?;
        if arrived == 1 {
            ctx.register_event_timer(end_of(*page))?;
        }
        self.candidates.push(ctx, &(count, word))?;
        if arrived % CUT_AFTER == 0 {
            let best = self.best(ctx)?;
            self.candidates.set(ctx, &best)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, page: &u64, _: i64, ctx: &mut Context<'_, TopRow>) -> Result {
        for (i, (count, word)) in self.best(ctx)?.into_iter().enumerate() {
            ctx.emit(TopRow {
                page: *page,
                rank: i + 1,
                word,
                count,
            });
        }
        self.candidates.clear(ctx)?;
        self.arrived.clear(ctx)
    }
}

/// A row of `top.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopRow {
    page: u64,
    rank: usize,
    word: String,
    count: u64,
}

impl TopRow {
    /// The header.
    pub(crate) const HEADER: &str = "first_line,rank,word,count";

    /// Orders rows by page and rank.
    pub(crate) fn key(line: &str) -> String {
        let mut numbers = line
            .split(',')
            .map(|field| field.parse::<u64>().unwrap_or(u64::MAX));
        let mut next = || numbers.next().unwrap_or(u64::MAX);
        format!("{:020}{:020}", next(), next())
    }
}

impl Display for TopRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first_line = self.page * PAGE_LINES + 1;
        write!(f, "{first_line},{},{},{}", self.rank, self.word, self.count)
    }
}
