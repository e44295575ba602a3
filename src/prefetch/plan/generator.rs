//! The random numbers of torch's CPU generator: MT19937, seeded with 32 bits.
//!
//! Matsumoto and Nishimura's generator as published, word for word, so that a permutation that is drawn from it here is
//! the one that a training job draws from its own. Of a seed of 64 bits torch uses the lower 32.

/// Words of state.
const WORDS: usize = 624;
/// How far apart the words are that are mixed.
const SHIFT: usize = 397;
const MATRIX: u32 = 0x9908_b0df;
const UPPER: u32 = 0x8000_0000;
const LOWER: u32 = 0x7fff_ffff;

/// A stream of random words.
#[derive(Clone, Debug)]
pub struct Generator {
    state: Box<[u32; WORDS]>,
    /// The next word to hand out; at the end the state is made anew.
    next: usize,
}

impl Generator {
    /// The generator after `torch.Generator().manual_seed(seed)`.
    pub fn seeded(seed: u64) -> Generator {
        let mut state = Box::new([0; WORDS]);
        let mut word = seed as u32;
        for (index, place) in state.iter_mut().enumerate() {
            if index > 0 {
                word = 1_812_433_253_u32.wrapping_mul(word ^ word >> 30).wrapping_add(index as u32);
            }
            *place = word;
        }
        Generator { state, next: WORDS }
    }

    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.renew();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// What `torch.empty((), dtype=torch.int64).random_()` draws: two words, the first of them the upper one, and never
    /// negative.
    pub fn int64(&mut self) -> u64 {
        let upper = u64::from(self.word());
        (upper << 32 | u64::from(self.word())) & (u64::MAX >> 1)
    }

    /// Leaves out the next `count` words.
    pub fn skip(&mut self, mut count: u64) {
        loop {
            let here = (WORDS - self.next) as u64;
            if count <= here {
                self.next += count as usize;
                return;
            }
            count -= here;
            self.renew();
        }
    }

    /// `torch.randperm(len)`, for as many numbers as a plan may have files: torch draws more than 2^32 / 20 otherwise.
    pub fn permutation(&mut self, len: u32) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..len).collect();
        for place in 0..len.saturating_sub(1) {
            let other = place + self.word() % (len - place);
            numbers.swap(place as usize, other as usize);
        }
        numbers
    }

    /// How many words [`Generator::permutation`] takes.
    pub fn words_of_permutation(len: u32) -> u64 {
        u64::from(len.saturating_sub(1))
    }

    fn renew(&mut self) {
        for index in 0..WORDS {
            let mixed = self.state[index] & UPPER | self.state[(index + 1) % WORDS] & LOWER;
            let odd = if mixed & 1 == 1 { MATRIX } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % WORDS] ^ mixed >> 1 ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_published_generator() {
        // The first words, and the ten-thousandth, which the C++ standard gives for `mt19937` with its default seed.
        let mut generator = Generator::seeded(5489);
        assert_eq!([generator.word(), generator.word(), generator.word()], [3_499_211_612, 581_869_302, 3_890_346_734]);
        let mut generator = Generator::seeded(5489);
        generator.skip(9_999);
        assert_eq!(generator.word(), 4_123_659_995);
        assert_eq!(Generator::seeded((7 << 32) + 5489).word(), 3_499_211_612, "the lower half of the seed counts");
    }

    #[test]
    fn skipping_is_drawing_and_dropping() {
        for count in [0, 1, 5, 623, 624, 625, 1248, 10_000] {
            let (mut drawn, mut skipped) = (Generator::seeded(1), Generator::seeded(1));
            drawn.word();
            skipped.word();
            for _ in 0..count {
                drawn.word();
            }
            skipped.skip(count);
            assert_eq!(drawn.word(), skipped.word(), "{count}");
        }
    }

    #[test]
    fn a_permutation_has_every_number_once_and_takes_the_words_that_it_says() {
        for len in [0, 1, 2, 10, 1000] {
            let mut generator = Generator::seeded(3);
            let mut numbers = generator.permutation(len);
            let mut skipped = Generator::seeded(3);
            skipped.skip(Generator::words_of_permutation(len));
            assert_eq!(generator.word(), skipped.word(), "{len}");
            numbers.sort_unstable();
            assert_eq!(numbers, (0..len).collect::<Vec<_>>());
        }
    }
}
