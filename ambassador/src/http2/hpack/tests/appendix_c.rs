//! The examples of RFC 7541 appendix C; those of C.1 are beside the integers.

use super::*;

/// Sections of one connection: bytes, fields, and the table behind it with its
/// size.
type Example = (&'static str, &'static str, &'static str, usize);

/// Decodes the sections of a connection whose table has at most `table_max`
/// bytes.
fn check(table_max: u16, examples: &[Example]) {
    let mut decoder = Decoder::new(4_096);
    let mut block = large_block();
    // The examples have it from the start: as if it had been said before.
    let mut size = Vec::new();
    integer::write(&mut size, 0x20, 5, table_max.into());
    assert_eq!(decoder.decode(&size, &mut block), Ok(()));
    for (bytes, expected, table, size) in examples {
        assert_eq!(decoder.decode(&hex(bytes), &mut block), Ok(()), "{bytes}");
        assert_eq!(list(&block), fields(expected), "{bytes}");
        let lines = (0..).map_while(|age| decoder.table().line(age));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = lines.map(|line| (text(line.name()), text(line.value())));
        assert_eq!(entries.collect::<List>(), fields(table), "{bytes}");
        assert_eq!(decoder.table().size(), *size, "{bytes}");
    }
}

#[test]
fn c_2_1_a_literal_with_indexing() {
    check(
        4_096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header",
            "custom-key: custom-header",
            55,
        )],
    );
}

#[test]
fn c_2_2_a_literal_without_indexing() {
    check(
        4_096,
        &[(
            "040c 2f73 616d 706c 652f 7061 7468",
            ":path: /sample/path",
            "",
            0,
        )],
    );
}

#[test]
fn c_2_3_a_literal_that_is_never_indexed() {
    let bytes = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check(4_096, &[(bytes, "password: secret", "", 0)]);
    let mut block = large_block();
    let outcome = Decoder::new(4_096).decode(&hex(bytes), &mut block);
    assert_eq!(outcome, Ok(()));
    assert_eq!(block.fields()[0].indexing, Indexing::Never);
}

#[test]
fn c_2_4_an_indexed_field() {
    check(4_096, &[("82", ":method: GET", "", 0)]);
}

/// The fields of the requests of C.3 and C.4, and the tables behind them.
const REQUESTS: [(&str, &str, usize); 3] = [
    (
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com",
        ":authority: www.example.com",
        57,
    ),
    (
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com
         cache-control: no-cache",
        "cache-control: no-cache
         :authority: www.example.com",
        110,
    ),
    (
        ":method: GET
         :scheme: https
         :path: /index.html
         :authority: www.example.com
         custom-key: custom-value",
        "custom-key: custom-value
         cache-control: no-cache
         :authority: www.example.com",
        164,
    ),
];

/// C.3.
const PLAIN_REQUESTS: [&str; 3] = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
];

/// C.4.
const HUFFMAN_REQUESTS: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];

fn examples<const COUNT: usize>(
    bytes: [&'static str; COUNT],
    rest: [(&'static str, &'static str, usize); COUNT],
) -> [Example; COUNT] {
    std::array::from_fn(|at| (bytes[at], rest[at].0, rest[at].1, rest[at].2))
}

#[test]
fn c_3_requests() {
    check(4_096, &examples(PLAIN_REQUESTS, REQUESTS));
}

#[test]
fn c_3_is_what_the_encoder_writes() {
    let mut encoder = Encoder::default();
    for (bytes, (request, ..)) in PLAIN_REQUESTS.into_iter().zip(REQUESTS) {
        assert_eq!(encoded(&mut encoder, &fields(request)), hex(bytes));
    }
}

#[test]
fn c_4_requests_with_huffman_coding() {
    check(4_096, &examples(HUFFMAN_REQUESTS, REQUESTS));
}

/// The fields of the responses of C.5 and C.6, and the tables behind them, of
/// 256 bytes.
const RESPONSES: [(&str, &str, usize); 3] = [
    (
        ":status: 302
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        "location: https://www.example.com
         date: Mon, 21 Oct 2013 20:13:21 GMT
         cache-control: private
         :status: 302",
        222,
    ),
    (
        ":status: 307
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        ":status: 307
         location: https://www.example.com
         date: Mon, 21 Oct 2013 20:13:21 GMT
         cache-control: private",
        222,
    ),
    (
        ":status: 200
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:22 GMT
         location: https://www.example.com
         content-encoding: gzip
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1
         content-encoding: gzip
         date: Mon, 21 Oct 2013 20:13:22 GMT",
        215,
    ),
];

#[test]
fn c_5_responses() {
    let bytes = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420
         3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77
         7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
         3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a
         584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33
         3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    check(256, &examples(bytes, RESPONSES));
}

#[test]
fn c_6_responses_with_huffman_coding() {
    let bytes = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81
         66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a
         839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36
         72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    check(256, &examples(bytes, RESPONSES));
}
