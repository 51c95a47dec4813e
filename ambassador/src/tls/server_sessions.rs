//! The sessions that a server lets its clients take up again: none past the end of the
//! certificate that it has shown for them.

use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    ProducesTickets, ServerConfig, ServerSessionMemoryCache, StoresServerSessions,
};

use crate::clock;

/// What is kept for clients that take no tickets.
const SESSIONS_MAX: usize = 256;

/// The sessions that were agreed upon with one certificate. Tickets are encrypted with a
/// key that is made anew for each, so what was agreed upon with an earlier certificate,
/// or before a list of revoked ones, is not taken up.
#[derive(Debug)]
struct ServerSessions {
    tickets: Arc<dyn ProducesTickets>,
    kept: Arc<dyn StoresServerSessions>,
    /// The last second in which the certificate is valid, since 1970; `None`: it is not
    /// known.
    not_after: Option<u64>,
}

/// Has a configuration let sessions be taken up again until a time, in seconds since 1970.
///
/// # Errors
/// Where there is no randomness for a key.
pub(super) fn allow(config: &mut ServerConfig, not_after: Option<u64>) -> Result<(), Error> {
    let sessions = Arc::new(ServerSessions {
        tickets: Ticketer::new()?,
        kept: ServerSessionMemoryCache::new(SESSIONS_MAX),
        not_after,
    });
    config.ticketer = Arc::clone(&sessions) as Arc<dyn ProducesTickets>;
    config.session_storage = sessions;
    Ok(())
}

impl ServerSessions {
    /// For how many seconds more.
    fn left(&self) -> u64 {
        let end = self.not_after.unwrap_or(u64::MAX);
        end.saturating_add(1)
            .saturating_sub(clock::unix_ms() / 1_000)
    }

    fn unless_ended(&self, session: Option<Vec<u8>>) -> Option<Vec<u8>> {
        session.filter(|_| self.left() > 0)
    }
}

impl ProducesTickets for ServerSessions {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = u32::try_from(self.left()).unwrap_or(u32::MAX);
        self.tickets.lifetime().min(left)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.unless_ended(self.tickets.encrypt(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.unless_ended(self.tickets.decrypt(cipher))
    }
}

impl StoresServerSessions for ServerSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unless_ended(self.kept.get(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unless_ended(self.kept.take(key))
    }

    fn can_cache(&self) -> bool {
        self.kept.can_cache()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(not_after: Option<u64>) -> ServerSessions {
        ServerSessions {
            tickets: Ticketer::new().unwrap(),
            kept: ServerSessionMemoryCache::new(SESSIONS_MAX),
            not_after,
        }
    }

    #[test]
    fn a_session_is_taken_up_until_the_certificate_ends() {
        let now = clock::unix_ms() / 1_000;
        for not_after in [None, Some(now + 60)] {
            let sessions = sessions(not_after);
            let ticket = sessions.encrypt(b"session").unwrap();
            assert_eq!(sessions.decrypt(&ticket).unwrap(), b"session");
            assert!(sessions.put(b"id".to_vec(), b"session".to_vec()));
            assert_eq!(sessions.get(b"id").unwrap(), b"session");
            assert_eq!(sessions.take(b"id").unwrap(), b"session");
        }
        assert!((1..=61).contains(&sessions(Some(now + 60)).lifetime()));
        let mut sessions = sessions(Some(now + 60));
        let ticket = sessions.encrypt(b"session").unwrap();
        sessions.put(b"id".to_vec(), b"session".to_vec());
        sessions.not_after = Some(now - 1);
        assert_eq!(sessions.decrypt(&ticket), None);
        assert_eq!(sessions.encrypt(b"session"), None);
        assert_eq!(sessions.get(b"id"), None);
        assert_eq!(sessions.take(b"id"), None);
        assert_eq!(sessions.lifetime(), 0);
    }
}
