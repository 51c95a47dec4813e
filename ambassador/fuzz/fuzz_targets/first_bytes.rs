//! The first bytes of a connection: no input panics, and what they have told
//! does not change when more of them come.

#![no_main]

use ambassador::testing::sniff::{Sniff, sniff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [cut, bytes @ ..] = input else {
        return;
    };
    let front = &bytes[..usize::from(*cut).min(bytes.len())];
    let (told, whole) = (sniff(front), sniff(bytes));
    match told {
        Sniff::NeedMore => {}
        Sniff::RequestLine => {
            assert!(matches!(
                whole,
                Sniff::RequestLine | Sniff::Http1 | Sniff::Opaque
            ));
        }
        known => assert_eq!(known, whole),
    }
});
