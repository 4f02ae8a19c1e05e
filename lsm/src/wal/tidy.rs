//! Which log files are still needed. Pure: facts in, decisions out.

use crate::key::Seqno;

/// A log file that takes no writes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Number of the file.
    pub(crate) number: u64,
    /// The newest write in it or in the files before it.
    pub(crate) seqno_max: Seqno,
    /// Its length.
    pub(crate) bytes: u64,
}

/// How many of the first `files` hold nothing but flushed writes; `unflushed` is the oldest write in any memtable.
pub(crate) fn obsolete(files: &[Closed], unflushed: Option<Seqno>) -> usize {
    files
        .iter()
        .take_while(|file| unflushed.is_none_or(|seqno| file.seqno_max < seqno))
        .count()
}

/// The newest write that must be flushed for `files` to have at most `bytes_max` together: memtables with older ones are
/// to be sealed. `None` if they have.
pub(crate) fn hold_back(files: &[Closed], bytes_max: u64) -> Option<Seqno> {
    let mut bytes = files.iter().map(|file| file.bytes).sum::<u64>();
    let mut newest = None;
    for file in files {
        if bytes <= bytes_max {
            break;
        }
        newest = Some(file.seqno_max);
        bytes -= file.bytes;
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [Closed; 3] = [
        Closed {
            number: 1,
            seqno_max: 10,
            bytes: 100,
        },
        Closed {
            number: 2,
            seqno_max: 20,
            bytes: 100,
        },
        Closed {
            number: 5,
            seqno_max: 30,
            bytes: 100,
        },
    ];

    #[test]
    fn a_file_goes_when_everything_in_it_is_flushed() {
        for (unflushed, gone) in [
            (None, 3),
            (Some(31), 3),
            (Some(30), 2),
            (Some(11), 1),
            (Some(10), 0),
            (Some(0), 0),
        ] {
            assert_eq!(obsolete(&FILES, unflushed), gone, "{unflushed:?}");
        }
    }

    #[test]
    fn a_log_that_is_too_long_names_the_writes_to_flush() {
        for (bytes_max, seqno) in [
            (400, None),
            (300, None),
            (299, Some(10)),
            (199, Some(20)),
            (10, Some(30)),
        ] {
            assert_eq!(hold_back(&FILES, bytes_max), seqno, "{bytes_max}");
        }
        assert_eq!(hold_back(&[], 10), None);
    }
}
