//! Field sections of one connection, each behind a byte with its length: no input
//! panics or costs more than the limits, and what is decoded is encoded as
//! something that decodes to the same.

#![no_main]

use ambassador::testing::http2::{Decoder, Encoder, FieldBlock, Indexing};
use libfuzzer_sys::fuzz_target;

const LIST_BYTES_MAX: usize = 2_048;
const FIELDS_MAX: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let (mut theirs, mut ours) = (Decoder::new(4_096), Decoder::new(4_096));
    let mut encoder = Encoder::default();
    let mut block = FieldBlock::new(LIST_BYTES_MAX, FIELDS_MAX);
    let mut again = FieldBlock::new(LIST_BYTES_MAX, FIELDS_MAX);
    let mut bytes = bytes;
    while let Some((&length, rest)) = bytes.split_first() {
        let (section, rest) = rest.split_at(usize::from(length).min(rest.len()));
        bytes = rest;
        if theirs.decode(section, &mut block).is_err() {
            return;
        }
        assert!(block.bytes().len() <= LIST_BYTES_MAX);
        assert!(block.fields().len() <= FIELDS_MAX);

        encoder.set_table_max(u32::from(length) * 32);
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for field in block.fields() {
            let (name, value) = (field.name(block.bytes()), field.value(block.bytes()));
            encoder.field(&mut out, name, value, field.indexing);
        }
        assert_eq!(ours.decode(&out, &mut again), Ok(()));
        assert!(!again.is_too_large());
        assert_eq!(again.bytes().len(), block.bytes().len());
        for (field, other) in block.fields().iter().zip(again.fields()) {
            let name = field.name(block.bytes()).to_ascii_lowercase();
            assert_eq!(name, other.name(again.bytes()));
            assert_eq!(field.value(block.bytes()), other.value(again.bytes()));
            if field.indexing == Indexing::Never {
                assert_eq!(other.indexing, Indexing::Never);
            }
        }
    }
});
