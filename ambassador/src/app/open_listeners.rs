//! Explicit listeners: their sockets, one per shard.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::{Failure, advice};
use crate::addr::BindAddr;
use crate::clock;
use crate::config::checked::{Listener, ListenerProtocol};
use crate::config::{Certificates, Checked};
use crate::proxy::listener::Entry;
use crate::proxy::room::Room;
use crate::ring;
use crate::shard::accept::ListenSocket;
use crate::telemetry::{ListenerIndex, Registry};
use crate::tls::Server;
use crate::upstream::dial::Namespace;
use crate::workload::unix_socket::listen_privately;
use crate::workload::{self, BindSpec, Reach, sockets};

/// A listener that accepts.
pub(super) struct OpenListener {
    /// What metrics call it.
    pub index: ListenerIndex,
    /// Where it really listens, where that is TCP.
    pub address: Option<SocketAddr>,
    /// One per shard that accepts on it, by shard.
    pub sockets: Vec<OwnedFd>,
    /// What its connections are.
    pub entry: Entry,
    /// For how many of them there is room.
    pub room: Arc<Room>,
    /// What they are encrypted with.
    pub tls: Option<Arc<Server>>,
}

/// Opens the listeners of `checked` that `wanted` selects.
pub(super) fn open(
    checked: &Checked,
    certificates: &Certificates,
    registry: &Registry,
    shards: u16,
    wanted: impl Fn(&Listener) -> bool,
) -> Result<Vec<OpenListener>, Failure> {
    let until = clock::now() + sockets::FREE_WITHIN;
    checked
        .listeners
        .iter()
        .filter(|listener| wanted(listener))
        .map(|listener| {
            let what = format!("listener {}", listener.name);
            let sockets = match &listener.bind {
                BindAddr::Tcp(address) => {
                    sockets::once_free(address, until, || tcp(*address, shards))
                }
                BindAddr::Unix(path) => unix(path, shards),
            };
            let sockets =
                sockets.map_err(|error| advice::cannot_listen(&what, &listener.bind, &error))?;
            Ok(OpenListener {
                index: registry.listener(&listener.name),
                address: local_address(&sockets),
                sockets,
                entry: entry(checked, listener),
                room: Room::new(listener.max_connections),
                tls: certificates.of_listener(&listener.name).cloned(),
            })
        })
        .collect()
}

/// What the connections of a listener are.
pub(super) fn entry(checked: &Checked, listener: &Listener) -> Entry {
    match (listener.protocol, listener.upstream) {
        (ListenerProtocol::Tcp, Some(upstream)) => {
            Entry::Tcp(Arc::clone(&checked.routes.upstreams[upstream].name))
        }
        _ => Entry::Http,
    }
}

/// Sockets of one port, one per shard, with connections steered to the shard
/// of the CPU that connects.
pub(super) fn tcp(address: SocketAddr, shards: u16) -> io::Result<Vec<OwnedFd>> {
    let sockets = sockets::listen(&BindSpec {
        addr: address,
        count: shards,
        v6_only: false,
        transparent: false,
        reach: Reach::Anywhere,
    })?;
    steer(&sockets);
    Ok(sockets)
}

/// Steers by CPU where there is a choice, and a CPU for each. Without it the
/// kernel spreads by hash, which costs speed only.
pub(super) fn steer(sockets: &[OwnedFd]) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if sockets.len() > cpus {
        return;
    }
    if let [first, _, ..] = sockets
        && let Err(error) = ring::steer_by_cpu(first.as_fd(), sockets.len() as u16)
    {
        tracing::warn!(%error, "connections are not steered to the CPU that made them");
    }
}

/// A unix listener, mode 0600, shared by the shards. Once its privileges are
/// gone, this process may neither set that mode nor move a file into place.
fn unix(path: &Path, shards: u16) -> io::Result<Vec<OwnedFd>> {
    if workload::is_confined() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let first = OwnedFd::from(listen_privately(path)?);
    let mut sockets = Vec::with_capacity(usize::from(shards));
    for _ in 1..shards {
        sockets.push(first.try_clone()?);
    }
    sockets.push(first);
    Ok(sockets)
}

/// The address of a TCP listener.
pub(super) fn local_address(sockets: &[OwnedFd]) -> Option<SocketAddr> {
    let copy = sockets.first()?.try_clone().ok()?;
    std::net::TcpListener::from(copy).local_addr().ok()
}

impl OpenListener {
    /// Splits it into what each shard gets.
    pub(super) fn listen_sockets(self) -> Vec<ListenSocket> {
        let (index, entry, room, tls) = (self.index, self.entry, self.room, self.tls);
        self.sockets
            .into_iter()
            .map(|socket| ListenSocket {
                socket,
                index,
                entry: entry.clone(),
                room: Arc::clone(&room),
                tls: tls.clone(),
                original: None,
                namespace: Namespace::default(),
            })
            .collect()
    }
}
