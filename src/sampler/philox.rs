//! Philox4x32-10, a counter-based generator: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011.

/// Ten rounds on a counter of four words with a key of two.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |multiplier: u32, word: u32| u64::from(multiplier) * u64::from(word);
        let (a, b) = (product(0xD251_1F53, counter[0]), product(0xCD9E_8D57, counter[2]));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// 53 random bits, keyed by seed, sequence and position.
pub(super) fn random_bits(seed: u64, sequence: u64, position: u64) -> u64 {
    let words = |value: u64| [value as u32, (value >> 32) as u32];
    let ([p0, p1], [s0, s1]) = (words(position), words(sequence));
    let random = philox([p0, p1, s0, s1], words(seed));
    (u64::from(random[0]) << 32 | u64::from(random[1])) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_published_ones() {
        // Known answers of the Random123 distribution.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn numbers_fill_their_range() {
        let range = (1_u64 << 53) as f64;
        let numbers: Vec<f64> =
            (0..10_000).map(|position| random_bits(42, 0, position) as f64 / range).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
