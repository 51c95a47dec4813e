//! The server name that a TLS client asks for, read from its first bytes.
//!
//! The `server_name` extension (RFC 6066 section 3) of a ClientHello (RFC 8446
//! section 4.1.2), which may come in several records. Nothing is decrypted or
//! checked beyond what finding the name needs: the bytes go on as they came.

/// Bytes looked at. A hello with post-quantum key shares has about 2 KiB, one
/// with a session ticket or two 4 KiB; a name further back is not looked for.
const HELLO_BYTES_MAX: usize = 16 * 1024;

/// A record's content type and a handshake message's type.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The extension's number and, inside, the type of a DNS name.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a TLS connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// The hello has not ended.
    NeedMore,
    /// The name asked for, in lower case.
    Name(String),
    /// The hello names no server, or it is none.
    Absent,
}

/// Reads the name out of all that a client has sent.
pub fn server_name(bytes: &[u8]) -> ServerName {
    match hello(bytes) {
        Hello::Whole(hello) => match Reader(&hello).name() {
            Some(name) => ServerName::Name(name.to_ascii_lowercase()),
            None => ServerName::Absent,
        },
        Hello::Partial if bytes.len() < HELLO_BYTES_MAX => ServerName::NeedMore,
        Hello::Partial | Hello::Other => ServerName::Absent,
    }
}

enum Hello {
    /// The ClientHello without its header.
    Whole(Vec<u8>),
    Partial,
    Other,
}

/// Puts the message together from the records it is spread over.
fn hello(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut records = Reader(bytes);
    loop {
        if let [CLIENT_HELLO, high, middle, low, body @ ..] = message.as_slice() {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if length > HELLO_BYTES_MAX {
                return Hello::Other;
            }
            if let Some(body) = body.get(..length) {
                return Hello::Whole(body.to_vec());
            }
        } else if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Hello::Other;
        }
        match records.u8() {
            None => return Hello::Partial,
            Some(HANDSHAKE) => {}
            Some(_) => return Hello::Other,
        }
        let Some(length) = records.u16().and_then(|_version| records.u16()) else {
            return Hello::Partial;
        };
        if length == 0 {
            return Hello::Other;
        }
        let part = records.take(usize::from(length).min(records.0.len()));
        message.extend_from_slice(part.unwrap_or_default());
    }
}

/// Takes fields off the front; `None` where there are too few bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The name in a ClientHello.
    fn name(&mut self) -> Option<&'a str> {
        self.take(2 + 32)?; // legacy_version, random
        let session_id = self.u8()?;
        self.take(session_id.into())?;
        self.vector()?; // cipher_suites
        let compression_methods = self.u8()?;
        self.take(compression_methods.into())?;
        let mut extensions = Reader(self.vector()?);
        loop {
            let (kind, data) = (extensions.u16()?, extensions.vector()?);
            if kind != SERVER_NAME {
                continue;
            }
            let mut list = Reader(Reader(data).vector()?);
            if list.u8()? != HOST_NAME {
                return None;
            }
            let name = str::from_utf8(list.vector()?).ok()?;
            let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            return sound.then_some(name);
        }
    }

    /// As many bytes as the two before them say.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests;
