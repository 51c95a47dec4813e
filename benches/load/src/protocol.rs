//! What is asked and answered.
//!
//! HTTP: `GET /SIZE` (any path that ends so) is answered 200 with SIZE bytes.
//! Opaque: 16 bytes, [`MAGIC`] and SIZE as a big-endian integer, are answered
//! with SIZE bytes. No HTTP method begins like the magic, so that a proxy that
//! looks at the first bytes relays them.

/// The longest answer that can be asked for, in bytes.
pub const SIZE_MAX: u64 = 16 << 20;

/// The first half of an opaque request.
pub const MAGIC: [u8; 8] = *b"\0AMBLOAD";

/// The length of an opaque request, in bytes.
pub const OPAQUE_REQUEST_BYTES: usize = 16;

/// The longest head of a message, in bytes.
pub const HEAD_MAX: usize = 64 << 10;

/// The most header fields of a message.
pub const FIELDS_MAX: usize = 128;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// The opaque exchange: TCP, to a proxy.
    Tcp,
}

/// The opaque request for `size` bytes.
pub fn opaque_request(size: u64) -> [u8; OPAQUE_REQUEST_BYTES] {
    let mut request = [0; OPAQUE_REQUEST_BYTES];
    let (magic, rest) = request.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    rest.copy_from_slice(&size.to_be_bytes());
    request
}

/// The HTTP request for `size` bytes; `fields` are lines without their end.
pub fn http_request(host: &str, path_prefix: &str, size: u64, fields: &[String]) -> Vec<u8> {
    let prefix = path_prefix.trim_end_matches('/');
    let mut request = format!("GET {prefix}/{size} HTTP/1.1\r\nhost: {host}\r\n");
    for field in fields {
        request.push_str(field);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// Whether a `connection` field closes after this message, for a message of
/// minor version `minor`.
pub fn closes(minor: u8, fields: &[httparse::Header<'_>]) -> bool {
    let mut closes = minor == 0;
    for field in fields {
        if !field.name.eq_ignore_ascii_case("connection") {
            continue;
        }
        for option in field.value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return true;
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                closes = false;
            }
        }
    }
    closes
}
