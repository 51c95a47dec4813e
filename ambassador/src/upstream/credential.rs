//! The credential of an upstream: fetched by the control side, read by the shards on
//! the way of each request, without a lock.
//!
//! It belongs to one `auth` of the configuration, not to the name of the upstream: a
//! reload that changes `auth` makes another one, and requests in flight keep theirs.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use crate::clock::Instant;
use crate::credential::Credential;
use crate::credential::settings::Auth;

/// Requests that may wait for a credential at once; further ones do without.
const WAITING_MAX: usize = 4096;

/// How soon a credential may be fetched again because the upstream refuses it: one
/// that refuses every credential must not make its source busy.
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// What requests get, and what is known of how it is fetched.
pub struct UpstreamCredential {
    /// Where it comes from.
    pub(crate) auth: Arc<Auth>,
    current: ArcSwapOption<Issued>,
    /// Not on the way of a request that has a credential.
    fetching: Mutex<Fetching>,
}

/// A credential as it was fetched.
#[derive(Debug)]
pub(crate) struct Issued {
    /// What requests get.
    credential: Credential,
    /// Tells it from others: a later one has a higher number.
    number: u64,
    /// Until when; `None`: until there is another one.
    expires: Option<Instant>,
}

/// One that is valid, for as long as it takes to write a head.
pub(crate) struct ValidCredential(Guard<Option<Arc<Issued>>>);

/// What a fetched credential is beside the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IssueOutcome {
    /// Another one, or the first.
    Replaced,
    /// The same, which may be valid for longer.
    Unchanged,
}

/// Whether another credential is there, in place of one that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// There is another one.
    Done,
    /// There is none, or not yet.
    Failed,
}

#[derive(Default)]
struct Fetching {
    /// Why it was fetched in vain, since it was fetched last.
    failure: Option<Arc<str>>,
    /// Requests that wait for the end of a fetch.
    waiting: Vec<Waker>,
    /// The number of a refused one that is to be replaced.
    refused: Option<u64>,
    /// When the next one may be replaced for that.
    renewable_at: Option<Instant>,
    /// Who fetches.
    fetcher: Option<Waker>,
}

/// What there is to tell of a credential, without the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CredentialView {
    /// Which kind.
    pub kind: &'static str,
    /// Whether requests get it.
    pub state: CredentialState,
    /// How long it is valid; `None`: until there is another one.
    pub expires_in: Option<Duration>,
    /// Why the last fetch failed.
    pub failure: Option<Arc<str>>,
}

/// Whether requests get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialState {
    /// It is fetched for the first time.
    Pending,
    /// They do.
    Valid,
    /// Its time is over.
    Expired,
    /// There is none.
    Failed,
}

impl CredentialState {
    /// Its word in the admin API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Failed => "failed",
        }
    }
}

impl ValidCredential {
    /// What requests get.
    pub(crate) fn credential(&self) -> Option<&Credential> {
        Some(&self.0.as_ref()?.credential)
    }

    /// Which one it is.
    pub(crate) fn number(&self) -> u64 {
        self.0.as_ref().map_or(0, |issued| issued.number)
    }
}

