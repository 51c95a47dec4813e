//! How a request changes on its way, whatever it is written as.

use std::fmt;

use crate::message::RequestHead;
use crate::message::fields::{Field, Kind};
use crate::message::trace::{BaggageRoom, Formats};

/// How a request head changes on its way.
#[derive(Debug, Clone, Copy)]
pub struct RequestRewrite<'a> {
    /// Bytes to take off the front of the path; where the rest does not start
    /// with a slash, one is put before it.
    pub strip_path: usize,
    /// The new `Host`.
    pub host: Option<&'a [u8]>,
    /// The upstream is itself a proxy: an absolute target stays one.
    pub keep_absolute: bool,
    /// Fields set: every one of the name is replaced by this one.
    pub set: &'a [(String, String)],
    /// Fields removed.
    pub remove: &'a [String],
    /// Which headers of a trace do not pass as they are: the upstream gets those
    /// in `add`, and `baggage` within its limits.
    pub trace: Formats,
    /// Fields added; ones of the same name are removed. With an empty value they are
    /// only removed.
    pub add: &'a [(&'a str, &'a [u8])],
    /// What shows who sends it: no other field of that name goes on, whoever says
    /// so.
    pub credential: Option<CredentialField<'a>>,
    /// The request was addressed to this proxy: `X-Upstream-Host` was for it and
    /// is removed.
    pub addressed_here: bool,
    /// So was `Proxy-Authorization`.
    pub presented_here: bool,
}

/// Writes the fields of a head that goes on.
pub(crate) trait FieldWriter {
    /// A field as it came.
    fn pass(&mut self, field: &Field);

    /// A field with this name and value.
    fn write(&mut self, name: &[u8], value: &[u8]);

    /// The same of a secret.
    fn write_secret(&mut self, name: &[u8], value: &[u8]) {
        self.write(name, value);
    }
}

impl RequestRewrite<'_> {
    /// Writes what goes on of the fields of a request, in order. `between_hops` decides
    /// about those that belong to the connection or say whom the request is for.
    #[inline(always)]
    pub(crate) fn pass_fields<W: FieldWriter>(
        &self,
        head: &[u8],
        request: &RequestHead,
        writer: &mut W,
        mut between_hops: impl FnMut(&mut W, &Field),
    ) {
        let mut baggage = BaggageRoom::default();
        for field in request.fields().iter() {
            match field.kind {
                Kind::Host
                | Kind::ContentLength
                | Kind::TransferEncoding
                | Kind::Connection
                | Kind::Te
                | Kind::Upgrade => between_hops(writer, field),
                Kind::HopByHop | Kind::KeepAlive | Kind::Named => {}
                Kind::ForProxy if self.addressed_here => {}
                Kind::ProxyCredentials if self.presented_here => {}
                _ if self.replaces(field.name(head)) => {}
                Kind::TraceContext if self.trace.tracecontext => {}
                Kind::B3 if self.trace.b3 => {}
                Kind::Baggage if self.trace.baggage => {
                    let value = field.value(head);
                    match baggage.take(value) {
                        whole if whole.len() == value.len() => writer.pass(field),
                        [] => {}
                        part => writer.write(field.name(head), part),
                    }
                }
                _ => writer.pass(field),
            }
        }
    }

    /// Writes the fields that the proxy sets and adds, behind all others.
    #[inline(always)]
    pub(crate) fn own_fields<W: FieldWriter>(&self, writer: &mut W) {
        let credential = self.credential.as_ref();
        for (name, value) in self.set {
            if !credential.is_some_and(|field| field.is_named(name.as_bytes())) {
                writer.write(name.as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in self.add.iter().filter(|(_, value)| !value.is_empty()) {
            writer.write(name.as_bytes(), value);
        }
        if let Some(field) = credential {
            writer.write_secret(field.name.as_bytes(), field.value);
        }
    }

    /// Whether a field of this name gives way to one of the proxy's own, or to none.
    #[inline(always)]
    fn replaces(&self, name: &[u8]) -> bool {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let credential = self.credential.as_ref();
        credential.is_some_and(|field| field.is_named(name))
            || self.add.iter().any(|(added, _)| is(added.as_bytes()))
            || self.set.iter().any(|(set, _)| is(set.as_bytes()))
            || self.remove.iter().any(|removed| is(removed.as_bytes()))
    }
}

/// A request's head as it goes.
#[derive(Debug)]
pub(crate) struct WrittenHead<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The target.
    pub target: &'a [u8],
    /// Names and values of the fields, in order.
    pub fields: Vec<(&'a [u8], &'a [u8])>,
}

/// A field whose value nobody but the upstream is to see.
#[derive(Clone, Copy)]
pub struct CredentialField<'a> {
    /// Its name as it is sent.
    pub name: &'a str,
    /// Its value as it is sent.
    pub value: &'a [u8],
}

impl CredentialField<'_> {
    /// Whether a field of this name is one of its own.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name.as_bytes())
    }
}

impl fmt::Debug for CredentialField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}
