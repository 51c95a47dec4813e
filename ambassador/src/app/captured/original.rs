//! Where an accepted connection was going, and whether it may be served.

use std::net::SocketAddr;

use crate::capture::{Accepted, TokenTable, iptables};
use crate::shard::accept::{FindOriginal, NotServed};
use crate::telemetry::DroppedAccept;
use crate::upstream::dial::Namespace;
use crate::workload::LocalAddresses;

/// Bits of a workload's number that say which it is of its namespace; those
/// above say which namespace.
pub(super) const POSITION_BITS: u32 = 16;

/// By the token that the programs put in place of the destination.
pub(super) fn by_token(
    table: TokenTable,
    namespace: Namespace,
    here: LocalAddresses,
) -> FindOriginal {
    Box::new(move |accepted| match table.lookup(accepted.local) {
        Ok(Accepted::Canary) => Err(NotServed::Canary),
        Ok(Accepted::Token(token)) if token.workload >> POSITION_BITS == u32::from(namespace.0) => {
            check_peer(accepted.peer, &here).map(|()| (token.destination, token.workload))
        }
        // No token, or one of another namespace.
        Ok(Accepted::Token(_) | Accepted::Foreign) | Err(_) => {
            Err(NotServed::Refused(DroppedAccept::UnknownToken))
        }
    })
}

/// By what the REDIRECT rules have noted.
pub(super) fn by_redirect(namespace: Namespace, here: LocalAddresses) -> FindOriginal {
    Box::new(move |accepted| {
        check_peer(accepted.peer, &here)?;
        match iptables::original_dst(accepted.socket(), accepted.local) {
            // All of a namespace count as one.
            Ok(Some(original)) => Ok((original, u32::from(namespace.0) << POSITION_BITS)),
            Ok(None) | Err(_) => Err(NotServed::Refused(DroppedAccept::NoOriginalDst)),
        }
    })
}

/// A captured connection comes from the namespace itself. A token is worth its
/// upstream's credentials and is not honoured for anyone else.
fn check_peer(peer: SocketAddr, here: &LocalAddresses) -> Result<(), NotServed> {
    let ip = peer.ip().to_canonical();
    match ip.is_loopback() || here.has(ip) {
        true => Ok(()),
        false => Err(NotServed::Refused(DroppedAccept::ForeignPeer)),
    }
}
