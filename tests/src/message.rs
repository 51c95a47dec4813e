//! Requests and answers as a test says them, whatever protocol carries them.

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    /// What an upgrade is to.
    pub(crate) protocol: Option<String>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Body,
}

/// An answer of an upstream.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Body,
}

/// What follows a head.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// All of it, sent with the head.
    Whole(Vec<u8>),
    /// So many bytes, which the test sends later.
    Announced(usize),
    /// Some bytes, which the test sends later, and their end.
    Pieces,
    /// Bytes of a length that is not told, and trailers, sent with the head.
    Trailed(Vec<u8>, Vec<(String, String)>),
    /// What goes through a tunnel, these bytes with the head.
    Tunnel(Vec<u8>),
}

impl Call {
    /// A request without a body for `web.test`.
    pub fn new(method: &str, path: &str) -> Call {
        Call {
            method: method.to_owned(),
            authority: "web.test".to_owned(),
            path: path.to_owned(),
            protocol: None,
            fields: Vec::new(),
            body: Body::None,
        }
    }

    /// A GET for `web.test`.
    pub fn get(path: &str) -> Call {
        Call::new("GET", path)
    }

    /// A POST for `web.test`.
    pub fn post(path: &str, body: impl AsRef<[u8]>) -> Call {
        Call::new("POST", path).body(body)
    }

    /// A CONNECT to this authority.
    pub fn connect(authority: &str) -> Call {
        Call::new("CONNECT", authority).to(authority).saying("")
    }

    /// A GET for `web.test` that is to become a tunnel for another protocol.
    pub fn upgrade(path: &str, protocol: &str) -> Call {
        let mut call = Call::get(path).saying("");
        call.protocol = Some(protocol.to_owned());
        call
    }

    /// With these bytes for the tunnel that it asks for, sent with the head.
    pub fn saying(mut self, bytes: impl AsRef<[u8]>) -> Call {
        self.body = Body::Tunnel(bytes.as_ref().to_vec());
        self
    }

    /// The same for another authority.
    pub fn to(mut self, authority: &str) -> Call {
        self.authority = authority.to_owned();
        self
    }

    /// Adds a field.
    pub fn field(mut self, name: &str, value: &str) -> Call {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds fields that are written as lines, each with its end.
    pub fn lines(self, lines: &str) -> Call {
        let fields = lines.split_terminator("\r\n");
        fields.fold(self, |call, line| {
            let (name, value) = line.split_once(':').expect("a name and a value");
            call.field(name, value.trim())
        })
    }

    /// With this body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Call {
        self.body = Body::Whole(body.as_ref().to_vec());
        self
    }

    /// With a body of so many bytes, sent later.
    pub fn announces(mut self, length: usize) -> Call {
        self.body = Body::Announced(length);
        self
    }

    /// With a body of a length that is not told, sent later.
    pub fn in_pieces(mut self) -> Call {
        self.body = Body::Pieces;
        self
    }

    /// With a body of a length that is not told, and one trailer, sent with the head.
    pub fn trailed(mut self, body: impl AsRef<[u8]>, (name, value): (&str, &str)) -> Call {
        let trailers = vec![(name.to_owned(), value.to_owned())];
        self.body = Body::Trailed(body.as_ref().to_vec(), trailers);
        self
    }

    /// The bytes of HTTP/1.1.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let Call {
            method,
            authority,
            path,
            protocol,
            ..
        } = self;
        let mut start = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(protocol) = protocol {
            start += &format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
        }
        self.body.http1(start, &self.fields)
    }
}

impl Answer {
    /// An answer without a body.
    pub fn status(status: u16) -> Answer {
        Answer {
            status,
            fields: Vec::new(),
            body: Body::Whole(Vec::new()),
        }
    }

    /// An answer whose status says that it has no body, and no field that tells its length.
    pub fn bare(status: u16) -> Answer {
        Answer {
            body: Body::None,
            ..Answer::status(status)
        }
    }

    /// 200 with this body.
    pub fn ok(body: impl AsRef<[u8]>) -> Answer {
        Answer::status(200).body(body)
    }

    /// Adds a field.
    pub fn field(mut self, name: &str, value: &str) -> Answer {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Answer {
        self.body = Body::Whole(body.as_ref().to_vec());
        self
    }

    /// With a body of so many bytes, sent later.
    pub fn announces(mut self, length: usize) -> Answer {
        self.body = Body::Announced(length);
        self
    }

    /// With a body of a length that is not told, sent later.
    pub fn in_pieces(mut self) -> Answer {
        self.body = Body::Pieces;
        self
    }

    /// The bytes of HTTP/1.1.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let start = format!("HTTP/1.1 {} Said\r\n", self.status);
        self.body.http1(start, &self.fields)
    }
}

impl Body {
    fn http1(&self, mut head: String, fields: &[(String, String)]) -> Vec<u8> {
        match self {
            Body::None | Body::Tunnel(_) => {}
            Body::Whole(bytes) => head += &format!("Content-Length: {}\r\n", bytes.len()),
            Body::Announced(length) => head += &format!("Content-Length: {length}\r\n"),
            Body::Pieces | Body::Trailed(..) => head += "Transfer-Encoding: chunked\r\n",
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        match self {
            Body::Whole(body) | Body::Tunnel(body) => bytes.extend(body),
            Body::Trailed(body, trailers) => {
                let trailers = trailers.iter().map(|(name, value)| (&**name, &**value));
                bytes.extend(Body::Pieces.http1_piece(body));
                bytes.extend(Body::Pieces.http1_end(&trailers.collect::<Vec<_>>()));
            }
            Body::None | Body::Announced(_) | Body::Pieces => {}
        }
        bytes
    }

    /// The field that tells its length.
    pub(crate) fn length(&self) -> Option<(String, String)> {
        let length = match self {
            Body::Whole(bytes) => bytes.len(),
            Body::Announced(length) => *length,
            Body::None | Body::Pieces | Body::Trailed(..) | Body::Tunnel(_) => return None,
        };
        Some(("content-length".to_owned(), length.to_string()))
    }

    /// Whether it is known to have no content.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Body::None => true,
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Announced(length) => *length == 0,
            Body::Pieces | Body::Trailed(..) | Body::Tunnel(_) => false,
        }
    }

    /// Counts what goes of it, and says if that is the last.
    pub(crate) fn is_ended_by(&mut self, length: usize) -> bool {
        match self {
            Body::Announced(left) => {
                *left = left.saturating_sub(length);
                *left == 0
            }
            _ => false,
        }
    }

    /// A part of it in HTTP/1.1.
    pub(crate) fn http1_piece(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Body::Pieces => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend(bytes);
                chunk.extend(b"\r\n");
                chunk
            }
            _ => bytes.to_vec(),
        }
    }

    /// Its end in HTTP/1.1, with trailer fields.
    pub(crate) fn http1_end(&self, trailers: &[(&str, &str)]) -> Vec<u8> {
        match self {
            Body::Pieces => {
                let trailers = trailers.iter();
                let trailers = trailers.map(|(name, value)| format!("{name}: {value}\r\n"));
                format!("0\r\n{}\r\n", trailers.collect::<String>()).into_bytes()
            }
            _ => {
                assert!(trailers.is_empty(), "only pieces have trailers");
                Vec::new()
            }
        }
    }
}
