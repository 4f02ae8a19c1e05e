//! The command that goes on with a run, as the user would type it: with every option that the next run could not know.

use super::{OUT, STATE_DIR, record::JobRecord, summary::shown};
use crate::{inputs::Inputs, jobs::JobName};
use std::path::Path;

/// Goes on from the last checkpoint; input and output are recorded.
pub(super) fn resume(record: &JobRecord, state_dir: &Path) -> String {
    let mut line = Line::run(record, state_dir);
    line.word("--resume");
    line.text
}

/// Begins anew from a snapshot; nothing is recorded that such a run would read.
pub(super) fn from((job, record): (JobName, &JobRecord), state_dir: &Path, snapshot: &Path) -> String {
    let mut line = Line::run(record, state_dir);
    line.word("--restart");
    line.option("-s", snapshot);
    if job.default_input().ok().as_ref() != Some(&record.input)
        && let Inputs::Files(files) = &record.input
    {
        line.word("--input");
        files.iter().for_each(|file| line.path(file));
    }
    if shown(&record.out) != Path::new(OUT) {
        line.option("--out", &record.out);
    }
    match record.input {
        Inputs::Files(_) => line.text,
        // What was read is gone.
        Inputs::Standard => format!("the rest of the text: {}", line.text),
    }
}

/// A command line that grows.
struct Line {
    text: String,
}

impl Line {
    fn run(record: &JobRecord, state_dir: &Path) -> Line {
        let text = format!("keybed run {}", record.job);
        let mut line = Line { text };
        if shown(state_dir) != Path::new(STATE_DIR) {
            line.option("--state-dir", state_dir);
        }
        line
    }

    fn word(&mut self, word: &str) {
        self.text += " ";
        self.text += word;
    }

    fn option(&mut self, name: &str, path: &Path) {
        self.word(name);
        self.path(path);
    }

    fn path(&mut self, path: &Path) {
        let text = shown(path).display().to_string();
        let plain = |c: char| c.is_alphanumeric() || "/._-+:,=@%".contains(c);
        match text.chars().all(plain) {
            true => self.word(&text),
            false => self.word(&format!("'{}'", text.replace('\'', "'\\''"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input_identity::InputIdentity;
    use keybed::snapshot::JobId;

    fn record(input: Inputs, out: &Path) -> JobRecord {
        JobRecord {
            job: "flights".into(),
            id: JobId(1),
            input,
            identities: vec![InputIdentity::default()],
            out: out.into(),
            restore: None,
        }
    }

    #[test]
    fn defaults_are_left_out() {
        let here = std::env::current_dir().unwrap();
        let input = JobName::Flights.default_input().unwrap();
        let record = record(input, &here.join("out"));
        let state_dir = Path::new("keybed-state");
        assert_eq!(resume(&record, state_dir), "keybed run flights --resume");
        assert_eq!(
            from((JobName::Flights, &record), state_dir, &here.join("sp/a")),
            "keybed run flights --restart -s sp/a"
        );
    }

    #[test]
    fn of_standard_input_the_rest_is_read() {
        // The whole text was piped in again, and counted twice.
        let here = std::env::current_dir().unwrap();
        let record = JobRecord {
            job: "wordcount".into(),
            ..record(Inputs::Standard, &here.join("out"))
        };
        assert_eq!(
            from(
                (JobName::Wordcount, &record),
                Path::new(STATE_DIR),
                Path::new("/sp")
            ),
            "the rest of the text: keybed run wordcount --restart -s /sp"
        );
    }

    #[test]
    fn everything_else_is_said_so_that_a_shell_reads_it() {
        // The line was pasted, and the run read the default input from the position in another file.
        let record = record(Inputs::Files(vec!["/my data/it's.csv".into()]), Path::new("/o"));
        let state_dir = Path::new("/state");
        assert_eq!(
            resume(&record, state_dir),
            "keybed run flights --state-dir /state --resume"
        );
        assert_eq!(
            from((JobName::Flights, &record), state_dir, Path::new("/sp/ü")),
            "keybed run flights --state-dir /state --restart -s /sp/ü --input '/my data/it'\\''s.csv' --out /o"
        );
    }
}
