//! Numbers from a key and a counter: no state, so any part of a file can be made by any thread, in any order.

/// A key, from which numbers and further keys follow. Integer arithmetic alone: the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    /// The key at a counter: one step of SplitMix64 (Steele, Lea and Flood 2014) from there.
    pub(crate) fn at(self, counter: u64) -> Key {
        let mut z = self.0.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Key(z ^ (z >> 31))
    }

    /// A number of mean 0 and deviation 1, nearly normal and at most 4.9: the sum of eight uniform ones of 16 bits.
    pub(crate) fn normal(self, counter: u64) -> f32 {
        const MEAN: f32 = 8.0 * 65535.0 / 2.0;
        /// `sqrt(8 · (2^32 - 1) / 12)`.
        const DEVIATION: f32 = 53_509.89;
        let pair = self.at(counter);
        let uniform = |word: u64| (0..4).map(|i| (word >> (16 * i)) as u16).map(u32::from).sum::<u32>();
        ((uniform(pair.0) + uniform(pair.at(0).0)) as f32 - MEAN) / DEVIATION
    }

    /// Where `index`, below `1 << bits`, goes in a shuffle of that many things that belongs to this key. The steps
    /// (multiply by an odd number, add, fold the upper half down) can each be undone, so no two go to one place.
    #[inline(always)]
    pub(crate) fn shuffle(self, index: u64, bits: u32) -> u64 {
        let (mask, fold) = ((1 << bits) - 1, bits / 2 + 1);
        let mut x = index.wrapping_mul(self.0 | 1).wrapping_add(self.0 >> 32) & mask;
        x ^= x >> fold;
        x = x.wrapping_mul((self.0 >> 16) | 1).wrapping_add(self.0 >> 48) & mask;
        x ^ (x >> fold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_on_every_machine() {
        // The published first outputs of SplitMix64 seeded with 0.
        let outputs = [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];
        assert_eq!([0, 1, 2].map(|counter| Key(0).at(counter).0), outputs);
        // Computed by another program.
        let bits = [0xBF18_A5F5, 0x3F65_ED45, 0xBE98_3DDA, 0x3F25_0DB9];
        assert_eq!([0, 1, 2, 3].map(|counter| Key(1).normal(counter).to_bits()), bits);
    }

    #[test]
    fn normal_numbers_have_the_moments_of_a_normal_distribution() {
        let n = 1 << 18;
        let (mut mean, mut square, mut fourth) = (0.0, 0.0, 0.0);
        for value in (0..n).map(|counter| f64::from(Key(1).normal(counter))) {
            mean += value / n as f64;
            square += value * value / n as f64;
            fourth += value.powi(4) / n as f64;
        }
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((square - 1.0).abs() < 0.01, "{square}");
        // Eight uniform ones: 3 - 1.2 / 8.
        assert!((fourth - 2.85).abs() < 0.05, "{fourth}");
    }

    #[test]
    fn a_shuffle_moves_everything_to_a_place_of_its_own() {
        for bits in 0..=12 {
            let mut orders = std::collections::BTreeSet::new();
            for key in (0..8).map(|counter| Key(7).at(counter)) {
                let order: Vec<u64> = (0..1 << bits).map(|index| key.shuffle(index, bits)).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..1 << bits), "{bits} bits");
                orders.insert(order);
            }
            assert!(bits < 8 || orders.len() == 8, "{bits} bits: {} orders", orders.len());
        }
    }
}
