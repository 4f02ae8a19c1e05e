//! What a program does, one operation at a time.

use super::{
    choice::Choices,
    model::{CHAINS, FAMILIES, PLAIN, SUMS},
};

/// A write that can be part of a batch. The number is that of the family.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the store's calls")]
pub enum Write {
    Put(usize, Vec<u8>, Vec<u8>),
    /// Touched so many hours ago.
    PutStamped(usize, Vec<u8>, Vec<u8>, i64),
    Delete(usize, Vec<u8>),
    Merge(usize, Vec<u8>, Vec<u8>),
    Append(usize, Vec<u8>, Vec<u8>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
    DeletePrefix(usize, Vec<u8>),
    /// Partition and bound.
    RaiseFloor(usize, Vec<u8>, Vec<u8>),
}

impl Write {
    /// Number of its family.
    pub fn family(&self) -> usize {
        match self {
            Write::Put(family, ..)
            | Write::PutStamped(family, ..)
            | Write::Delete(family, _)
            | Write::Merge(family, ..)
            | Write::Append(family, ..)
            | Write::DeleteRange(family, ..)
            | Write::DeletePrefix(family, _)
            | Write::RaiseFloor(family, ..) => *family,
        }
    }
}

/// One operation. The number is that of the family.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the store's calls")]
pub enum Op {
    Write(Write),
    Batch(Vec<Write>),
    Update(usize, Vec<u8>, Option<Vec<u8>>),
    UpdateInPlace(usize, Vec<u8>),
    Touch(usize, Vec<u8>),
    GetStamped(usize, Vec<u8>),
    /// Hours pass.
    Advance(i64),
    Clear(usize),
    Get(usize, Vec<u8>),
    MultiGet(usize, Vec<Vec<u8>>),
    /// Inclusive start, exclusive end, downwards.
    Range(usize, Vec<u8>, Option<Vec<u8>>, bool),
    /// Prefix, downwards.
    Prefix(usize, Vec<u8>, bool),
    Flush,
    Compact(usize),
    CompactRange(usize, Vec<u8>, Vec<u8>),
    Settle,
    View,
    /// Compares all views with what they saw.
    Views,
    DropView(usize),
    /// A cursor on a prefix.
    Cursor(usize, Vec<u8>),
    /// Which cursor, and what it does.
    Step(usize, Step),
    DropCursor(usize),
    /// Pins, and opens what was pinned as a store of its own.
    Pin,
    Transaction(usize, Vec<Vec<u8>>, Vec<Write>),
    Sync,
    Reopen,
    /// The process dies: nothing is flushed.
    Kill,
    /// The machine dies: what was not synced may be gone, in part.
    PowerLoss(u64),
}

/// How people read a program: one operation per line, long values cut.
pub fn text(program: &[Op]) -> String {
    const LIST_BYTES_MAX: usize = 60;
    let mut out = String::new();
    for op in program {
        let line = format!("{op:?}");
        let mut rest = line.as_str();
        while let Some(start) = rest.find('[') {
            let (before, list) = rest.split_at(start);
            let end = list.find(|c: char| c != '[' && c != ',' && c != ' ' && !c.is_ascii_digit());
            let (list, behind) = list.split_at(end.unwrap_or(list.len()));
            out.push_str(before);
            match list.get(..LIST_BYTES_MAX) {
                Some(begin) => out.extend([begin, "…"]),
                None => out.push_str(list),
            }
            rest = behind;
        }
        out.extend([rest, "\n"]);
    }
    out
}

/// What a cursor does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the cursor's calls")]
pub enum Step {
    First,
    Last,
    Seek(Vec<u8>),
    SeekForPrev(Vec<u8>),
    Next,
    Prev,
}

const PARTITIONS: u64 = 4;
const KEYS_PER_PARTITION: u64 = 60;

/// Two bytes of partition and a few more, many of them used again; now and then a strange one.
fn key(choices: &mut dyn Choices) -> Vec<u8> {
    match choices.below(32) {
        0 => Vec::new(),
        1 => vec![0xff; choices.below(4) as usize],
        2 => [
            &b"\x00\x01a long key that shares its first forty bytes with others "[..],
            &[choices.below(20) as u8],
        ]
        .concat(),
        3 => vec![0, choices.below(PARTITIONS) as u8],
        _ => {
            let number = choices.below(KEYS_PER_PARTITION) as u8;
            let mut key = vec![0, choices.below(PARTITIONS) as u8, number / 8, number % 8];
            key.truncate(4 - usize::from(number.is_multiple_of(16)));
            key
        }
    }
}

fn prefix(choices: &mut dyn Choices) -> Vec<u8> {
    let mut prefix = key(choices);
    prefix.truncate(choices.below(4) as usize);
    prefix
}

fn value(choices: &mut dyn Choices, family: usize) -> Vec<u8> {
    if family == SUMS {
        return choices.below(1 << 40).to_le_bytes().to_vec();
    }
    let bytes = match choices.below(60) {
        0 => 3000 + choices.below(3000),
        1..=8 => 0,
        _ => choices.below(60),
    };
    vec![choices.below(256) as u8; bytes as usize]
}

impl Write {
    fn choose(choices: &mut dyn Choices) -> Write {
        let family = choices.below(FAMILIES as u64) as usize;
        let key = key(choices);
        match choices.below(100) {
            0..50 => Write::Put(family, key, value(choices, family)),
            50..66 => Write::Delete(family, key),
            66..84 if family != PLAIN => Write::Merge(family, key, value(choices, family)),
            84..92 if family != SUMS => Write::Append(family, key, value(choices, family)),
            92..94 => Write::DeletePrefix(family, prefix(choices)),
            94..97 => {
                let other = self::key(choices);
                let (start, end) = if key <= other { (key, other) } else { (other, key) };
                Write::DeleteRange(family, start, end)
            }
            97..98 => {
                let value = value(choices, family);
                Write::PutStamped(family, key, value, choices.below(6) as i64)
            }
            _ => Write::Put(family, key, value(choices, family)),
        }
    }

