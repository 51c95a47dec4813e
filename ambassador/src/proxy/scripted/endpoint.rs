//! An endpoint that does with each connect and each request what its script says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::caller::Link;
use super::message::{self, Field, Length, Wire};
use crate::addr::EndpointAddr;
use crate::ring::{self, timer};
use crate::transport::Transport;
use crate::upstream::dial::Network;
use crate::workload::Family;

/// What happens to a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    /// It is accepted.
    Accept,
    /// It is refused at once.
    Refuse,
    /// Nothing comes of it.
    Hang,
    /// It is accepted, and the scenario itself is the server.
    Hand,
    /// The same over TCP, of which each side sees whether the other one closes or resets it.
    HandOverTcp,
}

/// What an endpoint does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It answers with this status, and a body that is its number.
    Answer(u16),
    /// It writes these bytes.
    Write(&'static str),
    /// It writes these pieces, with a pause before each.
    Pieces(Duration, Vec<&'static str>),
    /// It writes these bytes, and closes.
    Last(&'static str),
    /// It answers 200 with a body of so many bytes.
    Large(usize),
    /// It waits before it does something.
    After(Duration, Box<Deed>),
    /// It sends an interim response first.
    Interim(Box<Deed>),
    /// It answers before it reads the body, which it reads then.
    Early(u16),
    /// It begins a response, and closes in the midst.
    Cut,
    /// It closes without a word.
    Close,
    /// It says nothing, and keeps the connection open.
    Silence,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Its method and target.
    pub(crate) line: String,
    /// Its fields.
    pub(crate) fields: Vec<Field>,
    /// Its body; `None`: it was cut.
    pub(crate) body: Option<Vec<u8>>,
}

/// One endpoint of the upstream.
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: EndpointAddr,
    /// What happens to its next connects; then they are accepted.
    pub(crate) connects: RefCell<VecDeque<Connect>>,
    /// What it does with its next requests; then it answers 200.
    pub(crate) deeds: RefCell<VecDeque<Deed>>,
    /// The requests that it has got.
    pub(crate) heard: RefCell<Vec<Heard>>,
    /// How many connections it has accepted.
    pub(crate) connected: Cell<usize>,
    handed: RefCell<VecDeque<Wire>>,
    number: usize,
}

impl Heard {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        message::field(&self.fields, name)
    }
}

impl Endpoint {
    /// One that accepts and answers.
    pub(crate) fn new(number: usize, family: Family) -> Rc<Self> {
        let host = u8::try_from(number + 1).expect("few endpoints");
        let address = match family {
            Family::V4 => SocketAddr::from(([10, 0, 0, host], 80)),
            Family::V6 => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host.into()], 80)),
        };
        Rc::new(Self {
            address: EndpointAddr(address),
            connects: RefCell::default(),
            deeds: RefCell::default(),
            heard: RefCell::default(),
            connected: Cell::default(),
            handed: RefCell::default(),
            number,
        })
    }

    /// Does these with its next requests.
    pub(crate) fn does(&self, deeds: impl IntoIterator<Item = Deed>) {
        self.deeds.borrow_mut().extend(deeds);
    }

    /// Does these with its next connects.
    pub(crate) fn meets(&self, connects: impl IntoIterator<Item = Connect>) {
        self.connects.borrow_mut().extend(connects);
    }

    /// The next connection of which the scenario is the server.
    pub(crate) async fn handed(&self) -> Wire {
        for wait in super::waits() {
            if let Some(wire) = self.handed.borrow_mut().pop_front() {
                return wire;
            }
            timer::sleep(wait).await;
        }
        unreachable!("it waits for ever")
    }

    /// Whether there is one.
    pub(crate) fn is_reached(&self) -> bool {
        !self.handed.borrow().is_empty()
    }

    async fn connect(self: Rc<Self>) -> io::Result<Transport> {
        let next = self.connects.borrow_mut().pop_front();
        let next = next.unwrap_or(Connect::Accept);
        match next {
            Connect::Accept | Connect::Hand | Connect::HandOverTcp => {}
            Connect::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
            Connect::Hang => std::future::pending().await,
        }
        self.connected.set(self.connected.get() + 1);
        let link = match next {
            Connect::HandOverTcp => Link::Tcp,
            _ => Link::Unix,
        };
        let (near, far) = link.pair();
        let far = Transport::from_connected(far)?;
        match next {
            Connect::Hand | Connect::HandOverTcp => {
                self.handed.borrow_mut().push_back(Wire::new(far))
            }
            _ => ring::spawn(self.serve(Wire::new(far))),
        }
        Transport::from_connected(near)
    }

    async fn serve(self: Rc<Self>, mut wire: Wire) {
        while let Some(head) = wire.head().await {
            let mut place = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut place);
            request.parse(&head).expect("the proxy writes HTTP");
            let fields = message::fields(request.headers);
            let method = request.method.unwrap_or_default();
            let target = request.path.unwrap_or_default();
            let mut heard = Heard {
                line: format!("{method} {target}"),
                body: None,
                fields,
            };
            let length = message::length(&heard.fields).unwrap_or(Length::Exact(0));
            let deed = self.deeds.borrow_mut().pop_front();
            let deed = deed.unwrap_or(Deed::Answer(200));
            if let Deed::Early(status) = deed {
                wire.send(self.answer(status)).await;
            }
            heard.body = wire.body(length).await;
            let is_whole = heard.body.is_some();
            self.heard.borrow_mut().push(heard);
            if !is_whole || !Box::pin(self.act(&mut wire, deed)).await {
                return;
            }
        }
    }

    /// Does one thing; `false`: the connection ends with it.
    async fn act(&self, wire: &mut Wire, deed: Deed) -> bool {
        match deed {
            Deed::Answer(status) => wire.send(self.answer(status)).await,
            Deed::Write(bytes) => wire.send(bytes).await,
            Deed::Pieces(pause, pieces) => {
                for piece in pieces {
                    timer::sleep(pause).await;
                    if !wire.send(piece).await {
                        return false;
                    }
                }
                true
            }
            Deed::Last(bytes) => {
                wire.send(bytes).await;
                false
            }
            Deed::Large(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                wire.send([head.into_bytes(), vec![b'x'; bytes]].concat())
                    .await
            }
            Deed::After(time, deed) => {
                timer::sleep(time).await;
                Box::pin(self.act(wire, *deed)).await
            }
            Deed::Interim(deed) => {
                wire.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
                Box::pin(self.act(wire, *deed)).await
            }
            Deed::Early(_) => true,
            Deed::Cut => {
                let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na part";
                wire.send(begun).await;
                false
            }
            Deed::Close => false,
            Deed::Silence => {
                while wire.more().await {}
                false
            }
        }
    }

    fn answer(&self, status: u16) -> String {
        let body = self.number.to_string();
        let length = body.len();
        format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {length}\r\n\r\n{body}")
    }
}

/// Leads to these endpoints.
pub(crate) fn network(endpoints: Vec<Rc<Endpoint>>) -> Network {
    Rc::new(move |address| {
        let endpoint = endpoints.iter().find(|known| known.address.0 == address);
        let endpoint = Rc::clone(endpoint.expect("the proxy dials endpoints only"));
        Box::pin(endpoint.connect())
    })
}
