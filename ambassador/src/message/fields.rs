//! Header fields as ranges into the bytes of a head.

mod kind;

use std::ops::Range;

pub(crate) use self::kind::{Kind, is_between_ends, kind_of};
use crate::message::BadMessage;
use crate::message::keep_alive::KeepAlive;

/// A part of the bytes of a head, from where to where; heads are far below 4 GiB.
pub(crate) type Span = (u32, u32);

/// Fields in one head at most.
pub(crate) const FIELDS_MAX: usize = 256;

/// Fields that `Connection` may name at most: every field of such a head is
/// looked up among them.
const NAMED_MAX: u32 = 64;

/// Bytes of a malformed line that are kept, to tell which it was.
const BLAMED_BYTES_MAX: usize = 64;

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Where its name is.
    pub(crate) name: Span,
    /// Where its value is, without the white space around it.
    pub(crate) value: Span,
    /// What this proxy knows of the name.
    pub kind: Kind,
    /// How it goes on.
    pub form: Form,
}

/// Whether a line may be passed on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It may.
    AsSent,
    /// It may, and no hop may put it into a table: its value is a secret that could be
    /// guessed bit by bit (RFC 7541 section 7.1.3).
    Secret,
    /// There are blanks before its colon, or it is folded: it is written anew.
    Anew,
}

/// The fields of a head, and what they say about the connection.
#[derive(Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    /// A bit for each [`Kind`] that occurs: most heads have few.
    kinds: u32,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// What `Keep-Alive` says.
    pub terms: KeepAlive,
    /// `Connection: upgrade`.
    pub upgrade: bool,
    /// `Upgrade` names a protocol.
    names_protocol: bool,
    /// `Upgrade` names `h2c`.
    names_h2c: bool,
    /// `TE: trailers`: the sender can take trailer fields.
    pub takes_trailers: bool,
    /// How many fields `Connection` names that are for this hop only.
    named_by_connection: u32,
    /// Not every line may be passed on as it came, nor every line end.
    loose: bool,
    /// The beginning of the line that was refused.
    blamed: Vec<u8>,
}

impl Field {
    /// The name as it was sent.
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.name)
    }

    /// The value without the white space around it.
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.value)
    }

    /// Where name, colon, white space and value are.
    pub fn line(&self) -> Range<usize> {
        self.name.0 as usize..self.value.1 as usize
    }
}

impl Fields {
    /// Forgets the head before.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.kinds = 0;
        (self.close, self.keep_alive, self.upgrade) = (false, false, false);
        (self.names_protocol, self.names_h2c) = (false, false);
        self.takes_trailers = false;
        self.named_by_connection = 0;
        self.loose = false;
        self.terms = KeepAlive::default();
        self.blamed.clear();
    }

    /// Takes in the next field of a head, and what it says about the connection.
    #[inline(always)]
    pub(crate) fn push(&mut self, head: &[u8], field: Field) {
        self.list.push(field);
        self.kinds |= field.kind.bit();
        self.loose |= field.form == Form::Anew;
        let value = part(head, field.value);
        let has = |known: &[u8]| tokens(value).any(|token| token.eq_ignore_ascii_case(known));
        match field.kind {
            Kind::Connection => self.read_connection(value),
            Kind::Upgrade => {
                self.names_protocol |= !value.is_empty();
                self.names_h2c |= has(b"h2c");
            }
            Kind::KeepAlive => self.terms.read(value),
            Kind::Te => self.takes_trailers |= has(b"trailers"),
            _ => {}
        }
    }

    /// The field that was taken in last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Field> {
        self.list.last_mut()
    }

    /// All fields of `head` have been taken in.
    ///
    /// # Errors
    /// `Connection` names more fields than may be looked up.
    #[inline]
    pub(crate) fn close(&mut self, head: &[u8]) -> Result<(), BadMessage> {
        match self.named_by_connection {
            0 => {}
            1..=NAMED_MAX => self.take_named(head),
            _ => return Err(BadMessage::TooManyFields),
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is a protocol to switch to. HTTP/2 in the clear would be a
    /// tunnel in which one request picks the upstream of all that follow; RFC 9113
    /// section 3.1 has dropped it.
    pub(crate) fn names_protocol(&self) -> bool {
        self.names_protocol && !self.names_h2c
    }

    /// Not every line can be passed on as it came.
    pub(crate) fn loosen(&mut self) {
        self.loose = true;
    }

    /// Whether some line has to be written anew, or ends with LF alone.
    pub fn is_loose(&self) -> bool {
        self.loose
    }

    /// The name, or what stands for it, of the line for which a head was
    /// refused; empty where it was not for a line.
    pub fn blamed(&self) -> &[u8] {
        &self.blamed
    }

    /// Takes note of the name on the line for which a head is refused.
    #[cold]
    pub(crate) fn blame(&mut self, name: &[u8]) {
        let name = &name[..name.len().min(BLAMED_BYTES_MAX)];
        self.blamed.extend_from_slice(name);
    }

    /// Every field, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// The value of the first field of this name that `Connection` does not name.
    pub fn value<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let field = self.list.iter().find(|field| {
            field.name(head).eq_ignore_ascii_case(name.as_bytes()) && field.kind != Kind::Named
        })?;
        Some(field.value(head))
    }

    /// The value of the first field of this kind.
    pub fn first<'a>(&self, head: &'a [u8], kind: Kind) -> Option<&'a [u8]> {
        if !self.has(kind) {
            return None;
        }
        let field = self.list.iter().find(|field| field.kind == kind)?;
        Some(field.value(head))
    }

    /// Whether there is a field of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// The one field of this kind; the error is `repeated` where there are
    /// more.
    pub fn only(&self, kind: Kind, repeated: BadMessage) -> Result<Option<&Field>, BadMessage> {
        if !self.has(kind) {
            return Ok(None);
        }
        let mut of_kind = self.list.iter().filter(|field| field.kind == kind);
        match (of_kind.next(), of_kind.next()) {
            (only, None) => Ok(only),
            _ => Err(repeated),
        }
    }

    /// Takes what `Connection` names out of what has a meaning: it does not go on,
    /// so that nothing may be decided by it that is told of the next hop.
    #[cold]
    fn take_named(&mut self, head: &[u8]) {
        self.kinds = 0;
        for at in 0..self.list.len() {
            let Field { name, kind, .. } = self.list[at];
            if kind.may_be_named() && self.names_for_this_hop(head, part(head, name)) {
                self.list[at].kind = Kind::Named;
            }
            self.kinds |= self.list[at].kind.bit();
        }
    }

    /// Whether `Connection` names fields of this name, those behind the body
    /// included (RFC 9110 section 7.6.1).
    pub fn names_for_this_hop(&self, head: &[u8], name: &[u8]) -> bool {
        self.named_by_connection > 0
            && self
                .list
                .iter()
                .filter(|field| field.kind == Kind::Connection)
                .flat_map(|field| tokens(field.value(head)))
                .any(|token| token.eq_ignore_ascii_case(name))
    }

    fn read_connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.named_by_connection += 1;
            }
        }
    }
}

/// A part of a head.
pub(crate) fn part(head: &[u8], (start, end): Span) -> &[u8] {
    &head[start as usize..end as usize]
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
