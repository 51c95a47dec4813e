//! Hashes that are the same in every process and release: replicas of a
//! program, each behind a proxy of its own, agree on who owns a key.

/// The odd number nearest to 2^64 divided by the golden ratio: the step of
/// SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a key: FNV-1a, its bits then mixed, as FNV leaves the upper ones
/// of short keys alike.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    nth(bytes.iter().fold(BASIS, fold), 0)
}

/// The number at place `n` of the sequence that `seed` begins: SplitMix64 (Steele,
/// Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
pub(super) fn nth(seed: u64, n: u64) -> u64 {
    let mut bits = seed.wrapping_add(GOLDEN.wrapping_mul(n.wrapping_add(1)));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
