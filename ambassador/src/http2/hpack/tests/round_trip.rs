//! What is encoded is decoded again.

use proptest::prelude::*;

use super::*;

/// Encodes and decodes sections of one connection.
struct Pair {
    encoder: Encoder,
    decoder: Decoder,
    block: FieldBlock,
}

impl Pair {
    fn new() -> Self {
        Self {
            encoder: Encoder::default(),
            decoder: Decoder::new(4_096),
            block: large_block(),
        }
    }

    /// What a section of `list` is on its way; it is decoded again.
    fn pass(&mut self, list: &List) -> Vec<u8> {
        let section = encoded(&mut self.encoder, list);
        assert_eq!(self.decoder.decode(&section, &mut self.block), Ok(()));
        assert_eq!(&super::list(&self.block), list);
        section
    }
}

#[test]
fn a_field_is_one_byte_from_its_second_time_on() {
    let mut pair = Pair::new();
    let request = fields(
        ":method: GET
         :scheme: https
         :authority: payments.example
         user-agent: a-client/3.14 (linux)
         accept: application/json
         x-tenant: north",
    );
    assert!(pair.pass(&request).len() > 60);
    for _ in 0..3 {
        assert_eq!(pair.pass(&request).len(), request.len());
    }
}

#[test]
fn names_are_written_in_lower_case() {
    let mut pair = Pair::new();
    let long = "X-".repeat(40);
    for name in ["Content-Type", "X-Tenant", "x-TENANT", &long] {
        for _ in 0..2 {
            let mut out = Vec::new();
            pair.encoder
                .field(&mut out, name.as_bytes(), b"A", Indexing::Free);
            assert_eq!(pair.decoder.decode(&out, &mut pair.block), Ok(()));
            let expected = (name.to_ascii_lowercase(), "A".to_owned());
            assert_eq!(list(&pair.block), [expected]);
        }
    }
}

/// RFC 7541 section 7.1.3.
#[test]
fn secrets_are_never_indexed() {
    let mut pair = Pair::new();
    for (name, value, asked) in [
        ("authorization", "Bearer x", Indexing::Free),
        ("proxy-authorization", "Basic x", Indexing::Free),
        ("set-cookie", "id=4711; Path=/; HttpOnly", Indexing::Free),
        ("cookie", "id=4711", Indexing::Free),
        ("x-api-key", "4711", Indexing::Never),
        // Not even where the static table has it.
        (":method", "GET", Indexing::Never),
    ] {
        let mut out = Vec::new();
        pair.encoder
            .field(&mut out, name.as_bytes(), value.as_bytes(), asked);
        assert_eq!(out[0] & 0xf0, 0x10, "{name}");
        assert_eq!(pair.decoder.decode(&out, &mut pair.block), Ok(()));
        assert_eq!(pair.block.fields()[0].indexing, Indexing::Never, "{name}");
        assert_eq!(pair.decoder.table().size(), 0, "{name}");
    }
}

#[test]
fn what_changes_with_each_message_is_in_no_table() {
    let mut pair = Pair::new();
    let request = fields(":path: /4711\ncontent-length: 12\nx-request-id: 0192f4a0");
    pair.pass(&request);
    let large = ("x-large".to_owned(), "x".repeat(3_072));
    pair.pass(&vec![large]);
    assert_eq!(pair.decoder.table().size(), 0);
}

/// RFC 7541 section 4.2.
#[test]
fn the_peer_is_told_how_large_the_table_is() {
    let mut pair = Pair::new();
    let request = fields("x-tenant: north");
    pair.pass(&request);
    // As it is: nothing to tell. Larger than is used: nothing either.
    for max in [4_096, 65_535, 65_536, u32::MAX] {
        pair.encoder.set_table_max(max);
        assert_eq!(pair.pass(&request), [0xbe], "{max}");
    }
    // Smaller, and the field is not in there any more.
    pair.encoder.set_table_max(40);
    let section = pair.pass(&request);
    assert_eq!(section[..2], [0x3f, 9]);
    assert_eq!(section.len(), 2 + 1 + 9 + 6);
    // Twice between two sections: the smallest and the last.
    pair.encoder.set_table_max(4_096);
    pair.pass(&request);
    pair.encoder.set_table_max(0);
    pair.encoder.set_table_max(100);
    let section = pair.pass(&request);
    assert_eq!(section[..4], [0x20, 0x3f, 69, 0x40]);
    assert_eq!(pair.pass(&request), [0xbe]);
    pair.encoder.set_table_max(0);
    assert_eq!(pair.pass(&request)[..2], [0x20, 0x00]);
    assert_eq!(pair.decoder.table().memory(), 0);
}

fn any_list() -> impl Strategy<Value = List> {
    let name = prop_oneof![
        prop::sample::select(vec![
            ":path",
            ":status",
            "accept",
            "cookie",
            "date",
            "x-a",
            "x-b",
            "x-request-id",
        ])
        .prop_map(str::to_owned),
        "[a-z:-]{0,20}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec!["/", "200", "a", "", "gzip, deflate"]).prop_map(str::to_owned),
        "[ -~]{0,60}",
        (1_000..5_000_usize).prop_map(|length| "x".repeat(length)),
    ];
    prop::collection::vec((name, value), 0..12)
}

proptest! {
    #[test]
    fn any_sections_under_any_sizes(
        sections in prop::collection::vec(
            (prop::collection::vec(prop_oneof![0..200_u32, 0..9_000_u32], 0..3), any_list()),
            1..20,
        ),
    ) {
        let mut pair = Pair::new();
        for (sizes, list) in sections {
            sizes.into_iter().for_each(|size| pair.encoder.set_table_max(size));
            pair.pass(&list);
        }
    }

    #[test]
    fn any_bytes_cost_no_more_than_the_limits(
        sections in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
    ) {
        let mut decoder = Decoder::new(4_096);
        let mut block = FieldBlock::new(500, 8);
        for section in sections {
            let outcome = decoder.decode(&section, &mut block);
            prop_assert!(block.bytes().len() <= 500 + 200 * 8 / 5 + 4_096);
            prop_assert!(block.fields().len() <= 8);
            prop_assert!(decoder.table().size() <= 4_096);
            if outcome.is_err() {
                break;
            }
        }
    }
}
