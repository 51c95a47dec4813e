use std::io;

use super::*;
use crate::clock;
use crate::proxy::answer::ExchangeError;
use crate::proxy::heads::ended_or;
use crate::ring::{Gather, SendError};
use crate::telemetry::{ListenerIndex, Passage, RequestRecord};
use crate::upstream::pool::CheckoutError;

/// What no peer can bring about.
const SHORTAGES: [i32; 7] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::ENOBUFS,
    libc::ENOSPC,
    libc::EADDRNOTAVAIL,
    libc::EAGAIN,
];

/// What peers and the way to them do.
const FAILURES: [i32; 7] = [
    libc::ECONNRESET,
    libc::ECONNREFUSED,
    libc::EPIPE,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ECONNABORTED,
];

/// A send that failed before, or amid, what was to be sent.
fn send(errno: i32, unsent: Option<Gather>) -> ExchangeError {
    ExchangeError::of_send(SendError {
        source: io::Error::from_raw_os_error(errno),
        sent: usize::from(unsent.is_none()),
        unsent: unsent.map(Box::new),
    })
}

/// How a connection fails by `errno`, wherever it does.
fn of_upstream(errno: i32) -> [Unanswered; 4] {
    let error = || io::Error::from_raw_os_error(errno);
    let exchanges = [
        send(errno, Some(Gather::default())),
        send(errno, None),
        ended_or(Err(error())).expect_err("it has failed"),
    ];
    let [whole, part, received] = exchanges.map(|error| match Failure::of(&error) {
        Failure::Unanswered(unanswered) => unanswered,
        other => panic!("{other:?}"),
    });
    let dial = CheckoutError::Dial(DialError::Connect(error()));
    let dialled = Unanswered::without_connection(&dial);
    [whole, part, received, dialled]
}

#[test]
fn a_shortage_of_this_machine_counts_for_nobody() {
    for errno in SHORTAGES {
        for failed in of_upstream(errno) {
            assert_eq!(failed.reason, Reason::Overloaded, "{errno}");
            assert_eq!(failed.fault, Fault::Machine, "{errno}");
            assert_eq!((failed.cause, failed.score()), (None, None), "{errno}");
            assert_eq!(failed.outcome, AttemptOutcome::Overloaded, "{errno}");
        }
        let client = ExchangeError::of_client(&io::Error::from_raw_os_error(errno));
        assert!(matches!(client, ExchangeError::Shortage), "{errno}");
    }
    let none = DialError::Socket(io::ErrorKind::TimedOut.into());
    let failed = Unanswered::without_connection(&CheckoutError::Dial(none));
    assert_eq!((failed.reason, failed.score()), (Reason::Overloaded, None));
}

#[test]
fn what_a_peer_does_is_its_own_failure() {
    for errno in FAILURES {
        for failed in of_upstream(errno) {
            assert_ne!(failed.reason, Reason::Overloaded, "{errno}");
            assert_eq!(failed.fault, Fault::Endpoint, "{errno}");
            assert_eq!(failed.score(), Some(Score::Failure), "{errno}");
        }
        let client = ExchangeError::of_client(&io::Error::from_raw_os_error(errno));
        assert!(matches!(client, ExchangeError::ClientGone), "{errno}");
    }
}

#[test]
fn a_dead_connection_is_told_from_a_shortage() {
    let passage = Passage::new(ListenerIndex::CAPTURE, clock::now());
    let record = RequestRecord::new(passage);
    let progress = crate::proxy::progress::Progress::new(&record, None);
    let dead = |errno| send(errno, None).may_be_a_dead_connection(&progress);
    assert!(dead(libc::ECONNRESET) && dead(libc::EPIPE));
    assert!(!SHORTAGES.into_iter().any(dead));
}
