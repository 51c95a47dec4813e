use proptest::prelude::*;

use super::*;

fn chunked() -> BodyReader {
    BodyReader::of_request(Length::Unknown)
}

/// Bytes consumed, content and whether the body ended.
type Outcome = Result<(usize, Vec<u8>, bool), BadMessage>;

/// Feeds the pieces one after another, as `advance` is fed: what a piece has
/// left over ends the feeding.
fn feed<'a>(mut reader: BodyReader, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut raw = reader.clone();
    let (mut consumed, mut data) = (0, Vec::new());
    for piece in pieces {
        let progress = reader.advance_into(piece, &mut data)?;
        assert_eq!(raw.advance(piece), Ok(progress));
        assert_eq!(progress.done, reader.is_done());
        consumed += progress.consumed;
        if progress.consumed < piece.len() {
            assert!(progress.done);
            break;
        }
    }
    Ok((consumed, data, reader.is_done()))
}

fn whole_and_bytewise(reader: &BodyReader, bytes: &[u8]) -> Outcome {
    let whole = feed(reader.clone(), [bytes]);
    assert_eq!(
        whole,
        feed(reader.clone(), bytes.chunks(1)),
        "{}",
        bytes.escape_ascii()
    );
    whole
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    let long_extension = format!("1;{}\r\n", "e".repeat(257));
    let long_trailer = format!("0\r\n{}\r\n", "t: u\r\n".repeat(3000));
    let long_name = format!("0\r\n{}: u\r\n\r\n", "t".repeat(17_000));
    for (body, refusal) in [
        // The size.
        ("\r\n", BadMessage::ChunkSize),
        ("\n", BadMessage::ChunkSize),
        (";e\r\n", BadMessage::ChunkSize),
        ("g\r\n", BadMessage::ChunkSize),
        ("-1\r\n", BadMessage::ChunkSize),
        ("+1\r\na\r\n", BadMessage::ChunkSize),
        ("0x1\r\na\r\n", BadMessage::ChunkSize),
        ("1_0\r\n", BadMessage::ChunkSize),
        (" 1\r\na\r\n", BadMessage::ChunkSize),
        ("1 \r\na\r\n", BadMessage::ChunkSize),
        ("1 ;e\r\na\r\n", BadMessage::ChunkSize),
        ("1\t\r\na\r\n", BadMessage::ChunkSize),
        ("1,2\r\n", BadMessage::ChunkSize),
        ("\u{ff11}\r\n", BadMessage::ChunkSize),
        ("1\na\r\n", BadMessage::ChunkSize),
        ("1\ra\r\n", BadMessage::ChunkSize),
        ("1\r\r\na\r\n", BadMessage::ChunkSize),
        ("1\0\r\na\r\n", BadMessage::ChunkSize),
        // 2^64, 2^64 + 1, and zeros that would hide how long a size is.
        ("10000000000000000\r\n", BadMessage::ChunkSize),
        ("10000000000000001\r\n", BadMessage::ChunkSize),
        ("ffffffffffffffff\r\n", BadMessage::ChunkSize),
        ("0000000000000001\r\na\r\n", BadMessage::ChunkSize),
        ("0000000000000000\r\n\r\n", BadMessage::ChunkSize),
        // Extensions.
        ("1;e\na\r\n", BadMessage::ChunkExtension),
        ("1;e=\"\n\"\r\na\r\n", BadMessage::ChunkExtension),
        ("1;e\0\r\na\r\n", BadMessage::ChunkExtension),
        ("1;\x7f\r\na\r\n", BadMessage::ChunkExtension),
        ("1;e=\"\r\na\r\n", BadMessage::ChunkExtension),
        ("1;e=\"\\\"\r\na\r\n", BadMessage::ChunkExtension),
        ("1;\u{fc}\r\na\r\n", BadMessage::ChunkExtension),
        ("1;e\ra\r\n", BadMessage::ChunkSize),
        (&long_extension, BadMessage::ChunkExtension),
        // After the data.
        ("1\r\nab\r\n", BadMessage::ChunkEnd),
        ("1\r\na\n0\r\n\r\n", BadMessage::ChunkEnd),
        ("1\r\na\rb", BadMessage::ChunkEnd),
        ("1\r\na0\r\n\r\n", BadMessage::ChunkEnd),
        // Trailers.
        ("0\r\n\n", BadMessage::Trailer),
        ("0\r\n\rX", BadMessage::Trailer),
        ("0\r\nt: u\n\r\n", BadMessage::Trailer),
        ("0\r\nt: u\r\r\n", BadMessage::Trailer),
        ("0\r\nt: u\r\n v\r\n\r\n", BadMessage::Trailer),
        ("0\r\n t: u\r\n\r\n", BadMessage::Trailer),
        ("0\r\nt : u\r\n\r\n", BadMessage::Trailer),
        ("0\r\nt\r\n\r\n", BadMessage::Trailer),
        ("0\r\n: u\r\n\r\n", BadMessage::Trailer),
        ("0\r\nt: \0\r\n\r\n", BadMessage::Trailer),
        ("0\r\nt: \x7f\r\n\r\n", BadMessage::Trailer),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", BadMessage::Trailer),
        (&long_trailer, BadMessage::TrailerTooLarge),
        (&long_name, BadMessage::TrailerTooLarge),
        // Trailers that belong in the head.
        ("0\r\nContent-Length: 5\r\n\r\n", BadMessage::TrailerName),
        (
            "0\r\nt: u\r\ntransfer-encoding: chunked\r\n\r\n",
            BadMessage::TrailerName,
        ),
        ("0\r\nHOST: a\r\n\r\n", BadMessage::TrailerName),
        ("0\r\nHost:\r\n\r\n", BadMessage::TrailerName),
        ("0\r\nConnection: close\r\n\r\n", BadMessage::TrailerName),
        ("0\r\nUpgrade: a\r\n\r\n", BadMessage::TrailerName),
        ("0\r\nTE: a\r\n\r\n", BadMessage::TrailerName),
        ("0\r\nTrailer: a\r\n\r\n", BadMessage::TrailerName),
        ("0\r\nKeep-Alive: a\r\n\r\n", BadMessage::TrailerName),
    ] {
        let outcome = whole_and_bytewise(&chunked(), body.as_bytes());
        assert_eq!(outcome, Err(refusal), "{:?}", &body[..body.len().min(60)]);
    }
}

