//! Heads as they go over HTTP/2, as lists of fields (RFC 9113 sections 8.2 and 8.3). The
//! encoder writes names in lower case.

use crate::message::fields::{Field, Form, Kind};
use crate::message::grpc;
use crate::message::{
    FieldList, FieldWriter, LocalReply, RequestHead, RequestRewrite, ResponseHead, Secrecy,
};

/// Appends the head of a request to `list`. With a `protocol`, it is an extended CONNECT
/// (RFC 8441 section 4).
pub(crate) fn write_request(
    list: &mut Vec<u8>,
    head: &[u8],
    request: &RequestHead,
    rewrite: &RequestRewrite<'_>,
    scheme: &str,
    protocol: Option<&[u8]>,
) {
    let mut writer = ListWriter::new(list, head);
    let authority = match rewrite.host {
        Some(host) => host,
        None => request.authority_bytes(head),
    };
    match protocol {
        None => writer.write(b":method", request.method_bytes(head)),
        Some(protocol) => {
            writer.write(b":method", b"CONNECT");
            writer.write(b":protocol", protocol);
        }
    }
    if !request.is_connect() {
        writer.write(b":scheme", scheme.as_bytes());
    }
    if !authority.is_empty() {
        writer.write(b":authority", authority);
    }
    if !request.is_connect() {
        writer.write_path(request.path(head), rewrite.strip_path);
    }
    let takes_trailers = request.takes_trailers();
    let mut te_written = false;
    rewrite.pass_fields(head, request, &mut writer, |writer, field| {
        match field.kind {
            Kind::ContentLength => writer.pass(field),
            Kind::Te if takes_trailers && !te_written => {
                te_written = true;
                writer.write(b"te", b"trailers");
            }
            _ => {}
        }
    });
    rewrite.own_fields(&mut writer);
}

/// Appends the head of a response to `list`. A switch is a success like any other, and
/// the handshake of WebSocket has no place in it (RFC 8441 section 5).
pub(crate) fn write_response(list: &mut Vec<u8>, head: &[u8], response: &ResponseHead) {
    let mut writer = ListWriter::new(list, head);
    let switches = response.status() == 101;
    let is_handshake = |field: &Field| {
        field
            .name(head)
            .eq_ignore_ascii_case(b"sec-websocket-accept")
    };
    writer.write_status(if switches { 200 } else { response.status() });
    for field in response.fields().iter() {
        match field.kind {
            Kind::Connection
            | Kind::HopByHop
            | Kind::KeepAlive
            | Kind::Te
            | Kind::Named
            | Kind::Upgrade
            | Kind::TransferEncoding => {}
            Kind::ContentLength if response.is_unframed() => {}
            _ if switches && is_handshake(field) => {}
            _ => writer.pass(field),
        }
    }
}

/// Appends the head that answers a CONNECT to `list`.
pub(crate) fn write_established(list: &mut Vec<u8>) {
    ListWriter::new(list, b"").write_status(200);
}

/// Appends the head of a reply made here to `list`; gives its body.
pub(crate) fn write_reply(list: &mut Vec<u8>, reply: &LocalReply) -> Vec<u8> {
    let mut writer = ListWriter::new(list, b"");
    writer.write_status(reply.status());
    if reply.code().is_some() {
        writer.write(b"content-type", grpc::CONTENT_TYPE.as_bytes());
        write_end_of_call(list, reply);
        return Vec::new();
    }
    let text = reply.text();
    writer.write(b"x-ambassador-reason", reply.reason().as_str().as_bytes());
    writer.write(b"content-type", b"text/plain");
    if let Some(wait) = reply.retry_after {
        let seconds = wait.as_secs_f64().ceil().to_string();
        writer.write(b"retry-after", seconds.as_bytes());
    }
    let length = (text.len() + 1).to_string();
    writer.write(b"content-length", length.as_bytes());
    match reply.without_body {
        true => Vec::new(),
        false => format!("{text}\n").into_bytes(),
    }
}

