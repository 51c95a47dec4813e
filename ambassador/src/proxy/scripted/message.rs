//! Reads messages at the scripted ends, with a parser that is not the proxy's.

use crate::ring::{Chunk, Gather};
use crate::transport::Transport;

/// Bytes of a connection as they come.
pub(crate) struct Wire {
    /// The connection.
    pub(crate) stream: Transport,
    unread: Vec<u8>,
    /// Bytes that have come.
    pub(crate) received: u64,
    /// How it has ended.
    pub(crate) end: Option<End>,
}

/// How the other side of a connection has ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It sends no more.
    Fin,
    /// It has failed.
    Reset,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// After so many bytes.
    Exact(usize),
    /// With a last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// A field as it came.
pub(crate) type Field = (String, String);

impl Wire {
    /// Nothing of this connection was read.
    pub(crate) fn new(stream: Transport) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            received: 0,
            end: None,
        }
    }

    /// Sends bytes; `false`: the other side is gone.
    pub(crate) async fn send(&self, bytes: impl Into<Vec<u8>>) -> bool {
        let gather = Gather::from(Chunk::from(bytes.into()));
        self.stream.send(gather).await.is_ok()
    }

    /// Takes what more has come; `false`: that was all.
    pub(crate) async fn more(&mut self) -> bool {
        match self.stream.recv().await {
            Ok(Some(chunk)) => {
                self.unread.extend_from_slice(&chunk);
                self.received += chunk.len() as u64;
                true
            }
            ended => {
                let is_reset = ended.is_err();
                self.end = Some(match is_reset {
                    true => End::Reset,
                    false => End::Fin,
                });
                false
            }
        }
    }

    /// The next bytes as text, so many of them; fewer: that was all.
    pub(crate) async fn text(&mut self, length: usize) -> String {
        while self.unread.len() < length && self.more().await {}
        let length = length.min(self.unread.len());
        String::from_utf8(self.unread.drain(..length).collect()).expect("it is text")
    }

    /// All that comes until the end, as text.
    pub(crate) async fn rest(&mut self) -> String {
        self.text(usize::MAX).await
    }

    /// The bytes of a head, which ends with an empty line; `None`: it ends before.
    pub(crate) async fn head(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.unread.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = end {
                return Some(self.unread.drain(..end + 4).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// A body; `None`: it was cut.
    pub(crate) async fn body(&mut self, length: Length) -> Option<Vec<u8>> {
        match length {
            Length::Exact(length) => self.exactly(length).await,
            Length::UntilClose => {
                while self.more().await {}
                Some(std::mem::take(&mut self.unread))
            }
            Length::Chunked => {
                let mut body = Vec::new();
                loop {
                    let (start, size) = loop {
                        match httparse::parse_chunk_size(&self.unread) {
                            Ok(httparse::Status::Complete((start, size))) => break (start, size),
                            Ok(httparse::Status::Partial) if self.more().await => {}
                            _ => return None,
                        }
                    };
                    self.unread.drain(..start);
                    let chunk = self.exactly(size as usize + 2).await?;
                    if size == 0 {
                        return Some(body);
                    }
                    body.extend_from_slice(&chunk[..chunk.len() - 2]);
                }
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }
}

/// The fields that the parser has found.
pub(crate) fn fields(parsed: &[httparse::Header<'_>]) -> Vec<Field> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let field = |field: &httparse::Header<'_>| (field.name.to_owned(), text(field.value));
    parsed.iter().map(field).collect()
}

/// The value of a field.
pub(crate) fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    let mut fields = fields.iter();
    let (_, value) = fields.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// How the body ends behind these fields; `None`: they do not say.
pub(crate) fn length(fields: &[Field]) -> Option<Length> {
    if field(fields, "transfer-encoding").is_some() {
        return Some(Length::Chunked);
    }
    let length = field(fields, "content-length")?;
    Some(Length::Exact(length.parse().expect("a number")))
}

/// The first bytes of a TLS client that asks for a server of this name.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let short = |length: usize| (length as u16).to_be_bytes();
    let list = [&[0][..], &short(name.len()), name.as_bytes()].concat();
    let extension = [&short(list.len())[..], &list].concat();
    let extension = [&[0, 0][..], &short(extension.len()), &extension].concat();
    let mut body = vec![3; 2 + 32];
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(short(extension.len()));
    body.extend(extension);
    let hello = [&[1, 0][..], &short(body.len()), &body].concat();
    [&[22, 3, 1][..], &short(hello.len()), &hello].concat()
}
