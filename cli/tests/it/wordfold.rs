//! The expected output of `wordcount`, folded plainly over a text; shares no code with the job.
//!
//! Own splitting into words, everything in ordered maps in memory. Headers and definitions are written down here a
//! second time on purpose.

use std::{collections::BTreeMap, fmt::Write};

/// What the two files must hold, byte by byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) words: String,
    pub(crate) top: String,
}

/// Folds a text whose lines end in `\n`.
pub(crate) fn fold(text: &str) -> Expected {
    // By word: where it was seen, and what followed.
    let mut words: BTreeMap<String, Vec<(usize, usize, String)>> = BTreeMap::new();
    let mut pages: BTreeMap<usize, BTreeMap<String, u64>> = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let mut found = Vec::new();
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
            } else if !word.is_empty() {
                found.push(std::mem::take(&mut word));
            }
        }
        for (j, word) in found.iter().enumerate() {
            let context = found.iter().skip(j).take(4).cloned().collect::<Vec<_>>();
            let seen = (i + 1, j + 1, context.join(" "));
            words.entry(word.clone()).or_default().push(seen);
            *pages.entry(i / 100).or_default().entry(word.clone()).or_default() += 1;
        }
    }
    let mut a = String::from("word,count,first_seen,context\n");
    for (word, seen) in words {
        let first: Vec<String> = seen.iter().take(3).map(|(l, p, _)| format!("{l}:{p}")).collect();
        let _ = writeln!(a, "{word},{},{},{}", seen.len(), first.join(" "), seen[0].2);
    }
    let mut b = String::from("first_line,rank,word,count\n");
    for (page, counts) in pages {
        let mut ranked: Vec<(String, u64)> = counts.into_iter().collect();
        // Stable: ties stay in the order of the words.
        ranked.sort_by_key(|(_, count)| u64::MAX - count);
        for (rank, (word, count)) in ranked.iter().take(10).enumerate() {
            let _ = writeln!(b, "{},{},{word},{count}", page * 100 + 1, rank + 1);
        }
    }
    Expected { words: a, top: b }
}

/// A text of so many lines, some of them empty, with few frequent words and many rare ones.
pub(crate) fn text(lines: u64) -> String {
    let mut draw = 7_u64;
    let mut below = |bound: u64| {
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) % bound
    };
    let frequent = [
        "the",
        "The",
        "und",
        "Ärger",
        "ΣΟΦΟΣ",
        "don't",
        "42",
        "naïve—word",
        "İstanbul",
        "a,b",
    ];
    let mut out = String::new();
    for _ in 0..lines {
        for _ in 0..below(9) {
            if below(3) > 0 {
                out += frequent[(below(10) * below(10) / 10) as usize];
            } else {
                let _ = write!(out, "w{}", below(600));
            }
            out += [" ", ", ", " - ", "; "][below(4) as usize];
        }
        out.push('\n');
    }
    out
}
