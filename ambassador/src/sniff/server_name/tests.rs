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
    let records = hello[RECORD_HEADER..].chunks(size).flat_map(|part| {
        let length = (part.len() as u16).to_be_bytes();
        [&[22, 3, 1], &length[..], part].concat()
    });
    records.collect()
}

/// What it says when it comes in pieces of `size` bytes, and how many bytes it took.
fn in_pieces(hello: &[u8], size: usize) -> (ServerName, usize) {
    let mut reader = HelloReader::default();
    let mut end = 0;
    loop {
        end = hello.len().min(end + size);
        let told = reader.read(&hello[..end]);
        if told != ServerName::NeedMore || end == hello.len() {
            return (told, end);
        }
    }
}

/// A hello with these extensions, in one record, whatever length that then has.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3; 2 + 32];
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = body.len() as u32;
    let mut hello = vec![22, 3, 1];
    hello.extend((length as u16 + 4).to_be_bytes());
    hello.push(1);
    hello.extend(&length.to_be_bytes()[1..]);
    hello.extend(body);
    hello
}

/// An extension.
fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [&kind.to_be_bytes()[..], &length, data].concat()
}

/// The names of a `server_name` extension, of this type each.
fn names(list: &[(u8, &str)]) -> Vec<u8> {
    let name = |(kind, name): &(u8, &str)| {
        let length = (name.len() as u16).to_be_bytes();
        [&[*kind][..], &length, name.as_bytes()].concat()
    };
    let list: Vec<u8> = list.iter().flat_map(name).collect();
    let length = (list.len() as u16).to_be_bytes();
    extension(0, &[&length[..], &list].concat())
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
        (vec![22, 3, 1, 0, 1, 2], "another handshake message"),
        (vec![22, 3, 1, 0, 1, 1, 23], "another record within"),
        (
            vec![22, 3, 1, 0, 1, 1, 21, 3, 1, 0, 2, 1, 0],
            "an alert within",
        ),
    ] {
        assert_eq!(server_name(&bytes), ServerName::Absent, "{why}");
    }
    let short = with_extensions(&[0, 0, 0, 6, 0, 4, 0, 0, 1, b'A']);
    assert_eq!(server_name(&short), ServerName::Name("a".to_owned()));
}

#[test]
fn a_name_is_read_as_far_as_it_is_one() {
    let longest = format!("{}.example", "a".repeat(255 - 8));
    for (list, expected) in [
        (&[(0, "api.example.")][..], Some("api.example")),
        (&[(0, "API.Example")], Some("api.example")),
        (
            &[(0, "xn--bcher-kva.example")],
            Some("xn--bcher-kva.example"),
        ),
        (&[(0, &longest)], Some(&*longest)),
        (&[(0, &format!("a{longest}"))], None),
        (&[(0, "b\u{fc}cher.example")], None),
        (&[(0, "a b.example")], None),
        (&[(0, "a\0.example")], None),
        (&[(0, "a\n.example")], None),
        (&[(0, ".")], None),
        (&[(0, "")], None),
        // A type that nobody knows yet has a length as well.
        (&[(7, "what"), (0, "api.example")], Some("api.example")),
        (
            &[(0, "one.example"), (0, "two.example")],
            Some("one.example"),
        ),
        (&[], None),
    ] {
        let expected = match expected {
            Some(name) => ServerName::Name(name.to_owned()),
            None => ServerName::Absent,
        };
        assert_eq!(
            server_name(&with_extensions(&names(list))),
            expected,
            "{list:?}"
        );
    }
}

