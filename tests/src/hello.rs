//! TLS hellos as bytes: sound ones, and hostile ones for whatever reads them.

use std::sync::Arc;

/// Bytes of a hello that a reader takes at most; of all records it comes in, twice
/// that.
const READER_BYTES_MAX: usize = 64 * 1024;

/// The extension with the name of the server.
const SERVER_NAME: u16 = 0;

/// A beginning of a connection that no sound client makes.
pub struct Hostile {
    /// What is wrong with it.
    pub fault: &'static str,
    /// All that is sent.
    pub bytes: Vec<u8>,
    /// What can be told of it.
    pub reading: Reading,
}

/// What a reader that needs the server name alone can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The name, whatever else is wrong.
    Named,
    /// That it names no server, or is no TLS.
    Nameless,
    /// That it is more than anyone takes.
    TooLong,
}
use Reading::{Named, Nameless, TooLong};

/// What a client sends first that wants this server: a hello of TLS 1.3 and 1.2 in
/// one record.
pub fn sound(name: &str) -> Vec<u8> {
    in_records(&message(&extensions(name)), 16_384)
}

/// The same by rustls, with a key share for X25519MLKEM768 of 1,216 bytes.
pub fn post_quantum(name: &'static str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.try_into().expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), name);
    let mut hello = Vec::new();
    let written = client.expect("a sound configuration").write_tls(&mut hello);
    written.expect("a vector takes all");
    hello
}

/// A handshake message in records of so many bytes.
pub fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|part| record(22, part))
        .collect()
}

/// A record of this type.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1], &two(content.len())[..], content].concat()
}

/// The message of a hello with these extensions.
pub fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [
        &body_before(&[7; 32]),
        &two(extensions.len())[..],
        extensions,
    ]
    .concat();
    handshake(1, &body)
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

/// A hello up to its extensions, with this session id.
fn body_before(session_id: &[u8]) -> Vec<u8> {
    const SUITES: [u8; 10] = [0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2f, 0xc0, 0x2b];
    let random = [0xa5; 32];
    let length = [session_id.len() as u8];
    [
        &[3, 3],
        &random[..],
        &length,
        session_id,
        &two(SUITES.len()),
        &SUITES,
        &[1, 0],
    ]
    .concat()
}

/// Those of a client that wants this server.
pub fn extensions(name: &str) -> Vec<u8> {
    [server_name(&[(0, name.as_bytes())]), without_name()].concat()
}

fn without_name() -> Vec<u8> {
    let share = [&[0, 36, 0, 0x1d, 0, 32][..], &[9; 32]].concat();
    [
        extension(10, &[0, 4, 0, 0x1d, 0, 0x17]),
        extension(13, &[0, 6, 4, 3, 8, 4, 4, 1]),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(51, &share),
    ]
    .concat()
}

/// An extension.
pub fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &two(data.len()), data].concat()
}

/// The extension with these names, of this type each.
pub fn server_name(names: &[(u8, &[u8])]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, &[u8])| [&[*kind][..], &two(name.len()), name].concat();
    let list: Vec<u8> = names.iter().flat_map(entry).collect();
    extension(SERVER_NAME, &[&two(list.len())[..], &list].concat())
}

fn two(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}

/// Hellos that ask for this server, each wrong in a way of its own.
pub fn hostile(name: &str) -> Vec<Hostile> {
    let mut all = odd_records(name);
    all.extend(odd_lengths(name));
    all.extend(odd_names(name));
    all.extend(odd_extensions(name));
    all.extend(no_hellos(name));
    all
}

fn one(fault: &'static str, reading: Reading, bytes: Vec<u8>) -> Hostile {
    Hostile {
        fault,
        bytes,
        reading,
    }
}

fn odd_records(name: &str) -> Vec<Hostile> {
    let message = message(&extensions(name));
    let (front, back) = message.split_at(20);
    let around = |kind, content: &[u8]| {
        [record(22, front), record(kind, content), record(22, back)].concat()
    };
    let version = |high, low| {
        let mut hello = sound(name);
        (hello[1], hello[2]) = (high, low);
        hello
    };
    let mut oversized = sound(name);
    (oversized[3], oversized[4]) = (0xff, 0xff);
    let endless = handshake(1, &vec![0; READER_BYTES_MAX]);
    vec![
        one("a byte in each record", Named, in_records(&message, 1)),
        one("two bytes in each record", Named, in_records(&message, 2)),
        one(
            "empty records before",
            Named,
            [record(22, &[]).repeat(3), sound(name)].concat(),
        ),
        one("an empty record amid", Named, around(22, &[])),
        one("a record longer than allowed", Named, oversized),
        one("the version of no record", Named, version(3, 0xff)),
        one("SSL 2 in the record", Nameless, version(2, 0)),
        one("an alert amid", Nameless, around(21, &[1, 0])),
        one("a change of ciphers amid", Nameless, around(20, &[1])),
        one("data amid", Nameless, around(23, &[0; 40])),
        one("a heartbeat amid", Nameless, around(24, &[1, 0x40, 0])),
        one(
            "a byte in each record, without end",
            TooLong,
            in_records(&endless, 1),
        ),
        one(
            "empty records without end",
            TooLong,
            record(22, &[]).repeat(READER_BYTES_MAX),
        ),
    ]
}