/// Appends what a call ends with to `list`, behind a head or as trailers.
pub(crate) fn write_end_of_call(list: &mut Vec<u8>, reply: &LocalReply) {
    let Some(code) = reply.code() else {
        return;
    };
    let mut writer = ListWriter::new(list, b"");
    writer.write(b"grpc-status", (code as u8).to_string().as_bytes());
    writer.write(b"grpc-message", grpc::encoded(reply.text()).as_bytes());
    writer.write(b"x-ambassador-reason", reply.reason().as_str().as_bytes());
    if let Some(wait) = reply.retry_after {
        let wait = wait.as_millis().to_string();
        writer.write(b"grpc-retry-pushback-ms", wait.as_bytes());
    }
}

/// Writes fields to a list.
struct ListWriter<'a> {
    list: FieldList<'a>,
    head: &'a [u8],
}

impl<'a> ListWriter<'a> {
    fn new(list: &'a mut Vec<u8>, head: &'a [u8]) -> Self {
        Self {
            list: FieldList(list),
            head,
        }
    }

    /// The path without `strip` bytes at its front.
    fn write_path(&mut self, path: &[u8], strip: usize) {
        let is_asterisk = strip == 0 && path == b"*";
        let path = &path[strip.min(path.len())..];
        match path.starts_with(b"/") || is_asterisk {
            true => self.write(b":path", path),
            false => self.write(b":path", &[b"/", path].concat()),
        }
    }

    fn write_status(&mut self, status: u16) {
        let digits = [status / 100, status / 10 % 10, status % 10];
        self.write(b":status", &digits.map(|digit| b'0' + digit as u8));
    }
}

impl FieldWriter for ListWriter<'_> {
    #[inline]
    fn pass(&mut self, field: &Field) {
        let (name, value) = (field.name(self.head), field.value(self.head));
        match field.form {
            Form::AsSent => self.list.push(name, value),
            Form::Secret => self.list.push_as(Secrecy::Secret, name, value),
            Form::Anew => self.list.push(name, &unfolded(value)),
        }
    }

    /// HTTP/2 has no white space around a value (RFC 9113 section 8.2.1).
    #[inline]
    fn write(&mut self, name: &[u8], value: &[u8]) {
        self.list.push(name, value.trim_ascii());
    }

    fn write_secret(&mut self, name: &[u8], value: &[u8]) {
        self.list.push_as(Secrecy::Secret, name, value.trim_ascii());
    }
}

