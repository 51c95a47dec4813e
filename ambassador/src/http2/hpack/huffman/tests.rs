use proptest::prelude::*;

use super::*;

/// The code of a symbol and how many bits it has.
fn code(symbol: usize) -> (u64, usize) {
    let length = usize::from(LENGTHS[symbol]);
    let place = CODES
        .symbols
        .iter()
        .position(|one| usize::from(*one) == symbol);
    let behind = place.expect("a symbol") - usize::from(CODES.before[length]);
    (
        (CODES.start[length] >> (32 - length)) + behind as u64,
        length,
    )
}

/// The bits of `symbols`, and ones up to the next whole byte.
fn encode(symbols: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut bits = Vec::new();
    for symbol in symbols {
        let (code, length) = code(symbol);
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    while bits.len() % 8 != 0 {
        bits.push(true);
    }
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut out = b"before ".to_vec();
    decode(bytes, bytes.len(), &mut out)?;
    Ok(out
        .strip_prefix(b"before ")
        .expect("what was there")
        .to_vec())
}

#[test]
fn codes_are_those_of_appendix_b() {
    for (symbol, expected) in [
        (usize::from(b'0'), (0x0, 5)),
        (usize::from(b't'), (0x9, 5)),
        (usize::from(b' '), (0x14, 6)),
        (usize::from(b':'), (0x5c, 7)),
        (usize::from(b'Z'), (0xfd, 8)),
        (usize::from(b'!'), (0x3f8, 10)),
        (usize::from(b'|'), (0x7fc, 11)),
        (usize::from(b'}'), (0x3ffd, 14)),
        (usize::from(b'\\'), (0x7fff0, 19)),
        (128, (0xfffe6, 20)),
        (9, (0xffffea, 24)),
        (249, (0xffffffe, 28)),
        (22, (0x3ffffffe, 30)),
        (256, (0x3fffffff, 30)),
    ] {
        assert_eq!(code(symbol), expected, "{symbol}");
    }
}

#[test]
fn every_byte_is_decoded_wherever_it_is() {
    for byte in 0..=u8::MAX {
        for before in 0..9 {
            let mut text = vec![b'0'; before];
            text.extend([byte, byte, b'x']);
            let bytes = encode(text.iter().map(|byte| usize::from(*byte)));
            assert_eq!(decoded(&bytes), Ok(text));
        }
    }
}

/// RFC 7541 section 5.2.
#[test]
fn padding_is_less_than_a_byte_of_ones() {
    assert_eq!(decoded(b""), Ok(Vec::new()));
    // "0" has five bits of 0.
    assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
    for padded in [
        &[0b0000_0110][..],
        &[0b0000_0011],
        &[0b0000_0111, 0xff],
        &[0b0000_0111, 0xff, 0xff, 0xff],
        &[0xff],
    ] {
        assert_eq!(
            decoded(padded),
            Err(CompressionError::Huffman),
            "{padded:?}"
        );
    }
    // Seven bits are the most: "Q" has as many.
    let bytes = encode([b'Q'; 7].map(usize::from));
    assert_eq!(bytes.len(), 7);
    assert_eq!(decoded(&bytes), Ok(vec![b'Q'; 7]));
    assert_eq!(decoded(&encode([usize::from(b'Z'); 8])), Ok(vec![b'Z'; 8]));
}

#[test]
fn the_end_of_the_string_is_no_part_of_it() {
    for before in 0..9 {
        let mut symbols = vec![usize::from(b'a'); before];
        symbols.push(256);
        assert_eq!(
            decoded(&encode(symbols.clone())),
            Err(CompressionError::Huffman)
        );
        symbols.push(usize::from(b'a'));
        assert_eq!(decoded(&encode(symbols)), Err(CompressionError::Huffman));
    }
}

#[test]
fn what_follows_the_string_means_nothing() {
    let bytes = encode(b"www.example.com".map(usize::from));
    for behind in [0x00, 0xff, 0x5a] {
        for count in 0..20 {
            let mut all = bytes.clone();
            all.extend(vec![behind; count]);
            let mut out = Vec::new();
            assert_eq!(decode(&all, bytes.len(), &mut out), Ok(()));
            assert_eq!(out, b"www.example.com");
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = encode(text.iter().map(|byte| usize::from(*byte)));
        prop_assert_eq!(decoded(&bytes), Ok(text));
    }

    /// There is one encoding of each text, and whatever is none is refused.
    #[test]
    fn what_is_decoded_was_encoded(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(text) = decoded(&bytes) {
            prop_assert_eq!(encode(text.iter().map(|byte| usize::from(*byte))), bytes);
        }
    }
}
