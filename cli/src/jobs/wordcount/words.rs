//! Words of a text, and what is known of each: one row per word at the end, one count per word and page.
//!
//! ```text
//! key       word
//! states    count    times seen
//!           seen     list: line, place in the line, context; of the first places only
//!           pages    map: page → times seen there, until the page is over
//! timers    last line of each page where the word was seen; the end of time
//! ```
//! A word is a run of alphanumeric characters as Unicode has them, each in lower case; everything else is between
//! words. A page is [`PAGE_LINES`] lines; the event time of a line is its number, so a page is over when the watermark
//! has reached its last line. Nothing depends on the order in which lines arrive.

use keybed::{
    Result,
    runtime::{Context, KeyedOperator},
    state::{ListState, MapState, StateRegistry, ValueState},
};
use std::fmt::{self, Display};

/// Lines of a page.
pub(crate) const PAGE_LINES: u64 = 100;
/// Places of a word that its row tells.
const SEEN_MAX: usize = 3;
/// Words of a context.
const CONTEXT_WORDS: usize = 4;
/// So many times a word is seen before the list of its places is cut.
const CUT_AFTER: u64 = 16;
/// Event time at which all input has been seen.
const END_OF_TIME: i64 = i64::MAX;

/// The words of a line in order.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().flat_map(char::to_lowercase).collect())
        .collect()
}

/// A word where it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) word: String,
    /// Number of the line from 1, over all files.
    line: u64,
    /// Which word of the line, from 1.
    place: u32,
    /// The word and those that follow in the line.
    context: String,
}

/// The words of a line, each with its place.
pub(crate) fn seen(line: u64, text: &str) -> Vec<Seen> {
    let words = words(text);
    let at = |i: usize| Seen {
        word: words[i].clone(),
        line,
        place: u32::try_from(i + 1).unwrap_or(u32::MAX), // a line is at most 64 KiB
        context: words[i..words.len().min(i + CONTEXT_WORDS)].join(" "),
    };
    (0..words.len()).map(at).collect()
}

/// The page of a line.
pub(crate) fn page_of(line: u64) -> u64 {
    line.saturating_sub(1) / PAGE_LINES
}

/// The last line of a page, as event time.
pub(crate) fn end_of(page: u64) -> i64 {
    i64::try_from((page + 1).saturating_mul(PAGE_LINES)).unwrap_or(END_OF_TIME - 1)
}

/// The operator.
pub(crate) struct Words {
    count: ValueState<u64>,
    seen: ListState<(u64, u32, String)>,
    pages: MapState<u64, u64>,
}

impl Words {
    /// Declares the states.
    pub(crate) fn open(states: &mut StateRegistry) -> Result<Self> {
        Ok(Words {
            count: states.value("count")?,
            seen: states.list("seen")?,
            pages: states.map("pages")?,
        })
    }

    /// The first places where the word was seen, in order.
    fn first(&self, ctx: &mut Context<'_, Found>) -> Result<Vec<(u64, u32, String)>> {
        let mut seen = self.seen.get(ctx)?;
        seen.sort_unstable();
        seen.truncate(SEEN_MAX);
        Ok(seen)
    }
}

/// What comes of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All that is known of it.
    Row(WordRow),
    /// Page, word, times seen there.
    OnPage(u64, String, u64),
}

impl KeyedOperator for Words {
    type Key = String;
    type In = Seen;
    type Out = Found;

    fn process(&mut self, _word: &String, seen: Seen, ctx: &mut Context<'_, Found>) -> Result {
        let page = page_of(seen.line);
        let on_page = self.pages.get(ctx, &page)?.unwrap_or(0) + 1;
        self.pages.put(ctx, &page, &on_page)?;
        if on_page == 1 {
            ctx.register_event_timer(end_of(page))?;
        }
        let count = self.count.update(ctx, |count| count.unwrap_or(0) + 1)?;
        if count == 1 {
            ctx.register_event_timer(END_OF_TIME)?;
        }
        self.seen.push(ctx, &(seen.line, seen.place, seen.context))?;
        if count % CUT_AFTER == 0 {
            let first = self.first(ctx)?;
            self.seen.set(ctx, &first)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, word: &String, time: i64, ctx: &mut Context<'_, Found>) -> Result {
        if time < END_OF_TIME {
            let page = page_of(u64::try_from(time).unwrap_or(0));
            if let Some(count) = self.pages.get(ctx, &page)? {
                self.pages.remove(ctx, &page)?;
                ctx.emit(Found::OnPage(page, word.clone(), count));
            }
            return Ok(());
        }
        let row = WordRow {
            word: word.clone(),
            count: self.count.get(ctx)?.unwrap_or(0),
            first: self.first(ctx)?,
        };
        ctx.emit(Found::Row(row));
        Ok(())
    }
}

/// A row of `words.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WordRow {
    word: String,
    count: u64,
    first: Vec<(u64, u32, String)>,
}

impl WordRow {
    /// The header.
    pub(crate) const HEADER: &str = "word,count,first_seen,context";
}

impl Display for WordRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},", self.word, self.count)?;
        for (i, (line, place, _)) in self.first.iter().enumerate() {
            let between = if i == 0 { "" } else { " " };
            write!(f, "{between}{line}:{place}")?;
        }
        let context = self.first.first().map_or("", |(.., context)| context);
        write!(f, ",{context}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_alphanumeric_characters_in_lower_case() {
        assert_eq!(
            words("Don't panic: it's 42—ÄRGER, ΣΟΦΟΣ naïve_x"),
            [
                "don",
                "t",
                "panic",
                "it",
                "s",
                "42",
                "ärger",
                "σοφοσ",
                "naïve",
                "x"
            ]
        );
        assert!(words(" .,;—\t").is_empty() && words("").is_empty());
    }

    #[test]
    fn places_count_words_and_contexts_end_with_the_line() {
        let seen = seen(7, "a b, c d e");
        assert_eq!(seen[1].context, "b c d e");
        assert_eq!((seen[4].place, seen[4].context.as_str()), (5, "e"));
    }

    #[test]
    fn a_page_ends_with_its_last_line() {
        for (line, page) in [(1, 0), (100, 0), (101, 1), (200, 1), (201, 2)] {
            assert_eq!(page_of(line), page);
            assert!(end_of(page) >= line as i64 && end_of(page) - (line as i64) < 100);
            assert_eq!(page_of(end_of(page) as u64), page);
        }
    }
}
