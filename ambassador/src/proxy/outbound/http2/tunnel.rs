//! What a request asks for that is to become a tunnel, and the answer to it as HTTP/1.1
//! has it.

use crate::message::fields::{Field, Form, kind_of};
use crate::message::{Length, RequestHead, ResponseHead};
use crate::proxy::websocket;
use crate::ring::Chunk;

/// What a request asks for that is to become a tunnel.
pub(super) enum Tunnel {
    /// One to whatever it names (RFC 9113 section 8.5).
    Connect,
    /// Another protocol (RFC 8441).
    Switch {
        /// The protocol.
        to: Vec<u8>,
        /// How the handshake of its WebSocket is answered to a caller that speaks
        /// HTTP/1.1; empty: there is none.
        accept: String,
    },
}

impl Tunnel {
    /// What a request asks for that may ask for `protocol`; `None`: it is a request like
    /// any other.
    pub(super) fn of(request: &RequestHead, head: &[u8], protocol: Option<&[u8]>) -> Option<Self> {
        let Some(protocol) = protocol else {
            return request.is_connect().then_some(Self::Connect);
        };
        let key = match websocket::is_it(protocol) {
            true => request.field(head, websocket::KEY),
            false => None,
        };
        Some(Self::Switch {
            to: protocol.to_vec(),
            accept: key.map(websocket::accept).unwrap_or_default(),
        })
    }

    /// The head that says that there is one: that of a switch is 101, and names the
    /// protocol.
    pub(super) fn established(&self, response: &mut ResponseHead, head: Chunk) -> Chunk {
        (response.length, response.unframed) = (Length::None, true);
        let Self::Switch { to, accept } = self else {
            return head;
        };
        let mut bytes = head.to_vec();
        let mut append = |text: &[u8]| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(text);
            (start, bytes.len() as u32)
        };
        response.status = 101;
        response.status_line = append(b"101");
        let lines: [(&str, &[u8]); 3] = [
            ("Connection", b"Upgrade"),
            ("Upgrade", to),
            (websocket::ACCEPT, accept.as_bytes()),
        ];
        let fields = lines.map(|(name, value)| {
            append(b"\r\n");
            let kind = kind_of(name.as_bytes());
            let name = append(name.as_bytes());
            append(b": ");
            Field {
                name,
                value: append(value),
                kind,
                form: Form::AsSent,
            }
        });
        append(b"\r\n");
        for field in fields {
            if !field.value(&bytes).is_empty() {
                response.fields.push(&bytes, field);
            }
        }
        Chunk::from(bytes)
    }
}

/// What does not go along with an extended CONNECT to this protocol. With an empty value
/// it is removed.
pub(super) fn removed(protocol: Option<&[u8]>) -> &'static [(&'static str, &'static [u8])] {
    match protocol {
        Some(protocol) if websocket::is_it(protocol) => &[(websocket::KEY, b"")],
        _ => &[],
    }
}
