//! Field blocks (RFC 7541): the suite `generic` in its section 5, and the suite `hpack`.

use ambassador_tests::http2::hpack::{
    Literal, huffman, indexed, literal, literal_of, table_size, text,
};
use ambassador_tests::http2::setting;

use super::case::{COMPRESSION, Case, Expect, case};
use super::end::End;

/// Where the static table has `user-agent`.
const USER_AGENT: usize = 58;

/// What a table has before anything was added to it.
const STATIC_LENGTH: usize = 61;

/// A whole message with `user-agent`, whose name is one of the static table.
fn agent(end: &mut End, kept: Literal, string: fn(&str) -> Vec<u8>) -> &mut End {
    let octets = [literal_of(kept, USER_AGENT), string("h2spec")].concat();
    end.carries("user-agent", "h2spec").suffixed(&octets)
}

/// A whole message with `x-test`, whose name is a string.
fn test(end: &mut End, kept: Literal, string: fn(&str) -> Vec<u8>) -> &mut End {
    let octets = literal(kept, &string("x-test"), &string("h2spec"));
    end.carries("x-test", "h2spec").suffixed(&octets)
}

pub fn representations() -> Vec<Case> {
    let fine = |says, act| case("generic/5", says, act);
    vec![
        fine("a field of the static table", |end| {
            end.carries("user-agent", "").suffixed(&indexed(USER_AGENT))
        }),
        fine("indexed, a name of the table", |end| {
            agent(end, Literal::Indexed, text)
        }),
        fine("indexed, a name of the table, Huffman", |end| {
            agent(end, Literal::Indexed, huffman)
        }),
        fine("indexed, a new name", |end| {
            test(end, Literal::Indexed, text)
        }),
        fine("indexed, a new name, Huffman", |end| {
            test(end, Literal::Indexed, huffman)
        }),
        fine("not indexed, a name of the table", |end| {
            agent(end, Literal::Unindexed, text)
        }),
        fine("not indexed, a name of the table, Huffman", |end| {
            agent(end, Literal::Unindexed, huffman)
        }),
        fine("not indexed, a new name", |end| {
            test(end, Literal::Unindexed, text)
        }),
        fine("not indexed, a new name, Huffman", |end| {
            test(end, Literal::Unindexed, huffman)
        }),
        fine("never indexed, a name of the table", |end| {
            agent(end, Literal::Never, text)
        }),
        fine("never indexed, a name of the table, Huffman", |end| {
            agent(end, Literal::Never, huffman)
        }),
        fine("never indexed, a new name", |end| {
            test(end, Literal::Never, text)
        }),
        fine("never indexed, a new name, Huffman", |end| {
            test(end, Literal::Never, huffman)
        }),
        fine("a new size of the table", |end| {
            end.prefixed(&table_size(128))
        }),
        fine("two new sizes of the table", |end| {
            end.prefixed(&[table_size(128), table_size(4096)].concat())
        }),
    ]
}

pub fn malformed() -> Vec<Case> {
    let wrong = |section, says, act| {
        let case = case(section, says, act);
        case.expects(Expect::ConnectionError(COMPRESSION))
    };
    vec![
        wrong("hpack/2.3.3", "an index above the tables", |end| {
            end.suffixed(&indexed(STATIC_LENGTH + 9))
        }),
        wrong(
            "hpack/2.3.3",
            "a name of an index above the tables",
            |end| {
                let octets = literal_of(Literal::Indexed, STATIC_LENGTH + 9);
                end.suffixed(&[octets, text("")].concat())
            },
        ),
        wrong("hpack/4.2", "a size of the table at the end", |end| {
            end.suffixed(&table_size(1))
        }),
        wrong("hpack/5.2", "Huffman with 8 bits of padding", |end| {
            huffman_value(end, &[0x49, 0x50, 0x9f, 0xff])
        }),
        wrong("hpack/5.2", "Huffman padded with zeros", |end| {
            huffman_value(end, &[0x49, 0x50, 0x90])
        }),
        wrong("hpack/5.2", "Huffman with its end amid it", |end| {
            huffman_value(end, &[0x49, 0x51, 0xff, 0xff, 0xff, 0xfa, 0x7f])
        }),
        wrong("hpack/6.1", "index 0", |end| end.suffixed(&indexed(0))),
        wrong("hpack/6.3", "a table larger than was allowed", |end| {
            let allowed = end.setting(setting::HEADER_TABLE_SIZE).unwrap_or(4096);
            end.prefixed(&table_size(allowed as usize + 1))
        }),
    ]
}

/// A whole message with a field whose value has these octets in Huffman's code.
fn huffman_value<'a>(end: &'a mut End, octets: &[u8]) -> &'a mut End {
    let length = u8::try_from(octets.len()).expect("a few");
    let value = [&[0x80 | length], octets].concat();
    end.suffixed(&literal(Literal::Unindexed, &huffman("x-test"), &value))
}
