//! Accepts connections and finds the original destination of each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::{OriginalDst, Peer};
use crate::clock;
use crate::combinators::{First, first};
use crate::proxy::accepted;
use crate::proxy::bound::Bound;
use crate::proxy::client::{Client, Origin, Turn};
use crate::proxy::client_certificate::{Secured, secure};
use crate::proxy::context::Context;
use crate::proxy::listener::Entry;
use crate::proxy::listener::{ListenerSettings, ShardListener};
use crate::proxy::room::Room;
use crate::ring::{self, Listener, Liveness, Stream, timer};
use crate::shard::descriptors;
use crate::telemetry::{DroppedAccept, ListenerIndex};
use crate::tls::Server;
use crate::transport::Transport;
use crate::upstream::dial::Namespace;

/// As many as a queue can hold: what is admitted at most before a listener
/// closes.
const QUEUE_MAX: usize = 4_096;

/// Connections that wait for their reset at most, and how long they do.
const TURNED_AWAY_MAX: usize = 8;
const RESET_AFTER: Duration = Duration::from_millis(20);

/// One listening socket of a shard.
pub struct ListenSocket {
    /// The socket, bound and listening.
    pub socket: OwnedFd,
    /// What metrics call the listener.
    pub index: ListenerIndex,
    /// What its connections are.
    pub entry: Entry,
    /// For how many of them there is room, over all shards.
    pub room: Arc<Room>,
    /// What they are encrypted with; `None`: they are in clear.
    pub tls: Option<Arc<Server>>,
    /// How a captured connection tells where it was going.
    pub original: Option<FindOriginal>,
    /// Where its upstream sockets are made.
    pub namespace: Namespace,
}

/// Why an accepted connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    /// It may not be: it is reset and counted.
    Refused(DroppedAccept),
    /// The proxy's own check of capture: closed, not counted.
    Canary,
    /// Whoever connected has gone already.
    Gone,
}

/// Finds the original destination of an accepted connection, and whose it is:
/// the number of a workload. The error is why it must not be served.
pub(crate) type FindOriginal =
    Box<dyn Fn(&Accepted<'_>) -> Result<(OriginalDst, u32), NotServed> + Send>;

/// What is known of a connection when it is accepted.
pub struct Accepted<'a> {
    /// Its socket.
    pub stream: &'a Stream,
    /// The address it was accepted at.
    pub local: SocketAddr,
    /// Who connected.
    pub peer: SocketAddr,
}

/// How long a listener that closes goes on accepting after the last connection:
/// longer than a handshake takes that has begun.
pub(crate) const CLOSING_GRACE: Duration = Duration::from_millis(100);

/// Starts accepting; ends when the shard drains or the listener is stopped.
pub(crate) fn spawn(context: &Rc<Context>, listen_socket: ListenSocket) -> io::Result<()> {
    let address = ring::local_address(&listen_socket.socket).ok();
    let listener = Listener::new(listen_socket.socket)?;
    let settings = ListenerSettings {
        tls: listen_socket.tls,
        index: listen_socket.index,
        entry: listen_socket.entry,
        max_connections: listen_socket.room.max(),
    };
    let acceptor = Acceptor {
        context: Rc::clone(context),
        keep_alive: Cell::new(keep_alive_of(context)),
        listener: context.add_listener(settings, listen_socket.room, listen_socket.namespace),
        original: listen_socket.original,
        namespace: listen_socket.namespace,
        address,
        turned_away: Rc::default(),
    };
    listener.keep_alive(acceptor.keep_alive.get());
    if let Some(address) = acceptor.address {
        context
            .pools
            .dialer()
            .listens_at(acceptor.namespace, address);
    }
    context.listener_opened();
    ring::spawn(async move {
        if let Err(error) = acceptor.keep(&listener).await {
            tracing::error!(%error, "accepting has failed; the listener is closed");
        }
    });
    Ok(())
}

/// How accepted sockets find out that their peer has vanished. Which upstream
/// they are for is not known yet.
fn keep_alive_of(context: &Context) -> Option<Duration> {
    let generation = context.generation();
    generation.table.settings().adopted.timeouts.keep_alive
}

