//! The server name that a TLS client asks for, read from its first bytes.
//!
//! The `server_name` extension (RFC 6066 section 3) of a ClientHello (RFC 8446
//! section 4.1.2), which may come in several records. Nothing is decrypted or
//! checked beyond what finding the name needs: the bytes go on as they came.

use std::borrow::Cow;

/// Bytes of a hello at most: what Go and rustls take. One with post-quantum key
/// shares has about 2 KiB, one with session tickets 4 KiB.
const HELLO_BYTES_MAX: usize = 64 * 1024;

/// Bytes read at most until it has ended. Records have a header of 5 bytes each, so
/// who sends a record for each byte of a hello can send 21 KiB of it.
const READ_BYTES_MAX: usize = 2 * HELLO_BYTES_MAX;

/// A name at most (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 255;

/// The content type of a record with a handshake message (RFC 8446 section 5.1).
pub(crate) const TLS_HANDSHAKE: u8 = 22;
/// The type of that message.
const CLIENT_HELLO: u8 = 1;

/// Bytes before a record's fragment and before a handshake message's body.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// The extension's number and, inside, the type of a DNS name.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a TLS connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// The hello has not ended.
    NeedMore,
    /// The name asked for, in lower case and without a dot at its end.
    Name(String),
    /// The hello names no server, or it is none.
    Absent,
    /// The hello is longer than any that a server takes, or in too many records.
    TooLong,
}

/// Reads the name out of all that a client has sent.
pub fn server_name(bytes: &[u8]) -> ServerName {
    HelloReader::default().read(bytes)
}

/// Reads a hello while it comes, each byte once: a client that sends it byte by byte
/// costs no more than one that sends it whole.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// Bytes of the connection that were read.
    read: usize,
    /// Bytes of the current record that are still to come.
    record: usize,
    /// Bytes of the handshake message among those that were read.
    message: usize,
    /// Its header, as far as it was read.
    header: [u8; MESSAGE_HEADER],
}

impl HelloReader {
    /// What all bytes so far say; those of the call before are the first of these.
    pub fn read(&mut self, bytes: &[u8]) -> ServerName {
        let bytes = &bytes[..bytes.len().min(READ_BYTES_MAX)];
        loop {
            let rest = &bytes[self.read..];
            let fragment = &rest[..self.record.min(rest.len())];
            let header = self.header.iter_mut().skip(self.message);
            header
                .zip(fragment)
                .for_each(|(place, byte)| *place = *byte);
            self.message += fragment.len();
            self.read += fragment.len();
            self.record -= fragment.len();
            if let Some(told) = self.told(&bytes[..self.read]) {
                return told;
            }
            let rest = &rest[fragment.len()..];
            match rest {
                [] => break,
                [TLS_HANDSHAKE, _, _, high, low, ..] => {
                    // One without content is odd, but servers pass over it.
                    self.record = u16::from_be_bytes([*high, *low]).into();
                    self.read += RECORD_HEADER;
                }
                [TLS_HANDSHAKE, ..] => break,
                _ => return ServerName::Absent,
            }
        }
        match bytes.len() < READ_BYTES_MAX {
            true => ServerName::NeedMore,
            false => ServerName::TooLong,
        }
    }

    /// What the message in these records says, where enough of it is there.
    fn told(&self, records: &[u8]) -> Option<ServerName> {
        let [kind, high, middle, low] = self.header;
        if self.message > 0 && kind != CLIENT_HELLO {
            return Some(ServerName::Absent);
        }
        if self.message < MESSAGE_HEADER {
            return None;
        }
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > HELLO_BYTES_MAX {
            return Some(ServerName::TooLong);
        }
        let end = MESSAGE_HEADER + length;
        if self.message < end {
            return None;
        }
        let message = message(records, end);
        Some(match Reader(&message[MESSAGE_HEADER..end]).name() {
            Some(name) => ServerName::Name(name.to_ascii_lowercase()),
            None => ServerName::Absent,
        })
    }
}

/// The message of `length` bytes or more that is spread over these records; not copied
/// where it is all in one.
fn message(records: &[u8], length: usize) -> Cow<'_, [u8]> {
    let mut message = Vec::new();
    let mut rest = records;
    while let [_, _, _, high, low, fragments @ ..] = rest {
        let record = usize::from(u16::from_be_bytes([*high, *low]));
        let (fragment, more) = fragments.split_at(record.min(fragments.len()));
        if message.is_empty() && fragment.len() >= length {
            return Cow::Borrowed(fragment);
        }
        message.extend_from_slice(fragment);
        rest = more;
    }
    Cow::Owned(message)
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
            return Reader(Reader(data).vector()?).host_name();
        }
    }

    /// The first DNS name in a list of names. Names of other types would have a
    /// length as well (RFC 6066 section 3).
    fn host_name(&mut self) -> Option<&'a str> {
        loop {
            let (kind, name) = (self.u8()?, self.vector()?);
            if kind != HOST_NAME {
                continue;
            }
            let name = str::from_utf8(name).ok()?;
            let name = name.strip_suffix('.').unwrap_or(name);
            let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic());
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
