//! A case: what one end of a connection sends to the proxy, and what has to come of it.

use ambassador_tests::http2::code;

use super::end::{End, Role};

/// What an end does.
pub type Act = fn(&mut End) -> &mut End;

/// A case of h2spec, and its mirror image.
pub struct Case {
    /// The suite and the section there, which is that of RFC 7540 or 7541.
    pub section: &'static str,
    pub says: &'static str,
    act: Act,
    expects: Expect,
    mirror: Mirror,
    pub asked: Asked,
    pub begins: Begins,
}

/// What a server does, where it cannot do what the client does.
#[derive(Default)]
struct Mirror {
    says: Option<&'static str>,
    act: Option<Act>,
    expects: Option<Expect>,
    reply: Option<Reply>,
}

/// What the proxy has to do.
#[derive(Clone, Copy)]
pub enum Expect {
    /// It takes it: the exchange is completed, and the connection goes on.
    Fine,
    /// The connection goes on, and no stream was reset by the proxy.
    Alive,
    /// RST_STREAM with one of these codes; the connection goes on.
    StreamError(&'static [u32]),
    /// The same on another stream than that of the exchange.
    StreamErrorOn(u32, &'static [u32]),
    /// GOAWAY with one of these codes, and the end of the connection.
    ConnectionError(&'static [u32]),
    /// The end of the connection, in order.
    Leaves,
}

/// What the caller gets of a server's answer.
#[derive(Clone, Copy)]
pub enum Reply {
    /// All of it.
    Whole,
    /// 502 with this reason.
    Refused(&'static str),
    /// A part of it and the end of its connection, or 502 with this reason where the
    /// proxy had not begun to pass it on.
    Cut(&'static str),
}

/// The request that a server answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Get,
    Head,
    /// A POST whose content has yet to come.
    Post,
}

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Both ends have said what they have to.
    Greeted,
    /// Nothing was said, and as a client, TLS has agreed upon HTTP/2.
    Silent,
}

/// A case where the proxy has to take what the client sends.
pub fn case(section: &'static str, says: &'static str, act: Act) -> Case {
    Case {
        section,
        says,
        act,
        expects: Expect::Fine,
        mirror: Mirror::default(),
        asked: Asked::Get,
        begins: Begins::Greeted,
    }
}

impl Case {
    pub fn expects(mut self, expects: Expect) -> Case {
        self.expects = expects;
        self
    }

    /// What the server does in its place.
    pub fn mirrored(mut self, says: &'static str, act: Act) -> Case {
        (self.mirror.says, self.mirror.act) = (Some(says), Some(act));
        self
    }

    /// What comes of that, where it is not the same.
    pub fn mirror_expects(mut self, expects: Expect) -> Case {
        self.mirror.expects = Some(expects);
        self
    }

    pub fn replies(mut self, reply: Reply) -> Case {
        self.mirror.reply = Some(reply);
        self
    }

    pub fn asked(mut self, asked: Asked) -> Case {
        self.asked = asked;
        self
    }

    pub fn begins(mut self, begins: Begins) -> Case {
        self.begins = begins;
        self
    }

    /// What the end with this role does.
    pub fn act(&self, role: Role) -> Act {
        match role {
            Role::Client => self.act,
            Role::Server => self.mirror.act.unwrap_or(self.act),
        }
    }

    /// What comes of it.
    pub fn expected(&self, role: Role) -> Expect {
        match role {
            Role::Client => self.expects,
            Role::Server => self.mirror.expects.unwrap_or(self.expects),
        }
    }

    /// What the caller of a server gets.
    pub fn reply(&self) -> Reply {
        let usual = match self.expected(Role::Server) {
            Expect::Fine | Expect::Alive | Expect::Leaves => Reply::Whole,
            _ => Reply::Refused("protocol-error"),
        };
        self.mirror.reply.unwrap_or(usual)
    }

    /// Whether the message can be passed on whole, in either direction.
    pub fn passes(&self) -> bool {
        matches!(self.reply(), Reply::Whole)
    }

    /// What it is about.
    pub fn name(&self, role: Role) -> String {
        let says = match role {
            Role::Client => self.says,
            Role::Server => self.mirror.says.unwrap_or(self.says),
        };
        let proxy = match role {
            Role::Client => "server",
            Role::Server => "client",
        };
        format!("{} — {says} — proxy as {proxy}", self.section)
    }
}

/// The codes of errors, as the cases name them.
pub const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
pub const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
pub const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];
pub const STREAM_CLOSED: &[u32] = &[code::STREAM_CLOSED];
pub const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];
pub const REFUSED: &[u32] = &[code::REFUSED_STREAM];
