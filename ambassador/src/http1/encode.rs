//! Writes a head for the next hop: order and case stay, fields for one hop
//! only go, the proxy's own come last.

use std::ops::Range;

use crate::http1::reply::phrase;
use crate::message::fields::{Field, Fields, Form, Kind};
use crate::message::{
    FieldWriter, Framing, Length, RequestHead, RequestRewrite, ResponseHead, Version, WrittenHead,
};

/// How a response head changes on its way.
#[derive(Debug, Clone, Copy)]
pub struct ResponseRewrite {
    /// The client's connection ends after it.
    pub close: bool,
    /// The client speaks HTTP/1.0: keep-alive has to be said.
    pub http10: bool,
    /// What becomes of the framing of its body.
    pub framing: Framing,
}

/// Appends the head of a request to `out`.
#[inline(always)]
pub fn write_request(
    out: &mut Vec<u8>,
    head: &[u8],
    request: &RequestHead,
    rewrite: &RequestRewrite<'_>,
) {
    let absolute = rewrite.keep_absolute && request.is_absolute();
    out.extend_from_slice(request.method_bytes(head));
    out.push(b' ');
    if absolute && request.version == Version::Http2 {
        write_absolute(out, head, request);
    } else if absolute || request.is_connect() {
        out.extend_from_slice(request.target(head));
    } else {
        let path = request.path(head);
        let path = &path[rewrite.strip_path.min(path.len())..];
        let is_asterisk = rewrite.strip_path == 0 && path == b"*";
        if !path.starts_with(b"/") && !is_asterisk {
            out.push(b'/');
        }
        out.extend_from_slice(path);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");

    // The authority of the target is what counts; Host follows it
    // (RFC 9112 section 3.2.2).
    let host = rewrite.host.or_else(|| match request.is_connect() {
        true => Some(request.target(head)),
        false => request.target_authority(head),
    });
    let upgrade = request.is_upgrade();
    let mut connection: Option<&[u8]> = match (upgrade, request.takes_trailers()) {
        (true, true) => Some(b"Upgrade, TE"),
        (true, false) => Some(b"Upgrade"),
        (false, true) => Some(b"TE"),
        (false, false) => None,
    };
    let mut host_written = false;
    let mut lines = Lines::new(out, head, request.fields());
    rewrite.pass_fields(head, request, &mut lines, |lines, field| match field.kind {
        Kind::Host => {
            host_written = true;
            match host {
                Some(host) => lines.write(field.name(head), host),
                None => lines.pass(field),
            }
        }
        Kind::Connection => {
            if let Some(tokens) = connection.take() {
                lines.write(field.name(head), tokens);
            }
        }
        Kind::Te if request.takes_trailers() && is_first(request.fields(), field) => {
            lines.write(field.name(head), b"trailers");
        }
        Kind::Te => {}
        Kind::Upgrade if !upgrade => {}
        _ => lines.pass(field),
    });
    if !host_written {
        // HTTP/1.1 has to have one, be it empty (RFC 9112 section 3.2).
        lines.write(b"Host", host.unwrap_or_default());
    }
    if let Some(tokens) = connection {
        lines.write(b"Connection", tokens);
    }
    if request.version == Version::Http2 && request.length() == Length::Unknown {
        lines.write(b"Transfer-Encoding", b"chunked");
    }
    rewrite.own_fields(&mut lines);
    lines.end();
}

/// Makes an absolute form of the parts that HTTP/2 has instead of one. That of
/// `*` has no path (RFC 9112 section 3.2.4).
fn write_absolute(out: &mut Vec<u8>, head: &[u8], request: &RequestHead) {
    out.extend_from_slice(b"http://");
    out.extend_from_slice(request.authority_bytes(head));
    match request.path(head) {
        b"*" => {}
        path => out.extend_from_slice(path),
    }
}

/// A request's head with other values of some fields: those that `value_of` gives for
/// name and value. `None`: all stay as they are.
///
/// # Errors
/// Those of `value_of`.
pub(crate) fn with_values<V: AsRef<[u8]>, E>(
    head: &[u8],
    mut value_of: impl FnMut(&[u8], &[u8]) -> Result<Option<V>, E>,
) -> Result<Option<NewValues<V>>, E> {
    let mut values = Vec::new();
    let mut at = 0;
    for line in head.split_inclusive(|b| *b == b'\n') {
        let start = at;
        at += line.len();
        let line = line.trim_ascii_end();
        let Some(colon) = line.iter().position(|b| *b == b':').filter(|_| start > 0) else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii_start();
        if let Some(new) = value_of(&line[..colon], value)? {
            let end = start + line.len();
            values.push((end - value.len()..end, new));
        }
    }
    Ok((!values.is_empty()).then_some(NewValues(values)))
}

/// Where in a head values change, and to what.
pub(crate) struct NewValues<V>(Vec<(Range<usize>, V)>);

impl<V: AsRef<[u8]>> NewValues<V> {
    /// How long a head of so many bytes gets at most.
    pub(crate) fn bytes_max(&self, head: usize) -> usize {
        let added = self.0.iter().map(|(_, value)| value.as_ref().len());
        head + added.sum::<usize>()
    }

    /// Appends the head with them to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, head: &[u8]) {
        let mut at = 0;
        for (place, value) in &self.0 {
            out.extend_from_slice(&head[at..place.start]);
            out.extend_from_slice(value.as_ref());
            at = place.end;
        }
        out.extend_from_slice(&head[at..]);
    }
}