    fn choose_floor(choices: &mut dyn Choices, family: usize) -> Write {
        let bound = vec![choices.below(8) as u8, choices.below(8) as u8];
        Write::RaiseFloor(family, vec![0, choices.below(PARTITIONS) as u8], bound)
    }

    /// One that a transaction can hold.
    fn choose_for_transaction(choices: &mut dyn Choices, family: usize) -> Write {
        match choices.below(8) {
            0 => Write::DeletePrefix(family, prefix(choices)),
            1 => Write::Delete(family, key(choices)),
            2 if family != PLAIN => Write::Merge(family, key(choices), value(choices, family)),
            _ => Write::Put(family, key(choices), value(choices, family)),
        }
    }

    /// One that a batch can hold.
    fn choose_for_batch(choices: &mut dyn Choices) -> Write {
        match Write::choose(choices) {
            Write::Delete(family, _) if choices.below(8) == 0 => Write::choose_floor(choices, family),
            // An append is another operation than this family's merge.
            Write::Append(CHAINS, key, value) => Write::Put(CHAINS, key, value),
            write => write,
        }
    }
}

impl Step {
    fn choose(choices: &mut dyn Choices) -> Step {
        match choices.below(12) {
            0 => Step::First,
            1 => Step::Last,
            2 => Step::Seek(key(choices)),
            3 => Step::SeekForPrev(key(choices)),
            4..8 => Step::Prev,
            _ => Step::Next,
        }
    }
}

impl Op {
    /// The next operation.
    pub fn choose(choices: &mut dyn Choices) -> Op {
        let family = choices.below(FAMILIES as u64) as usize;
        match choices.below(1000) {
            0..420 => Op::Write(Write::choose(choices)),
            420..450 => Op::Batch(
                (0..choices.below(12))
                    .map(|_| Write::choose_for_batch(choices))
                    .collect(),
            ),
            450..500 => {
                let new = (choices.below(4) != 0).then(|| value(choices, family));
                Op::Update(family, key(choices), new)
            }
            500..524 => Op::UpdateInPlace(family, key(choices)),
            524..530 => Op::Touch(family, key(choices)),
            530..536 => Op::GetStamped(family, key(choices)),
            536..540 => Op::Advance(1 + choices.below(2) as i64),
            540..542 => Op::Clear(family),
            542..552 => Op::Write(Write::choose_floor(choices, family)),
            552..660 => Op::Get(family, key(choices)),
            660..690 => Op::MultiGet(family, (0..choices.below(40)).map(|_| key(choices)).collect()),
            690..750 => {
                let end = (choices.below(4) != 0).then(|| key(choices));
                Op::Range(family, key(choices), end, choices.below(2) == 0)
            }
            750..800 => Op::Prefix(family, prefix(choices), choices.below(2) == 0),
            800..815 => Op::Flush,
            815..820 => Op::Compact(family),
            820..824 => Op::CompactRange(family, key(choices), key(choices)),
            824..830 => Op::Settle,
            830..838 => Op::View,
            838..846 => Op::Views,
            846..850 => Op::DropView(choices.below(4) as usize),
            850..862 => Op::Cursor(family, prefix(choices)),
            862..950 => Op::Step(choices.below(4) as usize, Step::choose(choices)),
            950..954 => Op::DropCursor(choices.below(4) as usize),
            954..958 => Op::Pin,
            958..976 => Op::Transaction(
                family,
                (0..choices.below(4)).map(|_| key(choices)).collect(),
                (0..choices.below(4))
                    .map(|_| Write::choose_for_transaction(choices, family))
                    .collect(),
            ),
            976..982 => Op::Sync,
            982..988 => Op::Reopen,
            988..994 => Op::Kill,
            _ => Op::PowerLoss(choices.below(1 << 32)),
        }
    }
}
