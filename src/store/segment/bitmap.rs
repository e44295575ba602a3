//! Bits for the records of a segment, by their ordinals.

/// A set of ordinals that grows as it is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Adds an ordinal; true where it was not there.
    pub fn insert(&mut self, ordinal: u32) -> bool {
        let (word, bit) = (ordinal as usize / 64, 1 << (ordinal % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    /// Whether an ordinal is there.
    pub fn contains(&self, ordinal: u32) -> bool {
        self.words.get(ordinal as usize / 64).is_some_and(|word| word & 1 << (ordinal % 64) != 0)
    }

    /// Takes out all ordinals from `end` on; false where there is none.
    pub fn truncate(&mut self, end: u32) -> bool {
        let mut cut = false;
        for (number, word) in self.words.iter_mut().enumerate() {
            let first = number as u64 * 64;
            let kept = u64::from(end).saturating_sub(first).min(64);
            let mask = if kept == 64 { u64::MAX } else { (1 << kept) - 1 };
            cut |= *word & !mask != 0;
            *word &= mask;
        }
        cut
    }

    /// The bits, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads what [`Bitmap::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Bitmap {
        let words = bytes.chunks_exact(8).map(|word| {
            let (low, _) = word.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
            u64::from_le_bytes(*low)
        });
        Bitmap { words: words.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inserted_is_contained_and_survives_its_bytes() {
        let mut bitmap = Bitmap::default();
        for ordinal in [0, 63, 64, 1_000] {
            assert!(bitmap.insert(ordinal));
            assert!(!bitmap.insert(ordinal));
        }
        let bitmap = Bitmap::from_bytes(&bitmap.to_bytes());
        let contained: Vec<u32> = (0..2_000).filter(|ordinal| bitmap.contains(*ordinal)).collect();
        assert_eq!(contained, [0, 63, 64, 1_000]);
        assert!(!bitmap.contains(u32::MAX));
    }

    #[test]
    fn what_is_truncated_is_gone() {
        for end in [0, 1, 63, 64, 65, 128, 1_000] {
            let mut bitmap = Bitmap::default();
            for ordinal in 0..130 {
                bitmap.insert(ordinal);
            }
            assert_eq!(bitmap.truncate(end), end < 130, "{end}");
            assert_eq!((0..200).filter(|ordinal| bitmap.contains(*ordinal)).count(), 130.min(end as usize), "{end}");
        }
    }
}
