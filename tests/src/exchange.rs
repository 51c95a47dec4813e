//! A request as an upstream has it, and what the test does with it, whatever
//! protocol carries it.

use std::io;
use std::ops::Range;

use crate::http2::server::{self, Stream};
use crate::message::{Answer, Body};
use crate::server::{Connection, Request};

/// One request that an upstream has the head of.
pub struct Exchange<'a> {
    side: Side<'a>,
    /// The request, as far as it was read.
    request: Request,
    /// What is read of it, and recorded by the server.
    progress: Progress,
    /// The body of the answer that is under way.
    body: Body,
    /// The number of the connection that it came over, from 1.
    pub connection: usize,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Head,
    Whole,
    /// The test has read some of what follows the head.
    Some,
}

enum Side<'a> {
    Http1(&'a mut Connection),
    Http2(Stream<'a>),
}

impl Exchange<'_> {
    /// The head of the request; its body may not have come.
    pub fn head(&self) -> &Request {
        &self.request
    }

    /// The request, read whole. The server tells of it from now on.
    pub fn request(&mut self) -> io::Result<Request> {
        if self.progress == Progress::Head {
            match &mut self.side {
                Side::Http1(connection) => {
                    connection.body(&mut self.request)?;
                    connection.record(&self.request);
                }
                Side::Http2(stream) => {
                    stream.body(&mut self.request)?;
                    stream.recorder.record(&self.request);
                }
            }
            self.progress = Progress::Whole;
        }
        Ok(self.request.clone())
    }

    /// Sends an interim response.
    pub fn interim(&mut self, status: u16, fields: &[(&str, &str)]) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => {
                let fields = fields.iter();
                let fields = fields.map(|(name, value)| format!("{name}: {value}\r\n"));
                let fields: String = fields.collect();
                connection.write(format!("HTTP/1.1 {status} Said\r\n{fields}\r\n"))
            }
            Side::Http2(stream) => stream.headers(&with_status(status, fields), false),
        }
    }

    /// Sends an answer, with its body where that is whole.
    pub fn send(&mut self, answer: &Answer) -> io::Result<()> {
        self.body.clone_from(&answer.body);
        match &mut self.side {
            Side::Http1(connection) => connection.write(answer.http1()),
            Side::Http2(stream) => {
                let length = answer.body.length();
                let fields: Vec<_> = length.into_iter().chain(answer.fields.clone()).collect();
                let ends = answer.body.is_empty() || self.request.method == "HEAD";
                stream.headers(&with_status(answer.status, &fields), ends)?;
                match &answer.body {
                    Body::Whole(bytes) if !ends => stream.data(bytes, true),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Sends this part of the bytes that a whole answer has on the wire. Whether the head
    /// is whole with it.
    pub fn send_part(&mut self, answer: &Answer, part: Range<usize>) -> io::Result<bool> {
        let Body::Whole(content) = &answer.body else {
            panic!("its bytes are known where its body is");
        };
        let [mut bytes, rest] = match &self.side {
            Side::Http1(_) => {
                let bytes = answer.http1();
                let (head, rest) = bytes.split_at(bytes.len() - content.len());
                [head.to_vec(), rest.to_vec()]
            }
            Side::Http2(stream) => {
                let length = answer.body.length();
                let fields: Vec<_> = length.into_iter().chain(answer.fields.clone()).collect();
                stream.octets(&with_status(answer.status, &fields), content)
            }
        };
        let head = bytes.len();
        bytes.extend(rest);
        let end = part.end.min(bytes.len());
        match &mut self.side {
            Side::Http1(connection) => connection.write(&bytes[part.start..end])?,
            Side::Http2(stream) => stream.put(&bytes[part.start..end])?,
        }
        Ok(end >= head)
    }

    /// Makes the tunnel that the request asks for, which is for another protocol; the
    /// first bytes through it go with the answer.
    pub fn switch(&mut self, said: impl AsRef<[u8]>) -> io::Result<()> {
        self.body = Body::Tunnel(Vec::new());
        let protocol = self.request.field("upgrade").unwrap_or_default();
        match &mut self.side {
            Side::Http1(connection) => {
                let head = format!(
                    "HTTP/1.1 101 Said\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
                );
                connection.write([head.as_bytes(), said.as_ref()].concat())
            }
            Side::Http2(stream) => {
                stream.headers(&with_status::<&str, &str>(200, &[]), false)?;
                match said.as_ref() {
                    [] => Ok(()),
                    said => stream.data(said, false),
                }
            }
        }
    }

    /// The next bytes behind the head as they come, of a body of a known length or through
    /// a tunnel; none at their end.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        self.progress = Progress::Some;
        match &mut self.side {
            Side::Http1(connection) => {
                let mut bytes = vec![0; 4096];
                let count = connection.read(&mut bytes)?;
                bytes.truncate(count);
                Ok(bytes)
            }
            Side::Http2(stream) => stream.content(),
        }
    }

    /// Sends more of the body.
    pub fn piece(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => connection.write(self.body.http1_piece(bytes.as_ref())),
            Side::Http2(stream) => {
                let ends = self.body.is_ended_by(bytes.as_ref().len());
                stream.data(bytes.as_ref(), ends)
            }
        }
    }

    /// Ends a body that went in pieces, or this direction of a tunnel.
    pub fn end(&mut self, trailers: &[(&str, &str)]) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => {
                connection.write(self.body.http1_end(trailers))?;
                match self.body {
                    Body::Tunnel(_) => connection.finish(),
                    _ => Ok(()),
                }
            }
            Side::Http2(stream) => match (&self.body, trailers) {
                (Body::Pieces | Body::Tunnel(_), []) => stream.data(&[], true),
                (Body::Pieces, trailers) => stream.headers(&owned(trailers), true),
                _ => Ok(()),
            },
        }
    }

    /// Sends bytes on the connection, whatever they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => connection.write(bytes),
            Side::Http2(stream) => stream.put(bytes),
        }
    }

    /// Waits until the peer has given the request up. An error: it has not, in time.
    pub fn until_left(&mut self) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => match connection.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
            Side::Http2(stream) => stream.until_left(),
        }
    }

    /// Ends the connection with a reset, and so all that is under way on it.
    pub fn break_off(&mut self) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(_) => self.reset(),
            Side::Http2(stream) => {
                stream.break_off()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    /// Ends the connection behind what was sent. Nothing tells of that before.
    pub fn close(&mut self) -> io::Result<()> {
        if let Side::Http2(stream) = &self.side {
            stream.close()?;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Ends the request, and what of an answer there was, with a reset.
    pub fn reset(&mut self) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => {
                connection.reset()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            // It gives the request up.
            Side::Http2(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

/// Serves the requests of a connection of HTTP/1.1, one after the other.
pub(crate) fn serve_http1(
    connection: &mut Connection,
    script: &impl Fn(&mut Exchange<'_>) -> io::Result<()>,
) -> io::Result<()> {
    while let Some(request) = connection.head()? {
        let number = connection.number;
        let mut exchange = Exchange {
            side: Side::Http1(connection),
            request,
            progress: Progress::Head,
            body: Body::None,
            connection: number,
        };
        script(&mut exchange)?;
        let Exchange {
            mut request,
            progress,
            ..
        } = exchange;
        // What was answered early still has its body.
        match progress {
            Progress::Head => connection.body(&mut request)?,
            Progress::Whole => {}
            Progress::Some => return Ok(()),
        }
    }
    Ok(())
}

/// Serves the requests of a connection of HTTP/2, all at a time.
pub(crate) fn serve_http2(
    connection: &mut Connection,
    script: &(impl Fn(&mut Exchange<'_>) -> io::Result<()> + Sync),
) -> io::Result<()> {
    let number = connection.number;
    server::serve(connection, &|stream, request| {
        let mut exchange = Exchange {
            side: Side::Http2(stream),
            request,
            progress: Progress::Head,
            body: Body::None,
            connection: number,
        };
        script(&mut exchange)?;
        // What was answered early still has its body.
        match exchange.side {
            Side::Http2(stream) if exchange.progress == Progress::Head => {
                stream.body(&mut exchange.request)
            }
            _ => Ok(()),
        }
    })
}

fn with_status<N: AsRef<str>, V: AsRef<str>>(
    status: u16,
    fields: &[(N, V)],
) -> Vec<(String, String)> {
    let status = (":status".to_owned(), status.to_string());
    [status].into_iter().chain(owned(fields)).collect()
}

fn owned<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> Vec<(String, String)> {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()));
    fields.collect()
}