#[test]
fn a_sound_chunked_body_ends_after_its_trailers_and_takes_nothing_beyond() {
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(256));
    for (body, data) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("000000000000003\r\nabc\r\n0\r\n\r\n", "abc"),
        ("A\r\n0123456789\r\n1\r\n\n\r\n0\r\n\r\n", "0123456789\n"),
        ("b\r\n0123456789\r\r\n0\r\n\r\n", "0123456789\r"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("3;a=b;c=\"d \t\"\r\nabc\r\n0;x\r\n\r\n", "abc"),
        (&extension, "abc"),
        ("0\r\nt: u\r\nT-2:\r\nx:\t\u{fc}\r\n\r\n", ""),
        // Names that only begin like the refused ones, or end like them.
        (
            "0\r\nHos: a\r\nHosts: a\r\nx-host: a\r\nte-x: a\r\nhoste: a\r\n\r\n",
            "",
        ),
        (
            "0\r\ncontent-encoding: a\r\ntransfer-length: a\r\nt: u\r\n\r\n",
            "",
        ),
    ] {
        let input = [body.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
        let expected = Ok((body.len(), data.as_bytes().to_vec(), true));
        assert_eq!(feed(chunked(), [&input[..]]), expected, "{body:?}");
        assert_eq!(feed(chunked(), input.chunks(1)), expected, "{body:?}");
        for end in 0..body.len() {
            let (consumed, _, done) = feed(chunked(), [&body.as_bytes()[..end]]).unwrap();
            assert_eq!((consumed, done), (end, false), "{body:?} up to {end}");
        }
    }
}

