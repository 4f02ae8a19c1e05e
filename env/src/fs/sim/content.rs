//! Bytes of a simulated file: a list of shared pieces, so that the live image, the log and every crash image hold
//! one copy of what was appended.

use std::sync::Arc;

/// Bytes; cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Content(Arc<Vec<Piece>>);

#[derive(Clone, Debug)]
struct Piece {
    /// Offset after the last byte of this piece.
    end: u64,
    bytes: Arc<[u8]>,
}

impl Content {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let mut content = Content::default();
        content.push(bytes.into());
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.0.last().map_or(0, |piece| piece.end)
    }

    pub(super) fn push(&mut self, bytes: Arc<[u8]>) {
        if !bytes.is_empty() {
            let end = self.len() + bytes.len() as u64;
            Arc::make_mut(&mut self.0).push(Piece { end, bytes });
        }
    }

    /// Keeps the first `len` bytes; longer ones than there are change nothing.
    pub(super) fn truncate(&mut self, len: u64) {
        if len >= self.len() {
            return;
        }
        let whole = self.0.partition_point(|piece| piece.end <= len);
        let pieces = Arc::make_mut(&mut self.0);
        pieces.truncate(whole + 1);
        let start = if whole == 0 { 0 } else { pieces[whole - 1].end };
        if let Some(cut) = pieces.pop().filter(|_| start < len) {
            pieces.push(Piece {
                end: len,
                bytes: cut.bytes[..(len - start) as usize].into(),
            });
        }
    }

    /// Fills `buffer` from `offset`; `false` if the content ends before.
    pub(super) fn read(&self, mut buffer: &mut [u8], offset: u64) -> bool {
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.len())
        {
            return false;
        }
        let mut at = offset;
        let first = self.0.partition_point(|piece| piece.end <= offset);
        for piece in &self.0[first..] {
            if buffer.is_empty() {
                break;
            }
            let start = piece.end - piece.bytes.len() as u64;
            let from = &piece.bytes[(at - start) as usize..];
            let n = from.len().min(buffer.len());
            buffer[..n].copy_from_slice(&from[..n]);
            buffer = &mut buffer[n..];
            at += n as u64;
        }
        true
    }

    /// Bytes from `offset` to the end; empty if the content ends before.
    pub(super) fn tail(&self, offset: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.len().saturating_sub(offset) as usize];
        self.read(&mut bytes, offset);
        bytes
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|piece| &*piece.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn behaves_like_a_vector() {
        let mut random = Random::from_seed(1);
        let (mut content, mut model) = (Content::default(), Vec::new());
        for step in 0..2000_u64 {
            if random.one_in(4) {
                let len = random.below(model.len() as u64 + 2);
                content.truncate(len);
                model.truncate(len as usize);
            } else {
                let piece: Vec<u8> = (0..random.below(9)).map(|i| (step * 7 + i) as u8).collect();
                model.extend(&piece);
                content.push(piece.into());
            }
            assert_eq!(content.len(), model.len() as u64);
            let from = random.index(model.len() + 1);
            assert_eq!(content.tail(from as u64), &model[from..]);
            let to = from + random.index(model.len() - from + 1);
            let mut part = vec![0; to - from];
            assert!(content.read(&mut part, from as u64));
            assert_eq!(part, &model[from..to]);
            assert!(!content.read(&mut [0; 1], model.len() as u64));
        }
    }
}