#[test]
fn extensions_that_mean_nothing_here_are_passed_over() {
    let outer = names(&[(0, "outer.example")]);
    for (before, after) in [
        // GREASE (RFC 8701), a key share of 1,216 bytes, an encrypted inner hello.
        (extension(0x0a0a, &[]), extension(0xfafa, &[0])),
        (extension(51, &[7; 1_222]), Vec::new()),
        (extension(0xfe0d, &[9; 300]), extension(0xfe0d, &[9; 300])),
        (extension(21, &[0; 40_000]), extension(41, &[1; 20_000])),
        // The first of two is the one that counts.
        (Vec::new(), names(&[(0, "other.example")])),
    ] {
        let hello = with_extensions(&[before, outer.clone(), after].concat());
        for hello in [in_records(&hello, 16_384), in_records(&hello, 100)] {
            let (told, read) = in_pieces(&hello, 1_460);
            assert_eq!(told, ServerName::Name("outer.example".to_owned()));
            assert_eq!(read, hello.len());
        }
    }
    // An encrypted name alone (the older ESNI) is none.
    let hello = with_extensions(&extension(0xffce, &[9; 300]));
    assert_eq!(server_name(&hello), ServerName::Absent);
}

/// The hello of rustls, with a key share for X25519MLKEM768.
#[test]
fn a_post_quantum_hello_is_read_in_whatever_pieces_it_comes() {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "API.pay.example".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    assert!(hello.len() > 1_400, "{}", hello.len());
    for hello in [in_records(&hello, 1), in_records(&hello, 700), hello] {
        for size in [1, 2, 5, 1_460, hello.len()] {
            assert_eq!(in_pieces(&hello, size), (expected(), hello.len()), "{size}");
        }
        for end in 0..hello.len() {
            let mut reader = HelloReader::default();
            assert_eq!(reader.read(&hello[..end]), ServerName::NeedMore);
            assert_eq!(reader.read(&hello), expected());
        }
    }
}

#[test]
fn records_without_content_are_passed_over() {
    let empty = [22, 3, 1, 0, 0];
    let records = in_records(&openssl_hello(), 100);
    let hello = [&empty, &records[..105], &empty, &empty, &records[105..]].concat();
    assert_eq!(in_pieces(&hello, 1), (expected(), hello.len()));
}

#[test]
fn no_more_than_the_limit_is_waited_for() {
    // A hello of the limit is read; one byte more is refused when its length is known.
    let full = with_extensions(&extension(21, &vec![0; 65_531]));
    let body = full.len() - RECORD_HEADER - MESSAGE_HEADER;
    assert!(body > HELLO_BYTES_MAX);
    let over = body - HELLO_BYTES_MAX;
    let full = with_extensions(&extension(21, &vec![0; 65_531 - over]));
    let full = in_records(&full, 16_384);
    assert_eq!(in_pieces(&full, 1_460), (ServerName::Absent, full.len()));
    let long = [22, 3, 1, 0x40, 0, 1, 1, 0, 1];
    assert_eq!(in_pieces(&long, 1), (ServerName::TooLong, long.len()));

    // What never ends: a byte in each record, and records without any.
    let small = [
        &[22, 3, 1, 0, 4, 1, 0, 0xff, 0xff][..],
        &[22, 3, 1, 0, 1, 0].repeat(40_000),
    ];
    let empty = [22, 3, 1, 0, 0].repeat(40_000);
    for hello in [small.concat(), empty] {
        assert_eq!(
            server_name(&hello[..READ_BYTES_MAX - 1]),
            ServerName::NeedMore
        );
        assert_eq!(server_name(&hello[..READ_BYTES_MAX]), ServerName::TooLong);
        let (told, read) = in_pieces(&hello, 1_000);
        assert_eq!(told, ServerName::TooLong);
        assert!(
            (READ_BYTES_MAX..READ_BYTES_MAX + 1_000).contains(&read),
            "{read}"
        );
    }
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
    fn more_bytes_never_change_an_answer(
        size in 1usize..200,
        end in 0usize..4_000,
        at in 0usize..517,
        to in any::<u8>(),
    ) {
        let mut hello = openssl_hello();
        hello[at] = to;
        for hello in [in_records(&hello, size), hello] {
            let part = server_name(&hello[..end.min(hello.len())]);
            let whole = server_name(&hello);
            prop_assert!(part == ServerName::NeedMore || part == whole);
            prop_assert_eq!(in_pieces(&hello, end + 1).0, whole);
        }
    }
}
