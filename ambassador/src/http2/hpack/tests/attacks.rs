//! What no encoder sends: errors of RFC 7541, and sections that cost more to
//! decode than to send.

use super::*;

fn decode(section: &[u8]) -> Result<List, CompressionError> {
    let mut block = large_block();
    Decoder::new(4_096).decode(section, &mut block)?;
    Ok(list(&block))
}

/// Sections 2.3.3 and 6.1.
#[test]
fn an_index_without_a_field_is_refused() {
    for section in [
        // 0 is no index of a field.
        &[0x80][..],
        &[0x82, 0x80],
        // Nor one behind the tables, of a field or of a name.
        &[0xbe],
        &[0x7e, 1, b'x'],
        &[0x0f, 0x2f, 1, b'x'],
        &[0x1f, 0x2f, 1, b'x'],
        &[0x40, 1, b'a', 1, b'x', 0xbf],
        &[0xff, 0xff, 0xff, 0xff, 0x7f],
    ] {
        assert_eq!(
            decode(section),
            Err(CompressionError::Index),
            "{section:x?}"
        );
    }
    let section = [0x40, 1, b'a', 1, b'x', 0xbe];
    assert_eq!(decode(&section), Ok(fields("a: x\na: x")));
}

/// Section 5.1.
#[test]
fn an_integer_without_end_is_refused() {
    for first in [0xff, 0x7f, 0x0f, 0x1f, 0x3f] {
        let mut section = vec![first];
        section.extend([0x80; 4]);
        section.push(0);
        assert_eq!(
            decode(&section),
            Err(CompressionError::Integer),
            "{first:x}"
        );
    }
    let string = [
        0x40, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ];
    assert_eq!(decode(&string), Err(CompressionError::Integer));
}

#[test]
fn a_section_that_ends_within_a_field_is_refused() {
    let mut section = vec![0x3f, 0x01, 0x0f, 0x0a, 3];
    section.extend(b"abc\x40\x86");
    section.extend(hex("a8eb 1064 9cbf"));
    section.extend(b"\x02xy");
    let mut ends = Vec::new();
    for end in 0..=section.len() {
        match decode(&section[..end]) {
            Ok(_) => ends.push(end),
            Err(error) => assert_eq!(error, CompressionError::Truncated, "{end}"),
        }
    }
    // Behind the size, the first field, the second.
    assert_eq!(ends, [0, 2, 8, 19]);
}

/// Section 5.2; what else is wrong with a code is tested beside it.
#[test]
fn a_string_with_a_malformed_code_is_refused() {
    for string in [
        // Zeros for padding, eight bits of it, the end of the string.
        &[0x81, 0b0000_0110][..],
        &[0x82, 0b0000_0111, 0xff],
        &[0x84, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut value = vec![0x40, 1, b'a'];
        value.extend(string);
        assert_eq!(
            decode(&value),
            Err(CompressionError::Huffman),
            "{string:x?}"
        );
        let mut name = vec![0x40];
        name.extend(string);
        assert_eq!(decode(&name), Err(CompressionError::Huffman), "{string:x?}");
    }
}

/// Sections 4.2 and 6.3.
#[test]
fn a_table_size_is_in_front_and_within_the_setting() {
    let mut size = Vec::new();
    integer::write(&mut size, 0x20, 5, 4_097);
    assert_eq!(decode(&size), Err(CompressionError::TableSize));
    size.clear();
    integer::write(&mut size, 0x20, 5, 70_000);
    assert_eq!(decode(&size), Err(CompressionError::TableSize));
    size.clear();
    integer::write(&mut size, 0x20, 5, 4_096);
    size.push(0x82);
    assert_eq!(decode(&size), Ok(fields(":method: GET")));
    assert_eq!(decode(&[0x20, 0x25, 0x82]), Ok(fields(":method: GET")));
    assert_eq!(decode(&[0x82, 0x20]), Err(CompressionError::TableSize));
    assert_eq!(
        decode(&[0x20, 0x82, 0x25]),
        Err(CompressionError::TableSize)
    );
}

#[test]
fn a_smaller_table_forgets_and_gives_memory_back() {
    let mut decoder = Decoder::new(4_096);
    let mut block = large_block();
    let section = [0x40, 1, b'a', 1, b'x', 0x40, 1, b'b', 1, b'y', 0xbf];
    assert_eq!(decoder.decode(&section, &mut block), Ok(()));
    assert_eq!(decoder.table().size(), 68);
    // 34 bytes are left: the newer one.
    assert_eq!(decoder.decode(&[0x3f, 0x03, 0xbe], &mut block), Ok(()));
    assert_eq!(list(&block), fields("b: y"));
    assert_eq!(
        decoder.decode(&[0xbf], &mut block),
        Err(CompressionError::Index)
    );
    assert_eq!(decoder.decode(&[0x20], &mut block), Ok(()));
    assert_eq!(decoder.table().memory(), 0);
}

/// A field of 4,000 bytes is named by one byte, again and again. What is beyond
/// the limit is dropped, and at four times as much decoding ends.
#[test]
fn a_field_that_is_named_again_and_again_is_not_kept() {
    let mut decoder = Decoder::new(4_096);
    let mut block = FieldBlock::new(65_536, 128);
    let mut section = vec![0x40, 1, b'a'];
    integer::write(&mut section, 0, 7, 4_000);
    section.extend([b'x'; 4_000]);
    section.extend([0xbe; 50]);
    assert_eq!(decoder.decode(&section, &mut block), Ok(()));
    assert!(block.is_too_large());
    assert_eq!(block.fields().len(), 65_536 / 4_033);
    assert!(block.bytes().len() <= 65_536);
    // Smaller ones that come behind are not kept either.
    section.push(0x82);
    assert_eq!(decoder.decode(&section, &mut block), Ok(()));
    assert_eq!(block.fields().len(), 65_536 / 4_033);
    section.extend([0xbe; 15_000]);
    let outcome = decoder.decode(&section, &mut block);
    assert_eq!(outcome, Err(CompressionError::Bomb));
    assert!(block.bytes().len() <= 65_536);
}

/// The same with its name, which is copied into the table each time.
#[test]
fn a_name_that_is_used_again_and_again_is_not_copied_for_ever() {
    let mut decoder = Decoder::new(4_096);
    let mut block = FieldBlock::new(65_536, 128);
    let mut section = vec![0x40];
    integer::write(&mut section, 0, 7, 4_000);
    section.extend([b'n'; 4_000]);
    section.push(0);
    section.extend([0x7e, 0].repeat(1_000));
    let outcome = decoder.decode(&section, &mut block);
    assert_eq!(outcome, Err(CompressionError::Bomb));
    assert!(block.bytes().len() <= 65_536);
}

/// A block that is too large leaves the table as its sender has it.
#[test]
fn fields_that_are_dropped_are_in_the_table_all_the_same() {
    let mut decoder = Decoder::new(4_096);
    let mut block = FieldBlock::new(65_536, 2);
    let section = [0x40, 1, b'a', 1, b'x', 0x82, 0x40, 1, b'b', 1, b'y'];
    assert_eq!(decoder.decode(&section, &mut block), Ok(()));
    assert!(block.is_too_large());
    assert_eq!(list(&block), fields("a: x\n:method: GET"));
    assert_eq!(decoder.decode(&[0xbe, 0xbf], &mut block), Ok(()));
    assert!(!block.is_too_large());
    assert_eq!(list(&block), fields("b: y\na: x"));
}
