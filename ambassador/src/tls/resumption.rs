//! The sessions that a client may take up again: none whose server has shown a
//! certificate that has come to its end.
//!
//! A session that is taken up again is not verified again, and each has tickets for
//! further ones. Without an end they would outlast any certificate.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

use super::certificate;
use crate::clock;

/// What is kept of one upstream: up to 8 tickets of each server.
const TICKETS_MAX: usize = 256;

/// Servers whose certificates are known: those that have tickets.
const SERVERS_MAX: usize = TICKETS_MAX / 8;

/// The sessions of one client, in memory.
#[derive(Debug)]
pub(super) struct Resumption {
    sessions: ClientSessionMemoryCache,
    /// Until when the certificates of a server are valid, that of the first to end, in
    /// seconds since 1970.
    ends: Mutex<HashMap<ServerName<'static>, u64>>,
}

impl Resumption {
    pub(super) fn new() -> Self {
        Self {
            sessions: ClientSessionMemoryCache::new(TICKETS_MAX),
            ends: Mutex::default(),
        }
    }

    /// A server has shown this certificate, and it is good.
    pub(super) fn verified(&self, server: &ServerName<'_>, certificate: &[u8]) {
        let Some(end) = certificate::not_after(certificate) else {
            return;
        };
        let (server, now) = (server.to_owned(), now());
        let mut ends = self.ends();
        // Endpoints of one name may have a certificate each.
        let earlier = ends.get(&server).copied().filter(|end| *end >= now);
        if ends.len() >= SERVERS_MAX && earlier.is_none() {
            let another = ends.keys().next().cloned();
            another.map(|another| ends.remove(&another));
        }
        ends.insert(server, earlier.unwrap_or(end).min(end));
    }

    /// Whether the sessions with a server may still be taken up. Where not, they are
    /// forgotten.
    fn may_be_taken_up(&self, server: &ServerName<'_>) -> bool {
        let server = server.to_owned();
        let end = self.ends().get(&server).copied();
        if end.is_some_and(|end| end >= now()) {
            return true;
        }
        self.sessions.remove_tls12_session(&server);
        while self.sessions.take_tls13_ticket(&server).is_some() {}
        false
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, u64>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    clock::unix_ms() / 1_000
}

impl ClientSessionStore for Resumption {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        if self.may_be_taken_up(&server) {
            self.sessions.set_tls12_session(server, session);
        }
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let session = self.sessions.tls12_session(server);
        session.filter(|_| self.may_be_taken_up(server))
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.sessions.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        if self.may_be_taken_up(&server) {
            self.sessions.insert_tls13_ticket(server, ticket);
        }
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.sessions.take_tls13_ticket(server);
        ticket.filter(|_| self.may_be_taken_up(server))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn until(year: i32) -> Vec<u8> {
        let mut wanted = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        wanted.not_after = date_time_ymd(year, 1, 1);
        let certificate = wanted.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate.der().to_vec()
    }

    fn name(name: &str) -> ServerName<'static> {
        ServerName::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn sessions_last_as_long_as_the_first_certificate_that_ends() {
        let resumption = Resumption::new();
        let (a, b) = (name("a.example"), name("b.example"));
        assert!(!resumption.may_be_taken_up(&a));
        resumption.verified(&a, &until(4000));
        assert!(resumption.may_be_taken_up(&a));
        assert!(!resumption.may_be_taken_up(&b));
        resumption.verified(&a, &until(2020));
        assert!(!resumption.may_be_taken_up(&a));
        // One that has ended says nothing of the next.
        resumption.verified(&a, &until(4000));
        assert!(resumption.may_be_taken_up(&a));
    }

    #[test]
    fn so_many_servers_are_known_and_no_more() {
        let resumption = Resumption::new();
        let certificate = until(4000);
        for number in 0..3 * SERVERS_MAX {
            let server = name(&format!("n{number}.example"));
            resumption.verified(&server, &certificate);
            assert!(resumption.may_be_taken_up(&server));
        }
        assert_eq!(resumption.ends().len(), SERVERS_MAX);
    }
}
