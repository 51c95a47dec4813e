//! Ends that speak HTTP/2. The codec is the proxy's own: what goes over the wire is
//! checked by other programs elsewhere.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::message::{self, End, Field};
use crate::http2::{ErrorCode, FieldBlock, LocalSettings};
use crate::message::fields::part;
use crate::message::{End as Ending, FieldList};
use crate::multiplex::{
    Driven, Driver, Ended, Http2Stream, Multiplexed, NewStream, Received, StreamFailure,
};
use crate::ring::{self, Chunk, Gather, timer};
use crate::transport::Transport;

/// One end of a connection. Dropped, it closes that.
pub(crate) struct Http2End {
    connection: Rc<Multiplexed>,
    opened: Rc<RefCell<VecDeque<NewStream>>>,
}

/// One stream as the scripted end has it.
pub(crate) struct Http2Wire {
    /// The stream.
    pub(crate) stream: Http2Stream,
    unread: Vec<u8>,
    /// How the other side has ended it.
    pub(crate) end: Option<End>,
}

impl Http2End {
    /// The end that opens streams.
    pub(crate) fn client(transport: Transport) -> Self {
        Self::drive(Multiplexed::client(
            transport,
            LocalSettings {
                window: 65_535,
                ..LocalSettings::default()
            },
        ))
    }

    /// The end that answers, and allows extended CONNECT or not.
    pub(crate) fn server(transport: Transport, connect_protocol: bool) -> Self {
        Self::drive(Multiplexed::server(
            transport,
            LocalSettings {
                connect_protocol,
                window: 65_535,
                ..LocalSettings::default()
            },
        ))
    }

    fn drive(connection: Rc<Multiplexed>) -> Self {
        let opened = Rc::<RefCell<VecDeque<_>>>::default();
        let (driven, streams) = (Rc::clone(&connection), Rc::clone(&opened));
        ring::spawn(async move {
            let mut driver = Driver::of(&driven);
            loop {
                match driver.next().await {
                    Driven::Opened(new) => streams.borrow_mut().push_back(new),
                    Driven::Changed | Driven::Rests => {}
                    Driven::Ended(_) => return,
                }
            }
        });
        Self { connection, opened }
    }

    /// Whether the other side allows extended CONNECT, once it has said so or not.
    pub(crate) async fn is_allowed_extended_connect(&self) -> bool {
        self.connection.settled().await;
        self.connection.takes_extended_connect()
    }

    /// Opens a stream with this head, behind which more follows.
    pub(crate) async fn open(&self, head: &[(&str, &str)]) -> Http2Wire {
        let stream = Http2Stream::on(Rc::clone(&self.connection));
        let wire = Http2Wire::new(stream);
        wire.answer(head).await;
        wire
    }

    /// The next stream that the other side opens, and its head.
    pub(crate) async fn accepted(&self) -> (Http2Wire, Vec<Field>) {
        for wait in super::waits() {
            if let Some(new) = self.opened.borrow_mut().pop_front() {
                return (Http2Wire::new(new.stream), fields(&new.block));
            }
            timer::sleep(wait).await;
        }
        unreachable!("it waits for ever")
    }
}

impl Drop for Http2End {
    fn drop(&mut self) {
        self.opened.borrow_mut().clear();
        self.connection.end(Ended::Closed);
    }
}

impl Http2Wire {
    fn new(stream: Http2Stream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            end: None,
        }
    }

    /// Sends a head.
    pub(crate) async fn answer(&self, head: &[(&str, &str)]) {
        let mut list = Vec::new();
        for (name, value) in head {
            FieldList(&mut list).push(name.as_bytes(), value.as_bytes());
        }
        let head = Some(Chunk::from(list));
        let sent = self.stream.send(head, Gather::default(), Ending::More);
        sent.await.expect("the connection takes it");
    }

    /// Sends bytes; `false`: the other side takes none any more.
    pub(crate) async fn send(&self, bytes: impl Into<Vec<u8>>) -> bool {
        let bytes = Gather::from(Chunk::from(bytes.into()));
        self.stream.send(None, bytes, Ending::More).await.is_ok()
    }

    /// Sends no more.
    pub(crate) async fn finish(&self) {
        let end = Ending::Whole(b"");
        let sent = self.stream.send(None, Gather::default(), end).await;
        sent.expect("the connection takes it");
    }

    /// Gives it up.
    pub(crate) fn reset(&self) {
        self.stream.reset(ErrorCode::CANCEL);
    }

    /// The next head.
    pub(crate) async fn head(&mut self) -> Vec<Field> {
        match self.stream.recv().await {
            Ok(Received::Head(block)) => fields(&block),
            _ => panic!("there is no head"),
        }
    }

    /// Takes what more has come; `false`: that was all.
    async fn more(&mut self) -> bool {
        match self.stream.recv().await {
            Ok(Received::Content(content)) => {
                self.unread.extend_from_slice(&content);
                if self.stream.is_whole() {
                    self.end = Some(End::Fin);
                }
            }
            Ok(Received::Head(_)) => panic!("there is another head"),
            Err(_) => self.end = Some(End::Reset),
        }
        self.end.is_none()
    }

    /// The next bytes as text, so many of them; fewer: that was all.
    pub(crate) async fn text(&mut self, length: usize) -> String {
        while self.unread.len() < length && self.end.is_none() && self.more().await {}
        let length = length.min(self.unread.len());
        String::from_utf8(self.unread.drain(..length).collect()).expect("it is text")
    }

    /// All that comes until the end, as text.
    pub(crate) async fn rest(&mut self) -> String {
        self.text(usize::MAX).await
    }

    /// With which code the other side has reset it.
    pub(crate) async fn reset_code(&self) -> Option<ErrorCode> {
        match self.stream.failed().await {
            StreamFailure::Reset(code) => Some(code),
            _ => None,
        }
    }
}

/// The fields of a head.
fn fields(block: &FieldBlock) -> Vec<Field> {
    let text = |span| String::from_utf8_lossy(part(block.bytes(), span)).into_owned();
    let fields = block.fields().iter();
    fields
        .map(|field| (text(field.name), text(field.value)))
        .collect()
}

/// The value of a field.
pub(crate) fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    message::field(fields, name)
}
