//! A request as an upstream has it, and what the test does with it, whatever
//! protocol carries it.

use std::io;

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
}

enum Side<'a> {
    Http1(&'a mut Connection),
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
        }
    }

    /// Sends an answer, with its body where that is whole.
    pub fn send(&mut self, answer: &Answer) -> io::Result<()> {
        self.body.clone_from(&answer.body);
        match &mut self.side {
            Side::Http1(connection) => connection.write(answer.http1()),
        }
    }

    /// Sends more of the body.
    pub fn piece(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => connection.write(self.body.http1_piece(bytes.as_ref())),
        }
    }

    /// Ends a body that went in pieces.
    pub fn end(&mut self, trailers: &[(&str, &str)]) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => connection.write(self.body.http1_end(trailers)),
        }
    }

    /// Waits until the peer has given the request up. An error: it has not, in time.
    pub fn until_left(&mut self) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => match connection.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Ends the request, and what of an answer there was, with a reset.
    pub fn reset(&mut self) -> io::Result<()> {
        match &mut self.side {
            Side::Http1(connection) => {
                connection.reset()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
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
        if progress == Progress::Head {
            connection.body(&mut request)?;
        }
    }
    Ok(())
}