/// How long a client may take for its TLS handshake: as long as for a head. Which
/// upstream it is for is not known yet.
fn head_timeout(context: &Context) -> Duration {
    let generation = context.generation();
    generation.table.settings().adopted.timeouts.head
}

/// A listener's side of a shard.
struct Acceptor {
    context: Rc<Context>,
    /// What accepted sockets inherit.
    keep_alive: Cell<Option<Duration>>,
    listener: Rc<ShardListener>,
    original: Option<FindOriginal>,
    namespace: Namespace,
    /// Where it listens, where that is TCP.
    address: Option<SocketAddr>,
    /// Those who are about to be reset.
    turned_away: Rc<RefCell<VecDeque<Stream>>>,
}

impl Acceptor {
    async fn keep(self, listener: &Listener) -> io::Result<()> {
        loop {
            let ended = first(self.context.drain.begun(), self.listener.stop.begun());
            match first(listener.accept(), ended).await {
                First::Left(accepted) => {
                    let stream = accepted?;
                    match descriptors::have_room_for(&stream.as_fd()) {
                        true => self.admit(listener, stream),
                        false => {
                            descriptors::tell_of_reset();
                            self.turn_away(stream, DroppedAccept::Descriptors);
                        }
                    }
                }
                First::Right(First::Left(())) => {
                    let grace = self.context.drain_grace();
                    return self.close(listener, grace).await;
                }
                First::Right(First::Right(())) => {
                    return self.close(listener, CLOSING_GRACE).await;
                }
            }
        }
    }

    /// Resets a connection for which there is no descriptor or no room, a moment
    /// later: a caller whose connect() has not returned yet would take it for a
    /// refusal by the upstream. Few wait for it, in descriptors that are kept back.
    fn turn_away(&self, stream: Stream, cause: DroppedAccept) {
        self.context.telemetry.cells.dropped_accept(cause);
        let mut waiting = self.turned_away.borrow_mut();
        let is_first = waiting.is_empty();
        waiting.push_back(stream);
        if waiting.len() > TURNED_AWAY_MAX
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.reset();
        }
        if is_first {
            ring::spawn(reset_later(Rc::clone(&self.turned_away)));
        }
    }

    /// The kernel resets who is in the queue of a socket that is closed. So
    /// nobody may join it any more, and it is emptied first.
    async fn close(&self, listener: &Listener, grace: Duration) -> io::Result<()> {
        if self.original.is_some() {
            // Connects that were sent here before the programs learned of the
            // end: after a handshake over loopback nobody comes any more.
            self.admit_until_quiet(listener, grace / 2).await?;
        }
        listener.turn_away()?;
        // A unix socket says so when its queue is empty.
        let _ = self.admit_until_quiet(listener, grace).await;
        Ok(())
    }

    async fn admit_until_quiet(&self, listener: &Listener, quiet: Duration) -> io::Result<()> {
        let mut admitted = 0;
        while admitted < QUEUE_MAX
            && let Ok(accepted) = timer::timeout(quiet, listener.accept()).await
        {
            self.admit(listener, accepted?);
            admitted += 1;
        }
        Ok(())
    }

    fn admit(&self, listener: &Listener, stream: Stream) {
        let context = &self.context;
        let now = keep_alive_of(context);
        if now != self.keep_alive.replace(now) {
            // After a reload; what is accepted next inherits it.
            listener.keep_alive(now);
            stream.keep_alive(now, Liveness::Answers);
        }
        let peer = stream.peer_addr().ok();
        let (original, owner) = match &self.original {
            None => (
                None,
                peer.map_or(Peer::Local, |peer| Peer::Address(peer.ip().to_canonical())),
            ),
            Some(find) => match find_original(&stream, peer, find) {
                Ok((original, workload)) => (Some(original), Peer::Workload(workload)),
                Err(NotServed::Canary | NotServed::Gone) => return,
                Err(NotServed::Refused(cause)) => {
                    context.telemetry.cells.dropped_accept(cause);
                    return stream.reset();
                }
            },
        };
        if context.memory.is_full() {
            tell_of_no_memory();
            return self.turn_away(stream, DroppedAccept::Memory);
        }
        let ListenerSettings {
            index, entry, tls, ..
        } = self.listener.settings();
        let Some(seat) = self.listener.room.enter() else {
            tell_of_no_room();
            return self.turn_away(stream, DroppedAccept::MaxConnections);
        };
        let stream = Transport::plain(stream);
        let origin = Origin {
            listener: index,
            original,
            namespace: self.namespace,
            peer,
        };
        let context = Rc::clone(context);
        let member = context.clients.join(&stream, owner);
        let client = move |stream, certificate| {
            Box::new(Client {
                context,
                member,
                stream,
                origin,
                ahead: None,
                bound: Bound::default(),
                turn: Turn::First,
                tunnel: None,
                certificate,
                seat: Some(seat),
            })
        };
        match tls {
            None => ring::spawn(accepted::serve(client(stream, None), entry)),
            Some(server) => {
                let within = head_timeout(&self.context);
                ring::spawn(async move {
                    // Large, and over soon.
                    let secured = Box::pin(secure(stream, server, within)).await;
                    if let Some(Secured {
                        stream,
                        certificate,
                    }) = secured
                    {
                        accepted::serve(client(stream, Some(certificate)), entry).await;
                    }
                });
            }
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let dialer = self.context.pools.dialer();
            dialer.listens_no_more(self.namespace, address);
        }
        self.context.listener_closed();
    }
}

