//! Placeholders in the fields of a head: no input panics, a field without one stays as it
//! is, and what stands around a secret is what stood around its placeholder.

#![no_main]

use ambassador::testing::credential::placeholder::{FieldText, PREFIX};
use libfuzzer_sys::fuzz_target;

/// No part of a name, so that it begins no other.
const SECRET: &[u8] = b"!";

fuzz_target!(|bytes: &[u8]| {
    // The first line is the name.
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (name, value) = bytes.split_at(end.unwrap_or(0));
    let field = FieldText::of(name, value);
    let names = field.names().count();
    let replaced = field.with_secrets(|_| Some(SECRET));
    assert_eq!(replaced.is_some(), names > 0);
    assert!(field.with_secrets(|_| None).is_none());
    if let Some(replaced) = replaced {
        let again = FieldText::of(name, &replaced);
        assert_eq!(again.names().count(), 0);
        if !name.eq_ignore_ascii_case(b"authorization") {
            let least = (PREFIX.len() + 1 - SECRET.len()) * names;
            assert!(replaced.len() + least <= value.len());
        }
    }
});
