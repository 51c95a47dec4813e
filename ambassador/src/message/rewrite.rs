//! How a request changes on its way, whatever it is written as.

use std::fmt;

use crate::message::trace::Formats;

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
