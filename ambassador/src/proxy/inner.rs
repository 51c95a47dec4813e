//! Requests that come through a CONNECT of HTTP/2.
//!
//! What serves requests reads from a transport, and a stream is none. So what comes on the
//! stream goes through a pair of sockets to a connection like any other. Opaque bytes and
//! TLS take no such way.

use std::cell::Cell;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::rc::Rc;

use crate::combinators::{First, first};
use crate::proxy::after::After;
use crate::proxy::bound::Bound;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::{Client, Patience, Turn};
use crate::proxy::client_certificate::ClientCertificate;
use crate::proxy::tunnel::pass;
use crate::proxy::tunnel_end::TunnelEnd;
use crate::ring::{self, timer};
use crate::route::Tunnelled;
use crate::transport::Transport;

/// Serves the requests of a client. It is handed down, as it serves what may hold one
/// like this again.
pub(super) type Serve = fn(Box<Client>, Patience) -> Pin<Box<dyn Future<Output = After>>>;

/// What the requests come through.
pub(super) struct Outer<'a> {
    /// Its end of the tunnel.
    pub caller: CallerEnd<'a>,
    /// What the client has shown; `None`: it is in clear.
    pub certificate: Option<Rc<ClientCertificate>>,
    /// The tunnel.
    pub tunnel: Tunnelled,
    /// How long the client may take with its requests.
    pub patience: Patience,
    /// What serves them.
    pub serve: Serve,
}

/// Serves the requests that come through a tunnel, to its end. The caller has to take
/// what is left of the last answer within the time that it may be idle.
pub(super) async fn serve(outer: Outer<'_>) -> After {
    let Outer {
        caller,
        certificate,
        tunnel,
        patience,
        serve,
    } = outer;
    let Ok((near, far)) = Transport::pair() else {
        return After::Reset;
    };
    let (outside, inside) = (caller.end, TunnelEnd::Own(&far));
    let id = near.id();
    let client = Box::new(Client {
        context: Rc::clone(caller.context),
        member: caller.context.clients.join(&near, caller.member.peer()),
        stream: near,
        origin: *caller.origin,
        ahead: None,
        bound: Bound::default(),
        turn: Turn::First,
        tunnel: Some(Box::new(tunnel)),
        certificate,
        seat: None,
    });
    let mut serving = serve(client, patience);
    let moved = Cell::new(ring::now());
    let ahead = caller.ahead.take();
    let up = async {
        let passed = async {
            if pass(outside, inside, ahead, &moved, |_| {}).await.is_ok() {
                // Its answers may still be on their way.
                pending().await
            }
        };
        first(passed, outside.reset()).await;
        ring::fail(id);
        pending().await
    };
    let down = async {
        let mut down = pin!(pass(inside, outside, None, &moved, |_| {}));
        match first(serving.as_mut(), down.as_mut()).await {
            First::Left(After::Reset) => After::Reset,
            First::Left(after) => match timer::timeout(patience.idle(), down).await {
                Ok(Ok(())) => after,
                Ok(Err(_)) | Err(_) => After::Reset,
            },
            First::Right(passed) => {
                if passed.is_err() {
                    ring::fail(id);
                }
                serving.await
            }
        }
    };
    let (First::Left(after) | First::Right(after)) = first(down, up).await;
    after
}