/// The parts of a request's head that [`write_request`] wrote.
pub(crate) fn written_head(head: &[u8]) -> WrittenHead<'_> {
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
    let mut words = lines.next().unwrap_or_default().split(|b| *b == b' ');
    let (method, target) = (words.next(), words.next());
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    WrittenHead {
        method: method.unwrap_or_default(),
        target: target.unwrap_or_default(),
        fields: fields.collect(),
    }
}

/// A request's head with more fields behind those that it has.
pub(crate) fn with_fields(out: &mut Vec<u8>, head: &[u8], fields: &[(&'static str, Vec<u8>)]) {
    // The empty line stays last.
    let (lines, end) = head.split_at(head.len().saturating_sub(2));
    out.extend_from_slice(lines);
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(end);
}

/// Appends the head of a response to `out`.
pub fn write_response(
    out: &mut Vec<u8>,
    head: &[u8],
    response: &ResponseHead,
    rewrite: &ResponseRewrite,
) {
    let switching = response.status() == 101;
    out.extend_from_slice(b"HTTP/1.1 ");
    let status_and_phrase = response.status_and_phrase(head);
    out.extend_from_slice(status_and_phrase);
    if status_and_phrase.len() == 3 {
        // The space belongs to the grammar, the phrase need not be there.
        out.push(b' ');
        if response.version == Version::Http2 {
            out.extend_from_slice(phrase(response.status()).as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    let mut lines = Lines::new(out, head, response.fields());
    for field in response.fields().iter() {
        match field.kind {
            Kind::Connection if switching && is_first(response.fields(), field) => {
                lines.write(field.name(head), b"Upgrade");
            }
            Kind::Connection | Kind::HopByHop | Kind::KeepAlive | Kind::Te | Kind::Named => {}
            Kind::ContentLength | Kind::TransferEncoding if response.is_unframed() => {}
            Kind::Upgrade if !switching => {}
            Kind::TransferEncoding if rewrite.framing == Framing::Removed => {}
            _ => lines.pass(field),
        }
    }
    if rewrite.framing == Framing::Added {
        lines.write(b"Transfer-Encoding", b"chunked");
    }
    if response.version == Version::Http2 && response.length() == Length::Exact(0) {
        // That its stream has ended is all that has said so.
        lines.write(b"Content-Length", b"0");
    }
    let interim = (100..200).contains(&response.status());
    if rewrite.close && !interim {
        lines.write(b"Connection", b"close");
    } else if rewrite.http10 && !interim {
        lines.write(b"Connection", b"keep-alive");
    }
    lines.end();
}

/// Writes field lines. Those that go on as they are and followed each other
/// are copied together.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    head: &'a [u8],
    /// What is to be copied, without the end of its last line.
    run: Range<usize>,
    /// Not every line goes on as it is.
    loose: bool,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut Vec<u8>, head: &'a [u8], fields: &Fields) -> Self {
        Self {
            out,
            head,
            run: 0..0,
            loose: fields.is_loose(),
        }
    }

    /// A field without blanks before the colon, in one line with CR and LF.
    fn write_anew(&mut self, field: &Field) {
        if field.form != Form::Anew {
            self.out.extend_from_slice(&self.head[field.line()]);
            self.out.extend_from_slice(b"\r\n");
            return;
        }
        self.out.extend_from_slice(field.name(self.head));
        self.out.push(b':');
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        for line in field.value(self.head).split(is_end) {
            // The empty part between CR and LF, or a line of blanks.
            let line = line.trim_ascii();
            if !line.is_empty() {
                self.out.push(b' ');
                self.out.extend_from_slice(line);
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// The empty line.
    #[inline(always)]
    fn end(mut self) {
        self.copy();
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn copy(&mut self) {
        if !self.run.is_empty() {
            self.copy_run();
        }
    }

    #[inline(always)]
    fn copy_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.out.extend_from_slice(&self.head[run]);
        self.out.extend_from_slice(b"\r\n");
    }
}

impl FieldWriter for Lines<'_> {
    /// A field as it was sent, or as it should have been.
    #[inline(always)]
    fn pass(&mut self, field: &Field) {
        if self.loose {
            return self.write_anew(field);
        }
        let line = field.line();
        // Between two lines stand CR and LF, and white space that does not
        // go on.
        if line.start != self.run.end + 2 {
            self.copy();
            self.run.start = line.start;
        }
        self.run.end = line.end;
    }

    /// A field of our own.
    fn write(&mut self, name: &[u8], value: &[u8]) {
        self.copy();
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }
}

fn is_first(fields: &Fields, field: &Field) -> bool {
    let first = fields.iter().find(|other| other.kind == field.kind);
    first.is_some_and(|first| std::ptr::eq(first, field))
}

#[cfg(test)]
mod tests;
