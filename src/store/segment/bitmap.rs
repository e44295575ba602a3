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

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
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
        assert!(bitmap.is_empty());
        for ordinal in [0, 63, 64, 1_000] {
            assert!(bitmap.insert(ordinal));
            assert!(!bitmap.insert(ordinal));
        }
        let bitmap = Bitmap::from_bytes(&bitmap.to_bytes());
        let contained: Vec<u32> = (0..2_000).filter(|ordinal| bitmap.contains(*ordinal)).collect();
        assert_eq!(contained, [0, 63, 64, 1_000]);
        assert!(!bitmap.contains(u32::MAX));
    }
}
