//! What was read or unpacked lately, up to a number of bytes; the longest unused goes first.

use std::collections::HashMap;

use anyhow::Result;

/// Most pieces that are kept, so that finding the one that goes stays quick.
const PIECES: usize = 256;

/// Pieces by where they begin.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    held: usize,
    clock: u64,
    pieces: HashMap<u64, Piece>,
}

#[derive(Debug)]
struct Piece {
    used: u64,
    bytes: Vec<u8>,
}

impl Cache {
    /// Holds no more than `limit` bytes, or one piece.
    pub fn new(limit: usize) -> Self {
        Cache { limit, held: 0, clock: 0, pieces: HashMap::new() }
    }

    /// The piece of `length` bytes at `key`; `fill` makes it when it is not there.
    pub fn get(
        &mut self,
        key: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<&[u8]> {
        self.clock += 1;
        if !self.pieces.contains_key(&key) {
            let mut bytes = self.room(length);
            bytes.resize(length, 0);
            fill(&mut bytes)?;
            self.held += length;
            self.pieces.insert(key, Piece { used: self.clock, bytes });
        }
        let piece = self.pieces.entry(key).or_insert_with(|| Piece { used: 0, bytes: Vec::new() });
        piece.used = self.clock;
        Ok(&piece.bytes)
    }

    /// Lets go until there is room; the memory of the last to go is used again.
    fn room(&mut self, length: usize) -> Vec<u8> {
        let mut free = Vec::new();
        while self.held + length > self.limit || self.pieces.len() >= PIECES {
            let oldest = self.pieces.iter().min_by_key(|(_, piece)| piece.used).map(|(key, _)| *key);
            let Some(piece) = oldest.and_then(|key| self.pieces.remove(&key)) else { break };
            self.held -= piece.bytes.len();
            free = piece.bytes;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_and_a_failure_leaves_nothing() {
        let mut cache = Cache::new(30);
        let mut made = Vec::new();
        for key in [1, 2, 1, 3, 1, 4, 2] {
            let bytes = cache.get(key, 10, |bytes| {
                made.push(key);
                bytes.fill(u8::try_from(key).unwrap());
                Ok(())
            });
            assert_eq!(bytes.unwrap(), [u8::try_from(key).unwrap(); 10]);
            assert!(cache.held <= 30);
        }
        assert_eq!(made, [1, 2, 3, 4, 2]);
        assert!(cache.get(5, 10, |_| anyhow::bail!("no")).is_err());
        assert!(!cache.pieces.contains_key(&5));
        assert_eq!(cache.held, cache.pieces.len() * 10);
    }
}
