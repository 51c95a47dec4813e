//! Jitter without a random generator, so that waiters in several places do not
//! return at the same moment.

/// A time with up to a tenth more. The same `number` gives the same.
pub(super) fn lengthened_ms(time_ms: u64, number: u64) -> u64 {
    const PARTS: u64 = 1 << 10;
    let part = mixed(number) % PARTS;
    time_ms.saturating_add(time_ms.saturating_mul(part) / (10 * PARTS))
}

/// A random number from another: the finalizer of SplitMix64.
pub(super) fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_longer_by_a_tenth_at_most() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..1_000 {
            let time_ms = lengthened_ms(30_000, number);
            assert!((30_000..33_000).contains(&time_ms), "{time_ms}");
            seen.insert(time_ms);
        }
        assert!(seen.len() > 500, "{}", seen.len());
        assert_eq!(lengthened_ms(0, 7), 0);
        assert!(lengthened_ms(u64::MAX, 7) == u64::MAX);
    }

    #[test]
    fn numbers_are_mixed_as_splitmix64_does() {
        assert_eq!(mixed(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mixed(1_234_567), 6_457_827_717_110_365_317);
    }
}
