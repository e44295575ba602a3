//! The bytes that recorded vectors are made of.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The `ChaCha20` keystream of a key, with a nonce of zeros.
pub struct Keystream(ChaCha20Rng);

impl Keystream {
    /// From its beginning.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Keystream {
        Keystream(ChaCha20Rng::from_seed(key))
    }

    /// Fills a buffer with the next bytes. What a buffer leaves of a word of four bytes is thrown away.
    #[inline(never)]
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }
}