/// Says in the log, once a second, that callers find no room.
fn tell_of_no_room() {
    static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();
    if TOLD.is_due() {
        tracing::warn!(
            "connections are reset: max_connections of their listener, or of all, is reached"
        );
    }
}

/// Says in the log, once a second, that callers find no memory.
fn tell_of_no_memory() {
    static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();
    if TOLD.is_due() {
        tracing::warn!("connections are reset: memory_limit is reached");
    }
}

/// Resets those that were there a while ago, until nobody is left.
async fn reset_later(turned_away: Rc<RefCell<VecDeque<Stream>>>) {
    let mut known = 0;
    loop {
        timer::sleep(RESET_AFTER).await;
        let mut waiting = turned_away.borrow_mut();
        let old = known.min(waiting.len());
        waiting.drain(..old).for_each(Stream::reset);
        known = waiting.len();
        if known == 0 {
            return;
        }
    }
}

fn find_original(
    stream: &Stream,
    peer: Option<SocketAddr>,
    find: &FindOriginal,
) -> Result<(OriginalDst, u32), NotServed> {
    let local = stream.local_addr().map_err(|_| NotServed::Gone)?;
    let peer = peer.ok_or(NotServed::Gone)?;
    find(&Accepted {
        stream,
        local,
        peer,
    })
    .map(|(original, workload)| (original.canonical(), workload))
}

/// The addresses of this host's interfaces, in the current namespace.
#[expect(unsafe_code, reason = "the standard library cannot list addresses")]
pub(crate) fn host_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success `list` is a linked list that freeifaddrs releases.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: `entry` is a live node of the list until freeifaddrs.
        let node = unsafe { &*entry };
        if let Some(address) = ip_of(node.ifa_addr) {
            addresses.push(address);
        }
        entry = node.ifa_next;
    }
    // SAFETY: the list came from getifaddrs and is released once.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

#[expect(unsafe_code, reason = "reads the sockaddr that getifaddrs returns")]
fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: a non-null ifa_addr points to a sockaddr of the size its family
    // says, alive as long as the list.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let v4 = &*address.cast::<libc::sockaddr_in>();
                Some(IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes()))
            }
            libc::AF_INET6 => {
                let v6 = &*address.cast::<libc::sockaddr_in6>();
                Some(IpAddr::from(v6.sin6_addr.s6_addr))
            }
            _ => None,
        }
    }
}

impl Accepted<'_> {
    /// The socket, for what only the kernel knows of it.
    pub fn socket(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
