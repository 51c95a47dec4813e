//! What a client asks for.

use crate::protocol::{
    FIELDS_MAX, HEAD_MAX, MAGIC, OPAQUE_REQUEST_BYTES, Protocol, SIZE_MAX, closes,
};

/// A request that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// How many received bytes it took.
    pub length: usize,
    /// How many bytes are wanted.
    pub size: u64,
    /// Whether the connection ends after the answer.
    pub close: bool,
}

/// A request that cannot be answered; nor can what follows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

/// The request that `received` begins with, once it is whole.
pub fn parse(protocol: Protocol, received: &[u8]) -> Result<Option<Request>, Refused> {
    match protocol {
        Protocol::Http => parse_http(received),
        Protocol::Tcp => parse_opaque(received),
    }
}

fn parse_http(received: &[u8]) -> Result<Option<Request>, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if received.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refused),
    };
    let size = request.path.and_then(size_of_path).ok_or(Refused)?;
    if request.method != Some("GET") || request.headers.iter().any(has_body) {
        return Err(Refused);
    }
    Ok(Some(Request {
        length,
        size,
        close: closes(request.version.unwrap_or(0), request.headers),
    }))
}

/// The number that a path ends with: a proxy may or may not have removed what
/// is before it.
fn size_of_path(path: &str) -> Option<u64> {
    let (_, last) = path.rsplit_once('/')?;
    last.parse().ok().filter(|size| *size <= SIZE_MAX)
}

fn has_body(field: &httparse::Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("transfer-encoding")
        || field.name.eq_ignore_ascii_case("content-length") && field.value.trim_ascii() != b"0"
}

fn parse_opaque(received: &[u8]) -> Result<Option<Request>, Refused> {
    let known = received.len().min(MAGIC.len());
    if received[..known] != MAGIC[..known] {
        return Err(Refused);
    }
    let Some(size) = received.get(MAGIC.len()..OPAQUE_REQUEST_BYTES) else {
        return Ok(None);
    };
    let size = size
        .iter()
        .fold(0, |size, byte| size << 8 | u64::from(*byte));
    if size > SIZE_MAX {
        return Err(Refused);
    }
    Ok(Some(Request {
        length: OPAQUE_REQUEST_BYTES,
        size,
        close: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{http_request, opaque_request};

    fn asked(text: &str) -> Result<Option<Request>, Refused> {
        parse(Protocol::Http, text.as_bytes())
    }

    #[test]
    fn requests_of_the_generator_are_understood_when_whole() {
        let fields = ["x-one: 1".to_owned()];
        for (protocol, bytes) in [
            (Protocol::Http, http_request("a", "/p/", 1024, &fields)),
            (Protocol::Tcp, opaque_request(1024).to_vec()),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(parse(protocol, &bytes[..end]), Ok(None), "{end} bytes");
            }
            let request = parse(protocol, &bytes).unwrap().unwrap();
            assert_eq!((request.length, request.size), (bytes.len(), 1024));
            assert!(!request.close);
        }
    }

    #[test]
    fn a_pipelined_request_is_left_for_later() {
        let request = asked("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        let request = request.unwrap().unwrap();
        assert_eq!((request.length, request.size), (19, 1));
    }

    #[test]
    fn the_connection_ends_when_the_client_says_so() {
        for (text, close) in [
            ("GET /1 HTTP/1.0\r\n\r\n", true),
            ("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
            ("GET /1 HTTP/1.1\r\nconnection: x, Close\r\n\r\n", true),
        ] {
            assert_eq!(asked(text).unwrap().unwrap().close, close, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        for text in [
            "POST /1 HTTP/1.1\r\n\r\n",
            "GET /1 HTTP/1.1\r\ncontent-length: 1\r\n\r\n",
            "GET /16777217 HTTP/1.1\r\n\r\n",
            "GET /none HTTP/1.1\r\n\r\n",
            "\0\0",
        ] {
            assert_eq!(asked(text), Err(Refused), "{text}");
        }
        assert_eq!(parse(Protocol::Tcp, b"GET /"), Err(Refused));
        assert_eq!(
            parse(Protocol::Tcp, &opaque_request(SIZE_MAX + 1)),
            Err(Refused)
        );
    }
}