/// What a client of a response takes as it is, and no two of them in two ways.
#[test]
fn responses_may_be_chunked_loosely() {
    let zeros = "0".repeat(60);
    for (body, data) in [
        ("3 \r\nabc\r\n0\r\n\r\n", "abc"),
        ("3 \t\r\nabc\r\n0   \r\n\r\n", "abc"),
        ("3 ;a\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3 ; a = b\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3;a=\"x; \\\"y\\\\ \u{e9}\"\r\nabc\r\n0\r\n\r\n", "abc"),
        ("0000000000000000003\r\nabc\r\n0000\r\n\r\n", "abc"),
        (&format!("{zeros}3\r\nabc\r\n{zeros}\r\n\r\n"), "abc"),
    ] {
        let of_response = BodyReader::of_response(Length::Unknown);
        let outcome = whole_and_bytewise(&of_response, body.as_bytes());
        let expected = Ok((body.len(), data.as_bytes().to_vec(), true));
        assert_eq!(outcome, expected, "{body:?}");
    }
    let endless = "0".repeat(100);
    let blanks = format!("1{}\r\na\r\n", " ".repeat(300));
    for (body, refusal) in [
        ("1 0\r\n", BadMessage::ChunkSize),
        (" 1\r\na\r\n", BadMessage::ChunkSize),
        ("1 \na\r\n", BadMessage::ChunkSize),
        ("1\na\r\n", BadMessage::ChunkSize),
        ("1 x\r\na\r\n", BadMessage::ChunkSize),
        ("0x1\r\na\r\n", BadMessage::ChunkSize),
        ("10000000000000000\r\n", BadMessage::ChunkSize),
        ("0010000000000000000\r\n", BadMessage::ChunkSize),
        (&endless, BadMessage::ChunkSize),
        (&blanks, BadMessage::ChunkSize),
        ("1;\u{e9}\r\na\r\n", BadMessage::ChunkExtension),
        ("1;a=\"\r\na\r\n", BadMessage::ChunkExtension),
        ("1;a=\"\n\"\r\na\r\n", BadMessage::ChunkExtension),
        ("1\r\na\n0\r\n\r\n", BadMessage::ChunkEnd),
    ] {
        let of_response = BodyReader::of_response(Length::Unknown);
        let outcome = whole_and_bytewise(&of_response, body.as_bytes());
        assert_eq!(outcome, Err(refusal), "{body:?}");
    }
}

#[test]
fn the_largest_chunk_size_does_not_overflow() {
    let mut reader = chunked();
    let progress = reader.advance(b"fffffffffffffff\r\nabc");
    assert_eq!(
        progress,
        Ok(Progress {
            consumed: 20,
            trailers: 0,
            done: false
        })
    );
    assert_eq!(reader.state, State::Data((1 << 60) - 1 - 3));
}

#[test]
fn a_length_is_counted_down() {
    let reader = BodyReader::of_request(Length::Exact(5));
    let outcome = whole_and_bytewise(&reader, b"abcdefg");
    assert_eq!(outcome, Ok((5, b"abcde".to_vec(), true)));
    let outcome = whole_and_bytewise(&reader, b"abcd");
    assert_eq!(outcome, Ok((4, b"abcd".to_vec(), false)));
    let mut reader = BodyReader::of_response(Length::Exact(u64::MAX));
    assert_eq!(
        reader.advance(b"ab"),
        Ok(Progress {
            consumed: 2,
            trailers: 0,
            done: false
        })
    );
}

#[test]
fn without_a_body_nothing_is_taken() {
    for reader in [
        BodyReader::of_request(Length::None),
        BodyReader::of_request(Length::Exact(0)),
        BodyReader::of_response(Length::None),
        BodyReader::of_response(Length::Exact(0)),
    ] {
        assert!(reader.is_done());
        let outcome = whole_and_bytewise(&reader, b"GET /");
        assert_eq!(outcome, Ok((0, Vec::new(), true)));
    }
}

#[test]
fn a_body_until_close_takes_everything_and_never_ends() {
    let reader = BodyReader::until_close();
    let outcome = whole_and_bytewise(&reader, b"0\r\n\r\nx");
    assert_eq!(outcome, Ok((6, b"0\r\n\r\nx".to_vec(), false)));
}

#[test]
fn the_reader_stays_small() {
    assert!(size_of::<BodyReader>() <= 24, "{}", size_of::<BodyReader>());
}

/// Whether every quoted string ends (RFC 9110 section 5.6.4).
fn strings_are_closed(mut text: &[u8]) -> bool {
    let mut inside = false;
    loop {
        text = match (inside, text) {
            (_, []) => return !inside,
            (true, [b'\\', _, rest @ ..]) => rest,
            (_, [b'"', rest @ ..]) => {
                inside = !inside;
                rest
            }
            (_, [_, rest @ ..]) => rest,
        };
    }
}

