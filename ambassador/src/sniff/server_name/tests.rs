use proptest::prelude::*;

use super::*;

/// What OpenSSL 3.0 sends for `api.Pay.example`, recorded from Python's ssl.
const OPENSSL_HELLO: &str = "\
    1603010200010001fc03039cee02c7d0e1f3807ded072b1915096a22c3a58083a65c083806c90cf0f557f220787a12b7\
    c48bbacaa9eb5bcce70a1be190c6ee7fa22c3fb589d54f12e11374300024130213031301c02cc030c02bc02fcca9cca8\
    c024c028c023c027009f009e006b006700ff0100018f00000014001200000f6170692e5061792e6578616d706c65000b\
    000403000102000a00160014001d0017001e0019001801000101010201030104002300000016000000170000000d002a\
    0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b00050403\
    040303002d00020101003300260024001d00200290229e0a102871aa0b11426d7bc18aeb40d142a85ecc9c11985b5ee2\
    87ac5d001500de0000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000";

fn openssl_hello() -> Vec<u8> {
    let digits = OPENSSL_HELLO.as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The same message in records of `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    hello[5..]
        .chunks(size)
        .flat_map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat())
        .collect()
}

/// A hello with these extensions.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3; 2 + 32];
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = body.len() as u16;
    let mut hello = vec![22, 3, 1];
    hello.extend((length + 4).to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(length.to_be_bytes());
    hello.extend(body);
    hello
}

fn expected() -> ServerName {
    ServerName::Name("api.pay.example".to_owned())
}

#[test]
fn a_real_hello_names_its_server_in_lower_case() {
    assert_eq!(server_name(&openssl_hello()), expected());
}

#[test]
fn bytes_after_the_hello_change_nothing() {
    let mut more = openssl_hello();
    more.extend([0x17, 3, 3, 0, 1, 0]);
    assert_eq!(server_name(&more), expected());
}

#[test]
fn every_part_of_a_hello_waits_for_the_rest() {
    let hello = openssl_hello();
    for hello in [in_records(&hello, 1), in_records(&hello, 100), hello] {
        for end in 0..hello.len() {
            assert_eq!(server_name(&hello[..end]), ServerName::NeedMore, "{end}");
        }
        assert_eq!(server_name(&hello), expected());
    }
}

#[test]
fn what_names_no_server_is_absent() {
    let long = [&[22, 3, 1, 0x40, 0, 1, 0, 0x40, 1][..], &[0; 20]].concat();
    for (bytes, why) in [
        (with_extensions(&[]), "no extension"),
        (with_extensions(&[0, 16, 0, 1, 0]), "another extension"),
        (with_extensions(&[0, 0, 0, 0]), "an empty one"),
        (
            with_extensions(&[0, 0, 0, 5, 0, 3, 0, 0, 0]),
            "an empty name",
        ),
        (
            with_extensions(&[0, 0, 0, 6, 0, 4, 7, 0, 1, b'a']),
            "no DNS name",
        ),
        (
            with_extensions(&[0, 0, 0, 6, 0, 4, 0, 0, 1, b' ']),
            "no host",
        ),
        (
            with_extensions(&[0, 0, 0, 6, 0, 9, 0, 0, 1, b'a']),
            "a length beyond the end",
        ),
        (vec![22, 3, 1, 0, 0], "an empty record"),
        (vec![22, 3, 1, 0, 1, 2], "another handshake message"),
        (vec![22, 3, 1, 0, 1, 1, 23], "another record within"),
        (long, "a longer message than any hello"),
    ] {
        assert_eq!(server_name(&bytes), ServerName::Absent, "{why}");
    }
    let short = with_extensions(&[0, 0, 0, 6, 0, 4, 0, 0, 1, b'A']);
    assert_eq!(server_name(&short), ServerName::Name("a".to_owned()));
}

#[test]
fn no_more_than_the_limit_is_waited_for() {
    let hello = [
        &[22, 3, 1, 0x3f, 0xff, 1, 0, 0x40, 0][..],
        &[0; HELLO_BYTES_MAX],
    ]
    .concat();
    assert_eq!(
        server_name(&hello[..HELLO_BYTES_MAX - 1]),
        ServerName::NeedMore
    );
    assert_eq!(server_name(&hello[..HELLO_BYTES_MAX]), ServerName::Absent);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = server_name(&bytes);
        let _ = server_name(&with_extensions(&bytes));
    }

    #[test]
    fn a_changed_hello_is_read_without_a_panic(at in 0usize..517, to in any::<u8>(), end in 0usize..518) {
        let mut hello = openssl_hello();
        hello[at] = to;
        let _ = server_name(&hello[..end]);
    }

    #[test]
    fn more_bytes_never_change_an_answer(size in 1usize..200, end in 0usize..4_000) {
        let hello = in_records(&openssl_hello(), size);
        let part = server_name(&hello[..end.min(hello.len())]);
        prop_assert!(part == ServerName::NeedMore || part == server_name(&hello));
    }
}