impl Issued {
    fn is_valid(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl UpstreamCredential {
    /// None was fetched yet.
    pub(crate) fn new(auth: &Arc<Auth>) -> Self {
        Self {
            auth: Arc::clone(auth),
            current: ArcSwapOption::empty(),
            fetching: Mutex::default(),
        }
    }

    /// What requests get now; `None`: nothing that is valid.
    pub(crate) fn valid(&self, now: Instant) -> Option<ValidCredential> {
        let current = self.current.load();
        let is_valid = current.as_ref().is_some_and(|issued| issued.is_valid(now));
        is_valid.then_some(ValidCredential(current))
    }

    /// Which one is valid; 0: none is.
    pub(crate) fn number(&self, now: Instant) -> u64 {
        self.valid(now).map_or(0, |valid| valid.number())
    }

    /// Whether there is one that is valid.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        self.valid(now).is_some()
    }

    /// Until there is one, or it is known that there is none. `now` tells the time.
    pub(crate) async fn settled(&self, now: impl Fn() -> Instant) {
        poll_fn(|context| {
            if self.is_valid(now()) {
                return Poll::Ready(());
            }
            let mut fetching = self.fetching();
            // It may have come since.
            if self.is_valid(now()) || fetching.failure.is_some() {
                return Poll::Ready(());
            }
            fetching.wait(context.waker())
        })
        .await;
    }

    /// Requests get this one from now on.
    pub(crate) fn issue(&self, credential: Credential, expires: Option<Instant>) -> IssueOutcome {
        let (outcome, waiting) = {
            let mut fetching = self.fetching();
            let before = self.current.load();
            let (outcome, number) = match before.as_ref() {
                Some(before) if before.credential == credential => {
                    (IssueOutcome::Unchanged, before.number)
                }
                Some(before) => (IssueOutcome::Replaced, before.number + 1),
                None => (IssueOutcome::Replaced, 1),
            };
            let issued = Issued {
                credential,
                number,
                expires,
            };
            self.current.store(Some(Arc::new(issued)));
            fetching.failure = None;
            (outcome, fetching.end())
        };
        waiting.into_iter().for_each(Waker::wake);
        outcome
    }

    /// It was fetched in vain; the one before stays, as long as it is valid. `why`
    /// holds nothing secret.
    pub(crate) fn fail(&self, why: &str) {
        let waiting = {
            let mut fetching = self.fetching();
            fetching.failure = Some(why.into());
            fetching.end()
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The upstream has refused the one of this number: has another one fetched, once
    /// for all who say so.
    pub(crate) fn refuse(&self, number: u64, now: Instant) {
        let mut fetching = self.fetching();
        let is_due = fetching.renewable_at.is_none_or(|at| at <= now);
        if fetching.refused.is_some() || !is_due || self.has_newer(number, now) {
            return;
        }
        fetching.refused = Some(number);
        fetching.renewable_at = Some(now + RENEWED_EVERY);
        if let Some(fetcher) = fetching.fetcher.take() {
            fetcher.wake();
        }
    }

    /// Until there is another one than that of this number, which was refused, or it
    /// is known that there will be none. `now` tells the time.
    pub(crate) async fn renewed(&self, number: u64, now: impl Fn() -> Instant) -> Renewal {
        poll_fn(|context| {
            let mut fetching = self.fetching();
            if self.has_newer(number, now()) {
                return Poll::Ready(Renewal::Done);
            }
            match fetching.refused {
                Some(_) => fetching.wait(context.waker()).map(|()| Renewal::Failed),
                None => Poll::Ready(Renewal::Failed),
            }
        })
        .await
    }

    fn has_newer(&self, number: u64, now: Instant) -> bool {
        self.valid(now).is_some_and(|valid| valid.number() > number)
    }

    /// Until the upstream has refused the present one, for who fetches.
    pub(crate) async fn refused(&self) {
        poll_fn(|context| {
            let mut fetching = self.fetching();
            match fetching.refused {
                Some(_) => Poll::Ready(()),
                None => {
                    fetching.fetcher = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// How long it is still valid; `None`: without an end, or there is none.
    pub(crate) fn expires_in(&self, now: Instant) -> Option<Duration> {
        let current = self.current.load();
        let expires = current.as_ref()?.expires?;
        Some(expires.saturating_duration_since(now))
    }

    /// What there is to tell of it.
    pub(crate) fn view(&self, now: Instant) -> CredentialView {
        let failure = self.fetching().failure.clone();
        let state = match (self.current.load().as_ref(), &failure) {
            (Some(issued), _) if issued.is_valid(now) => CredentialState::Valid,
            (Some(_), _) => CredentialState::Expired,
            (None, Some(_)) => CredentialState::Failed,
            (None, None) => CredentialState::Pending,
        };
        CredentialView {
            kind: self.auth.kind(),
            state,
            expires_in: self.expires_in(now),
            failure,
        }
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        // Every critical section leaves it whole.
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetching {
    /// Has this task told of the end of the fetch, where there is room.
    fn wait(&mut self, waker: &Waker) -> Poll<()> {
        if self.waiting.iter().any(|waits| waits.will_wake(waker)) {
            return Poll::Pending;
        }
        if self.waiting.len() >= WAITING_MAX {
            return Poll::Ready(());
        }
        self.waiting.push(waker.clone());
        Poll::Pending
    }

    /// Those to tell.
    fn end(&mut self) -> Vec<Waker> {
        self.refused = None;
        std::mem::take(&mut self.waiting)
    }
}
