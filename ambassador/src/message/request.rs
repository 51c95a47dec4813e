//! The head of a request.

use crate::addr::Authority;
use crate::message::fields::{Fields, Kind, Span, part};
use crate::message::{BadMessage, Length, Method, Version, grpc};

/// A parsed request head; scratch that is used again for the next one.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// What is known of its method.
    pub(crate) method: Method,
    /// Where the method is.
    pub(crate) method_text: Span,
    /// Where the target is.
    pub(crate) target: Span,
    /// Where the authority is of an absolute form, within the target, or that of
    /// HTTP/2, beside it.
    pub(crate) target_authority: Option<Span>,
    /// Where the protocol is that an extended CONNECT names (RFC 8441 section 4). Such a
    /// request is read as the GET that HTTP/1.1 has for it.
    pub(crate) protocol: Option<Span>,
    /// Where the path of the target begins.
    pub(crate) path_start: u32,
    /// What its sender speaks.
    pub(crate) version: Version,
    /// How long its body is.
    pub(crate) length: Length,
    /// Its fields.
    pub(crate) fields: Fields,
}

impl RequestHead {
    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was sent.
    pub fn method_bytes<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.method_text)
    }

    /// The request target as it was sent.
    pub fn target<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.target)
    }

    /// Path and query; for an absolute form with neither, `/`, or `*` where
    /// the method is OPTIONS (RFC 9112 section 3.2.4). Where an absolute form
    /// has a query but no path, it begins with the question mark.
    pub fn path<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        match part(head, (self.path_start, self.target.1)) {
            [] if self.method == Method::Options => b"*",
            [] => b"/",
            path => path,
        }
    }

    /// Whether the target names its authority: `http://host/path`.
    pub fn is_absolute(&self) -> bool {
        self.target_authority.is_some()
    }

    /// The bytes of the authority in an absolute target.
    pub fn target_authority<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        Some(part(head, self.target_authority?))
    }

    /// Whom the request is for: the authority of its target, else `Host`
    /// (RFC 9112 section 3.3). `None`: HTTP/1.0 without either, or an empty
    /// `Host`. `before` is that of an earlier request, whose memory is used again.
    #[inline(always)]
    pub fn authority(
        &self,
        head: &[u8],
        before: Option<Authority>,
    ) -> Result<Option<Authority>, BadMessage> {
        let bytes = self.authority_bytes(head);
        if bytes.is_empty() && !self.is_connect() && self.target_authority.is_none() {
            return Ok(None);
        }
        Authority::parse_again(bytes, before)
            .map(Some)
            .map_err(|_| BadMessage::Host)
    }

    /// The bytes that say whom the request is for; empty: nothing does.
    #[inline(always)]
    pub fn authority_bytes<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        match (self.is_connect(), self.target_authority) {
            (true, _) => self.target(head),
            (_, Some(authority)) => part(head, authority),
            (_, None) => self.fields.first(head, Kind::Host).unwrap_or_default(),
        }
    }

    /// The value of the first field of this name.
    pub fn field<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.fields.value(head, name)
    }

    /// The fields, in order.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// How long the body is.
    pub fn length(&self) -> Length {
        self.length
    }

    /// HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.version == Version::Http10
    }

    /// Whether the connection may carry another request (RFC 9112 section 9.3).
    pub fn keep_alive(&self) -> bool {
        !self.fields.close && (!self.is_http10() || self.fields.keep_alive)
    }

    /// Whether a switch of protocols is asked for: by an upgrade (RFC 9110 section 7.8)
    /// or an extended CONNECT. Asking for `h2c` does not count.
    pub fn is_upgrade(&self) -> bool {
        let is_upgrade = self.fields.upgrade
            && self.fields.names_protocol()
            && !self.is_http10()
            && !self.is_connect();
        is_upgrade || self.is_extended_connect()
    }

    /// Whether the switch is asked for as HTTP/2 does.
    pub(crate) fn is_extended_connect(&self) -> bool {
        self.protocol.is_some()
    }

    /// The protocol to switch to, where an upgrade and an extended CONNECT can say the
    /// same; `None`: there is none, or a choice, or the request is more than that.
    pub(crate) fn protocol<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(protocol) = self.protocol {
            return Some(part(head, protocol));
        }
        let only = self.fields.only(Kind::Upgrade, BadMessage::FieldValue);
        let protocol = only.ok()??.value(head);
        let is_bare = self.method == Method::Get && self.length == Length::None;
        (self.is_upgrade() && is_bare && !protocol.contains(&b',')).then_some(protocol)
    }

    /// Whether what follows the head is no body, but for whoever takes it up on the
    /// switch, or is at the other end of a CONNECT.
    pub(crate) fn opens_tunnel(&self) -> bool {
        self.is_connect() || self.is_upgrade()
    }

    /// Whether the client can take trailer fields (RFC 9110 section 10.1.4).
    pub fn takes_trailers(&self) -> bool {
        self.fields.takes_trailers && !self.is_http10()
    }

    /// Whether it is a call of gRPC, which goes over HTTP/2 alone.
    #[inline]
    pub(crate) fn is_call(&self, head: &[u8]) -> bool {
        self.version == Version::Http2
            && self.method == Method::Post
            && self
                .fields
                .value(head, "content-type")
                .is_some_and(grpc::is_call)
    }

    /// CONNECT to the authority that is its target, not to a protocol.
    pub fn is_connect(&self) -> bool {
        self.method == Method::Connect && self.protocol.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample;

    /// What an extended CONNECT can say is one protocol, and nothing else.
    #[test]
    fn a_protocol_is_the_only_one_of_a_bare_request() {
        let protocol = |line: &str, upgrade: &str, length| {
            let head = format!("{line} HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n\r\n");
            let mut request = sample::request(&head);
            request.length = length;
            let protocol = request.protocol(head.as_bytes()).map(<[u8]>::to_vec);
            protocol.map(|protocol| String::from_utf8(protocol).expect("text"))
        };
        let asked = "Connection: Upgrade\r\nUpgrade: websocket";
        let told = protocol("GET /", asked, Length::None);
        assert_eq!(told.as_deref(), Some("websocket"));
        assert_eq!(protocol("GET /", asked, Length::Exact(1)), None);
        for (line, upgrade) in [
            ("GET /", "Upgrade: websocket"),
            ("GET /", "Connection: Upgrade"),
            ("GET /", "Connection: Upgrade\r\nUpgrade: a, b"),
            ("GET /", "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b"),
            ("GET /", "Connection: Upgrade\r\nUpgrade: h2c"),
            ("POST /", asked),
        ] {
            assert_eq!(
                protocol(line, upgrade, Length::None),
                None,
                "{line} {upgrade}"
            );
        }
    }
}