fn odd_lengths(name: &str) -> Vec<Hostile> {
    let before = body_before(&[7; 32]);
    let whole = |body: Vec<u8>| in_records(&handshake(1, &body), 16_384);
    let extensions = extensions(name);
    let length = |length: usize| [&two(length)[..], &extensions].concat();
    let at = |place: usize, value: u8| {
        let mut body = [before.clone(), length(extensions.len())].concat();
        body[place] = value;
        whole(body)
    };
    vec![
        one(
            "extensions beyond the end",
            Nameless,
            whole([before.clone(), length(0xffff)].concat()),
        ),
        one(
            "extensions that end amid a name",
            Nameless,
            whole([before.clone(), length(9)].concat()),
        ),
        one(
            "extensions without a length",
            Nameless,
            whole(before.clone()),
        ),
        one("a session id beyond the end", Nameless, at(34, 0xff)),
        one("suites beyond the end", Nameless, at(67, 0xff)),
        one("compression methods beyond the end", Nameless, at(79, 0xff)),
        one("an odd number of bytes in the suites", Nameless, at(68, 9)),
        one("a hello without a byte", Nameless, whole(Vec::new())),
        one("a version that nobody knows", Named, at(1, 0x7f)),
        one(
            "16 MiB",
            TooLong,
            in_records(&[1, 0xff, 0xff, 0xff, 3, 3], 16_384),
        ),
        one(
            "a byte more than anyone takes",
            TooLong,
            in_records(&handshake(1, &vec![3; READER_BYTES_MAX + 1]), 16_384),
        ),
    ]
}

fn odd_names(name: &str) -> Vec<Hostile> {
    let named = |names: &[(u8, &[u8])]| {
        in_records(
            &message(&[server_name(names), without_name()].concat()),
            16_384,
        )
    };
    let raw = |data: &[u8]| {
        let extensions = [extension(SERVER_NAME, data), without_name()].concat();
        in_records(&message(&extensions), 16_384)
    };
    let good = name.as_bytes();
    let with_zero = [good, b"\0.test"].concat();
    let upper = [name.to_ascii_uppercase().as_bytes(), b"."].concat();
    vec![
        one("an empty name", Nameless, named(&[(0, b"")])),
        one("a dot for a name", Nameless, named(&[(0, b".")])),
        one("no name in the list", Nameless, named(&[])),
        one("a NUL in the name", Nameless, named(&[(0, &with_zero)])),
        one(
            "a line in the name",
            Nameless,
            named(&[(0, b"a\r\nb.test")]),
        ),
        one(
            "a name that is no UTF-8",
            Nameless,
            named(&[(0, b"\xff\xfe.test")]),
        ),
        one(
            "a name of 60,000 bytes",
            Nameless,
            named(&[(0, &[b'a'; 60_000])]),
        ),
        one(
            "a name of another type alone",
            Nameless,
            named(&[(9, good)]),
        ),
        one(
            "a name beyond its list",
            Nameless,
            raw(&[0, 4, 0, 0, 99, b'a']),
        ),
        one(
            "a list beyond its extension",
            Nameless,
            raw(&[0, 99, 0, 0, 1, b'a']),
        ),
        one("an extension without a list", Nameless, raw(&[])),
        one(
            "upper case and a dot at the end",
            Named,
            named(&[(0, &upper)]),
        ),
        one(
            "a name of another type before",
            Named,
            named(&[(9, b"?"), (0, good)]),
        ),
        one("two names", Named, named(&[(0, good), (0, b"other.test")])),
    ]
}

fn odd_extensions(name: &str) -> Vec<Hostile> {
    let around = |before: &[u8], after: &[u8]| {
        let extensions = [before, &extensions(name), after].concat();
        in_records(&message(&extensions), 16_384)
    };
    let grease = [extension(0x0a0a, &[]), extension(0xfafa, &[0])].concat();
    let encrypted = extension(0xfe0d, &[3; 400]);
    let other = server_name(&[(0, b"other.test")]);
    let encrypted_alone = [extension(0xffce, &[3; 400]), without_name()].concat();
    vec![
        one("GREASE", Named, around(&grease, &grease)),
        one(
            "60,000 bytes before the name",
            Named,
            around(&extension(21, &[0; 60_000]), &[]),
        ),
        one(
            "1,000 extensions before the name",
            Named,
            around(&grease.repeat(500), &[]),
        ),
        one("the name twice", Named, around(&[], &other)),
        one("an encrypted hello inside", Named, around(&encrypted, &[])),
        one(
            "an encrypted name alone",
            Nameless,
            in_records(&message(&encrypted_alone), 16_384),
        ),
    ]
}

fn no_hellos(name: &str) -> Vec<Hostile> {
    let hello = sound(name);
    let after = |before: &[u8]| [before, &hello].concat();
    let ssl2 = [&[0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16][..], &[5; 37]].concat();
    vec![
        one("an alert first", Nameless, after(&[21, 3, 3, 0, 2, 1, 0])),
        one(
            "a change of ciphers first",
            Nameless,
            after(&[20, 3, 3, 0, 1, 1]),
        ),
        one("data first", Nameless, after(&[23, 3, 3, 0, 1, 1])),
        one("a hello of SSL 2", Nameless, ssl2),
        one(
            "the hello of a server",
            Nameless,
            record(22, &handshake(2, &[3; 80])),
        ),
        one(
            "a finished message",
            Nameless,
            record(22, &handshake(20, &[3; 12])),
        ),
        one(
            "another protocol behind two bytes",
            Nameless,
            [22, 3, 0xff].repeat(99),
        ),
        one("two hellos", Named, hello.repeat(2)),
    ]
}