/// A value that may go over several lines, in one.
#[cold]
fn unfolded(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|byte| matches!(byte, b'\r' | b'\n'));
    let lines = lines
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::grpc::Code;
    use crate::message::trace::Formats;
    use crate::message::{Method, Reason, field_list, sample};

    const PLAIN: RequestRewrite<'static> = RequestRewrite {
        strip_path: 0,
        host: None,
        keep_absolute: false,
        set: &[],
        remove: &[],
        trace: Formats::OFF,
        add: &[],
        credential: None,
        addressed_here: false,
        presented_here: false,
    };

    fn shown(list: &[u8]) -> String {
        let fields = field_list::fields(list);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = fields.map(|(name, value)| format!("{}={}", text(name), text(value)));
        lines.collect::<Vec<_>>().join(" ")
    }

    fn request(head: &str, rewrite: &RequestRewrite<'_>) -> String {
        let mut list = Vec::new();
        let request = sample::request(head);
        write_request(&mut list, head.as_bytes(), &request, rewrite, "http", None);
        shown(&list)
    }

    /// RFC 9113 section 8.2.2.
    #[test]
    fn what_belongs_to_an_http1_connection_does_not_go_on() {
        let head = "GET /a?b HTTP/1.1\r\nHost: h:1\r\nConnection: x-own, upgrade, te\r\n\
                    x-own: 1\r\nUpgrade: websocket\r\nKeep-Alive: timeout=1\r\n\
                    TE: trailers, gzip\r\nte: trailers\r\nAccept: */*\r\n\r\n";
        let expected = ":method=GET :scheme=http :authority=h:1 :path=/a?b te=trailers Accept=*/*";
        assert_eq!(request(head, &PLAIN), expected);
        let chunked = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
        let expected = ":method=POST :scheme=http :authority=h :path=/";
        assert_eq!(request(chunked, &PLAIN), expected);
    }

    #[test]
    fn host_and_path_are_those_for_the_upstream() {
        let rewrite = RequestRewrite {
            host: Some(b"up"),
            strip_path: 2,
            ..PLAIN
        };
        let head = "GET /p?q HTTP/1.1\r\nHost: h\r\n\r\n";
        let expected = ":method=GET :scheme=http :authority=up :path=/?q";
        assert_eq!(request(head, &rewrite), expected);
        let head = "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n";
        let expected = ":method=OPTIONS :scheme=http :authority=h :path=*";
        assert_eq!(request(head, &PLAIN), expected);
    }

    /// RFC 9113 section 8.2.1.
    #[test]
    fn a_value_of_its_own_goes_without_white_space_around() {
        let rewrite = RequestRewrite {
            add: &[("grpc-timeout", b"    1500m")],
            ..PLAIN
        };
        let head = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let expected = ":method=GET :scheme=http :authority=h :path=/ grpc-timeout=1500m";
        assert_eq!(request(head, &rewrite), expected);
    }

    #[test]
    fn a_response_goes_without_what_is_for_one_hop() {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
                    X: 1\r\n\r\n";
        let mut list = Vec::new();
        write_response(&mut list, head.as_bytes(), &sample::response(head));
        assert_eq!(shown(&list), ":status=200 X=1");
    }

    #[test]
    fn a_value_in_several_lines_goes_in_one() {
        assert_eq!(unfolded(b"a\r\n  b\r\n\t\r\n c"), b"a b c");
    }

    /// RFC 8441 section 4: the protocol has a place of its own.
    #[test]
    fn a_switch_is_an_extended_connect() {
        let head = "GET /chat?a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nX: 1\r\n\r\n";
        let (mut list, request) = (Vec::new(), sample::request(head));
        let protocol = request.protocol(head.as_bytes());
        write_request(
            &mut list,
            head.as_bytes(),
            &request,
            &PLAIN,
            "https",
            protocol,
        );
        let expected = ":method=CONNECT :protocol=websocket :scheme=https :authority=h \
                        :path=/chat?a X=1";
        assert_eq!(shown(&list), expected);
    }

    #[test]
    fn a_switch_is_a_success() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\
                    Sec-WebSocket-Protocol: chat\r\n\r\n";
        let response = sample::response(head);
        let mut list = Vec::new();
        write_response(&mut list, head.as_bytes(), &response);
        assert_eq!(shown(&list), ":status=200 Sec-WebSocket-Protocol=chat");
        list.clear();
        write_established(&mut list);
        assert_eq!(shown(&list), ":status=200");
    }

    #[test]
    fn a_reply_names_its_reason() {
        let mut list = Vec::new();
        let body = write_reply(&mut list, &LocalReply::new(Reason::NoRoute));
        let shown = shown(&list);
        let length = format!("content-length={}", body.len());
        assert!(
            shown.starts_with(":status=404 x-ambassador-reason=no-route "),
            "{shown}"
        );
        assert!(shown.ends_with(&length), "{shown}");
        let head = LocalReply::new(Reason::NoRoute).to(Method::Head);
        assert!(write_reply(&mut list, &head).is_empty());
    }

    #[test]
    fn a_reply_to_a_call_is_its_end() {
        let mut list = Vec::new();
        let reply = LocalReply::new(Reason::RateLimited)
            .with_detail("100 %")
            .with_retry_after(Duration::from_millis(1_200))
            .for_call(true);
        assert!(write_reply(&mut list, &reply).is_empty());
        let expected = ":status=200 content-type=application/grpc grpc-status=14 \
                        grpc-message=100 %25 x-ambassador-reason=rate-limited \
                        grpc-retry-pushback-ms=1200";
        assert_eq!(shown(&list), expected);
        let late = LocalReply::new(Reason::RequestTimeout).for_call(true);
        assert_eq!(late.code(), Some(Code::DeadlineExceeded));
    }
}
