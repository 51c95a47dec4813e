//! Checks answers while they arrive, in pieces of any length.

use super::errors::ErrorKind;
use crate::protocol::{FIELDS_MAX, HEAD_MAX, Protocol, closes};

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Partial,
    /// This was all of it, and it is right.
    Whole(Afterwards),
}

/// What an answer says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Another request may follow.
    Reusable,
    /// The peer closes it.
    Closing,
}

/// The answers of one connection, one at a time.
pub struct Answer {
    protocol: Protocol,
    /// The bytes that each must have.
    size: u64,
    /// The beginning of a head that came in pieces.
    head: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Head,
    Body { left: u64, afterwards: Afterwards },
}

impl Answer {
    /// Answers of `size` bytes.
    pub fn new(protocol: Protocol, size: u64) -> Self {
        let mut answer = Self {
            protocol,
            size,
            head: Vec::new(),
            state: State::Head,
        };
        answer.expect();
        answer
    }

    /// Forgets what came of the last answer: a request is sent.
    pub fn expect(&mut self) {
        self.head.clear();
        self.state = match self.protocol {
            Protocol::Http => State::Head,
            Protocol::Tcp => State::Body {
                left: self.size,
                afterwards: Afterwards::Reusable,
            },
        };
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, ErrorKind> {
        match self.state {
            State::Body { left, afterwards } => self.feed_body(bytes.len(), left, afterwards),
            // The usual case: nothing is copied.
            State::Head if self.head.is_empty() => match self.parse_head(bytes)? {
                Some(head) => self.end_head(&head, bytes.len()),
                None => {
                    self.head.extend_from_slice(bytes);
                    Ok(Progress::Partial)
                }
            },
            State::Head => {
                self.head.extend_from_slice(bytes);
                match self.parse_head(&self.head)? {
                    Some(head) => self.end_head(&head, self.head.len()),
                    None => Ok(Progress::Partial),
                }
            }
        }
    }

    fn parse_head(&self, bytes: &[u8]) -> Result<Option<Head>, ErrorKind> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(ErrorKind::Malformed),
        };
        if response.code != Some(200) {
            return Err(ErrorKind::Status);
        }
        if content_length(response.headers) != Some(self.size) {
            return Err(ErrorKind::Length);
        }
        let afterwards = if closes(response.version.unwrap_or(0), response.headers) {
            Afterwards::Closing
        } else {
            Afterwards::Reusable
        };
        Ok(Some(Head { length, afterwards }))
    }

    /// Goes on with what followed `head` in `received` bytes.
    fn end_head(&mut self, head: &Head, received: usize) -> Result<Progress, ErrorKind> {
        self.feed_body(received - head.length, self.size, head.afterwards)
    }

    fn feed_body(
        &mut self,
        received: usize,
        left: u64,
        afterwards: Afterwards,
    ) -> Result<Progress, ErrorKind> {
        let Some(left) = left.checked_sub(received as u64) else {
            return Err(ErrorKind::Surplus);
        };
        self.state = State::Body { left, afterwards };
        Ok(match left {
            0 => Progress::Whole(afterwards),
            _ => Progress::Partial,
        })
    }
}

/// A valid head.
struct Head {
    /// In bytes.
    length: usize,
    afterwards: Afterwards,
}

fn content_length(fields: &[httparse::Header<'_>]) -> Option<u64> {
    let mut found = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("content-length"));
    let value = found.next()?.value;
    match found.next() {
        None => std::str::from_utf8(value).ok()?.trim().parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Result<Progress, ErrorKind> = Ok(Progress::Whole(Afterwards::Reusable));

    fn head(fields: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte_however_it_is_cut() {
        let mut bytes = head("Date: now\r\nContent-Length: 5\r\n");
        bytes.extend_from_slice(b"\r\n\r\nx");
        let last = bytes.len();
        let mut answer = Answer::new(Protocol::Http, 5);
        // A second round: nothing is left of the first.
        for _ in 0..2 {
            for piece in 1..=last {
                answer.expect();
                let mut fed = 0;
                for bytes in bytes.chunks(piece) {
                    fed += bytes.len();
                    let expected = if fed == last {
                        WHOLE
                    } else {
                        Ok(Progress::Partial)
                    };
                    assert_eq!(answer.feed(bytes), expected, "{fed} by {piece}");
                }
            }
        }
    }

    #[test]
    fn an_opaque_answer_is_counted() {
        let mut answer = Answer::new(Protocol::Tcp, 3);
        assert_eq!(answer.feed(b"xx"), Ok(Progress::Partial));
        assert_eq!(answer.feed(b"x"), WHOLE);
        answer.expect();
        assert_eq!(answer.feed(b"xxxx"), Err(ErrorKind::Surplus));
    }

    #[test]
    fn an_empty_body_ends_with_the_head() {
        let mut answer = Answer::new(Protocol::Http, 0);
        assert_eq!(answer.feed(&head("content-length: 0\r\n")), WHOLE);
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        for (bytes, kind) in [
            (&b"HTTP/1.1 503 No\r\n\r\n"[..], ErrorKind::Status),
            (b"SSH-2.0-x\r\n", ErrorKind::Malformed),
            (&head("content-length: 4\r\n"), ErrorKind::Length),
            (&head("transfer-encoding: chunked\r\n"), ErrorKind::Length),
            (
                &head("content-length: 3\r\ncontent-length: 3\r\n"),
                ErrorKind::Length,
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxxxx",
                ErrorKind::Surplus,
            ),
            (&vec![b'H'; HEAD_MAX], ErrorKind::Malformed),
        ] {
            let got = Answer::new(Protocol::Http, 3).feed(bytes);
            assert_eq!(got, Err(kind), "{}", String::from_utf8_lossy(bytes));
        }
        let mut long = head("content-length: 3\r\n");
        long.truncate(long.len() - 2);
        long.extend_from_slice(b"a: ");
        long.resize(HEAD_MAX, b'a');
        let got = Answer::new(Protocol::Http, 3).feed(&long);
        assert_eq!(got, Err(ErrorKind::Malformed));
    }

    #[test]
    fn an_answer_says_when_its_connection_ends() {
        let mut answer = Answer::new(Protocol::Http, 0);
        let closing = head("content-length: 0\r\nconnection: close\r\n");
        let whole = Ok(Progress::Whole(Afterwards::Closing));
        assert_eq!(answer.feed(&closing), whole);
    }
}
