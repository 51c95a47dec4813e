//! What an agent answers over gRPC: no input panics, and it says the same in whatever
//! pieces it comes.

#![no_main]

use ambassador::testing::control::spiffe::identities;
use libfuzzer_sys::fuzz_target;

/// In a year in which the certificates of the corpus are valid.
const NOW: u64 = 2_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let whole = identities(bytes, usize::MAX, NOW);
    for piece in [1, 7, 1_000] {
        assert_eq!(identities(bytes, piece, NOW), whole);
    }
    // Without its head it is one message.
    let length = u32::try_from(bytes.len()).expect("inputs are short");
    let framed = [&[0][..], &length.to_be_bytes(), bytes].concat();
    assert_eq!(identities(&framed, usize::MAX, NOW).len(), 1);
});