/// Chunked coding as the RFC writes it, over the whole body at once; `None`
/// where it is malformed or not whole.
fn decode(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let line = |at: usize| {
        let end = at + memchr::memmem::find(&bytes[at..], b"\r\n")?;
        let line = &bytes[at..end];
        (!line.contains(&b'\r') && !line.contains(&b'\n')).then_some((line, end + 2))
    };
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let (size, next) = line(at)?;
        let (digits, extension) = match size.iter().position(|byte| *byte == b';') {
            Some(semicolon) => size.split_at(semicolon),
            None => (size, &b""[..]),
        };
        let printable = |byte: &u8| *byte == b'\t' || (b' '..=b'~').contains(byte);
        let sound = (1..=15).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_hexdigit)
            && extension.len() <= 257
            && extension.iter().all(printable)
            && strings_are_closed(extension);
        if !sound {
            return None;
        }
        let size = usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        data.extend_from_slice(bytes.get(at..end)?);
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return Some((at, data));
        }
        let colon = trailer.iter().position(|byte| *byte == b':')?;
        let (name, value) = trailer.split_at(colon);
        let head_only = HEAD_ONLY
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if name.is_empty() || !name.iter().copied().all(is_token) || head_only {
            return None;
        }
        if value.iter().any(control) {
            return None;
        }
    }
}

fn near_bodies() -> impl Strategy<Value = Vec<u8>> {
    let chunk = ("[a-c]{1,20}", prop::option::of("[a-c=\"]{0,5}")).prop_map(|(data, extension)| {
        let extension = extension.map_or(String::new(), |extension| format!(";{extension}"));
        format!("{:x}{extension}\r\n{data}\r\n", data.len())
    });
    let trailer = prop_oneof![
        4 => "[a-z-]{1,10}: [a-z]{0,5}\r\n",
        1 => prop::sample::select(vec!["Host: a\r\n".into(), "te:\r\n".into(), "a\r\n".to_string()]),
    ];
    let sound = (
        prop::collection::vec(chunk, 0..5),
        "0{1,3}\r\n",
        prop::collection::vec(trailer, 0..3),
        "\r\n[a-z]{0,5}",
    )
        .prop_map(|(chunks, last, trailers, end)| {
            (chunks.concat() + &last + &trailers.concat() + &end).into_bytes()
        });
    let spoilt =
        (sound, any::<Option<(prop::sample::Index, u8)>>()).prop_map(|(mut bytes, spoil)| {
            if let Some((at, byte)) = spoil {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        });
    let near = prop::collection::vec(
        prop::sample::select(b"0123aF;: \r\n\r\n\r\n\0".to_vec()),
        0..40,
    );
    prop_oneof![3 => spoilt, 1 => near]
}

/// Cuts `bytes` at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        pieces.push(&bytes[start..place]);
        start = place;
    }
    pieces.push(&bytes[start..]);
    pieces
}

proptest! {
    #[test]
    fn chunked_bodies_are_read_as_the_model_reads_them(
        bytes in near_bodies(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = feed(chunked(), [&bytes[..]]);
        prop_assert_eq!(&whole, &feed(chunked(), cut(&bytes, &places)));
        let ended = match whole {
            Ok((consumed, data, true)) => Some((consumed, data)),
            Ok((consumed, _, false)) => {
                prop_assert_eq!(consumed, bytes.len());
                None
            }
            Err(_) => None,
        };
        prop_assert_eq!(&ended, &decode(&bytes));
        // What passes to the letter passes in a response, too.
        if let Some((consumed, data)) = ended {
            let of_response = BodyReader::of_response(Length::Unknown);
            let outcome = feed(of_response, [&bytes[..]]);
            prop_assert_eq!(outcome, Ok((consumed, data, true)));
        }
    }

    #[test]
    fn bodies_of_a_length_are_split_off_there(
        bytes in prop::collection::vec(any::<u8>(), 0..50),
        length in 0..60_u64,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let reader = BodyReader::of_response(Length::Exact(length));
        let taken = bytes.len().min(length as usize);
        let expected = (taken, bytes[..taken].to_vec(), bytes.len() as u64 >= length);
        prop_assert_eq!(feed(reader, cut(&bytes, &places)), Ok(expected));
    }
}

#[test]
fn it_tells_which_bytes_belong_to_the_trailers() {
    let body = b"1\r\na\r\n0\r\nX: 1\r\n\r\nGET";
    let (start, end) = (9, body.len() - 3);
    for cut in 0..=end {
        let mut reader = chunked();
        let first = reader.advance(&body[..cut]).unwrap();
        let second = reader.advance(&body[cut..]).unwrap();
        assert_eq!(first.trailers, cut.saturating_sub(start), "{cut}");
        assert_eq!(second.trailers, end - cut.max(start), "{cut}");
        assert!(reader.is_done());
    }
}
