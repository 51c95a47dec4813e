mod appendix_c;
mod attacks;
mod round_trip;
mod stories;

use super::error::CompressionError;
use super::*;
use crate::http2::block::{FieldBlock, Indexing};

/// Fields as text.
type List = Vec<(String, String)>;

/// A block that takes in whatever the tests have.
fn large_block() -> FieldBlock {
    FieldBlock::new(1 << 20, 1 << 10)
}

/// The fields of a block.
fn list(block: &FieldBlock) -> List {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines = block.bytes();
    let fields = block.fields().iter();
    fields
        .map(|field| (text(field.name(lines)), text(field.value(lines))))
        .collect()
}

/// What `lines` say, one field a line.
fn fields(lines: &str) -> List {
    let lines = lines.lines().map(|line| {
        let (name, value) = line.trim().split_once(": ").expect("a field");
        (name.to_owned(), value.to_owned())
    });
    lines.collect()
}

/// The bytes of hexadecimal digits; blanks between them do not count.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (16 * pair[0] + pair[1]) as u8)
        .collect()
}

/// A section of these fields.
fn encoded(encoder: &mut Encoder, list: &List) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in list {
        encoder.field(&mut out, name.as_bytes(), value.as_bytes(), Indexing::Free);
    }
    out
}

#[test]
fn texts_are_the_same_up_to_their_last_byte() {
    for length in 0..40 {
        let one = vec![b'a'; length];
        assert!(is_same(&one, &one));
        assert!(!is_same(&one, &vec![b'a'; length + 1]));
        for at in 0..length {
            let mut other = one.clone();
            other[at] = b'b';
            assert!(!is_same(&one, &other), "{length}, {at}");
        }
    }
}
